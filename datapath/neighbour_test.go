package datapath

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/wire"
)

// arpFrame is an ARP packet in Ethernet, as another implementation writes it.
func arpFrame(t testing.TB, dst, src wire.MAC, op uint16, sender wire.MAC, from netip.Addr, target wire.MAC, to netip.Addr) []byte {
	t.Helper()
	return serialize(t, &layers.Ethernet{DstMAC: hw(dst), SrcMAC: hw(src), EthernetType: layers.EthernetTypeARP},
		&layers.ARP{AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: op,
			SourceHwAddress: hw(sender), SourceProtAddress: from.AsSlice(), DstHwAddress: hw(target), DstProtAddress: to.AsSlice()})
}

// arpAsk is w1's question for an address.
func arpAsk(to string, edit ...func([]byte) []byte) func(*scene) []byte {
	return func(s *scene) []byte {
		b := arpFrame(s.a.t, macAll, s.w1.mac, 1, s.w1.mac, s.w1.ip4, wire.MAC{}, netip.MustParseAddr(to))
		for _, e := range edit {
			b = e(b)
		}
		return b
	}
}

// ndFrame is a message of neighbour discovery. lladdr zero: without the option.
type ndFrame struct {
	dst, src   wire.MAC
	kind       uint8
	from, to   netip.Addr
	target     netip.Addr
	flags      uint8
	lladdr     wire.MAC
	hopLimit   uint8
	extensions []byte // whole, each ending in the next's type but the last, which gets 58
}

func (f ndFrame) octets(t testing.TB) []byte {
	t.Helper()
	eth := &layers.Ethernet{DstMAC: hw(f.dst), SrcMAC: hw(f.src), EthernetType: layers.EthernetTypeIPv6}
	ip := &layers.IPv6{Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolICMPv6, SrcIP: f.from.AsSlice(), DstIP: f.to.AsSlice()}
	if f.hopLimit != 0 {
		ip.HopLimit = f.hopLimit
	}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(f.kind, 0)}
	must(t, icmp.SetNetworkLayerForChecksum(ip))
	var options layers.ICMPv6Options
	if !f.lladdr.IsZero() {
		kind := layers.ICMPv6OptSourceAddress
		if f.kind == layers.ICMPv6TypeNeighborAdvertisement {
			kind = layers.ICMPv6OptTargetAddress
		}
		options = append(options, layers.ICMPv6Option{Type: kind, Data: f.lladdr[:]})
	}
	var body gopacket.SerializableLayer
	switch f.kind {
	case layers.ICMPv6TypeNeighborSolicitation:
		body = &layers.ICMPv6NeighborSolicitation{TargetAddress: f.target.AsSlice(), Options: options}
	case layers.ICMPv6TypeNeighborAdvertisement:
		body = &layers.ICMPv6NeighborAdvertisement{Flags: f.flags, TargetAddress: f.target.AsSlice(), Options: options}
	default:
		body = &layers.ICMPv6RouterSolicitation{Options: options}
	}
	b := serialize(t, eth, ip, icmp, body)
	if len(f.extensions) > 0 {
		b = slices.Insert(b, 54, f.extensions...)
		b[20] = f.extensions[0]
		b[54] = 58
		binary.BigEndian.PutUint16(b[18:], uint16(len(b)-54))
	}
	return b
}

var (
	none6       = netip.IPv6Unspecified()
	allNodes    = netip.MustParseAddr("ff02::1")
	macAllNodes = wire.MAC{0x33, 0x33, 0, 0, 0, 1}
)

// ndAsk is w1's solicitation for an address.
func ndAsk(target string, edit ...func(*ndFrame)) func(*scene) []byte {
	return func(s *scene) []byte {
		a := netip.MustParseAddr(target)
		o := a.As16()
		f := ndFrame{dst: wire.MAC{0x33, 0x33, 0xff, o[13], o[14], o[15]}, src: s.w1.mac, kind: layers.ICMPv6TypeNeighborSolicitation, from: s.w1.ip6,
			to: wire.SolicitedNode(a), target: a, lladdr: s.w1.mac}
		for _, e := range edit {
			e(&f)
		}
		return f.octets(s.a.t)
	}
}

