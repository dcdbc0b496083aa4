package plan

import (
	"testing"

	"google.golang.org/protobuf/proto"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
)

// FuzzReceive: whatever octets a server sends, an agent refuses them or holds a set whose every port has its network,
// and the checker takes what staging took.
func FuzzReceive(f *testing.F) {
	for _, u := range []*planv1.Update{
		{StoreId: "s", Revision: 1, Last: true, Upserts: protos(testNetwork("n", 1), testPort("p", "n", "a"), testVTEP("v"))},
		{StoreId: "s", Revision: 11, Last: true, ResetScopes: []string{"network/n"}, Upserts: protos(testNetwork("n", 1))},
		{StoreId: "t", Revision: 2, DropScopes: []string{"network/n", UnderlayScope}, Last: true},
		{StoreId: "s", Revision: 12, Removals: []*planv1.Removal{{Scope: "network/n", Kind: planv1.Kind_KIND_PORT, Uid: "p0", Revision: 12}}, Last: true},
	} {
		b, err := proto.Marshal(u)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, b)
	}
	f.Fuzz(func(t *testing.T, one, two []byte) {
		s := held(3)
		c := NewChecker("h", Features())
		for _, b := range [][]byte{one, two} {
			u := new(planv1.Update)
			if proto.Unmarshal(b, u) != nil {
				continue
			}
			before := s.Set().Clone()
			step, err := s.Receive(u)
			if err != nil && !s.Set().Equal(before) {
				t.Fatal("a refusal left a trace")
			}
			if step != nil {
				c.Apply(step.Upserts, step.Removed)
			}
		}
		for r := range s.Set().Kind(planv1.Kind_KIND_PORT) {
			if s.Set().Get(Key{planv1.Kind_KIND_NETWORK, r.Port().GetNetwork()}) == nil {
				t.Fatalf("%s has no network", r.Key())
			}
		}
		c.Problems()
	})
}
