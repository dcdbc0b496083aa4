package oracle

import (
	"encoding/binary"
	"net/netip"

	"github.com/weftnet/weft/wire"
)

// Choose is what the sender of a tunnel packet may choose, given the inner frame: an outer UDP source port in 49152..65535 and an
// IPv6 flow label. One flow has one choice: see FlowOf.
type Choose func(inner []byte) (port uint16, label uint32)

// firstTTL is the outer TTL or hop limit of what comes from a port.
const firstTTL = 64

// tunnel encapsulates a frame for a VTEP, or says why not. A lane that is given is why the kernel lane must do it.
func (p *Plan) tunnel(vni wire.VNI, id uint32, in Packet, asked string, ttl byte, choose Choose) (t Tunnel, lane, reason string) {
	v, ok := p.VTEPs[id]
	if !ok {
		return t, "", "unknown_vtep"
	}
	src, overhead := p.Addr4, wire.Overhead4
	if v.Addr.Is6() {
		src, overhead = p.Addr6, wire.Overhead6
	}
	hop, ok := p.NextHops[v.Addr]
	if v.Addr.IsMulticast() { // no route is asked for
		hop, ok = groupMAC(v.Addr), true
	}
	if !ok || !src.IsValid() {
		return t, "", "no_route"
	}
	if longest(in)+overhead > p.UplinkMTU {
		return t, "", "too_big"
	}
	if lane = asked; v.OuterChecksum {
		lane = "checksum"
	}
	if lane != "" && v.Addr.Is6() && v.Addr.IsMulticast() {
		return t, "", "kernel_lane_group"
	}
	if lane != "" && v.UDPPort != p.UDPPort {
		return t, "", "kernel_lane_port"
	}
	port, label := choose(in.Data)
	return Tunnel{VTEP: id, Kernel: lane != "", Checksum: v.OuterChecksum, Packet: p.outer(hop, src, v, vni, port, label, ttl, in.Data)}, lane, ""
}

// outer writes the headers: RFC 7348, section 5.
func (p *Plan) outer(hop wire.MAC, src netip.Addr, v VTEP, vni wire.VNI, port uint16, label uint32, ttl byte, inner []byte) []byte {
	b := append(append([]byte{}, hop[:]...), p.UplinkMAC[:]...)
	length := wire.UDPLen + wire.VXLANLen + len(inner)
	outside := byte(0)
	if tos, ok := tosOf(inner); ok {
		outside = tos & maskECN // RFC 6040, normal mode; RFC 2983, pipe
		if p.Networks[vni].Uniform {
			outside = tos
		}
	}
	if src.Is4() {
		b = append(b, 0x08, 0x00)
		ip := []byte{0x45, outside, 0, 0, 0, 0, 0x40 /* DF: section 4.3 */, 0, ttl, 17, 0, 0}
		binary.BigEndian.PutUint16(ip[2:], uint16(wire.IPv4Len+length))
		ip = append(append(ip, src.AsSlice()...), v.Addr.AsSlice()...)
		binary.BigEndian.PutUint16(ip[10:], ^sum(ip))
		b = append(b, ip...)
	} else {
		b = append(b, 0x86, 0xdd, 0x60|outside>>4, outside<<4|byte(label>>16)&0x0f, byte(label>>8), byte(label))
		b = binary.BigEndian.AppendUint16(b, uint16(length))
		b = append(b, 17, ttl)
		b = append(append(b, src.AsSlice()...), v.Addr.AsSlice()...)
	}
	b = binary.BigEndian.AppendUint16(b, port)
	b = binary.BigEndian.AppendUint16(b, v.UDPPort)
	b = binary.BigEndian.AppendUint16(b, uint16(length))
	b = append(b, 0, 0) // SHOULD be zero
	b = append(b, 8, 0, 0, 0, byte(vni>>16), byte(vni>>8), byte(vni), 0)
	return append(b, inner...)
}

// sum is the Internet checksum's ones' complement sum (RFC 1071), of an even or odd number of octets.
func sum(b []byte) uint16 {
	var s uint32
	for i, o := range b {
		if i%2 == 0 {
			s += uint32(o) << 8
		} else {
			s += uint32(o)
		}
	}
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

// FlowOf names the flow of a frame: packets of one flow must have one outer source port. ok is false where the documents do not
// say what the flow is (a packet that is cut short, or hides its L4 header behind extensions).
func FlowOf(frame []byte) (flow string, ok bool) {
	if len(frame) < wire.EthernetLen {
		return "", false
	}
	b := frame[wire.EthernetLen:]
	switch binary.BigEndian.Uint16(frame[12:]) {
	case typeIPv4:
		if len(b) < 24 || b[0]>>4 != 4 || b[0]&15 < 5 {
			return "", false
		}
		ip := int(b[0]&15) * 4
		flow = "4" + string(b[9]) + string(b[12:20])
		if binary.BigEndian.Uint16(b[6:])&0x3fff != 0 || b[9] != 6 && b[9] != 17 {
			return flow, true
		}
		if len(b) < ip+4 {
			return "", false
		}
		return flow + string(b[ip:ip+4]), true
	case typeIPv6:
		if len(b) < 44 || b[0]>>4 != 6 || b[6] != 6 && b[6] != 17 {
			return "", false
		}
		return "6" + string(b[6]) + string(b[8:44]), true
	}
	return "m" + string(frame[:12]), true
}
