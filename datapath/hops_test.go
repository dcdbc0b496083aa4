package datapath

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/wire"
)

// TestFlowsSpreadOverNextHops: of equal next hops each takes its part of the flows, whatever the host's policy says, and one that is
// away gives up its own flows and no others. What the kernel does not say of the VTEP's route is never taken, however old the table is.
// Red when the first answer is taken, when a next hop is taken that is down, not resolved or not of the route (distance leaving out the
// comparison of gateways, or find_uplink), or when the kernel's first answer is given up for the table's.
func TestFlowsSpreadOverNextHops(t *testing.T) {
	for _, ip6 := range []bool{false, true} {
		t.Run(map[bool]string{false: "underlay4", true: "underlay6"}[ip6], func(t *testing.T) {
			s := newScene(t, ip6)
			up := int(s.a.uplink())
			far, form := netip.MustParsePrefix("10.77.0.1/32"), "10.99.0.1%d"
			if ip6 {
				far, form = netip.MustParsePrefix("fd77::1/128"), "fd99::1%d"
			}
			must(t, s.a.dp.PutVTEPs([]VTEP{{ID: 1, Addr: far.Addr(), UDPPort: 4789}}))
			gateway := func(i int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf(form, i)) }
			resolve := func(i int) {
				must(t, s.a.ns.SetNeighbour(up, gateway(i), wire.MAC{2, 0, 0, 0, 9, byte(i)}))
			}
			route := func(gateways ...int) {
				r := netdev.Route{Dst: far}
				for _, i := range gateways {
					r.Hops = append(r.Hops, netdev.Hop{Gateway: gateway(i), Index: up})
				}
				must(t, s.a.ns.ReplaceRoute(r))
			}
			hops := func(down int, gateways ...int) {
				var list []Hop
				for _, i := range gateways {
					list = append(list, Hop{Ifindex: uint32(up), Gateway: gateway(i), Down: i == down})
				}
				must(t, s.a.dp.SetHops(1, list))
			}
			// ways is by which gateway each of the flows goes, and how many go by each.
			ways := func() (by [400]byte, count [8]int) {
				s.nextJiffy()
				for i := range by {
					f := frame(t, macRemote, s.w1.mac, ip1, ip2, 10)
					f[34], f[35] = byte(4+i>>8), byte(i) // source port, from 1024 on
					o := s.fromPort(f, nil)
					if o.verdict.Verdict != bpf.TCVerdictKindV_ENCAPSULATED || o.data[4] != 9 || o.data[5] > 7 {
						t.Fatalf("flow %d: %v to % x", i, o, o.data[:6])
					}
					by[i] = o.data[5]
					count[by[i]]++
				}
				return by, count
			}
			for i := range 4 {
				resolve(i)
			}
			route(0, 1)
			hops(-1, 0, 1)
			both, count := ways()
			if count[0] < 160 || count[1] < 160 {
				t.Errorf("two equal next hops: %v", count)
			}
			hops(1, 0, 1)
			if _, count = ways(); count[0] != 400 {
				t.Errorf("next hop 1 is down: %v", count)
			}
			hops(-1, 0, 1)
			if again, _ := ways(); again != both {
				t.Error("flows do not come back to where they were")
			}
			route(0, 1, 2)
			hops(2, 0, 1, 2)
			two, count := ways()
			hops(-1, 0, 1, 2)
			three, all := ways()
			moved := 0
			for i := range two {
				if two[i] != three[i] && three[i] != 2 {
					moved++
				}
			}
			if count[2] != 0 || all[0] < 80 || all[1] < 80 || all[2] < 80 || moved != 0 {
				t.Errorf("three equal next hops: %v, without the last %v, and %d flows moved that were not on it", all, count, moved)
			}
			// The table is of yesterday: nobody keeps it.
			route(1, 2)
			if _, count = ways(); count[0] != 0 {
				t.Errorf("next hop 0 is in the table and not in the route: %v", count)
			}
			route(3)
			if _, count = ways(); count[3] != 400 {
				t.Errorf("next hop 3 is in the route and not in the table: %v", count)
			}
			route(4, 1)
			hops(-1, 4, 1)
			if _, count = ways(); count[1] != 400 {
				t.Errorf("next hop 4 is not resolved: %v", count)
			}
			// An equal way that is no uplink's: nothing leaves by it, and nothing is lost for it.
			foreign, gate := netip.MustParsePrefix("10.98.0.1/24"), netip.MustParseAddr("10.98.0.2")
			if ip6 {
				foreign, gate = netip.MustParsePrefix("fd98::1/64"), netip.MustParseAddr("fd98::2")
			}
			mgmt, _, err := s.a.ns.EnsureVeth(netdev.Veth{Name: "mgmt0", MTU: 1600, Addresses: []netip.Prefix{foreign},
				Peer: netdev.VethPeer{Namespace: namespace(t, "mgmt"), Name: "mgmt0"}})
			must(t, err)
			must(t, s.a.ns.SetNeighbour(mgmt.Index, gate, wire.MAC{2, 0, 0, 0, 9, 7}))
			must(t, s.a.ns.ReplaceRoute(netdev.Route{Dst: far, Hops: []netdev.Hop{{Gateway: gateway(1), Index: up}, {Gateway: gate, Index: mgmt.Index}}}))
			must(t, s.a.dp.SetHops(1, []Hop{{Ifindex: uint32(up), Gateway: gateway(1)}, {Ifindex: uint32(mgmt.Index), Gateway: gate}}))
			if _, count = ways(); count[1] != 400 {
				t.Errorf("one of two equal next hops is no uplink's: %v", count)
			}
		})
	}
}
