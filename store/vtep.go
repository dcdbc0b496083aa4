package store

import (
	"context"
	"time"

	"github.com/weftnet/weft/model"
)

// CreateVTEP makes an external VTEP.
func (s *Store) CreateVTEP(ctx context.Context, vt *model.VTEP) error {
	return create(ctx, s, s.keys.vtep(vt.Name), "VTEP "+vt.Name, &vt.Meta, vt)
}

// UpdateVTEP writes the spec if vt.Revision is the current one.
func (s *Store) UpdateVTEP(ctx context.Context, vt *model.VTEP) error {
	return update(ctx, s, s.keys.vtep(vt.Name), "VTEP "+vt.Name, "weft vtep list", &vt.Meta, vt)
}

// DeleteVTEP removes an external VTEP that no network names, and leaves a tombstone.
func (s *Store) DeleteVTEP(ctx context.Context, name string, now time.Time) (model.Revision, error) {
	return s.removeUnused(ctx, s.keys.vtep(name), s.keys.in("idx/with", name), "vtep", "VTEP "+name, "weft vtep list",
		"take it out of them first: `weft network vtep remove NETWORK "+name+"`",
		func(e *edit, kv *keyValue) error {
			vt, err := decode[model.VTEP](kv)
			if err != nil {
				return err
			}
			e.put(s.keys.tombstone(vt.UID), model.Tombstone{Kind: model.KindVTEP, UID: vt.UID, Name: name, Deleted: now.UTC()})
			return nil
		})
}

// CreatePool makes a VNI pool.
func (s *Store) CreatePool(ctx context.Context, p *model.VNIPool) error {
	return create(ctx, s, s.keys.pool(p.Name), "VNI pool "+p.Name, &p.Meta, p)
}

// UpdatePool writes the range if p.Revision is the current one. VNIs that were allocated from the pool stay with their
// networks.
func (s *Store) UpdatePool(ctx context.Context, p *model.VNIPool) error {
	return update(ctx, s, s.keys.pool(p.Name), "VNI pool "+p.Name, "weft pool list", &p.Meta, p)
}

// DeletePool removes a VNI pool that no network has its VNI from. The default pool stays.
func (s *Store) DeletePool(ctx context.Context, name string) (model.Revision, error) {
	if name == model.DefaultPool {
		return 0, model.Errorf(model.Conflict, "pool", "change its range instead", "the default VNI pool serves every network that names none")
	}
	return s.removeUnused(ctx, s.keys.pool(name), s.keys.in("idx/from", name), "pool", "VNI pool "+name, "weft pool list",
		"delete those networks first", func(*edit, *keyValue) error { return nil })
}

// create makes an object that refers to nothing.
func create(ctx context.Context, s *Store, key, what string, m *model.Meta, object any) error {
	rev, err := s.write(ctx, func(ctx context.Context) (*edit, error) {
		v, err := s.look(ctx, get(key))
		if err != nil {
			return nil, err
		}
		if v.one(0) != nil {
			return nil, taken(what)
		}
		e := v.edit("create", what)
		e.absent(key)
		e.put(key, object)
		return e, nil
	})
	if err == nil {
		m.Revision = rev
	}
	return err
}

// removeUnused removes an object unless the index of its users has an entry.
func (s *Store) removeUnused(ctx context.Context, key, users, field, what, list, fix string, also func(*edit, *keyValue) error) (model.Revision, error) {
	return s.write(ctx, func(ctx context.Context) (*edit, error) {
		v, err := s.look(ctx, get(key), count(users))
		if err != nil {
			return nil, err
		}
		kv := v.one(0)
		if kv == nil {
			return nil, missing(field, what, list)
		}
		if n := v.ranges[1].Count; n > 0 {
			return nil, model.Errorf(model.Conflict, field, fix, "%s is used by %d networks", what, n)
		}
		e := v.edit("delete", what)
		e.same(key, kv)
		e.empty(users)
		e.remove(key)
		return e, also(e, kv)
	})
}
