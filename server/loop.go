package server

import (
	"context"
	"errors"
	"time"

	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/store"
)

const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// loop owns the world: load it, follow what changes, and begin again when the store says so. It calls attempted after
// each load, with what became of it.
func (a *api) loop(ctx context.Context, attempted func(error)) {
	retry := firstRetry
	for ctx.Err() == nil {
		w, err := a.store.Load(ctx)
		if err != nil && ctx.Err() != nil {
			return
		}
		if err != nil {
			a.log.Error("the store cannot be loaded, trying again", "err", err)
			a.view.fail(err)
			attempted(err)
			if !pause(ctx, retry) {
				return
			}
			retry = min(2*retry, lastRetry)
			continue
		}
		retry = firstRetry
		a.begin(w)
		attempted(nil)
		a.follow(ctx, w.Revision)
	}
}

// pause waits, and reports whether ctx lives on.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// begin takes a whole world in. Streams go on, but for those of hosts that are not in it.
func (a *api) begin(w *model.World) {
	out := a.view.load(w)
	a.dist.Reset(w.StoreID, int64(w.Revision), out.Upserts)
	a.sweepHeard()
	a.view.publish()
	a.log.Info("the store is loaded", "store", w.StoreID, "revision", int64(w.Revision),
		"networks", len(w.Networks), "ports", len(w.Ports), "hosts", len(w.Hosts))
}

// follow takes changes in until the store wants a new load. A watch that does not bring what is known to be there is begun again, where it
// stood: the member of the cluster that it came from may hang.
func (a *api) follow(ctx context.Context, from model.Revision) {
	watch := watching{from: from, begin: a.store.Watch, patience: a.cfg.Limits.Fresh / hurryParts}
	for before := from; a.followOnce(ctx, &watch); before = watch.from {
		a.log.Warn("the watch of the store hangs and begins again", "revision", int64(watch.from))
		// One that was given too little time is given more: the store may be busy, and has to look for what it is asked for anew each time.
		if watch.patience = min(2*watch.patience, 2*a.cfg.Limits.Fresh); watch.from != before {
			watch.patience = a.cfg.Limits.Fresh / hurryParts
		}
	}
}

// hurryParts: a request that waits for the store's changes complains of the watch after that part of its time, and again after each.
const hurryParts = 4

// watching is where following stands, and how watches begin. patience is for how long one may bring nothing before complaints are heard.
type watching struct {
	from     model.Revision
	begin    func(context.Context, model.Revision) <-chan store.Event
	patience time.Duration
}

// followOnce is one watch. It reports whether another can go on where it ended.
func (a *api) followOnce(ctx context.Context, w *watching) bool {
	ctx, cancel := context.WithCancel(ctx)
	events := w.begin(ctx, w.from)
	moved := time.Now()
	defer func() {
		cancel()
		for range events { // until the watch has ended
		}
	}()
	for {
		select {
		case <-a.hangs:
			if ctx.Err() != nil || time.Since(moved) >= w.patience {
				return ctx.Err() == nil
			}
			// It was begun, or brought something, only just: what is waited for is on its way. Under load there are always complaints, and a
			// watch that ended at each would bring nothing ever.
		case ev, open := <-events:
			if !open {
				return false
			}
			all := waiting(ev, events)
			last := all[len(all)-1]
			if last.Reset || last.Err != nil {
				all = all[:len(all)-1]
			}
			if len(all) > 0 {
				if !a.takeEvents(all) {
					return false
				}
				w.from, moved = all[len(all)-1].Revision, time.Now()
			}
			if last.Err != nil {
				a.log.Warn("the watch of the store broke", "err", last.Err)
			}
			if last.Reset || last.Err != nil {
				return false
			}
		}
	}
}

// mostEvents bounds what is taken in at once.
const mostEvents = 256

// waiting is an event and those that wait behind it, up to one that ends the watch. Under load they are taken in together: what a
// publication costs is then shared by all of them, and the loop keeps up.
func waiting(ev store.Event, events <-chan store.Event) []store.Event {
	all := []store.Event{ev}
	for len(all) < mostEvents && !ev.Reset && ev.Err == nil {
		var open bool
		select {
		case ev, open = <-events:
			if !open {
				return all // the next receive says so
			}
			all = append(all, ev)
		default:
			return all
		}
	}
	return all
}

// takeEvents applies transactions of the store, and reports whether the plan could be published on top of the last.
func (a *api) takeEvents(all []store.Event) bool {
	var changes []model.Change
	for _, ev := range all {
		changes = append(changes, ev.Changes...)
	}
	out := a.view.apply(all[len(all)-1].Revision, changes)
	for _, c := range changes {
		if c.Host != nil && c.Deleted {
			if s := a.heard.hostGone(c.Host.UID); s != nil {
				s.cancel(errHostRemoved)
			}
		}
	}
	var storeID string
	var rev model.Revision
	a.view.read(func(w *model.World) { storeID, rev = w.StoreID, w.Revision })
	if err := a.dist.Publish(storeID, int64(rev), out.Upserts, out.Removals); err != nil {
		a.log.Warn("a plan could not be published, loading the store anew", "err", err)
		return false
	}
	a.view.publish()
	return true
}

// sweepHeard forgets hosts that are gone, and closes the streams of such hosts.
func (a *api) sweepHeard() {
	var gone []*session
	a.view.read(func(w *model.World) {
		gone = a.heard.forget(func(uid model.UID) bool { return w.Hosts[uid] != nil })
	})
	for _, s := range gone {
		s.cancel(errHostRemoved)
	}
}

// tokensKept is how long a join token is kept beyond its lifetime: who comes too late with one is told so.
const tokensKept = 24 * time.Hour

// housekeep takes away what has served its time, now and then.
func (a *api) housekeep(ctx context.Context) {
	for {
		ctx := store.WithActor(ctx, "server")
		if n, err := a.store.PruneTombstones(ctx, a.now().Add(-a.cfg.Limits.Tombstones)); err != nil {
			a.complain("old tombstones could not be pruned", err)
		} else if n > 0 {
			a.log.Info("old tombstones were pruned", "count", n)
		}
		if _, err := a.store.PruneJoinTokens(ctx, a.now().Add(-tokensKept)); err != nil {
			a.complain("old join tokens could not be pruned", err)
		}
		a.sweepHeard()
		if !pause(ctx, a.cfg.Limits.Housekeeping) {
			return
		}
	}
}

func (a *api) complain(what string, err error) {
	if !errors.Is(err, context.Canceled) {
		a.log.Warn(what, "err", err)
	}
}