// ndSay is w1's unsolicited advertisement.
func ndSay(target string, edit ...func(*ndFrame)) func(*scene) []byte {
	return ndAsk(target, append([]func(*ndFrame){func(f *ndFrame) {
		f.kind, f.to, f.dst, f.flags = layers.ICMPv6TypeNeighborAdvertisement, allNodes, macAllNodes, 0x20
	}}, edit...)...)
}

// probing asks from no address.
func probing(f *ndFrame) { f.from, f.lladdr = none6, wire.MAC{} }

func probing4(b []byte) []byte { copy(b[28:32], []byte{0, 0, 0, 0}); return b }

// to changes the destination MAC.
func to(mac wire.MAC) func([]byte) []byte {
	return func(b []byte) []byte { copy(b, mac[:]); return b }
}

func to6(mac wire.MAC) func(*ndFrame) { return func(f *ndFrame) { f.dst = mac } }

// neighbourScene is a scene with neighbours: .2 behind VTEP 1, .3 is w3, .9 is one to ask for; the ports may claim their own addresses, and w1 some more.
func neighbourScene(t *testing.T, ip6 bool) *scene {
	s := newScene(t, ip6)
	s.resolve()
	s.neighbours(closed)
	return s
}

const closed = NeighboursAnswer | NeighboursClosed4 | NeighboursClosed6

var (
	macPair    = wire.MAC{2, 0, 0, 0, 0, 0x51}
	macAnyPair = wire.MAC{2, 0, 0, 0, 0, 0x52}
)

func (s *scene) neighbours(mode Neighbours) {
	t, dp, a := s.a.t, s.a.dp, netip.MustParseAddr
	t.Helper()
	s.reset()
	n := s.a.networks[7]
	n.Neighbours = mode
	must(t, dp.PutNetwork(n))
	key := func(ip string) NeighbourKey { return NeighbourKey{7, a(ip)} }
	must(t, dp.PutNeighbours([]Neighbour{{NeighbourKey: key("10.0.0.1"), MAC: s.w1.mac}, {NeighbourKey: key("fd00::1"), MAC: s.w1.mac},
		{NeighbourKey: key("10.0.0.2"), MAC: macRemote}, {NeighbourKey: key("fd00::2"), MAC: macRemote, Router: true},
		{NeighbourKey: key("10.0.0.3"), MAC: s.w3.mac}, {NeighbourKey: key("fd00::3"), MAC: s.w3.mac},
		{NeighbourKey: key("10.0.0.9"), Ask: true}, {NeighbourKey: key("fd00::9"), Ask: true}}))
	p := s.w1.port()
	p.MACs = append(p.MACs, macPair, macAnyPair)
	p.Claims = []Claim{{IP: s.w1.ip4}, {IP: s.w1.ip6}, {IP: a("10.0.0.50"), MAC: macPair}, {IP: a("fd00::50"), MAC: macPair}, {MAC: macAnyPair}}
	must(t, dp.UpdatePort(p))
	var keys []bpf.TCAskedKey
	var k bpf.TCAskedKey
	var at uint64
	for it := dp.maps["asked"].Iterate(); it.Next(&k, &at); {
		keys = append(keys, k)
	}
	for _, k := range keys {
		must(t, dp.maps["asked"].Delete(k))
	}
}

func (s *scene) guardClaims() { s.neighbours(closed) }

// checkARPReply reads an answer octet by octet.
func checkARPReply(t *testing.T, name string, got, asked []byte, mac wire.MAC) {
	t.Helper()
	p := gopacket.NewPacket(got, layers.LayerTypeEthernet, gopacket.Default)
	eth, _ := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
	a, _ := p.Layer(layers.LayerTypeARP).(*layers.ARP)
	if a == nil || !bytes.Equal(eth.DstMAC, asked[6:12]) || !bytes.Equal(eth.SrcMAC, mac[:]) || a.Operation != layers.ARPReply ||
		!bytes.Equal(a.SourceHwAddress, mac[:]) || !bytes.Equal(a.SourceProtAddress, asked[38:42]) ||
		!bytes.Equal(a.DstHwAddress, asked[22:28]) || !bytes.Equal(a.DstProtAddress, asked[28:32]) {
		t.Errorf("%s: %x is not the answer %s to %x", name, got, mac, asked)
	}
}

