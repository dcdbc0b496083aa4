package accept_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/lab"
	"github.com/weftnet/weft/lab/probe"
	"github.com/weftnet/weft/wire"
)

// TestIPv6Underlay: a lab whose underlay has no IPv4 at all carries what one on IPv4 carries, by tshark's reading: UDP checksum
// zero (RFC 6935), a flow label that is the flow's and never zero (RFC 6438). Streams of whole aggregates and full packets pass.
// Goes red when encap.h leaves the flow label out, or when the lab's agents are given another VTEP address than the IPv6 one.
func TestIPv6Underlay(t *testing.T) {
	f := ownLab(t, lab.Config{Name: "acc6", Underlay: 6, Hosts: 2})
	out := f.must(t, "host", "list")
	if !strings.Contains(out, "fd18:0:0:1::1") || strings.Contains(out, "198.18.") {
		t.Errorf("weft host list does not show the IPv6 VTEP addresses alone:\n%s", out)
	}
	leaf := startCapture(t, f.node(t, "leaf1"), "to-h1")
	readTheWire(t, f, 6)
	for _, frame := range leaf.stop() {
		if frame[12] == 8 {
			t.Fatalf("there is IPv4 on the underlay: % x", frame[:34])
		}
	}
	streams(t, f.node(t, "wire-1"), f.node(t, "wire-2"), netip.MustParseAddr("10.1.0.12"))
	streams(t, f.node(t, "wire-2"), f.node(t, "wire-1"), netip.MustParseAddr("fd00:1::11"))
}

// TestTwoUplinks: tunnels between hosts with two uplinks end at addresses of their loopbacks, on either IP version, and flows
// are spread over both uplinks, though the host's own policy (fib_multipath_hash_policy 0) sends all of them one way. One that is pulled costs
// what was on it, with the agent and without; plugged in again it is used again, and that costs nothing.
// Goes red when the agent does not tell the datapath of a second next hop, when nexthop.h takes the kernel's first answer, keeps to a next hop
// whose neighbour is gone, or when the lab's agents are given the address of an uplink.
func TestTwoUplinks(t *testing.T) {
	for _, underlay := range []int{4, 6} {
		t.Run(fmt.Sprintf("IPv%d", underlay), func(t *testing.T) {
			f := ownLab(t, lab.Config{Name: "acctwo", Underlay: underlay, Uplinks: 2, Hosts: 2})
			a, b := wirePair(t, f, "two", 0)
			for _, dst := range []netip.Addr{b.v4(), b.v6()} {
				reaches(t, a.ns, dst)
				exchange(t, a.ns, b.ns, dst, 20)
			}
			streams(t, b.ns, a.ns, a.v6())
			fromLoopbacks(t, f, underlay, a, b)
			f.spreads(t, a, b, 2)

			lost := f.loses(t, a, b, func() {
				if err := f.PullUplink("h1", 1); err != nil {
					t.Fatal(err)
				}
			})
			t.Logf("an uplink pulled: %s", lost)
			lost.few(t)
			f.spreads(t, a, b, 1)
			lost = f.loses(t, a, b, func() {
				if err := f.PlugUplink("h1", 1); err != nil {
					t.Fatal(err)
				}
				f.spreads(t, a, b, 2)
			})
			t.Logf("plugged in again: %s", lost)
			lost.none(t)

			if err := f.KillAgent(limited(t), "h1"); err != nil {
				t.Fatal(err)
			}
			lost = f.loses(t, a, b, func() {
				if err := f.PullUplink("h1", 0); err != nil {
					t.Fatal(err)
				}
			})
			t.Logf("the other one pulled, without an agent: %s", lost)
			lost.few(t)
			exchange(t, a.ns, b.ns, b.v4(), 20)
			if err := f.PlugUplink("h1", 0); err != nil {
				t.Fatal(err)
			}
			f.agentBack(t, "h1")
			f.spreads(t, a, b, 2)
			t.Run("changes", func(t *testing.T) { underlayChanges(t, f, underlay, a, b) })
			t.Run("path MTU", func(t *testing.T) { pathMTU(t, f, underlay) })
		})
	}
}

