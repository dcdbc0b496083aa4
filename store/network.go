package store

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weftnet/weft/model"
)

// CreateNetwork makes a network and claims n.Alloc.VNI for it, and its group where that comes from a pool. A network of this uid that is there already is what an earlier try of
// the same made: it is read into n. The tenant, the stated VTEPs and, unless the VNI is pinned,
// the pool must exist.
func (s *Store) CreateNetwork(ctx context.Context, n *model.Network) error {
	what := "network " + n.Tenant + "/" + n.Name
	rev, err := s.write(ctx, func(ctx context.Context) (*edit, error) {
		v, err := s.look(ctx, get(s.keys.tenant(n.Tenant)), get(s.keys.network(n.Tenant, n.Name)), get(s.keys.vni(n.Alloc.VNI)),
			get(s.keys.tombstone(n.UID)))
		if err != nil {
			return nil, err
		}
		switch {
		case v.one(0) == nil:
			return nil, noTenant("tenant", n.Tenant)
		case v.one(1) != nil:
			return nil, takenOrOwn(v, v.one(1), n, &n.Meta, what)
		case v.one(3) != nil:
			return nil, goneAgain(what)
		case v.one(2) != nil:
			return nil, s.vniTaken(ctx, n, v.one(2))
		}
		e := v.edit("create", what)
		e.present(s.keys.tenant(n.Tenant))
		e.absent(s.keys.network(n.Tenant, n.Name))
		e.absent(s.keys.vni(n.Alloc.VNI))
		e.absent(s.keys.tombstone(n.UID))
		if err := s.useReferences(ctx, e, nil, n); err != nil {
			return nil, err
		}
		if err := s.useGroups(ctx, e, nil, n); err != nil {
			return nil, err
		}
		e.put(s.keys.network(n.Tenant, n.Name), n)
		e.put(s.keys.idxUID("network", n.UID), ref{UID: n.UID, Tenant: n.Tenant, Name: n.Name})
		e.put(s.keys.vni(n.Alloc.VNI), vniRecord{VNIUse: model.VNIUse{VNI: n.Alloc.VNI, Network: n.UID}})
		return e, nil
	})
	if err == nil && rev != 0 {
		n.Revision = rev
	}
	return err
}

// useReferences indexes what the network newly names, after seeing that it exists, and forgets what it names no more.
func (s *Store) useReferences(ctx context.Context, e *edit, old, n *model.Network) error {
	before, after := map[string]bool{}, map[string]bool{}
	if old != nil {
		for _, nv := range old.Spec.VTEPs {
			before[nv.VTEP] = true
		}
	}
	var gets []clientv3.Op
	var fields, whats, lists, keys []string
	want := func(key, field, what, list string) {
		gets, keys, fields, whats, lists = append(gets, get(key)), append(keys, key), append(fields, field), append(whats, what), append(lists, list)
	}
	for i, nv := range n.Spec.VTEPs {
		if !before[nv.VTEP] && !after[nv.VTEP] {
			want(s.keys.vtep(nv.VTEP), fmt.Sprintf("spec.vteps[%d].vtep", i), "VTEP "+nv.VTEP, "weft vtep list")
			e.put(s.keys.idxWith(nv.VTEP, n.UID), ref{UID: n.UID, Tenant: n.Tenant, Name: n.Name})
		}
		after[nv.VTEP] = true
	}
	for name := range before {
		if !after[name] {
			e.remove(s.keys.idxWith(name, n.UID))
		}
	}
	pool, oldPool := poolUsed(n), poolUsed(old)
	if pool != oldPool && pool != "" {
		want(s.keys.pool(pool), "spec.vni_pool", "VNI pool "+pool, "weft pool list")
		e.put(s.keys.idxFrom(pool, n.UID), ref{UID: n.UID, Tenant: n.Tenant, Name: n.Name})
	}
	if pool != oldPool && oldPool != "" {
		e.remove(s.keys.idxFrom(oldPool, n.UID))
	}
	if len(gets) == 0 {
		return nil
	}
	v, err := s.look(ctx, gets...)
	if err != nil {
		return err
	}
	for i, key := range keys {
		if v.one(i) == nil {
			return missing(fields[i], whats[i], lists[i])
		}
		e.present(key)
	}
	return nil
}

// poolUsed is the pool that the network's VNI came from, or nothing.
func poolUsed(n *model.Network) string {
	if n == nil || n.Spec.VNI != 0 {
		return ""
	}
	return model.PoolOf(n)
}

