package agent

import (
	"iter"
	"maps"
	"net/netip"
	"slices"

	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/wire"
)

// Neighbours: who has which address of a network, as far as the plan says so for certain. docs/decisions/0011-neighbours.md

// byIP is something by a network's address. A network without an entry has no map.
type byIP[V any] map[wire.VNI]map[netip.Addr]V

func (b byIP[V]) get(key datapath.NeighbourKey) (v V, ok bool) {
	v, ok = b[key.VNI][key.IP]
	return v, ok
}

func (b byIP[V]) put(key datapath.NeighbourKey, v V) { b.of(key.VNI, 1)[key.IP] = v }

func (b byIP[V]) drop(key datapath.NeighbourKey) {
	of := b[key.VNI]
	if delete(of, key.IP); len(of) == 0 {
		delete(b, key.VNI)
	}
}

// of is a network's map; a new one has room for so many.
func (b byIP[V]) of(vni wire.VNI, room int) map[netip.Addr]V {
	of := b[vni]
	if of == nil {
		of = make(map[netip.Addr]V, room)
		b[vni] = of
	}
	return of
}

// answer is whom the kernel answers for: a neighbour without its key.
type answer struct {
	mac         wire.MAC
	router, ask bool
}

func answerOf(n datapath.Neighbour) answer { return answer{n.MAC, n.Router, n.Ask} }

// holders are the ports that may have an address.
type holders struct {
	// owner has it in its list.
	owner string
	// rivals, if any, may have it too.
	rivals *rivals
}

type rivals struct {
	// others have it in their lists, which only a bad plan does.
	others []string
	// paired may say that they have it, by an allowed pair.
	paired map[string]bool
}

// rival makes room for them.
func (h *holders) rival() *rivals {
	if h.rivals == nil {
		h.rivals = &rivals{paired: map[string]bool{}}
	}
	return h.rivals
}

