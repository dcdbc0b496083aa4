package datapath

import (
	"context"
	"net/netip"
	"os/exec"
	"testing"

	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/internal/testenv"
	"github.com/weftnet/weft/lab/probe"
	"github.com/weftnet/weft/wire"
)

// TestGroupWithLinuxVXLAN: a plain Linux vxlan device in multicast mode, which learns, and a weft host in one network: each finds the other by ARP
// or neighbour discovery through the group, with its memberships the kernel's own, and they ping by IPv4 and IPv6. Red when is_for_several takes no
// multicast, or when group_mac is wrong.
func TestGroupWithLinuxVXLAN(t *testing.T) {
	ip := testenv.RequireTool(t, "ip")
	for name, ip6 := range map[string]bool{"IPv4": false, "IPv6": true} {
		t.Run(name, func(t *testing.T) {
			testenv.Require(t, "root", "bpf")
			nsA, nsB := namespace(t, "a"), namespace(t, "b")
			underlay(t, nsA, nsB)
			local, peer := netip.MustParseAddr("10.99.0.1"), netip.MustParseAddr("10.99.0.2")
			end := Local{UDPPort: 4789, UplinkMTU: 1600, Addr4: local}
			if ip6 {
				local, peer = netip.MustParseAddr("fd99::1"), netip.MustParseAddr("fd99::2")
				end = Local{UDPPort: 4789, UplinkMTU: 1600, Addr6: local}
			}
			group, _, _ := groupsOf(ip6)
			a := newHost(t, nsA, "a", end)
			must(t, nsA.JoinGroup("up0", group))
			must(t, a.dp.PutVTEPs([]VTEP{{ID: 1, Addr: peer, UDPPort: 4789}, {ID: 7, Addr: group, Uplink: a.uplink(), UDPPort: 4789}}))
			must(t, a.dp.PutGroups([]Group{{7, group}}))
			must(t, a.dp.PutAccepts([]Accept{{7, peer}}))
			a.putNetwork(Network{VNI: 7, MTU: 1500, Remotes: []VTEPID{7, 1}, External: 1, Direct: 1})
			mac := wire.MAC{2, 0, 0, 0, 0, 2}
			for _, args := range [][]string{
				{"link", "add", "vx0", "address", mac.String(), "type", "vxlan", "id", "7", "group", group.String(), "local", peer.String(), "dev", "up0",
					"dstport", "4789", "ttl", "8", "udp6zerocsumrx", "udp6zerocsumtx"},
				{"link", "set", "vx0", "mtu", "1500", "up"},
				{"address", "add", "10.0.0.2/24", "dev", "vx0"},
				{"address", "add", "fd00::2/64", "dev", "vx0", "nodad"},
			} {
				cmd := exec.Command(ip, args...)
				must(t, nsB.Start(cmd))
				if err := cmd.Wait(); err != nil {
					t.Fatalf("ip %v: %v", args, err)
				}
			}
			must(t, a.dp.PutFDB([]FDBEntry{{FDBKey: FDBKey{7, mac}, VTEP: 1}}))
			w1 := a.workload(7, 1, nil)
			for _, way := range []struct {
				from *netdev.Handle
				to   string
			}{{w1.ns, "10.0.0.2"}, {nsB, "10.0.0.1"}, {w1.ns, "fd00::2"}, {nsB, "fd00::1"}} {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				if err := probe.PingUntil(ctx, way.from, netip.MustParseAddr(way.to)); err != nil {
					t.Errorf("ping %s: %v", way.to, err)
				}
				cancel()
			}
			if n := a.drops(DropOtherGroup) + a.drops(DropUnmarked) + a.drops(DropOwnSource); n != 0 {
				t.Errorf("%d packets were not what they should be", n)
			}
			a.balanced()
			must(t, nsA.LeaveGroup(netdev.Group{Index: int(a.uplink()), Addr: group}))
			if left, err := nsA.Groups(); err != nil || len(left) != 0 {
				t.Errorf("memberships that are left: %v, %v", left, err)
			}
		})
	}
}
