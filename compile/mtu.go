package compile

import (
	"github.com/weftnet/weft/model"
)

const (
	// overheadIPv4 is outer IPv4 (20), UDP (8), VXLAN (8) and the inner Ethernet header (14); RFC 7348, section 5.
	overheadIPv4 = 50
	// overheadIPv6 has 40 for outer IPv6.
	overheadIPv6 = 70
	// unknownMTU fits the usual 1500 over IPv4, for as long as no host has told its uplink's.
	unknownMTU = 1450
	// leastMTU is what every IPv4 host must take (RFC 791): the answer to an uplink that is smaller than makes sense.
	leastMTU = 68
)

// Underlay is the tightest underlay that a network must fit: of its members, or of all hosts when it has none. An MTU
// of 0 is unknown.
type Underlay struct {
	// MTU of the uplink.
	MTU int
	// Overhead in octets that encapsulation adds: 50 over IPv4, 70 as soon as one host or external VTEP has IPv6 only,
	// as the others then reach it over IPv6.
	Overhead int
}

// Fits is the largest MTU that a network may have on it; 1450 when nothing is known.
func (u Underlay) Fits() int {
	if u.MTU == 0 {
		return unknownMTU
	}
	return max(u.MTU-u.Overhead, leastMTU)
}

// add tightens u by one more uplink.
func (u *Underlay) add(l uplink) {
	if l.mtu > 0 && (u.MTU == 0 || l.mtu < u.MTU) {
		u.MTU = l.mtu
	}
	u.Overhead = max(u.Overhead, l.overhead)
}

// uplink is what MTUs follow from.
type uplink struct{ mtu, overhead int }

func uplinkOf(f *model.HostFacts) uplink {
	l := uplink{mtu: f.UplinkMTU, overhead: overheadIPv6}
	for _, a := range f.VTEPAddresses {
		if a.Unmap().Is4() {
			l.overhead = overheadIPv4
		}
	}
	return l
}

// tally counts equal uplinks: there are few different ones however many hosts, so that the tightest is found quickly.
type tally map[uplink]int

func (t tally) add(l uplink, by int) {
	if t[l] += by; t[l] == 0 {
		delete(t, l)
	}
}

func (t tally) tightest() Underlay {
	u := Underlay{Overhead: overheadIPv4}
	for l := range t {
		u.add(l)
	}
	return u
}

// tightest is the Underlay of a network's hosts.
func (c *Compiler) tightest(n *network) Underlay {
	if len(n.members) == 0 {
		return c.uplinks.tightest()
	}
	return n.uplinks.tightest()
}

func (r *run) mtu(n *model.Network) int {
	if n.Spec.MTU != 0 {
		return n.Spec.MTU
	}
	u := r.tightest(r.networkState(n.UID))
	for _, part := range n.Spec.VTEPs {
		if v := r.w.VTEPs[part.VTEP]; v != nil && !v.Spec.Address.Unmap().Is4() {
			u.Overhead = overheadIPv6
		}
	}
	return u.Fits()
}

// MTU is the effective MTU of a network, 0 of one that does not exist.
func (c *Compiler) MTU(network model.UID) int {
	if n := c.networks[network]; n != nil && n.exists {
		return n.mtu
	}
	return 0
}
