package netdev

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/internal/testenv"
	"github.com/weftnet/weft/wire"
)

// namespace makes one that ends with the test.
func namespace(t *testing.T, suffix string) *Handle {
	t.Helper()
	testenv.Require(t, "root")
	name := fmt.Sprintf("wefttest-netdev-%d-%s", os.Getpid(), suffix)
	if err := CreateNamespace(name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := DeleteNamespace(name); err != nil {
			t.Error(err)
		}
	})
	h, err := OpenName(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func try[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		must(t, err)
		return v
	}
}

// patience is how long a test waits for what comes at once where nothing is broken: a machine may stand still for seconds.
const patience = 30 * time.Second

// await waits for a named condition.
func await(t *testing.T, what string, cond func() bool) {
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

var (
	macA = wire.MAC{0x02, 0, 0, 0, 0, 0xa}
	macB = wire.MAC{0x02, 0, 0, 0, 0, 0xb}
)

// pair joins two namespaces: a (10.9.0.1, fd09::1) and b (10.9.0.2, fd09::2).
func pair(t *testing.T) (a, b *Handle) {
	a, b = namespace(t, "a"), namespace(t, "b")
	_, _, err := a.EnsureVeth(Veth{
		Name: "up", MTU: 1400, MAC: macA,
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.9.0.1/24"), netip.MustParsePrefix("fd09::1/64")},
		Peer: VethPeer{Namespace: b, Name: "eth0", MAC: macB,
			Addresses: []netip.Prefix{netip.MustParsePrefix("10.9.0.2/24"), netip.MustParsePrefix("fd09::2/64")}},
	})
	must(t, err)
	return a, b
}

func TestNamespaceComesAndGoesWithoutTrace(t *testing.T) {
	h := namespace(t, "life")
	here := try(Current())(t)
	defer here.Close()
	if h.Same(here) {
		t.Fatal("the new namespace is the test's own")
	}
	name := strings.TrimPrefix(h.String(), NamespaceDir+"/")
	if err := CreateNamespace(name); !errors.Is(err, os.ErrExist) {
		t.Fatalf("creating it again: %v, want ErrExist", err)
	}
	if list := try(Namespaces("wefttest-netdev-"))(t); !slices.Contains(list, name) {
		t.Fatalf("%s is not in %v", name, list)
	}
	// Threads: whatever ran in the namespace is back, or gone.
	for range 50 {
		must(t, h.Run(func() error { return nil }))
	}
	tasks := try(os.ReadDir("/proc/self/task"))(t)
	for _, task := range tasks {
		th, err := OpenPath("/proc/self/task/" + task.Name() + "/ns/net")
		if err != nil {
			continue // the thread ended
		}
		if th.Same(h) {
			t.Errorf("thread %s stayed in the namespace", task.Name())
		}
		th.Close()
	}
	must(t, DeleteNamespace(name))
	must(t, DeleteNamespace(name))
	if NamespaceExists(name) {
		t.Fatal("it is still there")
	}
}

func TestRunSurvivesWhatDoesNotReturn(t *testing.T) {
	h := namespace(t, "exit")
	done := make(chan error, 1)
	go func() { done <- h.Run(func() error { runtime.Goexit(); return nil }) }()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "did not return") {
		t.Fatalf("got %v", err)
	}
	if _, err := OpenPath("/proc/self/ns/mnt"); err == nil {
		t.Fatal("a mount namespace was taken for a network namespace")
	}
	if _, err := OpenName("../../etc"); err == nil {
		t.Fatal("a name with slashes was taken")
	}
}

