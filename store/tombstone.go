package store

import (
	"context"
	"slices"
	"time"

	"github.com/weftnet/weft/model"
)

// PruneTombstones forgets deletions before a time, and returns how many. The caller knows that no host needs them.
func (s *Store) PruneTombstones(ctx context.Context, before time.Time) (int, error) {
	v, err := s.look(ctx, list(s.keys.in("tombstone")))
	if err != nil {
		return 0, err
	}
	var old []string
	for _, kv := range v.all(0) {
		t, err := decode[model.Tombstone](kv)
		if err != nil {
			return 0, err
		}
		if t.Deleted.Before(before) {
			old = append(old, string(kv.Key))
		}
	}
	return len(old), s.removeQuietly(ctx, old)
}

// removeQuietly removes keys without an audit record, in transactions that any etcd takes. A store that reached its quota
// takes these too, for they put nothing.
func (s *Store) removeQuietly(ctx context.Context, keys []string) error {
	for batch := range slices.Chunk(keys, pageOps) {
		_, err := s.write(ctx, func(ctx context.Context) (*edit, error) {
			v, err := s.look(ctx)
			if err != nil {
				return nil, err
			}
			e := v.edit("", "")
			e.quiet = true
			for _, key := range batch {
				e.remove(key)
			}
			return e, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
