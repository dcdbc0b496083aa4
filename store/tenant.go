package store

import (
	"context"
	"fmt"

	"github.com/weftnet/weft/model"
)

// CreateTenant makes a tenant, and fills in its Revision.
func (s *Store) CreateTenant(ctx context.Context, t *model.Tenant) error {
	key := s.keys.tenant(t.Name)
	rev, err := s.write(ctx, func(ctx context.Context) (*edit, error) {
		v, err := s.look(ctx, get(key))
		if err != nil {
			return nil, err
		}
		if kv := v.one(0); kv != nil {
			return nil, takenOrOwn(v, kv, t, &t.Meta, "tenant "+t.Name)
		}
		e := v.edit("create", "tenant "+t.Name)
		e.absent(key)
		e.put(key, t)
		return e, nil
	})
	if err == nil && rev != 0 {
		t.Revision = rev
	}
	return err
}

// UpdateTenant writes the spec if t.Revision is the current one, and fills in the new Revision. Nothing is written when
// nothing differs.
func (s *Store) UpdateTenant(ctx context.Context, t *model.Tenant) error {
	return update(ctx, s, s.keys.tenant(t.Name), "tenant "+t.Name, "weft tenant list", &t.Meta, t)
}

// DeleteTenant removes a tenant that has no networks and no ports, with its API tokens.
func (s *Store) DeleteTenant(ctx context.Context, name string) (model.Revision, error) {
	networks, ports, tokens := s.keys.in("network", name), s.keys.in("port", name), s.keys.in("apitoken")
	return s.write(ctx, func(ctx context.Context) (*edit, error) {
		v, err := s.look(ctx, get(s.keys.tenant(name)), count(networks), count(ports), list(tokens))
		if err != nil {
			return nil, err
		}
		kv := v.one(0)
		if kv == nil {
			return nil, noTenant("tenant", name)
		}
		if n, p := v.ranges[1].Count, v.ranges[2].Count; n+p > 0 {
			return nil, model.Errorf(model.Conflict, "tenant", fmt.Sprintf("delete them first: `weft port list --tenant %s`, `weft network list --tenant %s`", name, name),
				"tenant %s has %s and %s", name, model.Counted(n, "network"), model.Counted(p, "port"))
		}
		e := v.edit("delete", "tenant "+name)
		e.same(s.keys.tenant(name), kv)
		e.empty(networks)
		e.empty(ports)
		// A token of this tenant must not open a later tenant of the same name.
		e.unwritten(tokens)
		for _, kv := range v.all(3) {
			t, err := decode[model.APIToken](kv)
			if err != nil {
				return nil, err
			}
			if t.Tenant == name {
				e.remove(string(kv.Key))
				e.remove(s.keys.idxUID("apitoken", model.UID(t.ID)))
			}
		}
		e.remove(s.keys.tenant(name))
		return e, nil
	})
}

func noTenant(field, name string) error {
	return missing(field, "tenant "+name, "weft tenant list")
}
