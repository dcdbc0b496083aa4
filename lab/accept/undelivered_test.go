package accept_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/internal/testenv"
	"github.com/weftnet/weft/lab"
	"github.com/weftnet/weft/wire"
)

// TestGroupNotDelivered: an underlay that does not bring a group to a host is named, by who sends and who does not receive, and nobody else is; it
// is named no more when the group is delivered again. While nothing is wrong, nobody is named.
// Red when send_to_vtep sends probes to a group through the kernel's neighbour code (group_hop without nh->confirmed: all miss all), when the server
// takes what is missed for undelivered whether or not it is sent, and when GroupWatch.hear does not note the time.
func TestGroupNotDelivered(t *testing.T) {
	t.Parallel() // with the others that wait for joins, in labs of their own
	const tenant, group = "undelivered", "239.1.1.1"
	f := ownLab(t, lab.Config{Name: "undeliv", Flat: true, Hosts: 3})
	nft := testenv.RequireTool(t, "nft")
	f.tenant(t, tenant)
	f.network(t, tenant, "blue", &weftv1.NetworkSpec{Subnets: []string{"10.1.0.0/24"}, Flood: weftv1.FloodMethod_FLOOD_METHOD_MULTICAST, Group: group})
	var all []*workload
	for i := 1; i <= 3; i++ {
		all = append(all, f.workload(t, lab.WorkloadSpec{Name: fmt.Sprintf("un-%d", i), Host: fmt.Sprintf("h%d", i), Tenant: tenant, Network: "blue"}))
	}
	reaches(t, all[0].ns, first(all[2].IPs, netip.Addr.Is4))
	flood := func() {
		for _, w := range all {
			flow := wire.Flow{SrcMAC: mac(t, w.MACs[0]), DstMAC: wire.BroadcastMAC, Src: w.v4(), Dst: netip.MustParseAddr("10.1.0.255")}
			inject(t, w.ns, "eth0", flow.UDP(20000, 9, []byte("weft flood")))
		}
	}
	named := func(args ...string) (list []string) {
		for line := range strings.Lines(f.must(t, args...)) {
			if _, what, ok := strings.Cut(line, "group not delivered: "); ok {
				list = append(list, strings.TrimSpace(what))
			}
		}
		slices.Sort(list)
		return list
	}
	network := []string{"network", "show", "blue", "--tenant", tenant}
	// stays wants those named and no others, for so long; enough is longer than it takes to miss somebody.
	const enough, moment = 21 * time.Second, 4 * time.Second
	stays := func(long time.Duration, what string, want ...string) {
		t.Helper()
		for end := time.Now().Add(long); time.Now().Before(end); {
			flood()
			if have := named(network...); !slices.Equal(have, want) {
				t.Fatalf("%s: named are %v, want %v", what, have, want)
			}
			time.Sleep(200 * time.Millisecond)
		}
	}
	becomes := func(what string, want ...string) {
		t.Helper()
		began := time.Now()
		for {
			flood()
			have := named(network...)
			if slices.Equal(have, want) {
				t.Logf("%s after %s", what, time.Since(began).Round(100*time.Millisecond))
				return
			}
			for _, one := range have {
				if len(want) > 0 && !slices.Contains(want, one) {
					t.Fatalf("%s: %q is named, and only %v should be", what, one, want)
				}
			}
			if time.Since(began) > 40*time.Second {
				t.Fatalf("%s: after %s named are %v, want %v", what, time.Since(began), have, want)
			}
			time.Sleep(200 * time.Millisecond)
		}
	}
	inSwitch := func(args ...string) {
		t.Helper()
		if r := finish(t, exec.Command(nft, args...), f.node(t, "switch").Start); r.status != 0 {
			t.Fatalf("nft %v: %s%s", args, r.out, r.err)
		}
	}
	cut := func(rule string) {
		t.Helper()
		inSwitch("add table bridge cut; add chain bridge cut forward { type filter hook forward priority 0; }; add rule bridge cut forward " + rule + " ip daddr " + group + " drop")
	}
	heal := func() { t.Helper(); inSwitch("delete table bridge cut") }

	stays(moment, "nothing is wrong") // and whoever is named besides from here on, ends the test
	misses := func(receiver, sender string) string {
		return receiver + " does not receive what " + sender + " sends to " + group
	}

	cut(`oifname "to-h3"`)
	both := []string{misses("h3", "h1"), misses("h3", "h2")}
	becomes("that h3 receives nothing is named", both...)
	stays(moment, "h3 receives nothing", both...)
	for host, want := range map[string][]string{"h1": nil, "h2": nil, "h3": both} { // h3 misses more senders than any of them is missed by
		if have := named("host", "show", host); !slices.Equal(have, want) {
			t.Errorf("host show %s names %v, want %v", host, have, want)
		}
	}
	heal()
	becomes("h3 receives again, and nobody is named")

	// Agents that are away send no probes, and their hosts forward: they are not named.
	if err := f.KillAgent(limited(t), "h1"); err != nil {
		t.Fatal(err)
	}
	stays(enough, "an agent is away")
	f.agentBack(t, "h1")
	stays(moment, "the agent is back")

	// What h1 sends is missed only when it has sent long enough again: until then a host that it does not hear, or that does not hear it, would be named.
	cut(`iifname "to-h1" oifname "to-h2"`)
	becomes("that h2 does not receive h1 is named", misses("h2", "h1"))
	stays(moment, "h2 does not receive h1", misses("h2", "h1"))
	heal()
	becomes("h2 receives h1 again, and nobody is named")
}