// addresses are a port's own, and those of its pairs, each with what it is.
func (p *port) addresses() iter.Seq2[netip.Addr, bool] {
	return func(yield func(a netip.Addr, own bool) bool) {
		for _, ip := range p.ips {
			if !yield(ip.Addr().Unmap(), true) {
				return
			}
		}
		for _, c := range p.allowed {
			own := slices.ContainsFunc(p.ips, func(ip netip.Prefix) bool { return ip.Addr().Unmap() == c.IP })
			if c.IP.IsValid() && !own && !yield(c.IP, false) {
				return
			}
		}
	}
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
	for _, ip := range p.ips {
		open[family(ip.Addr().Unmap())] = false
	}
	for _, c := range p.allowed {
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

func (v *view) claimAddresses(n *network, p *port, d *dirty) {
	for a, own := range p.addresses() {
		key := datapath.NeighbourKey{VNI: n.vni, IP: a}
		switch h, _ := v.addresses.get(key); {
		case !own:
			h.rival().paired[p.uid] = true
			v.addresses.put(key, h)
		case h.owner == p.uid:
		case h.owner == "":
			h.owner = p.uid
			v.addresses.put(key, h)
		default:
			h.rival().others = append(h.rival().others, p.uid)
			v.addresses.put(key, h)
		}
		d.touchAddress(key)
	}
}

func (v *view) unclaimAddresses(n *network, p *port, d *dirty) {
	for a := range p.addresses() {
		key := datapath.NeighbourKey{VNI: n.vni, IP: a}
		h, ok := v.addresses.get(key)
		if !ok {
			continue
		}
		if h.owner == p.uid {
			h.owner = ""
		}
		if r := h.rivals; r != nil {
			delete(r.paired, p.uid)
			r.others = slices.DeleteFunc(r.others, func(uid string) bool { return uid == p.uid })
			if h.owner == "" && len(r.others) > 0 {
				h.owner, r.others = r.others[0], r.others[1:]
			}
			if len(r.others)+len(r.paired) == 0 {
				h.rivals = nil
			}
		}
		if h == (holders{}) {
			v.addresses.drop(key)
		} else {
			v.addresses.put(key, h)
		}
		d.touchAddress(key)
	}
}

// wantNeighbour is who is answered for an address. Where the plan leaves it open (another port may take the address over, its own has
// several MACs) everybody asks. An address that leads nowhere, as its port is bound to no host, is one that nobody knows.
func (r *Reconciler) wantNeighbour(n *network, key datapath.NeighbourKey, h holders) (answer, bool) {
	if h == (holders{}) || n == nil || n.floods {
		return answer{}, false
	}
	p := r.view.ports[h.owner]
	if p == nil || h.rivals != nil || len(p.macs) != 1 {
		return answer{ask: true}, true
	}
	at := datapath.FDBKey{VNI: key.VNI, MAC: p.macs[0]}
	c, ok := r.view.claims.get(at)
	if !ok || c.port != p.uid { // another port has the MAC
		return answer{}, false
	}
	if _, ok := r.claimed(at, c); !ok {
		return answer{}, false
	}
	if len(r.failed.fdb) > 0 && r.failed.fdb[at] != nil {
		return answer{}, false // nothing would get there
	}
	return answer{mac: p.macs[0], router: p.forwarding}, true
}

type neighbourWriter = writer[datapath.NeighbourKey, datapath.Neighbour]

// compareNeighbours compares every address that a network has or should have.
func (r *Reconciler) compareNeighbours(w *neighbourWriter, vni wire.VNI) {
	n := r.view.nets[r.view.byVNI[vni]]
	held, have := r.view.addresses[vni], r.tables.neighbours[vni]
	for ip, h := range held {
		was, known := have[ip]
		r.compareNeighbour(w, n, datapath.NeighbourKey{VNI: vni, IP: ip}, h, was, known)
	}
	for ip, was := range have {
		if _, ok := held[ip]; !ok {
			r.compareNeighbour(w, n, datapath.NeighbourKey{VNI: vni, IP: ip}, holders{}, was, true)
		}
	}
}

func (r *Reconciler) compareNeighbour(w *neighbourWriter, n *network, key datapath.NeighbourKey, h holders, have answer, known bool) {
	want, ok := r.wantNeighbour(n, key, h)
	switch {
	case ok && (!known || have != want):
		w.add(datapath.Neighbour{NeighbourKey: key, MAC: want.mac, Router: want.router, Ask: want.ask})
		return
	case !ok && known:
		w.remove(key)
	}
	w.right(key)
}

// putNeighbours writes what is new or differs, once the FDB has the MACs. It returns what nothing asks for any more, to be deleted before
// the FDB entries are.
func (r *Reconciler) putNeighbours(d *dirty) (gone []datapath.NeighbourKey) {
	for vni, macs := range d.fdb {
		for n := range macs {
			p := r.view.ports[r.view.claimOf(datapath.FDBKey{VNI: vni, MAC: n.mac()}).port]
			if p == nil {
				continue
			}
			for _, ip := range p.ips {
				d.touchAddress(datapath.NeighbourKey{VNI: vni, IP: ip.Addr().Unmap()})
			}
		}
	}
	for key := range r.failed.neighbours {
		_, claimed := r.view.addresses.get(key)
		if _, known := r.tables.neighbours.get(key); !claimed && !known {
			delete(r.failed.neighbours, key) // neither there nor asked for any more
		}
	}
	begin := func() *neighbourWriter {
		return &neighbourWriter{write: r.kernel.PutNeighbours, done: r.neighbourDone, wasFailed: r.failed.neighbours,
			key: func(n datapath.Neighbour) datapath.NeighbourKey { return n.NeighbourKey }}
	}
	all := maps.Clone(d.fdbOf)
	maps.Copy(all, d.neighboursOf)
	wanted := func(vni wire.VNI) int { return len(r.view.addresses[vni]) }
	gone = inShares(r, all, r.tables.neighbours, wanted, r.failed.neighbours, begin, r.compareNeighbours)
	w := begin()
	for key := range d.neighbours {
		h, _ := r.view.addresses.get(key)
		have, known := r.tables.neighbours.get(key)
		r.compareNeighbour(w, r.view.nets[r.view.byVNI[key.VNI]], key, h, have, known)
	}
	w.end()
	return append(gone, w.merge(r.failed.neighbours, &r.writes)...)
}

// neighbourDone notes one that was written.
func (r *Reconciler) neighbourDone(n datapath.Neighbour) {
	r.tables.neighbours.of(n.VNI, max(1, len(r.view.addresses[n.VNI])))[n.IP] = answerOf(n)
}

func (r *Reconciler) deleteNeighbours(gone []datapath.NeighbourKey) {
	batch(gone, r.kernel.DeleteNeighbours, func(key datapath.NeighbourKey, err error) {
		if err != nil {
			r.failed.neighbours[key] = err
			return
		}
		r.deleted++
		r.writes++
		r.tables.neighbours.drop(key)
	})
}
