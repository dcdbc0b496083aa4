package server

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"connectrpc.com/connect"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
)

// CreateNetwork implements weft.v1.
func (a *api) CreateNetwork(ctx context.Context, req *connect.Request[weftv1.CreateNetworkRequest]) (*connect.Response[weftv1.Network], error) {
	spec, err := networkSpecIn(req.Msg.GetSpec())
	if err != nil {
		return nil, err
	}
	meta, err := a.metaOf(ctx)
	if err != nil {
		return nil, err
	}
	n := &model.Network{Meta: meta, Tenant: req.Msg.GetTenant(), Name: req.Msg.GetName(), Spec: spec}
	if err := n.Validate(); err != nil {
		return nil, err
	}
	if _, err := a.tenant(ctx, "tenant", n.Tenant); err != nil {
		return nil, err
	}
	if err := a.networkVTEPsExist(ctx, n); err != nil {
		return nil, err
	}
	if err := a.createNetwork(ctx, n); err != nil {
		return nil, err
	}
	return a.networkAnswer(ctx, n), nil
}

// createNetwork allocates and writes until the store takes it.
func (a *api) createNetwork(ctx context.Context, n *model.Network) error {
	lost := map[claim]bool{}
	for attempt := 0; ; attempt++ {
		release, err := a.allocateNetwork(n, lost)
		if err != nil {
			return err
		}
		err = a.store.CreateNetwork(ctx, n)
		if err == nil {
			a.readBack(ctx, n.Revision)
		}
		release()
		if !outrun(err, statedInNetwork(n)) || !a.again(ctx, attempt) {
			return err
		}
		lost[outrunBy(err, n)] = true
	}
}

// outrunBy is what the store has said to be taken.
func outrunBy(err error, n *model.Network) claim {
	if refusal(err).Field == "spec.vni" {
		return claim{vni: n.Alloc.VNI}
	}
	return claim{group: n.Alloc.Flood.Group}
}

// statedInNetwork reports whether the field of a network's spec holds what the user wrote.
func statedInNetwork(n *model.Network) func(string) bool {
	return func(field string) bool {
		switch field {
		case "spec.vni":
			return n.Spec.VNI != 0
		case "spec.group_pool": // names where the group is from
			return false
		}
		return true
	}
}

// networkVTEPsExist names the one that does not.
func (a *api) networkVTEPsExist(ctx context.Context, n *model.Network) error {
	for i, v := range n.Spec.VTEPs {
		if _, err := a.vtep(ctx, item("spec.vteps", i)+".vtep", v.VTEP); err != nil {
			return err
		}
	}
	return nil
}

