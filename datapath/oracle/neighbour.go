package oracle

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/weftnet/weft/wire"
)

// NeighbourKey is an address in a network.
type NeighbourKey struct {
	VNI wire.VNI
	IP  netip.Addr
}

// Neighbour is who has it. Ask: that is not certain.
type Neighbour struct {
	MAC         wire.MAC
	Router, Ask bool
}

// Claim is that IP (any, if it is not valid) is at MAC (any of the port's, if it is zero).
type Claim struct {
	IP  netip.Addr
	MAC wire.MAC
}

const (
	typeARP           = 0x0806
	ndRouterSolicit   = 133
	ndSolicit         = 135
	ndAdvertise       = 136
	protoICMPv6       = 58
	mostExtensions    = 8
	mostNDOptions     = 8
	lastExtensionByte = 4096
)

// checked: is the port checked in the IP version?
func (o Port) checked(ip6 bool) bool {
	return !o.Unguarded && slices.ContainsFunc(o.Claims, func(c Claim) bool { return c.IP.IsValid() && c.IP.Is6() == ip6 })
}

// may says whether the port may claim the address; none is a probe's.
func (p *Plan) may(o Port, ip netip.Addr, mac wire.MAC) bool {
	if !slices.Contains(o.MACs, mac) {
		return false
	}
	if ip.IsUnspecified() {
		return true
	}
	if ip.Is6() && ip.IsLinkLocalUnicast() {
		b := ip.As16()
		maker := wire.MAC{b[8] ^ 2, b[9], b[10], b[13], b[14], b[15]}
		_, others := p.FDB[FDBKey{o.VNI, maker}]
		return b[11] != 0xff || b[12] != 0xfe || !others || slices.Contains(o.MACs, maker)
	}
	return slices.ContainsFunc(o.Claims, func(c Claim) bool {
		return (!c.IP.IsValid() || c.IP == ip) && (c.MAC.IsZero() && c.IP.IsValid() || c.MAC == mac)
	})
}

// talk is ARP and neighbour discovery of a port: RFC 826, RFC 4861. ok is false where the frame goes its way.
func (p *Plan) talk(o Port, frame []byte) (r Result, ok bool) {
	switch binary.BigEndian.Uint16(frame[12:]) {
	case typeARP:
		return p.talkARP(o, frame)
	case typeIPv6:
		return p.talkND(o, frame)
	}
	return r, false
}

func (p *Plan) talkARP(o Port, frame []byte) (r Result, ok bool) {
	claimed, b := o.checked(false), frame[wire.EthernetLen:]
	if len(b) < wire.ARPLen || b[0] != 0 || b[1] != 1 && b[1] != 6 || !bytes.Equal(b[2:6], []byte{8, 0, 6, 4}) {
		return drop("neighbour_claim"), claimed
	}
	sender, target := netip.AddrFrom4([4]byte(b[14:18])), netip.AddrFrom4([4]byte(b[24:28]))
	if claimed && !p.may(o, sender, wire.MAC(b[8:14])) {
		return drop("neighbour_claim"), true
	}
	if b[6] != 0 || b[7] != 1 {
		return r, false
	}
	n, ok := p.answered(o, frame, target)
	if !ok {
		return r, false
	}
	out := bytes.Clone(frame)
	copy(out, frame[6:12])
	copy(out[6:], n.MAC[:])
	a := out[wire.EthernetLen:]
	a[7] = 2
	copy(a[8:], n.MAC[:])
	copy(a[14:], b[24:28])
	copy(a[18:], b[8:14])
	copy(a[24:], b[14:18])
	return Result{Verdict: Answered, Data: out}, true
}

// answered is who is told of; not the port itself, and not in a network that floods.
func (p *Plan) answered(o Port, frame []byte, target netip.Addr) (Neighbour, bool) {
	n, known := p.Neighbours[NeighbourKey{o.VNI, target}]
	own := slices.ContainsFunc(o.Claims, func(c Claim) bool { return c.IP == target && c.MAC.IsZero() })
	if !p.Networks[o.VNI].Answers || own || !known || n.Ask || wire.MAC(frame[:6]) == n.MAC {
		return n, false
	}
	return n, true
}

