package model

import (
	"iter"
	"net/netip"
	"slices"
)

// Change is one object as a store transaction left it. Exactly one pointer is set; of a deleted object it is the last
// version.
type Change struct {
	Revision Revision
	Deleted  bool

	Tenant    *Tenant
	Network   *Network
	Port      *Port
	Binding   *Binding
	Host      *Host
	Facts     *HostFacts
	VTEP      *VTEP
	Pool      *VNIPool
	GroupPool *GroupPool
	VNI       *VNIUse
	Tombstone *Tombstone
	APIToken  *APIToken
	Move      *Move
	Counters  *Counters
}

// TenantName is the key of an object that is unique per tenant.
type TenantName struct{ Tenant, Name string }

// World is the whole intent of a deployment at one revision, with the indices that compiling and listing need. It is not
// safe for concurrent use. Objects in it are shared and never modified: Apply replaces them.
type World struct {
	StoreID  string
	Revision Revision

	Tenants    map[string]*Tenant
	Networks   map[UID]*Network
	Ports      map[UID]*Port
	Bindings   map[UID]*Binding // by port
	Hosts      map[UID]*Host
	Facts      map[UID]*HostFacts // by host
	VTEPs      map[string]*VTEP
	Pools      map[string]*VNIPool
	GroupPools map[string]*GroupPool
	VNIs       map[uint32]*VNIUse
	Tombstones map[UID]*Tombstone
	APITokens  map[string]*APIToken // by name
	Moves      map[UID]*Move        // by port
	Counters   map[UID]*Counters    // by port

	networkByName   names[TenantName]
	portByName      names[TenantName]
	hostByName      names[string]
	portsByNetwork  map[UID]map[UID]struct{}
	portsByHost     map[UID]map[UID]struct{} // active, incoming or draining
	networksByVTEP  map[string]map[UID]struct{}
	networksByGroup map[netip.Addr]map[UID]struct{} // of the underlay: joined
	tombsByNetwork  map[UID]map[UID]struct{}
	tombsOfHosts    map[UID]struct{}
	openMoves       map[UID]struct{} // by port
	floodsChange    map[UID]struct{} // networks whose way to flood is not settled
	deadHosts       map[UID]struct{}
	hostsToFail     map[UID]struct{}
}

// NewWorld is an empty world of a store.
func NewWorld(storeID string) *World {
	return &World{
		StoreID:  storeID,
		Tenants:  map[string]*Tenant{},
		Networks: map[UID]*Network{}, Ports: map[UID]*Port{}, Bindings: map[UID]*Binding{},
		Hosts: map[UID]*Host{}, Facts: map[UID]*HostFacts{}, VTEPs: map[string]*VTEP{},
		Pools: map[string]*VNIPool{}, GroupPools: map[string]*GroupPool{}, VNIs: map[uint32]*VNIUse{}, Tombstones: map[UID]*Tombstone{},
		APITokens:     map[string]*APIToken{},
		Moves:         map[UID]*Move{},
		Counters:      map[UID]*Counters{},
		openMoves:     map[UID]struct{}{},
		floodsChange:  map[UID]struct{}{},
		deadHosts:     map[UID]struct{}{},
		hostsToFail:   map[UID]struct{}{},
		networkByName: newNames[TenantName](), portByName: newNames[TenantName](), hostByName: newNames[string](),
		portsByNetwork: map[UID]map[UID]struct{}{}, portsByHost: map[UID]map[UID]struct{}{},
		networksByVTEP: map[string]map[UID]struct{}{}, networksByGroup: map[netip.Addr]map[UID]struct{}{}, tombsByNetwork: map[UID]map[UID]struct{}{}, tombsOfHosts: map[UID]struct{}{},
	}
}

