package conform

import (
	"fmt"
	"net/netip"

	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/wire"
)

// limit is a reason why a packet may not fit: the network's MTU, or the path's.
type limit struct {
	name string
	prep func(*bed) error
	// mtu of the largest inner packet that fits.
	mtu func(*bed) int
}

var limits = []limit{
	{"the network's MTU", func(*bed) error { return nil }, func(*bed) int { return networkMTU }},
	{"the path's MTU", func(b *bed) error { return b.wideNetwork() }, func(b *bed) int { return underlayMTU - b.room() }},
}

// room is what the outer headers take.
func (b *bed) room() int {
	if b.row.Underlay == IPv6 {
		return wire.Overhead6
	}
	return wire.Overhead4
}

// wideNetwork leaves it to the path what fits.
func (b *bed) wideNetwork() error {
	n := b.network7(datapath.UnknownFlood)
	n.MTU = 9000
	return b.dp.PutNetwork(n)
}

// sized is a datagram of n octets of IP packet that must not be fragmented.
func sized(dst, src wire.MAC, n int, edits ...func(*wire.Flow)) []byte {
	headers := len(frame(dst, src, 0, edits...)) - wire.EthernetLen
	return frame(dst, src, n-headers, append(edits, dontFragment)...)
}

// told: the port sends the frame, it is dropped, and the port alone is told of the MTU.
func told(at string, f []byte, mtu int) trial {
	t := trial{at: map[string][][]byte{at: {answer(f, mtu)}}, answers: 1, drops: map[string]uint64{"too_big": 1}}
	if at == "t1" {
		t.fromT1 = [][]byte{f}
	} else {
		t.fromW1 = [][]byte{f}
	}
	return t.passOut("xdp_too_big")
}

// untold: w1 sends the frame, it is dropped for the reason, and that is all.
func untold(f []byte, reason string) trial { return held(f, reason).passOut("xdp_too_big") }

// mtuCases: what does not fit is never fragmented; its sender is told, as a router would, where it may be.
func mtuCases() []Case {
	var list []Case
	for _, l := range limits {
		for _, family := range families {
			list = append(list, tooBigCases(l, family)...)
		}
		list = append(list,
			prepared("8", l.name+": without DF the drop has a name of its own", l.prep, func(b *bed) trial {
				return untold(frame(macA, mac1, l.mtu(b)-28+1), "too_big_no_df")
			}),
			prepared("8", l.name+": what is not IP is dropped without a word", l.prep, func(b *bed) trial {
				f := sized(macA, mac1, l.mtu(b)+1)
				f[12], f[13] = 0x88, 0xb5
				return untold(f, "too_big")
			}))
	}
	list = append(list, unansweredCases()...)
	return append(list,
		simple("8", "the network's MTU holds between two ports here, too", func(*bed) trial {
			f := sized(mac2, mac1, networkMTU+1)
			return told("w1", f, networkMTU)
		}),
		prepared("8", "the path's MTU is nothing to two ports here", func(b *bed) error { return b.wideNetwork() }, func(b *bed) trial {
			f := sized(mac2, mac1, underlayMTU)
			return trial{fromW1: [][]byte{f}, at: map[string][][]byte{"w2": {f}}}
		}),
		prepared("8", "a short packet is quoted whole, with a sum over an odd number of octets", func(b *bed) error {
			n := b.network7(datapath.UnknownFlood)
			n.MTU = 100
			return b.dp.PutNetwork(n)
		}, func(*bed) trial { return told("w1", sized(macA, mac1, 101), 100) }),
		prepared("8", "a flood: who has room for it gets it, and nobody is told", func(b *bed) error { return b.wideNetwork() }, func(b *bed) trial {
			f := sized(macGroup, mac1, underlayMTU-b.room()+1)
			return trial{fromW1: [][]byte{f}, at: b.members("w1", f), drops: map[string]uint64{"copy_too_big": 2}}.passOut("xdp_several")
		}),
		Case{Rule: "8", Name: "what a router of the underlay reports is the path's MTU from then on", do: reported})
}

