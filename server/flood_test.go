package server

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
)

// memberFleet is a watched fleet of three hosts, each with a port in network blue.
func memberFleet(t *testing.T, f *fixture, tenant string) []*double {
	t.Helper()
	fleet := watchedFleet(t, f, tenant, 3)
	for i, h := range fleet[1:] {
		name := []string{"q", "r"}[i]
		ok(t, f.ports.CreatePort, &weftv1.CreatePortRequest{Tenant: tenant, Name: name, Spec: &weftv1.PortSpec{Network: "blue"}})
		ok(t, h.agent.Bind, &planv1.BindRequest{Tenant: tenant, Port: name})
	}
	return fleet
}

// TestFloodRates: a network's status sums up what its live hosts flood of it, and says it of each. Red when floodedOn takes in what is said of other
// networks, or networkStatus what hosts say that are not live.
func TestFloodRates(t *testing.T) {
	f := ownServer(t, Config{})
	fleet := memberFleet(t, f, "flooded")
	status := func() *weftv1.NetworkStatus {
		return ok(t, f.networks.GetNetwork, &weftv1.GetNetworkRequest{Tenant: "flooded", Name: "blue"}).GetStatus()
	}
	uid := ok(t, f.networks.GetNetwork, &weftv1.GetNetworkRequest{Tenant: "flooded", Name: "blue"}).GetMeta().GetUid()
	says := func(h *double, floods uint64, rate float64) {
		h.report(&planv1.Report{Floods: []*planv1.Floods{{Network: "other", Floods: 1000, FloodsPerSecond: 1000},
			{Network: uid, Floods: floods, Copies: 2 * floods, FloodsPerSecond: rate, CopiesPerSecond: 2 * rate}}})
	}
	says(fleet[0], 10, 1.5)
	says(fleet[2], 20, 2.5)
	eventually(t, "both are summed up", func() bool {
		s := status()
		hosts := s.GetHostFloods()
		return s.GetFanOut() == 2 && s.GetFloodsPerSecond() == 4 && s.GetCopiesPerSecond() == 8 && len(hosts) == 2 &&
			hosts[0].GetHost() == fleet[0].name && hosts[0].GetFloods() == 10 && hosts[0].GetCopies() == 20 && hosts[1].GetFloodsPerSecond() == 2.5
	})
	fleet[2].hangUp()
	eventually(t, "who is away floods nothing that is known", func() bool {
		s := status()
		return s.GetFloodsPerSecond() == 1.5 && len(s.GetHostFloods()) == 1
	})
}

