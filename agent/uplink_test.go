package agent

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/datapath/netdev"
)

// TestUplinksOfALoopbackVTEP turns red when the uplinks of a VTEP on the loopback are not all those of the default route of its
// family, or when its MTU is not the smallest of theirs.
func TestUplinksOfALoopbackVTEP(t *testing.T) {
	links := newFakeLinks()
	links.links["eth2"] = netdev.Link{Index: 3, Name: "eth2", Kind: "device", MTU: 1400, Up: true}
	links.links["dummy0"] = netdev.Link{Index: 4, Name: "dummy0", Kind: "dummy", MTU: 1500, Up: true}
	vtep4, vtep6 := netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8::1")
	links.addrs = append(links.addrs, netdev.Address{Prefix: netip.PrefixFrom(vtep4, 32), Index: 1}, netdev.Address{Prefix: netip.PrefixFrom(vtep6, 128), Index: 4})
	gateway := netip.MustParseAddr("fe80::1")
	links.routes = append(links.routes, netdev.Route{Dst: netip.MustParsePrefix("::/0"), Hops: []netdev.Hop{{Gateway: gateway, Index: 2}, {Gateway: gateway, Index: 3}}})
	for _, c := range []struct {
		vtep    netip.Addr
		name    string
		indexes []int
		mtu     int
	}{{vtep4, "eth1", []int{2}, 1500}, {vtep6, "eth1,eth2", []int{2, 3}, 1400}} {
		u, err := findUplink(Config{VTEPAddress: c.vtep}, links, datapath.Local{})
		if err != nil {
			t.Fatal(err)
		}
		if u.name != c.name || !slices.Equal(u.indexes, c.indexes) || u.local.UplinkMTU != c.mtu || u.local.Addr4 != c.vtep && u.local.Addr6 != c.vtep {
			t.Errorf("%s: %+v, want %s with MTU %d", c.vtep, u, c.name, c.mtu)
		}
	}
}

// TestUplinkMadeAgain turns red when an uplink that was deleted and made again stays without weft's programs, or that is not
// told while it is so.
func TestUplinkMadeAgain(t *testing.T) {
	r := newRig(t)
	r.base()
	r.until("the next hop is managed", func() bool { return len(r.links.managed) == 1 })
	before := r.kernel.published
	r.links.mu.Lock()
	eth := r.links.links["eth1"]
	delete(r.links.links, "eth1")
	r.links.mu.Unlock()
	r.links.events <- netdev.Event{Kind: netdev.EventLink, Removed: true, Index: 2, Link: eth}
	r.until("the condition", func() bool { return r.agent.conditions["uplink"] != "" })
	r.links.mu.Lock()
	clear(r.links.managed) // neighbours go with their interface
	eth.Index = 42
	r.links.links["eth1"] = eth
	r.links.addrs[0].Index = 42
	r.links.routes[0].Hops[0].Index = 42
	r.links.mu.Unlock()
	r.links.events <- netdev.Event{Kind: netdev.EventLink, Index: 42, Link: eth}
	r.until("the programs are attached again", func() bool {
		return r.kernel.published > before && r.agent.conditions["uplink"] == ""
	})
	r.until("next hops are those of the new interface", func() bool {
		for hop := range r.links.managed {
			if hop.Index != 42 {
				return false
			}
		}
		return len(r.links.managed) > 0
	})
}

// TestEqualNextHops turns red when the datapath is not told of a second way to a VTEP, of one whose link has lost its carrier, or of one
// that went.
func TestEqualNextHops(t *testing.T) {
	r := newRig(t)
	r.base()
	gateways := []netip.Addr{netip.MustParseAddr("192.0.2.254"), netip.MustParseAddr("192.0.2.253")}
	r.links.mu.Lock()
	eth1, eth2 := r.links.links["eth1"], netdev.Link{Index: 3, Name: "eth2", Kind: "device", MTU: 1500, Up: true, Running: true}
	eth1.Running = true
	r.links.links["eth1"], r.links.links["eth2"] = eth1, eth2
	r.links.routes[0].Hops = []netdev.Hop{{Gateway: gateways[1], Index: 3}, {Gateway: gateways[0], Index: 2}}
	r.links.mu.Unlock()
	r.links.events <- netdev.Event{Kind: netdev.EventRoute}
	told := func(what string, want ...datapath.Hop) {
		t.Helper()
		r.until(what, func() bool { return slices.Equal(r.kernel.hops[1], want) })
	}
	told("both ways are told, in order", datapath.Hop{Ifindex: 2, Gateway: gateways[0]}, datapath.Hop{Ifindex: 3, Gateway: gateways[1]})
	r.links.mu.Lock()
	eth1.Running = false
	r.links.links["eth1"] = eth1
	r.links.mu.Unlock()
	r.links.events <- netdev.Event{Kind: netdev.EventLink, Index: 2, Link: eth1}
	told("one is known to be down", datapath.Hop{Ifindex: 2, Gateway: gateways[0], Down: true}, datapath.Hop{Ifindex: 3, Gateway: gateways[1]})
	r.links.mu.Lock()
	r.links.routes[0].Hops = r.links.routes[0].Hops[:1]
	r.links.mu.Unlock()
	r.links.events <- netdev.Event{Kind: netdev.EventRoute}
	told("one way alone is nothing to choose from")
}

// TestAnotherAddressWaitsForThePlan turns red when this host's end moves to another address before the plan has it, when it does not then,
// or when the server is not told: all peers go by the plan, and accept nothing else.
func TestAnotherAddressWaitsForThePlan(t *testing.T) {
	r := newRig(t)
	r.base()
	r.until("the next hop is managed", func() bool { return len(r.links.managed) == 1 })
	before, after := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.99")
	r.links.mu.Lock()
	r.links.addrs[0].Prefix = netip.PrefixFrom(after, 24)
	eth := r.links.links["eth1"]
	eth.MTU = 1400
	r.links.links["eth1"] = eth
	r.links.mu.Unlock()
	r.links.events <- netdev.Event{Kind: netdev.EventAddress, Index: 2}
	r.until("the server is told", func() bool {
		r.server.mu.Lock()
		defer r.server.mu.Unlock()
		n := len(r.server.facts)
		return n > 0 && slices.Equal(r.server.facts[n-1].VtepAddresses, []string{after.String()}) && r.server.facts[n-1].UplinkMtu == 1400
	})
	r.until("the MTU is in force, and the old address still", func() bool {
		return r.kernel.local.Addr4 == before && r.kernel.local.UplinkMTU == 1400 && r.agent.conditions["uplink"] != ""
	})
	if err := r.send(vtepOf("h1", 99)); err != nil {
		t.Fatal(err)
	}
	if err := r.agent.do(r.ctx, func() {
		if r.kernel.local.Addr4 != after {
			t.Errorf("the plan has %s, and the datapath %s", after, r.kernel.local.Addr4)
		}
	}); err != nil {
		t.Fatal(err)
	}
	r.until("nothing is left to say", func() bool { return r.agent.conditions["uplink"] == "" })
}
