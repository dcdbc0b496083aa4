package compile

import (
	"fmt"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/plan"
	"github.com/weftnet/weft/wire"
)

// drawChange draws one change out of a small universe, so that objects meet: anything may come, go and come back, name
// what is not there, and arrive before what it names.
func drawChange(t *rapid.T, rev model.Revision) model.Change {
	pick := func(kind string, n int) model.UID {
		return model.UID(fmt.Sprintf("%s%d", kind, rapid.IntRange(0, n-1).Draw(t, kind)))
	}
	maybe := func(kind string, n int) model.UID {
		if rapid.IntRange(0, 2).Draw(t, "no "+kind) == 0 {
			return ""
		}
		return pick(kind, n)
	}
	ch := model.Change{Revision: rev, Deleted: rapid.IntRange(0, 4).Draw(t, "deleted") == 0}
	meta := func(uid model.UID) model.Meta { return model.Meta{UID: uid, Revision: rev} }
	switch rapid.IntRange(0, 7).Draw(t, "what") {
	case 0:
		ch.Network = drawNetwork(t, pick("n", 3), rev)
	case 1, 2:
		uid := pick("p", 6)
		ch.Port = &model.Port{Meta: meta(uid), Tenant: "t", Name: string(uid),
			Spec: model.PortSpec{Unguarded: rapid.Bool().Draw(t, "unguarded"), FastPath: rapid.SampledFrom([]model.FastPath{"", model.FastPathXDP}).Draw(t, "lane"),
				AllowedAddressPairs: []model.AddressPair{{MAC: wire.MAC{2, 1}, IP: netip.MustParseAddr("10.0.0.9")}}},
			Alloc: model.PortAlloc{NetworkUID: model.UID(fmt.Sprintf("n%d", uid[1]%3)), MACs: []wire.MAC{{2, byte(rapid.IntRange(0, 2).Draw(t, "mac"))}},
				IPs: []netip.Prefix{netip.MustParsePrefix("10.0.0.2/24")}}}
	case 3, 4:
		uid := pick("p", 6)
		ch.Binding = &model.Binding{Port: uid, Network: model.UID(fmt.Sprintf("n%d", uid[1]%3)), Epoch: model.Epoch(rev),
			Active: maybe("h", 4), Incoming: maybe("h", 4), Draining: maybe("h", 4)}
	case 5:
		uid := pick("h", 4)
		ch.Host = &model.Host{Meta: meta(uid), Name: "host-" + string(uid),
			Spec: model.HostSpec{OuterChecksum: rapid.Bool().Draw(t, "checksum")}}
	case 6:
		ch.Facts = &model.HostFacts{Host: pick("h", 4), UDPPort: 4789, UplinkMTU: rapid.SampledFrom([]int{0, 1500, 9000}).Draw(t, "uplink"),
			VTEPAddresses: rapid.SampledFrom([][]netip.Addr{
				nil, {netip.MustParseAddr("192.0.2.1")}, {netip.MustParseAddr("2001:db8::1")},
				{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")},
			}).Draw(t, "addresses")}
	default:
		name := pick("ext", 2)
		uid := name + model.UID(rapid.SampledFrom([]string{"a", "b"}).Draw(t, "life"))
		ch.VTEP = &model.VTEP{Meta: meta(uid), Name: string(name), Spec: model.VTEPSpec{
			Address: rapid.SampledFrom([]netip.Addr{netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("2001:db8::9")}).Draw(t, "address")}}
	}
	return ch
}

func drawNetwork(t *rapid.T, uid model.UID, rev model.Revision) *model.Network {
	n := &model.Network{Meta: model.Meta{UID: uid, Revision: rev}, Tenant: "t", Name: string(uid), Alloc: model.NetworkAlloc{VNI: wire.VNI(5000 + uint32(uid[1]))}}
	n.Spec.MTU = rapid.SampledFrom([]int{0, 0, 1400}).Draw(t, "mtu")
	n.Spec.UnknownUnicast = rapid.SampledFrom([]model.UnknownUnicast{"", model.UnknownUnicastFlood, model.UnknownUnicastDrop}).Draw(t, "unknown")
	n.Spec.DSCP = rapid.SampledFrom([]model.DSCP{"", model.DSCPPipe, model.DSCPUniform}).Draw(t, "dscp")
	for _, v := range []string{"ext0", "ext1"} {
		if rapid.Bool().Draw(t, v) {
			n.Spec.VTEPs = append(n.Spec.VTEPs, model.NetworkVTEP{VTEP: v, MACs: []wire.MAC{{2, 9}}})
		}
	}
	return n
}

func apply(s *plan.Set, out Output) {
	for _, r := range out.Removals {
		if old := s.Get(r.Key); old != nil && old.Scope == r.Scope {
			s.Remove(r.Key)
		}
	}
	for _, r := range out.Upserts {
		s.Put(r)
	}
}

// same reports the first difference between what was made and what the oracle says.
func same(t interface{ Fatalf(string, ...any) }, what string, got, want *plan.Set) {
	for r := range want.All() {
		g := got.Get(r.Key())
		if g == nil {
			t.Fatalf("%s: %s is missing", what, r.Key())
		} else if g.Hash != r.Hash || g.Scope != r.Scope {
			a, _ := g.Decode()
			b, _ := r.Decode()
			t.Fatalf("%s: %s is\n  %v\nand should be\n  %v", what, r.Key(), a, b)
		}
	}
	for r := range got.All() {
		if want.Get(r.Key()) == nil {
			t.Fatalf("%s: %s should not be there", what, r.Key())
		}
	}
}

// TestChangedIsAll: whatever happens in whatever order, split in whatever batches, with old changes replayed, what Changed
// adds up to is what All and the oracle say. Red when, for instance, run.count does not mark the network.
func TestChangedIsAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := model.NewWorld("s")
		c := New()
		held := plan.NewSet()
		apply(held, c.All(w))
		var past []model.Change
		for batch := range rapid.IntRange(1, 12).Draw(t, "batches") {
			var changes []model.Change
			for range rapid.IntRange(1, 6).Draw(t, "changes") {
				if len(past) > 0 && rapid.IntRange(0, 5).Draw(t, "replay") == 0 {
					changes = append(changes, past[rapid.IntRange(0, len(past)-1).Draw(t, "which")])
					continue
				}
				changes = append(changes, drawChange(t, model.Revision(len(past)+1)))
				past = append(past, changes[len(changes)-1])
			}
			for _, ch := range changes {
				w.Apply(ch)
			}
			told := changes
			if rapid.Bool().Draw(t, "shuffle") {
				told = rapid.Permutation(changes).Draw(t, "told")
			}
			out := c.Changed(w, told)
			for _, r := range out.Upserts {
				if old := held.Get(r.Key()); old != nil && old.Hash == r.Hash && old.Scope == r.Scope {
					t.Fatalf("%s was put out and did not change", r.Key())
				}
			}
			for _, r := range out.Removals {
				if r.Revision == 0 {
					t.Fatalf("%s was removed without evidence", r.Key)
				}
			}
			apply(held, out)
			same(t, fmt.Sprintf("batch %d", batch), held, oracle(w))
			if again := c.Changed(w, told); len(again.Upserts)+len(again.Removals) != 0 {
				t.Fatalf("the same changes once more put out %v", again)
			}
		}
		scratch := plan.NewSet()
		apply(scratch, New().All(w))
		same(t, "from scratch", scratch, held)
		for uid, n := range w.Networks {
			r := held.Get(plan.Key{Kind: planv1.Kind_KIND_NETWORK, UID: string(uid)}).Network()
			if got := c.MTU(n.UID); got != int(r.GetMtu()) {
				t.Fatalf("MTU of %s is %d, its resource says %d", uid, got, r.GetMtu())
			}
		}
	})
}
