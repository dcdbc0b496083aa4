package wire

import "net/netip"

// Options, flags and the hop limit of neighbour discovery (RFC 4861, sections 4.3, 4.4 and 4.6.1).
const (
	ndOptionSourceLink = 1
	ndOptionTargetLink = 2
	ndHopLimit         = 255

	naRouter    = 0x80
	naSolicited = 0x40
	naOverride  = 0x20
)

// Neighbour is a neighbour solicitation or advertisement (RFC 4861, sections 4.3 and 4.4).
type Neighbour struct {
	// Advertisement, or else a solicitation.
	Advertisement bool
	// Router, Solicited and Override are flags of an advertisement.
	Router, Solicited, Override bool
	Target                      netip.Addr
	// MAC is the link-layer address option: the source's in a solicitation, the target's in an advertisement. Zero if
	// there is none.
	MAC MAC
}

// ParseNeighbour reads the ICMPv6 message that begins with h and has the body given. It reports ErrMalformed of a message
// that is neither of the two.
func ParseNeighbour(h ICMP, body []byte) (Neighbour, error) {
	n := Neighbour{}
	wanted := uint8(ndOptionSourceLink)
	switch {
	case h.Code != 0:
		return n, malformed("nd", "the code is not 0")
	case h.Type == ICMPv6Advertisement:
		n.Advertisement, wanted = true, ndOptionTargetLink
		n.Router, n.Solicited, n.Override = h.Rest[0]&naRouter != 0, h.Rest[0]&naSolicited != 0, h.Rest[0]&naOverride != 0
	case h.Type != ICMPv6Solicitation:
		return n, malformed("nd", "neither solicitation nor advertisement")
	}
	c := cursor{rest: body}
	n.Target = c.addr6()
	for !c.short && len(c.rest) > 0 {
		kind, length := c.u8(), int(c.u8())*8
		if !c.short && length == 0 {
			return Neighbour{}, malformed("nd", "an option of length 0")
		}
		option := c.take(length - 2)
		if kind == wanted && len(option) == 6 {
			n.MAC = MAC(option)
		}
	}
	if c.short {
		return Neighbour{}, truncated("nd")
	}
	if n.Target.IsMulticast() {
		return Neighbour{}, malformed("nd", "the target is a multicast address")
	}
	return n, nil
}

// Message is the ICMPv6 header and body.
func (n Neighbour) Message() (ICMP, []byte) {
	h := ICMP{Type: ICMPv6Solicitation}
	option := byte(ndOptionSourceLink)
	if n.Advertisement {
		h.Type, option = ICMPv6Advertisement, ndOptionTargetLink
		for _, f := range [...]struct {
			set bool
			bit byte
		}{{n.Router, naRouter}, {n.Solicited, naSolicited}, {n.Override, naOverride}} {
			if f.set {
				h.Rest[0] |= f.bit
			}
		}
	}
	body := append6(nil, n.Target)
	if !n.MAC.IsZero() {
		body = append(append(body, option, 1), n.MAC[:]...)
	}
	return h, body
}

// Frame is the message in an Ethernet frame with the hop limit that receivers insist on.
func (n Neighbour) Frame(f Flow) []byte {
	h, body := n.Message()
	f.TTL = ndHopLimit
	return f.packet(ProtoICMPv6, h.Append(nil, f.Src, f.Dst, body))
}

// Solicitation asks a segment for the MAC of an address.
func Solicitation(mac MAC, src, target netip.Addr) []byte {
	group := SolicitedNode(target)
	return Neighbour{Target: target, MAC: mac}.Frame(Flow{SrcMAC: mac, DstMAC: MulticastMAC(group), Src: src, Dst: group})
}

// SolicitedNode is the group that a solicitation for an IPv6 address goes to (RFC 4291, section 2.7.1).
func SolicitedNode(a netip.Addr) netip.Addr {
	v := a.As16()
	return netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 11: 1, 12: 0xff, 13: v[13], 14: v[14], 15: v[15]})
}