// tooBigCases are of one limit and one IP version.
func tooBigCases(l limit, family family) []Case {
	fits := func(b *bed) trial { return b.leaves(sized(macA, mac1, l.mtu(b), family.edit)) }
	from := func(at string, src wire.MAC) func(*bed) trial {
		return func(b *bed) trial { return told(at, sized(macA, src, l.mtu(b)+1, family.edit), l.mtu(b)) }
	}
	mss := func(b *bed) int { return l.mtu(b) - family.header - wire.TCPLen }
	whole := func(at string, src wire.MAC) func(*bed) trial {
		return func(b *bed) trial {
			head, f, segments := aggregate(src, 4*mss(b)+100, mss(b), family.edit)
			t := trial{offers: []offer{{at: at, head: head, frame: f}}, lanedOut: 1}.passOut("xdp_too_big")
			for _, s := range segments {
				t.tunnels = append(t.tunnels, b.to(b.addr.A, s))
			}
			if b.cutsFirst(at) {
				t.offers[0].pieces, t.passedOut = len(segments), nil
			}
			return t
		}
	}
	cut := func(at string, src wire.MAC) func(*bed) trial {
		return func(b *bed) trial {
			head, f, segments := aggregate(src, 4*mss(b)+100, mss(b)+1, family.edit)
			t := trial{offers: []offer{{at: at, head: head, frame: f}}, at: map[string][][]byte{at: {answer(f, l.mtu(b))}}, answers: 1, drops: map[string]uint64{"too_big": 1}}
			if !b.cutsFirst(at) {
				return t.passOut("xdp_too_big")
			}
			// Each segment is a packet then, and the last one is short.
			last := len(segments) - 1
			t.at[at], t.tunnels = nil, []sent{b.to(b.addr.A, segments[last])}
			for _, s := range segments[:last] {
				t.at[at] = append(t.at[at], answer(s, l.mtu(b)))
			}
			t.offers[0].pieces, t.answers, t.drops["too_big"] = len(segments), last, uint64(last)
			t.passedOut = map[string]int{"xdp_too_big": last}
			return t
		}
	}
	title := func(what string) string { return fmt.Sprintf("%s: %s (%s)", l.name, what, family.name) }
	return []Case{
		prepared("8", title("the largest packet that fits is sent"), l.prep, fits),
		prepared("8", title("one octet more: a container is told"), l.prep, from("w1", mac1)),
		prepared("8", title("one octet more: a virtual machine is told"), l.prep, from("t1", mac3)),
		prepared("8", title("an aggregate of segments that fit is sent, by a container"), l.prep, whole("w1", mac1)),
		prepared("8", title("an aggregate of segments that fit is sent, by a virtual machine"), l.prep, whole("t1", mac3)),
		prepared("8", title("segments of one octet more: a container is told"), l.prep, cut("w1", mac1)),
		prepared("8", title("segments of one octet more: a virtual machine is told"), l.prep, cut("t1", mac3)),
	}
}

// cutsFirst: a container's own kernel cuts its aggregates, for the XDP lane takes none.
func (b *bed) cutsFirst(at string) bool { return b.row.Lane == XDP && at != "t1" }

