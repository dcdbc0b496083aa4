package datapath

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/wire"
)

// Packets are built and read by gopacket: an implementation that is not ours.

func hw(m wire.MAC) net.HardwareAddr { return net.HardwareAddr(m[:]) }

func serialize(t testing.TB, l ...gopacket.SerializableLayer) []byte {
	t.Helper()
	b := gopacket.NewSerializeBuffer()
	must(t, gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, l...))
	return b.Bytes()
}

// frame is an inner UDP datagram of some payload, over the IP version of its addresses.
func frame(t testing.TB, dst, src wire.MAC, from, to netip.Addr, payload int) []byte {
	t.Helper()
	eth := &layers.Ethernet{DstMAC: hw(dst), SrcMAC: hw(src), EthernetType: layers.EthernetTypeIPv4}
	udp := &layers.UDP{SrcPort: 1111, DstPort: 2222}
	if from.Is6() {
		eth.EthernetType = layers.EthernetTypeIPv6
		ip := &layers.IPv6{Version: 6, HopLimit: 9, NextHeader: layers.IPProtocolUDP, SrcIP: from.AsSlice(), DstIP: to.AsSlice()}
		must(t, udp.SetNetworkLayerForChecksum(ip))
		return serialize(t, eth, ip, udp, gopacket.Payload(make([]byte, payload)))
	}
	ip := &layers.IPv4{Version: 4, TTL: 9, Protocol: layers.IPProtocolUDP, SrcIP: from.AsSlice(), DstIP: to.AsSlice()}
	must(t, udp.SetNetworkLayerForChecksum(ip))
	return serialize(t, eth, ip, udp, gopacket.Payload(make([]byte, payload)))
}

// raw is a frame that is not IP.
func raw(dst, src wire.MAC, ethertype uint16, payload int) []byte {
	b := append(append([]byte{}, dst[:]...), src[:]...)
	b = binary.BigEndian.AppendUint16(b, ethertype)
	return append(b, make([]byte, payload)...)
}

// tunnel wraps a frame as the host other would send it to h.
type tunnelOptions struct {
	src, dst netip.Addr
	vni      wire.VNI
	port     uint16
	flags    byte
	reserved [4]byte // three octets, one octet
	checksum bool
	options  bool // IPv4 options
	mf       bool
	fragment bool // IPv6 fragment header, first fragment
	tos      byte // or traffic class
	ttl      byte // or hop limit; 0 is 64
}

func (h *testHost) tunnel(other *testHost, vni wire.VNI, inner []byte, edit func(*tunnelOptions)) []byte {
	t := h.t
	t.Helper()
	o := tunnelOptions{src: other.local.addr(), dst: h.local.addr(), vni: vni, port: 4789, flags: 8}
	if edit != nil {
		edit(&o)
	}
	up, err := h.ns.LinkByName("up0")
	must(t, err)
	from, err := other.ns.LinkByName("up0")
	must(t, err)
	v := make([]byte, 8)
	v[0] = o.flags
	copy(v[1:4], o.reserved[:3])
	v[4], v[5], v[6], v[7] = byte(o.vni>>16), byte(o.vni>>8), byte(o.vni), o.reserved[3]
	eth := &layers.Ethernet{DstMAC: hw(up.MAC), SrcMAC: hw(from.MAC), EthernetType: layers.EthernetTypeIPv4}
	udp := &layers.UDP{SrcPort: 50000, DstPort: layers.UDPPort(o.port)}
	payload := gopacket.Payload(append(v, inner...))
	var b []byte
	off := 14 + 20 + 6
	if o.src.Is6() {
		eth.EthernetType = layers.EthernetTypeIPv6
		ip := &layers.IPv6{Version: 6, TrafficClass: o.tos, HopLimit: cmp.Or(o.ttl, 64), NextHeader: layers.IPProtocolUDP, SrcIP: o.src.AsSlice(), DstIP: o.dst.AsSlice()}
		must(t, udp.SetNetworkLayerForChecksum(ip))
		b, off = serialize(t, eth, ip, udp, payload), 14+40+6
		if o.fragment {
			b = slices.Insert(b, 54, 17, 0, 0, 1, 0, 0, 0, 9)
			b[20], b[19], off = 44, b[19]+8, off+8
		}
	} else {
		ip := &layers.IPv4{Version: 4, TOS: o.tos, TTL: cmp.Or(o.ttl, 64), Protocol: layers.IPProtocolUDP, SrcIP: o.src.AsSlice(), DstIP: o.dst.AsSlice()}
		if o.options {
			ip.Options = []layers.IPv4Option{{OptionType: 1}, {OptionType: 1}, {OptionType: 1}, {OptionType: 1}}
			off += 4
		}
		if o.mf {
			ip.Flags = layers.IPv4MoreFragments
		}
		must(t, udp.SetNetworkLayerForChecksum(ip))
		b = serialize(t, eth, ip, udp, payload)
	}
	if !o.checksum {
		b[off], b[off+1] = 0, 0
	}
	return b
}

// outcome is what a program did with a packet.
type outcome struct {
	verdict bpf.TCVerdict
	data    []byte
	mark    uint32
}

func (o outcome) String() string {
	if o.verdict.Reason != 0 {
		return "drop " + DropReason(o.verdict.Reason).String()
	}
	return fmt.Sprintf("verdict %d, lane %q, interface %d, %d copies", o.verdict.Verdict, LaneReason(o.verdict.Lane).String(), o.verdict.Ifindex, o.verdict.Copies)
}

// tracePriority is what the tests' own packets have as skb->priority, and no other.
const tracePriority = 0x74657374

