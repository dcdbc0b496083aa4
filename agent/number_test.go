package agent

import (
	"net/netip"
	"testing"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/plan"
)

// TestNumbersAreGivenAgain turns red when an object that was refused for its number beyond the limit is refused for ever, also
// when others have gone.
func TestNumbersAreGivenAgain(t *testing.T) {
	r := newRig(t)
	r.kernel.idLimit = 1
	r.base() // h2 is VTEP 1
	if err := r.send(vtepOf("h3", 3)); err != nil {
		t.Fatal(err)
	}
	if err := r.agent.do(r.ctx, func() {
		if r.agent.rec.failed.vteps["h3"] == nil {
			t.Error("a VTEP beyond the limit was taken")
		}
	}); err != nil {
		t.Fatal(err)
	}
	net := networkOf()
	u := &planv1.Update{StoreId: "s1", Revision: r.revision(), Last: true, Upserts: []*planv1.Resource{plan.NewNetwork(2, net).Proto()}}
	for scope, key := range map[string]plan.Key{
		plan.NetworkScope("blue"): {Kind: planv1.Kind_KIND_PORT, UID: "away"}, plan.UnderlayScope: {Kind: planv1.Kind_KIND_VTEP, UID: "h2"},
	} {
		u.Removals = append(u.Removals, plan.Removal{Scope: scope, Key: key, Revision: u.Revision}.Proto())
	}
	if err := r.agent.Receive(r.ctx, u); err != nil {
		t.Fatal(err)
	}
	r.until("the one that did not fit takes the place", func() bool {
		return r.kernel.vteps[1].Addr == netip.MustParseAddr("192.0.2.3") && r.agent.rec.failed.vteps["h3"] == nil
	})
}
