package server

import (
	"cmp"
	"context"
	"slices"

	"connectrpc.com/connect"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/plan"
)

// CreatePort implements weft.v1.
func (a *api) CreatePort(ctx context.Context, req *connect.Request[weftv1.CreatePortRequest]) (*connect.Response[weftv1.Port], error) {
	spec, err := portSpecIn(req.Msg.GetSpec())
	if err != nil {
		return nil, err
	}
	meta, err := a.metaOf(ctx)
	if err != nil {
		return nil, err
	}
	p := &model.Port{Meta: meta, Tenant: req.Msg.GetTenant(), Name: req.Msg.GetName(), Spec: spec}
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if err := a.placePort(ctx, p, a.store.CreatePort); err != nil {
		return nil, err
	}
	return a.portAnswer(ctx, p), nil
}

// placePort allocates what the spec leaves open and writes, until the store takes it. The network may change and other
// servers may allocate meanwhile; then it is all decided again.
func (a *api) placePort(ctx context.Context, p *model.Port, write func(context.Context, *model.Port) error) error {
	had := p.Alloc
	lost := map[claim]bool{}
	for attempt := 0; ; attempt++ {
		n, err := a.network(ctx, "spec.network", p.Tenant, p.Spec.Network)
		if err != nil {
			return err
		}
		p.Alloc = had
		release, err := a.allocatePort(p, n, lost)
		if err != nil {
			return err
		}
		err = write(ctx, p)
		if err == nil {
			a.readBack(ctx, p.Revision)
		}
		release()
		switch {
		case err == nil:
			return nil
		case isKind(err, model.Stale) && networkMoved(err):
		case outrun(err, statedInPort(p)):
			for _, k := range portClaims(p) {
				lost[k] = true
			}
		default:
			return err
		}
		if !a.again(ctx, attempt) {
			return err
		}
	}
}

// networkMoved reports whether a stale write is so because the port's network changed, not the port.
func networkMoved(err error) bool { return refusal(err).Field == "spec.network" }

