package accept_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/lab"
	"github.com/weftnet/weft/lab/probe"
	"github.com/weftnet/weft/wire"
)

// outer is what is before an inner frame, by tshark's names, and what weft writes there whatever is inside.
type outer struct {
	// overhead in octets: Ethernet, IP, UDP and VXLAN headers.
	overhead      int
	src, dst, ttl string
	want          map[string]string
}

var outers = map[int]outer{
	4: {overhead: wire.Overhead4, src: "ip.src", dst: "ip.dst", ttl: "ip.ttl", want: map[string]string{
		"ip.flags.df": "1", "ip.flags.mf": "0", "ip.flags.rb": "0", "ip.frag_offset": "0", "ip.checksum.status": "1"}},
	6: {overhead: wire.Overhead6, src: "ipv6.src", dst: "ipv6.dst", ttl: "ipv6.hlim", want: map[string]string{"ipv6.nxt": "17"}},
}

// wireVNI has three different octets.
const wireVNI = 0x123456

var wireFields = []string{"frame.protocols", "frame.len", "eth.src", "eth.dst", "ip.src", "ip.dst", "ip.ttl", "ip.flags.df", "ip.flags.mf", "ip.flags.rb", "ip.frag_offset",
	"ip.dsfield", "ip.checksum.status", "ipv6.src", "ipv6.dst", "ipv6.hlim", "ipv6.nxt", "ipv6.flow", "udp.srcport", "udp.dstport", "udp.checksum", "udp.checksum.status", "udp.length",
	"tcp.srcport", "tcp.dstport", "tcp.checksum.status", "vxlan.flags", "vxlan.gbp", "vxlan.vni", "vxlan.reserved8",
	"arp.opcode", "icmp.type", "icmp.checksum.status", "icmpv6.type", "icmpv6.checksum.status", "_ws.malformed"}

// wirePair is a network with a workload on h1 and one on h2, whose kernels fill in their checksums themselves, so that
// a reader on the way can verify them.
func wirePair(t *testing.T, f *fixture, tenant string, vni uint32) (a, b *workload) {
	f.tenant(t, tenant)
	f.network(t, tenant, "blue", &weftv1.NetworkSpec{Vni: vni, Subnets: []string{"10.1.0.0/24", "fd00:1::/64"},
		Neighbours: weftv1.Neighbours_NEIGHBOURS_FLOOD}) // or the hosts would answer ARP, and none would be on the wire
	pair := [2]*workload{}
	for i := range pair {
		pair[i] = f.workload(t, lab.WorkloadSpec{Name: fmt.Sprintf("%s-%d", tenant, i+1), Host: fmt.Sprintf("h%d", i+1), Tenant: tenant, Network: "blue",
			IPs: []string{fmt.Sprintf("10.1.0.1%d", i+1), fmt.Sprintf("fd00:1::1%d", i+1)}, MACs: []string{fmt.Sprintf("02:00:00:00:01:1%d", i+1)}})
		if err := pair[i].ns.SetFeature("eth0", netdev.TX, false); err != nil {
			t.Fatal(err)
		}
	}
	return pair[0], pair[1]
}

