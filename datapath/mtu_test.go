package datapath

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/wire"
)

// df is an inner datagram that must not be fragmented.
func df(f []byte) []byte {
	if f[12] == 0x08 {
		f = fixIP(set(20, 0x40)(f))
	}
	return f
}

// big is w1's datagram of n octets of IP packet.
func (s *scene) big(dst wire.MAC, ip6 bool, n int) []byte {
	if ip6 {
		return frame(s.a.t, dst, s.w1.mac, ip61, ip62, n-48)
	}
	return df(frame(s.a.t, dst, s.w1.mac, ip1, ip2, n-28))
}

func (h *testHost) answers() (n uint64) {
	h.t.Helper()
	books, err := h.dp.Books()
	must(h.t, err)
	for _, b := range books {
		n += b.Answers
	}
	return n
}

// checkAnswer reads a message about sent back, octet by octet.
func checkAnswer(t *testing.T, name string, got, sent []byte, mtu int) {
	t.Helper()
	if len(got) < 14 || !bytes.Equal(got[:6], sent[6:12]) || !bytes.Equal(got[6:12], sent[:6]) {
		t.Errorf("%s: the MACs are not swapped: %x", name, got[:min(len(got), 14)])
		return
	}
	var quoted []byte
	limit := 576
	if sent[12] == 0x08 {
		ip, icmp := new(layers.IPv4), new(layers.ICMPv4)
		must(t, ip.DecodeFromBytes(got[14:], gopacket.NilDecodeFeedback))
		must(t, icmp.DecodeFromBytes(ip.Payload, gopacket.NilDecodeFeedback))
		if !bytes.Equal(ip.SrcIP, sent[30:34]) || !bytes.Equal(ip.DstIP, sent[26:30]) || ip.Protocol != layers.IPProtocolICMPv4 ||
			int(ip.Length) != len(got)-14 || sum16(got[14:34]) != 0xffff {
			t.Errorf("%s: IPv4 %+v", name, ip)
		}
		if icmp.TypeCode != layers.CreateICMPv4TypeCode(3, 4) || icmp.Id != 0 || int(icmp.Seq) != mtu {
			t.Errorf("%s: %s, MTU %d, want %d", name, icmp.TypeCode, icmp.Seq, mtu)
		}
		if sum := sum16(even(ip.Payload)); sum != 0xffff {
			t.Errorf("%s: ICMP checksum: sum %#x", name, sum)
		}
		quoted = icmp.Payload
	} else {
		limit = 1280
		ip, icmp := new(layers.IPv6), new(layers.ICMPv6)
		must(t, ip.DecodeFromBytes(got[14:], gopacket.NilDecodeFeedback))
		must(t, icmp.DecodeFromBytes(ip.Payload, gopacket.NilDecodeFeedback))
		if !bytes.Equal(ip.SrcIP, sent[38:54]) || !bytes.Equal(ip.DstIP, sent[22:38]) || ip.NextHeader != layers.IPProtocolICMPv6 ||
			int(ip.Length) != len(got)-54 || ip.TrafficClass != 0 || ip.FlowLabel != 0 || ip.HopLimit == 0 {
			t.Errorf("%s: IPv6 %+v", name, ip)
		}
		if icmp.TypeCode != layers.CreateICMPv6TypeCode(2, 0) || int(binary.BigEndian.Uint32(icmp.Payload)) != mtu {
			t.Errorf("%s: %s, MTU %x, want %d", name, icmp.TypeCode, icmp.Payload[:4], mtu)
		}
		pseudo := append([]byte{}, got[22:54]...)
		pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(ip.Length))
		if sum := sum16(even(append(append(pseudo, 0, 0, 0, 58), ip.Payload...))); sum != 0xffff {
			t.Errorf("%s: ICMPv6 checksum: sum %#x", name, sum)
		}
		quoted = icmp.Payload[4:]
	}
	head := 28
	if limit == 1280 {
		head = 48
	}
	if want := sent[14:min(len(sent), 14+limit-head)]; !bytes.Equal(quoted, want) {
		t.Errorf("%s: quotes %d octets, want %d:\n %x\n %x", name, len(quoted), len(want), quoted, want)
	}
}

func even(b []byte) []byte { return append(b[:len(b):len(b)], make([]byte, len(b)%2)...) }

// pathMTU makes a's uplink narrow.
func pathMTU(n int) func(*scene) {
	return func(s *scene) {
		l := s.a.local
		l.UplinkMTU = n
		must(s.a.t, s.a.dp.SetLocal(l))
		s.nextJiffy()
	}
}

