package store

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/wire"
)

// vniTaken says who has a VNI. Another tenant's network is not named.
func (s *Store) vniTaken(ctx context.Context, n *model.Network, kv *keyValue) error {
	use, err := decode[vniRecord](kv)
	if err != nil {
		return err
	}
	const fix = "choose another, or leave it out to have one allocated"
	if use.Quarantined {
		hosts := make([]string, 0, len(use.Holders))
		for _, h := range use.Holders[:min(len(use.Holders), 5)] {
			hosts = append(hosts, s.hostName(ctx, h))
		}
		return model.Errorf(model.Taken, "spec.vni", fix+", or remove those hosts if they never come back",
			"VNI %d was freed, and it is not confirmed by %s to be forgotten (%s)", use.VNI, model.Counted(len(use.Holders), "host"), strings.Join(hosts, ", "))
	}
	by := "a network of another tenant"
	if v, err := s.look(ctx, get(s.keys.idxUID("network", use.Network))); err != nil {
		return err
	} else if kv := v.one(0); kv != nil {
		r, err := decode[ref](kv)
		if err != nil {
			return err
		}
		if r.Tenant == n.Tenant {
			by = "network " + r.String()
		}
	}
	return model.Errorf(model.Taken, "spec.vni", fix, "VNI %d is taken by %s", use.VNI, by)
}

// vniBatch is how many quarantines one transaction changes: two operations and one comparison each.
const vniBatch = 40

// AcknowledgeVNIs says that a host has applied a revision: it leaves every quarantine that began at or before it, and a VNI
// without holders is free. Nothing is written, and little read, when there is no quarantine.
func (s *Store) AcknowledgeVNIs(ctx context.Context, host model.UID, upTo model.Revision) error {
	what := func() string { return "host " + s.hostName(ctx, host) }
	return s.release(ctx, "acknowledge", what, func(u *model.VNIUse) []model.UID {
		if u.Freed > upTo {
			return u.Holders
		}
		return without(u.Holders, func(h model.UID) bool { return h == host })
	})
}

// sweep takes hosts that are gone out of quarantines and out of the networks' holders.
func (s *Store) sweep(ctx context.Context) error {
	v, err := s.look(ctx, count(s.keys.in("quarantine")), names(s.keys.in("holder")), names(s.keys.in("idx/host")))
	if err != nil {
		return err
	}
	return s.sweepAsOf(ctx, v)
}

// sweepAsOf sweeps by the hosts that a view has. A quarantine that began after it may hold a host that came after it, and
// waits for the next sweep.
func (s *Store) sweepAsOf(ctx context.Context, v *view) error {
	hosts := map[model.UID]bool{}
	for _, kv := range v.all(2) {
		hosts[model.UID(last(kv.Key))] = true
	}
	gone := func(h model.UID) bool { return !hosts[h] }
	if v.ranges[0].Count > 0 {
		seen := v.meta.revision(v.rev)
		err := s.release(ctx, "sweep", func() string { return "quarantine" }, func(u *model.VNIUse) []model.UID {
			if u.Freed > seen {
				return u.Holders
			}
			return without(u.Holders, gone)
		})
		if err != nil {
			return err
		}
	}
	var stale []string
	for _, kv := range v.all(1) {
		if gone(model.UID(last(kv.Key))) {
			stale = append(stale, string(kv.Key))
		}
	}
	return s.removeQuietly(ctx, stale)
}

// release rewrites the holders of all VNIs in quarantine, and frees those that keep none.
func (s *Store) release(ctx context.Context, what string, object func() string, keep func(*model.VNIUse) []model.UID) error {
	v, err := s.look(ctx, names(s.keys.in("quarantine")))
	if err != nil {
		return err
	}
	for batch := range slices.Chunk(v.all(0), vniBatch) {
		_, err := s.write(ctx, func(ctx context.Context) (*edit, error) {
			var gets []clientv3.Op
			for _, kv := range batch {
				n, err := strconv.ParseUint(last(kv.Key), 10, 32)
				if err != nil {
					return nil, fmt.Errorf("the store's index %s is not readable: %w", kv.Key, err)
				}
				gets = append(gets, get(s.keys.vni(wire.VNI(n))))
			}
			v, err := s.look(ctx, gets...)
			if err != nil {
				return nil, err
			}
			e := v.edit(what, "")
			for i := range batch {
				if kv := v.one(i); kv != nil {
					if err := s.releaseOne(e, kv, keep); err != nil {
						return nil, err
					}
				}
			}
			if !e.changesNothing() {
				e.object = object()
			}
			return e, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) releaseOne(e *edit, kv *keyValue, keep func(*model.VNIUse) []model.UID) error {
	use, err := decodeVNI(e.meta, kv)
	if err != nil || !use.Quarantined {
		return err
	}
	kept := keep(use)
	if len(kept) == len(use.Holders) && len(kept) > 0 {
		return nil
	}
	e.same(string(kv.Key), kv)
	if len(kept) == 0 {
		e.remove(string(kv.Key))
		e.remove(s.keys.quarantine(use.VNI))
		return nil
	}
	use.Holders = kept
	e.put(string(kv.Key), vniRecord{VNIUse: *use, Freed: use.Freed})
	return nil
}

func decodeVNI(m meta, kv *keyValue) (*model.VNIUse, error) {
	r, err := decode[vniRecord](kv)
	if err != nil {
		return nil, err
	}
	use := r.VNIUse
	if use.Freed = r.Freed; use.Quarantined && use.Freed == 0 {
		use.Freed = m.revision(kv.ModRevision)
	}
	return &use, nil
}

func without(hosts []model.UID, drop func(model.UID) bool) []model.UID {
	return slices.DeleteFunc(slices.Clone(hosts), drop)
}
