package agent

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/plan"
	"github.com/weftnet/weft/wire"

	"connectrpc.com/connect"
)

func learningOf(sources ...string) *plan.Resource {
	n := networkOf()
	n.Learning = &planv1.Learning{AgeingSeconds: 300, VtepLimit: 100, PortLimit: 10, Sources: sources}
	return plan.NewNetwork(1, n, plan.FeatureLearning)
}

func (r *rig) take(res *plan.Resource) {
	r.t.Helper()
	if err := r.send(res); err != nil {
		r.t.Fatal(err)
	}
}

// within runs something in the loop.
func (r *rig) within(f func()) {
	r.t.Helper()
	if err := r.agent.do(r.ctx, f); err != nil {
		r.t.Fatal(err)
	}
}

// TestLearningPlan: what the plan says of learning is in the kernel, with the VTEPs that MACs are learned at, over a restart too, and goes again.
// Red when wantAccepts leaves the VTEP out.
func TestLearningPlan(t *testing.T) {
	r := newRig(t)
	r.base()
	before := r.tables()
	r.take(learningOf("198.51.100.0/24"))
	for _, line := range []string{"learns 5m0s 100 10 open", "accept 5001 192.0.2.2 vtep 1", "source 5001 198.51.100.0/24"} {
		if !strings.Contains(r.tables(), line) {
			t.Errorf("%q is not in\n%s", line, r.tables())
		}
	}
	now := r.tables()
	writes := r.kernel.writes
	r.restart()
	if r.tables() != now || r.kernel.writes != writes {
		t.Errorf("after a restart, and %d writes:\n%s", r.kernel.writes-writes, r.tables())
	}
	r.take(plan.NewNetwork(1, networkOf()))
	if r.tables() != before {
		t.Errorf("after the network learns no more:\n%s\nnot\n%s", r.tables(), before)
	}
}

// TestUnlistedVTEPs: an address within the network's prefixes that has sent is a VTEP of the network, up to a number, until it is silent and
// nothing is learned behind it, over a restart too; one outside is none. Red when mayCome asks nothing, or AgeUnlisted nobody.
func TestUnlistedVTEPs(t *testing.T) {
	r := newRig(t)
	r.base()
	r.take(learningOf("198.51.100.0/24"))
	meet := func(addr string) { r.kernel.strangers <- datapath.Accept{VNI: 5001, Addr: netip.MustParseAddr(addr)} }
	plain := r.tables()
	meet("203.0.113.9")
	meet("192.0.2.2") // listed
	meet("198.51.100.7")
	r.until("the address is a VTEP of the network", func() bool { return strings.Contains(r.kernel.String(), "accept 5001 198.51.100.7 vtep 2") })
	if strings.Contains(r.tables(), "203.0.113.9") || !strings.Contains(r.tables(), "external 1 ") {
		t.Errorf("tables:\n%s", r.tables())
	}
	now := r.tables()
	r.restart()
	if r.tables() != now {
		t.Errorf("after a restart:\n%s\nnot\n%s", r.tables(), now)
	}
	r.setAway(true)               // a report would look too, and say it alone
	for i := range mostUnlisted { // one more than there is room for: the last
		meet(netip.AddrFrom4([4]byte{198, 51, 100, byte(100 + i)}).String())
	}
	var said []*planv1.Condition
	r.until("more than may be have come", func() bool {
		r.agent.lookAtLearned()
		said = r.agent.learnedConditions()
		return len(said) == 1 && said[0].Name == "unlisted VTEPs"
	})
	busy := func(wire.VNI, datapath.VTEPID) bool { return true }
	idle := func(wire.VNI, datapath.VTEPID) bool { return false }
	r.within(func() {
		if r.agent.rec.AgeUnlisted(time.Now().Add(time.Hour), busy) {
			t.Error("a VTEP goes behind which MACs are learned")
		}
		if r.agent.rec.AgeUnlisted(time.Now().Add(299*time.Second), idle) {
			t.Error("a VTEP goes that was heard of within the ageing time")
		}
		if !r.agent.rec.AgeUnlisted(time.Now().Add(time.Hour), idle) {
			t.Error("silent VTEPs stay")
		}
		r.agent.reconcile()
	})
	if r.tables() != plain {
		t.Errorf("after they are gone:\n%s\nnot\n%s", r.tables(), plain)
	}
	meet("198.51.100.7")
	r.until("it is back", func() bool { return strings.Contains(r.kernel.String(), "accept 5001 198.51.100.7") })
	r.take(learningOf())
	r.within(r.agent.ageUnlisted)
	if strings.Contains(r.tables(), "198.51.100") {
		t.Errorf("after the network takes none any more:\n%s", r.tables())
	}
}

