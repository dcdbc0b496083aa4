package agent

import (
	"net/netip"
	"slices"

	"github.com/weftnet/weft/datapath"
)

// Neighbours: who has which address of a network, as far as the plan says so for certain. docs/decisions/0011-neighbours.md

// holders are the ports that may have an address.
type holders struct {
	// owner has it in its list, and others that only a bad plan has.
	owner  string
	others []string
	// paired may say that they have it, by an allowed pair.
	paired map[string]bool
}

// addressesOf are a port's own, and those of its pairs.
func addressesOf(p *port) (own, paired []netip.Addr) {
	for _, ip := range p.ips {
		own = append(own, ip.Addr().Unmap())
	}
	for _, c := range p.allowed {
		if c.IP.IsValid() && !slices.Contains(own, c.IP) {
			paired = append(paired, c.IP)
		}
	}
	return own, paired
}

// claims are what a port may say of itself in ARP and neighbour discovery.
func (p *port) claims() (list []datapath.Claim) {
	for _, ip := range p.ips {
		list = append(list, datapath.Claim{IP: ip.Addr().Unmap()})
	}
	for _, c := range p.allowed {
		if !slices.Contains(list, c) {
			list = append(list, c)
		}
	}
	return list
}

// opens says of IPv4 and IPv6 whether the port may have addresses that the plan does not name.
func (p *port) opens() (open [2]bool) {
	open = [2]bool{true, true}
	for _, c := range p.claims() {
		if c.IP.IsValid() {
			open[family(c.IP)] = false
		}
	}
	if p.unguarded || slices.ContainsFunc(p.allowed, func(c datapath.Claim) bool { return !c.IP.IsValid() }) {
		open = [2]bool{true, true}
	}
	return open
}

// family is 0 of IPv4 and 1 of IPv6.
func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// countOpen follows a port that comes or goes.
func (v *view) countOpen(p *port, by int, d *dirty) {
	n := v.open[p.network]
	if n == nil {
		n = &[2]int{}
		v.open[p.network] = n
	}
	was := *n
	for i, open := range p.opens() {
		if open {
			n[i] += by
		}
	}
	if net := v.nets[p.network]; net != nil && (was[0] == 0 != (n[0] == 0) || was[1] == 0 != (n[1] == 0)) {
		d.nets[net.vni] = true
	}
	if *n == ([2]int{}) {
		delete(v.open, p.network)
	}
}

// answers is what becomes of a network's questions.
func (v *view) answers(n *network) datapath.Neighbours {
	if n.floods {
		return 0
	}
	a := datapath.NeighboursAnswer
	if len(n.external) > 0 || n.learning.Ageing != 0 { // there are machines that nobody stated the addresses of
		return a
	}
	var open [2]int
	if c := v.open[n.uid]; c != nil {
		open = *c
	}
	if open[0] == 0 {
		a |= datapath.NeighboursClosed4
	}
	if open[1] == 0 {
		a |= datapath.NeighboursClosed6
	}
	return a
}

// holdersOf makes room for an address.
func (v *view) holdersOf(key datapath.NeighbourKey) *holders {
	h := v.addresses[key]
	if h == nil {
		h = &holders{}
		v.addresses[key] = h
	}
	return h
}

func (v *view) claimAddresses(n *network, p *port, d *dirty) {
	own, paired := addressesOf(p)
	for _, a := range own {
		key := datapath.NeighbourKey{VNI: n.vni, IP: a}
		if h := v.holdersOf(key); h.owner == "" {
			h.owner = p.uid
		} else if h.owner != p.uid {
			h.others = append(h.others, p.uid)
		}
		d.neighbours[key] = true
	}
	for _, a := range paired {
		key := datapath.NeighbourKey{VNI: n.vni, IP: a}
		h := v.holdersOf(key)
		if h.paired == nil {
			h.paired = map[string]bool{}
		}
		h.paired[p.uid] = true
		d.neighbours[key] = true
	}
}

