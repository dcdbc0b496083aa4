package store

import (
	"context"
	"errors"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weftnet/weft/model"
)

// loaded are the folders that make a World.
var loaded = []string{
	"tenant", "network", "port", "binding", "host", "facts", "vtep", "pool", "grouppool", "vni", "tombstone", "apitoken", "move", "counters",
}

// Load reads everything at one revision, and gives it that of the last write to the store: what other users of the cluster wrote after it is
// not the store's, no watch would ever bring it, and a host that has applied all there is would be waited for.
func (s *Store) Load(ctx context.Context) (*model.World, error) {
	for {
		w, err := s.load(ctx)
		// The history was compacted under the reader, by another server: begin again at a newer revision.
		if !errors.Is(err, rpctypes.ErrCompacted) {
			return w, err
		}
	}
}

func (s *Store) load(ctx context.Context) (*model.World, error) {
	v, err := s.look(ctx, get(s.keys.head()))
	if err != nil {
		return nil, err
	}
	defer s.pin(v.rev)()
	w := model.NewWorld(v.meta.ID)
	for _, folder := range loaded {
		err := s.scan(ctx, s.keys.in(folder), v.rev, func(kv *keyValue) error {
			c, ok, err := s.change(v.meta, kv)
			if err == nil && ok {
				c.Revision = v.meta.revision(kv.ModRevision)
				w.Apply(c)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	w.Revision = v.head()
	return w, nil
}

// scan reads all below a prefix, as it was at a revision, in the order of the keys.
func (s *Store) scan(ctx context.Context, prefix string, rev int64, each func(*keyValue) error) error {
	from, end := prefix, clientv3.GetPrefixRangeEnd(prefix)
	for {
		resp, err := s.page(ctx, from, clientv3.WithRange(end), clientv3.WithRev(rev), clientv3.WithLimit(pageKeys))
		if err != nil {
			return err
		}
		for _, kv := range resp.Kvs {
			if err := each(kv); err != nil {
				return err
			}
		}
		if !resp.More || len(resp.Kvs) == 0 {
			return nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}

func (s *Store) page(ctx context.Context, from string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	began := time.Now()
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	resp, err := s.cli.Get(ctx, from, opts...)
	return resp, s.failure(err, began)
}

// change decodes a record of a World; not ok is a record that is none.
func (s *Store) change(m meta, kv *keyValue) (c model.Change, ok bool, err error) {
	rest, below := strings.CutPrefix(string(kv.Key), s.keys.root())
	if !below {
		return c, false, nil
	}
	folder, _, _ := strings.Cut(rest, "/")
	rev := m.revision(kv.ModRevision)
	ok = true
	switch folder {
	case "tenant":
		if c.Tenant, err = decode[model.Tenant](kv); err == nil {
			c.Tenant.Revision = rev
		}
	case "network":
		if c.Network, err = decode[model.Network](kv); err == nil {
			c.Network.Revision = rev
		}
	case "port":
		if c.Port, err = decode[model.Port](kv); err == nil {
			c.Port.Revision = rev
		}
	case "binding":
		if c.Binding, err = decode[model.Binding](kv); err == nil {
			c.Binding.Epoch = model.Epoch(rev)
		}
	case "host":
		if c.Host, err = decode[model.Host](kv); err == nil {
			c.Host.Revision = rev
		}
	case "facts":
		c.Facts, err = decode[model.HostFacts](kv)
	case "vtep":
		if c.VTEP, err = decode[model.VTEP](kv); err == nil {
			c.VTEP.Revision = rev
		}
	case "pool":
		if c.Pool, err = decode[model.VNIPool](kv); err == nil {
			c.Pool.Revision = rev
		}
	case "grouppool":
		if c.GroupPool, err = decode[model.GroupPool](kv); err == nil {
			c.GroupPool.Revision = rev
		}
	case "vni":
		c.VNI, err = decodeVNI(m, kv)
	case "tombstone":
		if c.Tombstone, err = decode[model.Tombstone](kv); err == nil {
			c.Tombstone.Revision = rev
		}
	case "apitoken":
		c.APIToken, err = decode[model.APIToken](kv)
	case "move":
		c.Move, err = decodeMove(m, kv)
	case "counters":
		if c.Counters, err = decode[model.Counters](kv); err == nil {
			c.Counters.Revision = rev
		}
	default:
		ok = false
	}
	return c, ok && err == nil, err
}
