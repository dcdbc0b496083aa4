package store

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weftnet/weft/model"
)

// PutBinding changes where a port is, if the binding's epoch is the expected one (0: there is none yet). The port and the
// hosts that it newly names must exist; those become holders of the network's VNI. What it returns has the new epoch, and
// the network filled in. A binding that says what is there already is not written, and keeps its epoch.
func (s *Store) PutBinding(ctx context.Context, b model.Binding, expected model.Epoch) (model.Binding, error) {
	return s.putBinding(ctx, b, expected, nil)
}

func (s *Store) putBinding(ctx context.Context, b model.Binding, expected model.Epoch, m *model.Move) (model.Binding, error) {
	var current *model.Binding
	rev, err := s.write(ctx, func(ctx context.Context) (*edit, error) {
		hosts := map[model.UID]int{}
		gets := []clientv3.Op{get(s.keys.binding(b.Port)), get(s.keys.idxUID("port", b.Port)), get(s.keys.move(b.Port))}
		for host := range b.Hosts() {
			hosts[host] = len(gets)
			gets = append(gets, get(s.keys.idxUID("host", host)))
		}
		v, err := s.look(ctx, gets...)
		if err != nil {
			return nil, err
		}
		if v.one(1) == nil {
			return nil, missing("port", "port with uid "+string(b.Port), "weft port list")
		}
		port, err := decode[ref](v.one(1))
		if err != nil {
			return nil, err
		}
		b.Network = port.Network
		if current, err = s.bindingAt(v, 0, b.Port, expected, port); err != nil {
			return nil, err
		}
		e := v.edit("bind", "port "+port.String())
		e.same(s.keys.binding(b.Port), v.one(0))
		e.present(s.keys.idxUID("port", b.Port))
		for host, i := range hosts {
			if v.one(i) == nil {
				return nil, missing("host", "host with uid "+string(host), "weft host list")
			}
			if err := s.receives(e, v.one(i), host, current, &b); err != nil {
				return nil, err
			}
		}
		if b.Active == "" && b.Incoming == "" && b.Draining == "" {
			e.what = "unbind"
		}
		if v.one(0) != nil && unchanged(v.one(0), b) {
			return nil, nil
		}
		e.put(s.keys.binding(b.Port), b)
		if m != nil {
			if err := s.withMove(v, e, v.one(2), m, port); err != nil {
				return nil, err
			}
			if e.what != "unbind" {
				e.what = movedBy[m.Phase]
			}
		}
		return e, s.hold(ctx, e, current, &b)
	})
	if err != nil {
		return model.Binding{}, err
	}
	if rev == 0 {
		return *current, nil
	}
	b.Epoch = model.Epoch(rev)
	return b, nil
}

// receives refuses to give a port to a host that gets none, and has the edit see to it that it is still so when it is done.
func (s *Store) receives(e *edit, kv *keyValue, host model.UID, was, b *model.Binding) error {
	key := s.keys.idxUID("host", host)
	had := was.Active == host || was.Incoming == host
	if had || b.Active != host && b.Incoming != host {
		e.present(key)
		return nil
	}
	e.same(key, kv)
	h, err := decode[ref](kv)
	if err != nil {
		return err
	}
	if no := h.Duty.Receives(h.Name); no != nil {
		return no
	}
	return nil
}

// bindingAt reads the binding that a view has, and refuses one with another epoch.
func (s *Store) bindingAt(v *view, i int, port model.UID, expected model.Epoch, who *ref) (*model.Binding, error) {
	current := &model.Binding{Port: port}
	if kv := v.one(i); kv != nil {
		var err error
		if current, err = decode[model.Binding](kv); err != nil {
			return nil, err
		}
		current.Epoch = model.Epoch(v.meta.revision(kv.ModRevision))
	}
	if current.Epoch != expected {
		return nil, model.Errorf(model.Stale, "epoch", "look where it is now with `weft port show`, and try again",
			"the binding of port %s is at epoch %d, not %d", who, current.Epoch, expected)
	}
	return current, nil
}

// hold keeps the indices of a binding: ports on a host, and holders of a network. A holder stays one until the network
// goes, for the host may be cut off and still hold it.
func (s *Store) hold(ctx context.Context, e *edit, old, b *model.Binding) error {
	was, is := map[model.UID]bool{}, map[model.UID]bool{}
	for host := range old.Hosts() {
		was[host] = true
	}
	var hosts []model.UID
	var gets []clientv3.Op
	for host := range b.Hosts() {
		is[host] = true
		if !was[host] {
			e.put(s.keys.idxOn(host, b.Port), ref{UID: b.Port, Network: b.Network})
			hosts, gets = append(hosts, host), append(gets, get(s.keys.holder(b.Network, host)))
		}
	}
	for host := range was {
		if !is[host] {
			e.remove(s.keys.idxOn(host, b.Port))
		}
	}
	if len(gets) == 0 {
		return nil
	}
	// A holder that is there cannot go before this port does, so seeing it is enough.
	v, err := s.look(ctx, gets...)
	if err != nil {
		return err
	}
	for i, host := range hosts {
		if v.one(i) == nil {
			e.put(s.keys.holder(b.Network, host), ref{UID: host})
		}
	}
	return nil
}
