package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weftnet/weft/model"
)

type keyValue = mvccpb.KeyValue

// view is what a write is decided upon: some keys and ranges at one revision.
type view struct {
	meta   meta
	rev    int64 // etcd's
	ranges []*clientv3.GetResponse
}

// head is the revision of the last write to the store, in a view whose first range is the head's record.
func (v *view) head() model.Revision {
	last := v.meta.mod
	if kv := v.one(0); kv != nil {
		last = max(last, kv.ModRevision)
	}
	return v.meta.revision(last)
}

// one is the only key of the i-th range, or nil.
func (v *view) one(i int) *keyValue {
	if kvs := v.ranges[i].Kvs; len(kvs) > 0 {
		return kvs[0]
	}
	return nil
}

func (v *view) all(i int) []*keyValue { return v.ranges[i].Kvs }

// look reads ranges at one revision, with the meta record. It refuses while a restore has not ended.
func (s *Store) look(ctx context.Context, gets ...clientv3.Op) (*view, error) {
	v, err := s.peek(ctx, gets...)
	if err == nil && !v.meta.Restoring.IsZero() {
		return nil, &InterruptedError{v.meta.Restoring}
	}
	return v, err
}

// peek is look that does not mind an interrupted restore.
func (s *Store) peek(ctx context.Context, gets ...clientv3.Op) (*view, error) {
	began := time.Now()
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	resp, err := s.read(ctx, append([]clientv3.Op{clientv3.OpGet(s.keys.meta())}, gets...))
	if err != nil {
		return nil, s.failure(err, began)
	}
	v := &view{rev: resp.Header.Revision}
	for _, r := range resp.Responses {
		v.ranges = append(v.ranges, (*clientv3.GetResponse)(r.GetResponseRange()))
	}
	if v.one(0) == nil {
		return nil, errors.New("the store's meta record is gone: somebody emptied etcd; restore a backup")
	}
	if v.meta, err = decodeMeta(v.one(0)); err != nil {
		return nil, err
	}
	v.ranges = v.ranges[1:]
	s.learn(v.meta)
	return v, nil
}

