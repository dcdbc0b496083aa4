package store

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/wire"
)

func groupPool(name, first, last string, perGroup uint32) *model.GroupPool {
	return &model.GroupPool{Meta: meta1(), Name: name, Spec: model.GroupPoolSpec{First: netip.MustParseAddr(first), Last: netip.MustParseAddr(last),
		NetworksPerGroup: perGroup}}
}

// pooled is a network that floods to a group of a pool.
func pooled(n *model.Network, pool, group string) *model.Network {
	n.Spec.Flood, n.Spec.GroupPool = model.FloodMulticast, pool
	n.Alloc.Flood = n.Alloc.Flood.Use(netip.MustParseAddr(group))
	return n
}

func testGroupPool(t *testing.T, at string) {
	s, ctx := open(t, at), t.Context()
	must(t, s.CreateTenant(ctx, tenant("acme")))
	p := groupPool("p", "239.1.0.0", "239.1.0.9", 0)
	must(t, s.CreateGroupPool(ctx, p))
	refused(t, s.CreateGroupPool(ctx, groupPool("p", "239.9.0.0", "239.9.0.9", 0)), model.Taken, "name", "group pool p")
	refused(t, s.CreateGroupPool(ctx, groupPool("q", "239.1.0.9", "239.1.0.10", 0)), model.Conflict, "spec.first", "overlaps group pool p")
	q := groupPool("q", "239.1.0.10", "239.1.0.19", 0)
	must(t, s.CreateGroupPool(ctx, q))
	wide := *p
	wide.Spec.Last = netip.MustParseAddr("239.1.0.10")
	refused(t, s.UpdateGroupPool(ctx, &wide), model.Conflict, "spec.first", "overlaps group pool q")

	refused(t, s.CreateNetwork(ctx, pooled(network("acme", "a", 1), "none", "239.1.0.0")), model.NotFound, "spec.group_pool", "none")
	a := pooled(network("acme", "a", 1), "p", "239.1.0.0")
	must(t, s.CreateNetwork(ctx, a))
	refused(t, s.CreateNetwork(ctx, pooled(network("acme", "b", 2), "p", "239.1.0.0")), model.Taken, "spec.group_pool", "239.1.0.0")
	// What a user gave is shared as he likes, and counts.
	given := network("acme", "c", 3)
	given.Spec.Flood, given.Spec.Group = model.FloodMulticast, netip.MustParseAddr("239.1.0.1")
	given.Alloc.Flood = given.Alloc.Flood.Use(given.Spec.Group)
	must(t, s.CreateNetwork(ctx, given))
	refused(t, s.CreateNetwork(ctx, pooled(network("acme", "d", 4), "p", "239.1.0.1")), model.Taken, "spec.group_pool", "239.1.0.1")
	two := *p
	two.Spec.NetworksPerGroup = 2
	must(t, s.UpdateGroupPool(ctx, &two))
	must(t, s.CreateNetwork(ctx, pooled(network("acme", "d", 4), "p", "239.1.0.1")))

	// The change of a network that keeps its group asks for nothing; a group is free when it is left, not when another is to be used.
	one := two
	one.Spec.NetworksPerGroup = 1
	must(t, s.UpdateGroupPool(ctx, &one))
	must(t, s.CreateVTEP(ctx, vtep("ext1")))
	a.Spec.VTEPs = []model.NetworkVTEP{{VTEP: "ext1"}}
	must(t, s.UpdateNetwork(ctx, a))
	a.Spec.Flood, a.Spec.GroupPool, a.Alloc.Flood = model.FloodHeadEnd, "", a.Alloc.Flood.Use(netip.Addr{})
	must(t, s.UpdateNetwork(ctx, a))
	refused(t, s.CreateNetwork(ctx, pooled(network("acme", "b", 2), "p", "239.1.0.0")), model.Taken, "spec.group_pool", "239.1.0.0")
	for !a.Alloc.Flood.Settled() {
		a.Alloc.Flood = a.Alloc.Flood.Next()
	}
	must(t, s.UpdateNetwork(ctx, a))
	must(t, s.CreateNetwork(ctx, pooled(network("acme", "b", 2), "p", "239.1.0.0")))

	_, err := s.DeleteGroupPool(ctx, "p")
	refused(t, err, model.Conflict, "name", "2 networks")
	for _, name := range []string{"b", "d"} {
		_, err = s.DeleteNetwork(ctx, "acme", name, now)
		must(t, err)
	}
	_, err = s.DeleteGroupPool(ctx, "p")
	must(t, err)
	w := ok[*model.World](t)(s.Load(ctx))
	if w.GroupPools["p"] != nil || w.GroupPools["q"] == nil || w.GroupPools["q"].Revision != q.Revision {
		t.Errorf("group pools %v", w.GroupPools)
	}
	if n := w.GroupUse(netip.MustParseAddr("239.1.0.1"), ""); n != 1 {
		t.Errorf("%d networks have 239.1.0.1, want the one to which it was given", n)
	}
	if n := w.GroupUse(netip.MustParseAddr("239.1.0.0"), ""); n != 0 {
		t.Errorf("%d networks have a group whose network is gone", n)
	}
}

// testRaceGroup breaks if a network that takes a group does not compare the range of its networks as unwritten, or a pool the range of pools.
func testRaceGroup(t *testing.T, at string) {
	s := open(t, at)
	other := openAt(t, Config{Endpoints: []string{at}, Prefix: s.cfg.Prefix, CompactEvery: -1}) // another server
	ctx, servers := t.Context(), []*Store{s, other}
	must(t, s.CreateTenant(ctx, tenant("acme")))
	oneWon(t, race(func(i int) error {
		return servers[i%2].CreateGroupPool(ctx, groupPool(fmt.Sprintf("p%d", i), "239.1.0.0", fmt.Sprintf("239.1.0.%d", i), 0))
	}), model.Conflict, "spec.first", "overlaps group pool p")
	must(t, s.CreateGroupPool(ctx, groupPool("race", "239.2.0.0", "239.2.0.9", 0)))
	oneWon(t, race(func(i int) error {
		return servers[i%2].CreateNetwork(ctx, pooled(network("acme", fmt.Sprintf("n%d", i), wire.VNI(100+i)), "race", "239.2.0.0"))
	}), model.Taken, "spec.group_pool", "239.2.0.0")
}
