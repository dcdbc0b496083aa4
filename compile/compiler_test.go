package compile

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

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
				DHCPServer: rapid.Bool().Draw(t, "dhcp server"), Router: rapid.Bool().Draw(t, "router"), Hostname: rapid.SampledFrom([]string{"", "www"}).Draw(t, "hostname"),
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
	if groups := [...]netip.Addr{{}, netip.MustParseAddr("239.1.1.1"), netip.MustParseAddr("ff05::1")}; true {
		use := rapid.SampledFrom(groups[:])
		n.Alloc.Flood = model.FloodAlloc{}.Use(use.Draw(t, "group"))
		n.Alloc.Flood.Sends = n.Alloc.Flood.Group
		n.Alloc.Flood = n.Alloc.Flood.Use(use.Draw(t, "next group"))
	}
	n.Spec.DSCP = rapid.SampledFrom([]model.DSCP{"", model.DSCPPipe, model.DSCPUniform}).Draw(t, "dscp")
	if rapid.Bool().Draw(t, "subnet") {
		n.Spec.Subnets = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}
	}
	router := netip.MustParseAddr("10.0.0.1")
	n.Spec.DHCP = rapid.SampledFrom([]*model.DHCP{nil, {Disabled: true}, {Domain: "example.org", Gateways: []netip.Addr{router}, DNSServers: []netip.Addr{router},
		Routes: []model.Route{{Prefix: netip.MustParsePrefix("10.9.0.0/16"), Gateway: router}}, LeaseTime: time.Hour}}).Draw(t, "dhcp")
	n.Spec.Neighbours = rapid.SampledFrom([]model.Neighbours{"", model.NeighboursAnswer, model.NeighboursFlood}).Draw(t, "neighbours")
	n.Spec.BUMLimit = rapid.SampledFrom([]uint32{0, 7, model.NoBUMLimit}).Draw(t, "BUM")
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
// adds up to is what All and the oracle say. Red when, for instance, run.members marks nothing as the last
// member leaves.
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

// TestAMemberIsItsPort: a host that gains its first port of a network, or loses its last, is the port's resource and its own, however many
// members there are; the network's only when another MTU follows. Leave the comparison out of run.members and it goes red.
func TestAMemberIsItsPort(t *testing.T) {
	const hosts = 20
	w := model.NewWorld("s")
	var rev model.Revision
	next := func(ch model.Change) model.Change {
		rev++
		ch.Revision = rev
		w.Apply(ch)
		return ch
	}
	port := func(i int) model.UID { return model.UID(fmt.Sprintf("p%d", i)) }
	host := func(i int) model.UID { return model.UID(fmt.Sprintf("h%d", i)) }
	next(model.Change{Network: &model.Network{Meta: model.Meta{UID: "n"}, Tenant: "t", Name: "n", Alloc: model.NetworkAlloc{VNI: 5000}}})
	for i := range hosts {
		mtu := 1500
		if i == hosts-1 {
			mtu = 1400 // smaller than the others'
		}
		next(model.Change{Host: &model.Host{Meta: model.Meta{UID: host(i)}, Name: string(host(i))}})
		next(model.Change{Facts: &model.HostFacts{Host: host(i), UplinkMTU: mtu, VTEPAddresses: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})}}})
		next(model.Change{Port: &model.Port{Meta: model.Meta{UID: port(i)}, Tenant: "t", Name: string(port(i)), Alloc: model.PortAlloc{NetworkUID: "n"}}})
	}
	c := New()
	c.All(w)
	bind := func(i int, b model.Binding) string {
		b.Port, b.Network, b.Epoch = port(i), "n", model.Epoch(rev+1)
		out := c.Changed(w, []model.Change{next(model.Change{Binding: &b})})
		var made string
		for _, r := range out.Upserts {
			made += r.Key().String() + " "
		}
		if len(out.Removals) != 0 {
			t.Errorf("removed %v", out.Removals)
		}
		return made
	}
	for _, step := range []struct {
		what string
		i    int
		b    model.Binding
		want string
	}{
		{"the first member, with a larger MTU than the smallest of all hosts", 0, model.Binding{Active: host(0)}, "host/h0 network/n port/p0 "},
		{"a member", 1, model.Binding{Active: host(1)}, "host/h1 port/p1 "},
		{"a member by what comes", 1, model.Binding{Active: host(1), Incoming: host(2)}, "host/h2 port/p1 "},
		{"the commit", 1, model.Binding{Active: host(2), Draining: host(1)}, "port/p1 "},
		{"a member gone", 1, model.Binding{Active: host(2)}, "host/h1 port/p1 "},
		{"a member with a smaller MTU", 3, model.Binding{Active: host(hosts - 1)}, "host/h19 network/n port/p3 "},
		{"and gone", 3, model.Binding{}, "host/h19 network/n port/p3 "},
	} {
		if got := bind(step.i, step.b); got != step.want {
			t.Errorf("%s makes %q, want %q", step.what, got, step.want)
		}
	}
}