// skbFrom is a struct __sk_buff of a test's packet that comes in on the interface.
func skbFrom(ifindex uint32) []byte {
	skb := make([]byte, 192)
	binary.NativeEndian.PutUint32(skb[32:], tracePriority)
	binary.NativeEndian.PutUint32(skb[40:], ifindex)
	return skb
}

// run runs a program on one packet, as it would come in on the interface. Copies of floods are really sent.
func (h *testHost) run(program string, ifindex uint32, data []byte, edit func(skb []byte)) outcome {
	t := h.t
	t.Helper()
	skb := skbFrom(ifindex)
	if edit != nil {
		edit(skb)
	}
	o := outcome{data: make([]byte, len(data)+256)}
	opts := &ebpf.RunOptions{Data: data, DataOut: o.data, Context: skb, ContextOut: make([]byte, 192)}
	must(t, h.dp.maps["verdicts"].Put(uint32(0), bpf.TCVerdict{Program: 99}))
	must(t, h.ns.Run(func() error {
		_, err := h.dp.progs[program].Run(opts)
		return err
	}))
	o.data = opts.DataOut
	o.mark = binary.NativeEndian.Uint32(opts.ContextOut.([]byte)[8:])
	must(t, h.dp.maps["verdicts"].Lookup(uint32(0), &o.verdict))
	return o
}

func skbGSO(size uint32) func([]byte) {
	return func(skb []byte) { binary.NativeEndian.PutUint32(skb[176:], size) }
}

func (h *testHost) uplink() uint32 {
	l, err := h.ns.LinkByName("up0")
	must(h.t, err)
	return uint32(l.Index)
}

// scene is what the packet tests run on: network 7 on hosts a and b; on a the ports w1 (sends), w3, and held w4.
type scene struct {
	a, b       *testHost
	w1, w3, w4 *workload
}

// MACs of scene's network 7 that are no port's.
var (
	macRemote  = wire.MAC{2, 0, 0, 0, 0, 2}    // behind VTEP 1, host b
	macNoVTEP  = wire.MAC{2, 0, 0, 0, 0, 0x10} // behind VTEP 9, which is not there
	macNoRoute = wire.MAC{2, 0, 0, 0, 0, 0x11} // behind VTEP 2, unroutable
	macSummed  = wire.MAC{2, 0, 0, 0, 0, 0x12} // behind VTEP 3: host b, outer checksum
	macLanePt  = wire.MAC{2, 0, 0, 0, 0, 0x13} // behind VTEP 4: outer checksum on another UDP port
	macNoPort  = wire.MAC{2, 0, 0, 0, 0, 0x14} // at lo, which is no port
	macNowhere = wire.MAC{2, 0, 0, 0, 0, 0x15} // not in the FDB
	macAll     = wire.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	ip1        = netip.MustParseAddr("10.0.0.1")
	ip2        = netip.MustParseAddr("10.0.0.2")
	ip61       = netip.MustParseAddr("fd00::1")
	ip62       = netip.MustParseAddr("fd00::2")
)

func newScene(t *testing.T, ip6 bool) *scene {
	a, b := twoHosts(t, ip6)
	join(t, 7, a, b)
	s := &scene{a: a, b: b, w1: a.workload(7, 1, b), w3: a.workload(7, 3, b), w4: a.workload(7, 4, b)}
	for _, w := range []*workload{s.w1, s.w3, s.w4} { // nobody sends but the test: drops are counted one by one
		must(t, w.ns.SetSysctl("net/ipv6/conf/eth0/disable_ipv6", "1"))
	}
	s.reset()
	return s
}

// reset puts the tables as a case expects them.
func (s *scene) reset() {
	a, b, t := s.a, s.b, s.a.t
	t.Helper()
	must(t, a.dp.SetLocal(a.local))
	must(t, a.ns.SetUp("weftp2"))
	must(t, a.dp.PutNetwork(a.networks[7]))
	must(t, a.dp.DeleteAccepts([]Accept{{7, a.local.addr()}}))
	for _, w := range []*workload{s.w1, s.w3, s.w4} {
		p := w.port()
		p.Held = w == s.w4
		must(t, a.dp.UpdatePort(p))
	}
	nowhere := netip.MustParseAddr("198.51.100.1")
	if b.local.addr().Is6() {
		nowhere = netip.MustParseAddr("2001:db8::1")
	}
	must(t, a.dp.PutVTEPs([]VTEP{{ID: 2, Addr: nowhere, UDPPort: 4789}, {ID: 3, Addr: b.local.addr(), UDPPort: 4789, OuterChecksum: true},
		{ID: 4, Addr: b.local.addr(), UDPPort: 8472, OuterChecksum: true}}))
	for mac, vtep := range map[wire.MAC]VTEPID{macRemote: 1, macNoVTEP: 9, macNoRoute: 2, macSummed: 3, macLanePt: 4} {
		must(t, a.dp.PutFDB([]FDBEntry{{FDBKey: FDBKey{7, mac}, VTEP: vtep}}))
	}
	must(t, a.dp.PutFDB([]FDBEntry{{FDBKey: FDBKey{7, macNoPort}, Ifindex: 1}}))
}

// fromPort sends a frame of w1.
func (s *scene) fromPort(data []byte, edit func([]byte)) outcome {
	s.a.t.Helper()
	return s.a.run("from_port", s.w1.ifindex, data, edit)
}

func (s *scene) fromUplink(data []byte, edit func([]byte)) outcome {
	s.a.t.Helper()
	return s.a.run("from_uplink", s.a.uplink(), data, edit)
}

// resolve makes the next hop from a to b known.
func (s *scene) resolve() {
	s.a.t.Helper()
	l, err := s.b.ns.LinkByName("up0")
	must(s.a.t, err)
	must(s.a.t, s.a.ns.SetNeighbour(int(s.a.uplink()), s.b.local.addr(), l.MAC))
}
