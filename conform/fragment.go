package conform

import "encoding/binary"

// fragmentCases: a VTEP never fragments, and a fragment never gets in, not even put together again.
func fragmentCases() []Case {
	f := frame(mac1, macA, 60)
	return []Case{
		simple("7", "a first fragment: dropped", func(b *bed) trial { return refused(b.in(f, func(p *tunnel) { p.more = true }), "outer_fragment") }),
		simple("7", "a later fragment: not delivered", func(b *bed) trial { return ignored(b.in(f, func(p *tunnel) { p.offset = 1480 })) }),
		simple("7", "both fragments of a packet: not delivered", func(b *bed) trial {
			first, later := b.halves()
			return trial{fromPeer: [][]byte{first, later}, foreign: 1, drops: map[string]uint64{"outer_fragment": 1}}
		}),
		simple("7", "both fragments, the later one first: not delivered", func(b *bed) trial {
			first, later := b.halves()
			return trial{fromPeer: [][]byte{later, first}, foreign: 1, drops: map[string]uint64{"outer_fragment": 1}}
		}),
	}
}

// halves are the two fragments of a right packet.
func (b *bed) halves() (first, later []byte) {
	whole := b.in(frame(mac1, macA, 60))
	u := udpAt(whole)
	udp, split := whole[u:], 48
	if b.row.Underlay == IPv4 {
		build := func(flags uint16, data []byte) []byte {
			p := append(append([]byte{}, whole[:u]...), data...)
			binary.BigEndian.PutUint16(p[16:], uint16(len(p)-14))
			binary.BigEndian.PutUint16(p[18:], 4242)
			binary.BigEndian.PutUint16(p[20:], flags)
			return fixIPv4(p)
		}
		return build(0x2000, udp[:split]), build(uint16(split/8), udp[split:])
	}
	build := func(flags uint16, data []byte) []byte {
		p := append([]byte{}, whole[:u]...)
		p[20] = 44
		p = append(p, 17, 0, byte(flags>>8), byte(flags), 0, 0, 0x10, 0x92)
		p = append(p, data...)
		binary.BigEndian.PutUint16(p[18:], uint16(len(p)-54))
		return p
	}
	return build(1, udp[:split]), build(uint16(split), udp[split:])
}
