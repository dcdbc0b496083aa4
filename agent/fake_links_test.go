package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"connectrpc.com/connect"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/wire"
)

// fakeLinks is Links in memory. Far ends are kept by namespace; a namespace that was not made is missing.
type fakeLinks struct {
	mu      sync.Mutex
	next    int
	links   map[string]netdev.Link
	far     map[string]map[string]bool // namespace -> interface names in it
	addrs   []netdev.Address
	routes  []netdev.Route
	managed map[netdev.Hop]bool
	groups  map[netdev.Group]bool
	// full: no more groups can be joined.
	full   bool
	events chan netdev.Event
	veths  map[string]veth // as they were last asked for, by near end
	// taps are the TAP devices that were made, opened those that a guest has open.
	taps   map[string]madeTAP
	opened map[string]bool
	// guarded reports whether an interface has its program; unsafe are those set up or let go of without.
	guarded func(index int) bool
	unsafe  []string
	// peers are the features of veths' other ends; fast reports whether an interface is in the XDP lane.
	peers map[string]map[netdev.Feature]bool
	// looks are how often PeerFeatures was asked, by interface.
	looks map[string]int
	fast  func(index int) bool
	xdp   chan int
	// noXDP is what the driver of every interface cannot do.
	noXDP netdev.XDPFeatures
}

func newFakeLinks() *fakeLinks {
	f := &fakeLinks{
		next: 10, links: map[string]netdev.Link{}, far: map[string]map[string]bool{}, managed: map[netdev.Hop]bool{}, groups: map[netdev.Group]bool{},
		taps: map[string]madeTAP{}, opened: map[string]bool{},
		events: make(chan netdev.Event, 64), veths: map[string]veth{},
		peers: map[string]map[netdev.Feature]bool{}, looks: map[string]int{}, xdp: make(chan int, 64),
	}
	f.links["eth1"] = netdev.Link{Index: 2, Name: "eth1", Kind: "device", MTU: 1500, Up: true}
	f.links["lo"] = netdev.Link{Index: 1, Name: "lo", Kind: "device", MTU: 65536, Up: true}
	f.addrs = []netdev.Address{{Prefix: netip.MustParsePrefix("192.0.2.1/24"), Index: 2}}
	f.routes = []netdev.Route{{Dst: netip.MustParsePrefix("0.0.0.0/0"), Hops: []netdev.Hop{{Gateway: netip.MustParseAddr("192.0.2.254"), Index: 2}}}}
	return f
}

func (f *fakeLinks) Link(name string) (netdev.Link, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, ok := f.links[name]
	if !ok {
		return l, fmt.Errorf("%s: %w", name, netdev.ErrNotFound)
	}
	return l, nil
}

// add makes an interface of somebody else, as a VM does with its TAP.
func (f *fakeLinks) add(name, kind string) netdev.Link {
	f.mu.Lock()
	f.next++
	l := netdev.Link{Index: f.next, Name: name, Kind: kind, MTU: 1500, PeerNamespaceID: -1}
	f.links[name] = l
	f.mu.Unlock()
	f.events <- netdev.Event{Kind: netdev.EventLink, Index: l.Index, Link: l}
	return l
}

func (f *fakeLinks) drop(name string) {
	f.mu.Lock()
	l := f.links[name]
	delete(f.links, name)
	f.mu.Unlock()
	f.events <- netdev.Event{Kind: netdev.EventLink, Removed: true, Index: l.Index, Link: l}
}

func (f *fakeLinks) MakeVeth(v veth) (netdev.Link, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	far, ok := f.far[v.netns]
	if !ok {
		return netdev.Link{}, fs.ErrNotExist
	}
	f.veths[v.near] = v
	if l, ok := f.links[v.near]; ok {
		l.MTU = v.mtu
		f.links[v.near] = l
		return l, nil
	}
	if far[v.far] {
		return netdev.Link{}, fs.ErrExist
	}
	f.next++
	far[v.far] = true
	l := netdev.Link{
		Index: f.next, Name: v.near, Kind: "veth", MTU: v.mtu, PeerNamespaceID: 3,
		Alias: netdev.Mark{Instance: "default", Port: v.uid}.String(),
	}
	f.links[v.near] = l
	f.peers[v.near] = map[netdev.Feature]bool{netdev.TX: true, netdev.TXVLAN: true, netdev.TXServiceVLAN: false, netdev.GRO: false}
	return l, nil
}

