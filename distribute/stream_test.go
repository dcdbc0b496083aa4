package distribute

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/plan"
)

// TestEveryInterleavingConverges: ports come, go and move in crowds, agents come and go, also in the middle of an update,
// streams fall off a tiny ring, and servers restart with no memory. No update may be refused, as every loss has its
// evidence, and in the end each agent holds what its host must. Red when, for instance, ring.push does not advance first.
func TestEveryInterleavingConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := newFleet(Config{RingEntries: rapid.SampledFrom([]int{1, 7, 1000}).Draw(t, "ring"), ChunkOctets: 500})
		hosts := []model.UID{"h0", "h1", "h2"}
		networks := []model.UID{"n0", "n1"}
		for _, h := range hosts {
			f.host(h)
		}
		lives := map[model.UID]int{}
		host := rapid.SampledFrom(append([]model.UID{""}, hosts...))
		port := func() model.UID {
			uids := slices.Sorted(maps.Keys(f.world.Ports))
			if len(uids) == 0 {
				return ""
			}
			return rapid.SampledFrom(uids).Draw(t, "port")
		}
		t.Repeat(map[string]func(*rapid.T){
			"crowd": func(t *rapid.T) {
				n := rapid.SampledFrom(networks).Draw(t, "network")
				if f.world.Networks[n] == nil {
					f.network(n)
				}
				for range rapid.IntRange(1, 25).Draw(t, "ports") {
					lives[n]++
					uid := model.UID(fmt.Sprintf("p-%s-%d", n, lives[n]))
					f.port(uid, n)
					f.bind(uid, host.Draw(t, "host"))
				}
			},
			"bind":   func(t *rapid.T) { f.bind(port(), host.Draw(t, "host")) },
			"delete": func(t *rapid.T) { f.deletePort(port()) },
			"deleteNetwork": func(t *rapid.T) {
				i := rapid.IntRange(0, len(networks)-1).Draw(t, "network")
				f.deleteNetwork(networks[i])
				networks[i] += "'"
			},
			"leave": func(t *rapid.T) {
				h := host.Draw(t, "host")
				for p := range f.world.PortsOn(h) {
					f.bind(p.UID, "")
				}
			},
			"restart":    func(*rapid.T) { f.restart() },
			"reload":     func(*rapid.T) { f.d.Reset(f.world.StoreID, int64(f.world.Revision), f.made.All(f.world).Upserts) },
			"connect":    func(t *rapid.T) { f.connect(f.agent(rapid.SampledFrom(hosts).Draw(t, "agent"))) },
			"disconnect": func(t *rapid.T) { f.disconnect(f.agent(rapid.SampledFrom(hosts).Draw(t, "agent"))) },
			"pump": func(t *rapid.T) {
				a := f.agent(rapid.SampledFrom(hosts).Draw(t, "agent"))
				if err := f.pump(a, rapid.SampledFrom([]int{1 << 30, 1 << 30, 0, 1, 2}).Draw(t, "break")); err != nil {
					t.Fatalf("agent %s: %v", a.host, err)
				}
			},
		})
		for _, h := range hosts {
			a := f.agent(h)
			if a.stream == nil {
				f.connect(a)
			}
			if err := f.pump(a, 1<<30); err != nil {
				t.Fatalf("agent %s at the end: %v", h, err)
			}
			if want := f.want(h); !a.staging.Set().Equal(want) {
				t.Fatalf("agent %s holds %v and should hold %v", h, names(a.staging.Set()), names(want))
			}
			if a.staging.Revision() != int64(f.world.Revision) {
				t.Fatalf("agent %s is at revision %d of %d", h, a.staging.Revision(), f.world.Revision)
			}
			if b := f.d.next(a.stream); b != nil {
				t.Fatalf("agent %s has everything and is sent %+v", h, b)
			}
		}
	})
}

func names(s *plan.Set) []string {
	var out []string
	for r := range s.All() {
		out = append(out, r.Key().String())
	}
	slices.Sort(out)
	return out
}

// crowded is a fleet with 40 ports of one network on h0, all known to its agent.
func crowded(t *testing.T) (*fleet, *agent) {
	t.Helper()
	f := newFleet(Config{})
	f.host("h0")
	f.host("h1")
	f.network("n0")
	for i := range 40 {
		f.port(model.UID(fmt.Sprint("p", i)), "n0")
		f.bind(model.UID(fmt.Sprint("p", i)), "h0")
	}
	a := f.agent("h0")
	f.connect(a)
	pump(t, f, a)
	return f, a
}

