package datapath

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/wire"
)

// into is a tunnel packet for w1 that host b seems to have sent, as a frame on the wire.
func (s *forgeScene) into(edit func(*tunnelOptions)) []byte {
	return s.a.tunnel(s.b, 7, s.inner(s.w1), edit)
}

// outOf is one for w2 that host a seems to have sent.
func (s *forgeScene) outOf(edit func(*tunnelOptions)) []byte {
	return s.b.tunnel(s.a, 7, s.inner(s.w2), edit)
}

// into6 and outOf6 are the same over IPv6.
func (s *forgeScene) into6(edit func(*tunnelOptions)) []byte {
	return s.into(between(addrB6, addrA6, edit))
}
func (s *forgeScene) outOf6(edit func(*tunnelOptions)) []byte {
	return s.outOf(between(addrA6, addrB6, edit))
}

func between(src, dst netip.Addr, edit func(*tunnelOptions)) func(*tunnelOptions) {
	return func(o *tunnelOptions) {
		o.src, o.dst = src, dst
		if edit != nil {
			edit(o)
		}
	}
}

func from(src netip.Addr) func(*tunnelOptions) { return func(o *tunnelOptions) { o.src = src } }

// payload is what follows the outer UDP header.
func payload(frame []byte) []byte {
	if frame[12] == 0x86 {
		return frame[14+wire.IPv6Len+wire.UDPLen:]
	}
	return frame[14+wire.IPv4Len+wire.UDPLen:]
}

// readdress writes other Ethernet addresses.
func readdress(frame []byte, dst, src wire.MAC) []byte {
	b := slices.Clone(frame)
	copy(b, dst[:])
	copy(b[6:], src[:])
	return b
}

// behind puts IPv6 extension headers of 8 octets before the UDP header: the kinds, in order.
func behind(frame []byte, kinds ...byte) []byte {
	b := slices.Clone(frame)
	for _, kind := range slices.Backward(kinds) {
		header := []byte{b[20], 0, 1, 4, 0, 0, 0, 0} // padded with PadN
		switch kind {
		case unix.IPPROTO_FRAGMENT:
			header = []byte{b[20], 0, 0, 0, 0, 0, 0, 7} // atomic
		case unix.IPPROTO_ROUTING:
			header = []byte{b[20], 0, 0, 0, 0, 0, 0, 0} // no segment left
		}
		b[20] = kind
		b = slices.Insert(b, 54, header...)
	}
	binary.BigEndian.PutUint16(b[18:], uint16(len(b)-54))
	return b
}

// pieces cuts an IPv4 packet in two fragments, the first with the UDP header and a little more.
func pieces(frame []byte, id uint16) [2][]byte {
	const first = 24
	head := slices.Clone(frame[:34])
	binary.BigEndian.PutUint16(head[18:], id)
	make := func(data []byte, field uint16) []byte {
		b := slices.Concat(head, data)
		binary.BigEndian.PutUint16(b[16:], uint16(len(b)-14))
		binary.BigEndian.PutUint16(b[20:], field)
		return fixIP(b)
	}
	return [2][]byte{make(frame[34:34+first], 0x2000), make(frame[34+first:], first/8)}
}

// pieces6 does so with an IPv6 packet.
func pieces6(frame []byte, id uint32) [2][]byte {
	const first = 24
	make := func(data []byte, field uint16) []byte {
		b := slices.Clone(frame[:54])
		b[20] = unix.IPPROTO_FRAGMENT
		b = binary.BigEndian.AppendUint16(append(b, unix.IPPROTO_UDP, 0), field)
		b = append(binary.BigEndian.AppendUint32(b, id), data...)
		binary.BigEndian.PutUint16(b[18:], uint16(len(b)-54))
		return b
	}
	return [2][]byte{make(frame[54:54+first], 1), make(frame[54+first:], first)}
}

// shards are the fragments of many packets, in order: two fragments with one identification are of one packet. Among those that are under
// way at once none has another's, for a core that lags behind another mixes what they send.
func shards[ID uint16 | uint32](frame []byte, cut func([]byte, ID) [2][]byte) (rounds [][]byte) {
	for id := ID(0); id < 2*volley; id++ {
		two := cut(frame, id+1)
		rounds = append(rounds, two[0], two[1])
	}
	return rounds
}