// nextJiffy waits until the programs ask the kernel for next hops again, which they do once a jiffy.
func (s *scene) nextJiffy() {
	s.a.t.Helper()
	tick := func() int64 {
		var ts unix.Timespec
		must(s.a.t, unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &ts))
		return ts.Nano()
	}
	begin := tick()
	await(s.a.t, "the next jiffy", func() bool { return tick() != begin })
}

// TestTooBigIsAnswered: fragmentation needed, or packet too big, from the destination, back to the port that sent it. Red when,
// for instance, the pseudo header is left out of the sum, the MACs are not swapped, or the overhead of the outer headers is forgotten.
func TestTooBigIsAnswered(t *testing.T) {
	for _, under6 := range []bool{false, true} {
		t.Run(map[bool]string{false: "underlay4", true: "underlay6"}[under6], func(t *testing.T) {
			s := newScene(t, under6)
			s.resolve()
			room := map[bool]int{false: 50, true: 70}[under6]
			small := putNetwork(func(n *Network) { n.MTU = 1300 })
			for _, c := range []struct {
				name string
				prep func(*scene)
				dst  wire.MAC
				ip6  bool
				n    int
				gso  uint32
				mtu  int
			}{
				{"the network", small, macRemote, false, 1301, 0, 1300},
				{"the network", small, macRemote, true, 1301, 0, 1300},
				{"the network, to a local port", small, s.w3.mac, false, 1500, 0, 1300},
				{"the network, to a local port", small, s.w3.mac, true, 1500, 0, 1300},
				{"a short packet", putNetwork(func(n *Network) { n.MTU = 68 }), macRemote, false, 69, 0, 68},
				{"an odd quotation", putNetwork(func(n *Network) { n.MTU = 80 }), macRemote, true, 87, 0, 80},
				{"the path", pathMTU(1400), macRemote, false, 1401 - room, 0, 1400 - room},
				{"the path", pathMTU(1400), macRemote, true, 1401 - room, 0, 1400 - room},
				{"a segment, the network", small, macRemote, false, 3000, 1273, 1300},
				{"a segment, the path", pathMTU(1400), macRemote, true, 3000, uint32(1401 - room - 48), 1400 - room},
			} {
				s.reset()
				c.prep(s)
				if c.ip6 {
					c.name += ", IPv6"
				}
				sent := s.big(c.dst, c.ip6, c.n)
				before, drops, in := s.a.answers(), s.a.drops(DropTooBig), s.a.ingress(s.w1)
				o := s.fromPort(sent, skbGSO(c.gso))
				if DropReason(o.verdict.Reason) != DropTooBig || o.verdict.Ifindex != s.w1.ifindex {
					t.Errorf("%s: %s, want drop too_big and an answer to %d", c.name, o, s.w1.ifindex)
					continue
				}
				if a, d := s.a.answers()-before, s.a.drops(DropTooBig)-drops; a != 1 || d != 1 || s.a.ingress(s.w1) != in+1 {
					t.Errorf("%s: %d answers and %d drops counted, %d frames to the port", c.name, a, d, s.a.ingress(s.w1)-in)
				}
				checkAnswer(t, c.name, o.data, sent, c.mtu)
				// One octet less, or a segment that fits, goes through.
				if c.gso == 0 {
					if o := s.fromPort(s.big(c.dst, c.ip6, c.mtu), nil); o.verdict.Reason != 0 {
						t.Errorf("%s: %d octets: %s", c.name, c.mtu, o)
					}
				}
			}
			s.a.balanced()
		})
	}
}

func (h *testHost) ingress(w *workload) uint64 {
	h.t.Helper()
	c, err := h.dp.PortCounters(w.id)
	must(h.t, err)
	return c.IngressPackets
}

