package oracle

import "github.com/weftnet/weft/wire"

// tooManyMoves within three minutes: the MAC stays where it is.
const tooManyMoves = 5

// learn notes that a MAC is at a place, if its network learns. Nothing ages here: a plan's packets take less time than that.
func (p *Plan) learn(vni wire.VNI, mac wire.MAC, at Place) {
	network, key := p.Networks[vni], FDBKey{vni, mac}
	if _, static := p.FDB[key]; !network.Learns || static {
		return
	}
	was, known := p.Learned[key]
	if known && was.VTEP == at.VTEP && was.Ifindex == at.Ifindex || known && was.Moves >= tooManyMoves {
		return
	}
	limit := network.VTEPLimit
	if at.Ifindex != 0 {
		limit = network.PortLimit
	}
	for k, other := range p.Learned {
		if k.VNI == vni && other.VTEP == at.VTEP && other.Ifindex == at.Ifindex {
			limit--
		}
	}
	if limit <= 0 {
		return
	}
	if known {
		at.Moves = was.Moves + 1
	}
	p.Learned[key] = at
}

// find is where a unicast MAC is: what the plan says, or else what was learned. Who is learned behind a port is behind something that forwards, which
// is given aggregates by the kernel lane.
func (p *Plan) find(vni wire.VNI, mac wire.MAC) (FDBEntry, bool) {
	if mac.IsMulticast() {
		return FDBEntry{}, false
	}
	if e, ok := p.FDB[FDBKey{vni, mac}]; ok {
		return e, true
	}
	at, ok := p.Learned[FDBKey{vni, mac}]
	if port, here := p.Ports[at.Ifindex]; at.Ifindex != 0 && (!here || port.VNI != vni) {
		return FDBEntry{}, false
	}
	return FDBEntry{VTEP: at.VTEP, Ifindex: at.Ifindex, AggregatesByKernel: at.Ifindex != 0}, ok && p.Networks[vni].Learns
}

// accepted: a tunnel packet of the network may come from the address.
func (p *Plan) accepted(a Accept) bool {
	if p.Accepts[a] {
		return true
	}
	for s := range p.Sources {
		if s.VNI == a.VNI && s.Prefix.Contains(a.Addr) {
			return true
		}
	}
	return false
}

// learnAt is learn, of a tunnel packet of an address.
func (p *Plan) learnAt(a Accept, mac wire.MAC) {
	if id := p.Teachers[a]; id != 0 && p.Accepts[a] {
		p.learn(a.VNI, mac, Place{VTEP: id})
	}
}
