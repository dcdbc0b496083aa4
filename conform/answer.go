package conform

import (
	"encoding/binary"

	"github.com/weftnet/weft/wire"
)

// The longest messages, in octets of IP packet: RFC 1812, section 4.3.2.3; RFC 4443, section 2.4 (c).
const (
	answer4Max = 576
	answer6Max = 1280
)

// answer is the message about a frame that does not fit, octet by octet: "fragmentation needed" with the MTU of RFC 1191, section 4, or
// "packet too big" (RFC 4443, section 3.2). It comes from the frame's destination, whose MAC it has too, and quotes as much as fits.
func answer(f []byte, mtu int) []byte {
	p, err := wire.ParseFrame(f)
	if err != nil && p.Layers&(wire.LayerIPv4|wire.LayerIPv6) == 0 {
		panic("conform: only IP packets are answered: " + err.Error())
	}
	head := wire.Ethernet{Dst: p.Src, Src: p.Dst, Type: p.Type}.Append(nil)
	m := wire.ICMP{Type: wire.ICMPUnreachable, Code: wire.ICMPFragmentation}
	if p.Has(wire.LayerIPv6) {
		m = wire.ICMP{Type: wire.ICMPv6PacketTooBig}
		binary.BigEndian.PutUint32(m.Rest[:], uint32(mtu))
		quoted := f[wire.EthernetLen:min(len(f), wire.EthernetLen+answer6Max-wire.IPv6Len-wire.ICMPLen)]
		src, dst := p.IPv6.Dst, p.IPv6.Src
		return wire.IPv6{HopLimit: 64, Protocol: wire.ProtoICMPv6, Src: src, Dst: dst}.Append(head, m.Append(nil, src, dst, quoted))
	}
	binary.BigEndian.PutUint16(m.Rest[2:], uint16(mtu))
	quoted := f[wire.EthernetLen:min(len(f), wire.EthernetLen+answer4Max-wire.IPv4Len-wire.ICMPLen)]
	src, dst := p.IPv4.Dst, p.IPv4.Src
	// Internetwork control: RFC 1812, section 4.3.2.5.
	return wire.IPv4{TOS: 0xc0, DF: true, TTL: 64, Protocol: wire.ProtoICMP, Src: src, Dst: dst}.Append(head, m.Append(nil, src, dst, quoted))
}