// bounded gives one request its time, and ends it when the store is closed.
func (s *Store) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	stop := context.AfterFunc(s.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// edit is a transaction in the making: what it does, and what must still be so when it does it.
type edit struct {
	cmps []clientv3.Cmp
	ops  []clientv3.Op
	// meta at which it was decided.
	meta meta
	rev  int64
	// quiet edits leave no audit record.
	quiet bool
	// what was done to which object, for the audit trail.
	what, object string
}

func (v *view) edit(what, object string) *edit {
	return &edit{meta: v.meta, rev: v.rev, what: what, object: object}
}

// absent: the key must not exist.
func (e *edit) absent(key string) {
	e.cmps = append(e.cmps, clientv3.Compare(clientv3.CreateRevision(key), "=", 0))
}

// present: the key must exist.
func (e *edit) present(key string) {
	e.cmps = append(e.cmps, clientv3.Compare(clientv3.CreateRevision(key), ">", 0))
}

// same: the key must be as it was seen; nil is absent.
func (e *edit) same(key string, kv *keyValue) {
	var mod int64
	if kv != nil {
		mod = kv.ModRevision
	}
	e.cmps = append(e.cmps, clientv3.Compare(clientv3.ModRevision(key), "=", mod))
}

// empty: there must be nothing below the prefix. etcd compares an empty range as one key created at revision 0.
func (e *edit) empty(prefix string) {
	e.cmps = append(e.cmps, clientv3.Compare(clientv3.CreateRevision(prefix).WithPrefix(), "=", 0))
}

// unwritten: nothing below the prefix may have been written since the edit was decided. Deletions go unseen.
func (e *edit) unwritten(prefix string) {
	e.cmps = append(e.cmps, clientv3.Compare(clientv3.ModRevision(prefix).WithPrefix(), "<", e.rev+1))
}

func (e *edit) put(key string, value any) { e.ops = append(e.ops, clientv3.OpPut(key, encode(value))) }
func (e *edit) remove(key string)         { e.ops = append(e.ops, clientv3.OpDelete(key)) }
func (e *edit) removeBelow(prefix string) {
	e.ops = append(e.ops, clientv3.OpDelete(prefix, clientv3.WithPrefix()))
}
func (e *edit) changesNothing() bool { return len(e.ops) == 0 }
func get(key string) clientv3.Op     { return clientv3.OpGet(key) }
func list(prefix string) clientv3.Op { return clientv3.OpGet(prefix, clientv3.WithPrefix()) }
func count(prefix string) clientv3.Op {
	return clientv3.OpGet(prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
}
func names(prefix string) clientv3.Op {
	return clientv3.OpGet(prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
}

// write decides an edit and does it. An edit that lost a race is decided anew, so that its decider sees what it lost
// against and names it. A nil edit means that there is nothing to do, and the revision is 0.
func (s *Store) write(ctx context.Context, decide func(context.Context) (*edit, error)) (model.Revision, error) {
	for range attemptLimit {
		e, err := decide(ctx)
		if err != nil || e == nil || e.changesNothing() {
			return 0, err
		}
		rev, done, err := s.commit(ctx, e)
		if err != nil || done {
			return rev, err
		}
	}
	return 0, model.Errorf(model.Busy, "", "try again", "nothing was done: other writes got in between %d times", attemptLimit)
}

// commit does the edit if all that it was decided upon is still so. Not done and no error is a lost race.
func (s *Store) commit(ctx context.Context, e *edit) (rev model.Revision, done bool, err error) {
	if e.what == "create" && s.full.Load() {
		return 0, false, model.Errorf(model.Exhausted, "", "delete what is not needed, or raise the quota",
			"the store is close to its quota, and creates nothing more; what is there goes on, and can be changed and deleted")
	}
	began := time.Now()
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	cmps := append(e.cmps, clientv3.Compare(clientv3.ModRevision(s.keys.meta()), "=", e.meta.mod))
	ops, record, limit := append(e.ops, clientv3.OpPut(s.keys.head(), "")), "", s.cfg.Timeout
	if !e.quiet {
		record, limit = s.keys.audit(began, newSuffix()), attemptTime
		cmps = append(cmps, clientv3.Compare(clientv3.CreateRevision(record), "=", 0))
		ops = append(ops, clientv3.OpPut(record, encode(AuditRecord{Time: began.UTC(), Who: actor(ctx), What: e.what, Object: e.object})))
	}
	once, cancelOnce := context.WithTimeout(ctx, limit)
	defer cancelOnce()
	resp, err := s.cli.Txn(once).If(cmps...).Then(ops...).Commit()
	if err != nil {
		etcd, done, err := s.outcome(ctx, err, e, record, began)
		return e.meta.revision(etcd), done, err
	}
	if !resp.Succeeded {
		return 0, false, nil
	}
	s.weigh(ops)
	return e.meta.revision(resp.Header.Revision), true, nil
}

// weigh counts what was written, and has the upkeep look after a sixty-fourth of the quota.
func (s *Store) weigh(ops []clientv3.Op) {
	octets := int64(0)
	for _, op := range ops {
		octets += int64(len(op.KeyBytes()) + len(op.ValueBytes()))
	}
	if s.written.Add(octets) > s.cfg.QuotaOctets/64 {
		s.kick()
	}
}

func decode[T any](kv *keyValue) (*T, error) {
	v := new(T)
	if err := json.Unmarshal(kv.Value, v); err != nil {
		return nil, fmt.Errorf("the store's record %s is not readable: %w", kv.Key, err)
	}
	return v, nil
}

func unchanged(kv *keyValue, v any) bool { return string(kv.Value) == encode(v) }

// stale refuses an update that was based on another version than the current one.
func stale(v *view, kv *keyValue, based model.Revision, what string) error {
	if current := v.meta.revision(kv.ModRevision); current != based {
		return model.Errorf(model.Stale, "revision", "read it again, and repeat the change on what it is now",
			"%s is at revision %d, and the change was based on %d", what, current, based)
	}
	return nil
}

func missing(field, what, list string) error {
	return model.Errorf(model.NotFound, field, "list what there is with `"+list+"`", "there is no %s", what)
}

// takenOrOwn refuses a name that is taken, unless what has it is what an earlier try of the same creation made (it has the uid in
// own): that is read into the object.
func takenOrOwn[T any](v *view, kv *keyValue, object *T, own *model.Meta, what string) error {
	there, err := decode[struct{ model.Meta }](kv)
	if err != nil || there.UID != own.UID {
		return errors.Join(err, taken(what))
	}
	is, err := decode[T](kv)
	if err != nil {
		return err
	}
	*object = *is
	own.Revision = v.meta.revision(kv.ModRevision)
	return nil
}

// goneAgain refuses the repetition of a creation whose object was deleted since.
func goneAgain(what string) error {
	return model.Errorf(model.Conflict, "name", "ask for it anew if it is still wanted", "%s was made by an earlier try of this request, and deleted since", what)
}

func taken(what string) error {
	return model.Errorf(model.Taken, "name", "choose another name, or change the one that is there", "there is a %s already", what)
}