// unansweredCases are of what there may be no message about (RFC 1122, section 3.2.2; RFC 4443, section 2.4), and of what is near it.
func unansweredCases() []Case {
	const n = networkMTU + 1
	icmp4 := func(kind byte) []byte { return withICMP(sized(macA, mac1, n), 23, 34, wire.ProtoICMP, kind) }
	icmp6 := func(kind byte) []byte { return withICMP(sized(macA, mac1, n, over6), 20, 54, wire.ProtoICMPv6, kind) }
	fragment := func(first bool) []byte {
		f := sized(macA, mac1, n)
		if f[20], f[21] = 0x40, 1; first {
			f[20], f[21] = 0x60, 0
		}
		return fixIPv4(f)
	}
	fragment6 := func(at byte) []byte {
		f := sized(macA, mac1, n, over6)
		f[20] = byte(wire.ProtoFragment)
		copy(f[54:], []byte{byte(wire.ProtoUDP), 0, 0, at | 1, 0, 0, 0, 7})
		return f
	}
	group := func(edits ...func(*wire.Flow)) []byte { return sized(macGroup, mac1, n, edits...) }
	toGroup := func(a string) func(*wire.Flow) { return func(f *wire.Flow) { f.Dst = netip.MustParseAddr(a) } }
	fromNobody := func(a string) func(*wire.Flow) { return func(f *wire.Flow) { f.Src = netip.MustParseAddr(a) } }
	var list []Case
	for _, c := range []struct {
		name  string
		frame []byte
		told  bool
	}{
		{"a packet to a group's MAC, IPv4", group(), false},
		{"a packet to a group's MAC, IPv6", group(over6), false},
		{"a packet to a group's address, IPv4", sized(macA, mac1, n, toGroup("224.0.0.1")), false},
		{"a packet to a group's address, IPv6", sized(macA, mac1, n, over6, toGroup("ff02::1")), false},
		{"a packet to the broadcast address", sized(macA, mac1, n, toGroup("255.255.255.255")), false},
		{"a packet from nobody, IPv4", sized(macA, mac1, n, fromNobody("0.0.0.0")), false},
		{"a packet from nobody, IPv6", sized(macA, mac1, n, over6, fromNobody("::")), false},
		{"an ICMP error", icmp4(wire.ICMPUnreachable), false},
		{"an ICMPv6 error", icmp6(wire.ICMPv6PacketTooBig), false},
		{"an ICMP echo", icmp4(wire.ICMPEchoRequest), true},
		{"an ICMPv6 echo", icmp6(wire.ICMPv6EchoRequest), true},
		{"a first fragment, IPv4", fragment(true), true},
		{"a later fragment, IPv4", fragment(false), false},
		{"a first fragment, IPv6", fragment6(0), true},
		{"a later fragment, IPv6", fragment6(8), false},
	} {
		if c.told {
			list = append(list, simple("8", "the sender is told of "+c.name, func(*bed) trial { return told("w1", c.frame, networkMTU) }))
		} else {
			list = append(list, simple("8", "nobody is told of "+c.name, func(*bed) trial { return untold(c.frame, "too_big") }))
		}
	}
	return list
}

// withICMP makes a datagram an ICMP message of a type: proto is where the header names its payload, and at where that begins.
func withICMP(f []byte, proto, at int, p wire.Protocol, kind byte) []byte {
	f[proto], f[at], f[at+1] = byte(p), kind, 0
	if at == wire.EthernetLen+wire.IPv4Len {
		return fixIPv4(f)
	}
	return f
}

// reported: a router on the way to VTEP Narrow cannot carry what is sent, and says so to the outer source.
func reported(b *bed) error {
	const narrow = 1400
	a := b.addr
	up, err := b.host.LinkByName(uplink)
	if err != nil {
		return err
	}
	if err := b.host.ReplaceRoute(netdev.Route{Dst: netip.PrefixFrom(a.Narrow, a.farBits), Hops: []netdev.Hop{{Gateway: a.Gateway, Index: up.Index}}}); err != nil {
		return err
	}
	behind := func() error {
		return b.dp.PutVTEPs([]datapath.VTEP{b.vtep(vtepA, a.Narrow)})
	}
	large := sized(macA, mac1, narrow-b.room()+1)
	out := b.to(a.Narrow, large, func(s *sent) { s.via = macRouter })
	if err := behind(); err != nil {
		return err
	}
	if err := settle(); err != nil {
		return err
	}
	if err := b.try(trial{fromW1: [][]byte{large}, tunnels: []sent{out}, lanedOut: 1}); err != nil {
		return fmt.Errorf("before the report: %w", err)
	}
	// The report quotes the packet as it was sent.
	packet := b.in(large, func(p *tunnel) {
		p.src, p.dst, p.l4src, p.dstMAC, p.srcMAC = a.Own, a.Narrow, b.left[0].UDP.Src, b.peerMAC, b.hostMAC
	})
	if b.row.Underlay == IPv4 {
		packet[20] |= 0x40 // DF
		packet = fixIPv4(packet)
	}
	if err := b.try(ignored(answer(packet, narrow))); err != nil {
		return fmt.Errorf("the report: %w", err)
	}
	if err := behind(); err != nil {
		return err
	}
	if err := settle(); err != nil {
		return err
	}
	if err := b.try(told("w1", large, narrow-b.room())); err != nil {
		return fmt.Errorf("after the report: %w", err)
	}
	return nil
}