// Apply takes one change in. The changes of one object come in their order, those of different objects in any; a change
// that comes again, or that is older than what is there of the object, changes nothing. So the world depends on what is in
// the store and not on how the news of it was cut and repeated.
func (w *World) Apply(c Change) {
	w.Revision = max(w.Revision, c.Revision)
	switch {
	case c.Tenant != nil:
		putNamed(w.Tenants, c.Tenant.Name, c.Tenant, c)
	case c.Network != nil:
		w.applyNetwork(c.Network, c)
	case c.Port != nil:
		w.applyPort(c.Port, c)
	case c.Binding != nil:
		w.applyBinding(c.Binding, c)
	case c.Host != nil:
		w.applyHost(c.Host, c)
	case c.Facts != nil:
		put(w.Facts, c.Facts.Host, c.Facts, c.Deleted)
	case c.VTEP != nil:
		putNamed(w.VTEPs, c.VTEP.Name, c.VTEP, c)
	case c.Pool != nil:
		putNamed(w.Pools, c.Pool.Name, c.Pool, c)
	case c.GroupPool != nil:
		putNamed(w.GroupPools, c.GroupPool.Name, c.GroupPool, c)
	case c.VNI != nil:
		put(w.VNIs, uint32(c.VNI.VNI), c.VNI, c.Deleted)
	case c.Tombstone != nil:
		w.applyTombstone(c.Tombstone, c.Deleted)
	case c.APIToken != nil:
		w.applyAPIToken(c.APIToken, c.Deleted)
	case c.Move != nil:
		w.applyMove(c.Move, c)
	case c.Counters != nil:
		if old := w.Counters[c.Counters.Port]; old == nil || !c.staleFor(old.Revision, c.Counters.Revision) {
			put(w.Counters, c.Counters.Port, c.Counters, c.Deleted)
		}
	}
}

// The indices are functions of the objects: the version that goes is taken out of them, the one that comes is put in.

func (w *World) applyNetwork(n *Network, c Change) {
	old := w.Networks[n.UID]
	if old != nil {
		if c.staleFor(old.Revision, n.Revision) {
			return
		}
		w.networkByName.remove(TenantName{old.Tenant, old.Name}, old.UID)
		for _, v := range old.Spec.VTEPs {
			index(w.networksByVTEP, v.VTEP, n.UID, false)
		}
		for _, g := range old.Alloc.Flood.Joined {
			index(w.networksByGroup, g, n.UID, false)
		}
	}
	put(w.Networks, n.UID, n, c.Deleted)
	delete(w.floodsChange, n.UID)
	if !c.Deleted {
		if !n.Alloc.Flood.Settled() {
			w.floodsChange[n.UID] = struct{}{}
		}
		w.networkByName.add(TenantName{n.Tenant, n.Name}, n.UID)
		for _, v := range n.Spec.VTEPs {
			index(w.networksByVTEP, v.VTEP, n.UID, true)
		}
		for _, g := range n.Alloc.Flood.Joined {
			index(w.networksByGroup, g, n.UID, true)
		}
	}
}

func (w *World) applyPort(p *Port, c Change) {
	if old := w.Ports[p.UID]; old != nil {
		if c.staleFor(old.Revision, p.Revision) {
			return
		}
		w.portByName.remove(TenantName{old.Tenant, old.Name}, old.UID)
		index(w.portsByNetwork, old.Alloc.NetworkUID, p.UID, false)
	}
	put(w.Ports, p.UID, p, c.Deleted)
	if !c.Deleted {
		w.portByName.add(TenantName{p.Tenant, p.Name}, p.UID)
		index(w.portsByNetwork, p.Alloc.NetworkUID, p.UID, true)
	}
}

func (w *World) applyHost(h *Host, c Change) {
	if old := w.Hosts[h.UID]; old != nil {
		if c.staleFor(old.Revision, h.Revision) {
			return
		}
		w.hostByName.remove(old.Name, old.UID)
	}
	put(w.Hosts, h.UID, h, c.Deleted)
	delete(w.deadHosts, h.UID)
	delete(w.hostsToFail, h.UID)
	if !c.Deleted {
		w.hostByName.add(h.Name, h.UID)
		switch {
		case h.Duty == DutyFailed:
			w.deadHosts[h.UID] = struct{}{}
		case h.Spec.WhenSilent == WhenSilentFail:
			w.hostsToFail[h.UID] = struct{}{}
		}
	}
}

func (w *World) applyBinding(b *Binding, c Change) {
	if old := w.Bindings[b.Port]; old != nil {
		if c.staleFor(Revision(old.Epoch), Revision(b.Epoch)) {
			return
		}
		for h := range old.Hosts() {
			index(w.portsByHost, h, b.Port, false)
		}
	}
	put(w.Bindings, b.Port, b, c.Deleted)
	if !c.Deleted {
		for h := range b.Hosts() {
			index(w.portsByHost, h, b.Port, true)
		}
	}
}

