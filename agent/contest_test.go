package agent

import (
	"strings"
	"testing"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/plan"
)

// redOf is another tenant's network.
func redOf(vni uint32) *plan.Resource {
	return plan.NewNetwork(1, &planv1.Network{Uid: "red", Vni: vni, Mtu: 1450, Display: "other/red"})
}

// TestContestedVNI turns red when a network is applied although another has its VNI: what comes from the tunnel with that VNI may be
// of either, and two hosts that choose differently join two tenants.
func TestContestedVNI(t *testing.T) {
	r := newRig(t)
	r.base()
	r.links.add("tap0", "tuntap")
	if _, err := r.attach(tapRequest("web1", "tap0")); err != nil {
		t.Fatal(err)
	}
	alone := r.tables()
	if !strings.Contains(alone, "5001") {
		t.Fatalf("the network is not there:\n%s", alone)
	}
	contested := func(when string) {
		t.Helper()
		nets, _ := r.kernel.Networks()
		for _, n := range nets {
			if n.VNI == 5001 {
				t.Errorf("%s: the network is applied:\n%s", when, r.tables())
			}
		}
		if entries, _ := r.kernel.FDB(); len(entries) > 0 && strings.Contains(r.tables(), "fdb 5001") {
			t.Errorf("%s: it forwards:\n%s", when, r.tables())
		}
		for _, p := range must(r.kernel.Ports()) {
			if p.UID == "web1" && !p.Held {
				t.Errorf("%s: the port is open", when)
			}
		}
		said := r.server.applied[len(r.server.applied)-1]
		for _, uid := range []string{"blue", "red"} {
			found := false
			for _, e := range said.Errors {
				found = found || e.Uid == uid && strings.Contains(e.Message, "VNI 5001")
			}
			if !found {
				t.Errorf("%s: nothing is said about %s: %v", when, uid, said.Errors)
			}
		}
	}
	if err := r.send(redOf(5001)); err != nil {
		t.Fatal(err)
	}
	contested("the second came")
	r.restart()
	if err := r.send(); err != nil {
		t.Fatal(err)
	}
	contested("after a restart")
	if err := r.send(redOf(5002)); err != nil {
		t.Fatal(err)
	}
	if last := r.server.applied[len(r.server.applied)-1]; len(last.Errors) > 0 {
		t.Errorf("still said: %v", last.Errors)
	}
	if now := r.tables(); !strings.Contains(now, "5002") {
		t.Errorf("the second is not applied:\n%s", now)
	}
	removed := &planv1.Update{StoreId: "s1", Revision: r.revision(), Last: true,
		Removals: []*planv1.Removal{plan.Removal{Scope: plan.NetworkScope("red"), Key: plan.Key{Kind: planv1.Kind_KIND_NETWORK, UID: "red"}, Revision: 7}.Proto()}}
	if err := r.agent.Receive(r.ctx, removed); err != nil {
		t.Fatal(err)
	}
	if now := r.tables(); now != alone {
		t.Errorf("was:\n%s\nis:\n%s", alone, now)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestMissingVTEP turns red when a port whose VTEP the plan lacks is passed over in silence.
func TestMissingVTEP(t *testing.T) {
	r := newRig(t)
	r.base()
	lost := portOf("lost", "h9", 5)
	if err := r.send(plan.NewPort(1, lost)); err != nil {
		t.Fatal(err)
	}
	said := r.server.applied[len(r.server.applied)-1]
	if len(said.Errors) != 1 || said.Errors[0].Uid != "lost" || !strings.Contains(said.Errors[0].Message, "h9") {
		t.Errorf("said %v", said.Errors)
	}
	if err := r.send(vtepOf("h9", 9)); err != nil {
		t.Fatal(err)
	}
	if said := r.server.applied[len(r.server.applied)-1]; len(said.Errors) > 0 {
		t.Errorf("said %v", said.Errors)
	}
}

// TestAcceptLoss turns red when the operator's word is forgotten with the next stream.
func TestAcceptLoss(t *testing.T) {
	r := newRig(t)
	r.base()
	var many []*plan.Resource
	for _, c := range "abcdefghijklmnopqrst" {
		many = append(many, plan.NewPort(1, portOf("port"+string(c), "h2", 7)))
	}
	if err := r.send(many...); err != nil {
		t.Fatal(err)
	}
	r.loss = true
	r.restart()
	if _, err := r.agent.Hello(r.ctx); err != nil {
		t.Fatal(err)
	}
	u := &planv1.Update{StoreId: "s1", Revision: r.revision(), Last: true, ResetScopes: []string{plan.NetworkScope("blue")},
		Upserts: []*planv1.Resource{plan.NewNetwork(1, networkOf()).Proto()}}
	if err := r.agent.Receive(r.ctx, u); err != nil {
		t.Errorf("the loss was accepted, and: %v", err)
	}
}
