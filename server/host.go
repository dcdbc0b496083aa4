package server

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/plan"
	"github.com/weftnet/weft/trust"
)

const (
	// joinLifetime of a join token when the caller names none, and the longest it may name.
	joinLifetime    = time.Hour
	maxJoinLifetime = 30 * 24 * time.Hour
)

// CreateHostToken implements weft.v1.
func (a *api) CreateHostToken(ctx context.Context, req *connect.Request[weftv1.CreateHostTokenRequest]) (*connect.Response[weftv1.CreateHostTokenResponse], error) {
	lifetime := joinLifetime
	if d := req.Msg.GetLifetime(); d != nil {
		lifetime = d.AsDuration()
	}
	if lifetime <= 0 || lifetime > maxJoinLifetime {
		return nil, model.Errorf(model.Invalid, "lifetime", "use more than 0 and at most 720h", "%s is no lifetime for a join token", lifetime)
	}
	meta, err := a.newMeta()
	if err != nil {
		return nil, err
	}
	h := &model.Host{Meta: meta, Name: req.Msg.GetHost()}
	token, err := trust.NewToken(trust.JoinToken, a.ca.Fingerprint())
	if err != nil {
		return nil, err
	}
	record := &model.JoinToken{ID: token.ID, Host: h.Name, Hash: token.Hash(), Expires: a.now().Add(lifetime).UTC()}
	if err := record.Validate(); err != nil {
		return nil, err
	}
	switch err := a.store.CreateHost(ctx, h); {
	case err == nil:
		a.readBack(ctx, h.Revision)
	case !isKind(err, model.Taken):
		return nil, err
	}
	if err := a.store.CreateJoinToken(ctx, record); err != nil {
		return nil, err
	}
	return connect.NewResponse(&weftv1.CreateHostTokenResponse{
		Token: token.String(), Expires: timestamppb.New(record.Expires),
	}), nil
}

