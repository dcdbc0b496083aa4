package agent

import (
	"math"
	"net/netip"
	"testing"
	"time"

	"connectrpc.com/connect"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/plan"
	"github.com/weftnet/weft/wire"
)

// TestFloodsAreSaid: what ports flooded is in the report with its rates, of networks that the plan has; a look that comes too soon changes nothing, and a
// count that begins anew makes no rate. Red when lookAtFloods leaves out floodLook, or the comparison with what was before.
func TestFloodsAreSaid(t *testing.T) {
	r := newRig(t)
	r.base()
	count := func(floods, copies uint64) {
		r.kernel.mu.Lock()
		defer r.kernel.mu.Unlock()
		r.kernel.flooded = map[wire.VNI]datapath.FloodCount{5001: {Floods: floods, Copies: copies}, 77: {Floods: 1}}
	}
	now := time.Now()
	look := func(after time.Duration, floods uint64, perSecond, copiesPerSecond float64) {
		t.Helper()
		now = now.Add(after)
		r.within(func() {
			r.agent.lookAtFloods(now)
			list := r.agent.flooded.list
			if len(list) != 1 || list[0].Floods != floods || math.Abs(list[0].FloodsPerSecond-perSecond) > 1e-9 || math.Abs(list[0].CopiesPerSecond-copiesPerSecond) > 1e-9 {
				t.Errorf("after %s: said %v, want %d floods, %g and %g a second", after, list, floods, perSecond, copiesPerSecond)
			}
		})
	}
	r.setAway(true)                                  // no more reports
	r.within(func() { r.agent.flooded = flooded{} }) // what one has looked at meanwhile
	count(100, 300)
	look(0, 100, 0, 0)
	count(120, 360)
	look(4*time.Second, 120, 5, 15)
	count(500, 600)
	look(floodLook/2, 120, 5, 15)
	look(floodLook/2+time.Second, 500, 190, 120)
	count(3, 9)
	look(time.Second, 3, 0, 0)
	look(time.Second, 3, 0, 0)
}

// TestHeldFDBAndGroups: what `weft vtep show` and the like are told: static MACs and learned ones with their age, where a static one wins; groups, and by
// which uplink they are joined; and what was flooded. Red when heldFDB takes learned MACs in that are static, or heldGroups does not look at the memberships.
func TestHeldFDBAndGroups(t *testing.T) {
	r := newRig(t)
	r.base()
	m := networkOf()
	group := netip.MustParseAddr("239.1.1.1")
	m.Learning = &planv1.Learning{AgeingSeconds: 300, VtepLimit: 100, PortLimit: 10}
	m.Group, m.JoinedGroups = group.AsSlice(), [][]byte{group.AsSlice()}
	r.take(plan.NewNetwork(1, m, plan.FeatureLearning, plan.FeatureMulticast))
	known := datapath.FDBKey{VNI: 5001}
	r.within(func() {
		for mac := range r.agent.rec.tables.fdb[5001] {
			known.MAC = mac.mac()
		}
	})
	mac := wire.MAC{2, 0xee, 0, 0, 0, 1}
	r.kernel.mu.Lock()
	r.kernel.flooded = map[wire.VNI]datapath.FloodCount{5001: {Floods: 5, Copies: 15}}
	r.kernel.learned = []datapath.LearnedMAC{{FDBKey: known, VTEP: 1},
		{FDBKey: datapath.FDBKey{VNI: 5001, MAC: mac}, VTEP: 1, Age: 12 * time.Second, Left: 288 * time.Second, Moves: 2}}
	r.kernel.mu.Unlock()
	s := &localService{agent: r.agent}
	list := func(brief bool) *localv1.HeldNetwork {
		t.Helper()
		res, err := s.ListNetworks(r.ctx, connect.NewRequest(&localv1.ListNetworksRequest{Vni: 5001, Brief: brief}))
		if err != nil || len(res.Msg.GetNetworks()) != 1 {
			t.Fatalf("listed: %v (%v)", res, err)
		}
		return res.Msg.GetNetworks()[0]
	}
	n := list(false)
	if n.GetFloods() != 5 || n.GetCopies() != 15 || n.GetUnlisted() != 0 {
		t.Errorf("listed: %v", n)
	}
	if g := n.GetGroups(); len(g) != 1 || g[0].GetGroup() != "239.1.1.1" || !g[0].GetSends() || g[0].GetUplink() != "eth1" || g[0].GetMessage() != "" {
		t.Errorf("groups: %v", g)
	}
	static, learned := 0, 0
	for _, e := range n.GetFdb() {
		switch {
		case !e.GetLearned():
			static++
		case e.GetMac() == mac.String() && e.GetVtep() == "192.0.2.2" && e.GetAgeNanoseconds() == int64(12*time.Second) && e.GetLeftNanoseconds() == int64(288*time.Second) && e.GetMoves() == 2:
			learned++
		default:
			t.Errorf("listed: %v", e)
		}
	}
	if static == 0 || learned != 1 {
		t.Errorf("%d static MACs and %d learned ones are listed: %v", static, learned, n.GetFdb())
	}
	if n := list(true); len(n.GetFdb()) > 0 {
		t.Errorf("the brief list has %v", n.GetFdb())
	}
}
