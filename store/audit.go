package store

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weftnet/weft/model"
)

// AuditRecord says who did what to which object. The transaction of every write puts one.
type AuditRecord struct {
	Time   time.Time `json:"time"`
	Who    string    `json:"who"`
	What   string    `json:"what"`
	Object string    `json:"object"`
	// Revision of the write.
	Revision model.Revision `json:"-"`
}

// voided stands for what was done in a record that keeps a write from being done late (see outcome).
const voided = "void"

type actorKey struct{}

// WithActor says who acts, for the audit trail.
func WithActor(ctx context.Context, who string) context.Context {
	return context.WithValue(ctx, actorKey{}, who)
}

func actor(ctx context.Context) string {
	if who, ok := ctx.Value(actorKey{}).(string); ok {
		return who
	}
	return "weft"
}

// Audit lists the last writes, newest first; limit 0 is all that are kept (some more than 10,000).
func (s *Store) Audit(ctx context.Context, limit int) ([]AuditRecord, error) {
	v, err := s.look(ctx, clientv3.OpGet(s.keys.in("audit"), clientv3.WithPrefix(), clientv3.WithLimit(int64(limit)),
		clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend)))
	if err != nil {
		return nil, err
	}
	records := make([]AuditRecord, 0, len(v.all(0)))
	for _, kv := range v.all(0) {
		r, err := decode[AuditRecord](kv)
		if err != nil {
			return nil, err
		}
		if r.What == voided {
			continue
		}
		r.Revision = v.meta.revision(kv.ModRevision)
		records = append(records, *r)
	}
	return records, nil
}

// pruneAtOnce records are removed by one transaction, prunePause lies between two, and prunePages are the most of one round. Every server is told of each
// record that goes: after a hundred thousand writes, one transaction for all kept them from everything else for seconds.
const (
	pruneAtOnce = 500
	prunePause  = 20 * time.Millisecond
	prunePages  = 200
)

// pruneAudit removes the oldest records, and leaves as many as limit says, or more, for the next round. What goes is decided at one revision, and in the store as
// it is then, so servers that do so side by side leave enough, and a restore that comes between has its records left alone.
func (s *Store) pruneAudit(ctx context.Context, limit int64) error {
	v, err := s.look(ctx, count(s.keys.in("audit")))
	if err != nil {
		return err
	}
	defer s.pin(v.rev)()
	first := s.keys.in("audit")
	from, end, over := first, clientv3.GetPrefixRangeEnd(first), v.ranges[0].Count-limit
	for pages := 0; over > 0 && pages < prunePages; pages++ {
		page, err := s.look(ctx, clientv3.OpGet(from, clientv3.WithRange(end), clientv3.WithKeysOnly(), clientv3.WithLimit(min(over, pruneAtOnce)), clientv3.WithRev(v.rev)))
		if errors.Is(err, rpctypes.ErrCompacted) { // another server made room meanwhile
			return nil
		}
		if err != nil {
			return err
		}
		keys := page.all(0)
		if len(keys) == 0 {
			return nil
		}
		from, over = string(keys[len(keys)-1].Key)+"\x00", over-int64(len(keys))
		e := v.edit("", "")
		e.quiet = true
		e.ops = append(e.ops, clientv3.OpDelete(first, clientv3.WithRange(from)))
		if _, done, err := s.commit(ctx, e); err != nil || !done { // not done: the store is another one
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(prunePause):
		}
	}
	return nil
}
