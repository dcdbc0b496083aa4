package accept_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/internal/testenv"
	"github.com/weftnet/weft/lab"
	"github.com/weftnet/weft/lab/probe"
	"github.com/weftnet/weft/wire"
)

// outsider is a Linux machine below leaf 1 that knows nothing of weft: a network namespace with the kernel's own vxlan device,
// configured by hand.
//
//	spines - leaf1 - [uplink0 198.18.N.1  vx0 10.1.0.N, fd00:1::N]
type outsider struct {
	ns      *netdev.Handle
	address netip.Addr
	v4, v6  netip.Addr
	mac     wire.MAC
}

// addOutsider makes one; octet is its number on the underlay and in the network, apart from the lab's own hosts and guests.
func addOutsider(t *testing.T, f *fixture, octet int, vni uint32) *outsider {
	t.Helper()
	ip := testenv.RequireTool(t, "ip")
	bridge := testenv.RequireTool(t, "bridge")
	name := fmt.Sprintf("wefttest-accept-out%d", octet)
	if err := netdev.DeleteNamespace(name); err != nil {
		t.Fatal(err)
	}
	if err := netdev.CreateNamespace(name); err != nil {
		t.Fatal(err)
	}
	atEnd(t, func() error { return netdev.DeleteNamespace(name) })
	ns, err := netdev.OpenName(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ns.Close)
	o := &outsider{ns: ns, address: netip.AddrFrom4([4]byte{198, 18, byte(octet), 1}), v4: netip.AddrFrom4([4]byte{10, 1, 0, byte(octet)}),
		v6: netip.MustParseAddr(fmt.Sprintf("fd00:1::%d", octet)), mac: wire.MAC{0x02, 0, 0, 0, 0xee, byte(octet)}}
	o.hang(t, f, octet)
	s, err := f.State()
	if err != nil {
		t.Fatal(err)
	}
	commands := [][]string{
		{ip, "link", "add", "vx0", "address", o.mac.String(), "type", "vxlan", "id", strconv.Itoa(int(vni)), "local", o.address.String(), "dev", "uplink0", "dstport", strconv.Itoa(int(s.UDPPort))},
		{ip, "link", "set", "vx0", "mtu", "1500", "up"},
		{ip, "address", "add", o.v4.String() + "/24", "dev", "vx0"},
		{ip, "address", "add", o.v6.String() + "/64", "dev", "vx0", "nodad"},
	}
	for _, h := range s.Hosts {
		commands = append(commands, []string{bridge, "fdb", "append", "00:00:00:00:00:00", "dev", "vx0", "dst", h.VTEPAddress})
	}
	for _, args := range commands {
		cmd := exec.Command(args[0], args[1:]...)
		if r := finish(t, cmd, ns.Start); r.status != 0 {
			t.Fatalf("%s: status %d: %s", strings.Join(args, " "), r.status, r.err)
		}
	}
	return o
}

// hang joins it to leaf 1, and tells the spines the way.
func (o *outsider) hang(t *testing.T, f *fixture, octet int) {
	t.Helper()
	leaf := f.node(t, "leaf1")
	near := netip.PrefixFrom(o.address.Prev(), 31)
	name := fmt.Sprintf("to-out%d", octet)
	_, far, err := leaf.EnsureVeth(netdev.Veth{Name: name, MTU: lab.DefaultMTU, Addresses: []netip.Prefix{near},
		Peer: netdev.VethPeer{Namespace: o.ns, Name: "uplink0", Addresses: []netip.Prefix{netip.PrefixFrom(o.address, 31)}}})
	if err != nil {
		t.Fatal(err)
	}
	// The veth goes with the namespace, some time after its name; the next outsider may want the name at once.
	t.Cleanup(func() { _ = leaf.DeleteLink(name) })
	underlay := netip.MustParsePrefix("198.18.0.0/15")
	if err := o.ns.ReplaceRoute(netdev.Route{Dst: underlay, Hops: []netdev.Hop{{Gateway: near.Addr(), Index: far.Index}}}); err != nil {
		t.Fatal(err)
	}
	for s := 1; s <= 2; s++ {
		spine := f.node(t, fmt.Sprintf("spine%d", s))
		l, err := spine.LinkByName("to-leaf1")
		if err != nil {
			t.Fatal(err)
		}
		way := netdev.Hop{Gateway: netip.AddrFrom4([4]byte{198, 19, byte(s), 3}), Index: l.Index}
		if err := spine.ReplaceRoute(netdev.Route{Dst: near.Masked(), Hops: []netdev.Hop{way}}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = spine.DeleteRoute(near.Masked()) })
	}
}

// externalLab is a network of a tenant with a workload on h1 and on h2.
func externalLab(t *testing.T, f *fixture, tenant string, vni uint32) [2]*workload {
	t.Helper()
	f.tenant(t, tenant)
	f.network(t, tenant, "blue", &weftv1.NetworkSpec{Vni: vni, Subnets: []string{"10.1.0.0/24", "fd00:1::/64"}})
	var pair [2]*workload
	for i := range pair {
		pair[i] = f.workload(t, lab.WorkloadSpec{Name: fmt.Sprintf("%s-%d", tenant, i+1), Host: fmt.Sprintf("h%d", i+1), Tenant: tenant, Network: "blue"})
	}
	return pair
}

