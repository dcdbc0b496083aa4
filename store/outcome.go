package store

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// What is done when etcd gives no answer. A read is asked again, of another member. A write may have been done, may never be, or
// may be done later, when a message that waits somewhere arrives; so the store does not guess:
//
//	write(record absent -> ..., record put)       no answer
//	fence(record absent -> record put, void)      done: the write will never be done, and is decided anew
//	                                              refused: the record is there, the write was done, at its revision
//	                                              no answer: unknown, and said to be so
//
// The record is the audit record of the write, whose key no other write has.

const (
	// attemptTime bounds one try of a request that another one can follow: a member that hangs must not take the time in which the
	// others could answer.
	attemptTime = 3 * time.Second
	// attemptPause is between two tries.
	attemptPause = 50 * time.Millisecond
	// readPatience is how long a read that gets no answer is asked again, from the end of its first try, which may have met a member that hangs: a
	// cluster that lost its leader has another one after one to two seconds (etcd's election timeout).
	readPatience = 2 * time.Second
)

// read reads ranges at one revision. A member that is away does not fail it while another one answers.
func (s *Store) read(ctx context.Context, gets []clientv3.Op) (*clientv3.TxnResponse, error) {
	var until time.Time
	for {
		once, cancel := context.WithTimeout(ctx, attemptTime)
		resp, err := s.cli.Txn(once).Then(gets...).Commit()
		cancel()
		if until.IsZero() {
			until = time.Now().Add(readPatience)
		}
		if err == nil || !away(err) || time.Now().After(until) || !rest(ctx, attemptPause) {
			return resp, err
		}
	}
}

// rest waits, and reports whether ctx lives on.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// outcome finds out what became of a write that met an error: done at a revision, not done and never to be (no error: decide it
// anew), refused, or unknown. Quiet edits have no record, and whoever makes them can make them again.
func (s *Store) outcome(ctx context.Context, err error, e *edit, record string, began time.Time) (etcd int64, done bool, _ error) {
	full := errors.Is(err, rpctypes.ErrNoSpace)
	if record == "" || !full && !away(err) {
		return 0, false, s.failure(err, began)
	}
	for ctx.Err() == nil {
		settled, rev, ferr := s.fence(ctx, record, full)
		switch {
		case settled && rev != 0:
			s.kick()
			return rev, true, nil
		case settled && full:
			return 0, false, s.failure(err, began)
		case settled:
			return 0, false, nil
		case errors.Is(ferr, rpctypes.ErrNoSpace):
			full = true // nothing can be put any more: what is not there now was refused
		case !away(ferr):
			return 0, false, s.unknown(ferr, e, began)
		}
		rest(ctx, attemptPause)
	}
	return 0, false, s.unknown(err, e, began)
}

// fence settles whether the write with that record was done: rev is etcd's revision of it, or 0 when it was not and never will be. A
// full etcd takes no fence, and needs none: it does a write that meets the quota before it says so, or never (its quota applier).
func (s *Store) fence(ctx context.Context, record string, full bool) (settled bool, rev int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	if full {
		resp, err := s.cli.Get(ctx, record)
		if err != nil || len(resp.Kvs) == 0 {
			return err == nil, 0, err
		}
		return true, resp.Kvs[0].ModRevision, nil
	}
	resp, err := s.cli.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(record), "=", 0)).
		Then(clientv3.OpPut(record, encode(AuditRecord{Time: time.Now().UTC(), What: voided})), clientv3.OpPut(s.keys.head(), "")).
		Else(clientv3.OpGet(record)).
		Commit()
	if err != nil || resp.Succeeded {
		return err == nil, 0, err
	}
	kv := resp.Responses[0].GetResponseRange().Kvs[0]
	r, err := decode[AuditRecord](kv)
	if err != nil {
		return false, 0, err
	}
	if r.What == voided { // by a try of this fence whose answer was lost
		return true, 0, nil
	}
	return true, kv.ModRevision, nil
}

// unknown says that nobody knows whether the edit was done.
func (s *Store) unknown(err error, e *edit, began time.Time) error {
	return &UnknownError{What: e.what + " " + e.object, Err: &UnavailableError{Endpoints: s.endpoints(), Tried: time.Since(began), Err: err}}
}
