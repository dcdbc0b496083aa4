package store

import (
	"context"

	"github.com/weftnet/weft/model"
)

// movedBy is what the audit trail calls the transaction that brought a move into a phase.
var movedBy = map[model.MovePhase]string{
	model.MovePreparing: "prepare", model.MovePrepared: "prepare", model.MoveDraining: "commit",
	model.MoveDone: "drained", model.MoveAborted: "abort",
}

// PutMove is PutBinding that writes the port's move in the same transaction, if the move's record is still the one of m.Revision (0: there is
// none yet). m has the new revision afterwards, and its epoch if it had none: a move that begins has that of this binding. The binding must
// be another than the one that is there.
func (s *Store) PutMove(ctx context.Context, b model.Binding, expected model.Epoch, m *model.Move) (model.Binding, error) {
	m.Port = b.Port
	b, err := s.putBinding(ctx, b, expected, m)
	if err == nil {
		m.Revision = model.Revision(b.Epoch)
		if m.Epoch == 0 {
			m.Epoch = b.Epoch
		}
	}
	return b, err
}

// UpdateMove writes what is new of a move that changes no binding, if its record is still the one of m.Revision. The binding keeps its epoch.
func (s *Store) UpdateMove(ctx context.Context, m *model.Move) error {
	rev, err := s.write(ctx, func(ctx context.Context) (*edit, error) {
		v, err := s.look(ctx, get(s.keys.move(m.Port)), get(s.keys.idxUID("port", m.Port)))
		if err != nil {
			return nil, err
		}
		if v.one(1) == nil {
			return nil, missing("port", "port with uid "+string(m.Port), "weft port list")
		}
		port, err := decode[ref](v.one(1))
		if err != nil {
			return nil, err
		}
		e := v.edit("move", "port "+port.String())
		return e, s.withMove(v, e, v.one(0), m, port)
	})
	if err == nil {
		m.Revision = rev
	}
	return err
}

// withMove has an edit write a move over the record that it was based on.
func (s *Store) withMove(v *view, e *edit, kv *keyValue, m *model.Move, port *ref) error {
	var is model.Revision
	if kv != nil {
		is = v.meta.revision(kv.ModRevision)
	}
	if is != m.Revision {
		return model.Errorf(model.Stale, "move", "look where it is now with `weft port show`, and try again",
			"the move of port %s was written at revision %d, not %d", port, is, m.Revision)
	}
	e.same(s.keys.move(m.Port), kv)
	e.put(s.keys.move(m.Port), m)
	return nil
}

// decodeMove fills in what the record of a move that begins cannot have: the epoch of its own transaction.
func decodeMove(at meta, kv *keyValue) (*model.Move, error) {
	m, err := decode[model.Move](kv)
	if err != nil {
		return nil, err
	}
	if m.Revision = at.revision(kv.ModRevision); m.Epoch == 0 {
		m.Epoch = model.Epoch(m.Revision)
	}
	return m, nil
}