// likeFirst are later fragments whose data looks like the beginning of a tunnel packet.
func likeFirst(frame []byte) (rounds [][]byte) {
	for id := range byte(100) {
		b := slices.Clone(frame)
		if b[12] == 0x86 {
			b = behind(frame, unix.IPPROTO_FRAGMENT)
			b[57], b[61] = 0x18, id // 24 octets on
		} else {
			b[19], b[21] = id, 3
			b = fixIP(b)
		}
		rounds = append(rounds, b)
	}
	return rounds
}

// onlyFirst leaves the second fragments out.
func onlyFirst(rounds [][]byte) (list [][]byte) {
	for i := 0; i < len(rounds); i += 2 {
		list = append(list, rounds[i])
	}
	return list
}

// flows varies the outer source port, as real senders do.
func flows(frame []byte) (list [][]byte) {
	at := len(frame) - len(payload(frame)) - wire.UDPLen
	for i := range 64 {
		b := slices.Clone(frame)
		binary.BigEndian.PutUint16(b[at:], uint16(49152+i*97))
		list = append(list, b)
	}
	return list
}

const (
	breakSource  = "check_source returns V_NEXT without a look at the accept table"
	breakOwn     = "check_source does not compare the source with our own address"
	breakMark    = "check_mark does not compare the mark"
	breakGuard   = "to_uplink passes what is_tunnel_packet finds"
	breakVLAN    = "parse_outer4 does not look at vlan_present"
	breakFirst   = "parse_outer4 does not look at IP_MF"
	breakFirst6  = "parse_outer6 passes a fragment"
	breakHeaders = "is_tunnel_packet looks for UDP right behind the IPv6 header alone"
	breakTags    = "is_tunnel_packet does not step over tags"
	breakLater   = "parse_outer4 takes a later fragment for a whole packet"
	breakLater6  = "parse_outer6 does"
	breakAddress = "parse_outer4 takes any destination address"
	breakMAC     = "parse_outer does not look at pkt_type"
)

