package agent

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/plan"
	"github.com/weftnet/weft/wire"
)

// membersBy finds the members of each VNI in the plan the slow way: every port is asked.
func membersBy(w *world) map[wire.VNI]map[string]bool {
	list := map[wire.VNI]map[string]bool{}
	for r := range w.set.Kind(planv1.Kind_KIND_PORT) {
		p := r.Port()
		n := w.set.Get(plan.Key{Kind: planv1.Kind_KIND_NETWORK, UID: p.Network})
		if n == nil {
			continue
		}
		vni := wire.VNI(n.Network().GetVni())
		if list[vni] == nil {
			list[vni] = map[string]bool{}
		}
		for _, host := range []string{p.Active, p.Incoming, p.Draining} {
			if v := w.set.Get(plan.Key{Kind: planv1.Kind_KIND_VTEP, UID: host}); v != nil && host != "h1" {
				list[vni][host] = true
			}
		}
	}
	return list
}

// TestMembersFollowPorts: whatever comes, goes and moves in whatever order and batches, those are accepted and flooded to that the ports of
// the plan name, and nobody else; and no write comes in an unsafe order. Red when putPort forgets to count out what the port was, when a
// member is not marked, or when only the active host counts.
func TestMembersFollowPorts(t *testing.T) {
	addr := func(host string) netip.Addr { return netip.MustParseAddr("192.0.2." + host[1:]) }
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		w.tell("host")
		w.tell("attach p0 if 7")
		epoch := int64(0)
		pick := func(kind string, n int) string {
			return fmt.Sprintf("%s%d", kind, rapid.IntRange(0, n-1).Draw(rt, kind))
		}
		host := func() string {
			if h := pick("h", 5); h != "h0" {
				return h
			}
			return ""
		}
		for range rapid.IntRange(1, 12).Draw(rt, "updates") {
			var story []string
			touched := map[string]bool{}
			for range rapid.IntRange(1, 5).Draw(rt, "changes") {
				var line, what string
				switch rapid.IntRange(0, 6).Draw(rt, "what") {
				case 0:
					what = pick("n", 2)
					line = fmt.Sprintf("network %s vni %d", what, 5000+rapid.IntRange(0, 1).Draw(rt, "vni")*10+int(what[1]-'0'))
				case 1:
					if what = host(); what == "" {
						continue
					}
					line = fmt.Sprintf("vtep %s %s", what, addr(what))
				case 2:
					if what = host(); what == "" || what == "h1" {
						continue
					}
					line = "remove vtep " + what
				case 3:
					what = pick("p", 5)
					line = "remove port " + what
				default:
					what = pick("p", 5)
					net := fmt.Sprintf("n%d", what[1]%2)
					if w.set.Get(plan.Key{Kind: planv1.Kind_KIND_NETWORK, UID: net}) == nil {
						continue
					}
					epoch++
					line = fmt.Sprintf("port %s in %s mac %d epoch %d", what, net, what[1], epoch)
					for _, role := range []string{"at", "incoming", "draining"} {
						if h := host(); h != "" {
							line += " " + role + " " + h
						}
					}
				}
				if touched[what] {
					continue // an update has each resource once
				}
				touched[what] = true
				story = append(story, line)
				w.tell(line)
			}
			w.flush()
			want := membersBy(w)
			nets := map[wire.VNI]datapath.Network{}
			for _, n := range must(w.kernel.Networks()) {
				nets[n.VNI] = n
			}
			for r := range w.set.Kind(planv1.Kind_KIND_NETWORK) {
				vni := wire.VNI(r.Network().GetVni())
				var accepts, floods []string
				for a := range w.kernel.accepts {
					if a.VNI == vni {
						accepts = append(accepts, a.Addr.String())
					}
				}
				for _, id := range nets[vni].Remotes {
					floods = append(floods, w.rec.tables.vteps[id].Addr.String())
				}
				var members []string
				for h := range maps.Keys(want[vni]) {
					members = append(members, addr(h).String())
				}
				for name, got := range map[string][]string{"accepted": accepts, "flooded to": floods} {
					slices.Sort(got)
					slices.Sort(members)
					if !slices.Equal(got, members) {
						rt.Fatalf("after %q in VNI %d %v are %s, and the ports name %v", story, vni, got, name, members)
					}
				}
			}
			for _, s := range w.kernel.unsafe {
				rt.Fatalf("unsafe order: %s", s)
			}
		}
	})
}

// TestAMemberThatStaysIsNotTouched: a change of a port that leaves its network's members as they are costs one port, though it is the only one
// of its host there. Count out before counting in, and it goes red.
func TestAMemberThatStaysIsNotTouched(t *testing.T) {
	w := newWorld(t)
	for _, line := range []string{"host", "vtep h1 192.0.2.1", "vtep h2 192.0.2.2", "vtep h3 192.0.2.3", "network blue vni 5001 members h3",
		"port a in blue mac 1 at h2 incoming h3 epoch 10", "flush"} {
		w.tell(line)
	}
	w.tell("port a in blue mac 1 at h3 draining h2 epoch 11")
	w.rec.Take(w.step, nil)
	if d := w.rec.dirty; len(d.nets)+len(d.accepts)+len(d.portsOf) != 0 {
		t.Errorf("the commit touches networks %v, accepts %v, ports of %v", d.nets, d.accepts, d.portsOf)
	}
	w.step = nil
	w.tell("port a in blue mac 1 at h3 epoch 12")
	w.rec.Take(w.step, nil)
	if d := w.rec.dirty; !d.nets[5001] || !d.accepts[5001] {
		t.Error("the end of the drain does not take its source out of the network")
	}
}

// TestStaleBindingsMembers: a binding that is refused as stale moves no port, but whoever the plan lists is a member. Leave the refused
// place out of port.hosts and it goes red.
func TestStaleBindingsMembers(t *testing.T) {
	w := newWorld(t)
	for _, line := range []string{"host", "vtep h1 192.0.2.1", "vtep h2 192.0.2.2", "vtep h3 192.0.2.3", "network blue vni 5001",
		"port a in blue mac 1 at h2 epoch 10", "flush", "port a in blue mac 1 at h3 epoch 9", "flush"} {
		w.tell(line)
	}
	for _, host := range []string{"192.0.2.2", "192.0.2.3"} {
		if _, ok := w.kernel.accepts[datapath.Accept{VNI: 5001, Addr: netip.MustParseAddr(host)}]; !ok {
			t.Errorf("%s is not accepted:\n%s", host, w.kernel)
		}
	}
}
