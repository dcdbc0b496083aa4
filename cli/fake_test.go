package cli_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	"github.com/weftnet/weft/api/gen/local/v1/localv1connect"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/api/gen/weft/v1/weftv1connect"
)

// fake is a small server: names, revisions and refusals as the API promises them, and nothing behind. The rules themselves
// are tested where they live.
type fake struct {
	mu         sync.Mutex
	revision   int64
	tenants    shelf[*weftv1.Tenant]
	networks   shelf[*weftv1.Network]
	ports      shelf[*weftv1.Port]
	vteps      shelf[*weftv1.VTEP]
	pools      shelf[*weftv1.VNIPool]
	groupPools shelf[*weftv1.GroupPool]
	hosts      shelf[*weftv1.Host]
	tokens     shelf[*weftv1.APIToken]
	restored   []byte
	// disturb is run once, before the next update: somebody else's write.
	disturb func()
}

// shelf keeps objects of a kind by key, in the order of their making.
type shelf[T proto.Message] struct {
	keys []string
	by   map[string]T
}

func (s *shelf[T]) put(key string, o T) {
	if s.by == nil {
		s.by = map[string]T{}
	}
	if _, there := s.by[key]; !there {
		s.keys = append(s.keys, key)
	}
	s.by[key] = o
}

func (s *shelf[T]) remove(key string) {
	delete(s.by, key)
	s.keys = slices.DeleteFunc(s.keys, func(k string) bool { return k == key })
}

func (s *shelf[T]) all(prefix string) []T {
	var all []T
	for _, k := range s.keys {
		if strings.HasPrefix(k, prefix) {
			all = append(all, s.by[k])
		}
	}
	return all
}

func refuse(code connect.Code, field, reason, fix string) error {
	err := connect.NewError(code, errors.New(reason))
	d, derr := connect.NewErrorDetail(&weftv1.ErrorDetail{Field: field, Reason: reason, Fix: fix})
	if derr != nil {
		panic(derr)
	}
	err.AddDetail(d)
	return err
}

func answer[T any](o *T, err error) (*connect.Response[T], error) {
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(o), nil
}

func (f *fake) meta() *weftv1.Meta {
	f.revision++
	return &weftv1.Meta{Uid: fmt.Sprintf("uid%d", f.revision), Revision: f.revision}
}

func find[T any, P interface {
	*T
	proto.Message
}](s *shelf[P], what, key string) (*T, error) {
	o, ok := s.by[key]
	if !ok {
		return nil, refuse(connect.CodeNotFound, "name", fmt.Sprintf("there is no %s %q", what, key), "look with `weft "+what+" list`")
	}
	return proto.Clone(o).(P), nil
}

func make1[T any, P interface {
	*T
	proto.Message
}](s *shelf[P], what, key string, o *T) (*T, error) {
	if key == "" || strings.Contains(key, "_") {
		return nil, refuse(connect.CodeInvalidArgument, "name", fmt.Sprintf("%q is not a DNS label", key), "use lower-case letters, digits and hyphens")
	}
	if _, there := s.by[key]; there {
		return nil, refuse(connect.CodeAlreadyExists, "name", fmt.Sprintf("%s %q exists", what, key), "choose another name")
	}
	s.put(key, o)
	return proto.Clone(P(o)).(P), nil
}

// stale checks the revision of a write; a fresh one gets the next.
func (f *fake) stale(m *weftv1.Meta, based int64) error {
	if f.disturb != nil {
		d := f.disturb
		f.disturb = nil
		d()
	}
	if m.GetRevision() != based {
		return refuse(connect.CodeAborted, "revision", fmt.Sprintf("revision %d is not the current one, %d", based, m.GetRevision()), "read it again")
	}
	f.revision++
	m.Revision = f.revision
	return nil
}

type tenants struct{ *fake }