// fromWire: a machine on the underlay that is no VTEP, or that sends what it may not. It stands where b stands, past b's own guard.
func (s *forgeScene) fromWire() []forgery {
	kind := func(name, red string, reason DropReason, source netip.Addr, rounds ...[]byte) forgery {
		return forgery{name: "wire: " + name, red: red, gun: armFrames(s.t, s.b.ns, "up0", true, rounds...), at: s.a, reason: reason, source: source}
	}
	summed := func(o *tunnelOptions) { o.src, o.checksum = addrRogue4, true }
	options := func(o *tunnelOptions) { o.src, o.options = addrRogue4, true }
	tagged8 := s.a.tunnel(s.b, 8, s.inner(s.w8), nil)
	l, err := s.a.ns.LinkByName("up0")
	must(s.t, err)
	elsewhere := wire.MAC{2, 0xee, 0, 0, 0, 1}
	list := []forgery{
		kind("source", breakSource, DropSourceNotAccepted, addrRogue4, flows(s.into(from(addrRogue4)))...),
		kind("source, IPv6", breakSource, DropSourceNotAccepted, addrRogue6, flows(s.into6(from(addrRogue6)))...),
		kind("source, with a checksum, which is the kernel lane's", breakSource, DropSourceNotAccepted, addrRogue4, s.into(summed)),
		kind("source, behind IPv4 options, which are the kernel lane's", breakSource, DropSourceNotAccepted, addrRogue4, s.into(options)),
		kind("VNI that is not here", breakSource, DropUnknownVNI, addrB4, s.into(func(o *tunnelOptions) { o.vni = 9 })),
		kind("VNI of another tenant", breakSource, DropSourceNotAccepted, addrB4, flows(tagged8)...),
		kind("our own address as the source", breakOwn, DropOwnSource, addrA4, flows(s.into(from(addrA4)))...),
		kind("our own address as the source, IPv6", breakOwn, DropOwnSource, addrA6, flows(s.into6(from(addrA6)))...),
		kind("another address of the host", breakMark, DropUnmarked, addrB4, flows(s.into(func(o *tunnelOptions) { o.dst = addrOther4 }))...),
		kind("the underlay's broadcast address", breakMark, DropUnmarked, addrB4, s.into(func(o *tunnelOptions) { o.dst = netip.MustParseAddr("10.99.0.255") })),
		kind("the address of another host, which this one forwards", breakGuard, DropForgedTunnel, addrRogue4, readdress(s.outOf(from(addrRogue4)), l.MAC, wire.MAC{2, 0xbb})),
		kind("behind destination options", breakMark, DropUnmarked, addrB6, behind(s.into6(nil), unix.IPPROTO_DSTOPTS)),
		kind("atomic fragments", breakFirst6, DropOuterFragment, addrB6, behind(s.into6(nil), unix.IPPROTO_FRAGMENT)),
		kind("VLAN tag", breakVLAN, DropOuterVLAN, addrB4, tag(s.into(nil), 0x8100), tag(s.into(nil), 0x88a8)),
		kind("VLAN tag, IPv6", breakVLAN, DropOuterVLAN, addrB6, tag(s.into6(nil), 0x8100), tag(s.into6(nil), 0x88a8)),
		kind("first fragments", breakFirst, DropOuterFragment, addrB4, onlyFirst(shards(s.into(nil), pieces))...),
		kind("first fragments, IPv6", breakFirst6, DropOuterFragment, addrB6, onlyFirst(shards(s.into6(nil), pieces6))...),
	}
	stopped := func(name, red, counter string, rounds ...[]byte) {
		list = append(list, forgery{name: "wire: " + name, red: red, kernel: counter, at: s.a, gun: armFrames(s.t, s.b.ns, "up0", true, rounds...)})
	}
	stopped("later fragments that look like the first", breakLater, "Ip ReasmReqds", likeFirst(s.into(nil))...)
	stopped("later fragments that look like the first, IPv6", breakLater6, "Ip6ReasmReqds", likeFirst(s.into6(nil))...)
	stopped("an address that nobody has", breakAddress, "IpExt InNoRoutes", s.into(func(o *tunnelOptions) { o.dst = netip.MustParseAddr("198.51.100.7") }))
	stopped("an Ethernet address that is not ours", breakMAC, "up0 rx_otherhost_dropped", readdress(s.into(nil), elsewhere, wire.MAC{2, 0xbb}))
	return list
}

// overLoopback: whoever is on host a and sends to its own tunnel port.
func (s *forgeScene) overLoopback() []forgery {
	data := payload(s.into(nil))
	local4, local6 := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")
	kind := func(name string, source netip.Addr, each int, g *gun) forgery {
		return forgery{name: "loopback: " + name, red: breakMark, gun: g, at: s.a, reason: DropUnmarked, source: source, each: each}
	}
	to := func(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, 4789) }
	// Of IPv6 any user may write any source address.
	freebound := func(fd int) error {
		if err := unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_FREEBIND, 1); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrInet6{Addr: addrB6.As16()})
	}
	var whole, whole6 [][]byte
	for _, f := range flows(s.into(nil)) {
		whole = append(whole, f[14:])
	}
	for _, f := range flows(s.into6(nil)) {
		whole6 = append(whole6, f[14:])
	}
	return []forgery{
		kind("127.0.0.1", local4, 1, armNobody(s.t, s.a.ns, to(local4), nil, data)),
		kind("::1", local6, 1, armNobody(s.t, s.a.ns, to(local6), nil, data)),
		kind("the host's VTEP address", addrA4, 1, armNobody(s.t, s.a.ns, to(addrA4), nil, data)),
		kind("the host's VTEP address, IPv6", addrA6, 1, armNobody(s.t, s.a.ns, to(addrA6), nil, data)),
		kind("a VTEP's address as the source, by IPV6_FREEBIND", addrB6, 1, armNobody(s.t, s.a.ns, to(addrA6), freebound, data)),
		kind("a datagram in two parts", local4, 1, armNobody(s.t, s.a.ns, to(local4), nil, data).inHalves()),
		kind("ten datagrams in one (UDP_SEGMENT)", local4, 10, armNobody(s.t, s.a.ns, to(local4), segments(len(data)), slices.Repeat(data, 10))),
		kind("a VTEP's address as the source", addrB4, 1, armPackets(s.t, s.a.ns, addrA4, nil, whole...)),
		kind("a VTEP's address as the source, IPv6", addrB6, 1, armPackets(s.t, s.a.ns, addrA6, nil, whole6...)),
		kind("a VTEP's address as the source, and a mark that was guessed", addrB4, 1, armPackets(s.t, s.a.ns, addrA4, s.marked(2), whole...)),
		kind("a VTEP's address as the source, and the mark itself", addrB4, 1, armPackets(s.t, s.a.ns, addrA4, s.marked(0), whole...)),
		kind("a VTEP's address as the source, and the mark itself, IPv6", addrB6, 1, armPackets(s.t, s.a.ns, addrA6, s.marked(0), whole6...)),
		kind("frames on lo", addrB4, 1, armFrames(s.t, s.a.ns, "lo", true, readdress(s.into(nil), wire.MAC{}, wire.MAC{}))),
	}
}

