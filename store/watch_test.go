package store

import (
	"context"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/wire"
)

const patience = 30 * time.Second

// next is the next event of a watch.
func next(t *testing.T, events <-chan Event) Event {
	t.Helper()
	select {
	case e, open := <-events:
		if !open {
			t.Fatal("the watch ended")
		}
		return e
	case <-time.After(patience):
		t.Fatal("no event")
	}
	panic("not reached")
}

func ended(t *testing.T, events <-chan Event) {
	t.Helper()
	select {
	case e, open := <-events:
		if open {
			t.Fatalf("another event: %+v", e)
		}
	case <-time.After(patience):
		t.Fatal("the watch did not end")
	}
}

func testWatch(t *testing.T, at string) {
	s, ctx := open(t, at), t.Context()
	from := ok[*model.World](t)(s.Load(ctx)).Revision
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := s.Watch(ctx, from)
	acme := tenant("acme")
	must(t, s.CreateTenant(ctx, acme))
	must(t, s.CreateJoinToken(ctx, &model.JoinToken{ID: "a"}))
	blue := network("acme", "blue", 5001)
	must(t, s.CreateNetwork(ctx, blue))
	rev := ok[model.Revision](t)(s.DeleteNetwork(ctx, "acme", "blue", now))

	e := next(t, events)
	if e.Revision != acme.Revision || len(e.Changes) != 1 || e.Changes[0].Tenant == nil || e.Changes[0].Tenant.Revision != acme.Revision {
		t.Fatalf("%+v", e)
	}
	if e = next(t, events); len(e.Changes) != 0 || e.Revision <= acme.Revision {
		t.Fatalf("a transaction without objects: %+v", e)
	}
	if e = next(t, events); e.Revision != blue.Revision || len(e.Changes) != 2 {
		t.Fatalf("%+v", e)
	}
	e = next(t, events)
	if e.Revision != rev || len(e.Changes) != 3 {
		t.Fatalf("network, VNI and tombstone in one event: %+v", e)
	}
	for _, c := range e.Changes {
		if n := c.Network; n != nil && (!c.Deleted || n.UID != blue.UID || n.Revision != blue.Revision || c.Revision != rev) {
			t.Fatalf("the deleted network: %+v %+v", c, n)
		}
	}
	// Again from the middle.
	if e = next(t, s.Watch(ctx, blue.Revision-1)); e.Revision != blue.Revision {
		t.Fatalf("%+v", e)
	}
	cancel()
	ended(t, events)
}

// testWatchAgrees: a world that took in every event is the world that Load gives, and the revisions ascend.
func testWatchAgrees(t *testing.T, at string) {
	s, ctx := open(t, at), t.Context()
	world := ok[*model.World](t)(s.Load(ctx))
	events := s.Watch(ctx, world.Revision)
	race(func(i int) error {
		name := fmt.Sprintf("t%d", i)
		must(t, s.CreateTenant(ctx, tenant(name)))
		must(t, s.CreateNetwork(ctx, network(name, "blue", wire.VNI(6000+i), "10.1.0.0/24")))
		return nil
	})
	p, h1, _ := bindable(t, s)
	b := ok[model.Binding](t)(s.PutBinding(ctx, model.Binding{Port: p.UID, Active: h1.UID}, 0))
	must(t, s.PutFacts(ctx, model.HostFacts{Host: h1.UID}))
	ok[model.Binding](t)(s.PutBinding(ctx, model.Binding{Port: p.UID}, b.Epoch))
	ok[model.Revision](t)(s.DeletePort(ctx, p.Tenant, p.Name, now))
	ok[model.Revision](t)(s.DeleteNetwork(ctx, p.Tenant, p.Spec.Network, now))
	_, _, err := s.DeleteHost(ctx, h1.Name, false, now)
	must(t, err)
	marker := tenant("marker")
	must(t, s.CreateTenant(ctx, marker))
	for world.Revision < marker.Revision {
		e := next(t, events)
		if e.Revision <= world.Revision {
			t.Fatalf("revision %d after %d", e.Revision, world.Revision)
		}
		for _, c := range e.Changes {
			world.Apply(c)
		}
		world.Revision = e.Revision
	}
	loaded := ok[*model.World](t)(s.Load(ctx))
	loaded.Revision = world.Revision // other tests write to the same etcd
	if !reflect.DeepEqual(world, loaded) {
		t.Fatalf("watched\n%+v\nloaded\n%+v", world, loaded)
	}
}

// testWatchCompacted: history that is gone gives a Reset, and what Load then gives can be watched on.
func testWatchCompacted(t *testing.T, _ string) {
	s := openAt(t, Config{Dir: shortDir(t)}) // compacting an etcd that others share would disturb them
	ctx := t.Context()
	from := ok[*model.World](t)(s.Load(ctx)).Revision
	for i := range 5 {
		must(t, s.CreateTenant(ctx, tenant(fmt.Sprintf("t%d", i))))
	}
	v, err := s.look(ctx)
	must(t, err)
	must(t, s.compact(ctx, v.rev))
	events := s.Watch(ctx, from)
	if e := next(t, events); !e.Reset {
		t.Fatalf("%+v", e)
	}
	ended(t, events)
	w := ok[*model.World](t)(s.Load(ctx))
	events = s.Watch(ctx, w.Revision)
	late := tenant("late")
	must(t, s.CreateTenant(ctx, late))
	if e := next(t, events); e.Reset || e.Revision != late.Revision {
		t.Fatalf("%+v", e)
	}
	// A revision that never was: another store stands in the place of the one that gave it.
	if e := next(t, s.Watch(ctx, late.Revision+1000)); !e.Reset {
		t.Fatalf("%+v", e)
	}
}

func testClosed(t *testing.T, at string) {
	s := open(t, at)
	events := s.Watch(t.Context(), ok[model.Revision](t)(s.Revision(t.Context())))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.CreateTenant(ctx, tenant("acme")); err == nil {
		t.Fatal("a write with an ended context was done")
	}
	must(t, s.Close())
	ended(t, events)
	ended(t, s.Watch(t.Context(), 1))
	if err := s.CreateTenant(t.Context(), tenant("acme")); err == nil {
		t.Fatal("a write into a closed store was done")
	}
	must(t, s.Close())
}
