package server

import (
	"context"
	"fmt"

	"connectrpc.com/connect"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
)

// The only ways to change where a port is. Each is one or two compare-and-swaps of the port's binding:
//
//	bind    {}                     -> {active: h}
//	move    {active: a}            -> {active: a, incoming: h} -> {active: h}
//	unbind  {active: a, ...}       -> {}
//
// A move makes the coming host a member of the network first and waits (bounded) until the other hosts have it, so that
// no frame of it meets a host that does not list its VTEP yet. A move that dies between its two steps leaves the port
// working where it was; moving it again finishes it.

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
	if _, err := a.bind(ctx, p, h); err != nil {
		return nil, err
	}
	return a.portAnswer(ctx, p), nil
}

// bind gives an unbound port a host.
func (a *api) bind(ctx context.Context, p *model.Port, h *model.Host) (model.Binding, error) {
	return a.swap(ctx, p, func(w *located, b model.Binding) (model.Binding, error) {
		if b.Active == h.UID {
			return b, nil
		}
		for at := range b.Hosts() {
			if at != h.UID {
				return b, boundElsewhere(p, w.HostName(at), h.Name)
			}
		}
		b.Active, b.Incoming, b.Draining = h.UID, "", ""
		return b, hostCarries(w.World, h, w.Networks[p.Alloc.NetworkUID])
	})
}

// MovePort implements weft.v1.
func (a *api) MovePort(ctx context.Context, req *connect.Request[weftv1.MovePortRequest]) (*connect.Response[weftv1.Port], error) {
	p, err := a.port(ctx, "name", req.Msg.GetTenant(), req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	h, err := a.host(ctx, "host", req.Msg.GetHost())
	if err != nil {
		return nil, err
	}
	if err := a.move(ctx, p, h, model.Epoch(req.Msg.GetEpoch())); err != nil {
		return nil, err
	}
	return a.portAnswer(ctx, p), nil
}

func (a *api) move(ctx context.Context, p *model.Port, h *model.Host, epoch model.Epoch) error {
	prepared, err := a.swap(ctx, p, func(w *located, b model.Binding) (model.Binding, error) {
		switch {
		case epoch != 0 && epoch != b.Epoch:
			return b, staleEpoch(p, epoch, b.Epoch)
		case w.whereabouts(b) == "":
			return b, model.Errorf(model.Conflict, "name",
				fmt.Sprintf("attach it on its host with `weft port attach %s --tenant %s`", p.Name, p.Tenant),
				"port %s is not bound to a host, so there is nothing to move", p.Name)
		case b.Active == h.UID:
			b.Incoming, b.Draining = "", ""
			return b, nil
		}
		b.Incoming, b.Draining = h.UID, ""
		return b, hostCarries(w.World, h, w.Networks[p.Alloc.NetworkUID])
	})
	if err != nil || prepared.Active == h.UID && prepared.Incoming == "" {
		return err
	}
	a.prepare(ctx, p.Alloc.NetworkUID, model.Revision(prepared.Epoch))
	// From here on the caller's patience no longer counts: half a move is worse than a late one.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), catchUp)
	defer cancel()
	_, err = a.swap(ctx, p, func(_ *located, b model.Binding) (model.Binding, error) {
		if b.Epoch != prepared.Epoch {
			return b, staleEpoch(p, prepared.Epoch, b.Epoch)
		}
		b.Active, b.Incoming, b.Draining = h.UID, "", ""
		return b, nil
	})
	return err
}

// prepare waits until the hosts of a network have applied a revision, but not long: a slow host is not waited for.
func (a *api) prepare(ctx context.Context, network model.UID, rev model.Revision) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Limits.Prepare)
	defer cancel()
	_, _ = a.waitApplied(ctx, network, rev)
}

// UnbindPort implements weft.v1.
func (a *api) UnbindPort(ctx context.Context, req *connect.Request[weftv1.UnbindPortRequest]) (*connect.Response[weftv1.Port], error) {
	p, err := a.port(ctx, "name", req.Msg.GetTenant(), req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	epoch := model.Epoch(req.Msg.GetEpoch())
	_, err = a.swap(ctx, p, func(_ *located, b model.Binding) (model.Binding, error) {
		if epoch != 0 && epoch != b.Epoch {
			return b, staleEpoch(p, epoch, b.Epoch)
		}
		b.Active, b.Incoming, b.Draining = "", "", ""
		return b, nil
	})
	if err != nil {
		return nil, err
	}
	return a.portAnswer(ctx, p), nil
}

// release is what a host may do under its own certificate: give up a port that it holds.
func (a *api) release(ctx context.Context, p *model.Port, host model.UID) (model.Binding, error) {
	return a.swap(ctx, p, func(w *located, b model.Binding) (model.Binding, error) {
		at := w.whereabouts(b)
		if at == "" {
			return b, nil
		}
		if b.Active != host {
			return b, model.Errorf(model.Conflict, "port", "detach it there, or unbind it with an API token",
				"port %s is bound to host %s", p.Name, at)
		}
		b.Active, b.Incoming, b.Draining = "", "", ""
		return b, nil
	})
}

// located is the world, with what the rules ask of it.
type located struct{ *model.World }

// whereabouts names the host that a binding is about, or is empty.
func (w *located) whereabouts(b model.Binding) string {
	for h := range b.Hosts() {
		return w.HostName(h)
	}
	return ""
}

// swap changes a port's binding by compare-and-swap: decide says what it is to be, given what it is. It is asked again
// when another writer was first, and nothing is written when nothing changes.
func (a *api) swap(ctx context.Context, p *model.Port, decide func(w *located, b model.Binding) (model.Binding, error)) (model.Binding, error) {
	for attempt := 0; ; attempt++ {
		var now, next model.Binding
		var err error
		a.view.read(func(w *model.World) {
			now = model.Binding{Port: p.UID, Network: p.Alloc.NetworkUID}
			if b := w.Bindings[p.UID]; b != nil {
				now = *b
			}
			next, err = decide(&located{w}, now)
		})
		if err != nil || next == now {
			// A refusal, or that there is nothing to do, may rest on what another server has changed meanwhile.
			if attempt == 0 && !isKind(err, model.Invalid) {
				a.refresh(ctx)
				continue
			}
			return now, err
		}
		written, err := a.store.PutBinding(ctx, next, now.Epoch)
		if err == nil {
			a.readBack(ctx, model.Revision(written.Epoch))
			return written, nil
		}
		if !isKind(err, model.Stale) || !a.again(ctx, attempt) {
			return now, err
		}
	}
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
