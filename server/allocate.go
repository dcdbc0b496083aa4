package server

import (
	"context"
	"net/netip"
	"strings"
	"sync"

	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/wire"
)

// Allocation is optimistic: pick what the world says is free, and let the store's compare-and-create decide. Another
// server may have been faster; then the next free one is tried. What a user stated is never replaced.

// claims are values that requests under way on this server picked and have not seen come back, so that concurrent
// requests of one server do not race for the same one.
type claims struct {
	mu    sync.Mutex
	taken map[claim]int
}

// claim is one value: of a VNI (no network), of a group of the underlay (no network), or of an address or MAC in a network.
type claim struct {
	network model.UID
	vni     wire.VNI
	group   netip.Addr
	addr    netip.Addr
	mac     wire.MAC
}

func newClaims() *claims { return &claims{taken: map[claim]int{}} }

// pick runs choose under the lock, with a function that tells how often something is claimed, and claims what choose returns. release
// gives it back.
func (c *claims) pick(choose func(claimed func(claim) int) ([]claim, error)) (release func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	picked, err := choose(func(k claim) int { return c.taken[k] })
	if err != nil {
		return func() {}, err
	}
	for _, k := range picked {
		c.taken[k]++
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, k := range picked {
			if c.taken[k]--; c.taken[k] <= 0 {
				delete(c.taken, k)
			}
		}
	}, nil
}

// allocateNetwork fills in a new network's VNI and group. lost are those that the store has said to be taken.
func (a *api) allocateNetwork(n *model.Network, lost map[claim]bool) (release func(), err error) {
	return a.claims.pick(func(claimed func(claim) int) ([]claim, error) {
		var err error
		var group netip.Addr
		a.view.read(func(w *model.World) {
			if err = allocateVNI(w, n, func(k claim) bool { return lost[k] || claimed(k) > 0 }); err == nil {
				group, err = groupFor(w, n, nil, claimed, lost)
			}
		})
		if n.Alloc.Flood = (model.FloodAlloc{}).Use(group); group.IsValid() {
			n.Alloc.Flood.Sends = group // nobody has a member yet
		}
		return networkClaims(n), err
	})
}

func networkClaims(n *model.Network) []claim {
	out := []claim{{vni: n.Alloc.VNI}}
	if n.Spec.GroupPool != "" {
		out = append(out, claim{group: n.Alloc.Flood.Group})
	}
	return out
}

func allocateVNI(w *model.World, n *model.Network, taken func(claim) bool) error {
	if n.Spec.VNI != 0 {
		// The store refuses a stated one that is taken, and says by whom.
		n.Alloc.VNI = n.Spec.VNI
		return nil
	}
	pool := w.Pools[model.PoolOf(n)]
	if pool == nil {
		return missing("spec.vni_pool", "VNI pool", model.PoolOf(n), "weft pool list")
	}
	n.Alloc.VNI = 0
	return model.AllocateVNI(n, *pool, func(v wire.VNI) bool { return w.VNIs[uint32(v)] != nil || taken(claim{vni: v}) })
}

// allocateGroup gives a network that changes the group that it is to flood to.
func (a *api) allocateGroup(n, old *model.Network, lost map[claim]bool) (release func(), err error) {
	return a.claims.pick(func(claimed func(claim) int) ([]claim, error) {
		var group netip.Addr
		var err error
		a.view.read(func(w *model.World) { group, err = groupFor(w, n, old, claimed, lost) })
		if n.Alloc.Flood = old.Alloc.Flood; n.Alloc.Flood.Group != group {
			n.Alloc.Flood = n.Alloc.Flood.Use(group)
		}
		return []claim{{group: group}}, err
	})
}

// groupFor is the group that a network is to flood to, none for head-end replication. It refuses external VTEPs that are said to receive it and cannot.
func groupFor(w *model.World, n, old *model.Network, claimed func(claim) int, lost map[claim]bool) (netip.Addr, error) {
	group, err := chooseGroup(w, n, old, claimed, lost)
	if err != nil {
		return group, err
	}
	return group, n.ValidateReceivers(group, w.VTEPs)
}

// chooseGroup is the group that the network names, or one of its pool. That is kept for as long as the network names the pool.
func chooseGroup(w *model.World, n, old *model.Network, claimed func(claim) int, lost map[claim]bool) (netip.Addr, error) {
	name := n.Spec.GroupPool
	switch {
	case !n.Spec.Multicast():
		return netip.Addr{}, nil
	case name == "":
		return n.Spec.Group, nil
	case old != nil && old.Spec.GroupPool == name:
		return old.Alloc.Flood.Group, nil
	}
	pool := w.GroupPools[name]
	if pool == nil {
		return netip.Addr{}, missing("spec.group_pool", "group pool", name, "weft group-pool list")
	}
	return model.AllocateGroup(pool, func(g netip.Addr) int {
		if lost[claim{group: g}] {
			return pool.Spec.Sharing()
		}
		return w.GroupUse(g, n.UID) + claimed(claim{group: g})
	})
}

// allocatePort fills in the port's addresses; what it has already in p.Alloc is kept where the spec leaves it open.
func (a *api) allocatePort(p *model.Port, n *model.Network, lost map[claim]bool) (release func(), err error) {
	return a.claims.pick(func(claimed func(claim) int) ([]claim, error) {
		var err error
		a.view.mu.RLock()
		defer a.view.mu.RUnlock()
		used := a.view.addresses[n.UID]
		macUsed := func(m wire.MAC) bool {
			k := claim{network: n.UID, mac: m}
			return used.macs[m] != "" || lost[k] || claimed(k) > 0
		}
		ipUsed := func(ip netip.Addr) bool {
			k := claim{network: n.UID, addr: ip}
			return used.ips[ip] != "" || lost[k] || claimed(k) > 0
		}
		// What is stated goes to the store as it is, which says who has it.
		if len(p.Spec.MACs) > 0 {
			macUsed = func(wire.MAC) bool { return false }
		}
		if len(p.Spec.IPs) > 0 {
			ipUsed = func(netip.Addr) bool { return false }
		}
		if err = model.AllocatePort(p, n, macUsed, ipUsed); err != nil {
			return nil, err
		}
		return portClaims(p), nil
	})
}

func portClaims(p *model.Port) []claim {
	var out []claim
	for _, m := range p.Alloc.MACs {
		out = append(out, claim{network: p.Alloc.NetworkUID, mac: m})
	}
	for _, ip := range p.Alloc.IPs {
		out = append(out, claim{network: p.Alloc.NetworkUID, addr: ip.Addr()})
	}
	return out
}

// outrun reports whether the store refused a write because of a value that this server had allocated, as another server
// took it first. stated tells for the field whether the user had stated it.
func outrun(err error, stated func(field string) bool) bool {
	r := refusal(err)
	return r != nil && r.Kind == model.Taken && r.Field != "name" && !stated(r.Field)
}

// statedInPort reports whether the field of a port's spec holds what the user wrote.
func statedInPort(p *model.Port) func(string) bool {
	return func(field string) bool {
		switch {
		case strings.Contains(field, "mac"):
			return len(p.Spec.MACs) > 0
		case strings.Contains(field, "ip"):
			return len(p.Spec.IPs) > 0
		}
		return true
	}
}

// again reports whether another attempt makes sense, and catches up with the store first.
func (a *api) again(ctx context.Context, attempt int) bool {
	if attempt+1 >= tries || ctx.Err() != nil {
		return false
	}
	a.refresh(ctx)
	return true
}