func (g *gun) inHalves() *gun { g.halves = true; return g }

// marked writes host a's mark on what a socket sends, or one that differs by some bits.
func (s *forgeScene) marked(but uint32) func(int) error {
	return func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(s.a.dp.local.Mark^but))
	}
}

func segments(octets int) func(int) error {
	return func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT, octets) }
}

// fromUser: a process on host a, of a user without any privilege, that sends to another host's tunnel port.
func (s *forgeScene) fromUser() []forgery {
	data := payload(s.outOf(nil))
	kind := func(name string, to netip.Addr, g *gun) forgery {
		source := addrA4
		if to.Is6() {
			source = addrA6
		}
		return forgery{name: "user: " + name, red: breakGuard, gun: g, at: s.a, reason: DropForgedTunnel, source: source}
	}
	to4, to6 := netip.AddrPortFrom(addrB4, 4789), netip.AddrPortFrom(addrB6, 4789)
	fragmenting := func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)
	}
	bound := func(port int) func(int) error {
		return func(fd int) error { return unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: addrA4.As4()}) }
	}
	return []forgery{
		kind("a datagram", addrB4, armNobody(s.t, s.a.ns, to4, nil, data)),
		kind("a datagram, IPv6", addrB6, armNobody(s.t, s.a.ns, to6, nil, data)),
		kind("a datagram from a source port of the tunnel's range", addrB4, armNobody(s.t, s.a.ns, to4, bound(50000), data)),
		kind("a datagram in two parts", addrB4, armNobody(s.t, s.a.ns, to4, nil, data).inHalves()),
		// Guarded before they are cut: ten datagrams are one packet here.
		kind("ten datagrams in one (UDP_SEGMENT)", addrB4, armNobody(s.t, s.a.ns, to4, segments(len(data)), slices.Repeat(data, 10))),
		// Without its first fragment a packet is nothing: the rest is not counted.
		kind("fragments", addrB4, armNobody(s.t, s.a.ns, to4, fragmenting, append(slices.Clone(data), make([]byte, 3000)...))),
	}
}