// TestTooBigUnanswered: what there must be no message about is dropped all the same. Red when a check of answer.h is taken out.
func TestTooBigUnanswered(t *testing.T) {
	s := newScene(t, false)
	s.resolve()
	putNetwork(func(n *Network) { n.MTU = 600; n.Unknown = UnknownFlood })(s)
	icmp4 := func(kind byte) []byte { return fixIP(set(34, kind)(set(23, 1)(s.big(macRemote, false, 700)))) }
	icmp6 := func(kind byte) []byte { return set(54, kind)(set(20, 58)(s.big(macRemote, true, 700))) }
	extended := func(next byte, ext ...byte) []byte {
		b := s.big(macRemote, true, 700)
		b = set(20, next)(b)
		return set(54, ext...)(b)
	}
	big4 := func(edit ...func([]byte) []byte) []byte {
		b := s.big(macRemote, false, 700)
		for _, e := range edit {
			b = e(b)
		}
		return fixIP(b)
	}
	for name, c := range map[string]struct {
		data   []byte
		reason DropReason
		answer uint64
	}{
		"IPv4 without DF":           {frame(t, macRemote, s.w1.mac, ip1, ip2, 672), DropTooBigNoDF, 0},
		"broadcast without DF":      {frame(t, macAll, s.w1.mac, ip1, ip2, 672), DropTooBigNoDF, 0},
		"no IP":                     {raw(macRemote, s.w1.mac, testProtocol, 700), DropTooBig, 0},
		"broadcast":                 {s.big(macAll, false, 700), DropTooBig, 0},
		"multicast MAC":             {s.big(wire.MAC{0x33, 0x33, 0, 0, 0, 1}, true, 700), DropTooBig, 0},
		"broadcast address":         {big4(set(30, 255, 255, 255, 255)), DropTooBig, 0},
		"multicast address":         {big4(set(30, 224, 0, 0, 1)), DropTooBig, 0},
		"multicast address, IPv6":   {set(38, 0xff, 2)(s.big(macRemote, true, 700)), DropTooBig, 0},
		"from nobody":               {big4(set(26, 0, 0, 0, 0)), DropTooBig, 0},
		"from nobody, IPv6":         {set(22, make([]byte, 16)...)(s.big(macRemote, true, 700)), DropTooBig, 0},
		"from a group":              {big4(set(26, 224, 0, 0, 1)), DropTooBig, 0},
		"from a group, IPv6":        {set(22, 0xff)(s.big(macRemote, true, 700)), DropTooBig, 0},
		"from loopback":             {big4(set(26, 127, 0, 0, 1)), DropTooBig, 0},
		"a later fragment":          {big4(set(20, 0x40, 1)), DropTooBig, 0},
		"a first fragment":          {big4(set(20, 0x60, 0)), DropTooBig, 1},
		"unreachable":               {icmp4(3), DropTooBig, 0},
		"redirect":                  {icmp4(5), DropTooBig, 0},
		"time exceeded":             {icmp4(11), DropTooBig, 0},
		"parameter problem":         {icmp4(12), DropTooBig, 0},
		"an unknown ICMP type":      {icmp4(77), DropTooBig, 0},
		"echo":                      {icmp4(8), DropTooBig, 1},
		"echo reply":                {icmp4(0), DropTooBig, 1},
		"unreachable, IPv6":         {icmp6(1), DropTooBig, 0},
		"too big, IPv6":             {icmp6(2), DropTooBig, 0},
		"redirect, IPv6":            {icmp6(137), DropTooBig, 0},
		"echo, IPv6":                {icmp6(128), DropTooBig, 1},
		"a later fragment, IPv6":    {extended(44, 17, 0, 0, 8), DropTooBig, 0},
		"a first fragment, IPv6":    {extended(44, 17, 0, 0, 1), DropTooBig, 1},
		"behind options, an error":  {extended(60, 58, 0, 0, 0, 0, 0, 0, 0, 1), DropTooBig, 0},
		"behind options, an echo":   {extended(60, 58, 0, 0, 0, 0, 0, 0, 0, 128), DropTooBig, 1},
		"behind options, past them": {extended(60, 58, 255), DropTooBig, 0},
		"no IP version":             {set(14, 0x55)(s.big(macRemote, false, 700)), DropTooBig, 0},
		"no IPv6 version":           {set(14, 0x40)(s.big(macRemote, true, 700)), DropTooBig, 0},
		"a header too short":        {set(14, 0x44)(s.big(macRemote, false, 700)), DropTooBig, 0},
	} {
		before := s.a.answers()
		o := s.fromPort(c.data, nil)
		if DropReason(o.verdict.Reason) != c.reason {
			t.Errorf("%s: %s, want drop %s", name, o, c.reason)
		}
		if n := s.a.answers() - before; n != c.answer {
			t.Errorf("%s: %d answers, want %d", name, n, c.answer)
		}
	}
	s.a.balanced()
}

// TestAnswersAreLimited: a port gets a hundred at once and a thousand a second; another port's are its own.
func TestAnswersAreLimited(t *testing.T) {
	s := newScene(t, false)
	putNetwork(func(n *Network) { n.MTU = 600 })(s)
	before, start := s.a.answers(), time.Now()
	const sent = 600
	for range sent {
		s.fromPort(s.big(s.w3.mac, false, 700), nil)
	}
	took := time.Since(start)
	n := s.a.answers() - before
	if most := uint64(100 + took/time.Millisecond + 1); n < 100 || n > most || n == sent && took < 400*time.Millisecond {
		t.Errorf("%d answers to %d packets in %s: want 100 to %d", n, sent, took, most)
	}
	other := frame(t, s.w1.mac, s.w3.mac, ip61, ip62, 700)
	before = s.a.answers()
	if s.a.run("from_port", s.w3.ifindex, other, nil); s.a.answers() != before+1 {
		t.Error("another port's packet is not answered")
	}
}