func (f *fakeLinks) PeerFeatures(name, _ string) (map[netdev.Feature]bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looks[name]++
	if f.peers[name] == nil {
		return nil, fmt.Errorf("interface %s: %w", name, netdev.ErrNoPeer)
	}
	return maps.Clone(f.peers[name]), nil
}

func (f *fakeLinks) SetPeerFeatures(name, _ string, want map[netdev.Feature]bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.peers[name] == nil {
		return netdev.ErrNoPeer
	}
	for feature, on := range want {
		if f.fast(f.links[name].Index) && on != netdev.FeaturesForXDP()[feature] {
			f.unsafe = append(f.unsafe, fmt.Sprintf("%s of the other end of %s is switched to %t while it is in the XDP lane", feature, name, on))
		}
		f.peers[name][feature] = on
	}
	return nil
}

func (f *fakeLinks) looked(name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.looks[name]
}

// workload changes its own end.
func (f *fakeLinks) workload(name string, feature netdev.Feature, on bool) {
	f.mu.Lock()
	f.peers[name][feature] = on
	index := f.links[name].Index
	f.mu.Unlock()
	f.xdp <- index
}

func (f *fakeLinks) XDPFeatures(index int) (netdev.XDPFeatures, error) {
	return (netdev.XDPBasic | netdev.XDPRedirect | netdev.XDPTransmit | netdev.XDPTransmitFragments) &^ f.noXDP, nil
}

func (f *fakeLinks) WatchXDP(context.Context) (<-chan int, error) { return f.xdp, nil }

func (f *fakeLinks) MakeOAM(near, far wire.MAC, mtu int) (netdev.Link, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := netdev.Link{Index: 5, Name: oamInterface, Kind: "veth", MTU: mtu, Up: true}
	f.links[oamInterface] = l
	return l, nil
}

func (f *fakeLinks) SetUp(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.links[name]
	if _, ours := l.Mark(); ours && !f.guarded(l.Index) {
		f.unsafe = append(f.unsafe, "interface "+name+" is set up before its program is attached")
	}
	l.Up = true
	f.links[name] = l
	return nil
}

func (f *fakeLinks) SetDown(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.links[name]
	l.Up = false
	f.links[name] = l
	return nil
}

func (f *fakeLinks) SetMTU(name string, mtu int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, ok := f.links[name]
	if !ok {
		return netdev.ErrNotFound
	}
	l.MTU = mtu
	f.links[name] = l
	return nil
}

func (f *fakeLinks) MakeTAP(name string, queues, owner, group int) (netdev.Link, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if l, ok := f.links[name]; ok {
		return l, nil
	}
	f.next++
	f.taps[name] = madeTAP{queues, owner, group}
	f.links[name] = netdev.Link{Index: f.next, Name: name, Kind: "tuntap", MTU: 1500, PeerNamespaceID: -1}
	return f.links[name], nil
}

func (f *fakeLinks) RemoveTAP(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.opened[name] {
		return fmt.Errorf("remove TAP device %s: a virtual machine has it open", name)
	}
	if l, ok := f.links[name]; ok && !f.guarded(l.Index) && l.Up {
		f.unsafe = append(f.unsafe, "interface "+name+" lost its program while it was up")
	}
	delete(f.links, name)
	return nil
}

func (f *fakeLinks) Delete(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if l, ok := f.links[name]; ok {
		if _, ours := l.Mark(); !ours {
			return netdev.ErrNotOwned
		}
		if !f.guarded(l.Index) && l.Up {
			f.unsafe = append(f.unsafe, "interface "+name+" lost its program while it was up")
		}
	}
	delete(f.links, name)
	return nil
}

func (f *fakeLinks) Owned() ([]netdev.Link, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []netdev.Link
	for _, l := range f.links {
		if _, ok := l.Mark(); ok {
			list = append(list, l)
		}
	}
	return list, nil
}

func (f *fakeLinks) Links() ([]netdev.Link, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []netdev.Link
	for _, l := range f.links {
		list = append(list, l)
	}
	return list, nil
}

func (f *fakeLinks) Addresses(string) ([]netdev.Address, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.addrs), nil
}