func pump(t *testing.T, f *fleet, a *agent) {
	t.Helper()
	if err := f.pump(a, 1<<30); err != nil {
		t.Fatal(err)
	}
	if want := f.want(a.host); !a.staging.Set().Equal(want) {
		t.Fatalf("agent %s holds %v and should hold %v", a.host, names(a.staging.Set()), names(want))
	}
}

// TestWipedStoreIsRefused: a server over an empty store must not empty a host. Red when Staging.guard returns nil.
func TestWipedStoreIsRefused(t *testing.T) {
	f, a := crowded(t)
	before := a.staging.Set().Clone()
	f.world = model.NewWorld("store-2")
	f.restart()
	f.host("h0")
	f.connect(a)
	err := f.pump(a, 1<<30)
	if err == nil || !strings.Contains(err.Error(), "names no revision") {
		t.Fatalf("the wiped store's plan gave %v", err)
	}
	if !a.staging.Set().Equal(before) {
		t.Fatal("the refused plan changed what is held")
	}
	f.connect(a)
	a.staging.AcceptLoss = true
	pump(t, f, a)
}

// TestSameStoreWithoutEvidenceIsRefused: the world lost the network and its tombstones under the same store id.
func TestSameStoreWithoutEvidenceIsRefused(t *testing.T) {
	f, a := crowded(t)
	old := f.world
	f.world = model.NewWorld(old.StoreID)
	f.world.Revision = old.Revision
	f.restart()
	f.host("h0")
	f.connect(a)
	if err := f.pump(a, 1<<30); err == nil || !strings.Contains(err.Error(), "names no revision") {
		t.Fatalf("a loss without evidence gave %v", err)
	}
}

// TestRestartedServerHasEvidence: everything was deleted while the agent was away, and the server remembers nothing.
// Red when compile.Evidence returns nil.
func TestRestartedServerHasEvidence(t *testing.T) {
	for name, do := range map[string]func(*fleet){
		"ports deleted": func(f *fleet) {
			for i := range 39 {
				f.deletePort(model.UID(fmt.Sprint("p", i)))
			}
		},
		"network deleted": func(f *fleet) { f.deleteNetwork("n0") },
		"ports moved away": func(f *fleet) {
			for i := range 40 {
				f.bind(model.UID(fmt.Sprint("p", i)), "h1")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, a := crowded(t)
			f.disconnect(a)
			do(f)
			f.restart()
			f.connect(a)
			pump(t, f, a)
		})
	}
}

// TestRemovedHostsHaveEvidence: most of a fleet was removed while a host was away. Red when compile.Evidence says nothing of the underlay.
func TestRemovedHostsHaveEvidence(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart %v", restart), func(t *testing.T) {
			f := newFleet(Config{})
			for i := range 30 {
				f.host(model.UID(fmt.Sprint("h", i)))
			}
			a := f.agent("h0")
			f.connect(a)
			pump(t, f, a)
			f.disconnect(a)
			for i := range 25 {
				f.deleteHost(model.UID(fmt.Sprint("h", i+1)))
			}
			if restart {
				f.restart()
			}
			f.connect(a)
			pump(t, f, a)
		})
	}
}

// TestExternalVTEPsHaveEvidence: a host that was away need no longer hold the many external VTEPs of a network. Red when
// compile.Evidence knows of deletions alone.
func TestExternalVTEPsHaveEvidence(t *testing.T) {
	const many = 20
	for name, do := range map[string]func(*fleet){
		"port moved away": func(f *fleet) { f.bind("p0", "h1") },
		"network deleted": func(f *fleet) { f.deleteNetwork("n0") },
		"VTEPs taken out": func(f *fleet) { f.externals("n0", 0) },
	} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, restart %v", name, restart), func(t *testing.T) {
				f := newFleet(Config{})
				f.host("h0")
				f.host("h1")
				f.network("n0")
				f.externals("n0", many)
				f.port("p0", "n0")
				f.bind("p0", "h0")
				a := f.agent("h0")
				f.connect(a)
				pump(t, f, a)
				f.disconnect(a)
				do(f)
				if restart {
					f.restart()
				}
				f.connect(a)
				pump(t, f, a)
			})
		}
	}
}

