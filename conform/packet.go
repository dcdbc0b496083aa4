package conform

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/weftnet/weft/wire"
)

// tunnel is a packet of the peer, field by field, so that each can be wrong.
type tunnel struct {
	dstMAC, srcMAC wire.MAC
	src, dst       netip.Addr
	vni            wire.VNI
	flags          byte
	reserved       [4]byte
	l4src, l4dst   uint16
	checksum       bool
	tos, ttl       uint8
	options        []byte
	offset         uint16
	more           bool
	extension      bool // IPv6: an empty destination options header
	inner          []byte
}

// octets builds it. Lengths and checksums are right.
func (p tunnel) octets() []byte {
	v := []byte{p.flags, p.reserved[0], p.reserved[1], p.reserved[2], byte(p.vni >> 16), byte(p.vni >> 8), byte(p.vni), p.reserved[3]}
	udp := make([]byte, 0, 16+len(p.inner))
	udp = binary.BigEndian.AppendUint16(udp, p.l4src)
	udp = binary.BigEndian.AppendUint16(udp, p.l4dst)
	udp = binary.BigEndian.AppendUint16(udp, uint16(16+len(p.inner)))
	udp = append(append(append(udp, 0, 0), v...), p.inner...)
	if p.checksum {
		fixUDP(udp, p.src, p.dst)
	}
	b := append(append([]byte{}, p.dstMAC[:]...), p.srcMAC[:]...)
	if p.src.Is4() {
		b = append(b, 8, 0)
		return wire.IPv4{TOS: p.tos, TTL: p.ttl, Protocol: wire.ProtoUDP, Src: p.src, Dst: p.dst, Options: p.options, MF: p.more,
			FragmentOffset: p.offset, ID: 77}.Append(b, udp)
	}
	b = append(b, 0x86, 0xdd)
	h := wire.IPv6{TrafficClass: p.tos, HopLimit: p.ttl, Protocol: wire.ProtoUDP, Src: p.src, Dst: p.dst}
	if p.more || p.offset != 0 {
		h.Fragment = &wire.Fragment{Offset: p.offset, More: p.more, ID: 77}
	}
	if !p.extension {
		return h.Append(b, udp)
	}
	h.Protocol = 60
	return h.Append(b, append([]byte{17, 0, 1, 4, 0, 0, 0, 0}, udp...))
}

// fixUDP writes the right checksum.
func fixUDP(udp []byte, src, dst netip.Addr) {
	udp[6], udp[7] = 0, 0
	sum := wire.TransportChecksum(src, dst, wire.ProtoUDP, udp)
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(udp[6:], sum)
}

// fixIPv4 writes the right header checksum into a frame without options.
func fixIPv4(frame []byte) []byte {
	frame[24], frame[25] = 0, 0
	binary.BigEndian.PutUint16(frame[24:], wire.Checksum(frame[14:34]))
	return frame
}

// udpAt is where the UDP header of a plain tunnel packet begins.
func udpAt(frame []byte) int {
	if frame[12] == 0x86 {
		return 14 + wire.IPv6Len
	}
	return 14 + wire.IPv4Len
}

// sent is what a packet on the underlay must be.
type sent struct {
	to netip.Addr
	// from is the outer source; invalid is this host's VTEP address of the same IP version.
	from netip.Addr
	// via is the Ethernet address; zero is the peer's.
	via   wire.MAC
	l4dst uint16 // 0: 4789
	vni   wire.VNI
	tos   uint8 // the outer ToS octet or traffic class
	ttl   uint8 // the outer TTL or hop limit; 0: 64
	// checksum: it must be there, and right; else it must be zero.
	checksum bool
	inner    []byte
}