// checkAdvertisement reads an answer octet by octet; flags are those of RFC 4861, section 4.4, highest first.
func checkAdvertisement(t *testing.T, name string, got, asked []byte, mac wire.MAC, flags uint8) {
	t.Helper()
	p := gopacket.NewPacket(got, layers.LayerTypeEthernet, gopacket.Default)
	eth, _ := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
	ip, _ := p.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
	na, _ := p.Layer(layers.LayerTypeICMPv6NeighborAdvertisement).(*layers.ICMPv6NeighborAdvertisement)
	if na == nil {
		t.Errorf("%s: %x is no advertisement", name, got)
		return
	}
	dst, to := net6(asked[22:38]), wire.MAC(asked[6:12])
	if dst == none6 {
		dst, to = allNodes, macAllNodes
	} else {
		flags |= 0x40
	}
	if !bytes.Equal(eth.DstMAC, to[:]) || !bytes.Equal(eth.SrcMAC, mac[:]) || net6(ip.SrcIP) != net6(asked[62:78]) || net6(ip.DstIP) != dst ||
		ip.HopLimit != 255 || int(ip.Length) != len(got)-54 || na.Flags != flags || net6(na.TargetAddress) != net6(asked[62:78]) ||
		len(na.Options) != 1 || na.Options[0].Type != layers.ICMPv6OptTargetAddress || !bytes.Equal(na.Options[0].Data, mac[:]) {
		t.Errorf("%s: %x (flags %x, options %v) is not the answer %s, flags %x, to %x", name, got, na.Flags, na.Options, mac, flags, asked)
	}
	pseudo := binary.BigEndian.AppendUint32(bytes.Clone(got[22:54]), uint32(ip.Length))
	if sum := sum16(append(append(pseudo, 0, 0, 0, 58), got[54:]...)); sum != 0xffff {
		t.Errorf("%s: wrong ICMPv6 checksum: sum %#x: %x", name, sum, got)
	}
}

func net6(b []byte) netip.Addr { return netip.AddrFrom16([16]byte(b)) }

// TestNeighboursAreAnswered turns red when, for instance, talk() is left out of from_port, the answer has the asker's MAC, or the pseudo header is left out of
// the sum.
func TestNeighboursAreAnswered(t *testing.T) {
	for _, under6 := range []bool{false, true} {
		t.Run(map[bool]string{false: "underlay4", true: "underlay6"}[under6], func(t *testing.T) {
			s := neighbourScene(t, under6)
			for _, c := range []struct {
				name  string
				asked func(*scene) []byte
				mac   wire.MAC
				flags uint8
			}{
				{"a remote address", arpAsk("10.0.0.2"), macRemote, 0},
				{"a local address", arpAsk("10.0.0.3"), s.w3.mac, 0},
				{"a longer frame", arpAsk("10.0.0.2", func(b []byte) []byte { return append(b[:len(b):len(b)], make([]byte, 40)...) }), macRemote, 0},
				{"a probe for another's address", arpAsk("10.0.0.2", probing4), macRemote, 0},
				{"asked of a MAC that had it before", arpAsk("10.0.0.2", to(s.w3.mac)), macRemote, 0},
				{"asked of a MAC that nobody has", arpAsk("10.0.0.3", to(macNowhere)), s.w3.mac, 0},
				{"a remote router", ndAsk("fd00::2"), macRemote, 0xa0},
				{"a local address", ndAsk("fd00::3"), s.w3.mac, 0x20},
				{"without the option", ndAsk("fd00::3", func(f *ndFrame) { f.lladdr = wire.MAC{} }), s.w3.mac, 0x20},
				{"a probe for another's address", ndAsk("fd00::3", probing), s.w3.mac, 0x20},
				{"asked of a MAC that had it before", ndAsk("fd00::2", to6(s.w3.mac)), macRemote, 0xa0},
				{"from a link-local address", ndAsk("fd00::3", func(f *ndFrame) { f.from = netip.MustParseAddr("fe80::1234") }), s.w3.mac, 0x20},
			} {
				asked := c.asked(s)
				before := s.books("from_port")
				o := s.fromPort(asked, nil)
				if o.verdict.Verdict != bpf.TCVerdictKindV_ANSWERED || o.verdict.Ifindex != s.w1.ifindex || o.verdict.Copies != 0 {
					t.Errorf("%s (%x): %s", c.name, asked[12:14], o)
					continue
				}
				if after := s.books("from_port"); after.Answered != before.Answered+1 || after.In != before.In+1 {
					t.Errorf("%s: the books go from %+v to %+v", c.name, before, after)
				}
				if asked[13] == 6 {
					checkARPReply(t, c.name, o.data, asked, c.mac)
				} else {
					checkAdvertisement(t, c.name, o.data, asked, c.mac, c.flags)
				}
			}
			s.a.balanced()
		})
	}
}

