package oracle

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"github.com/weftnet/weft/wire"
)

// arrival is a packet of the underlay that is a tunnel packet for this host.
type arrival struct {
	src, dst netip.Addr
	// udp is from the UDP header on; at is where it begins in the frame, left how long the IP header says that it is.
	udp      []byte
	at, left int
	tos, ttl byte // or traffic class, hop limit
	// options: of the IPv4 header. badLength: it says less than a header, or more than there is.
	options, fragment, badLength, badHeader bool
}

// FromUplink is a packet that the underlay brings.
func (p *Plan) FromUplink(in Packet) Result {
	pass := Result{Verdict: Passed, Data: in.Data}
	a, ours := p.whose(in.Data)
	switch {
	case !ours:
		return pass
	case in.Tagged:
		return drop("outer_vlan")
	case a.fragment:
		return drop("outer_fragment")
	case a.badLength:
		return drop("bad_ip_header")
	case int(binary.BigEndian.Uint16(a.udp[4:])) != a.left:
		return drop("bad_udp_length")
	case a.badHeader:
		return drop("bad_ip_header")
	case a.left < wire.UDPLen+wire.VXLANLen+wire.EthernetLen:
		return drop("truncated")
	}
	a.udp = a.udp[:a.left]
	vxlan, inner := a.udp[wire.UDPLen:wire.UDPLen+wire.VXLANLen], a.udp[wire.UDPLen+wire.VXLANLen:]
	vni := wire.VNI(vxlan[4])<<16 | wire.VNI(vxlan[5])<<8 | wire.VNI(vxlan[6])
	network, known := p.Networks[vni]
	switch {
	case vxlan[0]&8 == 0:
		return drop("no_vni_flag")
	case a.dst.IsMulticast() && !p.Groups[Group{vni, a.dst}]:
		return drop("other_group")
	case a.src == p.Addr4 || a.src == p.Addr6:
		return drop("own_source")
	case !known:
		return drop("unknown_vni")
	case !p.accepted(Accept{vni, a.src}):
		return drop("source_not_accepted")
	}
	if reason := p.badFrame(inner, false, func(wire.MAC) bool { return true }); reason != "" {
		return drop(reason)
	}
	if a.udp[6] == 0 && a.udp[7] == 0 && !a.options { // else the kernel lane verifies first
		p.learnAt(Accept{vni, a.src}, wire.MAC(inner[6:12]))
	}
	return p.arrive(in, a, vni, network, inner)
}

// arrive is the end of a tunnel packet that may come in. What goes by the kernel lane comes back as an inner frame, at FromVXLAN.
func (p *Plan) arrive(in Packet, a arrival, vni wire.VNI, network Network, inner []byte) Result {
	e, _ := p.find(vni, wire.MAC(inner[:6]))
	original := inner
	frame := leaveTunnel(inner, a.tos, network.Uniform)
	r := p.inside(vni, network, Packet{Data: inner, SegmentSize: in.SegmentSize})
	if r.Verdict == Dropped {
		return r
	}
	if frame == nil {
		return drop("ecn_ce_not_ect")
	}
	inner = frame
	r = p.inside(vni, network, Packet{Data: inner, SegmentSize: in.SegmentSize})
	if r.Verdict == Flooded {
		e = FDBEntry{}
	}
	lane := ""
	switch {
	case a.udp[6] != 0 || a.udp[7] != 0:
		lane = "checksum"
	case r.Verdict == Encapsulated:
		lane = "forward"
	case e.ByKernel:
		lane = "asked"
	case in.SegmentSize > 0 && (e.AggregatesByKernel || !isTCP(inner)):
		lane = "aggregate"
	case a.options:
		lane = "options"
	case short(inner):
		lane = "no_room"
	}
	if lane == "" {
		if r.Verdict == Flooded {
			return r.orNobody()
		}
		return r
	}
	inner = leaveTunnel(original, a.tos, false) // the DSCP is for FromVXLAN
	// The kernel refuses reserved bits, which the RFC has us ignore: they are cleared, and a checksum is kept right or wrong.
	data := bytes.Clone(in.Data)
	if lane == "no_room" {
		data = data[:a.at+a.left] // padding goes first
	}
	udp := data[a.at : a.at+len(a.udp)]
	udp[8], udp[9], udp[10], udp[11], udp[15] = 8, 0, 0, 0, 0
	if a.udp[6] != 0 || a.udp[7] != 0 {
		delta := sum(append(binary.BigEndian.AppendUint16(nil, ^sum(udp[8:16])), a.udp[8:16]...))
		binary.BigEndian.PutUint16(udp[6:], sum(append(binary.BigEndian.AppendUint16(nil, delta), udp[6:8]...)))
	}
	return Result{Verdict: Passed, Lane: lane, Data: data, Key: Key{vni, a.src, a.tos, a.ttl, true}, Inner: inner}
}

// isTCP: an aggregate of it may be stripped without the kernel's device. An IPv6 header must name it itself.
func isTCP(frame []byte) bool {
	switch binary.BigEndian.Uint16(frame[12:]) {
	case typeIPv4:
		return frame[wire.EthernetLen+9] == protoTCP
	case typeIPv6:
		return frame[wire.EthernetLen+6] == protoTCP
	}
	return false
}