// underlayChanges: what changes about h1's uplinks and routes while datagrams go from a to b is followed, and costs nothing that the
// underlay does not cost itself.
// Goes red when nexthop.h keeps an answer for longer than a jiffy.
func underlayChanges(t *testing.T, f *fixture, underlay int, a, b *workload) {
	h1, leaf := f.node(t, "h1"), f.node(t, "leaf1")
	change := func(what string, do func() error) losses {
		t.Helper()
		l := f.loses(t, a, b, func() {
			if err := do(); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		})
		t.Logf("%s: %s", what, l)
		return l
	}

	dst := netip.MustParsePrefix(map[int]string{4: "198.18.0.0/15", 6: "fd18::/15"}[underlay])
	routes, err := h1.Routes()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(routes, func(r netdev.Route) bool { return r.Dst == dst })
	if i < 0 || len(routes[i].Hops) != 2 {
		t.Fatalf("h1 has no route of two next hops to %s: %v", dst, routes)
	}
	whole := routes[i]
	for k, hop := range whole.Hops {
		only := whole
		only.Hops = []netdev.Hop{hop}
		change(fmt.Sprintf("the route by next hop %d alone", k), func() error { return h1.ReplaceRoute(only) }).none(t)
		f.spreads(t, a, b, 1)
	}
	change("the route by both again", func() error { return h1.ReplaceRoute(whole) }).none(t)
	f.spreads(t, a, b, 2)

	// Whoever changes its MAC says so; without that it is the neighbour's time to find out, and the underlay's loss.
	for _, n := range []*netdev.Handle{h1, leaf} {
		for _, key := range []string{"net/ipv4/conf/all/arp_notify", "net/ipv6/conf/all/ndisc_notify"} {
			if err := n.SetSysctl(key, "1"); err != nil {
				t.Fatal(err)
			}
		}
	}
	change("another MAC of the uplink", func() error { return h1.SetMAC("uplink0", wire.MAC{2, 0, 0, 0, 0x77, 1}) }).none(t)
	change("another MAC of the gateway", func() error { return leaf.SetMAC("to-h1", wire.MAC{2, 0, 0, 0, 0x77, 2}) }).few(t)
	reaches(t, b.ns, a.v6())

	// A pinned MTU stays when the uplink's is lowered, so that workloads have to be told by ICMP.
	f.tenant(t, "pinned")
	f.network(t, "pinned", "blue", &weftv1.NetworkSpec{Mtu: 1500, Subnets: []string{"10.1.0.0/24", "fd00:1::/64"}})
	c := f.workload(t, lab.WorkloadSpec{Name: "pinned-1", Host: "h1", Tenant: "pinned", Network: "blue"})
	d := f.workload(t, lab.WorkloadSpec{Name: "pinned-2", Host: "h2", Tenant: "pinned", Network: "blue"})
	reaches(t, c.ns, d.v4())
	reaches(t, c.ns, d.v6())
	const less = 1450
	change("a lower MTU of the uplinks", func() error {
		return errors.Join(h1.SetMTU("uplink0", less), h1.SetMTU("uplink1", less))
	}).none(t)
	for _, dst := range []netip.Addr{d.v4(), d.v6()} {
		learns(t, c.ns, dst, less-outers[underlay].overhead)
		streams(t, c.ns, d.ns, dst)
	}
	full := lab.DefaultMTU
	if underlay == 6 {
		full = lab.DefaultMTU6
	}
	change("the old MTU again", func() error {
		return errors.Join(h1.SetMTU("uplink0", full), h1.SetMTU("uplink1", full))
	}).none(t)
}

