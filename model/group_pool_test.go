package model

import (
	"math"
	"net/netip"
	"testing"
)

func groupPool(name, first, last string, perGroup uint32) *GroupPool {
	spec := GroupPoolSpec{NetworksPerGroup: perGroup}
	spec.First, _ = netip.ParseAddr(first)
	spec.Last, _ = netip.ParseAddr(last)
	return &GroupPool{Name: name, Spec: spec}
}

func TestValidateGroupPool(t *testing.T) {
	refused(t, groupPool("p", "239.1.0.0", "239.1.0.255", 0).Validate())
	refused(t, groupPool("p", "ff05::1", "ff05::1", 7).Validate())
	for _, c := range []struct{ first, last, want string }{
		{"", "239.1.0.1", "spec.first: missing"},
		{"239.1.0.1", "", "spec.last: missing"},
		{"239.1.0.2", "239.1.0.1", "spec.last: empty"},
		{"239.1.0.0", "ff05::1", "spec.last: different IP versions"},
		{"10.0.0.0", "239.1.0.1", "spec.first: not a multicast address"},
		{"223.255.255.0", "224.0.1.0", "spec.first: not a multicast address"},
		{"224.0.0.1", "224.0.1.0", "spec.first: no router forwards"},
		{"224.0.1.0", "239.1.0.1", "spec.last: one source"}, // both ends are fine, 232.0.0.0/8 is between
		{"ff05::1", "ff02::1", "spec.last: one link"},
		{"ff05::1", "ff11::1", "spec.last: one interface"},
	} {
		refused(t, groupPool("p", c.first, c.last, 0).Validate(), c.want)
	}
	refused(t, groupPool("a", "ff05::1", "ff05::2", 0).ValidateUpdate(groupPool("b", "ff05::1", "ff05::2", 0)), "name: from b to a")
}

func TestGroupPoolBeside(t *testing.T) {
	one := groupPool("one", "239.1.0.10", "239.1.0.20", 0)
	for _, free := range []*GroupPool{groupPool("two", "239.1.0.21", "239.1.0.30", 0), groupPool("two", "239.1.0.0", "239.1.0.9", 0),
		groupPool("two", "ff05::1", "ff05::ffff", 0), groupPool("one", "239.1.0.0", "239.1.0.30", 0)} {
		if err := free.ValidateBeside(one); err != nil {
			t.Errorf("%s..%s: %v", free.Spec.First, free.Spec.Last, err)
		}
	}
	for _, taken := range []*GroupPool{groupPool("two", "239.1.0.20", "239.1.0.30", 0), groupPool("two", "239.1.0.0", "239.1.0.10", 0),
		groupPool("two", "239.1.0.12", "239.1.0.13", 0), groupPool("two", "239.1.0.0", "239.1.0.30", 0)} {
		refused(t, taken.ValidateBeside(one), "spec.first: overlaps group pool one, which is 239.1.0.10..239.1.0.20")
	}
}

// TestAllocateGroup: the group that the fewest networks have, of those the lowest; and no more networks than the pool says.
func TestAllocateGroup(t *testing.T) {
	pool, used := groupPool("p", "239.1.0.1", "239.1.0.3", 2), map[netip.Addr]int{}
	take := func() (string, error) {
		g, err := AllocateGroup(pool, func(g netip.Addr) int { return used[g] })
		used[g]++
		return g.String(), err
	}
	used[netip.MustParseAddr("239.1.0.2")] = 1 // given by a user
	for _, want := range []string{"239.1.0.1", "239.1.0.3", "239.1.0.1", "239.1.0.2", "239.1.0.3"} {
		if g, err := take(); err != nil || g != want {
			t.Errorf("%s, %v, want %s", g, err, want)
		}
	}
	_, err := take()
	refused(t, err, "spec.group_pool: no group in 239.1.0.1..239.1.0.3 that fewer than 2 networks have")
	if n := groupPool("p", "ff05::", "ff05:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 0).Spec.Size(); n != math.MaxUint64 {
		t.Errorf("size %d", n)
	}
	if n := pool.Spec.Size(); n != 3 {
		t.Errorf("size %d", n)
	}
}

func TestValidateGroupPoolOfNetwork(t *testing.T) {
	network := func(method FloodMethod, group, pool string) error {
		n := &Network{Tenant: "acme", Name: "blue", Spec: NetworkSpec{Flood: method, GroupPool: pool}}
		n.Spec.Group, _ = netip.ParseAddr(group)
		return n.Validate()
	}
	refused(t, network(FloodMulticast, "", "p"))
	refused(t, network(FloodMulticast, "239.1.2.3", "p"), "spec.group_pool: takes none from a pool")
	refused(t, network(FloodHeadEnd, "", "p"), "spec.group_pool: uses no group")
	refused(t, network(FloodMulticast, "", "P!"), "spec.group_pool: P!")
}
