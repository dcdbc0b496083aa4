package agent

import (
	"errors"
	"maps"
	"net/netip"
	"strings"
	"testing"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/plan"
)

// TestMemberships: joined once, adopted by the next agent, ended when not wanted, on another uplink too; what could not be joined is tried again.
func TestMemberships(t *testing.T) {
	one, two := netip.MustParseAddr("239.1.1.1"), netip.MustParseAddr("ff05::1:1")
	links := newFakeLinks()
	eth1, eth2 := links.links["eth1"], netdev.Link{Index: 3, Name: "eth2"}
	links.links["eth2"] = eth2
	told := map[netip.Addr]error{}
	tell := func(g netip.Addr, err error) { told[g] = err }
	check := func(what string, want ...netdev.Group) {
		t.Helper()
		have := map[netdev.Group]bool{}
		for _, g := range want {
			have[g] = true
		}
		if !maps.Equal(have, links.groups) {
			t.Errorf("%s: %v, want %v", what, links.groups, want)
		}
	}
	both := map[netip.Addr]bool{one: true, two: true}
	var m memberships
	links.full = true
	m.join(links, eth1, both, tell)
	if told[one] == nil || told[two] == nil {
		t.Errorf("what cannot be joined is told as joined: %v", told)
	}
	links.full = false
	m.join(links, eth1, both, tell)
	if err := errors.Join(told[one], told[two]); err != nil {
		t.Errorf("tried again: %v", err)
	}
	check("joined", netdev.Group{Index: 2, Addr: one}, netdev.Group{Index: 2, Addr: two})

	var next memberships // the agent was started anew
	next.join(links, eth2, map[netip.Addr]bool{one: true}, tell)
	check("the other uplink joins before this one leaves", netdev.Group{Index: 2, Addr: one}, netdev.Group{Index: 2, Addr: two}, netdev.Group{Index: 3, Addr: one})
	if _, err := next.leave(links, map[netip.Addr]bool{one: true}); err != nil {
		t.Fatal(err)
	}
	check("only what is wanted, where it is wanted", netdev.Group{Index: 3, Addr: one})
}

// TestGroupUplink: the first with a carrier joins and sends; without any, the first.
func TestGroupUplink(t *testing.T) {
	up, down := netdev.Link{Index: 5, Running: true}, netdev.Link{Index: 4}
	for _, c := range []struct {
		have map[string]netdev.Link
		want int
	}{
		{map[string]netdev.Link{"eth1": down, "eth2": up}, 5},
		{map[string]netdev.Link{"eth1": up, "eth2": {Index: 6, Running: true}}, 5},
		{map[string]netdev.Link{"eth1": down, "eth2": {Index: 6}}, 4},
		{map[string]netdev.Link{"eth2": down}, 4},
		{nil, 0},
	} {
		if l, ok := groupUplink("eth1,eth2", c.have); l.Index != c.want || ok != (c.want != 0) {
			t.Errorf("of %v: %d, want %d", c.have, l.Index, c.want)
		}
	}
}

// TestGroupReachesUnlisted: a VTEP that no plan names gets a network's floods by its group, if it has an address of the group's IP version, and no
// copy beside; in a network without a group it gets copies. Red when floodVTEPs puts such VTEPs among those that get copies.
func TestGroupReachesUnlisted(t *testing.T) {
	r := newRig(t)
	r.base()
	group := netip.MustParseAddr("239.1.1.1")
	send := func(group ...[]byte) {
		n := networkOf()
		n.Learning = &planv1.Learning{AgeingSeconds: 300, VtepLimit: 100, PortLimit: 10, Sources: []string{"198.51.100.0/24"}}
		if n.JoinedGroups = group; len(group) > 0 {
			n.Group = group[0]
		}
		r.take(plan.NewNetwork(1, n, plan.FeatureLearning, plan.FeatureMulticast))
	}
	send(group.AsSlice())
	r.kernel.strangers <- datapath.Accept{VNI: 5001, Addr: netip.MustParseAddr("198.51.100.7")}
	r.until("the address is a VTEP of the network", func() bool { return strings.Contains(r.kernel.String(), "accept 5001 198.51.100.7 vtep") })
	if have := r.tables(); !strings.Contains(have, "external 1 ") || !strings.Contains(have, "direct 1") || !strings.Contains(have, "group 5001 239.1.1.1") {
		t.Errorf("tables:\n%s", have)
	}
	send()
	if have := r.tables(); !strings.Contains(have, "external 1 ") || strings.Contains(have, "direct") || strings.Contains(have, "group") {
		t.Errorf("without a group:\n%s", have)
	}
}
