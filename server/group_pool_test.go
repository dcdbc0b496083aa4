package server

import (
	"testing"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
)

// TestGroupPool: networks take their groups from a pool, the one that the fewest have, and give them back with their method or with themselves. Break it:
// take the index of groups out of applyNetwork (every network gets the first group), or the removal in useGroups (none comes back).
func TestGroupPool(t *testing.T) {
	f := server(t)
	ok(t, f.tenants.CreateTenant, &weftv1.CreateTenantRequest{Name: "cast"})
	pool := &weftv1.GroupPoolSpec{First: "239.77.0.1", Last: "239.77.0.2", Description: "lab"}
	made := ok(t, f.groups.CreateGroupPool, &weftv1.CreateGroupPoolRequest{Name: "cast", Spec: pool})
	if made.Status.Free != 2 || made.Spec.First != "239.77.0.1" || made.Spec.Description != "lab" {
		t.Errorf("made %v", made)
	}
	refused(t, f.groups.CreateGroupPool, &weftv1.CreateGroupPoolRequest{Name: "over", Spec: &weftv1.GroupPoolSpec{First: "239.77.0.2", Last: "239.77.0.3"}},
		conflict, "spec.first", "overlaps group pool cast")
	refused(t, f.groups.CreateGroupPool, &weftv1.CreateGroupPoolRequest{Name: "over", Spec: &weftv1.GroupPoolSpec{First: "224.0.0.2", Last: "239.77.0.3"}},
		invalid, "spec.first", "no router forwards")
	refused(t, f.groups.CreateGroupPool, &weftv1.CreateGroupPoolRequest{Name: "over", Spec: &weftv1.GroupPoolSpec{First: "239.78.0.2", Last: "ff05::3"}},
		invalid, "spec.last", "different IP versions")
	refused(t, f.groups.CreateGroupPool, &weftv1.CreateGroupPoolRequest{Name: "over", Spec: &weftv1.GroupPoolSpec{First: "ten", Last: "ff05::3"}},
		invalid, "spec.first", "not an IP address")

	spec := func(from string) *weftv1.NetworkSpec {
		return &weftv1.NetworkSpec{Flood: weftv1.FloodMethod_FLOOD_METHOD_MULTICAST, GroupPool: from}
	}
	create := func(name string) *weftv1.CreateNetworkRequest {
		return &weftv1.CreateNetworkRequest{Tenant: "cast", Name: name, Spec: spec("cast")}
	}
	groupOf := func(name string) string {
		return ok(t, f.networks.GetNetwork, &weftv1.GetNetworkRequest{Tenant: "cast", Name: name}).Status.Group
	}
	one := ok(t, f.networks.CreateNetwork, create("one"))
	two := ok(t, f.networks.CreateNetwork, create("two"))
	if one.Status.Group != "239.77.0.1" || two.Status.Group != "239.77.0.2" || one.Spec.GroupPool != "cast" || one.Spec.Group != "" {
		t.Fatalf("groups %s and %s", one.Status.Group, two.Status.Group)
	}
	refused(t, f.networks.CreateNetwork, create("three"), exhausted, "spec.group_pool", "239.77.0.1..239.77.0.2", "weft group-pool set cast --networks-per-group")
	refused(t, f.networks.CreateNetwork, &weftv1.CreateNetworkRequest{Tenant: "cast", Name: "three", Spec: spec("none")}, notFound, "spec.group_pool", "weft group-pool list")
	refused(t, f.groups.DeleteGroupPool, &weftv1.DeleteGroupPoolRequest{Name: "cast"}, conflict, "name", "2 networks")

	// Two networks a group: the third gets the lowest of those that one has.
	pool.NetworksPerGroup = 2
	ok(t, f.groups.UpdateGroupPool, &weftv1.UpdateGroupPoolRequest{Name: "cast", Revision: made.Meta.Revision, Spec: pool})
	if g := ok(t, f.networks.CreateNetwork, create("three")).Status.Group; g != "239.77.0.1" {
		t.Errorf("the third has %s", g)
	}
	if s := ok(t, f.groups.GetGroupPool, &weftv1.GetGroupPoolRequest{Name: "cast"}).Status; s.Used != 2 || s.Free != 0 || s.Networks != 3 {
		t.Errorf("pool %v", s)
	}
	// A change of something else keeps the group.
	changed := spec("cast")
	changed.Mtu = 1300
	if n := ok(t, f.networks.UpdateNetwork, &weftv1.UpdateNetworkRequest{Tenant: "cast", Name: "three", Revision: revisionOf(t, f, "three"), Spec: changed}); n.Status.Group != "239.77.0.1" {
		t.Errorf("changed, it has %s", n.Status.Group)
	}
	// Back to head-end: the group is given back once it is left.
	ok(t, f.networks.UpdateNetwork, &weftv1.UpdateNetworkRequest{Tenant: "cast", Name: "three", Revision: revisionOf(t, f, "three"), Spec: &weftv1.NetworkSpec{}})
	eventually(t, "the group is left", func() bool { return groupOf("three") == "" })
	eventually(t, "the pool has it back", func() bool {
		return ok(t, f.groups.GetGroupPool, &weftv1.GetGroupPoolRequest{Name: "cast"}).Status.Networks == 2
	})
	// And from a group that was given to one of the pool.
	given := &weftv1.NetworkSpec{Flood: weftv1.FloodMethod_FLOOD_METHOD_MULTICAST, Group: "239.77.0.2"}
	ok(t, f.networks.UpdateNetwork, &weftv1.UpdateNetworkRequest{Tenant: "cast", Name: "three", Revision: revisionOf(t, f, "three"), Spec: given})
	eventually(t, "the given group is sent to", func() bool { return groupOf("three") == "239.77.0.2" })
	refused(t, f.networks.UpdateNetwork, &weftv1.UpdateNetworkRequest{Tenant: "cast", Name: "three", Revision: revisionOf(t, f, "three"),
		Spec: &weftv1.NetworkSpec{Flood: weftv1.FloodMethod_FLOOD_METHOD_MULTICAST, Group: "239.77.0.2", GroupPool: "cast"}}, invalid, "spec.group_pool")
	ok(t, f.networks.DeleteNetwork, &weftv1.DeleteNetworkRequest{Tenant: "cast", Name: "two"})
	ok(t, f.networks.DeleteNetwork, &weftv1.DeleteNetworkRequest{Tenant: "cast", Name: "one"})
	if g := ok(t, f.networks.CreateNetwork, create("one")).Status.Group; g != "239.77.0.1" {
		t.Errorf("made again, it has %s", g)
	}
	ok(t, f.networks.DeleteNetwork, &weftv1.DeleteNetworkRequest{Tenant: "cast", Name: "one"})
	ok(t, f.groups.DeleteGroupPool, &weftv1.DeleteGroupPoolRequest{Name: "cast"})
}

func revisionOf(t *testing.T, f *fixture, network string) int64 {
	return ok(t, f.networks.GetNetwork, &weftv1.GetNetworkRequest{Tenant: "cast", Name: network}).Meta.Revision
}
