package oracle

import (
	"encoding/binary"
	"slices"

	"github.com/weftnet/weft/wire"
)

const (
	typeIPv4       = 0x0800
	typeIPv6       = 0x86dd
	typeVLAN       = 0x8100
	typeServiceTag = 0x88a8
	typeOldTag     = 0x9100 // stacked tags before IEEE 802.1ad
	protoTCP       = 6
	protoUDP       = 17
	protoFragment  = 44
)

// FromPort is a frame that a workload sends on an interface.
func (p *Plan) FromPort(ifindex uint32, in Packet, choose Choose) Result {
	port, ok := p.Ports[ifindex]
	switch {
	case !ok:
		return drop("unknown_port")
	case port.Held:
		return drop("port_held")
	}
	if reason := p.badFrame(in.Data, in.Tagged, func(src wire.MAC) bool {
		return port.Unguarded || slices.Contains(port.MACs, src)
	}); reason != "" {
		return drop(reason)
	}
	dst := wire.MAC(in.Data[:6])
	network, held := p.Networks[port.VNI]
	if held && longest(in) > network.MTU {
		return drop(tooBig(in))
	}
	if !port.Unguarded {
		if r, ok := port.Services.service(in.Data); ok {
			return r
		}
	}
	if src := wire.MAC(in.Data[6:12]); len(port.MACs) == 0 || src != port.MACs[0] { // that one the plan knows
		p.learn(port.VNI, src, Place{Ifindex: ifindex})
	}
	if r, ok := p.talk(port, in.Data); ok {
		return r
	}
	if entry, ok := p.find(port.VNI, dst); ok {
		return p.unicast(ifindex, port.VNI, entry, in, choose)
	}
	if !held {
		return drop("unknown_network")
	}
	locals, remotes := network.LocalPorts, network.Remotes[:len(network.Remotes)-network.Direct]
	if !dst.IsMulticast() {
		switch network.Unknown {
		case ToNobody:
			return drop("unknown_unicast")
		case ToExternal:
			locals, remotes = nil, network.Remotes[len(network.Remotes)-network.External:]
			if len(remotes) == 0 {
				return drop("unknown_unicast")
			}
		}
	}
	locals = slices.DeleteFunc(slices.Clone(locals), func(i uint32) bool { return i == ifindex })
	if len(locals)+len(remotes) == 0 {
		return drop("no_receiver")
	}
	r := Result{Verdict: Flooded}
	p.floodLocal(&r, port.VNI, locals, in)
	p.floodRemote(&r, port.VNI, remotes, in, choose)
	return r.orNobody()
}

// floodRemote makes the copies for VTEPs. One encapsulation serves them all, of the IP version of the first that needs no kernel
// lane; VTEPs of the other version get theirs from the kernel.
func (p *Plan) floodRemote(r *Result, vni wire.VNI, remotes []uint32, in Packet, choose Choose) {
	ip6, chosen := false, false
	for _, id := range remotes {
		asked, v := "", p.VTEPs[id]
		if chosen && v.Addr.Is6() != ip6 {
			asked = "family"
		}
		t, lane, reason := p.tunnel(vni, id, in, asked, firstTTL, choose)
		if reason != "" {
			r.CopyDrops = append(r.CopyDrops, "copy_"+reason)
			continue
		}
		if lane == "" && !chosen {
			ip6, chosen = v.Addr.Is6(), true
		}
		r.Tunnels = append(r.Tunnels, t)
	}
}

// orNobody: a flood of which no copy went anywhere is a drop.
func (r Result) orNobody() Result {
	if len(r.Deliveries)+len(r.Tunnels) == 0 {
		return Result{Verdict: Dropped, Reason: "no_receiver", CopyDrops: r.CopyDrops}
	}
	return r
}

