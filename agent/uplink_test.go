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
