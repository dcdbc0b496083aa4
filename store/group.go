package store

import (
	"context"
	"slices"

	"github.com/weftnet/weft/model"
)

// useGroups indexes the groups that a network has, and the pool that its group comes from. A pool gives a group to as many networks as it says;
// one that a user gave is shared as he likes.
func (s *Store) useGroups(ctx context.Context, e *edit, old, n *model.Network) error {
	var had []string
	before := ""
	if old != nil {
		before = old.Spec.GroupPool
		for _, g := range old.Alloc.Flood.Joined {
			had = append(had, s.keys.idxGroup(g, n.UID))
		}
	}
	me := ref{UID: n.UID, Tenant: n.Tenant, Name: n.Name}
	var has []string
	for _, g := range n.Alloc.Flood.Joined {
		key := s.keys.idxGroup(g, n.UID)
		if has = append(has, key); !slices.Contains(had, key) {
			e.put(key, me)
		}
	}
	for _, key := range had {
		if !slices.Contains(has, key) {
			e.remove(key)
		}
	}
	pool, group := n.Spec.GroupPool, n.Alloc.Flood.Group
	if pool != before && before != "" {
		e.remove(s.keys.idxGroupFrom(before, n.UID))
	}
	if pool != before && pool != "" {
		e.put(s.keys.idxGroupFrom(pool, n.UID), me)
	}
	if pool == "" || pool == before && slices.Contains(had, s.keys.idxGroup(group, n.UID)) {
		return nil
	}
	sharers := s.keys.in("idx/group", group.String())
	v, err := s.look(ctx, get(s.keys.groupPool(pool)), names(sharers))
	if err != nil {
		return err
	}
	if v.one(0) == nil {
		return missing("spec.group_pool", "group pool "+pool, "weft group-pool list")
	}
	p, err := decode[model.GroupPool](v.one(0))
	if err != nil {
		return err
	}
	others := 0
	for _, kv := range v.all(1) {
		if model.UID(last(kv.Key)) != n.UID {
			others++
		}
	}
	if others >= p.Spec.Sharing() {
		return model.Errorf(model.Taken, "spec.group_pool", "try again", "group %s of group pool %s was taken by another network meanwhile", group, pool)
	}
	// The listing may be newer than the edit's own view; what was written in between counts as a lost race.
	e.same(s.keys.groupPool(pool), v.one(0))
	e.unwritten(sharers)
	return nil
}

// leaveGroups forgets what useGroups indexed.
func (s *Store) leaveGroups(e *edit, n *model.Network) {
	for _, g := range n.Alloc.Flood.Joined {
		e.remove(s.keys.idxGroup(g, n.UID))
	}
	if n.Spec.GroupPool != "" {
		e.remove(s.keys.idxGroupFrom(n.Spec.GroupPool, n.UID))
	}
}

// CreateGroupPool makes a group pool that overlaps no other.
func (s *Store) CreateGroupPool(ctx context.Context, p *model.GroupPool) error {
	key, what := s.keys.groupPool(p.Name), "group pool "+p.Name
	rev, err := s.write(ctx, func(ctx context.Context) (*edit, error) {
		v, err := s.look(ctx, get(key), list(s.keys.in("grouppool")))
		if err != nil {
			return nil, err
		}
		if kv := v.one(0); kv != nil {
			return nil, takenOrOwn(v, kv, p, &p.Meta, what)
		}
		e := v.edit("create", what)
		e.absent(key)
		if err := s.besideOthers(e, p, v.all(1)); err != nil {
			return nil, err
		}
		e.put(key, p)
		return e, nil
	})
	if err == nil && rev != 0 {
		p.Revision = rev
	}
	return err
}

// UpdateGroupPool writes the spec if p.Revision is the current one. Groups that were taken from the pool stay with their networks.
func (s *Store) UpdateGroupPool(ctx context.Context, p *model.GroupPool) error {
	key, what, based := s.keys.groupPool(p.Name), "group pool "+p.Name, p.Revision
	rev, err := s.write(ctx, func(ctx context.Context) (*edit, error) {
		v, err := s.look(ctx, get(key), list(s.keys.in("grouppool")))
		if err != nil {
			return nil, err
		}
		kv := v.one(0)
		if kv == nil {
			return nil, missing("name", what, "weft group-pool list")
		}
		if err := stale(v, kv, based, what); err != nil {
			return nil, err
		}
		old, err := decode[model.GroupPool](kv)
		if err != nil {
			return nil, err
		}
		p.UID, p.Created = old.UID, old.Created
		if unchanged(kv, p) {
			return nil, nil
		}
		e := v.edit("update", what)
		e.same(key, kv)
		if err := s.besideOthers(e, p, v.all(1)); err != nil {
			return nil, err
		}
		e.put(key, p)
		return e, nil
	})
	if err == nil && rev != 0 {
		p.Revision = rev
	}
	return err
}

// besideOthers refuses a pool that overlaps one of those there are, and has the edit fail if one comes or changes meanwhile.
func (s *Store) besideOthers(e *edit, p *model.GroupPool, there []*keyValue) error {
	for _, kv := range there {
		other, err := decode[model.GroupPool](kv)
		if err != nil {
			return err
		}
		if refused := p.ValidateBeside(other); refused != nil {
			return refused
		}
	}
	e.unwritten(s.keys.in("grouppool"))
	return nil
}

// DeleteGroupPool removes a group pool that no network takes its group from.
func (s *Store) DeleteGroupPool(ctx context.Context, name string) (model.Revision, error) {
	return s.removeUnused(ctx, s.keys.groupPool(name), s.keys.in("idx/groupfrom", name), "name", "group pool "+name, "weft group-pool list",
		"give those networks a group of their own, another pool, or head-end replication first", func(*edit, *keyValue) error { return nil })
}