// badFrame is what every frame of a workload must pass, whether it comes from here or out of a tunnel.
func (p *Plan) badFrame(frame []byte, tagged bool, owns func(wire.MAC) bool) string {
	if len(frame) < wire.EthernetLen {
		return "truncated"
	}
	dst, src := wire.MAC(frame[:6]), wire.MAC(frame[6:12])
	switch kind := binary.BigEndian.Uint16(frame[12:]); {
	case tagged || kind == typeVLAN || kind == typeServiceTag || kind == typeOldTag:
		return "inner_vlan"
	case src.IsMulticast() || src.IsZero() || src == p.Reserved:
		return "source_invalid"
	case [5]byte(dst[:5]) == [5]byte{0x01, 0x80, 0xc2, 0, 0} && dst[5] <= 0x0f:
		return "link_local"
	case kind == typeIPv4 && len(frame) < wire.EthernetLen+wire.IPv4Len || kind == typeIPv6 && len(frame) < wire.EthernetLen+wire.IPv6Len:
		return "truncated" // the kernel lane could not carry it
	case !owns(src):
		return "source_mac"
	}
	return ""
}

func (p *Plan) unicast(from uint32, vni wire.VNI, e FDBEntry, in Packet, choose Choose) Result {
	if e.Ifindex != 0 {
		if e.Ifindex == from {
			return drop("same_port")
		}
		to, ok := p.Ports[e.Ifindex]
		switch {
		case !ok || to.VNI != vni:
			return drop("unknown_port")
		case to.Held:
			return drop("port_held")
		}
		return Result{Verdict: Delivered, Deliveries: []Delivery{{e.Ifindex, in.Data}}}
	}
	t, lane, reason := p.tunnel(vni, e.VTEP, in, "", firstTTL, choose)
	if reason == "too_big" {
		reason = tooBig(in)
	}
	if reason != "" {
		return drop(reason)
	}
	return Result{Verdict: Encapsulated, Lane: lane, Tunnels: []Tunnel{t}}
}

// vlanTag is what the kernel allows for beside an interface's MTU, be there a tag or not.
const vlanTag = 4

// floodLocal makes the local copies.
func (p *Plan) floodLocal(r *Result, vni wire.VNI, locals []uint32, in Packet) {
	for _, i := range locals {
		switch port, ok := p.Ports[i]; {
		case !ok || port.VNI != vni:
			r.CopyDrops = append(r.CopyDrops, "copy_no_port")
		case port.Held:
			r.CopyDrops = append(r.CopyDrops, "copy_held")
		case in.SegmentSize == 0 && len(in.Data) > port.MTU+wire.EthernetLen+vlanTag:
			r.CopyDrops = append(r.CopyDrops, "copy_failed") // its interface refuses it; an aggregate is cut there
		default:
			r.Deliveries = append(r.Deliveries, Delivery{i, in.Data})
		}
	}
}

// longest is the length of the longest IP packet that the frame is or will be cut into: from the buffer, never from a header.
func longest(in Packet) int {
	n := len(in.Data) - wire.EthernetLen
	if in.SegmentSize == 0 {
		return n
	}
	if h, ok := headers(in.Data[wire.EthernetLen:], binary.BigEndian.Uint16(in.Data[12:])); ok {
		return min(n, h+in.SegmentSize)
	}
	return n
}

// tooBig names why a frame that does not fit is dropped: what may be fragmented by routers gets no ICMP message, the rest may.
func tooBig(in Packet) string {
	b := in.Data[wire.EthernetLen:]
	if binary.BigEndian.Uint16(in.Data[12:]) == typeIPv4 && b[0]>>4 == 4 && b[0]&15 >= 5 && b[6]&0x40 == 0 {
		return "too_big_no_df"
	}
	return "too_big"
}

// unknownL4 is room for 40 octets of IPv6 extension headers and the longest TCP header.
const unknownL4 = 40 + 60

// headers is the length of the IP and L4 headers that each segment of an aggregate repeats: not less, where it is another protocol's. ok is false of
// what nobody knows how to cut: that is as long as it is.
func headers(b []byte, kind uint16) (n int, ok bool) {
	ip, proto := 0, byte(0)
	switch {
	case kind == typeIPv4 && len(b) >= wire.IPv4Len:
		ip, proto = int(b[0]&15)*4, b[9]
	case kind == typeIPv6 && len(b) >= wire.IPv6Len:
		ip, proto = wire.IPv6Len, b[6]
	default:
		return 0, false
	}
	switch {
	case proto == protoUDP:
		return ip + wire.UDPLen, true
	case proto != protoTCP:
		return ip + unknownL4, true
	case len(b) < ip+20:
		return 0, false
	}
	return ip + int(b[ip+12]>>4)*4, true
}