func (s *scene) books(program string) Books {
	s.a.t.Helper()
	list, err := s.a.dp.Books()
	must(s.a.t, err)
	i := slices.IndexFunc(list, func(b Books) bool { return b.Program == program })
	return list[i]
}

// TestNeighboursAreNotAnswered turns red when a port's own duplicate address detection is answered, or what is said to all does not reach all.
func TestNeighboursAreNotAnswered(t *testing.T) {
	s := neighbourScene(t, false)
	all := bpf.TCVerdictKindV_ENCAPSULATED
	own := "10.0.0.1"
	reply := func(b []byte) []byte { b[21] = 2; return b }
	for _, c := range []struct {
		name  string
		mode  Neighbours
		frame func(*scene) []byte
		all   bool
	}{
		{"its own duplicate address detection", closed, arpAsk(own, probing4), true},
		{"its own duplicate address detection", closed, ndAsk("fd00::1", probing), true},
		{"an announcement, asking", closed, arpAsk(own), true},
		{"an announcement, answering", closed, arpAsk(own, reply), true},
		{"an announcement", closed, ndSay("fd00::1"), true},
		{"an announcement of a link-local address", closed, ndSay("fe80::77"), true},
		{"an announcement of an allowed pair", closed, arpAsk(own, from4(macPair, "10.0.0.50"), reply), true},
		{"an announcement of an allowed pair", closed, ndSay("fd00::50", from6(macPair)), true},
		{"an announcement of an allowed MAC with any address", closed, arpAsk(own, from4(macAnyPair, "192.0.2.1"), reply), true},
		{"an announcement of an allowed MAC with any address", closed, ndSay("2001:db8::9", from6(macAnyPair)), true},
		{"an address that is not certain", closed, arpAsk("10.0.0.9"), true},
		{"an address that is not certain, again", closed, arpAsk("10.0.0.9"), true},
		{"an address that is not certain", closed, ndAsk("fd00::9"), true},
		{"an unknown address", closed, arpAsk("10.0.0.77"), true},
		{"an unknown address", closed, ndAsk("fd00::77"), true},
		{"its own link-local address", closed, ndAsk("fe80::ff:fe00:1", probing), true},
		{"the MAC that has it", closed, arpAsk("10.0.0.2", to(macRemote)), false},
		{"the MAC that has it", closed, ndAsk("fd00::2", to6(macRemote)), false},
		{"an unknown address of a known MAC", closed, arpAsk("10.0.0.78", to(macRemote)), false},
		{"an unknown address of a known MAC, again", closed, arpAsk("10.0.0.78", to(macRemote)), false},
		{"a network that floods", 0, arpAsk("10.0.0.2"), true},
		{"a network that floods", 0, ndAsk("fd00::2"), true},
		{"a solicitation that came over a router", closed, ndAsk("fd00::2", func(f *ndFrame) { f.hopLimit = 254 }), true},
		{"a router solicitation", closed, ndAsk("fd00::2", func(f *ndFrame) { f.kind = layers.ICMPv6TypeRouterSolicitation }), true},
	} {
		s.neighbours(c.mode)
		sent := c.frame(s)
		o := s.fromPort(sent, nil)
		if o.verdict.Verdict != all || o.verdict.Copies > 0 != c.all {
			t.Errorf("%s (%x): %s", c.name, sent[12:14], o)
		}
	}
	s.a.balanced()
}

