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
