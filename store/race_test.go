package store

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"github.com/weftnet/weft/model"
)

const racers = 8

// race runs racers at once and returns their errors.
func race(run func(i int) error) []error {
	errs := make([]error, racers)
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range racers {
		wg.Go(func() {
			<-start
			errs[i] = run(i)
		})
	}
	close(start)
	wg.Wait()
	return errs
}

// oneWon checks that one racer succeeded and the others were refused as stated.
func oneWon(t *testing.T, errs []error, kind model.ErrorKind, field, part string) (winner int) {
	t.Helper()
	won := 0
	for i, err := range errs {
		if err == nil {
			won++
			winner = i
			continue
		}
		refused(t, err, kind, field, part)
	}
	if won != 1 {
		t.Fatalf("%d won: %v", won, errs)
	}
	return winner
}

// testRaceAddresses breaks if a claimed index key is not compared as absent.
func testRaceAddresses(t *testing.T, at string) {
	s := open(t, at)
	other := openAt(t, Config{Endpoints: []string{at}, Prefix: s.cfg.Prefix, CompactEvery: -1}) // another server
	ctx := t.Context()
	must(t, s.CreateTenant(ctx, tenant("acme")))
	must(t, s.CreateNetwork(ctx, network("acme", "blue", 5001, "10.1.0.0/24")))
	servers := []*Store{s, other}
	oneWon(t, race(func(i int) error {
		return servers[i%2].CreatePort(ctx, port("acme", fmt.Sprintf("ip%d", i), "blue", byte(10+i), "10.1.0.2/24"))
	}), model.Taken, "spec.ips", "10.1.0.2 is taken in network blue by port ip")
	oneWon(t, race(func(i int) error {
		return servers[i%2].CreatePort(ctx, port("acme", fmt.Sprintf("mac%d", i), "blue", 1))
	}), model.Taken, "spec.macs", "02:00:00:00:00:01 is taken in network blue by port mac")
	oneWon(t, race(func(i int) error {
		return servers[i%2].CreatePort(ctx, port("acme", "same", "blue", byte(100+i)))
	}), model.Taken, "name", "acme/same")
	if w := ok[*model.World](t)(s.Load(ctx)); len(w.Ports) != 3 {
		t.Fatalf("%d ports", len(w.Ports))
	}
}

func testRaceVNI(t *testing.T, at string) {
	s, ctx := open(t, at), t.Context()
	must(t, s.CreateTenant(ctx, tenant("acme")))
	oneWon(t, race(func(i int) error {
		return s.CreateNetwork(ctx, network("acme", fmt.Sprintf("n%d", i), 7777))
	}), model.Taken, "spec.vni", "VNI 7777 is taken by network acme/n")
}

// testRaceDeleteCreate: a network and a tenant never go from under what is being made in them. It breaks if a deletion does
// not compare the range of its users as empty, or a creation does not compare its network.
func testRaceDeleteCreate(t *testing.T, at string) {
	s, ctx := open(t, at), t.Context()
	for round := range 5 {
		name := fmt.Sprintf("t%d", round)
		must(t, s.CreateTenant(ctx, tenant(name)))
		must(t, s.CreateNetwork(ctx, network(name, "blue", 5000+1, "10.1.0.0/24")))
		must(t, s.CreateVTEP(ctx, vtep("ext"+name)))
		race(func(i int) error {
			var err error
			switch i {
			case 0:
				_, err = s.DeleteNetwork(ctx, name, "blue", now)
			case 1:
				_, err = s.DeleteTenant(ctx, name)
			case 2:
				n := network(name, "red", 6000+1)
				n.Spec.VTEPs = []model.NetworkVTEP{{VTEP: "ext" + name}}
				err = s.CreateNetwork(ctx, n)
			case 3:
				_, err = s.DeleteVTEP(ctx, "ext"+name, now)
			default:
				err = s.CreatePort(ctx, port(name, fmt.Sprintf("p%d", i), "blue", byte(i), fmt.Sprintf("10.1.0.%d/24", i+2)))
			}
			var refusal *model.Error
			if err != nil && !errors.As(err, &refusal) {
				t.Errorf("racer %d: %v", i, err)
			}
			return err
		})
		w := ok[*model.World](t)(s.Load(ctx))
		whole(t, w)
		empty(t, s, w)
	}
}

// whole checks that every reference in a world leads somewhere.
func whole(t *testing.T, w *model.World) {
	t.Helper()
	for _, n := range w.Networks {
		if w.Tenants[n.Tenant] == nil {
			t.Fatalf("network %s/%s without its tenant", n.Tenant, n.Name)
		}
		for _, nv := range n.Spec.VTEPs {
			if w.VTEPs[nv.VTEP] == nil {
				t.Fatalf("network %s/%s names VTEP %s, which is gone", n.Tenant, n.Name, nv.VTEP)
			}
		}
		if use := w.VNIs[uint32(n.Alloc.VNI)]; use == nil || use.Network != n.UID || use.Quarantined {
			t.Fatalf("network %s/%s has VNI %d, whose use is %+v", n.Tenant, n.Name, n.Alloc.VNI, use)
		}
	}
	for _, p := range w.Ports {
		n := w.Networks[p.Alloc.NetworkUID]
		if n == nil {
			t.Fatalf("port %s/%s without its network", p.Tenant, p.Name)
		}
		for _, ip := range p.Alloc.IPs {
			inside := false
			for _, sub := range n.Spec.Subnets {
				inside = inside || sub.Contains(ip.Addr())
			}
			if !inside {
				t.Fatalf("port %s/%s has %s outside %v", p.Tenant, p.Name, ip, n.Spec.Subnets)
			}
		}
	}
	for _, b := range w.Bindings {
		if w.Ports[b.Port] == nil {
			t.Fatalf("binding %+v without its port", b)
		}
		for h := range b.Hosts() {
			if w.Hosts[h] == nil {
				t.Fatalf("binding %+v names host %s, which is gone", b, h)
			}
		}
	}
}