func (f *fakeLinks) Routes() ([]netdev.Route, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.routes), nil
}

func (f *fakeLinks) JoinGroup(name string, group netip.Addr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.full {
		return errors.New("no more memberships fit")
	}
	f.groups[netdev.Group{Index: f.links[name].Index, Addr: group}] = true
	return nil
}

func (f *fakeLinks) LeaveGroup(g netdev.Group) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.groups, g)
	return nil
}

func (f *fakeLinks) Groups() ([]netdev.Group, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Keys(f.groups)), nil
}

func (f *fakeLinks) ManageNeighbour(index int, ip netip.Addr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.managed[netdev.Hop{Gateway: ip, Index: index}] = true
	return nil
}

func (f *fakeLinks) ReleaseNeighbour(index int, ip netip.Addr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.managed, netdev.Hop{Gateway: ip, Index: index})
	return nil
}

func (f *fakeLinks) Subscribe(context.Context) (<-chan netdev.Event, error) { return f.events, nil }

// fakeServer is the agent's server in memory: it binds what it is told may be bound, and sends the plan on demand.
type fakeServer struct {
	mu     sync.Mutex
	away   bool
	refuse error
	silent bool // binds, and never sends the plan
	bound  map[string]bool
	onBind func(tenant, port string) *planv1.BindResponse
	// onPrepare answers Prepare; commits, aborted and settled are what was asked.
	elsewhere bool // everything is bound to another host
	onPrepare func(tenant, port string) *planv1.PrepareResponse
	commits   []*planv1.CommitRequest
	aborted   []string
	settled   []*planv1.SettleRequest
	applied   []*planv1.Applied
	reports   []*planv1.Report
	facts     []*planv1.Facts
	said      chan struct{}
}

func (s *fakeServer) Say(a *planv1.Applied, f *planv1.Facts, r *planv1.Report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a != nil {
		s.applied = append(s.applied, a)
	}
	if f != nil {
		s.facts = append(s.facts, f)
	}
	if r != nil {
		s.reports = append(s.reports, r)
	}
	select {
	case s.said <- struct{}{}:
	default:
	}
}

func (s *fakeServer) Bind(_ context.Context, tenant, port string) (*planv1.BindResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return nil, &unreachable{tried: []string{"server1:7348: connection refused"}}
	}
	if s.refuse != nil {
		return nil, s.refuse
	}
	if s.elsewhere {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New("port "+tenant+"/"+port+" is bound to another host"))
	}
	s.bound[tenant+"/"+port] = true
	return s.onBind(tenant, port), nil
}

func (s *fakeServer) Unbind(_ context.Context, uid, tenant, port string) (*planv1.UnbindResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return nil, &unreachable{tried: []string{"server1:7348: connection refused"}}
	}
	if !s.bound[tenant+"/"+port] {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("port %s/%s: there is none", tenant, port))
	}
	delete(s.bound, tenant+"/"+port)
	return &planv1.UnbindResponse{}, nil
}

func (s *fakeServer) Prepare(_ context.Context, tenant, port string) (*planv1.PrepareResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return nil, &unreachable{tried: []string{"server1:7348: connection refused"}}
	}
	if s.refuse != nil {
		return nil, s.refuse
	}
	return s.onPrepare(tenant, port), nil
}

func (s *fakeServer) Commit(_ context.Context, req *planv1.CommitRequest) (*planv1.CommitResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return nil, &unreachable{tried: []string{"server1:7348: connection refused"}}
	}
	if s.refuse != nil {
		return nil, s.refuse
	}
	s.commits = append(s.commits, req)
	return &planv1.CommitResponse{Epoch: req.Epoch + 1}, nil
}

func (s *fakeServer) Abort(_ context.Context, uid string, epoch int64, reason string) (*planv1.AbortResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return nil, &unreachable{tried: []string{"server1:7348: connection refused"}}
	}
	s.aborted = append(s.aborted, uid+": "+reason)
	return &planv1.AbortResponse{Epoch: epoch + 1}, nil
}

func (s *fakeServer) Settle(_ context.Context, req *planv1.SettleRequest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return &unreachable{tried: []string{"server1:7348: connection refused"}}
	}
	s.settled = append(s.settled, req)
	return nil
}