// verify holds a packet against every rule for what is sent, and returns its headers.
func (w sent) verify(b []byte, ownMAC wire.MAC) (f wire.Frame, err error) {
	if f, err = wire.ParseFrame(b); err != nil {
		return f, fmt.Errorf("it does not parse: %w: %x", err, b)
	}
	bad := func(rule, what string, got any) error { return fmt.Errorf("rule %s: %s is %v: %x", rule, what, got, b) }
	udp := b[udpAt(b):]
	l4dst := w.l4dst
	if l4dst == 0 {
		l4dst = 4789
	}
	switch {
	case len(f.VLANs) > 0:
		return f, bad("18", "an unconfigured outer tag", f.VLANs)
	case f.Dst != w.via:
		return f, bad("18", "the outer destination MAC, which must be the next hop's,", f.Dst)
	case f.Src != ownMAC:
		return f, bad("18", "the outer source MAC", f.Src)
	case !f.Layers.Has(wire.LayerUDP):
		return f, bad("19", "the packet, which must be UDP,", f.Layers)
	case w.to.Is4() != f.Layers.Has(wire.LayerIPv4):
		return f, bad("19", "the IP version", f.Layers)
	case len(b)-len(udp)+16+len(w.inner) != len(b):
		return f, bad("19", "the length (a frame check sequence or padding carried?)", len(b))
	case f.UDP.Dst != l4dst:
		return f, bad("12", "the UDP port", f.UDP.Dst)
	case f.UDP.Src < wire.MinSourcePort:
		return f, bad("13", "the UDP source port", f.UDP.Src)
	case int(f.UDP.Length) != len(udp):
		return f, bad("5", "the UDP length", f.UDP.Length)
	case udp[8] != 8:
		return f, bad("9", "the flags", udp[8])
	case udp[9]|udp[10]|udp[11]|udp[15] != 0:
		return f, bad("10", "a reserved field", udp[8:16])
	case wire.VNI(udp[12])<<16|wire.VNI(udp[13])<<8|wire.VNI(udp[14]) != w.vni:
		return f, bad("11", "the VNI", udp[12:15])
	case !w.checksum && f.UDP.Checksum != 0:
		return f, bad("14", "the UDP checksum", f.UDP.Checksum)
	case !bytes.Equal(udp[16:], w.inner):
		return f, bad("1", "the inner frame", udp[16:])
	}
	src, dst, err := w.verifyIP(f, b)
	switch {
	case err != nil:
		return f, err
	case src != w.from || dst != w.to:
		return f, bad("18", "the packet's way", fmt.Sprint(src, " -> ", dst))
	case w.checksum && (f.UDP.Checksum == 0 || !wire.UDPChecksumOK(src, dst, udp)):
		return f, bad("16", "the UDP checksum", f.UDP.Checksum)
	}
	return f, nil
}

// verifyIP checks the outer IP header.
func (w sent) verifyIP(f wire.Frame, b []byte) (src, dst netip.Addr, err error) {
	var ttl, tos uint8
	whole := false // not a fragment, no options, the right lengths and checksum
	if ip := f.IPv4; f.Has(wire.LayerIPv4) {
		src, dst, ttl, tos = ip.Src, ip.Dst, ip.TTL, ip.TOS
		whole = ip.DF && !ip.IsFragment() && len(ip.Options) == 0 && int(ip.TotalLen) == len(b)-14 && wire.IPv4ChecksumOK(b[14:])
	} else {
		ip := f.IPv6
		src, dst, ttl, tos = ip.Src, ip.Dst, ip.HopLimit, ip.TrafficClass
		whole = len(ip.Extensions) == 0 && int(ip.PayloadLen) == len(b)-54
	}
	switch {
	case !whole:
		err = fmt.Errorf("rule 6: the outer header is not a whole packet's, with DF: %x", b)
	case ttl != cmp.Or(w.ttl, 64):
		err = fmt.Errorf("rule TTL: the outer TTL is %d: %x", ttl, b)
	case tos != w.tos:
		err = fmt.Errorf("rule ECN, DSCP: the outer ToS octet or traffic class is %#x, want %#x: %x", tos, w.tos, b)
	}
	return src, dst, err
}