// GetHost implements weft.v1.
func (a *api) GetHost(ctx context.Context, req *connect.Request[weftv1.GetHostRequest]) (*connect.Response[weftv1.Host], error) {
	h, err := a.host(ctx, "name", req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	return a.hostAnswer(ctx, h), nil
}

// ListHosts implements weft.v1.
func (a *api) ListHosts(context.Context, *connect.Request[weftv1.ListHostsRequest]) (*connect.Response[weftv1.ListHostsResponse], error) {
	return connect.NewResponse(&weftv1.ListHostsResponse{Hosts: a.hosts()}), nil
}

func (a *api) hosts() []*weftv1.Host {
	var out []*weftv1.Host
	a.view.read(func(w *model.World) {
		silent, lost := a.silence(w), byHost(a.undelivered(w))
		for _, h := range w.Hosts {
			out = append(out, hostOut(h, a.hostStatus(w, h, silent, lost)))
		}
	})
	slices.SortFunc(out, func(x, y *weftv1.Host) int { return cmp.Compare(x.Name, y.Name) })
	return out
}

// UpdateHost implements weft.v1.
func (a *api) UpdateHost(ctx context.Context, req *connect.Request[weftv1.UpdateHostRequest]) (*connect.Response[weftv1.Host], error) {
	rev, err := basedOn(req.Msg.GetRevision())
	if err != nil {
		return nil, err
	}
	old, err := a.host(ctx, "name", req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	h := *old
	h.Revision = rev
	if h.Spec, err = hostSpecIn(req.Msg.GetSpec()); err != nil {
		return nil, err
	}
	if err := h.ValidateUpdate(old); err != nil {
		return nil, err
	}
	if err := a.store.UpdateHost(ctx, &h); err != nil {
		return nil, err
	}
	return a.hostAnswer(ctx, &h), nil
}

// RemoveHost implements weft.v1. Its certificate is refused and its stream closed from the moment this returns.
func (a *api) RemoveHost(ctx context.Context, req *connect.Request[weftv1.RemoveHostRequest]) (*connect.Response[weftv1.RemoveHostResponse], error) {
	h, err := a.host(ctx, "name", req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	rev, unbound, err := a.store.DeleteHost(ctx, h.Name, req.Msg.GetForce(), a.now())
	if err != nil {
		return nil, err
	}
	a.readBack(ctx, rev)
	return connect.NewResponse(&weftv1.RemoveHostResponse{Revision: int64(rev), UnboundPorts: a.portNames(unbound)}), nil
}

// portNames are "tenant/port" of ports that exist, sorted.
func (a *api) portNames(uids []model.UID) []string {
	var out []string
	a.view.read(func(w *model.World) {
		for _, uid := range uids {
			if p := w.Ports[uid]; p != nil {
				out = append(out, p.Tenant+"/"+p.Name)
			}
		}
	})
	slices.Sort(out)
	return out
}

func (a *api) hostAnswer(ctx context.Context, h *model.Host) *connect.Response[weftv1.Host] {
	a.readBack(ctx, h.Revision)
	var status *weftv1.HostStatus
	a.view.read(func(w *model.World) { status = a.hostStatus(w, h, a.silence(w), byHost(a.undelivered(w))) })
	if said, ok := a.heard.host(h.UID); ok { // of one host only: a listing would be long
		status.Books, status.Lanes, status.Programs = booksOut(said.books), lanesOut(said.lanes), said.programs
		status.Capabilities = capabilitiesOut(said.can)
	}
	return connect.NewResponse(hostOut(h, status))
}

// hostStatus joins the facts that are kept with what the host says now.
func (a *api) hostStatus(w *model.World, h *model.Host, silent silence, lost map[model.UID][]undelivered) *weftv1.HostStatus {
	out := &weftv1.HostStatus{State: weftv1.HostState_HOST_STATE_EXPECTED}
	if f := w.Facts[h.UID]; f != nil {
		out.State = weftv1.HostState_HOST_STATE_UNREACHABLE
		out.VtepAddresses, out.UdpPort, out.UplinkMtu = addrsOut(f.VTEPAddresses), uint32(f.UDPPort), uint32(f.UplinkMTU)
		out.Uplink, out.Kernel, out.Version, out.Features = f.Uplink, f.Kernel, f.Version, f.Features
	}
	for range w.PortsOn(h.UID) {
		out.Ports++
	}
	if c := silent.condition(w, h.UID); c != nil {
		out.Conditions = append(out.Conditions, c)
	}
	said, ok := a.heard.host(h.UID)
	if !ok {
		return out
	}
	out.AppliedRevision, out.LastSeen = int64(said.applied), timeOut(said.seen)
	if !said.live() {
		out.State = weftv1.HostState_HOST_STATE_UNREACHABLE
		return out
	}
	out.State = weftv1.HostState_HOST_STATE_READY
	out.Conditions = append(out.Conditions, hostConditions(w, h, said)...)
	out.Conditions = append(out.Conditions, conditionsOf(w, lost[h.UID], everyPair)...)
	if len(out.Conditions) > 0 {
		out.State = weftv1.HostState_HOST_STATE_DEGRADED
	}
	return out
}

// hostConditions is what needs attention: what the agent says, what it could not apply, and what does not fit its uplink.
func hostConditions(w *model.World, h *model.Host, said heard) []*weftv1.Condition {
	var out []*weftv1.Condition
	for _, c := range said.conditions {
		out = append(out, &weftv1.Condition{Name: c.GetName(), Message: c.GetMessage()})
	}
	if said.refused != "" {
		out = append(out, &weftv1.Condition{Name: "plan refused", Message: said.refused})
	}
	for _, e := range said.errors {
		out = append(out, &weftv1.Condition{Name: "not applied", Message: displayOf(w, e) + ": " + e.GetMessage()})
	}
	tooBig := map[model.UID]bool{}
	for p := range w.PortsOn(h.UID) {
		n := w.Networks[p.Alloc.NetworkUID]
		if n == nil || tooBig[n.UID] {
			continue
		}
		if err := hostCarries(w, h, n); err != nil {
			tooBig[n.UID] = true
			out = append(out, &weftv1.Condition{Name: "mtu", Message: refusal(err).Reason})
		}
	}
	return out
}

// displayOf names a resource for people.
func displayOf(w *model.World, e *planv1.ResourceError) string {
	uid := model.UID(e.GetUid())
	switch e.GetKind() {
	case planv1.Kind_KIND_PORT:
		if p := w.Ports[uid]; p != nil {
			return "port " + p.Tenant + "/" + p.Name
		}
	case planv1.Kind_KIND_NETWORK:
		if n := w.Networks[uid]; n != nil {
			return "network " + n.Tenant + "/" + n.Name
		}
	case planv1.Kind_KIND_VTEP, planv1.Kind_KIND_HOST:
		if h := w.Hosts[uid]; h != nil {
			return "host " + h.Name
		}
		for _, v := range w.VTEPs {
			if v.UID == uid {
				return "vtep " + v.Name
			}
		}
	}
	return fmt.Sprintf("%s %s", plan.KindName(e.GetKind()), uid)
}