func TestVethIsPlacedAcrossAndCarries(t *testing.T) {
	a, b := pair(t)
	near, far := try(a.LinkByName("up"))(t), try(b.LinkByName("eth0"))(t)
	if near.MAC != macA || far.MAC != macB || near.MTU != 1400 || far.MTU != 1400 || !near.Running || !far.Running || near.Peer != far.Index {
		t.Fatalf("near %+v, far %+v", near, far)
	}
	for _, ip := range []string{"10.9.0.2", "fd09::2"} {
		l := try(b.Listen(t.Context(), "tcp", net.JoinHostPort(ip, "0")))(t)
		go func() {
			if c, err := l.Accept(); err == nil {
				c.Write([]byte("hello"))
				c.Close()
			}
		}()
		c := try(a.Dial(t.Context(), nil, "tcp", l.Addr().String()))(t)
		buf := make([]byte, 5)
		if _, err := c.Read(buf); err != nil || string(buf) != "hello" {
			t.Errorf("over %s: %q, %v", ip, buf, err)
		}
		c.Close()
		l.Close()
	}
	if s := try(a.Stats("up"))(t); s.TxPackets == 0 || s.RxPackets == 0 || s.TxOctets == 0 {
		t.Errorf("counters %+v", s)
	}
	addrs := try(b.Addresses("eth0"))(t)
	for _, x := range addrs {
		if x.Prefix.Addr() == netip.MustParseAddr("fd09::2") && x.Tentative {
			t.Error("the IPv6 address waits for duplicate address detection")
		}
	}
	must(t, b.SetAddresses("eth0", []netip.Prefix{netip.MustParsePrefix("10.9.0.3/24")}))
	if list := try(b.Addresses("eth0"))(t); !slices.ContainsFunc(list, func(x Address) bool { return x.Prefix.String() == "10.9.0.3/24" }) {
		t.Errorf("another address of the same subnet replaced the first, and both are gone: %v", list)
	}
	for _, x := range try(b.Addresses("eth0"))(t) {
		if !x.LinkLocal && x.Prefix != netip.MustParsePrefix("10.9.0.3/24") {
			t.Errorf("SetAddresses left %s", x.Prefix)
		}
	}
}

// A near end that is to stay down does, made or adopted; one that is up stays up.
func TestVethStaysDown(t *testing.T) {
	host, guest := namespace(t, "host"), namespace(t, "guest")
	v := Veth{Name: PortInterface("x"), Mark: Mark{"default", "x"}, Down: true, Peer: VethPeer{Namespace: guest, Name: "eth0"}}
	for range 2 {
		near, far, err := host.EnsureVeth(v)
		must(t, err)
		if near.Up || !far.Up {
			t.Errorf("near %+v, far %+v", near, far)
		}
	}
	must(t, host.SetUp(v.Name))
	if near, _, err := host.EnsureVeth(v); err != nil || !near.Up {
		t.Errorf("near %+v, %v", near, err)
	}
}