// pathMTU: a link in the middle is smaller than the uplinks. Its router says so to the VTEP, and weft to the workload; TCP gets through.
// Goes red when nexthop.h takes the MTU of one of two next hops alone (IPv6).
func pathMTU(t *testing.T, f *fixture, underlay int) {
	const narrow = 1400
	a, b := wirePair(t, f, "narrow", 0)
	reaches(t, a.ns, b.v4())
	reaches(t, a.ns, b.v6())
	for _, leaf := range []string{"leaf1", "leaf2"} {
		if err := f.node(t, leaf).SetMTU("to-h2", narrow); err != nil {
			t.Fatal(err)
		}
	}
	for _, dst := range []netip.Addr{b.v4(), b.v6()} {
		learns(t, a.ns, dst, narrow-outers[underlay].overhead)
		streams(t, a.ns, b.ns, dst)
	}
	for range 7 { // other flows, on either uplink, of a workload that has forgotten
		if err := a.ns.SetSysctl("net/ipv4/route/flush", "1"); err != nil {
			t.Fatal(err)
		}
		learns(t, a.ns, b.v4(), narrow-outers[underlay].overhead)
	}
}

// learns sends datagrams as large as they may be until the kernel of a workload has been told by ICMP of a smaller path MTU to an address: that one.
func learns(t *testing.T, ns *netdev.Handle, dst netip.Addr, mtu int) {
	t.Helper()
	conn, err := ns.Dial(limited(t), nil, "udp", netip.AddrPortFrom(dst, 9).String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	level, discover, do, option, headers := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO, unix.IP_MTU, wire.IPv4Len+wire.UDPLen
	if dst.Is6() {
		level, discover, do, option, headers = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO, unix.IPV6_MTU, wire.IPv6Len+wire.UDPLen
	}
	if err := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, discover, do) }); err != nil {
		t.Fatal(err)
	}
	eventually(t, fmt.Sprintf("the path MTU to %s is %d", dst, mtu), func() (bool, string) {
		var now int
		if cerr := raw.Control(func(fd uintptr) { now, err = unix.GetsockoptInt(int(fd), level, option) }); cerr != nil || err != nil {
			t.Fatal(cerr, err)
		}
		_, _ = conn.Write(make([]byte, now-headers)) // the ICMP message comes back as an error of the next one
		return now == mtu, fmt.Sprint(now)
	})
}

// fromLoopbacks wants every tunnel packet to go from one loopback to the other.
func fromLoopbacks(t *testing.T, f *fixture, underlay int, a, b *workload) {
	t.Helper()
	s, err := f.State()
	if err != nil {
		t.Fatal(err)
	}
	wires := []*capture{startCapture(t, f.node(t, "h1"), "uplink0"), startCapture(t, f.node(t, "h1"), "uplink1")}
	exchange(t, a.ns, b.ns, b.v4(), 20)
	ends := []string{s.Hosts[0].VTEPAddress, s.Hosts[1].VTEPAddress}
	for _, r := range decode(t, tunnelled(append(wires[0].stop(), wires[1].stop()...), 4789), outers[underlay].src, outers[underlay].dst) {
		src, dst := r.at(outers[underlay].src, 0), r.at(outers[underlay].dst, 0)
		if !slices.Contains(ends, src) || !slices.Contains(ends, dst) {
			t.Fatalf("a tunnel packet goes from %s to %s, want %v", src, dst, ends)
		}
	}
	if !strings.HasSuffix(ends[0], map[int]string{4: ".10", 6: "::a"}[underlay]) {
		t.Errorf("the VTEP address of h1 is %s, want one of its loopback", ends[0])
	}
}

// carried is what each of a host's uplinks has sent.
func (f *fixture) carried(t testing.TB, host string) (tx, dropped [2]uint64) {
	t.Helper()
	s, err := f.State()
	if err != nil {
		t.Fatal(err)
	}
	for k := range s.Uplinks {
		st, err := f.node(t, host).Stats(fmt.Sprintf("uplink%d", k))
		if err != nil {
			t.Fatal(err)
		}
		tx[k], dropped[k] = st.TxPackets, st.TxDropped
	}
	return tx, dropped
}

// spreads wants 1,000 flows from a to b to leave h1 by so many uplinks: by two, within a tenth of the half each.
func (f *fixture) spreads(t *testing.T, a, b *workload, uplinks int) {
	t.Helper()
	eventually(t, fmt.Sprintf("flows leave h1 by %d uplinks", uplinks), func() (bool, string) {
		before, _ := f.carried(t, "h1")
		sent, err := probe.Spread(limited(t), a.ns, b.v4(), 1000, 1)
		if err != nil {
			t.Fatal(err)
		}
		after, _ := f.carried(t, "h1")
		less, more := after[0]-before[0], after[1]-before[1]
		if less > more {
			less, more = more, less
		}
		ok := more >= uint64(sent)*9/10 && less < uint64(sent)/20
		if uplinks == 2 {
			ok = less >= uint64(sent)*4/10
		}
		return ok, fmt.Sprintf("%d and %d of %d", less, more, sent)
	})
}

