package agent

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/wire"
)

// mostUnlisted VTEPs of a network are taken in; each gets a copy of its floods.
const mostUnlisted = 64

// unlistedUID is that of a VTEP which no plan names: one for each address.
func unlistedUID(addr netip.Addr) string { return "unlisted/" + addr.String() }

// unlisted are the VTEPs of a network that its packets have brought, and when they last did so.
type unlisted struct {
	seen map[netip.Addr]time.Time
	// turnedAway counts what came while there were as many as may be.
	turnedAway int
}

// addrs are their addresses, in order.
func (u *unlisted) addrs() []netip.Addr {
	if u == nil {
		return nil
	}
	list := make([]netip.Addr, 0, len(u.seen))
	for a := range u.seen {
		list = append(list, a)
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return list
}

// mayCome reports whether a network takes an address that it does not list.
func (r *Reconciler) mayCome(n *network, addr netip.Addr) bool {
	if n == nil || !slices.ContainsFunc(n.sources, func(p netip.Prefix) bool { return p.Contains(addr) }) || addr == r.local.Addr4 || addr == r.local.Addr6 {
		return false
	}
	lists := func(uid string) bool {
		v := r.view.vteps[uid]
		return v != nil && slices.Contains(v.addrs, addr)
	}
	for m := range r.view.members.in[n.uid] {
		if lists(m) {
			return false
		}
	}
	return !slices.ContainsFunc(n.external, func(e external) bool { return lists(e.vtep) })
}

// Meet takes in an address from which a packet of a network came. It reports a change.
func (r *Reconciler) Meet(a datapath.Accept, at time.Time) bool {
	n := r.view.nets[r.view.byVNI[a.VNI]]
	if !r.mayCome(n, a.Addr) {
		return false
	}
	u := r.unlisted[n.uid]
	if u == nil {
		u = &unlisted{seen: map[netip.Addr]time.Time{}}
		r.unlisted[n.uid] = u
	}
	_, known := u.seen[a.Addr]
	if !known && len(u.seen) >= mostUnlisted {
		u.turnedAway++
		return false
	}
	if u.seen[a.Addr] = at; known {
		return false
	}
	uid := unlistedUID(a.Addr)
	r.view.vteps[uid] = &vtep{uid: uid, name: a.Addr.String(), addrs: []netip.Addr{a.Addr}, udpPort: r.local.UDPPort, external: true}
	index(r.view.netsOf, uid, n.uid)
	r.view.touchVTEP(uid, r.dirty)
	return true
}

// AgeUnlisted lets those go that may not come any more, and those of which nothing was seen for the network's ageing time and behind which no MAC
// is learned. It reports a change.
func (r *Reconciler) AgeUnlisted(at time.Time, busy func(wire.VNI, datapath.VTEPID) bool) (changed bool) {
	for net, u := range r.unlisted {
		n := r.view.nets[net]
		for addr, seen := range u.seen {
			uid := unlistedUID(addr)
			if r.mayCome(n, addr) && (at.Sub(seen) < n.learning.Ageing || busy(n.vni, r.ids[uid])) {
				continue
			}
			delete(u.seen, addr)
			r.view.touchVTEP(uid, r.dirty)
			if unindex(r.view.netsOf, uid, net); r.view.netsOf[uid] == nil {
				delete(r.view.vteps, uid)
			}
			changed = true
		}
		if len(u.seen) == 0 {
			delete(r.unlisted, net)
		}
	}
	return changed
}

// recallUnlisted takes in what an earlier agent did.
func (r *Reconciler) recallUnlisted(at time.Time) {
	for vni, of := range r.tables.accepts {
		for a := range of {
			r.Meet(datapath.Accept{VNI: vni, Addr: a.Addr}, at)
		}
	}
}

// meetStrangers takes in who is told.
func (a *Agent) meetStrangers(ctx context.Context, told <-chan datapath.Accept) {
	for s := range told {
		err := a.do(ctx, func() {
			if a.rec.Meet(s, time.Now()) {
				a.log.Info("an unlisted VTEP takes part in a network", "vni", s.VNI, "vtep", s.Addr)
				a.reconcile()
			}
		})
		if err != nil {
			return
		}
	}
}

// ageUnlisted is AgeUnlisted, from time to time.
func (a *Agent) ageUnlisted() {
	if len(a.rec.unlisted) == 0 {
		return
	}
	learners, err := a.kernel.Learners()
	if err != nil {
		a.log.Error("who taught MACs cannot be read", "err", err)
		return
	}
	busy := func(vni wire.VNI, id datapath.VTEPID) bool {
		return slices.ContainsFunc(learners, func(l datapath.Learner) bool { return l.VNI == vni && l.VTEP == id && l.MACs > 0 })
	}
	if a.rec.AgeUnlisted(time.Now(), busy) {
		a.reconcile()
	}
}
