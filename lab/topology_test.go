package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/weftnet/weft/client"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/internal/testenv"
	"github.com/weftnet/weft/lab/probe"
	"github.com/weftnet/weft/wire"
)

// bare is a lab of namespaces, links and routes alone.
func bare(t *testing.T, cfg Config) *Lab {
	t.Helper()
	testenv.Require(t, "root")
	cfg.Bare = true
	l, err := Up(t.Context(), testConfig(t, cfg))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return l
}

// testConfig puts a lab under names of the test's own.
func testConfig(t *testing.T, cfg Config) Config {
	cfg.Name = fmt.Sprintf("test-%d", os.Getpid())
	cfg.Prefix = fmt.Sprintf("wefttest-lab-%d-", os.Getpid())
	cfg.Dir = t.TempDir() + "/lab"
	return cfg
}

func node(t *testing.T, l *Lab, name string) *netdev.Handle {
	t.Helper()
	h, err := l.Node(name)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// Goes red when a spine's route back to a leaf is left out, or when an IPv6 underlay has an IPv4 address.
func TestHostsReachEachOtherOverTheSpines(t *testing.T) {
	for _, underlay := range []int{4, 6} {
		t.Run(fmt.Sprintf("IPv%d", underlay), func(t *testing.T) {
			l := bare(t, Config{Hosts: 3, Spines: 2, Underlay: underlay})
			hostsReachEachOther(t, l)
			wholePacketsFit(t, l)
			for _, n := range []string{"h1", "leaf1", "spine1"} {
				if has4 := hasUnderlay4(t, l, n); has4 != (underlay == 4) {
					t.Errorf("%s has IPv4 on the underlay: %v", n, has4)
				}
			}
		})
	}
}

func hasUnderlay4(t *testing.T, l *Lab, name string) bool {
	t.Helper()
	all, err := node(t, l, name).Addresses("")
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(all, func(a netdev.Address) bool { return underlays[0].Contains(a.Prefix.Addr()) })
}

func hostsReachEachOther(t *testing.T, l *Lab) {
	for i := 1; i <= l.cfg.Hosts; i++ {
		for j := 1; j <= l.cfg.Hosts; j++ {
			_, far := edge(j, 0)
			for _, dst := range l.cfg.has(far) {
				ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
				if err := probe.PingUntil(ctx, node(t, l, hostName(i)), dst.Addr()); err != nil {
					t.Errorf("h%d to %s: %v", i, dst.Addr(), err)
				}
				cancel()
				r, err := probe.Ping(t.Context(), node(t, l, hostName(i)), dst.Addr(), probe.PingConfig{Count: 3})
				if err != nil || !r.Complete() {
					t.Errorf("h%d to %s: %+v, %v", i, dst.Addr(), r, err)
				}
			}
		}
		if r, err := probe.Ping(t.Context(), node(t, l, hostName(i)), serverAddr, probe.PingConfig{}); err != nil || !r.Complete() {
			t.Errorf("h%d to the server: %+v, %v", i, r, err)
		}
	}
}

// wholePacketsFit: the whole MTU does, an octet more does not.
func wholePacketsFit(t *testing.T, l *Lab) {
	headers := map[int]int{4: wire.IPv4Len, 6: wire.IPv6Len}[l.cfg.Underlay] + 8
	fits := probe.PingConfig{Size: 1500 + l.cfg.overhead() - headers, DontFragment: true}
	if r, err := probe.Ping(t.Context(), node(t, l, "h1"), l.cfg.vtepAddr(2), fits); err != nil || !r.Complete() {
		t.Errorf("a packet of the MTU: %+v, %v", r, err)
	}
	fits.Size++
	if r, _ := probe.Ping(t.Context(), node(t, l, "h1"), l.cfg.vtepAddr(2), fits); r.Received != 0 {
		t.Error("a packet larger than the MTU crossed")
	}
}

// Goes red when the link is made in the namespace of one host only.
func TestDirectHostsAreNeighbours(t *testing.T) {
	for _, underlay := range []int{4, 6} {
		l := bare(t, Config{Direct: true, Underlay: underlay})
		for _, dst := range []netip.Addr{l.cfg.vtepAddr(2), serverAddr} {
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			if err := probe.PingUntil(ctx, node(t, l, "h1"), dst); err != nil { // the link has only just come up
				t.Errorf("ping from h1 to %s: %v", dst, err)
			}
			cancel()
			if r, err := probe.Ping(t.Context(), node(t, l, "h1"), dst, probe.PingConfig{Count: 3}); err != nil || !r.Complete() {
				t.Errorf("ping from h1 to %s: %+v, %v", dst, r, err)
			}
		}
		if _, err := l.Node("leaf1"); err == nil {
			t.Error("a direct lab has a leaf")
		}
		if err := l.Down(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// Goes red when a host is left out of the switch, or the switch is left behind when the lab is taken away.
func TestFlatHostsAreNeighbours(t *testing.T) {
	for _, underlay := range []int{4, 6} {
		l := bare(t, Config{Flat: true, Hosts: 3, Underlay: underlay})
		for _, dst := range []netip.Addr{l.cfg.vtepAddr(2), l.cfg.vtepAddr(3), serverAddr} {
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			if err := probe.PingUntil(ctx, node(t, l, "h1"), dst); err != nil {
				t.Errorf("ping from h1 to %s: %v", dst, err)
			}
			cancel()
		}
		if err := l.Down(t.Context()); err != nil {
			t.Fatal(err)
		}
		if left, err := netdev.Namespaces(l.cfg.Prefix); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v (%v)", left, err)
		}
	}
}

// Goes red when an uplink that is pulled is still announced to the spines, or is not after it was plugged in again.
func TestHostsWithTwoUplinksReachEachOtherByEither(t *testing.T) {
	for _, underlay := range []int{4, 6} {
		l := bare(t, Config{Hosts: 3, Spines: 2, Underlay: underlay, Uplinks: 2})
		for i := range l.cfg.Hosts { // a host may choose to be deaf to lost carriers; these are not
			for _, family := range []string{"ipv4", "ipv6"} {
				if err := node(t, l, hostName(i+1)).SetSysctl("net/"+family+"/conf/all/ignore_routes_with_linkdown", "1"); err != nil {
					t.Fatal(err)
				}
			}
		}
		reached := func(what string) {
			t.Helper()
			for _, p := range l.cfg.has(loopback(2)) {
				ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
				for _, from := range []string{"h1", "h3"} {
					if err := probe.PingUntil(ctx, node(t, l, from), p.Addr()); err != nil {
						t.Errorf("%s: %s to %s: %v", what, from, p.Addr(), err)
					}
				}
				cancel()
			}
		}
		reached("both uplinks")
		for k := range 2 {
			if err := l.PullUplink("h2", k); err != nil {
				t.Fatal(err)
			}
			reached(fmt.Sprintf("without uplink %d", k))
			if err := l.PlugUplink("h2", k); err != nil {
				t.Fatal(err)
			}
			reached(fmt.Sprintf("with uplink %d again", k))
		}
		for _, leaf := range []int{2, 3} {
			if hops, err := node(t, l, leafName(leaf)).NextHops(l.cfg.vtepAddr(2)); err != nil || len(hops) != 1 {
				t.Errorf("leaf%d sends to h2 by %v, want its own link: %v", leaf, hops, err)
			}
		}
		if hops, err := node(t, l, "spine1").NextHops(l.cfg.vtepAddr(2)); err != nil || len(hops) != 2 {
			t.Errorf("spine1 sends to h2 by %v, want two leaves: %v", hops, err)
		}
		if err := l.PullUplink("h9", 0); !isUsage(err) {
			t.Errorf("an uplink of no host: %v", err)
		}
		if err := l.Down(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// Goes red when fib_multipath_hash_policy stays 0 on the leaves: all flows take one spine.
func TestFlowsSpreadOverTheSpines(t *testing.T) {
	l := bare(t, Config{Hosts: 2, Spines: 2})
	const flows = 1000
	for _, dst := range []netip.Addr{l.cfg.vtepAddr(2), mustV6(2)} {
		deadline := time.Now().Add(60 * time.Second)
		// What waits for a neighbour to be resolved at first is dropped beyond a hundred: a round counts when all arrived.
		var a, b uint64
		for a+b != flows {
			before := spineCounts(t, l)
			sent, err := probe.Spread(t.Context(), node(t, l, "h1"), dst, flows, 1)
			if err != nil || sent != flows {
				t.Fatalf("sent %d, %v", sent, err)
			}
			after := spineCounts(t, l)
			a, b = after[0]-before[0], after[1]-before[1]
			if time.Now().After(deadline) {
				t.Fatalf("the spines carried %d and %d of %d", a, b, flows)
			}
		}
		if share := float64(a) / flows; share < 0.4 || share > 0.6 {
			t.Errorf("to %s spine1 carried %d, spine2 %d", dst, a, b)
		}
	}
}

func mustV6(host int) netip.Addr {
	_, n := edge(host, 0)
	return n[1].Addr()
}

func spineCounts(t *testing.T, l *Lab) []uint64 {
	t.Helper()
	c, err := l.SpineCounters(2)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestUpRefusesASecondLabAndForeignNames(t *testing.T) {
	l := bare(t, Config{Hosts: 1, Spines: 1})
	if _, err := Up(t.Context(), l.cfg); err == nil {
		t.Error("a second lab of one name came up")
	}
	again, err := OpenConfig(l.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := again.State(); err != nil || len(s.Hosts) != 1 || !s.Ready {
		t.Errorf("%+v, %v", s, err)
	}
	other := l.cfg
	other.Dir = t.TempDir() + "/other"
	if _, err := Up(t.Context(), other); err == nil {
		t.Error("a lab came up over another's namespaces")
	}
	if _, err := l.Node("h1"); err != nil {
		t.Errorf("and the first one was damaged: %v", err)
	}
	for _, bad := range []Config{{Hosts: -1}, {Hosts: MaxHosts + 1}, {Spines: 99}, {MTU: 100}, {Underlay: 5}, {Uplinks: 3}, {Uplinks: 2, Hosts: 1}, {Name: "Ü"}} {
		if _, err := Up(t.Context(), bad); !isUsage(err) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// Goes red when Down relies on the record alone, or removes what is not the lab's.
func TestDownWithoutARecordAndTwice(t *testing.T) {
	l := bare(t, Config{Hosts: 2, Spines: 1})
	foreign := l.cfg.Prefix + "somebody"
	if err := netdev.CreateNamespace(foreign); err != nil {
		t.Fatal(err)
	}
	defer netdev.DeleteNamespace(foreign)
	if s, err := l.State(); err != nil || restoreBacklog(s) != nil { // what only the record knows
		t.Fatal(err)
	}
	if err := os.Remove(l.cfg.statePath()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Down(t.Context(), l.cfg); err != nil {
			t.Fatal(err)
		}
	}
	left, err := netdev.Namespaces(l.cfg.Prefix)
	if err != nil || len(left) != 1 || left[0] != foreign {
		t.Errorf("left: %v, %v", left, err)
	}
}

func isUsage(err error) bool {
	var e *client.Error
	return errors.As(err, &e) && e.Code == connect.CodeInvalidArgument && e.Fix != ""
}