// TestResumeSendsOnlyWhatDiffers: nothing on a reconnect to an unchanged world, one scope after a change in one.
func TestResumeSendsOnlyWhatDiffers(t *testing.T) {
	f, a := crowded(t)
	f.connect(a)
	b := f.d.next(a.stream)
	if b == nil || len(b.reset)+len(b.drop)+len(b.upserts) != 0 {
		t.Fatalf("an unchanged world is sent as %+v", b)
	}
	f.write(model.Change{Facts: &model.HostFacts{Host: "h1", VTEPAddresses: f.world.Facts["h0"].VTEPAddresses, UDPPort: 4790, UplinkMTU: 1500}})
	f.connect(a)
	b = f.d.next(a.stream)
	if b == nil || len(b.reset) != 0 || len(b.upserts) != 1 || b.upserts[0].Scope != plan.UnderlayScope {
		t.Fatalf("one changed VTEP is sent as %+v", b)
	}
	f.bind("p0", "h1")
	f.deletePort("p1")
	f.connect(a)
	b = f.d.next(a.stream)
	if b == nil || slices.Contains(b.reset, "network/n0") || len(b.removals) != 1 || b.removals[0].Revision == 0 {
		t.Fatalf("a moved and a deleted port are sent as %+v", b)
	}
	f.restart()
	f.connect(a)
	b = f.d.next(a.stream)
	if b == nil || !slices.Contains(b.reset, "network/n0") || slices.Contains(b.reset, "host/h0") {
		t.Fatalf("a server without memory sent %+v", b)
	}
	f.connect(a)
	pump(t, f, a)
}

// TestOneBindingIsOneResource: a further port of a network on a host is one small delta to every member.
func TestOneBindingIsOneResource(t *testing.T) {
	f, a := crowded(t)
	f.port("extra", "n0")
	pump(t, f, a)
	f.bind("extra", "h0")
	b := f.d.next(a.stream)
	if b == nil || len(b.upserts) != 1 || b.upserts[0].UID != "extra" || len(b.reset)+len(b.drop)+len(b.removals) != 0 {
		t.Fatalf("one binding is sent as %+v", b)
	}
}

// TestServerBehindWaits: an agent that heard a newer revision from another server is not taken back.
func TestServerBehindWaits(t *testing.T) {
	f, a := crowded(t)
	behind := New(f.cfg)
	behind.Reset(f.world.StoreID, int64(f.world.Revision)-3, f.made.All(f.world).Upserts)
	st := behind.open("h0", a.staging.Hello("test", nil))
	if b := behind.next(st); b != nil {
		t.Fatalf("a server that is behind sent %+v", b)
	}
	if err := behind.Publish(f.world.StoreID, int64(f.world.Revision), nil, nil); err != nil {
		t.Fatal(err)
	}
	if b := behind.next(st); b == nil || len(b.reset) != 0 {
		t.Fatalf("a server that caught up sent %+v", b)
	}
}

// TestUnknownHostWaits: a server that has not seen the host yet takes nothing from its agent.
func TestUnknownHostWaits(t *testing.T) {
	f := newFleet(Config{})
	st := f.d.open("h9", plan.NewStaging("h9", plan.NewSet(), "", 0).Hello("test", nil))
	if b := f.d.next(st); b != nil {
		t.Fatalf("an unknown host was sent %+v", b)
	}
	f.host("h9")
	if b := f.d.next(st); b == nil || len(b.upserts) == 0 {
		t.Fatalf("the host was sent %+v", b)
	}
}

// TestSubscribers are those that the plan says must hold a scope.
func TestSubscribers(t *testing.T) {
	f, _ := crowded(t)
	for scope, want := range map[string][]string{
		"network/n0": {"h0"}, plan.UnderlayScope: {"h0", "h1"}, "host/h1": {"h1"}, "network/none": nil,
	} {
		if got := f.d.Subscribers(scope); !slices.Equal(got, want) {
			t.Errorf("%s has subscribers %v, want %v", scope, got, want)
		}
		for _, host := range []string{"h0", "h1", "none"} {
			if got := f.d.Subscribed(host, scope); got != slices.Contains(want, host) {
				t.Errorf("%s is subscribed to %s: %t", host, scope, got)
			}
		}
	}
	for i := range 40 {
		f.bind(model.UID(fmt.Sprint("p", i)), "h1")
	}
	if got := f.d.Subscribers("network/n0"); !slices.Equal(got, []string{"h1"}) {
		t.Errorf("after the move: %v", got)
	}
}