func (w *World) applyTombstone(t *Tombstone, deleted bool) {
	if old := w.Tombstones[t.UID]; old != nil && old.Network != "" {
		index(w.tombsByNetwork, old.Network, t.UID, false)
	}
	put(w.Tombstones, t.UID, t, deleted)
	delete(w.tombsOfHosts, t.UID)
	if !deleted && t.Kind == KindHost {
		w.tombsOfHosts[t.UID] = struct{}{}
	}
	if !deleted && t.Network != "" {
		index(w.tombsByNetwork, t.Network, t.UID, true)
	}
}

// applyAPIToken takes care that the end of a token does not end its successor of the same name.
func (w *World) applyAPIToken(t *APIToken, deleted bool) {
	if old := w.APITokens[t.Name]; old != nil && deleted && old.ID != t.ID {
		return
	}
	put(w.APITokens, t.Name, t, deleted)
}

func (w *World) applyMove(m *Move, c Change) {
	if old := w.Moves[m.Port]; old != nil && c.staleFor(old.Revision, m.Revision) {
		return
	}
	put(w.Moves, m.Port, m, c.Deleted)
	if !c.Deleted && m.Open() {
		w.openMoves[m.Port] = struct{}{}
	} else {
		delete(w.openMoves, m.Port)
	}
}

// staleFor reports whether the change is older than the version that is there. The deletion of an object is as new as its
// transaction, and at least as new as the version it deletes.
func (c Change) staleFor(there, here Revision) bool {
	if c.Deleted {
		here = max(here, c.Revision)
	}
	return here < there
}

// putNamed is put for objects that are kept by their names: a change of an earlier life leaves a later one alone.
func putNamed[V any, P interface {
	*V
	meta() *Meta
}](m map[string]P, name string, v P, c Change) {
	if old := m[name]; old != nil {
		if c.staleFor(old.meta().Revision, v.meta().Revision) || c.Deleted && old.meta().UID != v.meta().UID {
			return
		}
	}
	put(m, name, v, c.Deleted)
}

func (m *Meta) meta() *Meta { return m }

// Hosts are the hosts that the binding names, each once.
func (b *Binding) Hosts() iter.Seq[UID] {
	return func(yield func(UID) bool) {
		if b.Active != "" && !yield(b.Active) {
			return
		}
		if b.Incoming != "" && b.Incoming != b.Active && !yield(b.Incoming) {
			return
		}
		if b.Draining != "" && b.Draining != b.Active && b.Draining != b.Incoming {
			yield(b.Draining)
		}
	}
}

// NetworkByName finds a tenant's network, or nil.
func (w *World) NetworkByName(tenant, name string) *Network {
	return w.Networks[w.networkByName.one[TenantName{tenant, name}]]
}

// PortByName finds a tenant's port, or nil.
func (w *World) PortByName(tenant, name string) *Port {
	return w.Ports[w.portByName.one[TenantName{tenant, name}]]
}

// HostByName finds a host, or nil.
func (w *World) HostByName(name string) *Host { return w.Hosts[w.hostByName.one[name]] }

// HostName is the name of a host, or its uid when it is gone.
func (w *World) HostName(uid UID) string {
	if h := w.Hosts[uid]; h != nil {
		return h.Name
	}
	return string(uid)
}

// PortsOf yields a network's ports in no order.
func (w *World) PortsOf(network UID) iter.Seq[*Port] { return w.ports(w.portsByNetwork[network]) }

// PortsOn yields the ports that a host holds, in whatever role, in no order.
func (w *World) PortsOn(host UID) iter.Seq[*Port] { return w.ports(w.portsByHost[host]) }

// OpenMoves yields the moves that something is still to be done about, in no order.
func (w *World) OpenMoves() iter.Seq[*Move] {
	return func(yield func(*Move) bool) {
		for port := range w.openMoves {
			if !yield(w.Moves[port]) {
				return
			}
		}
	}
}

