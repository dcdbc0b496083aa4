package plan

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
)

// held is a staging with network n and so many ports of it, and VTEP v, at revision 10 of store s.
func held(ports int) *Staging {
	set := NewSet(testNetwork("n", 5000), testVTEP("v"))
	for i := range ports {
		set.Put(testPort(fmt.Sprint("p", i), "n", ""))
	}
	return NewStaging("h", set, "s", 10)
}

func protos(rs ...*Resource) []*planv1.Resource {
	var out []*planv1.Resource
	for _, r := range rs {
		out = append(out, r.Proto())
	}
	return out
}

// reset is an update that sends the network scope whole, with these ports.
func reset(store string, revision int64, ports int) *planv1.Update {
	u := &planv1.Update{StoreId: store, Revision: revision, Last: true, ResetScopes: []string{"network/n", UnderlayScope}}
	u.Upserts = protos(testNetwork("n", 5000), testVTEP("v"))
	for i := range ports {
		u.Upserts = append(u.Upserts, testPort(fmt.Sprint("p", i), "n", "").Proto())
	}
	return u
}

func spoil(r *Resource, f func(*planv1.Resource)) []*planv1.Resource {
	m := proto.Clone(r.Proto()).(*planv1.Resource)
	f(m)
	return []*planv1.Resource{m}
}

// TestExpected: what a server says will come makes room, and nothing more: fewer, more, or absurdly many are taken all the same. Break it: believe it.
func TestExpected(t *testing.T) {
	for _, said := range []uint32{0, 1, 4, 100, 1<<32 - 1} {
		s := NewStaging("h", NewSet(), "", 0)
		u := reset("s", 1, 3)
		u.Resources = said
		step, err := s.Receive(u)
		if err != nil || len(step.Upserts) != 5 || s.Set().Len() != 5 {
			t.Errorf("%d were said to come: %v, %v", said, step, err)
		}
	}
}

