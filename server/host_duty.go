package server

import (
	"cmp"
	"context"
	"slices"

	"connectrpc.com/connect"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
)

// DrainHost implements weft.v1. Moves that were begun to the host are not touched: a machine may be on its way.
func (a *api) DrainHost(ctx context.Context, req *connect.Request[weftv1.DrainHostRequest]) (*connect.Response[weftv1.DrainHostResponse], error) {
	h, err := a.host(ctx, "name", req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	h, err = a.store.PutDuty(ctx, h.Name, model.DutyDrained, "drained by "+identityOf(ctx).String())
	if err != nil {
		return nil, err
	}
	res := &weftv1.DrainHostResponse{Host: a.hostAnswer(ctx, h).Msg}
	a.view.read(func(w *model.World) {
		for p := range w.PortsOn(h.UID) {
			res.Ports = append(res.Ports, portOut(p, a.portStatus(w, p)))
		}
	})
	slices.SortFunc(res.Ports, byName)
	return connect.NewResponse(res), nil
}

// FailHost implements weft.v1. Its ports may bind elsewhere as soon as this returns. An error midway leaves some of them bound to a host that
// is declared dead: every server then goes on with that by itself.
func (a *api) FailHost(ctx context.Context, req *connect.Request[weftv1.FailHostRequest]) (*connect.Response[weftv1.FailHostResponse], error) {
	h, err := a.host(ctx, "name", req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	why := "declared dead by " + identityOf(ctx).String()
	if reason := clip(req.Msg.GetReason()); reason != "" {
		why += ": " + reason
	}
	h, unbound, err := a.failHost(ctx, h.Name, why)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&weftv1.FailHostResponse{Host: a.hostAnswer(ctx, h).Msg, UnboundPorts: a.portNames(unbound)}), nil
}

func (a *api) failHost(ctx context.Context, name, why string) (*model.Host, []model.UID, error) {
	h, unbound, err := a.store.FailHost(ctx, name, why, a.moment())
	if err != nil {
		return nil, nil, err
	}
	a.log.Warn("a host was declared dead", "host", name, "why", h.DutyMessage, "ports", len(unbound))
	a.refresh(ctx)
	return h, unbound, nil
}

// ReturnHost implements weft.v1.
func (a *api) ReturnHost(ctx context.Context, req *connect.Request[weftv1.ReturnHostRequest]) (*connect.Response[weftv1.Host], error) {
	h, err := a.host(ctx, "name", req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	if h, err = a.store.PutDuty(ctx, h.Name, model.DutyActive, ""); err != nil {
		return nil, err
	}
	return a.hostAnswer(ctx, h), nil
}

// dutyOf is a host's duty as the world has it now.
func dutyOf(w *model.World, h *model.Host) model.HostDuty {
	return cmp.Or(w.Hosts[h.UID], h).Duty
}