func mac(t testing.TB, s string) wire.MAC {
	t.Helper()
	m, err := wire.ParseMAC(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// handmade are frames that a guest's kernel would not send by itself, with every checksum in place.
func handmade(t testing.TB, a, b *workload) [][]byte {
	am, bm := mac(t, a.MACs[0]), mac(t, b.MACs[0])
	v4 := wire.Flow{SrcMAC: am, DstMAC: bm, Src: a.v4(), Dst: b.v4(), TTL: 17, TOS: 0x28, ID: 0xbeef}
	v6 := wire.Flow{SrcMAC: am, DstMAC: bm, Src: a.v6(), Dst: b.v6(), TTL: 19, TOS: 0x50, FlowLabel: 0xabcde}
	octets := func(n int, seed byte) []byte {
		p := make([]byte, n)
		for i := range p {
			p[i] = seed + byte(i*7)
		}
		return p
	}
	foreign := append(append(append(append([]byte(nil), bm[:]...), am[:]...), 0x88, 0xb5), octets(80, 0x11)...) // local experimental ethertype
	return [][]byte{
		v4.UDP(20001, 9, octets(1, 1)),
		v4.UDP(20002, 9, octets(1472, 2)), // 1500 octets
		v6.UDP(20003, 9, octets(33, 3)),
		v6.UDP(20004, 9, octets(1452, 4)), // 1500 octets
		wire.ARP{Op: wire.ARPRequest, SenderMAC: am, SenderIP: a.v4(), TargetIP: b.v4().Next()}.Frame(),
		wire.Solicitation(am, a.v6(), b.v6().Next()),
		foreign,
	}
}

// TestTsharkReadsTheWire: what leaves h1 is VXLAN by tshark's reading, outside and inside.
// Goes red when encap.h writes the VNI a bit off, leaves the checksum of the outer UDP non-zero, or takes the outer source port
// from a constant; when from_port.c forwards ARP or IPv6 elsewhere than into the tunnel; when an octet of the inner frame is lost.
func TestTsharkReadsTheWire(t *testing.T) {
	readTheWire(t, sharedLab(t), 4)
}

// readTheWire has everything sent that a network carries, and read by tshark on the way from h1.
func readTheWire(t *testing.T, f *fixture, underlay int) {
	a, b := wirePair(t, f, "wire", wireVNI)
	leaf := f.node(t, "leaf1")
	c := startCapture(t, leaf, "to-h1")

	// The guests' own traffic, with their own search for each other.
	reaches(t, a.ns, b.v4())
	reaches(t, a.ns, b.v6())
	for _, dst := range []netip.Addr{b.v4(), b.v6()} {
		exchange(t, a.ns, b.ns, dst, 20)
	}
	const flows = 200
	for _, dst := range []netip.Addr{b.v4(), b.v6()} {
		if _, err := probe.Spread(limited(t), a.ns, dst, flows, 3); err != nil {
			t.Fatal(err)
		}
	}
	made := handmade(t, a, b)
	inject(t, a.ns, "eth0", made...)
	eventually(t, "every handmade frame is in the tunnel", func() (bool, string) { // the CPUs may take them in another order
		var times []int
		for _, m := range made {
			times = append(times, c.count(m))
		}
		return !slices.Contains(times, 0), fmt.Sprintf("%d frames captured, the handmade ones %v times", len(c.frames()), times)
	})
	frames := tunnelled(c.stop(), 4789)
	for i, m := range made {
		n := 0
		for _, fr := range frames {
			if bytes.Equal(fr[outers[underlay].overhead:], m) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("the handmade frame %d is in the tunnel %d times, octet for octet, want once", i, n)
		}
	}
	checkOuter(t, f, outers[underlay], decode(t, frames, wireFields...), flows)
}

// tunnelled picks the frames for a UDP port.
func tunnelled(all [][]byte, port uint16) (list [][]byte) {
	for _, f := range all {
		l4 := 0
		switch {
		case len(f) > wire.Overhead4 && f[12] == 0x08 && f[13] == 0x00 && f[23] == 17:
			l4 = 34
		case len(f) > wire.Overhead6 && f[12] == 0x86 && f[13] == 0xdd && f[20] == 17:
			l4 = 54
		}
		if l4 > 0 && binary.BigEndian.Uint16(f[l4+2:]) == port {
			list = append(list, f)
		}
	}
	return list
}

func checkOuter(t *testing.T, f *fixture, o outer, rows []row, flows int) {
	t.Helper()
	s, err := f.State()
	if err != nil {
		t.Fatal(err)
	}
	var ends []string
	for _, h := range s.Hosts {
		ends = append(ends, h.VTEPAddress)
	}
	faults, kinds := map[string]int{}, map[string]int{}
	sources, labels := map[string]map[string]bool{}, map[string]map[string]bool{}
	for _, r := range rows {
		if !strings.Contains(r.at("frame.protocols", 0), "udp:vxlan:eth") {
			faults["not VXLAN: "+r.at("frame.protocols", 0)]++
			continue
		}
		vni, outerPort := r.at("vxlan.vni", 0), r.at("udp.srcport", 0)
		if vni != strconv.Itoa(wireVNI) {
			// Agents prove the kernel lane to each other now and then, under a VNI of their own; other tests may leave late frames.
			kinds["of another VNI"]++
			continue
		}
		want := maps.Clone(o.want)
		maps.Copy(want, map[string]string{"vxlan.flags": "0x0800", "vxlan.gbp": "0", "vxlan.reserved8": "0", "udp.dstport": "4789", "udp.checksum": "0x0000"})
		for field, v := range want {
			if r.at(field, 0) != v {
				faults[fmt.Sprintf("outer %s is %s, want %s", field, r.at(field, 0), v)]++
			}
		}
		src, dst := r.at(o.src, 0), r.at(o.dst, 0)
		if !slices.Contains(ends, src) || !slices.Contains(ends, dst) || src == dst {
			faults["tunnel from "+src+" to "+dst]++
		}
		// Of this host itself, or through two leaves and a spine.
		hops := map[bool]string{true: "64", false: "61"}[src == ends[0]]
		if r.at(o.ttl, 0) != hops {
			faults[fmt.Sprintf("outer TTL %s from %s, want %s", r.at(o.ttl, 0), src, hops)]++
		}
		if p, err := strconv.Atoi(outerPort); err != nil || p < wire.MinSourcePort || p > wire.MaxSourcePort {
			faults["outer source port "+outerPort]++
		}
		if octets, _ := strconv.Atoi(r.at("frame.len", 0)); r.at("udp.length", 0) != strconv.Itoa(octets-o.overhead+wire.UDPLen+wire.VXLANLen) {
			faults["outer UDP length "+r.at("udp.length", 0)+" of a frame of "+r.at("frame.len", 0)]++
		}
		if r.at("_ws.malformed", 0) != "" {
			faults["malformed: "+r.at("frame.protocols", 0)]++
		}
		kind := inside(r, faults)
		kinds[kind]++
		if flow := innerFlow(r); flow != "" {
			note(sources, flow, outerPort)
			if o.src == "ipv6.src" {
				note(labels, flow, r.at("ipv6.flow", 0))
			}
		}
	}
	for fault, n := range faults {
		t.Errorf("%d frames: %s", n, fault)
	}
	for _, kind := range []string{"ARP request", "ARP reply", "IPv4 echo", "IPv6 echo", "ND", "IPv4 UDP", "IPv6 UDP", "IPv4 TCP", "IPv6 TCP", "other"} {
		if kinds[kind] == 0 {
			t.Errorf("no %s in the capture: %v", kind, kinds)
		}
	}
	checkEntropy(t, "outer source port", sources, flows)
	if o.src == "ipv6.src" {
		checkEntropy(t, "outer flow label", labels, flows)
	}
	t.Logf("tshark read %d tunnel packets: %v", len(rows), kinds)
}

func note(seen map[string]map[string]bool, flow, value string) {
	if seen[flow] == nil {
		seen[flow] = map[string]bool{}
	}
	seen[flow][value] = true
}

// inside names what is in the tunnel, and notes what is wrong with it.
func inside(r row, faults map[string]int) string {
	proto := r.at("frame.protocols", 0)
	_, inner, _ := strings.Cut(proto, "vxlan:")
	good := func(field string) {
		if got := r.at(field, -1); got != "1" {
			faults[fmt.Sprintf("inner %s of %s is %s, want 1 (good)", field, inner, got)]++
		}
	}
	v6 := strings.Contains(inner, ":ipv6")
	family := map[bool]string{true: "IPv6", false: "IPv4"}[v6]
	if strings.Contains(inner, ":ip") && !v6 {
		good("ip.checksum.status")
	}
	switch {
	case strings.Contains(inner, ":arp"):
		return map[string]string{"1": "ARP request", "2": "ARP reply"}[r.at("arp.opcode", 0)]
	case strings.Contains(inner, ":icmpv6"):
		good("icmpv6.checksum.status")
		switch r.at("icmpv6.type", 0) {
		case "128", "129":
			return "IPv6 echo"
		case "135", "136":
			return "ND"
		}
		return "ICMPv6 " + r.at("icmpv6.type", 0)
	case strings.Contains(inner, ":icmp"):
		if ty := r.at("icmp.type", 0); ty != "0" && ty != "8" {
			return "ICMP " + ty
		}
		return family + " echo"
	case strings.Contains(inner, ":tcp"):
		good("tcp.checksum.status")
		return family + " TCP"
	case strings.Contains(inner, ":udp"):
		good("udp.checksum.status")
		return family + " UDP"
	}
	return "other"
}

// innerFlow is the key of a TCP or UDP flow inside.
func innerFlow(r row) string {
	_, inner, _ := strings.Cut(r.at("frame.protocols", 0), "vxlan:")
	if strings.Contains(inner, "icmp") {
		return ""
	}
	for _, l4 := range []string{"udp", "tcp"} {
		if strings.Contains(inner, ":"+l4) {
			return fmt.Sprintf("%s %s%s %s > %s%s %s", l4, r.at("ip.src", -1), r.at("ipv6.src", -1), r.at(l4+".srcport", -1),
				r.at("ip.dst", -1), r.at("ipv6.dst", -1), r.at(l4+".dstport", -1))
		}
	}
	return ""
}

// checkEntropy: one flow has one source port (or flow label, which is never 0), and many flows have many.
func checkEntropy(t *testing.T, what string, seen map[string]map[string]bool, flows int) {
	t.Helper()
	all := map[string]bool{}
	for flow, values := range seen {
		if len(values) != 1 {
			t.Errorf("the flow %s has %d values of %s, want one", flow, len(values), what)
		}
		for v := range values {
			all[v] = true
			if n, err := strconv.ParseUint(v, 0, 32); err != nil || n == 0 {
				t.Errorf("the flow %s has the %s %q", flow, what, v)
			}
		}
	}
	// 400 flows on 16,384 ports meet five times; a tenth is never reached by chance.
	if len(seen) < 2*flows || len(all) < len(seen)*9/10 {
		t.Errorf("%d flows have %d different values of %s; want at least %d flows, and nearly as many values", len(seen), len(all), what, 2*flows)
	}
	t.Logf("%d inner flows have %d values of %s", len(seen), len(all), what)
}

// exchange uses a TCP connection to and fro.
func exchange(t testing.TB, from, to *netdev.Handle, dst netip.Addr, times uint64) {
	t.Helper()
	const l4port = 7001
	echo, err := probe.StartEcho(limited(t), to, l4port)
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	s, err := probe.StartSession(limited(t), from, dst, l4port, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	eventually(t, fmt.Sprintf("%d lines went to %s and came back", times, dst), func() (bool, string) {
		r := s.Result()
		return r.Exchanges >= times && r.Err == nil, fmt.Sprintf("%+v", r)
	})
}

// TestFlowsSpreadOverSpines: 1,000 flows between two hosts, by the spines' own counters.
// Goes red when the outer source port is the same for every flow (hash.h returning a constant).
func TestFlowsSpreadOverSpines(t *testing.T) {
	f := sharedLab(t)
	a, b := wirePair(t, f, "spread", 0)
	for _, dst := range []netip.Addr{b.v4(), b.v6()} {
		reaches(t, a.ns, dst)
		before, err := f.SpineCounters(2)
		if err != nil {
			t.Fatal(err)
		}
		sent, err := probe.Spread(limited(t), a.ns, dst, 1000, 4)
		if err != nil {
			t.Fatal(err)
		}
		var counts []uint64
		eventually(t, "the spines have forwarded what was sent", func() (bool, string) {
			after, err := f.SpineCounters(2)
			if err != nil {
				return false, err.Error()
			}
			counts = []uint64{after[0] - before[0], after[1] - before[1]}
			return counts[0]+counts[1] >= uint64(sent), fmt.Sprintf("%v of %d", counts, sent)
		})
		share := float64(counts[0]) / float64(counts[0]+counts[1])
		if share < 0.4 || share > 0.6 {
			t.Errorf("1,000 flows to %s: the spines carried %v, want 40 to 60 %% each", dst, counts)
		}
		t.Logf("1,000 flows to %s: spine1 %.1f %%, spine2 %.1f %%", dst, 100*share, 100*(1-share))
	}
}
