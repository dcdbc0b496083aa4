package agent

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/plan"
	"github.com/weftnet/weft/wire"
)

// What the plan and the attachments ask of each kernel table, one key at a time: pure functions of the Reconciler's
// state, so that a change computes only the keys it touches and an audit computes them all by the same code.

// local is an attached port's interface as it is now.
type local struct {
	// ifindex is 0 while there is no interface.
	ifindex uint32
	// peer: a veth whose other end is in another namespace.
	peer bool
	// aggregates: the workload may forward, or is a virtual machine, so that GRO aggregates take the kernel lane.
	aggregates bool
	// tells: the workload's first frame commits the move that brings its port here.
	tells bool
}

// own reports whether a VTEP is this host's.
func (r *Reconciler) own(vtep string) bool {
	return vtep == r.self || (r.view.host != nil && r.view.host.Vtep == vtep)
}

// target is the address to send to for a VTEP: the first of a family that this host has itself.
func (r *Reconciler) target(v *vtep) (netip.Addr, bool) {
	for _, a := range v.addrs {
		if a.Is4() && r.local.Addr4.IsValid() || a.Is6() && r.local.Addr6.IsValid() {
			return a, true
		}
	}
	return netip.Addr{}, false
}

func (r *Reconciler) wantVTEP(uid string) (datapath.VTEP, bool) {
	v := r.view.vteps[uid]
	if v == nil {
		return r.wantGroup(uid)
	}
	if r.own(uid) {
		return datapath.VTEP{}, false
	}
	addr, ok := r.target(v)
	if !ok {
		return datapath.VTEP{}, false
	}
	return datapath.VTEP{ID: r.ids[uid], Addr: addr, UDPPort: v.udpPort, OuterChecksum: v.checksum}, true
}

// vtepID is the number of a VTEP that is in the kernel.
func (r *Reconciler) vtepID(uid string) (datapath.VTEPID, bool) {
	id := r.ids[uid]
	if id == 0 || r.view.vteps[uid] == nil && len(r.view.netsOf[uid]) == 0 {
		return 0, false
	}
	_, written := r.tables.vteps[id]
	return id, written
}

// wantsNetwork reports whether there is one.
func (r *Reconciler) wantsNetwork(vni wire.VNI) bool {
	if vni == wire.OAMVNI {
		return r.oam.ifindex != 0
	}
	return r.view.nets[r.view.byVNI[vni]] != nil
}

func (r *Reconciler) wantNetwork(vni wire.VNI) (datapath.Network, bool) {
	if !r.wantsNetwork(vni) {
		return datapath.Network{}, false
	}
	if vni == wire.OAMVNI {
		want := r.oam.network(r.local)
		if have := r.tables.ports[r.oam.ifindex]; have.UID == oamUID {
			want.LocalPorts = []uint32{r.oam.ifindex} // probes to groups come as floods do
		}
		return want, true
	}
	n := r.view.nets[r.view.byVNI[vni]]
	want := datapath.Network{VNI: vni, MTU: n.mtu, Unknown: n.unknown, DSCPUniform: n.dscpUniform, LocalPorts: r.floodPorts(n),
		Neighbours: r.view.answers(n), BUMLimit: n.bumLimit, Learning: n.learning, Open: len(n.sources) > 0}
	r.floodVTEPs(n, &want)
	return want, true
}

// floodPorts are the interfaces here that get a copy of BUM frames: of ports that are active on this host and known to
// the kernel.
func (r *Reconciler) floodPorts(n *network) []uint32 {
	var list []uint32
	add := func(uid string) {
		l, p := r.locals[uid], r.view.ports[uid]
		if l == nil || p == nil || l.ifindex == 0 || p.network != n.uid || p.place.active != r.self {
			return
		}
		if have, ok := r.tables.ports[l.ifindex]; ok && have.UID == uid {
			list = append(list, l.ifindex)
		}
	}
	if in := r.view.inNet.of[n.uid]; len(in) < len(r.locals) {
		for _, p := range in {
			add(p.uid)
		}
	} else {
		for uid := range r.locals {
			add(uid)
		}
	}
	slices.Sort(list)
	return list
}

func (r *Reconciler) wantFDB(key datapath.FDBKey) (datapath.FDBEntry, bool) {
	if key.VNI == wire.OAMVNI {
		return r.oam.fdb(key, r.vtepID)
	}
	c, ok := r.view.claims.get(key)
	if !ok {
		return datapath.FDBEntry{}, false
	}
	return r.claimed(key, c)
}

// claimed is the entry of a MAC that somebody claims.
func (r *Reconciler) claimed(key datapath.FDBKey, c *claim) (datapath.FDBEntry, bool) {
	entry, ok := datapath.FDBEntry{FDBKey: key}, false
	if c.port == "" {
		entry.VTEP, ok = r.vtepID(c.vtep)
		return entry, ok
	}
	p := r.view.ports[c.port]
	switch {
	case p == nil || p.place.active == "":
		return entry, false
	case p.place.active != r.self:
		if entry.VTEP, ok = r.vtepID(p.place.vtep); p.place.goes(r.self) {
			entry.Flags = datapath.FDBForward // peers that have not heard of the move send here
		}
		return entry, ok
	}
	l := r.locals[c.port]
	if l == nil || l.ifindex == 0 {
		return entry, false
	}
	if have, ok := r.tables.ports[l.ifindex]; !ok || have.UID != c.port {
		return entry, false
	}
	entry.Ifindex = l.ifindex
	if l.peer {
		entry.Flags |= datapath.FDBPeer
	}
	if l.aggregates || p.forwarding {
		entry.Flags |= datapath.FDBAggregatesByKernel
	}
	return entry, true
}

