package datapath

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/wire"
)

// Forged tunnel packets: every kind, many of each, none delivered. `make soak` sends more:
//
//	go test ./datapath -run TestForged -forged.packets 10000000
var forgedPackets = flag.Int("forged.packets", envInt("WEFT_FORGED_PACKETS", 100_000), "forged packets to send of every kind")

// forgery is one kind. Its packets are right in everything but what the kind is about: were the check of that not there, a workload
// would get them.
type forgery struct {
	name string
	// red is the break in the product that this kind finds: each was made, and seen to turn the kind red.
	red string
	gun *gun
	// at is where the packets end, and reason why, source whose they are counted as; each is how many are counted for a round of the
	// gun, 1 if it is 0.
	at     *testHost
	reason DropReason
	source netip.Addr
	each   int
	// kernel names a counter of the host's kernel instead of a reason: what never reaches a program that would have to drop it.
	kernel string
}

// forgeScene is two hosts with VTEPs of both IP versions, and everybody who might forge:
//
//	                 w1, w8 (of another network)                    w2
//	                      |                                          |
//	[container] --- cont0 [host a] up0 --- the wire (b's end) --- up0 [host b]
//	10.77.0.2, fd77::2    10.99.0.1, fd99::1                      10.99.0.2, fd99::2
type forgeScene struct {
	t          *testing.T
	a, b       *testHost
	w1, w2, w8 *workload
	container  *netdev.Handle
	near, far  netdev.Link // cont0, and the container's end
	witnesses  map[string]*witness
	echoes     atomic.Uint64 // of the honest traffic between w1 and w2
}

var (
	addrA4, addrA6 = netip.MustParseAddr("10.99.0.1"), netip.MustParseAddr("fd99::1")
	addrB4, addrB6 = netip.MustParseAddr("10.99.0.2"), netip.MustParseAddr("fd99::2")
	// addrRogue4 and addrRogue6 are of the underlay and no VTEP's; addrOther4 is a second address of host a.
	addrRogue4, addrRogue6 = netip.MustParseAddr("10.99.0.77"), netip.MustParseAddr("fd99::77")
	addrOther4             = netip.MustParseAddr("10.99.0.11")
	addrNoVTEP4            = netip.MustParseAddr("10.99.0.200") // answers behind b's Ethernet address
	addrC4, addrC6         = netip.MustParseAddr("10.77.0.2"), netip.MustParseAddr("fd77::2")
	// macForged is the inner source of every forged packet.
	macForged = wire.MAC{0x02, 0x66, 0x6f, 0x72, 0x67, 0x64}
)

func newForgeScene(t *testing.T) *forgeScene {
	a, b := twoHosts(t, false)
	s := &forgeScene{t: t, a: a, b: b, container: namespace(t, "c"), witnesses: map[string]*witness{}}
	a.local.Addr6, b.local.Addr6 = addrA6, addrB6
	must(t, a.dp.SetLocal(a.local))
	must(t, b.dp.SetLocal(b.local))
	join(t, 7, a, b)
	join(t, 8, a, b)
	must(t, a.dp.DeleteAccepts([]Accept{{8, addrB4}})) // b has no port in it
	must(t, a.dp.PutAccepts([]Accept{{7, addrB6}}))
	must(t, b.dp.PutAccepts([]Accept{{7, addrA6}}))
	s.w1, s.w2, s.w8 = a.workload(7, 1, b), b.workload(7, 2, a), a.workload(8, 3, nil)
	must(t, s.w8.ns.SetSysctl("net/ipv6/conf/eth0/disable_ipv6", "1")) // what it says of itself at its own times, nobody on b receives: a drop of its own
	for name, w := range map[string]*workload{"w1": s.w1, "w2": s.w2, "w8": s.w8} {
		s.witnesses[name] = newWitness(t, w.ns, "eth0", quote(macForged))
	}
	must(t, a.ns.AddAddress("up0", netip.PrefixFrom(addrOther4, 24)))
	p := netip.MustParsePrefix
	var err error
	s.near, s.far, err = a.ns.EnsureVeth(netdev.Veth{Name: "cont0", MTU: 1600, Addresses: []netip.Prefix{p("10.77.0.1/24"), p("fd77::1/64")},
		Peer: netdev.VethPeer{Namespace: s.container, Name: "eth0", Addresses: []netip.Prefix{p("10.77.0.2/24"), p("fd77::2/64")}}})
	must(t, err)
	for _, key := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv4/conf/cont0/accept_local"} {
		must(t, a.ns.SetSysctl(key, "1"))
	}
	must(t, a.ns.Run(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.ParentIndex, attrs.Namespace = "mac0", int(a.uplink()), netlink.NsFd(s.container.FD())
		return netlink.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE})
	}))
	must(t, s.container.SetUp("mac0"))
	s.joinGroups()
	s.introduce()
	s.w2.echo()
	s.talk()
	return s
}