// losses are of numbered datagrams from a to b, while something was done to their way.
type losses struct {
	sent, lost, duplicated, unsent uint64
	// dropped by the sending host's uplinks themselves, as they count.
	dropped uint64
}

func (l losses) String() string {
	return fmt.Sprintf("%d of %d datagrams lost, %d dropped by the uplinks", l.lost, l.sent, l.dropped)
}

func (l losses) none(t *testing.T) {
	t.Helper()
	if l.lost+l.duplicated+l.unsent != 0 {
		t.Errorf("lost %d, came twice %d, not sent %d of %d datagrams, want none", l.lost, l.duplicated, l.unsent, l.sent)
	}
}

// areFew: less than a tenth of a second's, of flows of which half were on the link that went.
func (l losses) areFew() bool { return l.lost <= lossRate*lossFlows/10 }

// few wants that few to be lost, and nothing else to have happened.
func (l losses) few(t *testing.T) {
	t.Helper()
	if !l.areFew() || l.duplicated+l.unsent != 0 {
		t.Errorf("lost %d, came twice %d, not sent %d of %d datagrams", l.lost, l.duplicated, l.unsent, l.sent)
	}
}

const lossFlows, lossRate = 16, 250 // flows, and datagrams a second of each

// loses numbers datagrams of several flows from a to b before, while and after something is done.
func (f *fixture) loses(t *testing.T, a, b *workload, do func()) (l losses) {
	t.Helper()
	var all []*probe.Sequence
	for i := range lossFlows {
		q, err := probe.StartSequence(limited(t), a.ns, b.ns, b.v4(), 7100+i, lossRate)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, q)
	}
	moved := func(what string) {
		t.Helper()
		from, _ := f.carried(t, a.Host)
		eventually(t, "datagrams go on "+what, func() (bool, string) {
			now, _ := f.carried(t, a.Host)
			return now[0]+now[1] >= from[0]+from[1]+500, fmt.Sprint(from, now)
		})
	}
	_, before := f.carried(t, a.Host)
	moved("before")
	do()
	moved("after")
	stopped := make(chan probe.SequenceResult, lossFlows)
	for _, q := range all {
		go func() {
			r, err := q.Stop()
			if err != nil {
				t.Error(err)
			}
			stopped <- r
		}()
	}
	for range all {
		r := <-stopped
		l.sent, l.lost, l.duplicated, l.unsent = l.sent+r.Sent, l.lost+r.Lost, l.duplicated+r.Duplicated, l.unsent+r.Unsent
	}
	_, after := f.carried(t, a.Host)
	l.dropped = after[0] - before[0] + after[1] - before[1]
	return l
}

