package server

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/store"
)

const (
	// gather is how long conduct waits after something happened: more of it is on its way, and one look is enough for all.
	gather = 2 * time.Millisecond
	// conducted bounds the moves that one server carries on at the same moment.
	conducted = 32
)

// conduct carries on what no request waits for: moves that are prepared by now, or that have no more time. Every server does, and the store's
// compare-and-swap lets one of them: what one began another ends. A server counts the time itself, from when it first saw the move in its
// phase: clocks of servers differ.
func (a *api) conduct(ctx context.Context) {
	ctx = store.WithActor(ctx, "server")
	tick := time.NewTicker(a.cfg.Limits.Sweep)
	defer tick.Stop()
	floods, lost := map[model.UID]floodStep{}, map[deaf]bool{}
	since, silent := map[model.UID]sighting{}, map[model.UID]time.Time{}
	for {
		advanced, changed := a.view.advances(), a.heard.changes()
		a.carryOn(ctx, since)
		a.unbindDead(ctx)
		a.carryFloods(ctx, floods)
		select {
		case <-advanced:
		case <-changed:
		case <-tick.C:
			a.failSilent(ctx, silent)
			a.tellUndelivered(lost)
			a.cfg.swept()
		case <-ctx.Done():
			return
		}
		if !pause(ctx, gather) {
			return
		}
	}
}

// unbindDead unbinds the ports of hosts that were declared dead by a server that did not get to the end of it.
func (a *api) unbindDead(ctx context.Context) {
	var dead []*model.Host
	a.view.read(func(w *model.World) {
		for h := range w.DeadHosts() {
			for range w.PortsOn(h.UID) {
				dead = append(dead, h)
				break
			}
		}
	})
	for _, h := range dead {
		unbound, err := a.store.UnbindFailed(ctx, h, a.moment())
		if len(unbound) > 0 {
			a.log.Warn("ports of a host that was declared dead were still bound", "host", h.Name, "ports", len(unbound))
		}
		a.refresh(ctx)
		// That it was taken back into service, or removed, is news that this server has not heard.
		if err != nil && !isKind(err, model.Conflict) && !isKind(err, model.NotFound) {
			a.complain("the ports of a host that was declared dead are still bound, and that is tried again", err)
		}
	}
}

// sighting is when a server first saw a port's move in a phase.
type sighting struct {
	epoch   model.Epoch
	waiting bool // to be prepared; otherwise in its drain
	atOnce  bool // a preparation that somebody waits for has its time from when he asked
	at      time.Time
}

// carryOn takes every step that is due.
func (a *api) carryOn(ctx context.Context, since map[model.UID]sighting) {
	now := a.now()
	var due []func() error
	a.view.read(func(w *model.World) {
		for port := range since {
			if m := w.Moves[port]; m == nil || !m.Open() {
				delete(since, port)
			}
		}
		behind := map[model.UID]progress{}
		for m := range w.OpenMoves() {
			p := w.Ports[m.Port]
			if p == nil {
				continue // the news of its deletion are cut in two
			}
			seen := sighting{epoch: m.Epoch, waiting: m.Pending(), atOnce: m.AtOnce, at: now}
			if before := since[m.Port]; before.epoch == seen.epoch && before.waiting == seen.waiting && before.atOnce == seen.atOnce {
				seen = before
			}
			since[m.Port] = seen
			is := placeOf(w, p)
			if next := a.next(w, p, is, now.Sub(seen.at), behind); next != is {
				due = append(due, func() error { return a.take(ctx, &is, &next) })
			}
		}
	})
	var g errgroup.Group
	g.SetLimit(conducted)
	for _, step := range due {
		g.Go(func() error {
			if err := step(); err != nil && ctx.Err() == nil {
				a.log.Warn("a move could not be carried on, and is tried again", "err", err)
			}
			return nil
		})
	}
	_ = g.Wait()
}

// take writes a step. One that somebody else took meanwhile, in whatever way, is no error.
func (a *api) take(ctx context.Context, is, next *place) error {
	rev, err := a.write(ctx, is, next)
	switch {
	case isKind(err, model.Stale) || isKind(err, model.NotFound):
		return nil
	case err != nil:
		return err
	}
	a.readBack(ctx, rev)
	return nil
}