// TestRefusals: each of these updates is refused for its reason and leaves everything as it was; so does whatever comes
// after it on the same stream.
func TestRefusals(t *testing.T) {
	p := testPort("new", "n", "")
	last := func(u *planv1.Update) *planv1.Update {
		if u.StoreId == "" {
			u.StoreId = "s"
		}
		if u.Revision == 0 {
			u.Revision = 11
		}
		u.Last = true
		return u
	}
	all := func(from, to int, revision int64) (out []*planv1.Removal) {
		for i := from; i < to; i++ {
			out = append(out, &planv1.Removal{Scope: "network/n", Kind: planv1.Kind_KIND_PORT, Uid: fmt.Sprint("p", i), Revision: revision})
		}
		return out
	}
	for name, c := range map[string]struct {
		want    string
		updates []*planv1.Update
	}{
		"another revision inside": {"broken sequence", []*planv1.Update{{StoreId: "s", Revision: 11}, last(&planv1.Update{Revision: 12})}},
		"another store inside":    {"broken sequence", []*planv1.Update{{StoreId: "s", Revision: 11}, last(&planv1.Update{StoreId: "t"})}},
		"no store":                {"names no store", []*planv1.Update{{Revision: 11, Last: true}}},
		"older":                   {"older than 10", []*planv1.Update{last(&planv1.Update{Revision: 9})}},
		"sha256":                  {"sha256", []*planv1.Update{last(&planv1.Update{Upserts: spoil(p, func(m *planv1.Resource) { m.Sha256 = nil })})}},
		"unknown kind":            {"unknown kind", []*planv1.Update{last(&planv1.Update{Upserts: spoil(p, func(m *planv1.Resource) { m.Kind = 77 })})}},
		"outside its scope":       {"belongs in", []*planv1.Update{last(&planv1.Update{Upserts: spoil(p, func(m *planv1.Resource) { m.Scope = "vtep/v" })})}},
		"another host":            {"another host", []*planv1.Update{last(&planv1.Update{Upserts: protos(NewHost(1, &planv1.Host{Uid: "g"}))})}},
		"twice":                   {"twice", []*planv1.Update{{StoreId: "s", Revision: 11, Upserts: protos(p)}, last(&planv1.Update{Upserts: protos(p)})}},
		"port without network":    {"not in the plan", []*planv1.Update{last(&planv1.Update{Upserts: protos(testPort("q", "m", ""))})}},
		"network lost, port comes": {"not in the plan", []*planv1.Update{last(&planv1.Update{Upserts: protos(p),
			Removals: []*planv1.Removal{{Scope: "network/n", Kind: planv1.Kind_KIND_NETWORK, Uid: "n", Revision: 11}}})}},
		"network lost, ports stay": {"left without its network", []*planv1.Update{last(&planv1.Update{
			Removals: []*planv1.Removal{{Scope: "network/n", Kind: planv1.Kind_KIND_NETWORK, Uid: "n", Revision: 11}}})}},
		"whole and dropped": {"both sent whole and dropped", []*planv1.Update{last(&planv1.Update{ResetScopes: []string{"vtep/v"}, DropScopes: []string{"vtep/v"}})}},
		"in a dropped":      {"which is dropped", []*planv1.Update{last(&planv1.Update{Upserts: protos(testVTEP("v")), DropScopes: []string{UnderlayScope}})}},
		"store without reset": {"is not sent whole", []*planv1.Update{last(&planv1.Update{StoreId: "t", ResetScopes: []string{UnderlayScope},
			Upserts: protos(testVTEP("v"))})}},
		"reset loses most":         {"names no revision", []*planv1.Update{reset("s", 11, 5)}},
		"drop loses most":          {"names no revision", []*planv1.Update{last(&planv1.Update{DropScopes: []string{"network/n"}})}},
		"removals lose most":       {"names no revision", []*planv1.Update{last(&planv1.Update{Removals: all(0, 20, 0)})}},
		"another store loses most": {"names no revision", []*planv1.Update{reset("t", 3, 5)}},
		"scope evidence for resets": {"names no revision", []*planv1.Update{func() *planv1.Update {
			u := reset("s", 11, 5)
			u.Removals = []*planv1.Removal{{Scope: "network/n", Revision: 11}}
			return u
		}()}},
	} {
		t.Run(name, func(t *testing.T) {
			s := held(20)
			before := s.Set().Clone()
			var err error
			for i, u := range c.updates {
				var step *Step
				if step, err = s.Receive(u); step != nil {
					t.Fatal("it was taken")
				}
				if err != nil && i < len(c.updates)-1 {
					t.Fatalf("refused early: %v", err)
				}
			}
			var refusal *Refusal
			if !errors.As(err, &refusal) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("expected a refusal with %q, got %v", c.want, err)
			}
			if !s.Set().Equal(before) || s.Revision() != 10 || s.StoreID() != "s" {
				t.Fatal("the refused update left a trace")
			}
			if step, again := s.Receive(reset("s", 12, 20)); step != nil || again == nil {
				t.Fatal("the stream went on after a refusal")
			}
		})
	}
}

// TestGuardTakes: what the removal guard must let through.
func TestGuardTakes(t *testing.T) {
	evident := func(u *planv1.Update, from, to int) *planv1.Update {
		for i := from; i < to; i++ {
			u.Removals = append(u.Removals, &planv1.Removal{Scope: "network/n", Kind: planv1.Kind_KIND_PORT, Uid: fmt.Sprint("p", i), Revision: 11})
		}
		return u
	}
	for name, c := range map[string]struct {
		s *Staging
		u *planv1.Update
	}{
		"ten":                    {held(10), reset("s", 11, 0)},
		"half":                   {held(22), reset("s", 11, 10)},
		"with evidence":          {held(20), evident(reset("s", 11, 0), 0, 20)},
		"enough evidence":        {held(20), evident(reset("s", 11, 0), 0, 10)},
		"dropped with evidence":  {held(20), &planv1.Update{StoreId: "s", Revision: 11, Last: true, DropScopes: []string{"network/n"}, Removals: []*planv1.Removal{{Scope: "network/n", Revision: 11}}}},
		"removals with evidence": {held(20), evident(&planv1.Update{StoreId: "s", Revision: 11, Last: true}, 0, 20)},
	} {
		t.Run(name, func(t *testing.T) {
			step, err := c.s.Receive(c.u)
			if err != nil || step == nil || len(step.Removed) == 0 {
				t.Fatalf("step %v, error %v", step, err)
			}
		})
	}
}

