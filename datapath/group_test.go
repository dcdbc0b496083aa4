package datapath

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/wire"
)

var (
	group4      = netip.MustParseAddr("239.129.2.3")
	group4Other = netip.MustParseAddr("239.1.2.3") // the same Ethernet address: RFC 1112, section 6.4
	group6      = netip.MustParseAddr("ff05::1:2:3")
	group6Other = netip.MustParseAddr("ff05::9:2:3")
	groupMAC4   = wire.MAC{0x01, 0x00, 0x5e, 0x01, 0x02, 0x03}
	groupMAC6   = wire.MAC{0x33, 0x33, 0x00, 0x02, 0x00, 0x03}
)

func groupsOf(ip6 bool) (group, other netip.Addr, mac wire.MAC) {
	if ip6 {
		return group6, group6Other, groupMAC6
	}
	return group4, group4Other, groupMAC4
}

// byGroup makes network 7 of a flood to a group, which is its VTEP 7.
func byGroup(s *scene, group netip.Addr, direct int, remotes ...VTEPID) {
	t := s.a.t
	t.Helper()
	must(t, s.a.dp.PutVTEPs([]VTEP{{ID: 7, Addr: group, Uplink: s.a.uplink(), UDPPort: 4789}}))
	putNetwork(func(n *Network) { n.Remotes, n.External, n.Direct = remotes, direct, direct })(s)
}

// TestGroupSent: a flood is one packet to the group, from the host's own address, to the Ethernet address that follows from the group's
// (01:00:5e and 23 bits: RFC 1112; 33:33 and 32 bits: RFC 2464). Red when group_mac takes 24 bits, as group4 has the 24th set.
func TestGroupSent(t *testing.T) {
	for name, ip6 := range map[string]bool{"IPv4": false, "IPv6": true} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, ip6)
			group, _, mac := groupsOf(ip6)
			byGroup(s, group, 0, 7)
			arrived := listen(t, s.b.ns, "up0", func(b []byte) bool { return bytes.HasPrefix(b, mac[:]) })
			o := s.fromPort(frame(t, macAll, s.w1.mac, ip1, ip2, 40), nil)
			if o.verdict.Verdict != bpf.TCVerdictKindV_ENCAPSULATED || o.verdict.Ifindex != s.a.uplink() || o.verdict.Copies != 1 { // w3's
				t.Fatalf("%s", o)
			}
			up, err := s.a.ns.LinkByName("up0")
			must(t, err)
			if !bytes.Equal(o.data[:6], mac[:]) || !bytes.Equal(o.data[6:12], up.MAC[:]) {
				t.Errorf("Ethernet addresses % x", o.data[:12])
			}
			src, dst, ttl := o.data[26:30], o.data[30:34], o.data[22]
			if ip6 {
				src, dst, ttl = o.data[22:38], o.data[38:54], o.data[21]
			}
			if !bytes.Equal(src, s.a.local.addr().AsSlice()) || !bytes.Equal(dst, group.AsSlice()) || ttl != 64 {
				t.Errorf("from % x to % x, TTL %d", src, dst, ttl)
			}
			// For real: one on the wire for each flood, however it is asked for.
			for range 10 {
				send(t, s.w1.ns, "eth0", raw(macAll, s.w1.mac, testProtocol, 50))
			}
			send(t, s.w1.ns, "eth0", raw(macAll, s.w1.mac, testProtocol, 51))
			await(t, "eleven floods on the wire", func() bool { return arrived.count.Load() >= 11 })
			if n := arrived.count.Load(); n != 11 {
				t.Errorf("%d packets for 11 floods", n)
			}
			s.a.balanced()
		})
	}
}