// empty deletes all that a world has, which fails if an index forgot something or kept too much.
func empty(t *testing.T, s *Store, w *model.World) {
	t.Helper()
	ctx := t.Context()
	for _, p := range w.Ports {
		ok[model.Revision](t)(s.DeletePort(ctx, p.Tenant, p.Name, now))
	}
	for _, n := range w.Networks {
		ok[model.Revision](t)(s.DeleteNetwork(ctx, n.Tenant, n.Name, now))
	}
	for name := range w.Tenants {
		ok[model.Revision](t)(s.DeleteTenant(ctx, name))
	}
	for name := range w.VTEPs {
		ok[model.Revision](t)(s.DeleteVTEP(ctx, name, now))
	}
	for _, h := range w.Hosts {
		_, _, err := s.DeleteHost(ctx, h.Name, true, now)
		must(t, err)
	}
	v, err := s.look(ctx, names(s.keys.in("idx")), names(s.keys.in("holder")), names(s.keys.in("quarantine")), names(s.keys.in("vni")))
	must(t, err)
	for i := range 4 {
		for _, kv := range v.all(i) {
			t.Errorf("left behind: %s", kv.Key)
		}
	}
}

// testRaceShrinkCreate: a subnet never goes from under an IP that is being allocated in it. It breaks if keepSubnets does
// not compare the IPs as unwritten, or CreatePort its network as unchanged.
func testRaceShrinkCreate(t *testing.T, at string) {
	s, ctx := open(t, at), t.Context()
	must(t, s.CreateTenant(ctx, tenant("acme")))
	for round := range 5 {
		n := network("acme", fmt.Sprintf("n%d", round), 5001, "10.1.0.0/24", "10.2.0.0/24")
		must(t, s.CreateNetwork(ctx, n))
		race(func(i int) error {
			if i == 0 {
				shrink := *n
				shrink.Spec.Subnets = []netip.Prefix{netip.MustParsePrefix("10.2.0.0/24")}
				return s.UpdateNetwork(ctx, &shrink)
			}
			return s.CreatePort(ctx, port("acme", fmt.Sprintf("p%d", i), n.Name, byte(i), fmt.Sprintf("10.1.0.%d/24", i+2)))
		})
		w := ok[*model.World](t)(s.Load(ctx))
		whole(t, w)
		for _, p := range w.Ports {
			ok[model.Revision](t)(s.DeletePort(ctx, p.Tenant, p.Name, now))
		}
		ok[model.Revision](t)(s.DeleteNetwork(ctx, "acme", n.Name, now))
	}
}

// testRaceBind: of many who saw the same epoch one binds; ports and hosts never go from under a binding.
func testRaceBind(t *testing.T, at string) {
	s, ctx := open(t, at), t.Context()
	p, h1, h2 := bindable(t, s)
	oneWon(t, race(func(i int) error {
		_, err := s.PutBinding(ctx, model.Binding{Port: p.UID, Active: []model.UID{h1.UID, h2.UID}[i%2]}, 0)
		return err
	}), model.Stale, "epoch", "web1")
	for round := range 5 {
		name := fmt.Sprintf("x%d", round)
		h, q := host(name), port("acme", name, "blue", 77)
		must(t, s.CreateHost(ctx, h))
		must(t, s.CreatePort(ctx, q))
		race(func(i int) error {
			switch i {
			case 0:
				_, _, err := s.DeleteHost(ctx, name, round%2 == 0, now)
				return err
			case 1:
				_, err := s.DeletePort(ctx, "acme", name, now)
				return err
			default:
				_, err := s.PutBinding(ctx, model.Binding{Port: q.UID, Active: h.UID}, 0)
				return err
			}
		})
		w := ok[*model.World](t)(s.Load(ctx))
		whole(t, w)
		unbindAndDelete(ctx, t, s, w, q)
	}
	empty(t, s, unbound(ctx, t, s))
}

// unbound unbinds all ports, and loads again.
func unbound(ctx context.Context, t *testing.T, s *Store) *model.World {
	t.Helper()
	for _, b := range ok[*model.World](t)(s.Load(ctx)).Bindings {
		ok[model.Binding](t)(s.PutBinding(ctx, model.Binding{Port: b.Port}, b.Epoch))
	}
	return ok[*model.World](t)(s.Load(ctx))
}

func unbindAndDelete(ctx context.Context, t *testing.T, s *Store, w *model.World, p *model.Port) {
	t.Helper()
	if w.Ports[p.UID] == nil {
		return
	}
	if b := w.Bindings[p.UID]; b != nil {
		ok[model.Binding](t)(s.PutBinding(ctx, model.Binding{Port: p.UID}, b.Epoch))
	}
	ok[model.Revision](t)(s.DeletePort(ctx, p.Tenant, p.Name, now))
}