// introduce tells a and b each other's Ethernet addresses: the kernel is not to hold a forged packet back while it asks.
func (s *forgeScene) introduce() {
	s.t.Helper()
	for _, way := range [][2]*testHost{{s.a, s.b}, {s.b, s.a}} {
		near, err := way[0].ns.LinkByName("up0")
		must(s.t, err)
		far, err := way[1].ns.LinkByName("up0")
		must(s.t, err)
		for _, addr := range []netip.Addr{way[1].local.Addr4, way[1].local.Addr6, addrNoVTEP4} {
			must(s.t, way[0].ns.SetNeighbour(near.Index, addr, far.MAC))
		}
	}
	for dst, via := range map[string]string{"10.99.0.0/24": "10.77.0.1", "fd99::/64": "fd77::1"} {
		must(s.t, s.container.ReplaceRoute(netdev.Route{Dst: netip.MustParsePrefix(dst), Hops: []netdev.Hop{{Gateway: netip.MustParseAddr(via), Index: s.far.Index}}}))
	}
}

// talk has w1 call w2 again and again until the test ends: honest traffic through the same tunnel. By one socket: while another comes or goes in the
// kernel's table, which all namespaces share, a lookup may miss one that is there, once in a million packets; what was to be unmarked is then "Udp NoPorts".
func (s *forgeScene) talk() {
	stop, done := make(chan struct{}), make(chan struct{})
	s.t.Cleanup(func() { close(stop); <-done })
	c, err := s.w1.caller(s.w2.ip4)
	must(s.t, err)
	go func() {
		defer close(done)
		defer c.Close()
		for {
			select {
			case <-stop:
				return
			default:
			}
			if call(c, 100) == nil {
				s.echoes.Add(1)
			}
		}
	}()
}

// dropped is how many packets were dropped for a reason, and how many of them were counted as this source's.
func (h *testHost) dropped(reason DropReason, source netip.Addr) (n, bySource uint64) {
	h.t.Helper()
	var per []uint64
	must(h.t, h.dp.maps["drops"].Lookup(bpf.TCDropKey{Reason: uint32(reason)}, &per))
	for _, v := range per {
		n += v
	}
	if source.IsValid() { // not there before the first
		_ = h.dp.maps["drop_sources"].Lookup(bpf.TCDropSourceKey{Reason: uint32(reason), Source: addrOf(source)}, &bySource)
	}
	return n, bySource
}

// kernelCount is a counter of the host's kernel: "IpExt InNoRoutes" of IPv4, "Ip6ReasmReqds" of IPv6, "up0 rx_otherhost_dropped" of an interface.
func (h *testHost) kernelCount(name string) uint64 {
	h.t.Helper()
	if group, field, _ := strings.Cut(name, " "); strings.HasPrefix(field, "rx_") {
		return h.linkCount(group, field)
	}
	n, ok := h.kernelCounts()[name]
	if !ok {
		h.t.Fatalf("the kernel has no counter %s", name)
	}
	return n
}