// wantAccepts is who may send packets of a VNI: its members but this host, its externals, and for the OAM network
// every host. Where the network learns, it is with the VTEP's number. They are put into an empty map.
func (r *Reconciler) wantAccepts(vni wire.VNI, want map[datapath.Accept]datapath.VTEPID) {
	n := r.view.nets[r.view.byVNI[vni]]
	add := func(uid string) {
		v := r.view.vteps[uid]
		if v == nil || r.own(uid) {
			return
		}
		teacher := datapath.VTEPID(0)
		if n != nil && n.learning.Ageing != 0 {
			teacher, _ = r.vtepID(uid)
		}
		for _, a := range v.addrs {
			if a.Is4() && r.local.Addr4.IsValid() || a.Is6() && r.local.Addr6.IsValid() {
				want[datapath.Accept{VNI: vni, Addr: a}] = teacher
			}
		}
	}
	if vni == wire.OAMVNI {
		if r.oam.ifindex != 0 {
			for uid, v := range r.view.vteps {
				if !v.external {
					add(uid)
				}
			}
		}
		return
	}
	if n != nil {
		for _, addr := range r.unlisted[n.uid].addrs() {
			add(unlistedUID(addr))
		}
		for m := range r.view.members.in[n.uid] {
			add(m)
		}
		for _, e := range n.external {
			add(e.vtep)
		}
	}
}

// wantPort is the entry of an attached port's interface. why is empty when the port should be open, and else says
// for what it is held.
func (r *Reconciler) wantPort(uid string) (want datapath.Port, why string, ok bool) {
	l := r.locals[uid]
	if l == nil || l.ifindex == 0 {
		return datapath.Port{}, "", false
	}
	want = datapath.Port{Ifindex: l.ifindex, ID: r.portIDs[uid], UID: uid, Held: true}
	p := r.view.ports[uid]
	if p == nil {
		why = "the plan does not have this port on this host"
	} else if _, aside := r.contested[p.network]; aside {
		why = "its network is held: " + r.checker.Held(plan.Key{Kind: planv1.Kind_KIND_NETWORK, UID: p.network})
	} else if n := r.view.nets[p.network]; n == nil {
		why = "the plan has not brought its network"
	} else if r.view.byVNI[n.vni] != n.uid {
		why = fmt.Sprintf("VNI %d of its network is held by another network", n.vni)
	} else {
		want.VNI, want.Unguarded, want.Services = n.vni, p.unguarded, r.services(p, n)
		want.Claims, want.BUMLimit = p.claims(), p.bumLimit
		want.FastPath = p.fastPath && r.fast[uid] == fastPath{ifindex: l.ifindex}
		want.Watched = l.tells && p.place.comes(r.self)
		want.MACs = slices.Concat(p.macs, p.pairs)
		slices.SortFunc(want.MACs, func(a, b wire.MAC) int { return bytes.Compare(a[:], b[:]) })
		why = r.heldFor(p, n)
	}
	if want.VNI == 0 {
		// Nothing is known of it: what the kernel has stays as it is, held.
		have, known := r.tables.ports[l.ifindex]
		if !known || have.UID != uid {
			return datapath.Port{}, why, false
		}
		want = have
	}
	want.Held = why != ""
	return want, why, true
}

func (r *Reconciler) heldFor(p *port, n *network) string {
	switch {
	case p.place.active == "" && p.stale != 0:
		return fmt.Sprintf("the plan's epoch %d is lower than %d, which was seen", p.stale, p.place.epoch)
	case p.place.active == "":
		return "not bound to a host"
	case p.place.comes(r.self):
		return "on its way here: another host is active still"
	case p.place.goes(r.self):
		return "it went to another host, and late frames for it are forwarded there"
	case p.place.active != r.self:
		return "bound to another host"
	}
	for _, uid := range []string{p.uid, n.uid, r.self} {
		if lacks := r.view.lacking[uid]; lacks != "" {
			return fmt.Sprintf("the plan requires %q, which this version of weft does not know: upgrade it", lacks)
		}
	}
	return ""
}

func sameNetwork(a, b datapath.Network) bool {
	return a.VNI == b.VNI && a.MTU == b.MTU && a.Unknown == b.Unknown && a.DSCPUniform == b.DSCPUniform && a.External == b.External && a.Neighbours == b.Neighbours && a.BUMLimit == b.BUMLimit &&
		a.Learning == b.Learning && a.Open == b.Open && a.Direct == b.Direct &&
		slices.Equal(a.LocalPorts, b.LocalPorts) && slices.Equal(a.Remotes, b.Remotes)
}

func samePort(a, b datapath.Port) bool {
	return a.Ifindex == b.Ifindex && a.ID == b.ID && a.UID == b.UID && a.VNI == b.VNI && a.Held == b.Held &&
		a.Unguarded == b.Unguarded && a.Services == b.Services && a.FastPath == b.FastPath && a.Watched == b.Watched && sameSet(a.MACs, b.MACs) &&
		sameSet(a.Claims, b.Claims) && a.BUMLimit == b.BUMLimit
}

func sameSet[T comparable](a, b []T) bool {
	if len(a) != len(b) {
		return false
	}
	for _, m := range a {
		if !slices.Contains(b, m) {
			return false
		}
	}
	return true
}
