package datapath

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/weftnet/weft/datapath/oracle"
	"github.com/weftnet/weft/wire"
)

// packet makes one for a plan: something sensible, then with luck something else.
func (d *duel) packet(p *oracle.Plan) shot {
	r := d.rng
	w := d.ports[r.IntN(4)]
	if r.IntN(2) == 0 {
		src := w.mac
		if r.IntN(10) == 0 {
			src = d.someMAC()
		}
		return shot{"from_port", w.ifindex, d.segments(d.mutate(d.inner(src), 14), 0)}
	}
	at := 0
	outer := d.outer(p, &at)
	b := d.twist(d.mutate(append(outer, d.mutate(d.inner(d.someMAC()), 0)...), at), at)
	return shot{"from_uplink", d.host, d.segments(b, at+16)}
}

func (d *duel) someMAC() wire.MAC {
	r := d.rng
	switch r.IntN(24) {
	case 0:
		return wire.BroadcastMAC
	case 1:
		return wire.MAC{1, 0, 0x5e, 0, 0, byte(r.IntN(256))}
	case 2:
		return wire.MAC{1, 0x80, 0xc2, 0, 0, byte(r.IntN(20))}
	case 3:
		return wire.MAC{}
	case 4:
		return ReservedMAC
	case 5:
		return wire.MAC{2, 0, 0, 0, byte(r.IntN(3)), byte(r.IntN(256))}
	}
	return d.macOf(r.IntN(16))
}

// talkAddr is an address of plans and packets.
func talkAddr(i int, ip6 bool) netip.Addr {
	if ip6 {
		return netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(i)})
	}
	return netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
}

// talk is ARP or neighbour discovery, often true.
func (d *duel) talk(src wire.MAC) []byte {
	r := d.rng
	ip6 := r.IntN(2) == 0
	own := int(src[5]) // a port's first MAC ends as its address does
	if r.IntN(3) == 0 {
		own = r.IntN(8)
	}
	from, target, mac := talkAddr(own, ip6), talkAddr(r.IntN(8), ip6), src
	switch r.IntN(8) {
	case 0:
		from = map[bool]netip.Addr{false: netip.IPv4Unspecified(), true: netip.IPv6Unspecified()}[ip6]
	case 1:
		mac = d.someMAC()
	case 2:
		if ip6 {
			from = netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: byte(r.IntN(2)), 11: 0xff, 12: 0xfe, 15: byte(r.IntN(8))})
		}
	}
	if !ip6 {
		a := wire.ARP{Op: wire.ARPOp(1 + r.IntN(2)), SenderMAC: mac, SenderIP: from, TargetIP: target}
		h := wire.Ethernet{Dst: wire.BroadcastMAC, Src: src, Type: wire.TypeARP}
		if r.IntN(4) == 0 {
			h.Dst = d.someMAC()
		}
		return a.Append(h.Append(nil))
	}
	n := wire.Neighbour{Advertisement: r.IntN(3) == 0, Override: true, Target: target, MAC: mac}
	if r.IntN(4) == 0 {
		n.MAC = wire.MAC{}
	}
	f := wire.Flow{SrcMAC: src, DstMAC: wire.MAC{0x33, 0x33, 0xff, 0, 0, 1}, Src: from, Dst: wire.SolicitedNode(target), TTL: 255}
	if n.Advertisement {
		n.Target = from
	}
	if r.IntN(4) == 0 {
		f.DstMAC = d.someMAC()
	}
	b := n.Frame(f)
	if r.IntN(6) == 0 && len(b) > 54 { // behind an extension header
		b[20] = []byte{0, 60, 44, 43}[r.IntN(4)]
		b = slices.Insert(b, 54, 58, 0, 0, 0, 0, 0, 0, 0)
	}
	return b
}

// inner is a workload's frame.
func (d *duel) inner(src wire.MAC) []byte {
	r := d.rng
	if r.IntN(6) == 0 {
		return d.talk(src)
	}
	dst := d.someMAC()
	if r.IntN(6) == 0 {
		dst = wire.BroadcastMAC
	}
	payload := make([]byte, []int{0, 1, 18, 100, 522, 523, 1400}[r.IntN(7)])
	for i := range payload {
		payload[i] = byte(r.Uint32())
	}
	addr4 := func() netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(8))}) }
	addr6 := func() netip.Addr { return netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(r.IntN(8))}) }
	f := wire.Flow{SrcMAC: src, DstMAC: dst, Src: addr4(), Dst: addr4(), TOS: uint8(r.IntN(2) * r.IntN(256)), TTL: uint8(r.IntN(256)), DF: r.IntN(2) == 0}
	if r.IntN(2) == 0 {
		f.Src, f.Dst = addr6(), addr6()
	}
	switch r.IntN(8) {
	case 0, 1:
		return raw(dst, src, []uint16{0x0806, 46, 0x88b5, 0x8847, 0x8100, 0x88a8, 0x9100}[r.IntN(5+2*r.IntN(2))], len(payload)+28)
	case 2:
		if r.IntN(3) > 0 {
			break
		}
		f.VLANs = []wire.VLAN{{ID: uint16(r.IntN(4096))}}
		if r.IntN(2) == 0 {
			f.VLANs = append(f.VLANs, wire.VLAN{ID: 7})
		}
		return f.UDP(uint16(r.IntN(4)), 53, payload)
	case 5:
		return d.service(f, payload)
	case 3, 4:
		return f.TCP(wire.TCP{Src: uint16(r.IntN(4)), Dst: 80}, payload)
	}
	return f.UDP(uint16(r.IntN(4)), 53, payload)
}