// TestStagingIsAtomic: an update in any chunks does what it says at the last one, nothing before, and the step is the
// exact difference.
func TestStagingIsAtomic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := NewStaging("", NewSet(), "", 0)
		for revision := range int64(rapid.IntRange(1, 6).Draw(t, "updates")) {
			before := s.Set().Clone()
			want := before.Clone()
			u := &planv1.Update{StoreId: "s", Revision: revision + 1}
			for _, scope := range rapid.SampledFrom([][]string{nil, {"network/n0"}, {UnderlayScope, "network/n1"}}).Draw(t, "reset") {
				u.ResetScopes = append(u.ResetScopes, scope)
				for r := range before.Scope(scope) {
					want.Remove(r.Key())
				}
			}
			seen := map[Key]bool{}
			for range rapid.IntRange(0, 8).Draw(t, "upserts") {
				if r := draw(t); !seen[r.Key()] {
					seen[r.Key()] = true
					u.Upserts = append(u.Upserts, r.Proto())
					want.Put(r)
				}
			}
			valid := true
			for r := range want.All() {
				valid = valid && (r.Kind != planv1.Kind_KIND_PORT || want.Get(Key{planv1.Kind_KIND_NETWORK, r.Port().GetNetwork()}) != nil)
			}
			step, err := sendChunks(t, s, u, before)
			if !valid {
				if err == nil || !s.Set().Equal(before) {
					t.Fatalf("a port without its network gave %v", err)
				}
				return
			}
			if err != nil || !s.Set().Equal(want) {
				t.Fatalf("error %v, or another set", err)
			}
			for _, r := range step.Removed {
				before.Remove(r.Key())
			}
			for _, r := range step.Upserts {
				if !before.Put(r) {
					t.Fatalf("%s is in the step and no change", r.Key())
				}
			}
			if !before.Equal(want) {
				t.Fatal("the step is not the difference")
			}
		}
	})
}

func sendChunks(t *rapid.T, s *Staging, u *planv1.Update, before *Set) (*Step, error) {
	for len(u.Upserts) > 0 && rapid.Bool().Draw(t, "cut") {
		n := rapid.IntRange(0, len(u.Upserts)).Draw(t, "at")
		step, err := s.Receive(&planv1.Update{StoreId: u.StoreId, Revision: u.Revision, Upserts: u.Upserts[:n], ResetScopes: u.ResetScopes})
		if step != nil || err != nil || !s.Set().Equal(before) {
			t.Fatalf("a first chunk gave %v, %v", step, err)
		}
		u.Upserts, u.ResetScopes = u.Upserts[n:], nil
	}
	u.Last = true
	return s.Receive(u)
}

// TestTheUnderlayTakesOver: what an agent of before kept of each host's VTEP in a scope of its own goes over to the underlay's scope, and
// is at no moment gone. Red when gone counts what an update carries in another scope.
func TestTheUnderlayTakesOver(t *testing.T) {
	old := NewResource(VTEPScope("v"), planv1.Kind_KIND_VTEP, "v", 1, testVTEP("v").VTEP())
	s := NewStaging("h", NewSet(old), "s", 1)
	step, err := s.Receive(&planv1.Update{StoreId: "s", Revision: 2, Last: true, DropScopes: []string{VTEPScope("v")}, ResetScopes: []string{UnderlayScope},
		Upserts: protos(testVTEP("v"))})
	if err != nil || len(step.Removed) != 0 || len(step.Upserts) != 1 || s.Set().Len() != 1 || s.Set().Digest(UnderlayScope).Resources != 1 {
		t.Fatalf("%v, %+v, held %v", err, step, s.Set().Scopes())
	}
}

// TestStepOrder: what is named comes before what names it, and goes after.
func TestStepOrder(t *testing.T) {
	s := NewStaging("h", NewSet(), "", 0)
	step, err := s.Receive(&planv1.Update{StoreId: "s", Revision: 1, Last: true, Upserts: protos(
		NewHost(1, &planv1.Host{Uid: "h"}), testPort("p", "n", ""), testNetwork("n", 1), testVTEP("v"))})
	if err != nil || order(step.Upserts) != "vtep network port host" {
		t.Fatalf("%v, upserts in the order %s", err, order(step.Upserts))
	}
	step, err = s.Receive(&planv1.Update{StoreId: "s", Revision: 2, Last: true, DropScopes: []string{"host/h", "network/n", UnderlayScope}})
	if err != nil || order(step.Removed) != "host port network vtep" {
		t.Fatalf("%v, removed in the order %s", err, order(step.Removed))
	}
}

func order(rs []*Resource) string {
	var out []string
	for _, r := range rs {
		out = append(out, KindName(r.Kind))
	}
	return strings.Join(out, " ")
}
