package datapath

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/wire"
)

// TestEncapsulatedOctets reads every octet of the outer headers back. Red when, for instance, write_outer forgets DF, or
// the inner Ethernet header is not put back.
func TestEncapsulatedOctets(t *testing.T) {
	for _, ip6 := range []bool{false, true} {
		t.Run(map[bool]string{false: "underlay4", true: "underlay6"}[ip6], func(t *testing.T) {
			s := newScene(t, ip6)
			s.resolve()
			for name, inner := range map[string][]byte{
				"IPv4": frame(t, macRemote, s.w1.mac, ip1, ip2, 40),
				"IPv6": frame(t, macRemote, s.w1.mac, ip61, ip62, 40),
				"ARP":  raw(macRemote, s.w1.mac, 0x0806, 28),
				"LLC":  raw(macRemote, s.w1.mac, 46, 46),
			} {
				// The first packet for a next hop goes through the kernel's neighbour code.
				s.fromPort(inner, nil)
				o := s.fromPort(inner, nil)
				if o.verdict.Verdict != bpf.TCVerdictKindV_ENCAPSULATED || o.verdict.Ifindex != s.a.uplink() || o.verdict.Lane != 0 {
					t.Errorf("%s: %s, want encapsulated to %d", name, o, s.a.uplink())
					continue
				}
				if o.verdict.Mark != s.a.dp.local.Mark {
					t.Errorf("%s: mark %#x, want the secret one", name, o.verdict.Mark)
				}
				s.checkOuter(name, o.data, inner, ip6)
			}
			s.a.balanced()
		})
	}
}

func (s *scene) checkOuter(name string, data, inner []byte, ip6 bool) {
	t := s.a.t
	t.Helper()
	p := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.Default)
	eth := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
	from, err := s.a.ns.LinkByName("up0")
	must(t, err)
	to, err := s.b.ns.LinkByName("up0")
	must(t, err)
	if !bytes.Equal(eth.SrcMAC, from.MAC[:]) || !bytes.Equal(eth.DstMAC, to.MAC[:]) {
		t.Errorf("%s: outer MACs %s -> %s", name, eth.SrcMAC, eth.DstMAC)
	}
	room := 50
	if ip6 {
		room = 70
		ip, ok := p.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
		if !ok || ip.HopLimit != 64 || int(ip.Length) != len(data)-54 || ip.FlowLabel == 0 || ip.TrafficClass != 0 ||
			!ip.SrcIP.Equal(s.a.local.Addr6.AsSlice()) || !ip.DstIP.Equal(s.b.local.Addr6.AsSlice()) {
			t.Errorf("%s: outer IPv6 %+v", name, ip)
		}
	} else {
		ip, ok := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
		if !ok || ip.TTL != 64 || ip.Flags != layers.IPv4DontFragment || int(ip.Length) != len(data)-14 || ip.TOS != 0 || ip.FragOffset != 0 ||
			!ip.SrcIP.Equal(s.a.local.Addr4.AsSlice()) || !ip.DstIP.Equal(s.b.local.Addr4.AsSlice()) || sum16(data[14:34]) != 0xffff {
			t.Errorf("%s: outer IPv4 %+v, sum %#x", name, ip, sum16(data[14:34]))
		}
	}
	udp, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
	if !ok || udp.SrcPort < 49152 || udp.DstPort != 4789 || udp.Checksum != 0 || int(udp.Length) != len(inner)+16 {
		t.Errorf("%s: UDP %+v", name, udp)
	}
	if want := []byte{8, 0, 0, 0, 0, 0, 7, 0}; !bytes.Equal(data[room+14-22:room+14-14], want) {
		t.Errorf("%s: VXLAN header %x, want %x", name, data[room+14-22:room+14-14], want)
	}
	if !bytes.Equal(data[room:], inner) {
		t.Errorf("%s: inner frame changed:\n %x\n %x", name, data[room:], inner)
	}
}