// UpdateNetwork writes the spec if n.Revision is the current one. What was allocated stays as it was. Subnets that still
// hold a port's IP cannot go, however that port came about meanwhile.
func (s *Store) UpdateNetwork(ctx context.Context, n *model.Network) error {
	key, what := s.keys.network(n.Tenant, n.Name), "network "+n.Tenant+"/"+n.Name
	based := n.Revision
	rev, err := s.write(ctx, func(ctx context.Context) (*edit, error) {
		v, err := s.look(ctx, get(key))
		if err != nil {
			return nil, err
		}
		kv := v.one(0)
		if kv == nil {
			return nil, noNetwork("name", n.Tenant, n.Name)
		}
		if err := stale(v, kv, based, what); err != nil {
			return nil, err
		}
		old, err := decode[model.Network](kv)
		if err != nil {
			return nil, err
		}
		n.UID, n.Created, n.Alloc.VNI = old.UID, old.Created, old.Alloc.VNI
		if unchanged(kv, n) {
			return nil, nil
		}
		e := v.edit("update", what)
		e.same(key, kv)
		if err := s.keepSubnets(ctx, e, old, n); err != nil {
			return nil, err
		}
		if err := s.useReferences(ctx, e, old, n); err != nil {
			return nil, err
		}
		if err := s.useGroups(ctx, e, old, n); err != nil {
			return nil, err
		}
		e.put(key, n)
		return e, nil
	})
	if err == nil && rev != 0 {
		n.Revision = rev
	}
	return err
}

// keepSubnets refuses to drop a subnet that holds an IP of a port. It costs a listing of the network's IPs, so it looks
// only when a subnet goes.
func (s *Store) keepSubnets(ctx context.Context, e *edit, old, n *model.Network) error {
	stays := map[netip.Prefix]bool{}
	for _, p := range n.Spec.Subnets {
		stays[p] = true
	}
	var gone []netip.Prefix
	for _, p := range old.Spec.Subnets {
		if !stays[p] {
			gone = append(gone, p)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	prefix := s.keys.in("idx/ip", string(n.UID))
	v, err := s.look(ctx, list(prefix))
	if err != nil {
		return err
	}
	for _, kv := range v.all(0) {
		ip, err := netip.ParseAddr(last(kv.Key))
		if err != nil {
			return fmt.Errorf("the store's index %s is not readable: %w", kv.Key, err)
		}
		for _, p := range gone {
			if !p.Contains(ip) {
				continue
			}
			by, err := decode[ref](kv)
			if err != nil {
				return err
			}
			return model.Errorf(model.Conflict, "spec.subnets", "keep the subnet, or delete that port first",
				"port %s has %s in subnet %s", by, ip, p)
		}
	}
	// The listing may be newer than the edit's own view; what was written in between counts as a lost race.
	e.unwritten(prefix)
	return nil
}

// DeleteNetwork removes a network that has no ports. Its VNI is in quarantine until every host that was ever told of the
// network acknowledges this revision or is removed, and free at once if there was none.
func (s *Store) DeleteNetwork(ctx context.Context, tenant, name string, now time.Time) (model.Revision, error) {
	key := s.keys.network(tenant, name)
	return s.write(ctx, func(ctx context.Context) (*edit, error) {
		v, err := s.look(ctx, get(key))
		if err != nil {
			return nil, err
		}
		kv := v.one(0)
		if kv == nil {
			return nil, noNetwork("network", tenant, name)
		}
		n, err := decode[model.Network](kv)
		if err != nil {
			return nil, err
		}
		e := v.edit("delete", "network "+tenant+"/"+name)
		e.same(key, kv)
		ports, holders := s.keys.in("idx/in", string(n.UID)), s.keys.in("holder", string(n.UID))
		v, err = s.look(ctx, count(ports), names(holders), names(s.keys.in("idx/host")))
		if err != nil {
			return nil, err
		}
		if c := v.ranges[0].Count; c > 0 {
			return nil, model.Errorf(model.Conflict, "network", fmt.Sprintf("delete them first: `weft port list --tenant %s`", tenant),
				"network %s/%s has %s", tenant, name, model.Counted(c, "port"))
		}
		e.empty(ports)
		e.unwritten(holders)
		alive := map[model.UID]bool{}
		for _, kv := range v.all(2) {
			alive[model.UID(last(kv.Key))] = true
		}
		use := vniRecord{VNIUse: model.VNIUse{VNI: n.Alloc.VNI, Network: n.UID, Quarantined: true}}
		for _, kv := range v.all(1) {
			if host := model.UID(last(kv.Key)); alive[host] {
				use.Holders = append(use.Holders, host)
			}
		}
		if len(use.Holders) > 0 {
			e.put(s.keys.vni(use.VNI), use)
			e.put(s.keys.quarantine(use.VNI), ref{UID: n.UID, Tenant: tenant, Name: name})
		} else {
			e.remove(s.keys.vni(use.VNI))
		}
		for _, nv := range n.Spec.VTEPs {
			e.remove(s.keys.idxWith(nv.VTEP, n.UID))
		}
		if pool := poolUsed(n); pool != "" {
			e.remove(s.keys.idxFrom(pool, n.UID))
		}
		s.leaveGroups(e, n)
		e.remove(key)
		e.remove(s.keys.idxUID("network", n.UID))
		e.removeBelow(holders)
		e.put(s.keys.tombstone(n.UID), model.Tombstone{Kind: model.KindNetwork, UID: n.UID, Name: name, Deleted: now.UTC()})
		return e, nil
	})
}

func noNetwork(field, tenant, name string) error {
	return missing(field, fmt.Sprintf("network %s of tenant %s", name, tenant), "weft network list --tenant "+tenant)
}
