package store

import (
	"context"

	"github.com/weftnet/weft/model"
)

// Settle adds what a host counted for a port until its part in it ended, once for each epoch. The host must have been told of the port's
// network at some time, and its part must have ended. A port that is gone keeps nothing.
func (s *Store) Settle(ctx context.Context, port, host model.UID, epoch model.Epoch, counts model.PortCounts) error {
	_, err := s.write(ctx, func(ctx context.Context) (*edit, error) {
		v, err := s.look(ctx, get(s.keys.idxUID("port", port)), get(s.keys.binding(port)), get(s.keys.counters(port)))
		if err != nil || v.one(0) == nil || v.one(1) == nil {
			return nil, err
		}
		who, err := decode[ref](v.one(0))
		if err != nil {
			return nil, err
		}
		if err := s.maySettle(ctx, v, who, host, epoch); err != nil {
			return nil, err
		}
		c := &model.Counters{Port: port}
		if kv := v.one(2); kv != nil {
			if c, err = decode[model.Counters](kv); err != nil {
				return nil, err
			}
		}
		if !c.Settle(host, epoch, counts) {
			return nil, nil
		}
		e := v.edit("", "")
		e.quiet = true // it may be repeated, and says nothing of who did what
		e.present(s.keys.idxUID("port", port))
		e.same(s.keys.counters(port), v.one(2))
		e.put(s.keys.counters(port), c)
		return e, nil
	})
	return err
}

// maySettle refuses a host that cannot have counted that.
func (s *Store) maySettle(ctx context.Context, v *view, port *ref, host model.UID, epoch model.Epoch) error {
	b, err := decode[model.Binding](v.one(1))
	if err != nil {
		return err
	}
	now := model.Epoch(v.meta.revision(v.one(1).ModRevision))
	switch {
	case epoch <= 0 || epoch > now:
		return model.Errorf(model.Invalid, "epoch", "take the plan first", "epoch %d of port %s does not exist; the current one is %d", epoch, port, now)
	case b.Active == host && epoch == now:
		return model.Errorf(model.Conflict, "epoch", "settle when the port has left the host", "port %s is on the host at epoch %d", port, epoch)
	}
	held, err := s.look(ctx, get(s.keys.holder(port.Network, host)))
	if err == nil && held.one(0) == nil {
		err = model.Errorf(model.Denied, "port_uid", "settle what the host had", "the host never had port %s", port)
	}
	return err
}
