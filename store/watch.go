package store

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"

	"github.com/weftnet/weft/model"
)

// Event is what one transaction changed.
type Event struct {
	Revision model.Revision
	// Changes in no order; none when the transaction wrote only what is no part of a World (an audit record, a join token).
	Changes []model.Change
	// Reset: what came after the asked revision is not known any more (compacted), or the store was replaced by a restore.
	// Load again, then Watch again. The channel is closed after it.
	Reset bool
	// Err: a record that this version cannot read. The channel is closed after it.
	Err error
}

// watchBuffer is how many events wait for the reader. When it is full, etcd's client keeps what comes, in memory.
const watchBuffer = 64

const (
	watchRetryFirst = 50 * time.Millisecond
	watchRetryLast  = 2 * time.Second
)

// Watch yields the changes after a revision that Load or an Event gave, in order and without gaps, across lost connections
// too. The channel is closed when ctx ends or the store is closed, and after a Reset or an Err.
func (s *Store) Watch(ctx context.Context, from model.Revision) <-chan Event {
	ch := make(chan Event, watchBuffer)
	if s.ctx.Err() != nil {
		close(ch)
		return ch
	}
	w := &watch{s: s, from: from, out: ch}
	s.wg.Go(func() {
		defer close(ch)
		ctx, cancel := context.WithCancel(ctx)
		defer context.AfterFunc(s.ctx, cancel)()
		defer cancel()
		w.run(ctx)
	})
	return ch
}

type watch struct {
	s    *Store
	from model.Revision
	out  chan<- Event
}

// run watches again whenever etcd's watch ended, until it was the last.
func (w *watch) run(ctx context.Context) {
	retry := watchRetryFirst
	for ctx.Err() == nil {
		before := w.from
		more, err := w.once(ctx)
		if !more {
			return
		}
		if w.from > before {
			retry = watchRetryFirst
		}
		if err != nil && ctx.Err() == nil {
			w.s.cfg.Log.Warn("the watch on the store ended and begins again", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
		retry = min(2*retry, watchRetryLast)
	}
}

// once makes one etcd watch and passes on what it says. It says whether there is more to come.
func (w *watch) once(ctx context.Context) (more bool, err error) {
	_, replaced := w.s.metaOf()
	v, err := w.s.peek(ctx, get(w.s.keys.head()))
	if err != nil {
		return true, err
	}
	m := v.meta
	// Revisions of an older life of the store are all below its base; one above the current one was never handed out.
	if !m.Restoring.IsZero() || int64(w.from) < m.Base || w.from > m.revision(v.rev) {
		w.emit(ctx, Event{Revision: w.from, Reset: true})
		return false, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := w.s.cli.Watch(ownStream(ctx), w.s.keys.prefix+"/", clientv3.WithPrefix(),
		clientv3.WithPrevKV(), clientv3.WithRev(int64(w.from)-m.Base+1))
	for {
		select {
		case <-ctx.Done():
			return false, nil
		case <-replaced:
			return true, nil // look again whether it is still the same store
		case resp, open := <-events:
			if !open {
				return true, nil
			}
			if resp.CompactRevision != 0 {
				if w.from >= v.head() { // what was compacted was not the store's, but of other users of the cluster
					w.from = m.revision(v.rev)
					return true, nil
				}
				w.emit(ctx, Event{Revision: w.from, Reset: true})
				return false, nil
			}
			if err := resp.Err(); err != nil {
				return true, err
			}
			if !w.pass(ctx, m, resp.Events) {
				return false, nil
			}
		}
	}
}

// ownStream is for a watch that shares its stream to etcd with no other, so that one which begins again may come to another member
// of the cluster: etcd's client keeps one stream for each set of metadata.
func ownStream(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(clientv3.WithRequireLeader(ctx), "weft-watch", newSuffix())
}

// pass cuts a response, which holds whole revisions, into events. It returns false after the last one.
func (w *watch) pass(ctx context.Context, m meta, events []*clientv3.Event) bool {
	for len(events) > 0 {
		rev := events[0].Kv.ModRevision
		n := 1
		for n < len(events) && events[n].Kv.ModRevision == rev {
			n++
		}
		e := w.event(m, rev, events[:n])
		events = events[n:]
		if !w.emit(ctx, e) || e.Reset || e.Err != nil {
			return false
		}
		w.from = e.Revision
	}
	return true
}

func (w *watch) event(m meta, rev int64, events []*clientv3.Event) Event {
	e := Event{Revision: m.revision(rev)}
	for _, ev := range events {
		if string(ev.Kv.Key) == w.s.keys.meta() {
			return Event{Revision: e.Revision, Reset: true}
		}
		kv, deleted := ev.Kv, ev.Type == clientv3.EventTypeDelete
		if deleted {
			if kv = ev.PrevKv; kv == nil {
				// The deleted version was compacted before it could be read.
				if _, ok, _ := w.s.change(m, &keyValue{Key: ev.Kv.Key, Value: []byte("{}")}); ok {
					return Event{Revision: e.Revision, Reset: true}
				}
				continue
			}
		}
		c, ok, err := w.s.change(m, kv)
		if err != nil {
			return Event{Revision: e.Revision, Err: fmt.Errorf("watch: %w", err)}
		}
		if ok {
			c.Revision, c.Deleted = e.Revision, deleted
			e.Changes = append(e.Changes, c)
		}
	}
	return e
}

func (w *watch) emit(ctx context.Context, e Event) bool {
	select {
	case w.out <- e:
		return true
	case <-ctx.Done():
		return false
	}
}