func (f tenants) CreateTenant(_ context.Context, r *connect.Request[weftv1.CreateTenantRequest]) (*connect.Response[weftv1.Tenant], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return answer(make1(&f.tenants, "tenant", r.Msg.GetName(), &weftv1.Tenant{Name: r.Msg.GetName(), Meta: f.meta(), Spec: r.Msg.GetSpec()}))
}
func (f tenants) GetTenant(_ context.Context, r *connect.Request[weftv1.GetTenantRequest]) (*connect.Response[weftv1.Tenant], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return answer(find(&f.tenants, "tenant", r.Msg.GetName()))
}
func (f tenants) ListTenants(context.Context, *connect.Request[weftv1.ListTenantsRequest]) (*connect.Response[weftv1.ListTenantsResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return answer(&weftv1.ListTenantsResponse{Tenants: f.tenants.all("")}, nil)
}
func (f tenants) UpdateTenant(_ context.Context, r *connect.Request[weftv1.UpdateTenantRequest]) (*connect.Response[weftv1.Tenant], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.tenants.by[r.Msg.GetName()]
	if err := f.stale(t.GetMeta(), r.Msg.GetRevision()); err != nil {
		return nil, err
	}
	t.Spec = r.Msg.GetSpec()
	return answer(t, nil)
}
func (f tenants) DeleteTenant(_ context.Context, r *connect.Request[weftv1.DeleteTenantRequest]) (*connect.Response[weftv1.DeleteTenantResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.networks.all(r.Msg.GetName()+"/")) > 0 {
		return nil, refuse(connect.CodeFailedPrecondition, "name", "it has networks", "delete them first")
	}
	f.tenants.remove(r.Msg.GetName())
	return answer(&weftv1.DeleteTenantResponse{}, nil)
}

type networks struct{ *fake }

func (f networks) CreateNetwork(_ context.Context, r *connect.Request[weftv1.CreateNetworkRequest]) (*connect.Response[weftv1.Network], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := find(&f.tenants, "tenant", r.Msg.GetTenant()); err != nil {
		return nil, err
	}
	for i, s := range r.Msg.GetSpec().GetSubnets() {
		if _, err := netip.ParsePrefix(s); err != nil {
			return nil, refuse(connect.CodeInvalidArgument, fmt.Sprintf("spec.subnets[%d]", i), fmt.Sprintf("%q is not a prefix", s), "write 10.1.0.0/24")
		}
	}
	vni := r.Msg.GetSpec().GetVni()
	if vni == 0 {
		vni = 4096 + uint32(len(f.networks.keys))
	}
	return answer(make1(&f.networks, "network", r.Msg.GetTenant()+"/"+r.Msg.GetName(), &weftv1.Network{
		Tenant: r.Msg.GetTenant(), Name: r.Msg.GetName(), Meta: f.meta(), Spec: r.Msg.GetSpec(),
		Status: &weftv1.NetworkStatus{Vni: vni, Mtu: 1450, FanOut: 3, FloodsPerSecond: 0.25, CopiesPerSecond: 1234.4,
			HostFloods: []*weftv1.HostFloods{{Host: "h1", Floods: 7, Copies: 21}}},
	}))
}
func (f networks) GetNetwork(_ context.Context, r *connect.Request[weftv1.GetNetworkRequest]) (*connect.Response[weftv1.Network], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return answer(find(&f.networks, "network", r.Msg.GetTenant()+"/"+r.Msg.GetName()))
}
func (f networks) ListNetworks(_ context.Context, r *connect.Request[weftv1.ListNetworksRequest]) (*connect.Response[weftv1.ListNetworksResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return answer(&weftv1.ListNetworksResponse{Networks: f.networks.all(within(r.Msg.GetTenant()))}, nil)
}
func within(tenant string) string {
	if tenant == "" {
		return ""
	}
	return tenant + "/"
}
func (f networks) UpdateNetwork(_ context.Context, r *connect.Request[weftv1.UpdateNetworkRequest]) (*connect.Response[weftv1.Network], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.networks.by[r.Msg.GetTenant()+"/"+r.Msg.GetName()]
	if err := f.stale(n.GetMeta(), r.Msg.GetRevision()); err != nil {
		return nil, err
	}
	n.Spec = r.Msg.GetSpec()
	return answer(n, nil)
}
func (f networks) DeleteNetwork(_ context.Context, r *connect.Request[weftv1.DeleteNetworkRequest]) (*connect.Response[weftv1.DeleteNetworkResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.networks.remove(r.Msg.GetTenant() + "/" + r.Msg.GetName())
	return answer(&weftv1.DeleteNetworkResponse{}, nil)
}
func (f networks) AddNetworkVTEP(_ context.Context, r *connect.Request[weftv1.AddNetworkVTEPRequest]) (*connect.Response[weftv1.Network], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.networks.by[r.Msg.GetTenant()+"/"+r.Msg.GetNetwork()]
	n.Spec.Vteps = append(n.Spec.Vteps, r.Msg.GetVtep())
	return answer(n, nil)
}
func (f networks) RemoveNetworkVTEP(_ context.Context, r *connect.Request[weftv1.RemoveNetworkVTEPRequest]) (*connect.Response[weftv1.Network], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.networks.by[r.Msg.GetTenant()+"/"+r.Msg.GetNetwork()]
	n.Spec.Vteps = slices.DeleteFunc(n.Spec.Vteps, func(v *weftv1.NetworkVTEP) bool { return v.GetVtep() == r.Msg.GetVtep() })
	return answer(n, nil)
}

type ports struct {
	weftv1connect.UnimplementedPortServiceHandler
	*fake
}

func (f ports) CreatePort(_ context.Context, r *connect.Request[weftv1.CreatePortRequest]) (*connect.Response[weftv1.Port], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := find(&f.networks, "network", r.Msg.GetTenant()+"/"+r.Msg.GetSpec().GetNetwork()); err != nil {
		return nil, err
	}
	st := &weftv1.PortStatus{Macs: r.Msg.GetSpec().GetMacs(), Ips: r.Msg.GetSpec().GetIps(), Binding: &weftv1.Binding{}}
	if len(st.Macs) == 0 {
		st.Macs = []string{fmt.Sprintf("02:77:65:00:00:%02x", len(f.ports.keys)+1)}
	}
	if len(st.Ips) == 0 {
		st.Ips = []string{fmt.Sprintf("10.1.0.%d/24", len(f.ports.keys)+2)}
	}
	return answer(make1(&f.ports, "port", r.Msg.GetTenant()+"/"+r.Msg.GetName(), &weftv1.Port{
		Tenant: r.Msg.GetTenant(), Name: r.Msg.GetName(), Meta: f.meta(), Spec: r.Msg.GetSpec(), Status: st,
	}))
}
func (f ports) GetPort(_ context.Context, r *connect.Request[weftv1.GetPortRequest]) (*connect.Response[weftv1.Port], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return answer(find(&f.ports, "port", r.Msg.GetTenant()+"/"+r.Msg.GetName()))
}
func (f ports) ListPorts(_ context.Context, r *connect.Request[weftv1.ListPortsRequest]) (*connect.Response[weftv1.ListPortsResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := slices.DeleteFunc(f.ports.all(within(r.Msg.GetTenant())), func(p *weftv1.Port) bool {
		return r.Msg.GetNetwork() != "" && p.GetSpec().GetNetwork() != r.Msg.GetNetwork() ||
			r.Msg.GetHost() != "" && p.GetStatus().GetBinding().GetActive() != r.Msg.GetHost()
	})
	return answer(&weftv1.ListPortsResponse{Ports: all}, nil)
}
func (f ports) UpdatePort(_ context.Context, r *connect.Request[weftv1.UpdatePortRequest]) (*connect.Response[weftv1.Port], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.ports.by[r.Msg.GetTenant()+"/"+r.Msg.GetName()]
	if err := f.stale(p.GetMeta(), r.Msg.GetRevision()); err != nil {
		return nil, err
	}
	if p.GetSpec().GetNetwork() != r.Msg.GetSpec().GetNetwork() {
		return nil, refuse(connect.CodeInvalidArgument, "spec.network", "it never changes", "make another port")
	}
	p.Spec = r.Msg.GetSpec()
	return answer(p, nil)
}
func (f ports) DeletePort(_ context.Context, r *connect.Request[weftv1.DeletePortRequest]) (*connect.Response[weftv1.DeletePortResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.ports.by[r.Msg.GetTenant()+"/"+r.Msg.GetName()]
	if h := p.GetStatus().GetBinding().GetActive(); h != "" {
		return nil, refuse(connect.CodeFailedPrecondition, "name", "it is bound to "+h, "detach it first")
	}
	f.ports.remove(r.Msg.GetTenant() + "/" + r.Msg.GetName())
	f.revision++
	return answer(&weftv1.DeletePortResponse{Revision: f.revision}, nil)
}
func (f ports) bind(tenant, name, host string, epoch int64) (*connect.Response[weftv1.Port], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, ok := f.ports.by[tenant+"/"+name]
	if !ok {
		return nil, refuse(connect.CodeNotFound, "name", "there is no port "+name, "")
	}
	b := p.GetStatus().GetBinding()
	if epoch != 0 && epoch != b.GetEpoch() {
		return nil, refuse(connect.CodeAborted, "epoch", fmt.Sprintf("epoch %d is not the current one, %d", epoch, b.GetEpoch()), "look again")
	}
	f.revision++
	p.Status.Binding = &weftv1.Binding{Active: host, Epoch: f.revision}
	return answer(p, nil)
}
func (f ports) BindPort(_ context.Context, r *connect.Request[weftv1.BindPortRequest]) (*connect.Response[weftv1.Port], error) {
	return f.bind(r.Msg.GetTenant(), r.Msg.GetName(), r.Msg.GetHost(), 0)
}
func (f ports) UnbindPort(_ context.Context, r *connect.Request[weftv1.UnbindPortRequest]) (*connect.Response[weftv1.Port], error) {
	return f.bind(r.Msg.GetTenant(), r.Msg.GetName(), "", r.Msg.GetEpoch())
}

type vteps struct{ *fake }

func (f vteps) CreateVTEP(_ context.Context, r *connect.Request[weftv1.CreateVTEPRequest]) (*connect.Response[weftv1.VTEP], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return answer(make1(&f.vteps, "vtep", r.Msg.GetName(), &weftv1.VTEP{Name: r.Msg.GetName(), Meta: f.meta(), Spec: r.Msg.GetSpec()}))
}
func (f vteps) GetVTEP(_ context.Context, r *connect.Request[weftv1.GetVTEPRequest]) (*connect.Response[weftv1.VTEP], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return answer(find(&f.vteps, "vtep", r.Msg.GetName()))
}
func (f vteps) ListVTEPs(context.Context, *connect.Request[weftv1.ListVTEPsRequest]) (*connect.Response[weftv1.ListVTEPsResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return answer(&weftv1.ListVTEPsResponse{Vteps: f.vteps.all("")}, nil)
}
func (f vteps) UpdateVTEP(_ context.Context, r *connect.Request[weftv1.UpdateVTEPRequest]) (*connect.Response[weftv1.VTEP], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.vteps.by[r.Msg.GetName()]
	if err := f.stale(v.GetMeta(), r.Msg.GetRevision()); err != nil {
		return nil, err
	}
	v.Spec = r.Msg.GetSpec()
	return answer(v, nil)
}
func (f vteps) DeleteVTEP(_ context.Context, r *connect.Request[weftv1.DeleteVTEPRequest]) (*connect.Response[weftv1.DeleteVTEPResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.vteps.remove(r.Msg.GetName())
	return answer(&weftv1.DeleteVTEPResponse{}, nil)
}

type pools struct{ *fake }

func (f pools) CreateVNIPool(_ context.Context, r *connect.Request[weftv1.CreateVNIPoolRequest]) (*connect.Response[weftv1.VNIPool], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return answer(make1(&f.pools, "pool", r.Msg.GetName(), &weftv1.VNIPool{Name: r.Msg.GetName(), Meta: f.meta(), Spec: r.Msg.GetSpec()}))
}
func (f pools) GetVNIPool(_ context.Context, r *connect.Request[weftv1.GetVNIPoolRequest]) (*connect.Response[weftv1.VNIPool], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return answer(find(&f.pools, "pool", r.Msg.GetName()))
}
func (f pools) ListVNIPools(context.Context, *connect.Request[weftv1.ListVNIPoolsRequest]) (*connect.Response[weftv1.ListVNIPoolsResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return answer(&weftv1.ListVNIPoolsResponse{Pools: f.pools.all("")}, nil)
}
func (f pools) UpdateVNIPool(_ context.Context, r *connect.Request[weftv1.UpdateVNIPoolRequest]) (*connect.Response[weftv1.VNIPool], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pools.by[r.Msg.GetName()]
	if err := f.stale(p.GetMeta(), r.Msg.GetRevision()); err != nil {
		return nil, err
	}
	p.Spec = r.Msg.GetSpec()
	return answer(p, nil)
}
func (f pools) DeleteVNIPool(_ context.Context, r *connect.Request[weftv1.DeleteVNIPoolRequest]) (*connect.Response[weftv1.DeleteVNIPoolResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pools.remove(r.Msg.GetName())
	return answer(&weftv1.DeleteVNIPoolResponse{}, nil)
}

type hosts struct {
	weftv1connect.UnimplementedHostServiceHandler
	*fake
}

func (f hosts) CreateHostToken(_ context.Context, r *connect.Request[weftv1.CreateHostTokenRequest]) (*connect.Response[weftv1.CreateHostTokenResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hosts.put(r.Msg.GetHost(), &weftv1.Host{Name: r.Msg.GetHost(), Meta: f.meta(), Spec: &weftv1.HostSpec{}, Status: &weftv1.HostStatus{
		Programs: []string{"from_port on veth7, tcx, program 9"},
		Capabilities: []*weftv1.Capability{{Name: "tcx links", Present: true},
			{Name: "XDP redirect target", Interface: "eth1", Detail: "basic redirect"}},
		Books: []*weftv1.ProgramBooks{{Program: "from_port", In: 103, Delivered: 60, Encapsulated: 20, Passed: 5, Answered: 3, Dropped: 15, Answers: 12}, {Program: "to_uplink"}},
		Lanes: []*weftv1.LaneCount{{Reason: "checksum", Packets: 4}},
	}})
	return answer(&weftv1.CreateHostTokenResponse{Token: fmt.Sprintf("weft-join.for.%s.%s", r.Msg.GetHost(), r.Msg.GetLifetime().AsDuration())}, nil)
}
func (f hosts) GetHost(_ context.Context, r *connect.Request[weftv1.GetHostRequest]) (*connect.Response[weftv1.Host], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return answer(find(&f.hosts, "host", r.Msg.GetName()))
}
func (f hosts) ListHosts(context.Context, *connect.Request[weftv1.ListHostsRequest]) (*connect.Response[weftv1.ListHostsResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return answer(&weftv1.ListHostsResponse{Hosts: f.hosts.all("")}, nil)
}
func (f hosts) UpdateHost(_ context.Context, r *connect.Request[weftv1.UpdateHostRequest]) (*connect.Response[weftv1.Host], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.hosts.by[r.Msg.GetName()]
	if err := f.stale(h.GetMeta(), r.Msg.GetRevision()); err != nil {
		return nil, err
	}
	h.Spec = r.Msg.GetSpec()
	return answer(h, nil)
}
func (f hosts) RemoveHost(_ context.Context, r *connect.Request[weftv1.RemoveHostRequest]) (*connect.Response[weftv1.RemoveHostResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	res := &weftv1.RemoveHostResponse{}
	for _, p := range f.ports.all("") {
		if p.GetStatus().GetBinding().GetActive() != r.Msg.GetName() {
			continue
		}
		if !r.Msg.GetForce() {
			return nil, refuse(connect.CodeFailedPrecondition, "name", "ports are bound to it", "move them, or give --force")
		}
		p.Status.Binding.Active = ""
		res.UnboundPorts = append(res.UnboundPorts, p.GetTenant()+"/"+p.GetName())
	}
	f.hosts.remove(r.Msg.GetName())
	return answer(res, nil)
}

type system struct{ *fake }

func (f system) GetVersion(context.Context, *connect.Request[weftv1.GetVersionRequest]) (*connect.Response[weftv1.GetVersionResponse], error) {
	return answer(&weftv1.GetVersionResponse{Version: "9.9", Commit: "fake", GoVersion: "go"}, nil)
}
func (f system) GetStatus(context.Context, *connect.Request[weftv1.GetStatusRequest]) (*connect.Response[weftv1.GetStatusResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return answer(&weftv1.GetStatusResponse{Version: "9.9", StoreId: "s1", Revision: f.revision, StoreOctets: 2048, StoreQuotaOctets: 8 << 30,
		Tenants: uint32(len(f.tenants.keys)), Hosts: f.hosts.all("")}, nil)
}
func (f system) ListDrops(_ context.Context, r *connect.Request[weftv1.ListDropsRequest]) (*connect.Response[weftv1.ListDropsResponse], error) {
	all := []*weftv1.Drop{
		{Host: "h1", Tenant: "acme", Port: "web1", Reason: "src_mac", Packets: 12},
		{Host: "h2", Reason: "unknown_vtep", Packets: 3, Source: "192.0.2.66"},
	}
	all = slices.DeleteFunc(all, func(d *weftv1.Drop) bool {
		return r.Msg.GetTenant() != "" && d.GetTenant() != r.Msg.GetTenant() || r.Msg.GetHost() != "" && d.GetHost() != r.Msg.GetHost()
	})
	res := &weftv1.ListDropsResponse{Drops: all}
	if r.Msg.GetTenant() == "" && r.Msg.GetPort() == "" {
		res.Books = []*weftv1.HostBooks{{Host: "h1", Books: []*weftv1.ProgramBooks{
			{Program: "from_port", In: 103, Delivered: 60, Encapsulated: 20, Passed: 5, Answered: 3, Dropped: 15, Copies: 3, Answers: 12}}}}
	}
	return answer(res, nil)
}
func (f system) WaitApplied(_ context.Context, r *connect.Request[weftv1.WaitAppliedRequest]) (*connect.Response[weftv1.WaitAppliedResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Msg.GetRevision() == 0 || r.Msg.GetRevision() > f.revision {
		return nil, refuse(connect.CodeInvalidArgument, "revision", "no such revision", "")
	}
	if r.Msg.GetNetwork() == "lost" {
		return nil, connect.NewError(connect.CodeUnavailable, errors.New("the server is stopping"))
	}
	if r.Msg.GetNetwork() == "slow" {
		return answer(&weftv1.WaitAppliedResponse{Applied: []string{"h1"}, Lagging: []string{"h2", "h3"}}, nil)
	}
	return answer(&weftv1.WaitAppliedResponse{Complete: true}, nil)
}
func (f system) Backup(_ context.Context, _ *connect.Request[weftv1.BackupRequest], s *connect.ServerStream[weftv1.BackupResponse]) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := s.Send(&weftv1.BackupResponse{Chunk: []byte("backup ")}); err != nil {
		return err
	}
	if _, ok := f.tenants.by["broken"]; ok {
		return refuse(connect.CodeUnavailable, "", "the store went away", "try again")
	}
	return s.Send(&weftv1.BackupResponse{Chunk: fmt.Appendf(nil, "at %d", f.revision)})
}
func (f system) Restore(_ context.Context, s *connect.ClientStream[weftv1.RestoreRequest]) (*connect.Response[weftv1.RestoreResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.restored = nil
	for s.Receive() {
		f.restored = append(f.restored, s.Msg().GetChunk()...)
	}
	if err := s.Err(); err != nil {
		return nil, err
	}
	if !strings.HasPrefix(string(f.restored), "backup ") {
		return nil, refuse(connect.CodeInvalidArgument, "backup", "it is not a backup", "give a file that `weft backup` wrote")
	}
	return answer(&weftv1.RestoreResponse{StoreId: "s2", Revision: 100, Objects: 3}, nil)
}
func (f system) CreateAPIToken(_ context.Context, r *connect.Request[weftv1.CreateAPITokenRequest]) (*connect.Response[weftv1.CreateAPITokenResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := &weftv1.APIToken{Name: r.Msg.GetName(), Scope: r.Msg.GetScope(), Tenant: r.Msg.GetTenant()}
	f.tokens.put(t.Name, t)
	return answer(&weftv1.CreateAPITokenResponse{Token: t, Secret: fmt.Sprintf("weft-api.%s.%s", t.GetName(), r.Msg.GetLifetime().AsDuration())}, nil)
}
func (f system) ListAPITokens(context.Context, *connect.Request[weftv1.ListAPITokensRequest]) (*connect.Response[weftv1.ListAPITokensResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return answer(&weftv1.ListAPITokensResponse{Tokens: f.tokens.all("")}, nil)
}
func (f system) DeleteAPIToken(_ context.Context, r *connect.Request[weftv1.DeleteAPITokenRequest]) (*connect.Response[weftv1.DeleteAPITokenResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tokens.remove(r.Msg.GetName())
	return answer(&weftv1.DeleteAPITokenResponse{}, nil)
}

func (f *fake) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(weftv1connect.NewTenantServiceHandler(tenants{f}))
	mux.Handle(weftv1connect.NewNetworkServiceHandler(networks{f}))
	mux.Handle(weftv1connect.NewPortServiceHandler(ports{fake: f}))
	mux.Handle(weftv1connect.NewVTEPServiceHandler(vteps{f}))
	mux.Handle(weftv1connect.NewVNIPoolServiceHandler(pools{f}))
	mux.Handle(weftv1connect.NewGroupPoolServiceHandler(groupPools{f}))
	mux.Handle(weftv1connect.NewHostServiceHandler(hosts{fake: f}))
	mux.Handle(weftv1connect.NewSystemServiceHandler(system{f}))
	return mux
}

// fakeAgent answers on the agent's socket of host h1.
type fakeAgent struct {
	localv1connect.UnimplementedLocalServiceHandler
	mu       sync.Mutex
	attached []*localv1.Attachment
	// calls that changed something.
	calls []string
	// elsewhere are ports ("tenant/name") that are bound to another host.
	elsewhere map[string]bool
}

func (f *fakeAgent) find(tenant, port string) *localv1.Attachment {
	for _, at := range f.attached {
		if at.GetTenant() == tenant && at.GetPort() == port {
			return at
		}
	}
	return nil
}

func (f *fakeAgent) drop(tenant, port string) {
	f.attached = slices.DeleteFunc(f.attached, func(at *localv1.Attachment) bool { return at.GetTenant() == tenant && at.GetPort() == port })
}

func (f *fakeAgent) Attach(_ context.Context, r *connect.Request[localv1.AttachRequest]) (*connect.Response[localv1.AttachResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if have := f.find(r.Msg.GetTenant(), r.Msg.GetPort()); have != nil {
		return answer(&localv1.AttachResponse{Attachment: have}, nil)
	}
	if r.Msg.GetPort() == "unknown" {
		return nil, refuse(connect.CodeNotFound, "port", "there is no port unknown", "look with `weft port list`")
	}
	elsewhere := r.Msg.GetPort() == "elsewhere" || f.elsewhere[r.Msg.GetTenant()+"/"+r.Msg.GetPort()]
	if elsewhere && !r.Msg.GetTake() {
		return nil, refuse(connect.CodeFailedPrecondition, "port", "it is bound to host h3", "move it here: `weft port move elsewhere --host h1`")
	}
	at := &localv1.Attachment{Tenant: r.Msg.GetTenant(), Port: r.Msg.GetPort(), Interface: "weft0123456789", Macs: []string{"02:77:65:00:00:01"},
		Ips: []string{"10.1.0.2/24"}, Mtu: 1450, Vni: 4096, State: "active"}
	switch i := r.Msg.GetInterface().(type) {
	case *localv1.AttachRequest_Netns:
		at.Kind, at.Netns, at.Ifname = "veth", i.Netns.GetNetns(), i.Netns.GetIfname()
		if at.Ifname == "" {
			at.Ifname = "eth0"
		}
	case *localv1.AttachRequest_Tap:
		at.Kind, at.Interface, at.Queues = "tap", i.Tap, max(r.Msg.GetMakeTap().GetQueues(), 1)
	case *localv1.AttachRequest_Device:
		at.Kind, at.Interface = "device", i.Device
	}
	if elsewhere {
		at.State, at.Move = "held", "incoming"
	}
	f.attached = append(f.attached, at)
	f.calls = append(f.calls, fmt.Sprintf("attach %s/%s to %s, %d queues, take %t", r.Msg.GetTenant(), r.Msg.GetPort(), r.Msg.GetTap(),
		r.Msg.GetMakeTap().GetQueues(), r.Msg.GetTake()))
	return answer(&localv1.AttachResponse{Attachment: at}, nil)
}
func (f *fakeAgent) Detach(_ context.Context, r *connect.Request[localv1.DetachRequest]) (*connect.Response[localv1.DetachResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.drop(r.Msg.GetTenant(), r.Msg.GetPort())
	f.calls = append(f.calls, "detach "+r.Msg.GetTenant()+"/"+r.Msg.GetPort())
	return answer(&localv1.DetachResponse{}, nil)
}
func (f *fakeAgent) ListAttachments(context.Context, *connect.Request[localv1.ListAttachmentsRequest]) (*connect.Response[localv1.ListAttachmentsResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return answer(&localv1.ListAttachmentsResponse{Attachments: f.attached}, nil)
}

// listen serves on a unix socket until stop.
func listen(path string, h http.Handler) (stop func(), err error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	srv := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	return func() { srv.Close(); <-done }, nil
}

// GetStatus and ListNetworks are those of a VTEP with no server.
func (f *fakeAgent) GetStatus(context.Context, *connect.Request[localv1.GetStatusRequest]) (*connect.Response[localv1.GetStatusResponse], error) {
	return connect.NewResponse(&localv1.GetStatusResponse{Host: "edge1", VtepAddress: "192.0.2.1", Uplink: "eth1",
		Conditions: []*localv1.Condition{{Name: "plan refused", Message: "the last good one stays: vtep.yaml:3 name: a name is needed"}},
		Books:      []*localv1.ProgramBooks{{Program: "from_port", In: 9, Encapsulated: 7, Dropped: 2, Copies: 4}},
		Drops:      []*localv1.Drop{{Reason: "SOURCE_NOT_ACCEPTED", Packets: 7, Source: "192.0.2.66"}}}), nil
}

func (f *fakeAgent) ListNetworks(_ context.Context, req *connect.Request[localv1.ListNetworksRequest]) (*connect.Response[localv1.ListNetworksResponse], error) {
	n := &localv1.HeldNetwork{Vni: 7, Name: "blue", Mtu: 1450, UnknownUnicast: "flood", Remotes: []string{"192.0.2.2"},
		Ports: []*localv1.HeldPort{{Name: "tap0", Interface: "tap0", State: "active", EgressPackets: 3, EgressOctets: 300, Dropped: 2},
			{Name: "gone", Interface: "tap1", State: "detached", Message: "interface tap1 is not there"}}}
	n.Groups = []*localv1.HeldGroup{{Group: "239.1.2.3", Sends: true, Uplink: "eth1"}, {Group: "ff05::7", Message: "no such device"}}
	n.Floods, n.Copies = 5, 6
	if !req.Msg.Brief {
		n.Fdb = []*localv1.FdbEntry{{Mac: "02:00:00:00:00:01", Port: "tap0"}, {Mac: "02:00:00:00:00:02", Vtep: "192.0.2.2"},
			{Mac: "02:00:00:00:00:03", Vtep: "192.0.2.2", Learned: true, AgeNanoseconds: 12e9, LeftNanoseconds: 288e9, Frozen: true}}
	}
	return connect.NewResponse(&localv1.ListNetworksResponse{Networks: []*localv1.HeldNetwork{n}}), nil
}