// next is what is to become of a port whose move is open, by now; itself if nothing.
func (a *api) next(w *model.World, p *model.Port, at place, age time.Duration, behind map[model.UID]progress) place {
	m := &at.move
	switch {
	case !m.Of(&at.Binding):
		// Something that knows of no moves changed the binding: the record follows it.
		at.move = m.Unbound("the port's binding was changed otherwise", a.moment())
	case m.Phase == model.MoveDraining:
		if age >= a.cfg.Limits.Drain {
			at.drained("", a.moment())
		}
	default:
		a.nextPending(w, p, &at, age, behind)
	}
	return at
}

func (a *api) nextPending(w *model.World, p *model.Port, at *place, age time.Duration, behind map[model.UID]progress) {
	m := &at.move
	waiting := m.Phase == model.MovePreparing
	if !waiting && !m.AtOnce {
		return
	}
	r := a.readiness(w, p, at, behind)
	ready := r.lacks == "" || r.late && age >= a.cfg.Limits.Peers
	switch {
	case r.broken != "": // also of one that was prepared before, and is to be committed now
		at.abort(r.broken, a.moment())
	case ready && m.AtOnce:
		at.commit(model.CommitByCommand, a.moment())
		m.Message = r.without()
	case ready && waiting:
		m.Phase, m.Prepared, m.Message = model.MovePrepared, a.moment(), r.without()
	case age >= a.cfg.Limits.Prepare:
		at.abort(fmt.Sprintf("it was not prepared within %s: %s", a.cfg.Limits.Prepare, r.lacks), a.moment())
	}
}

// progress is which live host of a network is furthest behind, and what it has applied.
type progress struct {
	host    model.UID
	applied model.Revision
}

// readiness is how far the preparation of a move is.
type readiness struct {
	// reachable: the target has a stream.
	reachable bool
	// broken is why it never will be prepared; empty: no such reason is known.
	broken string
	// lacks is what is missing; empty: it is prepared.
	lacks string
	// late: only that is missing that another host of the network knows of the target. Until it does, it drops what the target sends.
	late bool
}

// without says of a move that goes on without a late host that it does.
func (r readiness) without() string {
	if !r.late {
		return ""
	}
	return "not waited for: " + r.lacks
}

// missing is what a user is told.
func (r readiness) missing() string {
	if r.broken != "" {
		return r.broken
	}
	return r.lacks
}

// readiness of a pending move: the target must hold the port, held, with all that it needs, and the other hosts of the network must know the
// target's VTEP. Hosts that are not connected are not waited for, and slow ones not for long. behind remembers what was found of networks; it may be nil.
func (a *api) readiness(w *model.World, p *model.Port, at *place, behind map[model.UID]progress) readiness {
	said, _ := a.heard.host(at.Incoming)
	name := w.HostName(at.Incoming)
	r := readiness{reachable: said.live()}
	epoch := model.Revision(at.Epoch)
	switch rep := said.port(p.UID); {
	case !r.reachable:
		r.lacks = "host " + name + " is not connected"
		return r
	case said.refused != "":
		r.broken = "host " + name + " refused its plan: " + said.refused
		return r
	case said.storeID != w.StoreID || said.applied < epoch:
		r.lacks = "host " + name + " has not taken the plan yet"
		return r
	case hindrance(said.errors, p) != nil:
		r.broken = "host " + name + " cannot hold the port: " + hindrance(said.errors, p).GetMessage()
		return r
	case rep.GetEpoch() < int64(at.Epoch) || !rep.GetPrepared():
		r.lacks = "host " + name + " has not reported that it is ready"
		if rep.GetEpoch() >= int64(at.Epoch) && rep.GetMessage() != "" {
			r.lacks = "host " + name + ": " + rep.GetMessage()
		}
		return r
	}
	least, known := behind[p.Alloc.NetworkUID]
	if !known {
		least.host, least.applied = a.heard.least(a.view.members(p.Alloc.NetworkUID), w.StoreID)
		if behind != nil {
			behind[p.Alloc.NetworkUID] = least
		}
	}
	if least.host != "" && least.applied < epoch {
		r.lacks, r.late = "host "+w.HostName(least.host)+" has not taken the plan yet", true
	}
	return r
}

// hindrance is the error that keeps a host from holding a port, or nil.
func hindrance(errors []*planv1.ResourceError, p *model.Port) *planv1.ResourceError {
	for _, e := range errors {
		switch model.UID(e.GetUid()) {
		case p.UID, p.Alloc.NetworkUID:
			return e
		}
	}
	return nil
}