// drops are the counts of a reason by `weft drops`, those of one source only if it is given.
func (f *fixture) drops(t testing.TB, host, reason, source string) (n uint64) {
	t.Helper()
	var list struct {
		Drops []struct {
			Host, Reason, Source string
			Packets              uint64 `json:",string"`
		}
	}
	out := f.must(t, "drops", "-A", "--host", host, "-o", "json")
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatalf("read what weft drops says: %v\n%s", err, out)
	}
	for _, d := range list.Drops {
		if d.Host == host && d.Reason == reason && d.Source == source {
			n += d.Packets
		}
	}
	return n
}

// portDrops are the counts of a reason in `weft port show`.
func (f *fixture) portDrops(t testing.TB, tenant, port, reason string) uint64 {
	t.Helper()
	var p struct {
		Status struct {
			Drops []struct {
				Reason  string
				Packets uint64 `json:",string"`
			}
		}
	}
	out := f.must(t, "port", "show", port, "--tenant", tenant, "-o", "json")
	if err := json.Unmarshal([]byte(out), &p); err != nil {
		t.Fatalf("read what weft port show says: %v\n%s", err, out)
	}
	for _, d := range p.Status.Drops {
		if d.Reason == reason {
			return d.Packets
		}
	}
	return 0
}

// TestLinuxVXLANDeviceIsAMember: a plain Linux vxlan device, configured by hand, exchanges ping and TCP with weft ports both ways,
// by IPv4 and IPv6, once it is listed; before and after that its packets are dropped by name.
// Goes red when compile leaves external VTEPs out of a network's accept list (or does not take them out again), when the MACs
// stated with --mac do not reach the FDB, or when a flood leaves external VTEPs out.
func TestLinuxVXLANDeviceIsAMember(t *testing.T) {
	f := sharedLab(t)
	const vni, octet = 70001, 101
	pair := externalLab(t, f, "ext", vni)
	out := addOutsider(t, f, octet, vni)

	// Not listed: it is not heard, and the drop says who it was.
	before := f.drops(t, "h1", "source_not_accepted", out.address.String())
	unheard(t, out.ns, pair[0].v4())
	eventually(t, "weft drops names the VTEP that is not listed", func() (bool, string) {
		n := f.drops(t, "h1", "source_not_accepted", out.address.String())
		return n > before, fmt.Sprintf("source_not_accepted from %s on h1: %d, was %d", out.address, n, before)
	})

	f.must(t, "vtep", "create", "ext1", "--address", out.address.String())
	t.Cleanup(func() { f.weft(t, "vtep", "delete", "ext1") })
	f.must(t, "network", "vtep", "add", "blue", "ext1", "--tenant", "ext", "--mac", out.mac.String(), "--wait")
	t.Cleanup(func() { f.weft(t, "network", "vtep", "remove", "blue", "ext1", "--tenant", "ext") })
	for _, w := range pair {
		for _, way := range []struct {
			from, to *netdev.Handle
			dst      []netip.Addr
		}{{w.ns, out.ns, []netip.Addr{out.v4, out.v6}}, {out.ns, w.ns, []netip.Addr{w.v4(), w.v6()}}} {
			for _, dst := range way.dst {
				reaches(t, way.from, dst)
				exchange(t, way.from, way.to, dst, 20)
				r, err := probe.Ping(limited(t), way.from, dst, probe.PingConfig{Count: 2, Size: 1400})
				if err != nil || !r.Complete() {
					t.Errorf("ping of 1,400 octets from %s to %s: %+v, %v", way.from, dst, r, err)
				}
			}
		}
	}
	r, err := probe.Stream(limited(t), pair[0].ns, out.ns, out.v4, streamTime)
	if err != nil || r.Octets < 1<<20 {
		t.Errorf("a TCP stream to the Linux vxlan device carried %d octets: %v", r.Octets, err)
	}
	back, err := probe.Stream(limited(t), out.ns, pair[1].ns, pair[1].v6(), streamTime)
	if err != nil || back.Octets < 1<<20 {
		t.Errorf("a TCP stream from the Linux vxlan device carried %d octets: %v", back.Octets, err)
	}
	t.Logf("one TCP stream: to the Linux vxlan device %.1f Gb/s, %d sent again; from it %.1f Gb/s, %d sent again", r.Gbps(), r.Retransmits, back.Gbps(), back.Retransmits)

	f.must(t, "network", "vtep", "remove", "blue", "ext1", "--tenant", "ext", "--wait")
	before = f.drops(t, "h1", "source_not_accepted", out.address.String())
	unheard(t, out.ns, pair[0].v4())
	unheard(t, pair[0].ns, out.v4)
	eventually(t, "weft drops names the VTEP that is not listed any more", func() (bool, string) {
		n := f.drops(t, "h1", "source_not_accepted", out.address.String())
		return n > before, fmt.Sprintf("source_not_accepted from %s on h1: %d, was %d", out.address, n, before)
	})
}

