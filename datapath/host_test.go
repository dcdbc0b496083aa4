package datapath

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/internal/testenv"
	"github.com/weftnet/weft/wire"
)

// The fixture: namespaces as hosts, each with a datapath, joined by a veth underlay; namespaces as workloads behind ports.
//
//	workload eth0 --- weftpN [host a] up0 --- up0 [host b] weftpN --- eth0 workload
//	                  10.99.0.1, fd99::1      10.99.0.2, fd99::2

type testHost struct {
	t        *testing.T
	name     string
	ns       *netdev.Handle
	dp       *Datapath
	cfg      Config
	local    Local
	networks map[wire.VNI]Network
	nextID   PortID
}

type workload struct {
	host    *testHost
	ns      *netdev.Handle
	vni     wire.VNI
	ifindex uint32
	id      PortID
	mac     wire.MAC
	ip4     netip.Addr
	ip6     netip.Addr
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// patience is how long a test waits for what comes at once where nothing is broken: a machine may stand still for seconds.
const patience = 30 * time.Second

// await waits for a named condition.
func await(t testing.TB, what string, cond func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// namespace makes one that ends with the test.
func namespace(t *testing.T, suffix string) *netdev.Handle {
	t.Helper()
	name := fmt.Sprintf("wefttest-datapath-%d-%s", os.Getpid(), suffix)
	must(t, netdev.CreateNamespace(name))
	t.Cleanup(func() { must(t, netdev.DeleteNamespace(name)) })
	h, err := netdev.OpenName(name)
	must(t, err)
	t.Cleanup(h.Close)
	return h
}

// underlay joins the host namespaces a and b.
func underlay(t *testing.T, a, b *netdev.Handle) {
	t.Helper()
	p := netip.MustParsePrefix
	_, _, err := a.EnsureVeth(netdev.Veth{Name: "up0", MTU: 1600, Addresses: []netip.Prefix{p("10.99.0.1/24"), p("fd99::1/64")},
		Peer: netdev.VethPeer{Namespace: b, Name: "up0", Addresses: []netip.Prefix{p("10.99.0.2/24"), p("fd99::2/64")}}})
	must(t, err)
	await(t, "the underlay carries IPv6", func() bool { // duplicate address detection
		ready := true
		for _, h := range []*netdev.Handle{a, b} {
			l, err := h.LinkByName("up0")
			must(t, err)
			ready = ready && l.Running
		}
		return ready
	})
}

func newHost(t *testing.T, ns *netdev.Handle, name string, local Local) *testHost {
	t.Helper()
	h := closedHost(t, ns, name, local)
	openAll(t, h)
	h.closeLater()
	return h
}

// closedHost is one whose datapath is not open yet.
func closedHost(t *testing.T, ns *netdev.Handle, name string, local Local) *testHost {
	t.Helper()
	testenv.RaiseBacklog(t)
	h := &testHost{t: t, name: name, ns: ns, local: local, networks: map[wire.VNI]Network{}}
	h.cfg = Config{PinRoot: fmt.Sprintf("/sys/fs/bpf/wefttest-datapath-%d-%s", os.Getpid(), name), Uplink: "up0", Local: local,
		Limits: LabLimits(), tracePriority: tracePriority}
	t.Cleanup(func() {
		must(t, ns.Run(func() error { return Remove(h.cfg.PinRoot) }))
	})
	return h
}

func (h *testHost) closeLater() {
	h.t.Cleanup(func() {
		if h.t.Failed() {
			h.explain()
		}
		must(h.t, h.dp.Close())
	})
}

func (h *testHost) open() {
	h.t.Helper()
	must(h.t, h.ns.Run(func() (err error) {
		h.dp, err = Open(h.cfg)
		return err
	}))
}

// openAll opens the hosts' datapaths, a few at a time: most of it is the verifier's work.
func openAll(t *testing.T, hosts ...*testHost) {
	t.Helper()
	turns, ended := make(chan struct{}, runtime.NumCPU()), make(chan error)
	for _, h := range hosts {
		go func() {
			turns <- struct{}{}
			ended <- h.ns.Run(func() (err error) {
				h.dp, err = Open(h.cfg)
				return err
			})
			<-turns
		}()
	}
	var errs error
	for range hosts {
		errs = errors.Join(errs, <-ended)
	}
	must(t, errs)
}

// explain says what a failed test's host saw.
func (h *testHost) explain() {
	books, _ := h.dp.Books()
	drops, _ := h.dp.Drops()
	lanes, _ := h.dp.Lanes()
	h.t.Logf("%s: books %+v", h.name, books)
	h.t.Logf("%s: drops %v", h.name, drops)
	h.t.Logf("%s: lanes %v\n%s", h.name, lanes, strings.Join(h.dp.Programs(10), "\n"))
}

// twoHosts is the fixture with VTEPs of one IP version, each other's VTEP 1.
func twoHosts(t *testing.T, ip6 bool) (a, b *testHost) {
	t.Helper()
	testenv.Require(t, "root", "bpf")
	nsA, nsB := namespace(t, "a"), namespace(t, "b")
	underlay(t, nsA, nsB)
	la, lb := Local{UDPPort: 4789, UplinkMTU: 1600}, Local{UDPPort: 4789, UplinkMTU: 1600}
	if ip6 {
		la.Addr6, lb.Addr6 = netip.MustParseAddr("fd99::1"), netip.MustParseAddr("fd99::2")
	} else {
		la.Addr4, lb.Addr4 = netip.MustParseAddr("10.99.0.1"), netip.MustParseAddr("10.99.0.2")
	}
	a, b = closedHost(t, nsA, "a", la), closedHost(t, nsB, "b", lb)
	openAll(t, a, b)
	a.closeLater()
	b.closeLater()
	must(t, a.dp.PutVTEPs([]VTEP{{ID: 1, Addr: lb.addr(), UDPPort: 4789}}))
	must(t, b.dp.PutVTEPs([]VTEP{{ID: 1, Addr: la.addr(), UDPPort: 4789}}))
	return a, b
}

func (l Local) addr() netip.Addr {
	if l.Addr4.IsValid() {
		return l.Addr4
	}
	return l.Addr6
}

// join makes a network known on both hosts, each the other's flood receiver.
func join(t *testing.T, vni wire.VNI, a, b *testHost) {
	t.Helper()
	for _, h := range []*testHost{a, b} {
		h.putNetwork(Network{VNI: vni, MTU: 1500, Remotes: []VTEPID{1}})
	}
	must(t, a.dp.PutAccepts([]Accept{{vni, b.local.addr()}}))
	must(t, b.dp.PutAccepts([]Accept{{vni, a.local.addr()}}))
}

func (h *testHost) putNetwork(n Network) {
	h.t.Helper()
	h.networks[n.VNI] = n
	must(h.t, h.dp.PutNetwork(n))
}

// workload makes a namespace behind a port of h: 10.0.0.N and fd00::N. Its MAC ends with N; other is told where it is.
func (h *testHost) workload(vni wire.VNI, n byte, other *testHost) *workload {
	t := h.t
	t.Helper()
	w := &workload{host: h, vni: vni, mac: wire.MAC{0x02, 0, 0, 0, 0, n}, ip4: netip.AddrFrom4([4]byte{10, 0, 0, n}),
		ip6: netip.MustParseAddr(fmt.Sprintf("fd00::%x", n))}
	h.nextID++
	w.id = h.nextID
	w.ns = namespace(t, fmt.Sprintf("%s-w%d-%d", h.name, vni, n))
	near, _, err := h.ns.EnsureVeth(netdev.Veth{Name: fmt.Sprintf("weftp%d", w.id), MTU: 1500, Quiet: true,
		Peer: netdev.VethPeer{Namespace: w.ns, Name: "eth0", MAC: w.mac,
			Addresses: []netip.Prefix{netip.PrefixFrom(w.ip4, 24), netip.PrefixFrom(w.ip6, 64)}}})
	must(t, err)
	w.ifindex = uint32(near.Index)
	must(t, h.dp.AttachPort(w.port()))
	must(t, h.dp.PutFDB([]FDBEntry{{FDBKey: FDBKey{vni, w.mac}, Ifindex: w.ifindex, Flags: FDBPeer}}))
	if other != nil {
		must(t, other.dp.PutFDB([]FDBEntry{{FDBKey: FDBKey{vni, w.mac}, VTEP: 1}}))
	}
	net := h.networks[vni]
	net.LocalPorts = append(net.LocalPorts[:len(net.LocalPorts):len(net.LocalPorts)], w.ifindex)
	h.putNetwork(net)
	return w
}

func (w *workload) port() Port {
	return Port{Ifindex: w.ifindex, ID: w.id, UID: fmt.Sprintf("uid-%d", w.id), VNI: w.vni, MACs: []wire.MAC{w.mac}}
}

// balanced checks the books: in = delivered + encapsulated + passed + answered + dropped, and what the drop counters say. A packet may be under way while
// they are read (the underlay has its own neighbour traffic), so they are read until they balance.
func (h *testHost) balanced() {
	h.t.Helper()
	var why string
	deadline := time.Now().Add(patience)
	for why = h.imbalance(); why != "" && time.Now().Before(deadline); why = h.imbalance() {
		time.Sleep(time.Millisecond)
	}
	if why != "" {
		h.t.Errorf("%s: %s", h.name, why)
	}
}

func (h *testHost) imbalance() string {
	h.t.Helper()
	books, err := h.dp.Books()
	must(h.t, err)
	drops, err := h.dp.Drops()
	must(h.t, err)
	var named, dropped uint64
	for _, d := range drops {
		if !d.Source.IsValid() && !d.Reason.IsCopy() {
			named += d.Packets
		}
	}
	for _, b := range books {
		if b.In != b.Delivered+b.Encapsulated+b.Passed+b.Answered+b.Dropped {
			return fmt.Sprintf("the books of %s do not balance: %+v", b.Program, b)
		}
		dropped += b.Dropped
	}
	if named != dropped {
		return fmt.Sprintf("%d drops in the books, %d by name: %v", dropped, named, drops)
	}
	return ""
}

func (h *testHost) drops(reason DropReason) (n uint64) {
	h.t.Helper()
	list, err := h.dp.Drops()
	must(h.t, err)
	for _, d := range list {
		if d.Reason == reason && !d.Source.IsValid() {
			n += d.Packets
		}
	}
	return n
}

func (h *testHost) lane(reason LaneReason) (n uint64) {
	h.t.Helper()
	list, err := h.dp.Lanes()
	must(h.t, err)
	for _, c := range list {
		if c.Reason == reason {
			n = c.Packets
		}
	}
	return n
}
