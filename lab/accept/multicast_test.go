package accept_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/lab"
	"github.com/weftnet/weft/wire"
)

// joinedGroups are the groups that weft joined on a host.
func (f *fixture) joinedGroups(t testing.TB, host string) (list []netip.Addr) {
	t.Helper()
	groups, err := f.node(t, host).Groups()
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups {
		list = append(list, g.Addr)
	}
	return list
}

// TestMulticastFlood: on a flat underlay, a network's floods are one packet to its group; hosts join with their first port and leave with the last, and
// stay joined while their agent is dead. The method changes from head-end replication to multicast, to another group and back while broadcasts
// run: each arrives exactly once.
// Goes red when model.FloodAlloc.Use makes Sends the new group at once (the broadcasts until h2 has joined are lost), when Next leaves what is
// still sent to, when floodVTEPs keeps the members beside the group (each arrives twice), or when a membership is a socket's (it dies with the agent).
func TestMulticastFlood(t *testing.T) {
	t.Parallel() // with the others that wait for joins, in labs of their own
	for _, underlay := range []int{4, 6} {
		t.Run(fmt.Sprintf("IPv%d", underlay), func(t *testing.T) {
			t.Parallel()
			f := ownLab(t, lab.Config{Name: fmt.Sprintf("mcast%d", underlay), Direct: true, Underlay: underlay})
			multicastFlood(t, f, map[int][2]string{4: {"239.129.7.1", "239.129.7.2"}, 6: {"ff05::7:1", "ff05::7:2"}}[underlay])
		})
	}
}

func multicastFlood(t *testing.T, f *fixture, groups [2]string) {
	const tenant = "mc"
	f.tenant(t, tenant)
	f.network(t, tenant, "blue", &weftv1.NetworkSpec{Subnets: []string{"10.1.0.0/24", "fd00:1::/64"}})
	spec := func(i int) lab.WorkloadSpec {
		return lab.WorkloadSpec{Name: fmt.Sprintf("mc-%d", i), Host: fmt.Sprintf("h%d", i), Tenant: tenant, Network: "blue"}
	}
	one := f.workload(t, spec(1))
	two, err := f.AddWorkload(limited(t), spec(2))
	if err != nil {
		t.Fatal(err)
	}
	far := f.node(t, two.Name)
	reaches(t, one.ns, first(two.IPs, netip.Addr.Is4))

	inbox := startInbox(t, far, "eth0")
	sent := 0
	shout := func(n int) {
		for range n {
			flow := wire.Flow{SrcMAC: mac(t, one.MACs[0]), DstMAC: wire.BroadcastMAC, Src: one.v4(), Dst: netip.MustParseAddr("10.1.0.255")}
			inject(t, one.ns, "eth0", flow.UDP(uint16(20000+sent), 9, []byte(fmt.Sprintf("weft flood %06d", sent))))
			sent++
		}
	}
	settles := func(what, group string, joined ...string) {
		t.Helper()
		eventually(t, what, func() (bool, string) {
			shout(5)
			out := f.must(t, "network", "show", "blue", "--tenant", tenant)
			at := [2][]netip.Addr{f.joinedGroups(t, "h1"), f.joinedGroups(t, "h2")}
			ok := !strings.Contains(out, "flood method changes") && !strings.Contains(out, "old groups") && (group == "" && strings.Contains(out, "head-end") || group != "" && strings.Contains(out, "group "+group))
			for _, have := range at {
				var texts []string
				for _, a := range have {
					texts = append(texts, a.String())
				}
				ok = ok && slices.Equal(texts, joined)
			}
			return ok, fmt.Sprintf("%v\n%s", at, out)
		})
		shout(20)
	}
	shout(5)
	f.must(t, "network", "set", "blue", "--tenant", tenant, "--group", groups[0])
	settles("floods go to the group", groups[0], groups[0])
	f.must(t, "network", "set", "blue", "--tenant", tenant, "--group", groups[1])
	settles("floods go to the other group", groups[1], groups[1])
	f.floodRates(t, tenant, "blue", func() { shout(5) })

	if err := f.KillAgent(limited(t), "h2"); err != nil {
		t.Fatal(err)
	}
	shout(20)
	if have := f.joinedGroups(t, "h2"); len(have) != 1 || have[0].String() != groups[1] {
		t.Errorf("while the agent is dead h2 is a member of %v", have)
	}
	exactlyOnce(t, inbox, sent)
	f.agentBack(t, "h2")
	settles("the agent is back, and a member still", groups[1], groups[1])

	f.must(t, "network", "set", "blue", "--tenant", tenant, "--flood", "head-end", "--wait")
	if out := f.must(t, "network", "show", "blue", "--tenant", tenant); !strings.Contains(out, "head-end") || strings.Contains(out, "to become") {
		t.Errorf("network set --wait came back before floods went as copies:\n%s", out)
	}
	settles("floods are copies again", "")
	exactlyOnce(t, inbox, sent)
	inbox.stop()

	f.must(t, "network", "set", "blue", "--tenant", tenant, "--group", groups[0], "--wait")
	if out := f.must(t, "network", "show", "blue", "--tenant", tenant); !strings.Contains(out, "group "+groups[0]) || strings.Contains(out, "to become") {
		t.Errorf("network set --wait came back before floods went to the group:\n%s", out)
	}
	settles("floods go to the group again", groups[0], groups[0])
	ctx, cancel := context.WithTimeout(context.Background(), inTime)
	defer cancel()
	if err := f.RemoveWorkload(ctx, two.Name); err != nil {
		t.Fatal(err)
	}
	eventually(t, "h2 left the group with its last port", func() (bool, string) {
		have := f.joinedGroups(t, "h2")
		return len(have) == 0, fmt.Sprint(have)
	})
	if have := f.joinedGroups(t, "h1"); len(have) != 1 {
		t.Errorf("h1 has a port still, and is a member of %v", have)
	}
}

// exactlyOnce wants every flood that was sent, once.
func exactlyOnce(t *testing.T, inbox *capture, sent int) {
	t.Helper()
	all := []byte("weft flood ")
	eventually(t, "every flood arrives", func() (bool, string) {
		n := inbox.count(all)
		return n >= sent, fmt.Sprintf("%d of %d", n, sent)
	})
	for i := range sent {
		if n := inbox.count([]byte(fmt.Sprintf("weft flood %06d", i))); n != 1 {
			t.Errorf("flood %d of %d arrived %d times", i, sent, n)
		}
	}
}

// floodRates wants `weft network show` to tell how many floods and copies a second there are while somebody floods: as many copies as floods, since the
// network floods to a group and its other host has joined.
func (f *fixture) floodRates(t *testing.T, tenant, network string, flood func()) {
	t.Helper()
	eventually(t, "network show tells what is flooded", func() (bool, string) {
		flood()
		out := f.must(t, "network", "show", network, "--tenant", tenant)
		var floods, copies float64
		for line := range strings.Lines(out) {
			if _, rest, ok := strings.Cut(line, "Flooded"); ok {
				_, _ = fmt.Sscanf(strings.TrimSpace(rest), "%g floods a second, %g copies a second", &floods, &copies)
			}
		}
		return floods > 1 && floods == copies && strings.Contains(out, "1 packets a flood"), out
	})
}
