package wire_test

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/weftnet/weft/wire"
)

// What weft builds, another implementation reads, and the other way round: gopacket/layers is the peer.

// theirs decodes a frame strictly.
func theirs(t *testing.T, b []byte) gopacket.Packet {
	t.Helper()
	p := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.Default)
	if e := p.ErrorLayer(); e != nil {
		t.Fatalf("gopacket: %v\n%x", e.Error(), b)
	}
	return p
}

// serialize builds a frame as gopacket does, with its lengths and checksums.
func serialize(t *testing.T, ls ...gopacket.SerializableLayer) []byte {
	t.Helper()
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ls...); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// their outer headers of a flow.
func their(f wire.Flow, proto layers.IPProtocol) (eth *layers.Ethernet, ip4 *layers.IPv4, ip6 *layers.IPv6) {
	eth = &layers.Ethernet{SrcMAC: f.SrcMAC[:], DstMAC: f.DstMAC[:], EthernetType: layers.EthernetTypeIPv4}
	if f.Src.Is4() {
		ip4 = &layers.IPv4{Version: 4, TTL: 64, Protocol: proto, SrcIP: f.Src.AsSlice(), DstIP: f.Dst.AsSlice()}
		return eth, ip4, nil
	}
	eth.EthernetType = layers.EthernetTypeIPv6
	return eth, nil, &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: proto, SrcIP: f.Src.AsSlice(), DstIP: f.Dst.AsSlice()}
}

func both(t *testing.T, f wire.Flow, proto layers.IPProtocol, ours []byte, transport gopacket.SerializableLayer, payload []byte) {
	t.Helper()
	eth, ip4, ip6 := their(f, proto)
	var ip gopacket.SerializableLayer = ip4
	var network gopacket.NetworkLayer = ip4
	if ip6 != nil {
		ip, network = ip6, ip6
	}
	if s, ok := transport.(interface {
		SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
	}); ok {
		if err := s.SetNetworkLayerForChecksum(network); err != nil {
			t.Fatal(err)
		}
	}
	want := serialize(t, eth, ip, transport, gopacket.Payload(payload))
	if padding := want[min(len(ours), len(want)):]; !bytes.Equal(append(bytes.Clone(ours), make([]byte, len(padding))...), want) {
		t.Errorf("ours\n%x, gopacket's\n%x", ours, want)
	}
	if f, err := wire.ParseFrame(want); err != nil || !f.ChecksumOK(want) || !bytes.Equal(f.Payload, payload) {
		t.Errorf("gopacket's frame: %+v, %v", f, err)
	}
	theirs(t, ours)
}

func TestSameOctetsAsGopacket(t *testing.T) {
	for _, f := range []wire.Flow{flow4, flow6} {
		for _, n := range []int{0, 1, 2, 7, 8, 9, 1400} {
			payload := bytes.Repeat([]byte{0xfe, 0x01, 0xff}, n)[:n]
			both(t, f, layers.IPProtocolUDP, f.UDP(49152, 9, payload), &layers.UDP{SrcPort: 49152, DstPort: 9}, payload)
			both(t, f, layers.IPProtocolTCP, f.TCP(wire.TCP{Src: 5, Dst: 6, Seq: 1 << 31, Ack: 7, Flags: wire.SYN | wire.ECE | wire.CWR, Window: 9},
				payload), &layers.TCP{SrcPort: 5, DstPort: 6, Seq: 1 << 31, Ack: 7, SYN: true, ECE: true, CWR: true, Window: 9}, payload)
		}
	}
	ping := flow4.Echo(wire.Echo{ID: 300, Seq: 400}, []byte("ping"))
	both(t, flow4, layers.IPProtocolICMPv4, ping,
		&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0), Id: 300, Seq: 400}, []byte("ping"))
	p := theirs(t, flow6.Echo(wire.Echo{ID: 300, Seq: 400, Reply: true}, []byte("ping")))
	if e, _ := p.Layer(layers.LayerTypeICMPv6Echo).(*layers.ICMPv6Echo); e == nil || e.Identifier != 300 || e.SeqNumber != 400 {
		t.Errorf("an echo of IPv6 is read as %v", p)
	}
}

func TestARPAsGopacketReadsIt(t *testing.T) {
	p := theirs(t, wire.ARP{Op: wire.ARPRequest, SenderMAC: macA, SenderIP: flow4.Src, TargetMAC: macB, TargetIP: flow4.Dst}.Frame())
	a, _ := p.Layer(layers.LayerTypeARP).(*layers.ARP)
	if a == nil || a.Operation != layers.ARPRequest || !bytes.Equal(a.SourceHwAddress, macA[:]) || !bytes.Equal(a.DstHwAddress, macB[:]) ||
		!bytes.Equal(a.SourceProtAddress, flow4.Src.AsSlice()) || !bytes.Equal(a.DstProtAddress, flow4.Dst.AsSlice()) {
		t.Errorf("%+v", a)
	}
}