// kernelCounts are all of a host's, and what the machine's cores had no room for.
func (h *testHost) kernelCounts() map[string]uint64 {
	h.t.Helper()
	var text string
	must(h.t, h.ns.Run(func() error {
		for _, file := range []string{"snmp", "netstat", "snmp6"} {
			b, err := os.ReadFile("/proc/thread-self/net/" + file)
			if err != nil {
				return err
			}
			text += string(b)
		}
		return nil
	}))
	counts := map[string]uint64{}
	note := func(name, value string, base int) {
		if n, err := strconv.ParseUint(value, base, 64); err == nil { // Tcp MaxConn is -1
			counts[name] += n
		}
	}
	var names []string
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		group, two := strings.CutSuffix(words[0], ":")
		switch {
		case !two:
			note(words[0], words[1], 10)
		case names == nil:
			names = words // a line of names, then one of numbers
		default:
			for i, name := range names[1:] {
				note(group+" "+name, words[i+1], 10)
			}
			names = nil
		}
	}
	b, err := os.ReadFile("/proc/net/softnet_stat")
	must(h.t, err)
	for line := range strings.Lines(string(b)) {
		note("the machine's softnet dropped", strings.Fields(line)[1], 16)
	}
	return counts
}

// TestForged sends forged tunnel packets of every kind, and honest ones all the while: none of the forged ones may reach a workload,
// every single one is counted for the right reason and sender, and the honest ones go on. What turns each kind red stands in its row.
func TestForged(t *testing.T) {
	s := newForgeScene(t)
	s.sendAll(slices.Concat(s.fromWire(), s.overLoopback(), s.fromUser(), s.fromContainer(), s.fromRoot(), s.toGroups(), s.ofGroups()))
}

// TestForgedXDP does so with the XDP lane on a's uplink and ports, for what comes in there.
func TestForgedXDP(t *testing.T) {
	s := newForgeScene(t)
	for _, h := range []*testHost{s.a, s.b} {
		must(t, h.ns.SetFeature("up0", netdev.GRO, true)) // or the other end's frames from XDP are lost
		must(t, h.ns.SetFeature("up0", netdev.TX, false))
	}
	must(t, s.a.dp.Close())
	s.a.cfg.XDP, s.a.cfg.Local = true, s.a.local
	s.a.open()
	s.w1.fast()
	s.w8.fast()
	s.sendAll(slices.Concat(s.fromWire(), s.toGroups()))
	// All but what comes tagged, in fragments, behind extension headers or for other addresses.
	if b := s.a.book("xdp_from_uplink"); b.Dropped < uint64(8**forgedPackets) {
		t.Errorf("the XDP lane dropped few of them itself: %+v", b)
	}
}

func (s *forgeScene) sendAll(list []forgery) {
	await(s.t, "w1 and w2 talk", func() bool { return s.echoes.Load() > 0 })
	s.positive()
	for _, f := range list {
		s.t.Run(strings.ReplaceAll(f.name, " ", "-"), func(t *testing.T) { s.send(t, f, *forgedPackets) })
	}
	s.positive()
	s.a.balanced()
	s.b.balanced()
}

// positive: with nothing forged but the inner source MAC the same packet arrives. What shows nothing delivered can show it.
func (s *forgeScene) positive() {
	s.t.Helper()
	for _, way := range []struct {
		to      *workload
		witness string
		from    *testHost
	}{{s.w1, "w1", s.b}, {s.w2, "w2", s.a}} {
		armed := armFrames(s.t, way.from.ns, "up0", true, way.to.host.tunnel(way.from, 7, s.inner(way.to), nil))
		must(s.t, armed.fire(1))
		n := 0
		await(s.t, "a right packet arrives at "+way.witness, func() bool { n += s.witnesses[way.witness].count(s.t); return n == 1 })
	}
}