func (v *view) unclaimAddresses(n *network, p *port, d *dirty) {
	own, paired := addressesOf(p)
	for _, a := range slices.Concat(own, paired) {
		key := datapath.NeighbourKey{VNI: n.vni, IP: a}
		h := v.addresses[key]
		if h == nil {
			continue
		}
		if h.owner == p.uid {
			h.owner = ""
		}
		h.others = slices.DeleteFunc(h.others, func(uid string) bool { return uid == p.uid })
		if h.owner == "" && len(h.others) > 0 {
			h.owner, h.others = h.others[0], h.others[1:]
		}
		if delete(h.paired, p.uid); h.owner == "" && len(h.paired) == 0 {
			delete(v.addresses, key)
		}
		d.neighbours[key] = true
	}
}

// touchAddresses marks all of a network.
func (v *view) touchAddresses(n *network, d *dirty) {
	for uid := range v.inNet[n.uid] {
		if p := v.ports[uid]; p != nil {
			own, paired := addressesOf(p)
			for _, a := range slices.Concat(own, paired) {
				d.neighbours[datapath.NeighbourKey{VNI: n.vni, IP: a}] = true
			}
		}
	}
}

// wantNeighbour is who is answered for an address. Where the plan leaves it open (another port may take the address over, its own has
// several MACs) everybody asks. An address that leads nowhere, as its port is bound to no host, is one that nobody knows.
func (r *Reconciler) wantNeighbour(key datapath.NeighbourKey) (datapath.Neighbour, bool) {
	want := datapath.Neighbour{NeighbourKey: key}
	h, n := r.view.addresses[key], r.view.nets[r.view.byVNI[key.VNI]]
	if h == nil || n == nil || n.floods {
		return want, false
	}
	p := r.view.ports[h.owner]
	if p == nil || len(h.others)+len(h.paired) > 0 || len(p.macs) != 1 {
		want.Ask = true
		return want, true
	}
	if _, ok := r.wantFDB(datapath.FDBKey{VNI: key.VNI, MAC: p.macs[0]}); !ok {
		return want, false
	}
	if c := r.view.claimOf(datapath.FDBKey{VNI: key.VNI, MAC: p.macs[0]}); c.port != p.uid {
		return want, false // another port has the MAC
	}
	want.MAC, want.Router = p.macs[0], p.forwarding
	return want, true
}

// putNeighbours writes what is new or differs, once the FDB has the MACs. It returns what nothing asks for any more, to be deleted before
// the FDB entries are.
func (r *Reconciler) putNeighbours(d *dirty) (gone []datapath.NeighbourKey) {
	for vni := range d.fdbOf {
		if n := r.view.nets[r.view.byVNI[vni]]; n != nil {
			r.view.touchAddresses(n, d)
		}
	}
	for vni, macs := range d.fdb {
		for n := range macs {
			p := r.view.ports[r.view.claimOf(datapath.FDBKey{VNI: vni, MAC: n.mac()}).port]
			if p == nil {
				continue
			}
			for _, ip := range p.ips {
				d.neighbours[datapath.NeighbourKey{VNI: vni, IP: ip.Addr().Unmap()}] = true
			}
		}
	}
	var put []datapath.Neighbour
	for key := range d.neighbours {
		want, ok := r.wantNeighbour(key)
		if ok && !want.Ask && r.failed.fdb[datapath.FDBKey{VNI: key.VNI, MAC: want.MAC}] != nil {
			ok = false // nothing would get there
		}
		have, known := r.tables.neighbours[key]
		switch {
		case !ok:
			delete(r.failed.neighbours, key)
			if known {
				gone = append(gone, key)
			}
		case !known || have != want:
			put = append(put, want)
		default:
			delete(r.failed.neighbours, key)
		}
	}
	batch(put, r.kernel.PutNeighbours, func(n datapath.Neighbour, err error) {
		if err != nil {
			r.failed.neighbours[n.NeighbourKey] = err
			return
		}
		delete(r.failed.neighbours, n.NeighbourKey)
		r.tables.neighbours[n.NeighbourKey] = n
		r.writes++
	})
	return gone
}

func (r *Reconciler) deleteNeighbours(gone []datapath.NeighbourKey) {
	batch(gone, r.kernel.DeleteNeighbours, func(key datapath.NeighbourKey, err error) {
		if err != nil {
			r.failed.neighbours[key] = err
			return
		}
		r.deleted++
		r.writes++
		delete(r.tables.neighbours, key)
	})
}
