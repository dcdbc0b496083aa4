package model

import "iter"

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
	VNI       *VNIUse
	Tombstone *Tombstone
	APIToken  *APIToken
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
	VNIs       map[uint32]*VNIUse
	Tombstones map[UID]*Tombstone
	APITokens  map[string]*APIToken // by name

	networkByName  map[TenantName]UID
	portByName     map[TenantName]UID
	hostByName     map[string]UID
	portsByNetwork map[UID]map[UID]struct{}
	portsByHost    map[UID]map[UID]struct{} // active, incoming or draining
	networksByVTEP map[string]map[UID]struct{}
	tombsByNetwork map[UID]map[UID]struct{}
}

// NewWorld is an empty world of a store.
func NewWorld(storeID string) *World {
	return &World{
		StoreID:  storeID,
		Tenants:  map[string]*Tenant{},
		Networks: map[UID]*Network{}, Ports: map[UID]*Port{}, Bindings: map[UID]*Binding{},
		Hosts: map[UID]*Host{}, Facts: map[UID]*HostFacts{}, VTEPs: map[string]*VTEP{},
		Pools: map[string]*VNIPool{}, VNIs: map[uint32]*VNIUse{}, Tombstones: map[UID]*Tombstone{},
		APITokens:     map[string]*APIToken{},
		networkByName: map[TenantName]UID{}, portByName: map[TenantName]UID{}, hostByName: map[string]UID{},
		portsByNetwork: map[UID]map[UID]struct{}{}, portsByHost: map[UID]map[UID]struct{}{},
		networksByVTEP: map[string]map[UID]struct{}{}, tombsByNetwork: map[UID]map[UID]struct{}{},
	}
}

// Apply takes one change in. Applying the same change twice changes nothing.
func (w *World) Apply(c Change) {
	w.Revision = max(w.Revision, c.Revision)
	switch {
	case c.Tenant != nil:
		put(w.Tenants, c.Tenant.Name, c.Tenant, c.Deleted)
	case c.Network != nil:
		w.applyNetwork(c.Network, c.Deleted)
	case c.Port != nil:
		w.applyPort(c.Port, c.Deleted)
	case c.Binding != nil:
		w.applyBinding(c.Binding, c.Deleted)
	case c.Host != nil:
		put(w.Hosts, c.Host.UID, c.Host, c.Deleted)
		put(w.hostByName, c.Host.Name, c.Host.UID, c.Deleted)
	case c.Facts != nil:
		put(w.Facts, c.Facts.Host, c.Facts, c.Deleted)
	case c.VTEP != nil:
		put(w.VTEPs, c.VTEP.Name, c.VTEP, c.Deleted)
	case c.Pool != nil:
		put(w.Pools, c.Pool.Name, c.Pool, c.Deleted)
	case c.VNI != nil:
		put(w.VNIs, uint32(c.VNI.VNI), c.VNI, c.Deleted)
	case c.Tombstone != nil:
		put(w.Tombstones, c.Tombstone.UID, c.Tombstone, c.Deleted)
		if c.Tombstone.Network != "" {
			index(w.tombsByNetwork, c.Tombstone.Network, c.Tombstone.UID, !c.Deleted)
		}
	case c.APIToken != nil:
		put(w.APITokens, c.APIToken.Name, c.APIToken, c.Deleted)
	}
}

func (w *World) applyNetwork(n *Network, deleted bool) {
	if old := w.Networks[n.UID]; old != nil {
		for _, v := range old.Spec.VTEPs {
			index(w.networksByVTEP, v.VTEP, n.UID, false)
		}
	}
	put(w.Networks, n.UID, n, deleted)
	put(w.networkByName, TenantName{n.Tenant, n.Name}, n.UID, deleted)
	if !deleted {
		for _, v := range n.Spec.VTEPs {
			index(w.networksByVTEP, v.VTEP, n.UID, true)
		}
	}
}

func (w *World) applyPort(p *Port, deleted bool) {
	put(w.Ports, p.UID, p, deleted)
	put(w.portByName, TenantName{p.Tenant, p.Name}, p.UID, deleted)
	index(w.portsByNetwork, p.Alloc.NetworkUID, p.UID, !deleted)
}

func (w *World) applyBinding(b *Binding, deleted bool) {
	if old := w.Bindings[b.Port]; old != nil {
		for h := range old.Hosts() {
			index(w.portsByHost, h, b.Port, false)
		}
	}
	put(w.Bindings, b.Port, b, deleted)
	if !deleted {
		for h := range b.Hosts() {
			index(w.portsByHost, h, b.Port, true)
		}
	}
}

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
	return w.Networks[w.networkByName[TenantName{tenant, name}]]
}

// PortByName finds a tenant's port, or nil.
func (w *World) PortByName(tenant, name string) *Port {
	return w.Ports[w.portByName[TenantName{tenant, name}]]
}

// HostByName finds a host, or nil.
func (w *World) HostByName(name string) *Host { return w.Hosts[w.hostByName[name]] }

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