// inner is what a forger would have a workload believe.
func (s *forgeScene) inner(to *workload) []byte {
	return frame(s.t, to.mac, macForged, netip.MustParseAddr("10.0.0.66"), to.ip4, 40)
}

// volley is how many packets are under way at once: less than the kernel's queues hold, of which a veth's with XDP has 256 places.
const volley = 200

// send sends n packets of a kind and says where they went.
func (s *forgeScene) send(t *testing.T, f forgery, n int) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("goes red when: %s", f.red)
		}
	}()
	hosts := map[string]*testHost{"a": s.a, "b": s.b, "the container": {t: t, ns: s.container}}
	was := map[string]map[string]uint64{}
	for name, h := range hosts {
		was[name] = h.kernelCounts()
	}
	defer func() {
		if !t.Failed() {
			return
		}
		for name, h := range hosts {
			for count, now := range h.kernelCounts() {
				if now != was[name][count] {
					t.Logf("the kernel of %s has counted: %s %d", name, count, now-was[name][count])
				}
			}
		}
	}()
	each := max(1, f.each)
	n = n / each * each
	before := s.allDrops(f.at)
	counted := func() uint64 { return f.at.kernelCount(f.kernel) }
	if f.kernel == "" {
		counted = func() uint64 { n, _ := f.at.dropped(f.reason, f.source); return n }
	}
	base, echoes := counted(), s.echoes.Load()
	var ofSource uint64
	if f.kernel == "" {
		_, ofSource = f.at.dropped(f.reason, f.source)
	}
	begin := time.Now()
	for sent := 0; sent < n; {
		k := min(volley, n-sent)
		must(t, f.gun.fire(k/each))
		sent += k
		want := base + uint64(sent)
		for end := time.Now().Add(5 * time.Millisecond); counted() < want && time.Now().Before(end); {
			runtime.Gosched() // mostly they are counted by now; a sleep beside the honest traffic takes ten times as long as it says
		}
		await(t, fmt.Sprintf("%d forged packets are counted", sent), func() bool { return counted() >= want })
		if echoes != 0 && sent >= n/2 {
			await(t, "honest traffic goes on", func() bool { return s.echoes.Load() > echoes })
			echoes = 0
		}
	}
	took := time.Since(begin)
	if got := counted() - base; got != uint64(n) {
		t.Errorf("%d were sent, and %d counted", n, got)
	}
	if f.source.IsValid() {
		var now uint64 // a program counts by reason first, and then by source
		await(t, fmt.Sprintf("%d are counted as those of %s", n, f.source), func() bool {
			_, now = f.at.dropped(f.reason, f.source)
			return now-ofSource >= uint64(n)
		})
		if now-ofSource != uint64(n) {
			t.Errorf("%d were sent, and %d counted as those of %s", n, now-ofSource, f.source)
		}
	}
	if f.kernel == "" {
		before[f.reason.String()] += n
	}
	if now := s.allDrops(f.at); !maps.Equal(now, before) {
		t.Errorf("drops are %v, want %v", now, before)
	}
	delivered := 0
	for name, w := range s.witnesses {
		got := w.count(t)
		delivered += got
		if got != 0 {
			t.Errorf("%s was given %d forged packets", name, got)
		}
	}
	t.Logf("%d sent in %s, %d counted as %s, %d delivered", n, took.Round(time.Millisecond), counted()-base, cmp.Or(f.kernel, f.reason.String()), delivered)
}

// allDrops counts every reason that is about whole packets.
func (s *forgeScene) allDrops(h *testHost) map[string]int {
	n := map[string]int{}
	list, err := h.dp.Drops()
	must(s.t, err)
	for _, c := range list {
		if !c.Source.IsValid() && !c.Reason.IsCopy() {
			n[c.Reason.String()] += int(c.Packets)
		}
	}
	return n
}
