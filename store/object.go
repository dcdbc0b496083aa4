package store

import (
	"context"

	"github.com/weftnet/weft/model"
)

// create makes an object that refers to nothing.
func create[T any](ctx context.Context, s *Store, key, what string, m *model.Meta, object *T) error {
	rev, err := s.write(ctx, func(ctx context.Context) (*edit, error) {
		v, err := s.look(ctx, get(key))
		if err != nil {
			return nil, err
		}
		if kv := v.one(0); kv != nil {
			return nil, takenOrOwn(v, kv, object, m, what)
		}
		e := v.edit("create", what)
		e.absent(key)
		e.put(key, object)
		return e, nil
	})
	if err == nil && rev != 0 {
		m.Revision = rev
	}
	return err
}

// update is the update of an object that nothing else depends upon: m is its Meta, whose uid and time of creation stay as
// they were.
func update(ctx context.Context, s *Store, key, what, list string, m *model.Meta, object any) error {
	return updateKeeping(ctx, s, key, what, list, m, object, func(*keyValue) error { return nil })
}

// updateKeeping is update of an object that has parts which an update leaves as they are: keep takes them from what is there.
func updateKeeping(ctx context.Context, s *Store, key, what, list string, m *model.Meta, object any, keep func(old *keyValue) error) error {
	based := m.Revision
	rev, err := s.write(ctx, func(ctx context.Context) (*edit, error) {
		v, err := s.look(ctx, get(key))
		if err != nil {
			return nil, err
		}
		kv := v.one(0)
		if kv == nil {
			return nil, missing("name", what, list)
		}
		if err := stale(v, kv, based, what); err != nil {
			return nil, err
		}
		old, err := decode[model.Meta](kv)
		if err != nil {
			return nil, err
		}
		m.UID, m.Created = old.UID, old.Created
		if err := keep(kv); err != nil {
			return nil, err
		}
		if unchanged(kv, object) {
			return nil, nil
		}
		e := v.edit("update", what)
		e.same(key, kv)
		e.put(key, object)
		return e, nil
	})
	if err == nil && rev != 0 {
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
			return nil, model.Errorf(model.Conflict, field, fix, "%s is used by %s", what, model.Counted(n, "network"))
		}
		e := v.edit("delete", what)
		e.same(key, kv)
		e.empty(users)
		e.remove(key)
		return e, also(e, kv)
	})
}