func (p *Plan) talkND(o Port, frame []byte) (r Result, ok bool) {
	if len(frame) <= wire.EthernetLen+wire.IPv6Len {
		return r, false
	}
	claimed, ip := o.checked(true), frame[wire.EthernetLen:]
	at, fragment := icmp6At(frame)
	if at == 0 || at >= len(frame) || at > lastExtensionByte {
		return r, false
	}
	kind := frame[at]
	if kind != ndSolicit && kind != ndAdvertise && kind != ndRouterSolicit {
		return r, false
	}
	if kind != ndRouterSolicit && len(frame) < at+24 {
		return drop("neighbour_claim"), claimed
	}
	if claimed && !p.saysWhatIsSo(o, frame, at, fragment) {
		return drop("neighbour_claim"), true
	}
	if kind != ndSolicit || frame[at+1] != 0 || at != wire.EthernetLen+wire.IPv6Len || ip[7] != 255 {
		return r, false
	}
	target := netip.AddrFrom16([16]byte(frame[at+8:]))
	n, ok := p.answered(o, frame, target)
	if !ok {
		return r, false
	}
	f := wire.Flow{SrcMAC: n.MAC, DstMAC: wire.MAC(frame[6:12]), Src: target, Dst: netip.AddrFrom16([16]byte(ip[8:24])), TTL: 255}
	na := wire.Neighbour{Advertisement: true, Router: n.Router, Solicited: true, Override: true, Target: target, MAC: n.MAC}
	if f.Dst.IsUnspecified() {
		f.Dst, f.DstMAC, na.Solicited = netip.MustParseAddr("ff02::1"), wire.MAC{0x33, 0x33, 0, 0, 0, 1}, false
	}
	return Result{Verdict: Answered, Data: na.Frame(f)}, true
}

// saysWhatIsSo: the source's address, or the one advertised, is the port's at the frame's MAC and at those of the options.
func (p *Plan) saysWhatIsSo(o Port, frame []byte, at int, fragment bool) bool {
	said, options := netip.AddrFrom16([16]byte(frame[22:38])), at+24
	switch frame[at] {
	case ndAdvertise:
		said = netip.AddrFrom16([16]byte(frame[at+8:]))
	case ndRouterSolicit:
		options = at + 8
	}
	if fragment || !p.may(o, said, wire.MAC(frame[6:12])) {
		return false
	}
	for range mostNDOptions {
		if len(frame) < options+8 || frame[options+1] == 0 {
			return true
		}
		if k := frame[options]; (k == 1 || k == 2) && !p.may(o, said, wire.MAC(frame[options+2:])) {
			return false
		}
		options += int(frame[options+1]) * 8
	}
	return false
}

// icmp6At is where the ICMPv6 header begins, behind extension headers, and whether that is a first fragment; 0: nowhere.
func icmp6At(frame []byte) (at int, fragment bool) {
	at = wire.EthernetLen + wire.IPv6Len
	next := frame[wire.EthernetLen+6]
	if next == protoTCP || next == protoUDP {
		return 0, false
	}
	for range mostExtensions + 1 {
		if next == protoICMPv6 {
			return at, fragment
		}
		if at > lastExtensionByte || len(frame) < at+2 || next == protoFragment && len(frame) < at+4 {
			return 0, false
		}
		h := frame[at:]
		switch next {
		case protoFragment:
			if h[2] != 0 || h[3]&0xf8 != 0 {
				return 0, false
			}
			fragment = true
			at += 8
		case 0, 43, 60:
			at += 8 + int(h[1])*8
		case 51:
			at += 8 + int(h[1])*4
		default:
			return 0, false
		}
		next = h[0]
	}
	return 0, false
}