func TestVethOfOursIsAdoptedAndOthersAreLeft(t *testing.T) {
	host, guest, other := namespace(t, "host"), namespace(t, "guest"), namespace(t, "other")
	uid := "0123456789abcdef"
	v := Veth{Name: PortInterface(uid), Mark: Mark{"default", uid}, MTU: 1450, Quiet: true,
		Peer: VethPeer{Namespace: guest, Name: "eth0", MAC: macB, Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.5/24")}}}
	first, _, err := host.EnsureVeth(v)
	must(t, err)
	if len(first.Name) != 14 || !first.NoARP {
		t.Errorf("%+v", first)
	}
	for _, a := range try(host.Addresses(first.Name))(t) {
		t.Errorf("the quiet end has address %s", a.Prefix)
	}
	again, far, err := host.EnsureVeth(v)
	must(t, err)
	if again.Index != first.Index || far.MAC != macB {
		t.Errorf("it was made anew: %d, then %d", first.Index, again.Index)
	}
	v.Peer.Namespace = other
	moved, _, err := host.EnsureVeth(v)
	must(t, err)
	if moved.Index == first.Index {
		t.Error("the pair to another namespace was adopted")
	}
	if _, err := guest.LinkByName("eth0"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the old end is still there: %v", err)
	}

	// Another instance's, somebody else's, and one of our name without our alias.
	if own := try(host.Owned("default"))(t); len(own) != 1 || own[0].Name != v.Name {
		t.Errorf("owned: %+v", own)
	}
	if err := host.DeleteOwned(v.Name, "lab"); !errors.Is(err, ErrNotOwned) {
		t.Errorf("another instance may delete it: %v", err)
	}
	must(t, host.AddTAP("weftfake0"))
	if err := host.DeleteOwned("weftfake0", "default"); !errors.Is(err, ErrNotOwned) {
		t.Errorf("an unmarked interface may be deleted: %v", err)
	}
	v.Mark.Port = "fedcba"
	if _, _, err := host.EnsureVeth(v); !errors.Is(err, ErrNotOwned) {
		t.Errorf("another port's interface was taken: %v", err)
	}
	must(t, guest.AddTAP("eth0"))
	taken := Veth{Name: PortInterface("two"), Mark: Mark{"default", "two"}, Peer: VethPeer{Namespace: guest, Name: "eth0"}}
	if _, _, err := host.EnsureVeth(taken); !errors.Is(err, os.ErrExist) {
		t.Errorf("a name that is taken inside: %v, want ErrExist", err)
	}
	if _, err := host.LinkByName(taken.Name); !errors.Is(err, ErrNotFound) {
		t.Errorf("half a pair was left: %v", err)
	}
	must(t, host.DeleteOwned(v.Name, "default"))
	must(t, host.DeleteOwned(v.Name, "default"))
	if _, err := other.LinkByName("eth0"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the far end is still there: %v", err)
	}
}

func TestManagedNeighbourIsResolvedByTheKernel(t *testing.T) {
	a, _ := pair(t)
	up := try(a.LinkByName("up"))(t)
	for _, ip := range []string{"10.9.0.2", "fd09::2"} {
		addr := netip.MustParseAddr(ip)
		must(t, a.ManageNeighbour(up.Index, addr))
		must(t, a.ManageNeighbour(up.Index, addr))
		find := func() (n Neighbour, ok bool) {
			for _, n := range try(a.Neighbours(up.Index))(t) {
				if n.IP == addr {
					return n, true
				}
			}
			return n, false
		}
		await(t, "the kernel resolves "+ip+" by itself", func() bool {
			n, _ := find()
			return n.Managed && n.Resolved && n.MAC == macB
		})
		must(t, a.ReleaseNeighbour(up.Index, addr))
		if n, ok := find(); ok && n.Managed {
			t.Errorf("%s is still managed", ip)
		}
	}
	addr := netip.MustParseAddr("10.9.0.77")
	must(t, a.SetNeighbour(up.Index, addr, macA))
	must(t, a.ReleaseNeighbour(up.Index, addr))
	if all := try(a.Neighbours(up.Index))(t); !slices.ContainsFunc(all, func(n Neighbour) bool { return n.IP == addr && n.Permanent }) {
		t.Error("somebody's permanent neighbour was removed")
	}
}

func TestRoutesAreOursAndMultipath(t *testing.T) {
	a, _ := pair(t)
	up := try(a.LinkByName("up"))(t)
	hops4 := []Hop{{netip.MustParseAddr("10.9.0.2"), up.Index}, {netip.MustParseAddr("10.9.0.3"), up.Index}}
	hops6 := []Hop{{netip.MustParseAddr("fd09::2"), up.Index}, {netip.MustParseAddr("fd09::3"), up.Index}}
	for dst, hops := range map[string][]Hop{"198.18.0.0/15": hops4, "fd18::/32": hops6, "198.18.1.0/24": hops4[:1], "0.0.0.0/0": hops4[1:]} {
		r := Route{Dst: netip.MustParsePrefix(dst), Hops: hops}
		must(t, a.ReplaceRoute(r))
		must(t, a.ReplaceRoute(r))
	}
	for dst, want := range map[string][]Hop{
		"198.19.0.1": hops4, "fd18::1": hops6, "198.18.1.1": hops4[:1], "8.8.8.8": hops4[1:],
		"10.9.0.9": {{netip.MustParseAddr("10.9.0.9"), up.Index}},
	} {
		got := try(a.NextHops(netip.MustParseAddr(dst)))(t)
		slices.SortFunc(got, func(x, y Hop) int { return x.Gateway.Compare(y.Gateway) })
		if !slices.Equal(got, want) {
			t.Errorf("next hops to %s: %v, want %v", dst, got, want)
		}
	}
	if _, err := a.NextHops(netip.MustParseAddr("fd77::1")); err == nil {
		t.Error("a next hop where there is no route")
	}
	must(t, a.DeleteRoute(netip.MustParsePrefix("198.18.1.0/24")))
	must(t, a.DeleteRoute(netip.MustParsePrefix("198.18.1.0/24")))
	must(t, a.DeleteRoute(netip.MustParsePrefix("10.9.0.0/24"))) // the kernel's, not ours
	routes := try(a.Routes())(t)
	if !slices.ContainsFunc(routes, func(r Route) bool { return r.Dst == netip.MustParsePrefix("10.9.0.0/24") }) {
		t.Error("a foreign route was deleted")
	}
	for _, r := range routes {
		if r.Dst == netip.MustParsePrefix("198.18.1.0/24") {
			t.Error("our route stayed")
		}
		if r.Dst == netip.MustParsePrefix("198.18.0.0/15") && r.Protocol != RouteProtocol {
			t.Errorf("protocol %d", r.Protocol)
		}
	}
}

func TestSysctlAndProcessAreInTheNamespace(t *testing.T) {
	h := namespace(t, "proc")
	must(t, h.SetSysctl("net/ipv4/fib_multipath_hash_policy", "1"))
	if v := try(h.Sysctl("net/ipv4/fib_multipath_hash_policy"))(t); v != "1" {
		t.Errorf("read %q", v)
	}
	if v := try(os.ReadFile("/proc/sys/net/ipv4/fib_multipath_hash_policy"))(t); strings.TrimSpace(string(v)) != "0" {
		t.Error("it was set here too (or the machine has it set)")
	}
	if err := h.SetSysctl("net/ipv4/no_such_thing", "1"); !missingSysctl(err) {
		t.Errorf("missing setting: %v", err)
	}
	// The same mounts, another network: nsfs inode numbers tell.
	cmd := exec.Command("/bin/sh", "-c", "readlink /proc/self/ns/net; readlink /proc/self/ns/mnt")
	var out strings.Builder
	cmd.Stdout = &out
	must(t, h.Start(cmd))
	must(t, cmd.Wait())
	lines := strings.Fields(out.String())
	var want string
	must(t, h.Run(func() (err error) { want, err = os.Readlink(currentNamespace); return err }))
	mnt := try(os.Readlink("/proc/self/ns/mnt"))(t)
	if len(lines) != 2 || lines[0] != want || lines[1] != mnt {
		t.Errorf("the child is in %v, want %s and %s", lines, want, mnt)
	}
}

func TestFeaturesSwitch(t *testing.T) {
	a, _ := pair(t)
	for _, f := range []Feature{GRO, TSO, GSO, TX, "rx-udp-gro-forwarding"} {
		for _, on := range []bool{true, false} {
			must(t, a.SetFeature("up", f, on))
			if got := try(a.Feature("up", f))(t); got != on {
				t.Errorf("%s is %t, want %t", f, got, on)
			}
		}
	}
	if err := a.SetFeature("up", "no-such-feature", true); err == nil {
		t.Error("an unknown feature was switched")
	}
	if err := a.SetFeature("nothere", TSO, true); !errors.Is(err, ErrNotFound) {
		t.Errorf("missing interface: %v", err)
	}
}

func TestVXLANDevicesJoinTwoBridges(t *testing.T) {
	a, b := pair(t)
	for _, end := range []struct {
		h             *Handle
		underlay      string
		local, remote string
		inner         string
	}{{a, "up", "10.9.0.1", "10.9.0.2", "192.168.7.1/24"}, {b, "eth0", "10.9.0.2", "10.9.0.1", "192.168.7.2/24"}} {
		must(t, end.h.AddBridge("br0", 1350))
		must(t, end.h.AddVXLAN(VXLAN{Name: "vx0", VNI: 77, Local: netip.MustParseAddr(end.local), UDPPort: 4789, Underlay: end.underlay, MTU: 1350}))
		must(t, end.h.AddVXLANFDB("vx0", wire.MAC{}, netip.MustParseAddr(end.remote)))
		must(t, end.h.AddVXLANFDB("vx0", wire.MAC{}, netip.MustParseAddr(end.remote)))
		must(t, end.h.SetMaster("vx0", "br0"))
		must(t, end.h.AddAddress("br0", netip.MustParsePrefix(end.inner)))
		must(t, end.h.SetUp("vx0"))
		must(t, end.h.SetUp("br0"))
	}
	c := try(b.ListenPacket(t.Context(), "udp4", "192.168.7.2:0"))(t)
	defer c.Close()
	s := try(a.Dial(t.Context(), nil, "udp4", c.LocalAddr().String()))(t)
	defer s.Close()
	c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	await(t, "a datagram crosses the two vxlan devices", func() bool {
		s.Write([]byte("x"))
		_, _, err := c.ReadFrom(make([]byte, 10))
		c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		return err == nil
	})
	bridge := try(b.LinkByName("br0"))(t)
	if vx := try(b.LinkByName("vx0"))(t); vx.Kind != "vxlan" || vx.Master != bridge.Index {
		t.Errorf("%+v", vx)
	}
	must(t, b.DeleteLink("vx0"))
	must(t, b.DeleteLink("vx0"))
}

func TestTAPCarriesFrames(t *testing.T) {
	h := namespace(t, "tap")
	f := try(h.OpenTAP("tap0", false))(t)
	must(t, h.SetUp("tap0"))
	frame := append(append(slices.Repeat([]byte{0xff}, 6), macA[:]...), 0x88, 0xb5, 1, 2, 3)
	before := try(h.Stats("tap0"))(t)
	_, err := f.Write(frame)
	must(t, err)
	await(t, "the frame is counted", func() bool { return try(h.Stats("tap0"))(t).RxPackets == before.RxPackets+1 })
	f.Close()
	await(t, "the device goes with its file", func() bool { _, err := h.LinkByName("tap0"); return errors.Is(err, ErrNotFound) })
}

// TestVirtioTAPHasAHeader: of what is written, the first ten octets are no part of the frame. Red when IFF_VNET_HDR is not asked for.
func TestVirtioTAPHasAHeader(t *testing.T) {
	h := namespace(t, "tap")
	f := try(h.OpenVirtioTAP("tap0"))(t)
	defer f.Close()
	must(t, h.SetUp("tap0"))
	before := try(h.Stats("tap0"))(t)
	_, err := f.Write(append(make([]byte, 10), append(append(slices.Repeat([]byte{0xff}, 6), macA[:]...), 0x88, 0xb5, 1, 2, 3)...))
	must(t, err)
	await(t, "the frame is counted", func() bool { return try(h.Stats("tap0"))(t).RxPackets == before.RxPackets+1 })
	if n := try(h.Stats("tap0"))(t).RxOctets - before.RxOctets; n != 17 {
		t.Errorf("a frame of 17 octets is %d", n)
	}
}

// TestMakeTAP: made once, taken over ever after, also from under an opener, who keeps all of its queues and offloads; with owner and group
// set; removed when nobody has it open. Red when MakeTAP opens a device that is in use, or leaves out IFF_MULTI_QUEUE.
func TestMakeTAP(t *testing.T) {
	h := namespace(t, "tap")
	made := try(h.MakeTAP("tap0", 4, 64055, 108))(t)
	if !made.TAP || !made.MultiQueue || !made.VirtioHeader || made.OpenQueues != 0 || made.Up {
		t.Errorf("made %+v", made)
	}
	raw := try(h.nl.LinkByName("tap0"))(t).(*netlink.Tuntap)
	if raw.Owner != 64055 || raw.Group != 108 || raw.NonPersist {
		t.Errorf("owner %d, group %d, persistent %t", raw.Owner, raw.Group, !raw.NonPersist)
	}
	if again := try(h.MakeTAP("tap0", 2, 1, -1))(t); again.Index != made.Index {
		t.Errorf("made another one: %+v", again)
	}
	if raw := try(h.nl.LinkByName("tap0"))(t).(*netlink.Tuntap); raw.Owner != 1 || raw.Group != 108 {
		t.Errorf("owner %d, group %d", raw.Owner, raw.Group)
	}
	var files []*os.File
	for range 4 {
		files = append(files, try(h.OpenVirtioQueue("tap0"))(t))
	}
	must(t, unix.IoctlSetInt(int(files[0].Fd()), unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4|unix.TUN_F_TSO6|unix.TUN_F_USO4|unix.TUN_F_USO6))
	if used := try(h.MakeTAP("tap0", 4, 7, 7))(t); used.OpenQueues != 4 {
		t.Errorf("%d queues are open, want 4", used.OpenQueues)
	}
	if raw := try(h.nl.LinkByName("tap0"))(t).(*netlink.Tuntap); raw.Owner != 1 {
		t.Errorf("the owner of a device in use was changed to %d", raw.Owner)
	}
	for _, f := range []Feature{TX, TSO, "tx-tcp6-segmentation", "tx-udp-segmentation"} {
		if !try(h.Feature("tap0", f))(t) {
			t.Errorf("%s is off", f)
		}
	}
	if err := h.RemoveTAP("tap0"); err == nil {
		t.Error("a device in use was removed")
	}
	if _, err := h.MakeTAP("tap0", 1, -1, -1); err == nil {
		t.Error("a multi-queue device was taken for one with one queue")
	}
	for _, f := range files {
		f.Close()
	}
	must(t, h.AddBridge("br0", 1500))
	for name, queues := range map[string]int{"br0": 1, "tap1": 0, "tap2": MaxTAPQueues + 1} {
		if _, err := h.MakeTAP(name, queues, -1, -1); err == nil {
			t.Errorf("%s with %d queues was made", name, queues)
		}
	}
	if err := h.RemoveTAP("br0"); err == nil {
		t.Error("a bridge was removed")
	}
	must(t, h.RemoveTAP("tap0"))
	must(t, h.RemoveTAP("tap0"))
	if _, err := h.LinkByName("tap0"); !errors.Is(err, ErrNotFound) {
		t.Errorf("it is still there: %v", err)
	}
	one := try(h.MakeTAP("tap0", 1, -1, -1))(t)
	f := try(h.OpenVirtioTAP("tap0"))(t)
	defer f.Close()
	if used := try(h.MakeTAP("tap0", 1, 5, 5))(t); used.Index != one.Index {
		t.Errorf("taken over %+v", used)
	}
	if err := h.RemoveTAP("tap0"); err == nil {
		t.Error("a device with one queue, in use, was removed")
	}
}

func TestEventsTellWhatChanges(t *testing.T) {
	a, b := namespace(t, "a"), namespace(t, "b")
	ctx, cancel := context.WithCancel(t.Context())
	events := try(a.Subscribe(ctx))(t)
	if e := <-events; e.Kind != EventResync {
		t.Fatalf("first event %+v", e)
	}
	wait := func(what string, cond func(Event) bool) {
		t.Helper()
		deadline := time.After(patience)
		for {
			select {
			case e, ok := <-events:
				if !ok {
					t.Fatalf("the channel closed before: %s", what)
				}
				if cond(e) {
					return
				}
			case <-deadline:
				t.Fatalf("no event: %s", what)
			}
		}
	}
	v := Veth{Name: "up", Addresses: []netip.Prefix{netip.MustParsePrefix("10.9.0.1/24"), netip.MustParsePrefix("fd09::1/64")},
		Peer: VethPeer{Namespace: b, Name: "eth0", MAC: macB, Addresses: []netip.Prefix{netip.MustParsePrefix("10.9.0.2/24")}}}
	near, _, err := a.EnsureVeth(v)
	must(t, err)
	wait("link up", func(e Event) bool { return e.Kind == EventLink && e.Link.Name == "up" && e.Link.Up })
	must(t, a.DeleteAddress("up", v.Addresses[1]))
	wait("address gone", func(e Event) bool {
		return e.Kind == EventAddress && e.Removed && e.Address.Prefix == v.Addresses[1] && e.Index == near.Index
	})
	dst := netip.MustParsePrefix("198.18.0.0/15")
	must(t, a.ReplaceRoute(Route{Dst: dst, Hops: []Hop{{netip.MustParseAddr("10.9.0.2"), near.Index}}}))
	wait("route", func(e Event) bool { return e.Kind == EventRoute && e.Dst == dst && !e.Removed })
	must(t, a.ManageNeighbour(near.Index, netip.MustParseAddr("10.9.0.2")))
	wait("neighbour resolved", func(e Event) bool {
		return e.Kind == EventNeighbour && e.Neighbour.Resolved && e.Neighbour.MAC == macB && e.Neighbour.Managed
	})
	must(t, b.DeleteLink("eth0"))
	wait("link gone", func(e Event) bool { return e.Kind == EventLink && e.Removed && e.Link.Name == "up" })
	cancel()
	wait2 := time.After(patience)
	for {
		select {
		case _, ok := <-events:
			if !ok {
				return
			}
		case <-wait2:
			t.Fatal("the channel stays open after the context ended")
		}
	}
}

// TestEventsLostBecomeResync fails when an overflow of the socket is passed over in silence.
func TestEventsLostBecomeResync(t *testing.T) {
	h := namespace(t, "flood")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events := try(h.Subscribe(ctx))(t)
	if e := <-events; e.Kind != EventResync {
		t.Fatalf("first event %+v", e)
	}
	// Far more than channel and socket hold, while nobody reads.
	for i := range 12000 {
		must(t, h.SetMTU("lo", 2000+i%1000))
	}
	deadline := time.After(patience)
	for {
		select {
		case e, ok := <-events:
			if !ok {
				t.Fatal("the subscription ended")
			}
			if e.Kind == EventResync {
				return
			}
		case <-deadline:
			t.Fatal("events were lost, and no resync said so")
		}
	}
}

func TestMalformedMessagesBecomeResync(t *testing.T) {
	for _, b := range [][]byte{
		{5, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		{0xff, 0xff, 0xff, 0xff, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		{17, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1},
	} {
		if got := parseEvents(b); len(got) != 1 || got[0].Kind != EventResync {
			t.Errorf("%v: %+v", b, got)
		}
	}
}