// from4 changes what an ARP packet says of its sender.
func from4(mac wire.MAC, ip string) func([]byte) []byte {
	a := netip.MustParseAddr(ip).As4()
	return func(b []byte) []byte { copy(b[6:], mac[:]); copy(b[22:], mac[:]); copy(b[28:], a[:]); return b }
}

func from6(mac wire.MAC) func(*ndFrame) { return func(f *ndFrame) { f.src, f.lladdr = mac, mac } }

// TestUnknownIsAskedOnce turns red when may_ask is left out, or asks by the wrong key.
func TestUnknownIsAskedOnce(t *testing.T) {
	s := neighbourScene(t, false)
	other := func(b []byte) []byte { copy(b[6:], s.w3.mac[:]); copy(b[22:], s.w3.mac[:]); b[31] = 3; return b }
	w3 := s.w3.port()
	w3.Claims = []Claim{{IP: s.w3.ip4}, {IP: s.w3.ip6}}
	for _, c := range []struct {
		name          string
		mode          Neighbours
		target        string
		again, others bool // are they asked?
	}{
		{"closed", closed, "10.0.0.77", false, false},
		{"open", NeighboursAnswer, "10.0.0.77", false, true},
		{"closed", closed, "fd00::77", false, false},
		{"open", NeighboursAnswer, "fd00::77", false, true},
		{"link-local", closed, "fe80::77", false, true},
	} {
		var mine, theirs []byte
		if c.target[0] == 'f' {
			mine, theirs = ndAsk(c.target)(s), ndAsk(c.target, from6(s.w3.mac), func(f *ndFrame) { f.from = s.w3.ip6 })(s)
		} else {
			mine, theirs = arpAsk(c.target)(s), arpAsk(c.target, other)(s)
		}
		var asked, again, byOther outcome
		await(t, c.name+", "+c.target+": the questions come at once", func() bool { // all before it may be asked for again
			s.neighbours(c.mode)
			must(t, s.a.dp.UpdatePort(w3))
			begin := time.Now()
			asked, again, byOther = s.fromPort(mine, nil), s.fromPort(mine, nil), s.a.run("from_port", s.w3.ifindex, theirs, nil)
			return time.Since(begin) < 800*time.Millisecond
		})
		if asked.verdict.Copies == 0 {
			t.Errorf("%s, %s: not asked: %s", c.name, c.target, asked)
		}
		for _, q := range []struct {
			who    string
			o      outcome
			passes bool
		}{{"again", again, c.again}, {"by another port", byOther, c.others}} {
			o := q.o
			if passes := o.verdict.Copies > 0; passes != q.passes || !passes && DropReason(o.verdict.Reason) != DropNeighbourAsked {
				t.Errorf("%s, %s, %s: %s", c.name, c.target, q.who, o)
			}
		}
	}
	s.neighbours(closed)
	await(t, "it is asked for again", func() bool { return s.fromPort(arpAsk("10.0.0.79")(s), nil).verdict.Copies > 0 })
	s.a.balanced()
}