// GetPort implements weft.v1.
func (a *api) GetPort(ctx context.Context, req *connect.Request[weftv1.GetPortRequest]) (*connect.Response[weftv1.Port], error) {
	p, err := a.port(ctx, "name", req.Msg.GetTenant(), req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	return a.portAnswer(ctx, p), nil
}

// ListPorts implements weft.v1. A credential of one tenant lists that one's.
func (a *api) ListPorts(ctx context.Context, req *connect.Request[weftv1.ListPortsRequest]) (*connect.Response[weftv1.ListPortsResponse], error) {
	tenant, err := a.listed(ctx, req.Msg.GetTenant())
	if err != nil {
		return nil, err
	}
	network := req.Msg.GetNetwork()
	if network != "" && tenant != "" {
		if _, err := a.network(ctx, "network", tenant, network); err != nil {
			return nil, err
		}
	}
	var host model.UID
	if name := req.Msg.GetHost(); name != "" {
		h, err := a.host(ctx, "host", name)
		if err != nil {
			return nil, err
		}
		host = h.UID
	}
	res := &weftv1.ListPortsResponse{}
	a.view.read(func(w *model.World) {
		ports := func(yield func(*model.Port) bool) {
			for _, p := range w.Ports {
				if !yield(p) {
					return
				}
			}
		}
		if host != "" {
			ports = w.PortsOn(host)
		}
		for p := range ports {
			if (tenant == "" || p.Tenant == tenant) && (network == "" || p.Spec.Network == network) {
				res.Ports = append(res.Ports, portOut(p, a.portStatus(w, p)))
			}
		}
	})
	slices.SortFunc(res.Ports, byName)
	return connect.NewResponse(res), nil
}

func byName(x, y *weftv1.Port) int {
	return cmp.Or(cmp.Compare(x.Tenant, y.Tenant), cmp.Compare(x.Name, y.Name))
}

// UpdatePort implements weft.v1. Addresses that the spec leaves open are kept.
func (a *api) UpdatePort(ctx context.Context, req *connect.Request[weftv1.UpdatePortRequest]) (*connect.Response[weftv1.Port], error) {
	rev, err := basedOn(req.Msg.GetRevision())
	if err != nil {
		return nil, err
	}
	spec, err := portSpecIn(req.Msg.GetSpec())
	if err != nil {
		return nil, err
	}
	old, err := a.port(ctx, "name", req.Msg.GetTenant(), req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	p := *old
	p.Revision, p.Spec = rev, spec
	if err := p.ValidateUpdate(old); err != nil {
		return nil, err
	}
	if err := a.placePort(ctx, &p, a.store.UpdatePort); err != nil {
		return nil, err
	}
	return a.portAnswer(ctx, &p), nil
}

// DeletePort implements weft.v1.
func (a *api) DeletePort(ctx context.Context, req *connect.Request[weftv1.DeletePortRequest]) (*connect.Response[weftv1.DeletePortResponse], error) {
	if _, err := a.port(ctx, "name", req.Msg.GetTenant(), req.Msg.GetName()); err != nil {
		return nil, err
	}
	rev, err := a.store.DeletePort(ctx, req.Msg.GetTenant(), req.Msg.GetName(), a.now())
	if err != nil {
		return nil, err
	}
	a.readBack(ctx, rev)
	return connect.NewResponse(&weftv1.DeletePortResponse{Revision: int64(rev)}), nil
}

func (a *api) portAnswer(ctx context.Context, p *model.Port) *connect.Response[weftv1.Port] {
	a.readBack(ctx, p.Revision)
	var status *weftv1.PortStatus
	a.view.read(func(w *model.World) { status = a.portStatus(w, p) })
	return connect.NewResponse(portOut(p, status))
}

// portStatus joins what was allocated, where the port is, and what its host says of it.
func (a *api) portStatus(w *model.World, p *model.Port) *weftv1.PortStatus {
	b := w.Bindings[p.UID]
	out := &weftv1.PortStatus{Macs: macsOut(p.Alloc.MACs), Binding: bindingOut(b, w.HostName)}
	for _, ip := range p.Alloc.IPs {
		out.Ips = append(out.Ips, ip.Addr().String())
	}
	if n := w.Networks[p.Alloc.NetworkUID]; n != nil {
		out.Mtu = uint32(a.view.mtu(n))
	}
	if m := w.Moves[p.UID]; m != nil {
		out.Move = a.moveOut(w, p, m)
	}
	out.Counters = countsOut(a.counts(w, p))
	if b == nil || b.Active == "" && b.Incoming == "" && b.Draining == "" {
		out.State = weftv1.PortState_PORT_STATE_UNBOUND
		return out
	}
	out.State = weftv1.PortState_PORT_STATE_PENDING
	at := cmp.Or(b.Active, b.Incoming, b.Draining)
	h, ok := a.heard.host(at)
	if said := h.port(p.UID); said != nil {
		for _, d := range said.GetDrops() {
			out.Drops = append(out.Drops, &weftv1.DropCount{Reason: d.GetReason(), Packets: d.GetPackets()})
		}
		out.Interface, out.Services = said.GetInterface(), servicesOut(said.GetServices())
		out.FastPath, out.FastPathMessage = fastPathOut(said.GetFastPath()), said.GetFastPathMessage()
		if said.GetEpoch() >= int64(b.Epoch) || drainEnded(w.Moves[p.UID], b) && said.GetEpoch() > int64(w.Moves[p.UID].Epoch) {
			out.State, out.Message = portStateOut(said.GetState()), said.GetMessage()
		}
	}
	switch {
	case !ok || !h.live():
		out.Message = "host " + w.HostName(at) + " is not connected; this is what was last known"
	case h.refused != "":
		out.Message = "host " + w.HostName(at) + " refused its plan: " + h.refused
	default:
		for _, e := range h.errors {
			if e.GetKind() == planv1.Kind_KIND_PORT && model.UID(e.GetUid()) == p.UID {
				out.Message = e.GetMessage()
			}
		}
	}
	return out
}

// drainEnded reports whether all that the binding's epoch brought is the end of a move's drain: what the host said at the commit still holds.
func drainEnded(m *model.Move, b *model.Binding) bool {
	return m != nil && m.Phase == model.MoveDone && m.To == b.Active && model.Revision(b.Epoch) <= m.Revision
}

func portStateOut(s planv1.PortState) weftv1.PortState {
	switch s {
	case planv1.PortState_PORT_STATE_DETACHED:
		return weftv1.PortState_PORT_STATE_DETACHED
	case planv1.PortState_PORT_STATE_HELD:
		return weftv1.PortState_PORT_STATE_HELD
	case planv1.PortState_PORT_STATE_ACTIVE:
		return weftv1.PortState_PORT_STATE_ACTIVE
	}
	return weftv1.PortState_PORT_STATE_PENDING
}

// counts are what a port counted on all its hosts: the sum of those that have no part in it any more, and what the others say now. A host
// hands over what it counted after its part has ended, so the last move's are asked too.
func (a *api) counts(w *model.World, p *model.Port) model.PortCounts {
	at := placeOf(w, p)
	settled := w.Counters[p.UID]
	var sum model.PortCounts
	if settled != nil {
		sum = settled.Sum
	}
	hosts := [...]model.UID{at.Active, at.Incoming, at.Draining, at.move.From, at.move.To}
	for i, uid := range hosts {
		if uid == "" || slices.Contains(hosts[:i], uid) {
			continue
		}
		h, _ := a.heard.host(uid)
		if said, counted := plan.PortIn(h.said, string(p.UID)); said != nil {
			sum = settled.With(sum, uid, model.Epoch(said.GetEpoch()), model.PortCounts(counted))
		}
	}
	return sum
}
