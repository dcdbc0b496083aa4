package model

import (
	"net/netip"
	"slices"
	"testing"
)

func TestValidateFlood(t *testing.T) {
	network := func(method FloodMethod, group string) *Network {
		n := &Network{Tenant: "acme", Name: "blue", Spec: NetworkSpec{Flood: method}}
		if group != "" {
			n.Spec.Group = netip.MustParseAddr(group)
		}
		return n
	}
	for _, good := range []*Network{network("", ""), network(FloodHeadEnd, ""), network(FloodMulticast, "239.1.2.3"), network(FloodMulticast, "224.0.1.1"),
		network(FloodMulticast, "ff05::1"), network(FloodMulticast, "ff18::1")} {
		refused(t, good.Validate())
	}
	for group, why := range map[string]string{
		"10.0.0.1": "not a multicast address", "fd00::1": "not a multicast address", "224.0.0.251": "no router forwards", "ff02::1": "one link",
		"ff12::1": "one link", "ff01::1": "one interface", "232.1.1.1": "one source", "ff35::1": "one source", "::ffff:239.1.2.3": "IPv6 form",
		"ff05::1%eth0": "zone", "ff00::1": "reserved", "ff10::1": "reserved", "ff70::1": "reserved", "ff0f::1": "reserved", "ff71::1": "one interface", "ff72::1": "one link",
	} {
		refused(t, network(FloodMulticast, group).Validate(), "spec.group: "+why)
	}
	refused(t, network(FloodMulticast, "").Validate(), "spec.group: needs a group")
	refused(t, network("", "239.1.2.3").Validate(), "spec.group: uses no group")
	refused(t, network("broadcast", "").Validate(), "spec.flood: not a method")
	part := network("", "")
	part.Spec.VTEPs = []NetworkVTEP{{VTEP: "ext", Flood: VTEPFloodGroup}, {VTEP: "other", Flood: "both"}}
	refused(t, part.Validate(), "spec.vteps[0].flood: uses no group", "spec.vteps[1].flood: not a way")
}

// TestFloodChanges: on the way from one method to another nobody sends to a group that is not joined, and none is left that is sent to.
func TestFloodChanges(t *testing.T) {
	one, two := netip.MustParseAddr("239.1.1.1"), netip.MustParseAddr("239.1.1.2")
	var f FloodAlloc
	for _, target := range []netip.Addr{one, two, {}, two, one} {
		before := f
		f = f.Use(target)
		if f.Sends != before.Sends {
			t.Errorf("to %s: senders change before anybody has joined", target)
		}
		for steps := 0; !f.Settled(); steps++ {
			was := f
			if f = f.Next(); steps > 2 {
				t.Fatalf("to %s: no end: %+v", target, f)
			}
			for _, sent := range []netip.Addr{was.Sends, f.Sends} { // hosts are at either step
				if sent.IsValid() && (!slices.Contains(was.Joined, sent) || !slices.Contains(f.Joined, sent)) {
					t.Errorf("to %s: %s is sent to and not joined: %+v, then %+v", target, sent, was, f)
				}
			}
		}
		if f.Sends != target {
			t.Errorf("ends at %s, want %s", f.Sends, target)
		}
	}
	// Changed one's mind on the way.
	f = FloodAlloc{}.Use(one).Use(two)
	for !f.Settled() {
		f = f.Next()
	}
	if f.Sends != two || !slices.Equal(f.Joined, []netip.Addr{two}) {
		t.Errorf("%+v", f)
	}
}
