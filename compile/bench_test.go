package compile

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/wire"
)

// fleet is a world of so many ports in networks of 100, and so many hosts; each network has 10 members.
func fleet(ports, hosts int) *model.World {
	w := model.NewWorld("s")
	rev := model.Revision(0)
	apply := func(c model.Change) {
		rev++
		c.Revision = rev
		w.Apply(c)
	}
	for i := range hosts {
		uid := model.UID(fmt.Sprintf("host-%021d", i))
		apply(model.Change{Host: &model.Host{Meta: model.Meta{UID: uid}, Name: string(uid)}})
		apply(model.Change{Facts: &model.HostFacts{Host: uid, UDPPort: 4789, UplinkMTU: 1500,
			VTEPAddresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}}})
	}
	for i := range ports {
		network := model.UID(fmt.Sprintf("network-%018d", i/100))
		if i%100 == 0 {
			apply(model.Change{Network: &model.Network{Meta: model.Meta{UID: network}, Tenant: "t", Name: string(network),
				Alloc: model.NetworkAlloc{VNI: wire.VNI(5000 + i/100)}}})
		}
		uid := model.UID(fmt.Sprintf("port-%021d", i))
		apply(model.Change{Port: &model.Port{Meta: model.Meta{UID: uid}, Tenant: "t", Name: string(uid), Alloc: model.PortAlloc{
			NetworkUID: network, MACs: []wire.MAC{{2, 0, 0, byte(i >> 16), byte(i >> 8), byte(i)}},
			IPs: []netip.Prefix{netip.MustParsePrefix("10.1.0.5/24")}}}})
		apply(model.Change{Binding: benchBinding(uid, network, i/100+i%10, hosts, rev+1)})
	}
	return w
}

func benchBinding(port, network model.UID, host, hosts int, rev model.Revision) *model.Binding {
	return &model.Binding{Port: port, Network: network, Epoch: model.Epoch(rev), Active: model.UID(fmt.Sprintf("host-%021d", host%hosts))}
}

var worlds = []struct{ ports, hosts int }{{1_000, 100}, {10_000, 100}, {100_000, 100}, {1_000, 1_000}, {100_000, 1_000}}

// BenchmarkMove moves one port among the hosts that are members of its network anyway: the cost is that of one port,
// whatever the world.
func BenchmarkMove(b *testing.B) { benchmarkMove(b, 10) }

// BenchmarkMoveMember moves one port to a host that becomes a member, and away: two hosts are made anew. A host resource lists its networks:
// this grows with that list, and with nothing else of the world.
func BenchmarkMoveMember(b *testing.B) { benchmarkMove(b, 0) }

func benchmarkMove(b *testing.B, among int) {
	for _, size := range worlds {
		b.Run(fmt.Sprintf("ports=%d/hosts=%d", size.ports, size.hosts), func(b *testing.B) {
			w := fleet(size.ports, size.hosts)
			c := New()
			c.All(w)
			port := model.UID(fmt.Sprintf("port-%021d", 0))
			network := w.Ports[port].Alloc.NetworkUID
			resources := 0
			for i := 0; b.Loop(); i++ {
				to := i % 10
				if among == 0 {
					to = 20 + i%30
				}
				ch := model.Change{Revision: w.Revision + 1, Binding: benchBinding(port, network, to, size.hosts, w.Revision+1)}
				w.Apply(ch)
				out := c.Changed(w, []model.Change{ch})
				resources += len(out.Upserts) + len(out.Removals)
			}
			b.ReportMetric(float64(resources)/float64(b.N), "resources/op")
		})
	}
}

// BenchmarkFacts changes the MTU of one host's uplink: its networks are made anew.
func BenchmarkFacts(b *testing.B) {
	for _, size := range worlds {
		b.Run(fmt.Sprintf("ports=%d/hosts=%d", size.ports, size.hosts), func(b *testing.B) {
			w := fleet(size.ports, size.hosts)
			c := New()
			c.All(w)
			f := *w.Facts[model.UID(fmt.Sprintf("host-%021d", 0))]
			for i := 0; b.Loop(); i++ {
				f := f
				f.UplinkMTU = 1400 + i%2
				ch := model.Change{Revision: w.Revision + 1, Facts: &f}
				w.Apply(ch)
				c.Changed(w, []model.Change{ch})
			}
		})
	}
}

// BenchmarkAll compiles a whole world.
func BenchmarkAll(b *testing.B) {
	w := fleet(100_000, 1_000)
	for b.Loop() { // about a second each: -benchtime 3x
		New().All(w)
	}
}

// TestWorkOfAChange counts the resources that are looked at for one change: the same in a small and a large world. Red when
// Compiler.port marks the ports of its network.
func TestWorkOfAChange(t *testing.T) {
	for _, size := range []struct{ ports, hosts int }{{1_000, 50}, {10_000, 200}} {
		w := fleet(size.ports, size.hosts)
		c := New()
		c.All(w)
		port := w.Ports[model.UID(fmt.Sprintf("port-%021d", 0))]
		for _, move := range []struct {
			to, want int
			what     string
		}{{1, 1, "among members"}, {20, 2, "to a new member"}, {21, 3, "from a last port to a new member"}} {
			w.Apply(model.Change{Revision: w.Revision + 1, Binding: benchBinding(port.UID, port.Alloc.NetworkUID, move.to, size.hosts, w.Revision+1)})
			r := c.begin(w)
			r.port(port.UID)
			if len(r.dirty) != move.want {
				t.Errorf("%d ports, %d hosts: a move %s looks at %d resources, not %d", size.ports, size.hosts, move.what, len(r.dirty), move.want)
			}
			r.finish()
		}
		f := *w.Facts[model.UID(fmt.Sprintf("host-%021d", 30))]
		f.UDPPort = 4790
		w.Apply(model.Change{Revision: w.Revision + 1, Facts: &f})
		r := c.begin(w)
		r.host(f.Host)
		if len(r.dirty) != 2 {
			t.Errorf("another UDP port looks at %d resources", len(r.dirty))
		}
		r.finish()
	}
}
