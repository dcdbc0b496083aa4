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

// claim is one value: of a VNI (no network), or of an address or MAC in a network.
type claim struct {
	network model.UID
	vni     wire.VNI
	addr    netip.Addr
	mac     wire.MAC
}

func newClaims() *claims { return &claims{taken: map[claim]int{}} }

// pick runs choose under the lock, with a function that tells what is claimed, and claims what choose returns. release
// gives it back.
func (c *claims) pick(choose func(claimed func(claim) bool) ([]claim, error)) (release func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	picked, err := choose(func(k claim) bool { return c.taken[k] > 0 })
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

// allocateVNI fills in the network's VNI. lost are VNIs that the store has said to be taken.
func (a *api) allocateVNI(n *model.Network, lost map[wire.VNI]bool) (release func(), err error) {
	return a.claims.pick(func(claimed func(claim) bool) ([]claim, error) {
		var err error
		a.view.read(func(w *model.World) {
			if n.Spec.VNI != 0 {
				// The store refuses a stated one that is taken, and says by whom.
				n.Alloc.VNI = n.Spec.VNI
				return
			}
			pool := w.Pools[model.PoolOf(n)]
			if pool == nil {
				err = missing("spec.vni_pool", "VNI pool", model.PoolOf(n), "weft pool list")
				return
			}
			n.Alloc.VNI = 0
			err = model.AllocateVNI(n, *pool, func(v wire.VNI) bool {
				return w.VNIs[uint32(v)] != nil || lost[v] || claimed(claim{vni: v})
			})
		})
		return []claim{{vni: n.Alloc.VNI}}, err
	})
}

// allocatePort fills in the port's addresses; what it has already in p.Alloc is kept where the spec leaves it open.
func (a *api) allocatePort(p *model.Port, n *model.Network, lost map[claim]bool) (release func(), err error) {
	return a.claims.pick(func(claimed func(claim) bool) ([]claim, error) {
		var err error
		a.view.mu.RLock()
		defer a.view.mu.RUnlock()
		used := a.view.addresses[n.UID]
		macUsed := func(m wire.MAC) bool {
			k := claim{network: n.UID, mac: m}
			return used.macs[m] != "" || lost[k] || claimed(k)
		}
		ipUsed := func(ip netip.Addr) bool {
			k := claim{network: n.UID, addr: ip}
			return used.ips[ip] != "" || lost[k] || claimed(k)
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