func sum16(b []byte) uint16 {
	var s uint32
	for i := 0; i < len(b); i += 2 {
		s += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

// TestSourcePortFollowsTheFlow: one flow one port; many flows many ports; all fragments of a packet one port, whatever
// their L4 ports say. Red when flow_hash looks at the ports of a first fragment.
func TestSourcePortFollowsTheFlow(t *testing.T) {
	s := newScene(t, false)
	s.resolve()
	port := func(inner []byte) uint16 {
		o := s.fromPort(inner, nil)
		if o.verdict.Verdict != bpf.TCVerdictKindV_ENCAPSULATED {
			t.Fatal(o)
		}
		return uint16(o.data[34])<<8 | uint16(o.data[35])
	}
	seen := map[uint16]bool{}
	for i := range 1000 {
		f := frame(t, macRemote, s.w1.mac, ip1, ip2, 10)
		f[34], f[35] = byte(4+i>>8), byte(i) // source port, from 1024 on
		p := port(f)
		if p != port(f) {
			t.Fatalf("flow %d uses two source ports", i)
		}
		seen[p] = true
	}
	if len(seen) < 950 { // of 16,384: 970 expected
		t.Errorf("1000 flows use %d source ports", len(seen))
	}
	first, later := frame(t, macRemote, s.w1.mac, ip1, ip2, 10), frame(t, macRemote, s.w1.mac, ip1, ip2, 10)
	first[20], later[21] = 0x20, 2 // more fragments; offset 16
	later[34], later[35] = 99, 99
	if port(first) != port(later) {
		t.Error("two fragments of a packet use two source ports")
	}
}

// TestStrippedOctets: what b's packets become on a, for every inner kind. Red when the padding of a short packet is kept.
func TestStrippedOctets(t *testing.T) {
	for _, ip6 := range []bool{false, true} {
		t.Run(map[bool]string{false: "underlay4", true: "underlay6"}[ip6], func(t *testing.T) {
			s := newScene(t, ip6)
			for name, inner := range map[string][]byte{
				"IPv4": frame(t, s.w1.mac, macRemote, ip2, ip1, 40),
				"IPv6": frame(t, s.w1.mac, macRemote, ip62, ip61, 40),
				"ARP":  raw(s.w1.mac, macRemote, 0x0806, 28),
			} {
				for _, reserved := range [][4]byte{{}, {0xff, 0xff, 0xff, 0xff}} {
					packet := s.a.tunnel(s.b, 7, inner, func(o *tunnelOptions) { o.reserved, o.flags = reserved, 8|reserved[0] })
					for _, padding := range []int{0, 4} {
						o := s.fromUplink(append(packet, make([]byte, padding)...), nil)
						if o.verdict.Verdict != bpf.TCVerdictKindV_DELIVERED || o.verdict.Ifindex != s.w1.ifindex || !bytes.Equal(o.data, inner) {
							t.Errorf("%s, reserved %x, %d octets of padding: %s\n %x\n %x", name, reserved, padding, o, o.data, inner)
						}
					}
				}
			}
			s.a.balanced()
		})
	}
}

// TestKernelLaneGetsWhatItMust: checks first, then the mark, with reserved bits cleared, because the kernel drops them.
func TestKernelLaneGetsWhatItMust(t *testing.T) {
	s := newScene(t, false)
	inner := frame(t, s.w1.mac, macRemote, ip2, ip1, 40)
	put := func(mac wire.MAC, flags FDBFlags) {
		must(t, s.a.dp.PutFDB([]FDBEntry{{FDBKey: FDBKey{7, mac}, Ifindex: s.w1.ifindex, Flags: flags}}))
	}
	dirty := func(o *tunnelOptions) { o.reserved, o.flags = [4]byte{1, 2, 3, 4}, 0xff }
	for _, c := range []struct {
		name  string
		lane  LaneReason
		flags FDBFlags
		edit  func(*tunnelOptions)
		gso   uint32
	}{
		{"options", LaneOptions, FDBPeer, func(o *tunnelOptions) { o.options = true }, 0},
		{"checksum", LaneChecksum, FDBPeer, func(o *tunnelOptions) { o.checksum = true }, 0},
		{"checksum and reserved bits", LaneChecksum, FDBPeer, func(o *tunnelOptions) { dirty(o); o.checksum = true }, 0},
		{"aggregate", LaneAggregate, FDBAggregatesByKernel, dirty, 1000},
		{"asked", LaneAsked, FDBAllByKernel, dirty, 0},
		{"no aggregate", 0, FDBAggregatesByKernel, dirty, 0},
	} {
		put(s.w1.mac, c.flags)
		o := s.fromUplink(s.a.tunnel(s.b, 7, inner, c.edit), skbGSO(c.gso))
		if LaneReason(o.verdict.Lane) != c.lane {
			t.Errorf("%s: %s", c.name, o)
			continue
		}
		if c.lane == 0 {
			continue
		}
		off := 42
		if c.name == "options" {
			off += 4
		}
		if o.verdict.Verdict != bpf.TCVerdictKindV_PASSED || o.mark != s.a.dp.local.Mark || !bytes.Equal(o.data[off:off+8], []byte{8, 0, 0, 0, 0, 0, 7, 0}) {
			t.Errorf("%s: %s, mark %#x, VXLAN header %x", c.name, o, o.mark, o.data[off:off+8])
		}
		if c.lane == LaneChecksum {
			pseudo := append(append([]byte{}, o.data[26:34]...), 0, 17, o.data[38], o.data[39])
			if sum := sum16(append(pseudo, o.data[34:]...)); sum != 0xffff {
				t.Errorf("%s: the UDP checksum no longer holds: sum %#x", c.name, sum)
			}
		}
	}
	s.a.balanced()
}

// TestNotOursPasses: nothing that is not a tunnel packet for this host is touched.
func TestNotOursPasses(t *testing.T) {
	s := newScene(t, false)
	inner := frame(t, s.w1.mac, macRemote, ip2, ip1, 40)
	other := s.a.tunnel(s.b, 7, inner, nil)
	other[5] ^= 1 // another host's Ethernet address: the card is promiscuous
	later := s.a.tunnel(s.b, 7, inner, nil)
	later[21] = 4 // fragment offset
	for name, packet := range map[string][]byte{
		"another UDP port":    s.a.tunnel(s.b, 7, inner, func(o *tunnelOptions) { o.port = 4790 }),
		"another destination": s.a.tunnel(s.b, 7, inner, func(o *tunnelOptions) { o.dst = ip1 }),
		"another MAC":         other,
		"a later fragment":    later,
		"ARP":                 raw(macAll, macRemote, 0x0806, 28),
	} {
		o := s.fromUplink(packet, nil)
		if o.verdict.Verdict != bpf.TCVerdictKindV_PASSED || o.verdict.Lane != 0 || o.mark != 0 || !bytes.Equal(o.data, packet) {
			t.Errorf("%s: %s, mark %#x", name, o, o.mark)
		}
	}
	s.a.balanced()
}

// TestFlowBehindLongHeaders: the longest IPv4 header hides no L4 ports, wherever the kernel keeps the rest of the packet: a long packet whose headers are
// not in its linear part has the source port of a short one of its flow, and another flow has another. Red when linear pulls less than HEADERS_LEN.
func TestFlowBehindLongHeaders(t *testing.T) {
	a, b := twoHosts(t, false)
	join(t, 7, a, b)
	w1, w2 := a.workload(7, 1, b), b.workload(7, 2, a)
	for _, at := range []struct {
		ns   *netdev.Handle
		name string
	}{{a.ns, "up0"}, {b.ns, "up0"}, {a.ns, "weftp1"}, {w1.ns, "eth0"}} {
		must(t, at.ns.SetMTU(at.name, 9200))
	}
	a.local.UplinkMTU = 9200
	must(t, a.dp.SetLocal(a.local))
	n := a.networks[7]
	n.MTU = 9000
	a.putNetwork(n)
	must(t, w2.ns.SetAddresses("eth0", nil)) // and nobody answers
	seen := watch(t, b, w2.mac)
	tap := newTap(t, w1.ns, "eth0")
	must(t, unix.SetsockoptInt(tap.fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1))
	sourcePort := func(l4src uint16, octets int) uint16 {
		t.Helper()
		udp := binary.BigEndian.AppendUint16(nil, l4src)
		udp = append(udp, 0, 53, byte((octets+8)>>8), byte(octets+8), 0, 0)
		f := append(append(append([]byte{}, w2.mac[:]...), w1.mac[:]...), 8, 0)
		f = wire.IPv4{TTL: 9, DF: true, Protocol: wire.ProtoUDP, Src: w1.ip4, Dst: w2.ip4, Options: bytes.Repeat([]byte{1}, 40)}.Append(f, append(udp, make([]byte, octets)...))
		head := make([]byte, 10) // struct virtio_net_hdr: so much of it is linear, if it is longer than a page
		binary.NativeEndian.PutUint16(head[2:], 34)
		must(t, unix.Sendto(tap.fd, append(head, f...), 0, &unix.SockaddrLinklayer{Ifindex: tap.index, Halen: 6}))
		return binary.BigEndian.Uint16(seen.next()[34:])
	}
	ports := map[uint16]bool{}
	for l4src := range uint16(4) {
		short, long := sourcePort(1000+l4src, 100), sourcePort(1000+l4src, 6000)
		if short != long {
			t.Errorf("one flow has the source ports %d and %d", short, long)
		}
		ports[short] = true
	}
	if len(ports) < 3 {
		t.Errorf("4 flows have the source ports %v", ports)
	}
}