// unheard wants no answer to three pings. What was on its way comes back with the first of them, and is not counted.
func unheard(t testing.TB, from *netdev.Handle, dst netip.Addr) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), inTime)
	defer cancel()
	r, err := probe.Ping(ctx, from, dst, probe.PingConfig{Count: 3, Interval: pingEvery, Timeout: quiet})
	if err == nil && r.Received > 0 {
		t.Errorf("ping from %s to %s: %d of %d answers, want none", from, dst, r.Received, r.Sent)
	}
}

// TestUnknownUnicast: a frame to a MAC that nobody stated goes to external VTEPs only, to everybody, or nowhere, as the network says;
// and what goes nowhere is counted at the port.
// Goes red when the network's setting does not reach the datapath (compile leaving unknown_unicast at its zero), or when flood.h
// takes the wrong list of receivers for it.
func TestUnknownUnicast(t *testing.T) {
	f := sharedLab(t)
	const vni, octet, each = 70002, 102, 20
	pair := externalLab(t, f, "unknown", vni)
	out := addOutsider(t, f, octet, vni)
	f.must(t, "vtep", "create", "ext2", "--address", out.address.String())
	t.Cleanup(func() { f.weft(t, "vtep", "delete", "ext2") })
	f.must(t, "network", "vtep", "add", "blue", "ext2", "--tenant", "unknown", "--wait")
	t.Cleanup(func() { f.weft(t, "network", "vtep", "remove", "blue", "ext2", "--tenant", "unknown") })
	// The outsider would ask after some seconds whether its neighbour is there still, and the answer to its MAC, which nobody stated, would be
	// counted with what the test sends.
	vx0, err := out.ns.LinkByName("vx0")
	if err == nil {
		err = out.ns.SetNeighbour(vx0.Index, pair[0].v4(), mac(t, pair[0].MACs[0]))
	}
	if err != nil {
		t.Fatal(err)
	}
	// The neighbours are found, so that nothing else is in the way.
	reaches(t, pair[0].ns, out.v4)

	local := f.workload(t, lab.WorkloadSpec{Name: "unknown-3", Host: "h1", Tenant: "unknown", Network: "blue"})
	stranger := wire.MAC{0x02, 0, 0, 0xdd, 0xdd, 0xdd}
	for _, c := range []struct {
		setting                 string
		outside, members, drops uint64
	}{{"external", each, 0, 0}, {"flood", each, each, 0}, {"drop", 0, 0, each}} {
		f.must(t, "network", "set", "blue", "--tenant", "unknown", "--unknown-unicast", c.setting, "--wait")
		seen := map[string]*capture{"the outsider": startInbox(t, out.ns, "vx0"), "h2": startInbox(t, pair[1].ns, "eth0"), "h1": startInbox(t, local.ns, "eth0")}
		dropped := f.portDrops(t, "unknown", "unknown-1", "unknown_unicast")
		payload := []byte("weft unknown unicast " + c.setting)
		flow := wire.Flow{SrcMAC: mac(t, pair[0].MACs[0]), DstMAC: stranger, Src: pair[0].v4(), Dst: netip.MustParseAddr("10.1.0.222")}
		all := make([][]byte, each)
		for i := range all {
			all[i] = flow.UDP(uint16(30000+i), 9, payload)
		}
		inject(t, pair[0].ns, "eth0", all...)
		// A broadcast after them has come everywhere: so has everything before, or it never will.
		after := []byte("weft after unknown unicast " + c.setting)
		shout := wire.Flow{SrcMAC: flow.SrcMAC, DstMAC: wire.BroadcastMAC, Src: flow.Src, Dst: netip.MustParseAddr("10.1.0.255")}
		for i := range each {
			inject(t, pair[0].ns, "eth0", shout.UDP(uint16(30000+i), 9, after))
		}
		want := map[string]uint64{"the outsider": c.outside, "h2": c.members, "h1": c.members}
		for who, cap := range seen {
			eventually(t, "the broadcasts are at "+who, func() (bool, string) {
				n := cap.count(after)
				return n == each && uint64(cap.count(payload)) >= want[who], fmt.Sprintf("%d broadcasts, %d to the unknown MAC", n, cap.count(payload))
			})
			cap.stop()
			if n := uint64(cap.count(payload)); n != want[who] {
				t.Errorf("unknown unicast %s: %d frames at %s, want %d", c.setting, n, who, want[who])
			}
		}
		eventually(t, "weft port show counts unknown_unicast under "+c.setting, func() (bool, string) {
			n := f.portDrops(t, "unknown", "unknown-1", "unknown_unicast") - dropped
			return n == c.drops, fmt.Sprintf("%d, want %d", n, c.drops)
		})
	}
}