// service is what an agent answers, or may not be sent: DHCP, router discovery and ARP for the server, behind extension headers at times.
func (d *duel) service(f wire.Flow, payload []byte) []byte {
	r := d.rng
	ports := [][2]uint16{{68, 67}, {67, 68}, {67, 67}, {5, 67}, {5, 68}, {546, 547}, {547, 546}, {547, 547}, {5, 547}, {5, 546}}[r.IntN(10)]
	if r.IntN(6) == 0 {
		return wire.ARP{Op: wire.ARPOp(1 + r.IntN(2)), SenderMAC: f.SrcMAC, SenderIP: f.Src, TargetIP: wire.DHCPServer4}.Frame()
	}
	b := f.UDP(ports[0], ports[1], payload)
	if f.Src.Is4() {
		if r.IntN(4) == 0 { // options
			b[14]++
			b = slices.Insert(b, 34, 1, 1, 1, 1)
		}
		if r.IntN(4) == 0 {
			b[20], b[21] = byte(r.IntN(2))<<5, byte(r.IntN(2))
		}
		return b
	}
	if r.IntN(2) == 0 {
		b[20], b[54] = 58, byte(133+r.IntN(6))
	}
	for range r.IntN(3) * r.IntN(6) {
		header := make([]byte, 8*(1+r.IntN(2)))
		header[0], header[1] = b[20], byte(len(header)/8-1)
		switch b[20] = []byte{0, 43, 60, 44, 51, 135, 139, 140, 50, 59}[r.IntN(10)]; b[20] {
		case 44:
			header = header[:8]
			header[1], header[3] = 0, byte(r.IntN(2))|byte(r.IntN(6)/5*8)
		case 51:
			header[1] = byte(len(header)/4 - 2)
		}
		b = slices.Insert(b, 54, header...)
	}
	if r.IntN(4) == 0 {
		b = b[:54+r.IntN(len(b)-53)]
	}
	return b
}

// outer is what stands before an inner frame; mutate puts the lengths in.
func (d *duel) outer(p *oracle.Plan, at *int) []byte {
	r := d.rng
	src, dst := duelAddrs[r.IntN(len(duelAddrs))], p.Addr4
	vni := duelVNIs[[]int{0, 1, 1, 1, 2, 3}[r.IntN(6)]]
	for range 3 { // most of the time from where it may come
		if !p.Accepts[oracle.Accept{VNI: vni, Addr: src}] || src.Is6() && !p.Addr6.IsValid() || src.Is4() && !p.Addr4.IsValid() {
			src = duelAddrs[r.IntN(len(duelAddrs))]
		}
	}
	if r.IntN(12) == 0 {
		src = []netip.Addr{duelOwn4, duelOwn6}[r.IntN(2)]
	}
	if src.Is6() {
		dst = p.Addr6
	}
	if !dst.IsValid() || r.IntN(20) == 0 {
		dst = map[bool]netip.Addr{false: duelOwn4, true: duelOwn6}[src.Is6()]
	}
	port := uint16(4789)
	if r.IntN(30) == 0 {
		port = uint16(4788 + r.IntN(3))
	}
	mac := d.mac
	if r.IntN(30) == 0 {
		mac = wire.BroadcastMAC
	}
	if r.IntN(5) == 0 { // to a group, by its own Ethernet address most of the time
		dst = duelGroups[r.IntN(2)+2*map[bool]int{false: 0, true: 1}[src.Is6()]]
		switch mac = groupMAC(dst); r.IntN(20) {
		case 0:
			mac = d.mac
		case 1:
			mac[2+r.IntN(4)] ^= 1 << r.IntN(8)
		case 2:
			mac = wire.BroadcastMAC
		case 3:
			dst = map[bool]netip.Addr{false: duelOwn4, true: duelOwn6}[src.Is6()]
		}
	}
	vxlan := []byte{8, 0, 0, 0, 0, 0, 0, 0}
	if r.IntN(3) == 0 {
		binary.BigEndian.PutUint64(vxlan, r.Uint64())
		vxlan[0] |= byte(8 * (1 - r.IntN(8)/7))
	}
	vxlan[4], vxlan[5], vxlan[6] = byte(vni>>16), byte(vni>>8), byte(vni)
	b := wire.Flow{SrcMAC: wire.MAC{2, 0xbb}, DstMAC: mac, Src: src, Dst: dst, TOS: uint8(r.IntN(2) * r.IntN(256)), TTL: []uint8{1, 2, 63, 64, 255}[r.IntN(5)]}.UDP(uint16(r.IntN(65536)), port, vxlan)
	*at = len(b) - 16
	if keep := r.IntN(8); keep > 0 && !d.kernel || keep > 5 {
		b[*at+6], b[*at+7] = 0, 0
	}
	return b
}