// TestReceiversOfAGroup: an external VTEP whose address is of the other IP version cannot be said to receive a network's group, by whichever request,
// and the refusal names the command that lets it get copies. Red when groupFor does not ask ValidateReceivers, or UpdateVTEP not ValidateWith.
func TestReceiversOfAGroup(t *testing.T) {
	f := server(t)
	const tenant = "receivers"
	ok(t, f.tenants.CreateTenant, &weftv1.CreateTenantRequest{Name: tenant})
	ok(t, f.vteps.CreateVTEP, &weftv1.CreateVTEPRequest{Name: "four", Spec: &weftv1.VTEPSpec{Address: "192.0.2.240"}})
	ok(t, f.vteps.CreateVTEP, &weftv1.CreateVTEPRequest{Name: "six", Spec: &weftv1.VTEPSpec{Address: "2001:db8:240::6"}})
	ok(t, f.groups.CreateGroupPool, &weftv1.CreateGroupPoolRequest{Name: "six-groups", Spec: &weftv1.GroupPoolSpec{First: "ff05::77:1", Last: "ff05::77:9"}})
	spec := func(group, pool, vtep string) *weftv1.NetworkSpec {
		return &weftv1.NetworkSpec{Flood: weftv1.FloodMethod_FLOOD_METHOD_MULTICAST, Group: group, GroupPool: pool,
			Vteps: []*weftv1.NetworkVTEP{{Vtep: vtep, Flood: weftv1.VTEPFlood_VTEP_FLOOD_GROUP}}}
	}
	const field = "spec.vteps[0].flood"
	refused(t, f.networks.CreateNetwork, &weftv1.CreateNetworkRequest{Tenant: tenant, Name: "blue", Spec: spec("239.240.0.1", "", "six")}, connect.CodeInvalidArgument, field,
		"cannot receive the IPv4 group 239.240.0.1")
	refused(t, f.networks.CreateNetwork, &weftv1.CreateNetworkRequest{Tenant: tenant, Name: "blue", Spec: spec("", "six-groups", "four")}, connect.CodeInvalidArgument, field,
		"cannot receive the IPv6 group")
	n := ok(t, f.networks.CreateNetwork, &weftv1.CreateNetworkRequest{Tenant: tenant, Name: "blue", Spec: spec("239.240.0.1", "", "four")})
	refused(t, f.networks.UpdateNetwork, &weftv1.UpdateNetworkRequest{Tenant: tenant, Name: "blue", Revision: n.Meta.Revision, Spec: spec("ff05::240:1", "", "four")}, connect.CodeInvalidArgument, field,
		"cannot receive the IPv6 group ff05::240:1")
	refused(t, f.networks.AddNetworkVTEP, &weftv1.AddNetworkVTEPRequest{Tenant: tenant, Network: "blue", Vtep: &weftv1.NetworkVTEP{Vtep: "six", Flood: weftv1.VTEPFlood_VTEP_FLOOD_GROUP}},
		connect.CodeInvalidArgument, "spec.vteps[1].flood", "2001:db8:240::6")
	ok(t, f.networks.AddNetworkVTEP, &weftv1.AddNetworkVTEPRequest{Tenant: tenant, Network: "blue", Vtep: &weftv1.NetworkVTEP{Vtep: "six"}}) // by copies
	four := ok(t, f.vteps.GetVTEP, &weftv1.GetVTEPRequest{Name: "four"})
	refused(t, f.vteps.UpdateVTEP, &weftv1.UpdateVTEPRequest{Name: "four", Revision: four.Meta.Revision, Spec: &weftv1.VTEPSpec{Address: "2001:db8:240::4"}},
		connect.CodeFailedPrecondition, "spec.address", "network receivers/blue")
	ok(t, f.vteps.UpdateVTEP, &weftv1.UpdateVTEPRequest{Name: "four", Revision: four.Meta.Revision, Spec: &weftv1.VTEPSpec{Address: "192.0.2.241"}})
}