// GetNetwork implements weft.v1.
func (a *api) GetNetwork(ctx context.Context, req *connect.Request[weftv1.GetNetworkRequest]) (*connect.Response[weftv1.Network], error) {
	n, err := a.network(ctx, "name", req.Msg.GetTenant(), req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	return a.networkAnswer(ctx, n), nil
}

// ListNetworks implements weft.v1. A credential of one tenant lists that one's.
func (a *api) ListNetworks(ctx context.Context, req *connect.Request[weftv1.ListNetworksRequest]) (*connect.Response[weftv1.ListNetworksResponse], error) {
	tenant, err := a.listed(ctx, req.Msg.GetTenant())
	if err != nil {
		return nil, err
	}
	res := &weftv1.ListNetworksResponse{}
	a.view.read(func(w *model.World) {
		lost := a.undelivered(w)
		for _, n := range w.Networks {
			if tenant == "" || n.Tenant == tenant {
				res.Networks = append(res.Networks, networkOut(n, a.networkStatus(w, n, lost)))
			}
		}
	})
	slices.SortFunc(res.Networks, func(x, y *weftv1.Network) int {
		return cmp.Or(cmp.Compare(x.Tenant, y.Tenant), cmp.Compare(x.Name, y.Name))
	})
	return connect.NewResponse(res), nil
}

// listed is the tenant whose objects a list shows: the one named, else the caller's own, else all of them ("").
func (a *api) listed(ctx context.Context, named string) (string, error) {
	if named == "" {
		return identityOf(ctx).Tenant, nil
	}
	_, err := a.tenant(ctx, "tenant", named)
	return named, err
}

// UpdateNetwork implements weft.v1.
func (a *api) UpdateNetwork(ctx context.Context, req *connect.Request[weftv1.UpdateNetworkRequest]) (*connect.Response[weftv1.Network], error) {
	rev, err := basedOn(req.Msg.GetRevision())
	if err != nil {
		return nil, err
	}
	spec, err := networkSpecIn(req.Msg.GetSpec())
	if err != nil {
		return nil, err
	}
	old, err := a.network(ctx, "name", req.Msg.GetTenant(), req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	n := *old
	n.Revision, n.Spec = rev, spec
	if err := a.updateNetwork(ctx, &n, old); err != nil {
		return nil, err
	}
	return a.networkAnswer(ctx, &n), nil
}

// updateNetwork checks a changed network against itself, its ports and its hosts, and writes it.
func (a *api) updateNetwork(ctx context.Context, n, old *model.Network) error {
	if err := n.ValidateUpdate(old); err != nil {
		return err
	}
	if err := a.networkVTEPsExist(ctx, n); err != nil {
		return err
	}
	var err error
	a.view.read(func(w *model.World) {
		if err = n.ValidateWith(w.PortsOf(n.UID)); err == nil && n.Spec.MTU != old.Spec.MTU {
			err = membersCarry(w, n)
		}
	})
	if err != nil {
		return err
	}
	lost := map[claim]bool{}
	for attempt := 0; ; attempt++ {
		release, err := a.allocateGroup(n, old, lost)
		if err != nil {
			return err
		}
		err = a.store.UpdateNetwork(ctx, n)
		if err == nil {
			a.readBack(ctx, n.Revision)
		}
		release()
		if !outrun(err, statedInNetwork(n)) || !a.again(ctx, attempt) {
			return err
		}
		lost[outrunBy(err, n)] = true
	}
}

// AddNetworkVTEP implements weft.v1. Adding one that takes part already adds its MACs.
func (a *api) AddNetworkVTEP(ctx context.Context, req *connect.Request[weftv1.AddNetworkVTEPRequest]) (*connect.Response[weftv1.Network], error) {
	part, err := networkVTEPIn("vtep", req.Msg.GetVtep())
	if err != nil {
		return nil, err
	}
	if _, err := a.vtep(ctx, "vtep.vtep", part.VTEP); err != nil {
		return nil, err
	}
	return a.editNetwork(ctx, req.Msg.GetTenant(), req.Msg.GetNetwork(), func(parts []model.NetworkVTEP) ([]model.NetworkVTEP, error) {
		i := slices.IndexFunc(parts, func(v model.NetworkVTEP) bool { return v.VTEP == part.VTEP })
		if i < 0 {
			return append(parts, part), nil
		}
		parts[i].MACs, parts[i].Flood = slices.Clone(parts[i].MACs), part.Flood
		for _, m := range part.MACs {
			if !slices.Contains(parts[i].MACs, m) {
				parts[i].MACs = append(parts[i].MACs, m)
			}
		}
		return parts, nil
	})
}

// RemoveNetworkVTEP implements weft.v1.
func (a *api) RemoveNetworkVTEP(ctx context.Context, req *connect.Request[weftv1.RemoveNetworkVTEPRequest]) (*connect.Response[weftv1.Network], error) {
	name, network := req.Msg.GetVtep(), req.Msg.GetNetwork()
	return a.editNetwork(ctx, req.Msg.GetTenant(), network, func(parts []model.NetworkVTEP) ([]model.NetworkVTEP, error) {
		rest := slices.DeleteFunc(parts, func(v model.NetworkVTEP) bool { return v.VTEP == name })
		if len(rest) == len(parts) {
			return nil, model.Errorf(model.NotFound, "vtep", "see `weft network show "+network+"`",
				"VTEP %q takes no part in network %s", name, network)
		}
		return rest, nil
	})
}

// editNetwork changes a network's external VTEPs on top of whatever the network is now.
func (a *api) editNetwork(ctx context.Context, tenant, name string, edit func([]model.NetworkVTEP) ([]model.NetworkVTEP, error)) (*connect.Response[weftv1.Network], error) {
	for attempt := 0; ; attempt++ {
		old, err := a.network(ctx, "network", tenant, name)
		if err != nil {
			return nil, err
		}
		n := *old
		if n.Spec.VTEPs, err = edit(slices.Clone(old.Spec.VTEPs)); err != nil {
			return nil, err
		}
		err = a.updateNetwork(ctx, &n, old)
		if isKind(err, model.Stale) && a.again(ctx, attempt) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return a.networkAnswer(ctx, &n), nil
	}
}

// DeleteNetwork implements weft.v1.
func (a *api) DeleteNetwork(ctx context.Context, req *connect.Request[weftv1.DeleteNetworkRequest]) (*connect.Response[weftv1.DeleteNetworkResponse], error) {
	if _, err := a.network(ctx, "name", req.Msg.GetTenant(), req.Msg.GetName()); err != nil {
		return nil, err
	}
	rev, err := a.store.DeleteNetwork(ctx, req.Msg.GetTenant(), req.Msg.GetName(), a.now())
	if err != nil {
		return nil, err
	}
	a.readBack(ctx, rev)
	return connect.NewResponse(&weftv1.DeleteNetworkResponse{Revision: int64(rev)}), nil
}

func (a *api) networkAnswer(ctx context.Context, n *model.Network) *connect.Response[weftv1.Network] {
	a.readBack(ctx, n.Revision)
	var status *weftv1.NetworkStatus
	a.view.read(func(w *model.World) { status = a.networkStatus(w, n, a.undelivered(w)) })
	return connect.NewResponse(networkOut(n, status))
}

func (a *api) networkStatus(w *model.World, n *model.Network, lost []undelivered) *weftv1.NetworkStatus {
	out := &weftv1.NetworkStatus{Vni: uint32(n.Alloc.VNI), Mtu: uint32(a.view.mtu(n))}
	hosts := map[model.UID]struct{}{}
	for p := range w.PortsOf(n.UID) {
		out.Ports++
		bound := false
		if b := w.Bindings[p.UID]; b != nil {
			for h := range b.Hosts() {
				hosts[h], bound = struct{}{}, true
			}
		}
		if bound {
			out.BoundPorts++
		}
	}
	a.floodStatus(w, n, out)
	for uid := range hosts {
		out.Hosts = append(out.Hosts, w.HostName(uid))
	}
	slices.Sort(out.Hosts)
	for uid := range hosts {
		said, ok := a.heard.host(uid)
		if !ok || !said.live() {
			continue
		}
		floodedOn(out, n.UID, w.HostName(uid), said)
		if n.Spec.Learning != nil {
			learnedOn(out, n.UID, w.HostName(uid), said)
		}
		if len(said.errors) > 0 {
			out.Conditions = append(out.Conditions, networkConditions(w, n, w.HostName(uid), said.errors)...)
		}
	}
	out.Conditions = append(out.Conditions, conditionsOf(w, lost, func(u undelivered) bool {
		_, receives := hosts[u.receiver]
		_, sends := hosts[u.sender]
		return receives && sends && u.group == n.Alloc.Flood.Sends
	})...)
	slices.SortFunc(out.HostFloods, func(a, b *weftv1.HostFloods) int { return strings.Compare(a.Host, b.Host) })
	slices.SortFunc(out.Conditions, func(a, b *weftv1.Condition) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Message, b.Message))
	})
	return out
}

// networkConditions is what a host could not apply of a network, its ports and its external VTEPs.
func networkConditions(w *model.World, n *model.Network, host string, errors []*planv1.ResourceError) []*weftv1.Condition {
	about := map[model.UID]bool{n.UID: true}
	for _, part := range n.Spec.VTEPs {
		if v := w.VTEPs[part.VTEP]; v != nil {
			about[v.UID] = true
		}
	}
	var out []*weftv1.Condition
	for _, e := range errors {
		uid := model.UID(e.GetUid())
		if p := w.Ports[uid]; about[uid] || p != nil && p.Alloc.NetworkUID == n.UID {
			out = append(out, &weftv1.Condition{Name: "not applied on " + host, Message: displayOf(w, e) + ": " + e.GetMessage()})
		}
	}
	return out
}