// TestClaims turns red when any of the checks in may_claim or check_discovery is left out.
func TestClaims(t *testing.T) {
	s := neighbourScene(t, false)
	reply := func(b []byte) []byte { b[21] = 2; return b }
	hopByHop := []byte{0, 0, 1, 4, 0, 0, 0, 0}
	for _, c := range []struct {
		name  string
		frame func(*scene) []byte
	}{
		{"another's address, asking", arpAsk("10.0.0.3", from4(s.w1.mac, "10.0.0.2"))},
		{"another's address, answering", arpAsk("10.0.0.3", from4(s.w1.mac, "10.0.0.2"), reply, to(s.w3.mac))},
		{"another's address, announcing", arpAsk("10.0.0.2", from4(s.w1.mac, "10.0.0.2"))},
		{"another's MAC in the packet", arpAsk("10.0.0.3", set(22, macRemote[:]...))},
		{"a probe with another's MAC in the packet", arpAsk("10.0.0.3", probing4, set(22, macRemote[:]...))},
		{"a pair's address with the port's own MAC", arpAsk("10.0.0.3", from4(s.w1.mac, "10.0.0.50"))},
		{"an unknown address", arpAsk("10.0.0.3", from4(s.w1.mac, "192.0.2.1"), reply)},
		{"IEEE 802 for a hardware type", arpAsk("10.0.0.3", from4(s.w1.mac, "10.0.0.2"), set(14, 0, 6))},
		{"no ARP for IPv4", arpAsk("10.0.0.3", set(18, 8))},
		{"ARP cut short", arpAsk("10.0.0.3", func(b []byte) []byte { return b[:41] })},
		{"another's address as the source", ndAsk("fd00::3", func(f *ndFrame) { f.from = ip62 })},
		{"another's MAC in the option", ndAsk("fd00::3", func(f *ndFrame) { f.lladdr = macRemote })},
		{"another's address, advertised", ndSay("fd00::2")},
		{"another's address, advertised to one", ndSay("fd00::2", to6(s.w3.mac))},
		{"another's MAC, advertised", ndSay("fd00::1", func(f *ndFrame) { f.lladdr = macRemote })},
		{"a pair's address with the port's own MAC", ndSay("fd00::50")},
		{"another's link-local address", ndSay("fe80::ff:fe00:3")},
		{"a router solicitation with another's MAC", ndAsk("fd00::2", func(f *ndFrame) { f.kind, f.lladdr = layers.ICMPv6TypeRouterSolicitation, macRemote })},
		{"behind an extension header", ndSay("fd00::2", func(f *ndFrame) { f.extensions = hopByHop })},
		{"in a first fragment", ndSay("fd00::1", func(f *ndFrame) { f.extensions = []byte{44, 0, 0, 1, 0, 0, 0, 9} })},
		{"cut short", func(s *scene) []byte { return ndSay("fd00::2")(s)[:70] }},
		{"with a second option", func(s *scene) []byte { return append(ndSay("fd00::1")(s), append([]byte{2, 1}, macRemote[:]...)...) }},
		{"with more options than anybody sends", func(s *scene) []byte {
			return append(ndSay("fd00::1")(s), bytes.Repeat([]byte{14, 1, 0, 0, 0, 0, 0, 0}, 8)...)
		}},
	} {
		s.neighbours(closed)
		sent := c.frame(s)
		before := s.a.drops(DropNeighbourClaim)
		if o := s.fromPort(sent, nil); DropReason(o.verdict.Reason) != DropNeighbourClaim || s.a.drops(DropNeighbourClaim) != before+1 {
			t.Errorf("%s (%x): %s", c.name, sent[12:14], o)
		}
		// Neither an unguarded port is checked, nor one of which no address of that IP version is known.
		p := s.w1.port()
		p.Unguarded, p.Claims = true, []Claim{{IP: s.w1.ip4}, {IP: s.w1.ip6}}
		must(t, s.a.dp.UpdatePort(p))
		if o := s.fromPort(sent, nil); DropReason(o.verdict.Reason) == DropNeighbourClaim {
			t.Errorf("%s (%x), unguarded: %s", c.name, sent[12:14], o)
		}
		p.Unguarded, p.Claims = false, []Claim{{IP: map[bool]netip.Addr{true: s.w1.ip6, false: s.w1.ip4}[sent[13] == 6]}}
		must(t, s.a.dp.UpdatePort(p))
		if o := s.fromPort(sent, nil); DropReason(o.verdict.Reason) == DropNeighbourClaim {
			t.Errorf("%s (%x), of an IP version that nothing is known of: %s", c.name, sent[12:14], o)
		}
	}
	s.a.balanced()
}