// TestUndelivered: who misses a sender that sends is named with it, at the network and at both hosts, and nobody else; not when the sender does not say that
// it sends, or has only begun, or its last report is old. Who misses several senders that others hear is named alone. Red when undelivered or byHost leaves any of these out.
func TestUndelivered(t *testing.T) {
	f := ownServer(t, Config{Limits: Limits{Sweep: 10 * time.Millisecond}})
	fleet := memberFleet(t, f, "lost")
	group := netip.MustParseAddr("239.77.1.1")
	n := ok(t, f.networks.GetNetwork, &weftv1.GetNetworkRequest{Tenant: "lost", Name: "blue"})
	ok(t, f.networks.UpdateNetwork, &weftv1.UpdateNetworkRequest{Tenant: "lost", Name: "blue", Revision: n.Meta.Revision,
		Spec: &weftv1.NetworkSpec{Flood: weftv1.FloodMethod_FLOOD_METHOD_MULTICAST, Group: group.String()}})
	says := func(h *double, sending time.Duration, missed ...*double) {
		m := &planv1.ProbedGroup{Group: group.AsSlice(), EveryNanoseconds: int64(4 * time.Second), SendingNanoseconds: int64(sending)}
		for _, o := range missed {
			m.Missed = append(m.Missed, &planv1.MissedSender{Vtep: o.uid, MissedNanoseconds: int64(20 * time.Second)})
		}
		h.report(&planv1.Report{ProbedGroups: []*planv1.ProbedGroup{m}})
	}
	of := func(list []*weftv1.Condition) (said string) {
		for _, c := range list {
			if c.Name == notDelivered {
				said += c.Message + "\n"
			}
		}
		return said
	}
	network := func() string {
		return of(ok(t, f.networks.GetNetwork, &weftv1.GetNetworkRequest{Tenant: "lost", Name: "blue"}).GetStatus().GetConditions())
	}
	host := func(h *double) string { return of(f.duty(t, h).GetConditions()) }
	a, b, c := fleet[0], fleet[1], fleet[2]
	eventually(t, "floods go to the group", func() bool {
		f.clock.advance(10 * time.Second)
		return ok(t, f.networks.GetNetwork, &weftv1.GetNetworkRequest{Tenant: "lost", Name: "blue"}).GetStatus().GetGroup() == group.String()
	})
	says(a, time.Minute)
	says(b, time.Second) // has only begun
	says(c, time.Minute, a, b)
	want := c.name + " does not receive what " + a.name + " sends to " + group.String() + "\n"
	eventually(t, "who does not receive what is sent is named", func() bool { return network() == want && host(a) == want && host(c) == want && host(b) == "" })
	f.clock.advance(freshFor + time.Second)
	after := f.clock.now()
	seen := func(h *double) func() bool {
		return func() bool { return !f.duty(t, h).GetLastSeen().AsTime().Before(after) }
	}
	a.mu.Lock()
	applied := &planv1.Applied{StoreId: a.staging.StoreID(), Revision: a.staging.Revision()}
	a.mu.Unlock()
	a.say(&planv1.AgentMessage{Message: &planv1.AgentMessage_Applied{Applied: applied}}) // it is heard, and has said nothing new of its floods
	eventually(t, "the sender is heard", seen(a))
	says(c, time.Minute, a, b)
	eventually(t, "the receiver has reported", seen(c))
	if said := network(); said != "" {
		t.Errorf("what was said long ago says of now: %s", said)
	}
	says(a, time.Minute)
	eventually(t, "it is named again", func() bool { return network() == want })
	says(b, time.Minute)
	says(c, time.Minute, a, b)
	eventually(t, "who misses several has the fault with itself", func() bool {
		return strings.Count(network(), "\n") == 2 && strings.Count(host(c), "\n") == 2 && host(a) == "" && host(b) == ""
	})
	says(b, time.Minute, a, c)
	says(a, time.Minute, b, c)
	eventually(t, "where all miss all, all are named", func() bool {
		return strings.Count(network(), "\n") == 6 && strings.Count(host(a), "\n") == 4 && strings.Count(host(b), "\n") == 4 && strings.Count(host(c), "\n") == 4
	})
	says(a, time.Minute)
	says(b, time.Minute)
	says(c, time.Minute)
	eventually(t, "it is delivered again", func() bool { return network() == "" && host(a) == "" && host(c) == "" })
}

// TestCopiesWaitForNobody: on the way to copies no host is waited for, as each takes them as it is; the group is left only when all have changed. And a group of
// an IP version that no host has is a copy to each. Red when carryFloods waits for unready on that way, or fanOut counts the group.
func TestCopiesWaitForNobody(t *testing.T) {
	f := ownServer(t, Config{Limits: Limits{Join: time.Millisecond, Sweep: 10 * time.Millisecond}})
	fleet := memberFleet(t, f, "away")
	network := func() *weftv1.Network {
		return ok(t, f.networks.GetNetwork, &weftv1.GetNetworkRequest{Tenant: "away", Name: "blue"})
	}
	set := func(spec *weftv1.NetworkSpec) {
		ok(t, f.networks.UpdateNetwork, &weftv1.UpdateNetworkRequest{Tenant: "away", Name: "blue", Revision: network().Meta.Revision, Spec: spec})
	}
	const group = "ff05::77:1" // the fleet has IPv4 addresses
	set(&weftv1.NetworkSpec{Flood: weftv1.FloodMethod_FLOOD_METHOD_MULTICAST, Group: group})
	eventually(t, "floods go to the group", func() bool {
		f.clock.advance(time.Second)
		return network().GetStatus().GetGroup() == group
	})
	if n := network().GetStatus().GetFanOut(); n != 2 {
		t.Errorf("fan-out %d, want a copy to each of 2", n)
	}
	fleet[2].hangUp()
	eventually(t, "one is away", func() bool { return f.duty(t, fleet[2]).GetState() != weftv1.HostState_HOST_STATE_READY })
	set(&weftv1.NetworkSpec{})
	eventually(t, "floods go as copies", func() bool { return network().GetStatus().GetGroup() == "" })
	f.clock.advance(time.Hour)
	f.afterSweeps(t)
	if joined := network().GetStatus().GetJoinedGroups(); len(joined) != 1 || joined[0] != group {
		t.Errorf("%v is joined while a host that is away may send to the group", joined)
	}
}
