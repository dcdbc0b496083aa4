package scale

import (
	"context"
	"errors"
	"fmt"

	"github.com/weftnet/weft/compile"
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/plan"
	"github.com/weftnet/weft/store"
)

// truth is what the store says that each host must hold: read from etcd and compiled here, beside the server.
type truth struct {
	set   *plan.Set
	hosts map[string]*plan.Resource
	world *model.World
}

// readTruth reads the store that a server keeps.
func readTruth(ctx context.Context, s *server) (*truth, error) {
	st, err := store.Open(ctx, store.Config{Endpoints: s.etcdEndpoints(), CompactEvery: -1})
	if err != nil {
		return nil, fmt.Errorf("look into the server's store: %w", err)
	}
	w, err := st.Load(ctx)
	if err = errors.Join(err, st.Close()); err != nil {
		return nil, fmt.Errorf("look into the server's store: %w", err)
	}
	t := &truth{set: plan.NewSet(), hosts: map[string]*plan.Resource{}, world: w}
	for _, r := range compile.New().All(w).Upserts {
		t.set.Put(r)
		if h := r.Host(); h != nil {
			t.hosts[r.UID] = r
		}
	}
	return t, nil
}

// check compares what one agent holds with what it must hold, by digest, scope by scope.
func (t *truth) check(a *simulated) error {
	h := t.hosts[string(a.id.UID)]
	if h == nil {
		return fmt.Errorf("%s is not in the store", a.name)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	held := a.staging.Set()
	want := map[string]bool{}
	for _, scope := range plan.Subscription(h.Host()) {
		want[scope] = true
		if must, is := t.set.Digest(scope), held.Digest(scope); must != is {
			return fmt.Errorf("%s: %s has %d resources and %d in the store, or they differ", a.name, scope, is.Resources, must.Resources)
		}
	}
	for _, scope := range held.Scopes() {
		if !want[scope] {
			return fmt.Errorf("%s holds %s, which it must not", a.name, scope)
		}
	}
	return nil
}

// verify wants every agent to hold exactly what the store says, and the store to have what was asked for.
func (f *fleet) verify(ctx context.Context, bound int) error {
	t, err := readTruth(ctx, f.server)
	if err != nil {
		return err
	}
	n := 0
	for _, b := range t.world.Bindings {
		if b.Active != "" {
			n++
		}
	}
	if n != bound {
		return fmt.Errorf("%d ports are bound in the store, and %d were asked for", n, bound)
	}
	for _, a := range f.agents {
		if err := t.check(a); err != nil {
			return fmt.Errorf("an agent differs from the store: %w", err)
		}
	}
	return nil
}