// fromContainer: root of another network namespace that host a routes for.
func (s *forgeScene) fromContainer() []forgery {
	guest := func(f []byte) []byte { return readdress(f, s.near.MAC, s.far.MAC) }
	kind := func(name, red string, reason DropReason, source netip.Addr, rounds ...[]byte) forgery {
		for i := range rounds {
			rounds[i] = guest(rounds[i])
		}
		return forgery{name: "container: " + name, red: red, gun: armFrames(s.t, s.container, "eth0", true, rounds...), at: s.a, reason: reason, source: source}
	}
	toHost := []forgery{
		kind("to its host, with a VTEP's address as the source", breakMark, DropUnmarked, addrB4, flows(s.into(nil))...),
		kind("to its host, with a VTEP's address as the source, IPv6", breakMark, DropUnmarked, addrB6, flows(s.into6(nil))...),
		kind("to its host, as itself", breakMark, DropUnmarked, addrC4, flows(s.into(from(addrC4)))...),
		kind("to its host, behind destination options", breakMark, DropUnmarked, addrB6, behind(s.into6(nil), unix.IPPROTO_DSTOPTS)),
		{name: "container: to its host, with the mark itself", red: breakMark, at: s.a, reason: DropUnmarked, source: addrB4,
			gun: armPackets(s.t, s.container, addrA4, s.marked(0), s.into(nil)[14:])},
	}
	// Bridged into the underlay (macvlan), it has the uplink's queueing discipline before it.
	mac0, err := s.container.LinkByName("mac0")
	must(s.t, err)
	up, err := s.b.ns.LinkByName("up0")
	must(s.t, err)
	bridged := func(name string, options func(int) error) forgery {
		g := armFrames(s.t, s.container, "mac0", true, flows(readdress(s.outOf(nil), up.MAC, mac0.MAC))...)
		if options != nil {
			must(s.t, options(g.fd))
		}
		return forgery{name: "container: by a macvlan on the uplink" + name, red: breakGuard, at: s.a, reason: DropForgedTunnel, source: addrA4, gun: g}
	}
	toHost = append(toHost, bridged("", nil), bridged(", with the mark itself", s.marked(0)))
	for _, f := range []forgery{
		kind("to its host, in fragments", breakMark, DropUnmarked, addrB4, shards(s.into(nil), pieces)...),
		kind("to its host, in fragments, IPv6", breakMark, DropUnmarked, addrB6, shards(s.into6(nil), pieces6)...),
	} {
		f.gun.pairs = true
		toHost = append(toHost, f)
	}
	return append(toHost,
		kind("through its host", breakGuard, DropForgedTunnel, addrC4, flows(s.outOf(from(addrC4)))...),
		kind("through its host, with the host's own address as the source", breakGuard, DropForgedTunnel, addrA4, flows(s.outOf(nil))...),
		kind("through its host, IPv6", breakGuard, DropForgedTunnel, addrC6, flows(s.outOf6(from(addrC6)))...),
		kind("through its host, first fragments", breakGuard, DropForgedTunnel, addrC4, onlyFirst(shards(s.outOf(from(addrC4)), pieces))...),
		kind("through its host, behind extension headers", breakHeaders, DropForgedTunnel, addrC6,
			behind(s.outOf6(from(addrC6)), unix.IPPROTO_DSTOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_FRAGMENT)),
		kind("through its host, to what is no VTEP", breakGuard, DropForgedTunnel, addrC4, s.outOf(between(addrC4, addrNoVTEP4, nil))),
		forgery{name: "container: through its host, with the mark itself", red: breakGuard, at: s.a, reason: DropForgedTunnel, source: addrC4,
			gun: armPackets(s.t, s.container, addrB4, s.marked(0), s.outOf(from(addrC4))[14:])},
	)
}

// fromRoot: whoever may open raw sockets in host a's own namespace, by ways that lead past the guard.
func (s *forgeScene) fromRoot() []forgery {
	kind := func(name, red string, source netip.Addr, rounds ...[]byte) forgery {
		return forgery{name: "root: " + name, red: red, gun: armFrames(s.t, s.a.ns, "up0", false, rounds...), at: s.a, reason: DropForgedTunnel, source: source}
	}
	nine := slices.Repeat([]byte{unix.IPPROTO_DSTOPTS}, 9)
	marked := func(name, red string, but uint32) forgery {
		return forgery{name: "root: " + name, red: red, at: s.a, reason: DropForgedTunnel, source: addrA4,
			gun: armPackets(s.t, s.a.ns, addrB4, s.marked(but), s.outOf(nil)[14:])}
	}
	return []forgery{
		kind("frames", breakGuard, addrA4, flows(s.outOf(nil))...),
		kind("frames, IPv6", breakGuard, addrA6, flows(s.outOf6(nil))...),
		kind("frames with tags", breakTags, addrA4, tag(s.outOf(nil), 0x8100), tag(s.outOf(nil), 0x88a8, 0x8100)),
		kind("behind extension headers", breakHeaders, addrA6, behind(s.outOf6(nil), unix.IPPROTO_HOPOPTS, unix.IPPROTO_DSTOPTS)),
		kind("behind more extension headers than anybody needs", breakHeaders, addrA6, behind(s.outOf6(nil), nine...)),
		marked("a mark that was guessed", "unseal_out takes every mark that is not zero", 2),
		marked("the mark itself", "unseal_out does not compare tc_index", 0),
		marked("the mark itself, as for CE", "unseal_out does not compare tc_index", 1),
	}
}
