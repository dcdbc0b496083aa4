package server

import (
	"testing"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
)

// TestFloodRates: a network's status sums up what its live hosts flood of it, and says it of each. Red when floodedOn takes in what is said of other
// networks, or networkStatus what hosts say that are not live.
func TestFloodRates(t *testing.T) {
	f := ownServer(t, Config{})
	fleet := watchedFleet(t, f, "flooded", 3)
	for i, h := range fleet[1:] {
		name := []string{"q", "r"}[i]
		ok(t, f.ports.CreatePort, &weftv1.CreatePortRequest{Tenant: "flooded", Name: name, Spec: &weftv1.PortSpec{Network: "blue"}})
		ok(t, h.agent.Bind, &planv1.BindRequest{Tenant: "flooded", Port: name})
	}
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