// inside finds who gets the inner frame. A flood may yet turn out to have nobody to go to, and what is to be forwarded (Encapsulated) may not
// fit: see forward.
func (p *Plan) inside(vni wire.VNI, network Network, in Packet) Result {
	dst := wire.MAC(in.Data[:6])
	if e, hit := p.find(vni, dst); hit {
		to, ok := p.Ports[e.Ifindex]
		switch {
		case e.Ifindex == 0 && e.Forward:
			return Result{Verdict: Encapsulated}
		case e.Ifindex == 0:
			return drop("split_horizon")
		case !ok || to.VNI != vni:
			return drop("unknown_port")
		case to.Held:
			return drop("port_held")
		}
		return Result{Verdict: Delivered, Deliveries: []Delivery{{e.Ifindex, in.Data}}}
	}
	if !dst.IsMulticast() && network.Unknown != ToAll {
		return drop("unknown_unicast_from_tunnel")
	}
	r := Result{Verdict: Flooded}
	p.floodLocal(&r, vni, network.LocalPorts, in)
	return r
}

// Key is what the kernel's device says about a packet that it has stripped.
type Key struct {
	VNI wire.VNI
	Src netip.Addr
	// TOS is the outer ToS octet or traffic class. The kernel has merged its ECN.
	TOS byte
	// TTL is the outer TTL or hop limit.
	TTL byte
	// Marked: it carries the secret mark, so the programs on the uplink have let it in.
	Marked bool
}

// FromVXLAN is a frame that the kernel's device has stripped: what came past the checks stops here, and they are made again.
func (p *Plan) FromVXLAN(in Packet, k Key) Result {
	network, known := p.Networks[k.VNI]
	switch {
	case !k.Marked:
		return drop("unmarked")
	case k.Src == p.Addr4 || k.Src == p.Addr6:
		return drop("own_source")
	case !known:
		return drop("unknown_vni")
	case !p.accepted(Accept{k.VNI, k.Src}):
		return drop("source_not_accepted")
	}
	if reason := p.badFrame(in.Data, in.Tagged, func(wire.MAC) bool { return true }); reason != "" {
		return drop(reason)
	}
	p.learnAt(Accept{k.VNI, k.Src}, wire.MAC(in.Data[6:12]))
	in.Data = leaveTunnel(in.Data, k.TOS&^maskECN, network.Uniform)
	r := p.inside(k.VNI, network, in)
	switch r.Verdict {
	case Flooded:
		return r.orNobody()
	case Encapsulated:
		return p.forward(in, k)
	}
	return r
}

// forward sends what came out of one tunnel into another, after its port.
func (p *Plan) forward(in Packet, k Key) Result {
	if k.TTL <= 1 {
		return drop("forward_ttl")
	}
	e := p.FDB[FDBKey{k.VNI, wire.MAC(in.Data[:6])}]
	t, _, reason := p.tunnel(k.VNI, e.VTEP, in, "forward", k.TTL-1, func([]byte) (uint16, uint32) { return 49152, 1 }) // the kernel chooses
	switch reason {
	case "":
		return Result{Verdict: Encapsulated, Tunnels: []Tunnel{t}}
	case "too_big":
		reason = "forward_too_big"
	}
	return drop(reason)
}

// short: the kernel strips no headers when what is left is less than an IPv4 header.
func short(inner []byte) bool { return len(inner) < wire.EthernetLen+wire.IPv4Len }

// whose says whether the frame is a tunnel packet for this host: to its MAC and its VTEP address, or to those of a group that a network here has, and to its UDP port. Where no UDP header
// can be found (a later fragment, a header length below its minimum, a buffer that ends before it, IPv6 extension headers but
// that of a first fragment) the packet is the kernel's.
func (p *Plan) whose(frame []byte) (a arrival, ours bool) {
	if len(frame) < wire.EthernetLen {
		return a, false
	}
	mac := wire.MAC(frame[:6])
	b := frame[wire.EthernetLen:]
	var header, total int
	switch binary.BigEndian.Uint16(frame[12:]) {
	case typeIPv4:
		if len(b) < wire.IPv4Len {
			return a, false
		}
		header, total = int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
		a.tos, a.ttl = b[1], b[8]
		a.src, a.dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		flags := binary.BigEndian.Uint16(b[6:])
		if !p.mine(mac, a.dst, p.Addr4) || b[9] != protoUDP || flags&0x1fff != 0 || header < wire.IPv4Len || len(b) < header {
			return a, false
		}
		a.fragment, a.options = flags&0x2000 != 0, header > wire.IPv4Len
		// A header with options is the kernel's to verify: see the lane "options".
		a.badHeader = b[0]>>4 != 4 || !a.options && sum(b[:header]) != 0xffff
	case typeIPv6:
		if len(b) < wire.IPv6Len {
			return a, false
		}
		header, total = wire.IPv6Len, wire.IPv6Len+int(binary.BigEndian.Uint16(b[4:]))
		a.tos, a.ttl = b[0]<<4|b[1]>>4, b[7]
		a.src, a.dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		proto := b[6]
		if proto == protoFragment && len(b) >= header+8 && binary.BigEndian.Uint16(b[header+2:])&0xfff8 == 0 {
			proto, a.fragment = b[header], true
			header += 8
		}
		if !p.mine(mac, a.dst, p.Addr6) || proto != protoUDP {
			return a, false
		}
		a.badHeader = b[0]>>4 != 6
	default:
		return a, false
	}
	if len(b) < header+wire.UDPLen || binary.BigEndian.Uint16(b[header+2:]) != p.UDPPort {
		return a, false
	}
	a.at, a.udp, a.left = wire.EthernetLen+header, b[header:], total-header
	a.badLength = total < header || total > len(b)
	return a, true
}
