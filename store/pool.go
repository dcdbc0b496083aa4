package store

import (
	"context"

	"github.com/weftnet/weft/model"
)

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