// TestAnswersReachThePort sends for real: the frame that comes back to a veth, and to a guest's TAP device, is the answer; nothing is on the
// underlay. Red when turn_round redirects elsewhere, or the answer's checksum is left to the kernel.
func TestAnswersReachThePort(t *testing.T) {
	s := neighbourScene(t, false)
	g := s.a.guest(7, 5, s.b, 2)
	p := g.port()
	p.Claims = []Claim{{IP: g.ip4}, {IP: g.ip6}}
	must(t, s.a.dp.UpdatePort(p))
	mine := newTap(t, s.w1.ns, "eth0")
	under := newTap(t, s.b.ns, "up0")
	arp, nd := arpAsk("10.0.0.2")(s), ndAsk("fd00::2")(s)
	answer := func(b []byte) bool {
		return len(b) > 54 && b[12] == 0x86 && b[54] == 136 || len(b) > 21 && b[12] == 8 && b[13] == 6 && b[21] == 2
	}
	for _, sent := range [][]byte{arp, nd} {
		send(t, s.w1.ns, "eth0", sent)
		got := mine.waitNext()
		for got != nil && !answer(got) {
			got = mine.waitNext()
		}
		if got == nil {
			t.Fatalf("no answer to %x", sent)
		}
		if sent[13] == 6 {
			checkARPReply(t, "veth", got, sent, macRemote)
		} else {
			checkAdvertisement(t, "veth", got, sent, macRemote, 0xa0)
		}
	}
	theirs := ndAsk("fd00::2", from6(g.mac), func(f *ndFrame) { f.from = g.ip6 })(s)
	for _, sent := range [][]byte{arpAsk("10.0.0.2", from4(g.mac, g.ip4.String()))(s), theirs} {
		if _, err := g.queues[0].Write(offered{frame: sent}.octets()); err != nil {
			t.Fatal(err)
		}
		got, _ := g.any(t)
		for !answer(got.frame) {
			got, _ = g.any(t)
		}
		if got.flags != 0 {
			t.Errorf("the answer comes unfinished: %+v", got)
		}
		if sent[13] == 6 {
			checkARPReply(t, "tap", got.frame, sent, macRemote)
		} else {
			checkAdvertisement(t, "tap", got.frame, sent, macRemote, 0xa0)
		}
	}
	for b := under.next(); b != nil; b = under.next() {
		if isTunnel(b) {
			t.Errorf("on the underlay: %x", b)
		}
	}
	if n := s.books("from_port"); n.Answered != 4 {
		t.Errorf("%d answers in the books, want 4: %+v", n.Answered, n)
	}
	s.a.balanced()
}

// TestClaimsFollowThePort: they come with the entry, change with it and end with it; a full table refuses the port and leaves what works.
func TestClaimsFollowThePort(t *testing.T) {
	s := newScene(t, false)
	count := func() (n int) {
		must(t, s.a.dp.claims.All(func(bpf.TCClaimKey, uint32) { n++ }))
		return n
	}
	p := s.w1.port()
	p.Claims = []Claim{{IP: s.w1.ip4}, {IP: s.w1.ip6}, {IP: s.w1.ip4}}
	must(t, s.a.dp.UpdatePort(p))
	if n := count(); n != 2 {
		t.Errorf("%d claims, want 2", n)
	}
	p.Claims = []Claim{{IP: s.w1.ip6}, {IP: ip2, MAC: macPair}}
	must(t, s.a.dp.UpdatePort(p))
	must(t, s.a.dp.Close())
	s.a.open()
	list, err := s.a.dp.Ports()
	must(t, err)
	i := slices.IndexFunc(list, func(have Port) bool { return have.ID == p.ID })
	if got := list[i].Claims; len(got) != 2 || !slices.Contains(got, p.Claims[0]) || !slices.Contains(got, p.Claims[1]) {
		t.Errorf("a restarted process finds %v, want %v", got, p.Claims)
	}
	must(t, s.a.dp.DetachPort(s.w1.ifindex))
	if n := count(); n != 0 {
		t.Errorf("%d claims are left of a port that is gone", n)
	}
}