func TestNeighbourAsGopacketReadsIt(t *testing.T) {
	p := theirs(t, wire.Solicitation(macA, flow6.Src, flow6.Dst))
	s, _ := p.Layer(layers.LayerTypeICMPv6NeighborSolicitation).(*layers.ICMPv6NeighborSolicitation)
	if s == nil || !bytes.Equal(s.TargetAddress, flow6.Dst.AsSlice()) || len(s.Options) != 1 ||
		s.Options[0].Type != layers.ICMPv6OptSourceAddress || !bytes.Equal(s.Options[0].Data, macA[:]) {
		t.Errorf("%+v", s)
	}
	p = theirs(t, wire.Neighbour{Advertisement: true, Router: true, Solicited: true, Override: true, Target: flow6.Src, MAC: macB}.Frame(flow6))
	a, _ := p.Layer(layers.LayerTypeICMPv6NeighborAdvertisement).(*layers.ICMPv6NeighborAdvertisement)
	if a == nil || !a.Router() || !a.Solicited() || !a.Override() || !bytes.Equal(a.TargetAddress, flow6.Src.AsSlice()) ||
		len(a.Options) != 1 || a.Options[0].Type != layers.ICMPv6OptTargetAddress {
		t.Errorf("%+v", a)
	}
}

func TestVXLANAsGopacketReadsIt(t *testing.T) {
	inner := flow6.UDP(1, 2, []byte("inner"))
	for _, f := range []wire.Flow{flow4, flow6} {
		p := theirs(t, wire.Encapsulate(f, 55555, wire.VXLANPort, wire.MaxVNI, inner))
		v, _ := p.Layer(layers.LayerTypeVXLAN).(*layers.VXLAN)
		if v == nil || !v.ValidIDFlag || v.VNI != uint32(wire.MaxVNI) || !bytes.Equal(v.LayerPayload(), inner) {
			t.Errorf("%+v", v)
		}
		if u, _ := p.Layer(layers.LayerTypeUDP).(*layers.UDP); u == nil || u.Checksum != 0 || u.SrcPort != 55555 {
			t.Errorf("%+v", u)
		}
	}
}

func TestTagsAsGopacketReadsThem(t *testing.T) {
	f := flow4
	f.VLANs = []wire.VLAN{{TPID: wire.TypeServiceVLAN, ID: 5, Priority: 6}, {ID: 4094, DropEligible: true}}
	p := theirs(t, f.UDP(1, 2, nil))
	var tags []*layers.Dot1Q
	for _, l := range p.Layers() {
		if d, ok := l.(*layers.Dot1Q); ok {
			tags = append(tags, d)
		}
	}
	if len(tags) != 2 || tags[0].VLANIdentifier != 5 || tags[0].Priority != 6 || tags[1].VLANIdentifier != 4094 || !tags[1].DropEligible {
		t.Errorf("%v", tags)
	}
}

func TestFragmentsAsGopacketWritesThem(t *testing.T) {
	eth, ip4, _ := their(flow4, layers.IPProtocolUDP)
	ip4.Flags, ip4.FragOffset, ip4.Id, ip4.TOS = layers.IPv4MoreFragments, 185, 9, 0xb8
	ip4.Options = []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}} // router alert
	f, err := wire.ParseFrame(serialize(t, eth, ip4, gopacket.Payload("body")))
	if err != nil || !f.IPv4.MF || f.IPv4.FragmentOffset != 1480 || f.IPv4.ID != 9 || f.IPv4.TOS != 0xb8 ||
		!bytes.Equal(f.IPv4.Options, []byte{148, 4, 0, 0}) || string(f.Payload) != "body" || f.Layers != wire.LayerIPv4 {
		t.Errorf("%+v, %v", f, err)
	}
	// A fragment header as we write it.
	h := wire.IPv6{Protocol: wire.ProtoUDP, Src: flow6.Src, Dst: flow6.Dst, FlowLabel: 0xabcde, TrafficClass: 0x2e,
		Fragment: &wire.Fragment{Offset: 1480, More: true, ID: 0x01020304}}
	b := h.Append(wire.Ethernet{Dst: macB, Src: macA, Type: wire.TypeIPv6}.Append(nil), []byte("12345678"))
	p := theirs(t, b)
	g, _ := p.Layer(layers.LayerTypeIPv6Fragment).(*layers.IPv6Fragment)
	if g == nil || g.FragmentOffset != 185 || !g.MoreFragments || g.Identification != 0x01020304 || g.NextHeader != layers.IPProtocolUDP {
		t.Errorf("%+v", g)
	}
	ip, _ := p.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
	if ip == nil || ip.FlowLabel != 0xabcde || ip.TrafficClass != 0x2e {
		t.Errorf("%+v", ip)
	}
	if src, ok := netip.AddrFromSlice(ip.SrcIP); !ok || src != flow6.Src {
		t.Errorf("source %v", src)
	}
}