// TestWorkloadsLearnTheMTU sends for real what does not fit, from workloads whose interfaces promise more: only a message that their
// kernel believes lets them go on. TCP sends aggregates whose checksums are not yet computed: red when cut_down leaves the kernel
// to compute one in the message.
func TestWorkloadsLearnTheMTU(t *testing.T) {
	for _, c := range []struct {
		name         string
		network, up  int
		under6, near bool
	}{{"network", 1300, 1600, false, false}, {"path", 1500, 1400, false, false}, {"path6", 1500, 1400, true, false}, {"local", 1300, 1600, false, true}} {
		t.Run(c.name, func(t *testing.T) {
			a, b := twoHosts(t, c.under6)
			for _, h := range []*testHost{a, b} {
				l := h.local
				l.UplinkMTU = c.up
				must(t, h.dp.SetLocal(l))
			}
			join(t, 7, a, b)
			w1, w2 := a.workload(7, 1, b), b.workload(7, 2, a)
			if c.near {
				w2 = a.workload(7, 3, b)
			}
			for _, h := range []*testHost{a, b} {
				n := h.networks[7]
				n.MTU = c.network
				h.putNetwork(n)
			}
			w2.echo()
			for _, ip := range []netip.Addr{w2.ip4, w2.ip6} {
				if err := w1.stream(w2, ip, 4<<20); err != nil {
					t.Errorf("TCP to %s: %v", ip, err)
				}
				if err := w1.ping(ip, 1440); err != nil {
					t.Error(err)
				}
			}
			if a.answers() < 2 {
				t.Errorf("%d answers: nothing was too big", a.answers())
			}
			a.balanced()
			b.balanced()
		})
	}
}

// openTAP is a TAP device whose frames begin with a virtio header, as a virtual machine monitor uses it.
func openTAP(t *testing.T, h *testHost, name string) *os.File {
	t.Helper()
	fd := -1
	must(t, h.ns.Run(func() (err error) {
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
			return err
		}
		req, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		return unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}))
	f := os.NewFile(uintptr(fd), "/dev/net/tun")
	t.Cleanup(func() { f.Close() })
	must(t, h.ns.SetSysctl("net/ipv6/conf/"+name+"/disable_ipv6", "1"))
	must(t, h.ns.SetUp(name))
	return f
}

// TestTAPIsAnswered: a virtual machine sends an aggregate, its TCP checksum still to be computed; what comes back is a plain frame.
func TestTAPIsAnswered(t *testing.T) {
	s := newScene(t, false)
	s.resolve()
	f := openTAP(t, s.a, "wefttap0")
	l, err := s.a.ns.LinkByName("wefttap0")
	must(t, err)
	mac := wire.MAC{2, 0, 0, 0, 0, 0x77}
	must(t, s.a.dp.AttachPort(Port{Ifindex: uint32(l.Index), ID: 77, UID: "tap", VNI: 7, MACs: []wire.MAC{mac}}))
	putNetwork(func(n *Network) { n.MTU = 1300 })(s)
	for name, c := range map[string]struct {
		ip6  bool
		head []byte // virtio: flags, GSO type, header length, segment size, checksum start and offset
	}{
		"plain":             {false, []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
		"checksum":          {false, []byte{1, 0, 0, 0, 0, 0, 34, 0, 6, 0}},
		"checksum, IPv6":    {true, []byte{1, 0, 0, 0, 0, 0, 54, 0, 6, 0}},
		"aggregate, 1460":   {false, []byte{1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0}},
		"aggregate, IPv6":   {true, []byte{1, 4, 74, 0, 0xb4, 5, 54, 0, 16, 0}},
		"IPv6 and no offer": {true, []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
	} {
		n := 1400
		if c.head[1] != 0 {
			n = 6000
		}
		b := s.big(macRemote, c.ip6, n)
		copy(b[6:12], mac[:])
		if c.head[1] != 0 { // a TCP header
			if l4 := int(c.head[6]); c.ip6 {
				b[20], b[l4+12] = 6, 0x50
			} else {
				b[23], b[l4+12] = 6, 0x50
				fixIP(b)
			}
		}
		_, err := f.Write(append(append([]byte{}, c.head...), b...))
		must(t, err)
		must(t, f.SetReadDeadline(time.Now().Add(patience)))
		got := make([]byte, 4096)
		m, err := f.Read(got)
		if err != nil {
			t.Errorf("%s: no answer: %v", name, err)
			continue
		}
		if !bytes.Equal(got[:2], []byte{0, 0}) {
			t.Errorf("%s: the answer asks for more work: virtio header %x", name, got[:10])
		}
		checkAnswer(t, name, got[10:m], b, 1300)
	}
	s.a.balanced()
}