// FloodsChange yields the networks that do not flood as they are to yet, in no order.
func (w *World) FloodsChange() iter.Seq[*Network] {
	return func(yield func(*Network) bool) {
		for uid := range w.floodsChange {
			if !yield(w.Networks[uid]) {
				return
			}
		}
	}
}

// GroupUse is how many networks have a group of the underlay, those that are about to leave it too; one of them is not counted.
func (w *World) GroupUse(group netip.Addr, but UID) int {
	n := len(w.networksByGroup[group])
	if _, own := w.networksByGroup[group][but]; own {
		n--
	}
	return n
}

// GroupsInUse yields the groups of the underlay that networks have, and how many have each, in no order.
func (w *World) GroupsInUse() iter.Seq2[netip.Addr, int] {
	return func(yield func(netip.Addr, int) bool) {
		for g, networks := range w.networksByGroup {
			if !yield(g, len(networks)) {
				return
			}
		}
	}
}

// DeadHosts yields the hosts that were declared dead, in no order.
func (w *World) DeadHosts() iter.Seq[*Host] {
	return func(yield func(*Host) bool) {
		for uid := range w.deadHosts {
			if !yield(w.Hosts[uid]) {
				return
			}
		}
	}
}

// HostsToFail yields the hosts that are to be declared dead when they are silent, and are not yet, in no order.
func (w *World) HostsToFail() iter.Seq[*Host] {
	return func(yield func(*Host) bool) {
		for uid := range w.hostsToFail {
			if !yield(w.Hosts[uid]) {
				return
			}
		}
	}
}

// NetworksWith yields the networks that an external VTEP takes part in, in no order.
func (w *World) NetworksWith(vtep string) iter.Seq[*Network] {
	return func(yield func(*Network) bool) {
		for uid := range w.networksByVTEP[vtep] {
			if n := w.Networks[uid]; n != nil && !yield(n) {
				return
			}
		}
	}
}

// TombstonesOf yields what is remembered of a network's deleted ports, in no order.
func (w *World) TombstonesOf(network UID) iter.Seq[*Tombstone] {
	return func(yield func(*Tombstone) bool) {
		for uid := range w.tombsByNetwork[network] {
			if t := w.Tombstones[uid]; t != nil && !yield(t) {
				return
			}
		}
	}
}

// TombstonesOfHosts yields what is remembered of removed hosts, in no order.
func (w *World) TombstonesOfHosts() iter.Seq[*Tombstone] {
	return func(yield func(*Tombstone) bool) {
		for uid := range w.tombsOfHosts {
			if t := w.Tombstones[uid]; t != nil && !yield(t) {
				return
			}
		}
	}
}

func (w *World) ports(uids map[UID]struct{}) iter.Seq[*Port] {
	return func(yield func(*Port) bool) {
		for uid := range uids {
			if p := w.Ports[uid]; p != nil && !yield(p) {
				return
			}
		}
	}
}

func put[K comparable, V any](m map[K]V, k K, v V, deleted bool) {
	if deleted {
		delete(m, k)
	} else {
		m[k] = v
	}
}

func index[K, V comparable](m map[K]map[V]struct{}, k K, v V, present bool) {
	if present {
		if m[k] == nil {
			m[k] = map[V]struct{}{}
		}
		m[k][v] = struct{}{}
		return
	}
	delete(m[k], v)
	if len(m[k]) == 0 {
		delete(m, k)
	}
}

// names finds objects by name. While the news of a deletion is late, two lives of an object have the name: the later
// comer has it, and the other waits in case it is the one that stays.
type names[K comparable] struct {
	one  map[K]UID
	more map[K][]UID
}

func newNames[K comparable]() names[K] { return names[K]{one: map[K]UID{}, more: map[K][]UID{}} }

func (n names[K]) add(k K, uid UID) {
	if was, ok := n.one[k]; ok {
		n.more[k] = append(n.more[k], was)
	}
	n.one[k] = uid
}

func (n names[K]) remove(k K, uid UID) {
	more := n.more[k]
	switch last := len(more) - 1; {
	case n.one[k] != uid:
		more = slices.DeleteFunc(more, func(u UID) bool { return u == uid })
	case last >= 0:
		n.one[k], more = more[last], more[:last]
	default:
		delete(n.one, k)
	}
	if len(more) == 0 {
		delete(n.more, k)
	} else {
		n.more[k] = more
	}
}
