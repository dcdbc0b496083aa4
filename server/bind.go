package server

import (
	"context"
	"fmt"

	"connectrpc.com/connect"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
)

// The ways to change where a port is: bind and unbind here, the steps of a move in move.go. Each is a compare-and-swap of the port's
// binding, which writes what becomes of the port's move in the same transaction:
//
//	bind    {}                -> {active: h}
//	unbind  {active: a, ...}  -> {}

// BindPort implements weft.v1.
func (a *api) BindPort(ctx context.Context, req *connect.Request[weftv1.BindPortRequest]) (*connect.Response[weftv1.Port], error) {
	p, err := a.port(ctx, "name", req.Msg.GetTenant(), req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	h, err := a.host(ctx, "host", req.Msg.GetHost())
	if err != nil {
		return nil, err
	}
	if _, err := a.bind(ctx, p, h, false); err != nil {
		return nil, err
	}
	return a.portAnswer(ctx, p), nil
}

// bind gives an unbound port a host. A port that is incoming there is left as it is, if that will do.
func (a *api) bind(ctx context.Context, p *model.Port, h *model.Host, incoming bool) (place, error) {
	return a.swap(ctx, p, func(w *model.World, at *place) error {
		if at.Active == h.UID || incoming && at.Incoming == h.UID {
			return nil
		}
		for host := range at.Hosts() {
			if host != h.UID {
				return boundElsewhere(p, w.HostName(host), h.Name)
			}
		}
		at.Binding = at.Unbound()
		at.Active = h.UID
		if no := dutyOf(w, h).Receives(h.Name); no != nil {
			return no
		}
		return hostCarries(w, h, w.Networks[p.Alloc.NetworkUID])
	})
}

// UnbindPort implements weft.v1.
func (a *api) UnbindPort(ctx context.Context, req *connect.Request[weftv1.UnbindPortRequest]) (*connect.Response[weftv1.Port], error) {
	p, err := a.port(ctx, "name", req.Msg.GetTenant(), req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	epoch, who := model.Epoch(req.Msg.GetEpoch()), identityOf(ctx).String()
	_, err = a.swap(ctx, p, func(_ *model.World, at *place) error {
		if epoch != 0 && epoch != at.Epoch {
			return staleEpoch(p, epoch, at.Epoch)
		}
		at.Binding, at.move = at.Unbound(), at.move.Unbound("the port was unbound by "+who, a.moment())
		return nil
	})
	if err != nil {
		return nil, err
	}
	return a.portAnswer(ctx, p), nil
}

// release is what a host may do under its own certificate: give up its part in a port. The place of a port that is moving away is its move's
// to decide: its workload has stopped here before it is known to run there.
func (a *api) release(ctx context.Context, p *model.Port, host model.UID) (place, error) {
	return a.swap(ctx, p, func(w *model.World, at *place) error {
		name := w.HostName(host)
		switch {
		case at.unbound():
		case at.Active == host && at.Incoming != "":
		case at.Active == host:
			at.Binding, at.move = at.Unbound(), at.move.Unbound("host "+name+" gave the port up", a.moment())
		case at.Incoming == host:
			at.abort("host "+name+" gave the port up", a.moment())
		case at.Draining == host:
			at.drained("", a.moment())
		default:
			return model.Errorf(model.Conflict, "port", "detach it there, or unbind it with an API token",
				"port %s is bound to host %s", p.Name, at.whereabouts(w))
		}
		return nil
	})
}

// place is where a port is, and its last move (the zero one: there was none).
type place struct {
	model.Binding
	move model.Move
}

func placeOf(w *model.World, p *model.Port) place {
	at := place{Binding: model.Binding{Port: p.UID, Network: p.Alloc.NetworkUID}}
	if b := w.Bindings[p.UID]; b != nil {
		at.Binding = *b
	}
	if m := w.Moves[p.UID]; m != nil {
		at.move = *m
	}
	return at
}

func (at *place) unbound() bool { return at.Active == "" && at.Incoming == "" && at.Draining == "" }

// whereabouts names the host that a binding is about, or is empty.
func (at *place) whereabouts(w *model.World) string {
	for h := range at.Hosts() {
		return w.HostName(h)
	}
	return ""
}

// swap changes where a port is by compare-and-swap: decide makes of what is what is to be. It is asked again when another writer was first,
// and nothing is written when nothing changes. A change of the move alone leaves the binding its epoch.
func (a *api) swap(ctx context.Context, p *model.Port, decide func(w *model.World, at *place) error) (place, error) {
	for attempt := 0; ; attempt++ {
		var now, next place
		var err error
		a.view.read(func(w *model.World) {
			now = placeOf(w, p)
			next = now
			err = decide(w, &next)
		})
		if err != nil || next == now {
			// A refusal, or that there is nothing to do, may rest on what another server has changed meanwhile.
			if attempt == 0 && !isKind(err, model.Invalid) {
				a.refresh(ctx)
				continue
			}
			return now, err
		}
		rev, err := a.write(ctx, &now, &next)
		if err == nil {
			a.readBack(ctx, rev)
			return next, nil
		}
		switch {
		case !isKind(err, model.Stale):
			return now, err
		case a.again(ctx, attempt):
		case ctx.Err() != nil:
			return now, ctx.Err()
		default: // not Aborted: what was asked for was not refused, and an agent would take that for a no
			return now, model.Errorf(model.Busy, "", "try again", "nothing was done: other writers changed the binding of port %s first, %d times", p.Name, tries)
		}
	}
}

// write is one transaction from one place to the next.
func (a *api) write(ctx context.Context, now, next *place) (rev model.Revision, err error) {
	switch {
	case next.Binding == now.Binding:
		err = a.store.UpdateMove(ctx, &next.move)
		return next.move.Revision, err
	case next.move == now.move:
		next.Binding, err = a.store.PutBinding(ctx, next.Binding, now.Epoch)
	default:
		next.Binding, err = a.store.PutMove(ctx, next.Binding, now.Epoch, &next.move)
	}
	return model.Revision(next.Epoch), err
}

func boundElsewhere(p *model.Port, at, wanted string) error {
	return model.Errorf(model.Conflict, "host",
		fmt.Sprintf("move it with `weft port move %s --tenant %s --host %s`, or detach it there first", p.Name, p.Tenant, wanted),
		"port %s is bound to host %s", p.Name, at)
}

func staleEpoch(p *model.Port, said, is model.Epoch) error {
	return model.Errorf(model.Stale, "epoch",
		fmt.Sprintf("look with `weft port show %s --tenant %s`, and repeat with the epoch that it shows if it is still wanted", p.Name, p.Tenant),
		"epoch %d of port %s is not the current one, which is %d", said, p.Name, is)
}