// TestGroupAndCopies: VTEPs that do not receive the group get a copy of their own, of the other IP version too; one that does gets unknown unicast
// for itself, and no second copy of a flood. Red when the first round of the loop is not 0 for floods.
func TestGroupAndCopies(t *testing.T) {
	s := newScene(t, false)
	s.resolve()
	must(t, s.a.dp.PutVTEPs([]VTEP{{ID: 8, Addr: s.b.local.addr(), UDPPort: 4790}, {ID: 9, Addr: s.b.local.addr(), UDPPort: 4791}}))
	at := func(port byte) *capture {
		return listen(t, s.b.ns, "up0", func(b []byte) bool { return tunnelled(b) && b[36] == 0x12 && b[37] == port })
	}
	toGroup, copies, direct := at(0xb5), at(0xb6), at(0xb7)
	byGroup(s, group4, 1, 7, 8, 9)
	count := func(what string, dst wire.MAC, group, own, external int64) {
		t.Helper()
		was := [3]int64{toGroup.count.Load(), copies.count.Load(), direct.count.Load()}
		now := func() [3]int64 {
			return [3]int64{toGroup.count.Load() - was[0], copies.count.Load() - was[1], direct.count.Load() - was[2]}
		}
		for range 5 {
			send(t, s.w1.ns, "eth0", raw(dst, s.w1.mac, testProtocol, 50))
		}
		want := [3]int64{5 * group, 5 * own, 5 * external}
		await(t, what, func() bool { n := now(); return n[0] >= want[0] && n[1] >= want[1] && n[2] >= want[2] })
		if n := now(); n != want {
			t.Errorf("%s: %v packets to the group, by a copy, directly; want %v", what, n, want)
		}
	}
	count("a flood", macAll, 1, 1, 0)
	count("unknown unicast", macNowhere, 0, 0, 1)
	count("a flood again", macAll, 1, 1, 0)
	s.a.balanced()
}

// TestGroupReceived: what is sent to a group of the VNI comes in, and nothing else does.
func TestGroupReceived(t *testing.T) {
	for name, ip6 := range map[string]bool{"IPv4": false, "IPv6": true} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, ip6)
			group, other, mac := groupsOf(ip6)
			must(t, s.a.dp.PutGroups([]Group{{7, group}}))
			arrives := func(dst netip.Addr, mac wire.MAC, edit func(*tunnelOptions)) outcome {
				data := s.a.tunnel(s.b, 7, frame(t, macAll, macRemote, ip2, ip1, 40), func(o *tunnelOptions) {
					o.dst = dst
					if edit != nil {
						edit(o)
					}
				})
				copy(data, mac[:])
				return s.fromUplink(data, nil)
			}
			if o := arrives(group, mac, nil); o.verdict.Verdict != bpf.TCVerdictKindV_DELIVERED || o.verdict.Copies != 2 {
				t.Errorf("to the group: %s", o)
			}
			up, err := s.a.ns.LinkByName("up0")
			must(t, err)
			for what, o := range map[string]outcome{
				"to a group that nobody here has":              arrives(other, mac, nil),
				"to the group, by another Ethernet group":      arrives(group, wire.MAC{mac[0], mac[1], mac[2], 9, 9, 9}, nil),
				"to the group, by the host's Ethernet address": arrives(group, up.MAC, nil),
				"to the host, by the group's Ethernet address": arrives(s.a.local.addr(), mac, nil),
				"to the group, by broadcast":                   arrives(group, macAll, nil),
				"to the group, to another UDP port":            arrives(group, mac, func(o *tunnelOptions) { o.port = 4790 }),
			} {
				if o.verdict.Verdict != bpf.TCVerdictKindV_PASSED || o.verdict.Lane != 0 || o.mark != 0 {
					t.Errorf("%s: %s, mark %#x", what, o, o.mark)
				}
			}
			for reason, edit := range map[DropReason]func(*tunnelOptions){
				DropOtherGroup:        func(o *tunnelOptions) { o.vni = 8 },
				DropSourceNotAccepted: func(o *tunnelOptions) { o.src = s.a.local.addr().Prev() },
				DropOwnSource:         func(o *tunnelOptions) { o.src = s.a.local.addr() },
			} {
				if o := arrives(group, mac, edit); DropReason(o.verdict.Reason) != reason {
					t.Errorf("%s: %s", reason, o)
				}
			}
			if o := arrives(group, mac, func(o *tunnelOptions) { o.checksum = true }); LaneReason(o.verdict.Lane) != LaneChecksum || o.mark == 0 {
				t.Errorf("with a checksum: %s", o)
			}
			must(t, s.a.dp.DeleteGroups([]Group{{7, group}}))
			if o := arrives(group, mac, nil); o.verdict.Verdict != bpf.TCVerdictKindV_PASSED {
				t.Errorf("after the group went: %s", o)
			}
			s.a.balanced()
		})
	}
}