// TestLearnedIsSaid: counts, limits and alarms reach the report and the host's conditions; the local API lists and forgets.
// Red when lookAtLearned does not look at Freezes.
func TestLearnedIsSaid(t *testing.T) {
	r := newRig(t)
	r.base()
	r.take(learningOf())
	r.setAway(true) // a report would look too
	mac := wire.MAC{2, 0xee, 0, 0, 0, 1}
	r.kernel.mu.Lock()
	r.kernel.learners = []datapath.Learner{{VNI: 5001, VTEP: 1, MACs: 100, Refused: 7, Freezes: 1}, {VNI: 77, VTEP: 1, MACs: 5}}
	r.kernel.learned = []datapath.LearnedMAC{{FDBKey: datapath.FDBKey{VNI: 5001, MAC: mac}, VTEP: 1, Moves: 5, Frozen: true}, {FDBKey: datapath.FDBKey{VNI: 77, MAC: mac}, VTEP: 1}}
	r.kernel.mu.Unlock()
	r.within(func() {
		r.agent.lookAtLearned()
		list := r.agent.learned.list
		if len(list) != 1 || list[0].Macs != 100 || list[0].Refused != 7 || list[0].Frozen != 1 {
			t.Errorf("said: %v", list)
		}
		text := ""
		for _, c := range r.agent.conditionList() {
			text += c.Name + ": " + c.Message + "\n"
		}
		for _, want := range []string{"learning limit: network acme/blue: VTEP 192.0.2.2 has taught 100 MACs, and its limit is 100: 7 frames", "MAC moves: network acme/blue: moved five times within 180 s, and are kept where they are: 02:ee:00:00:00:01 at VTEP 192.0.2.2"} {
			if !strings.Contains(text, want) {
				t.Errorf("%q is not in the conditions:\n%s", want, text)
			}
		}
	})
	s := &localService{agent: r.agent}
	got, err := s.ListLearned(r.ctx, connect.NewRequest(&localv1.ListLearnedRequest{Tenant: "acme", Network: "blue"}))
	if err != nil || got.Msg.Total != 1 || got.Msg.Macs[0].Vtep != "192.0.2.2" || !got.Msg.Macs[0].Frozen {
		t.Errorf("listed: %v (%v)", got, err)
	}
	if _, err := s.ListLearned(r.ctx, connect.NewRequest(&localv1.ListLearnedRequest{Tenant: "acme", Network: "red"})); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("of a network that is not here: %v", err)
	}
	if _, err := s.ForgetLearned(r.ctx, connect.NewRequest(&localv1.ForgetLearnedRequest{Tenant: "acme", Network: "blue", Macs: []string{"x"}})); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("forget no MAC: %v", err)
	}
	if gone, err := s.ForgetLearned(r.ctx, connect.NewRequest(&localv1.ForgetLearnedRequest{Tenant: "acme", Network: "blue"})); err != nil || gone.Msg.Forgotten != 1 {
		t.Errorf("forgotten: %v (%v)", gone, err)
	}
	r.within(func() { // nobody has come to a limit since, and nothing is frozen
		r.agent.lookAtLearned()
		if list := r.agent.learnedConditions(); len(list) > 0 {
			t.Errorf("conditions that are over: %v", list)
		}
	})
}