// TestUDPPort8472: a lab whose tunnels use the Linux kernel's own default port speaks with the kernel's vxlan device on it, both ways, and
// nothing of it is on port 4789; the kernel lane is proved on that port, too.
// Goes red when the agent does not say its port in its facts, or when the lab gives its
// agents no port.
func TestUDPPort8472(t *testing.T) {
	f := ownLab(t, lab.Config{Name: "acc8472", UDPPort: 8472, Hosts: 2})
	const vni, octet = 70003, 103
	pair := externalLab(t, f, "legacy", vni)
	out := addOutsider(t, f, octet, vni)
	f.must(t, "vtep", "create", "legacy1", "--address", out.address.String(), "--udp-port", "8472")
	f.must(t, "network", "vtep", "add", "blue", "legacy1", "--tenant", "legacy", "--mac", out.mac.String(), "--wait")
	t.Cleanup(func() {
		f.weft(t, "network", "vtep", "remove", "blue", "legacy1", "--tenant", "legacy")
		f.weft(t, "vtep", "delete", "legacy1")
	})
	link := startCapture(t, f.node(t, "leaf1"), "to-h1")
	for _, way := range []struct {
		from, to *netdev.Handle
		dst      netip.Addr
	}{{pair[0].ns, pair[1].ns, pair[1].v6()}, {pair[0].ns, out.ns, out.v4}, {out.ns, pair[0].ns, pair[0].v6()}} {
		reaches(t, way.from, way.dst)
		exchange(t, way.from, way.to, way.dst, 20)
	}
	frames := link.stop()
	if n, other := len(tunnelled(frames, 8472)), len(tunnelled(frames, 4789)); n < 100 || other != 0 {
		t.Errorf("%d tunnel packets on port 8472, %d on 4789", n, other)
	}
	streams(t, pair[0].ns, out.ns, out.v6)
	streams(t, out.ns, pair[1].ns, pair[1].v4())
	eventually(t, "no host is degraded", func() (bool, string) {
		out := f.must(t, "host", "list")
		return !strings.Contains(out, "degraded"), out
	})
}

// TestVTEPAddressChanges: a host whose uplink gets another address has its tunnels there, and its peers follow through the plan. What is sent
// before they have all heard of it goes the old way; a second address alone changes nothing.
// Goes red when the agent does not say the new address to the server, or when a second address takes the first one's place.
func TestVTEPAddressChanges(t *testing.T) {
	for _, c := range []struct {
		underlay int
		old, new string
	}{{4, "198.18.1.1/15", "198.18.1.99/15"}, {6, "fd18:0:0:1::1/15", "fd18:0:0:1::99/15"}} {
		t.Run(fmt.Sprintf("IPv%d", c.underlay), func(t *testing.T) {
			f := ownLab(t, lab.Config{Name: "accmove", Underlay: c.underlay, Direct: true, FindVTEP: true})
			a, b := wirePair(t, f, "move", 0)
			reaches(t, a.ns, b.v4())
			h1, before, after := f.node(t, "h1"), netip.MustParsePrefix(c.old), netip.MustParsePrefix(c.new)
			l := f.loses(t, a, b, func() {
				if err := h1.AddAddress("uplink0", after); err != nil {
					t.Fatal(err)
				}
			})
			t.Logf("a second address: %s", l)
			l.none(t)
			goes := func(from, to *workload) losses {
				l := f.loses(t, from, to, func() {
					if err := h1.DeleteAddress("uplink0", before); err != nil {
						t.Fatal(err)
					}
					eventually(t, "the server has the other address", func() (bool, string) {
						out := f.must(t, "host", "list")
						return strings.Contains(out, after.Addr().String()), out
					})
					f.caughtUp(t, "h2")
				})
				t.Logf("the first address goes: %s", l)
				for _, dst := range []netip.Addr{b.v4(), b.v6()} {
					reaches(t, a.ns, dst)
				}
				// And back, for the next time.
				if err := h1.AddAddress("uplink0", before); err != nil {
					t.Fatal(err)
				}
				before, after = after, before
				return l
			}
			for _, way := range [][2]*workload{{a, b}, {b, a}} {
				l := goes(way[0], way[1])
				// What is sent while one of the two agents has the update and the other has not is lost: one that stands still just then proves nothing.
				for try := 1; try < 3 && !l.areFew() && l.duplicated+l.unsent == 0; try++ {
					l = goes(way[0], way[1])
				}
				l.few(t)
			}
		})
	}
}

// streams wants a TCP stream to carry more than a broken path would. One that took much longer than its time says nothing, unless it is the third:
// a machine that stood still carries little, and so does a broken path, but that does so again.
func streams(t *testing.T, from, to *netdev.Handle, dst netip.Addr) {
	t.Helper()
	for try := 1; ; try++ {
		began := time.Now()
		r, err := probe.Stream(limited(t), from, to, dst, streamTime)
		if err == nil && r.Octets >= 1<<20 {
			return
		}
		if took := time.Since(began); try == 3 || took < time.Second {
			t.Errorf("a TCP stream to %s carried %d octets in %s: %v", dst, r.Octets, took, err)
			return
		}
	}
}