// mutate changes octets, cuts and pads. at is where the outer UDP header is, if there is one.
func (d *duel) mutate(b []byte, at int) []byte {
	r := d.rng
	padding := 0
	if r.IntN(3) == 0 {
		for range 1 + r.IntN(2) {
			switch i := r.IntN(max(1, min(len(b), 90))); r.IntN(6) {
			case 0, 1, 2:
				if len(b) > 0 {
					b[i] ^= 1 << r.IntN(8)
				}
			case 3:
				if len(b) > 0 {
					b[i] = byte(r.Uint32())
				}
			case 4:
				b = b[:r.IntN(len(b)+1)]
			case 5:
				padding = r.IntN(10)
			}
		}
	}
	// The outer lengths are right again, most of the time.
	if at > 14 && len(b) >= at+8 && r.IntN(12) > 0 {
		binary.BigEndian.PutUint16(b[at+4:], uint16(len(b)-at))
		if at == 34 {
			binary.BigEndian.PutUint16(b[16:], uint16(len(b)-14))
			b[24], b[25] = 0, 0
			binary.BigEndian.PutUint16(b[24:], ^sum16(b[14:34]))
		} else {
			binary.BigEndian.PutUint16(b[18:], uint16(len(b)-at))
		}
	}
	if at > 14 && len(b) >= at+16 && b[at+6]|b[at+7] != 0 && r.IntN(4) > 0 {
		b[at+6], b[at+7] = 0, 0
		src, dst := netip.AddrFrom4([4]byte(b[26:30])), netip.AddrFrom4([4]byte(b[30:34]))
		if at == 54 {
			src, dst = netip.AddrFrom16([16]byte(b[22:38])), netip.AddrFrom16([16]byte(b[38:54]))
		}
		binary.BigEndian.PutUint16(b[at+6:], wire.TransportChecksum(src, dst, wire.ProtoUDP, b[at:]))
	}
	return append(b, make([]byte, padding)...)
}

// twist breaks or bends the outer headers in one way that random octets seldom find, and leaves the rest right.
func (d *duel) twist(b []byte, at int) []byte {
	r := d.rng
	if len(b) < at+8 || r.IntN(5) > 0 {
		return b
	}
	off := []int{-1, 1, -8, 8, -14, 100, r.IntN(65536)}[r.IntN(7)]
	if r.IntN(3) == 0 {
		binary.BigEndian.PutUint16(b[at+4:], binary.BigEndian.Uint16(b[at+4:])+uint16(off))
		return b
	}
	if at == 54 {
		switch r.IntN(3) {
		case 0:
			binary.BigEndian.PutUint16(b[18:], binary.BigEndian.Uint16(b[18:])+uint16(off))
		default: // a fragment header: first, atomic or later
			header := []byte{17, 0, 0, byte(r.IntN(2)) | byte(r.IntN(4)/3*8), 0, 0, 0, 1}
			b[20] = 44
			b = slices.Insert(b, 54, header...)
			binary.BigEndian.PutUint16(b[18:], uint16(len(b)-54))
		}
		return b
	}
	switch r.IntN(6) {
	case 0:
		b[20] |= 0x20 // more fragments
	case 1:
		b[21] = byte(r.IntN(3))
	case 2:
		binary.BigEndian.PutUint16(b[16:], binary.BigEndian.Uint16(b[16:])+uint16(off))
	case 3:
		b[14] = byte(r.Uint32())
	default: // options
		n := 1 + r.IntN(10)
		b[14] = 0x45 + byte(n)
		b = slices.Insert(b, 34, bytes.Repeat([]byte{1}, 4*n)...)
		binary.BigEndian.PutUint16(b[16:], uint16(len(b)-14))
	}
	if end := 14 + int(b[14]&15)*4; end >= 34 && end <= len(b) {
		b[24], b[25] = 0, 0
		binary.BigEndian.PutUint16(b[24:], ^sum16(b[14:end]))
	}
	return b
}

// segments makes an aggregate of some long TCP and UDP packets; inner is where the workload's frame begins. The kernel has no others.
func (d *duel) segments(b []byte, inner int) oracle.Packet {
	p := oracle.Packet{Data: b}
	if len(b) < inner+1200 || d.rng.IntN(3) > 0 {
		return p
	}
	f, err := wire.ParseFrame(b[inner:])
	if err == nil && (f.Layers.Has(wire.LayerTCP) || f.Layers.Has(wire.LayerUDP)) && len(f.VLANs) == 0 {
		p.SegmentSize = 400 + d.rng.IntN(200)
	}
	return p
}
