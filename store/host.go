package store

import (
	"bytes"
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weftnet/weft/model"
)

// CreateHost makes a host.
func (s *Store) CreateHost(ctx context.Context, h *model.Host) error {
	rev, err := s.write(ctx, func(ctx context.Context) (*edit, error) {
		v, err := s.look(ctx, get(s.keys.host(h.Name)))
		if err != nil {
			return nil, err
		}
		if v.one(0) != nil {
			return nil, taken("host " + h.Name)
		}
		e := v.edit("create", "host "+h.Name)
		s.addHost(e, h)
		return e, nil
	})
	if err == nil {
		h.Revision = rev
	}
	return err
}

func (s *Store) addHost(e *edit, h *model.Host) {
	e.absent(s.keys.host(h.Name))
	e.put(s.keys.host(h.Name), h)
	e.put(s.keys.idxUID("host", h.UID), hostRef(h))
}

// UpdateHost writes the spec if h.Revision is the current one. The duty stays what it is.
func (s *Store) UpdateHost(ctx context.Context, h *model.Host) error {
	return updateKeeping(ctx, s, s.keys.host(h.Name), "host "+h.Name, "weft host list", &h.Meta, h, func(kv *keyValue) error {
		old, err := decode[model.Host](kv)
		if err == nil {
			h.Duty, h.DutyMessage = old.Duty, old.DutyMessage
		}
		return err
	})
}

// duties is what the audit trail calls a change to a duty.
var duties = map[model.HostDuty]string{model.DutyActive: "return", model.DutyDrained: "drain", model.DutyFailed: "fail"}

// PutDuty says whether a host is given ports, and why not. A binding that gives it one is refused from then on, whichever server decided it
// before. A duty that it has already keeps its message.
func (s *Store) PutDuty(ctx context.Context, name string, duty model.HostDuty, message string) (*model.Host, error) {
	var h *model.Host
	rev, err := s.write(ctx, func(ctx context.Context) (*edit, error) {
		v, err := s.look(ctx, get(s.keys.host(name)))
		if err != nil {
			return nil, err
		}
		kv := v.one(0)
		if kv == nil {
			return nil, missing("name", "host "+name, "weft host list")
		}
		if h, err = decode[model.Host](kv); err != nil {
			return nil, err
		}
		h.Revision = v.meta.revision(kv.ModRevision)
		switch {
		case h.Duty == duty:
			return nil, nil
		case h.Duty == model.DutyFailed && duty == model.DutyDrained:
			return nil, model.Errorf(model.Conflict, "name", "take it back into service first with `weft host return "+name+"`",
				"host %s was declared dead, and has no ports to be drained of", name)
		}
		h.Duty, h.DutyMessage = duty, message
		e := v.edit(duties[duty], "host "+name)
		e.same(s.keys.host(name), kv)
		e.put(s.keys.host(name), h)
		e.put(s.keys.idxUID("host", h.UID), hostRef(h))
		return e, nil
	})
	if err != nil {
		return nil, err
	}
	if rev != 0 {
		h.Revision = rev
	}
	return h, nil
}

// FailHost declares a host dead, and then unbinds its ports, whose uids it returns. An error midway leaves the host dead with the ports that are
// still bound; doing it again goes on.
func (s *Store) FailHost(ctx context.Context, name, message string, now time.Time) (*model.Host, []model.UID, error) {
	h, err := s.PutDuty(ctx, name, model.DutyFailed, message)
	if err != nil {
		return nil, nil, err
	}
	unbound, err := s.unbindAll(ctx, h, unbindDead, "host "+name+" was declared dead", now)
	return h, dedupe(unbound), err
}

// UnbindFailed goes on where a FailHost ended midway: it unbinds what a host that was declared dead still has. One that was taken back into
// service since, or removed, is refused and keeps its ports.
func (s *Store) UnbindFailed(ctx context.Context, h *model.Host, now time.Time) ([]model.UID, error) {
	unbound, err := s.unbindAll(ctx, h, unbindDead, "host "+h.Name+" was declared dead", now)
	return dedupe(unbound), err
}

func hostRef(h *model.Host) ref { return ref{UID: h.UID, Name: h.Name, Duty: h.Duty} }

// JoinHost makes the host and marks the join token used, in one transaction. The token must be for the host's name, unused
// and not expired; used with the same CSR, it gives the host that it made then, so that an answer that got lost can be
// asked for again.
func (s *Store) JoinHost(ctx context.Context, h *model.Host, tokenID string, csrHash []byte, now time.Time) (*model.Host, error) {
	var joined *model.Host
	rev, err := s.write(ctx, func(ctx context.Context) (*edit, error) {
		joined = nil
		v, err := s.look(ctx, get(s.keys.joinToken(tokenID)), get(s.keys.host(h.Name)))
		if err != nil {
			return nil, err
		}
		if v.one(0) == nil {
			return nil, noJoinToken()
		}
		t, err := decode[model.JoinToken](v.one(0))
		if err != nil {
			return nil, err
		}
		if t.Host != h.Name {
			return nil, model.Errorf(model.Denied, "token", "make one with `weft host token create "+h.Name+"`", "the join token is for host %s", t.Host)
		}
		if t.Used != "" {
			return nil, s.joinedBefore(v, t, csrHash, &joined)
		}
		if !now.Before(t.Expires) {
			return nil, model.Errorf(model.Denied, "token", "make a new one with `weft host token create "+h.Name+"`", "the join token expired at %s", t.Expires.UTC().Format(time.RFC3339))
		}
		if v.one(1) != nil {
			return nil, model.Errorf(model.Taken, "name", "remove it first with `weft host remove "+h.Name+"`, or join under another name", "there is a host %s already", h.Name)
		}
		e := v.edit("join", "host "+h.Name)
		s.addHost(e, h)
		e.same(s.keys.joinToken(tokenID), v.one(0))
		t.Used, t.CSRHash = h.UID, csrHash
		e.put(s.keys.joinToken(tokenID), t)
		return e, nil
	})
	if err != nil || joined != nil {
		return joined, err
	}
	h.Revision = rev
	return h, nil
}

// joinedBefore answers a token that was used: with the host, if it is the same CSR and the host is still that one.
func (s *Store) joinedBefore(v *view, t *model.JoinToken, csrHash []byte, joined **model.Host) error {
	kv := v.one(1)
	if !bytes.Equal(t.CSRHash, csrHash) || kv == nil {
		return usedJoinToken(t)
	}
	old, err := decode[model.Host](kv)
	if err != nil {
		return err
	}
	if old.UID != t.Used {
		return usedJoinToken(t)
	}
	old.Revision = v.meta.revision(kv.ModRevision)
	*joined = old
	return nil
}

// unbindBatch is how many ports one transaction unbinds: up to five operations each, within etcd's default of 128.
const unbindBatch = 24

// DeleteHost removes a host, its facts and its join tokens, takes it out of every quarantine, and leaves a tombstone. It is
// refused while ports are bound to it, unless forced: then those are unbound first, which raises their epochs and ends their moves, and their
// uids are returned. An error midway leaves the host with the ports that are still bound; doing it again goes on.
func (s *Store) DeleteHost(ctx context.Context, name string, force bool, now time.Time) (model.Revision, []model.UID, error) {
	var unbound []model.UID
	var uid model.UID
	key := s.keys.host(name)
	rev, err := s.write(ctx, func(ctx context.Context) (*edit, error) {
		v, err := s.look(ctx, get(key), list(s.keys.in("jointoken")))
		if err != nil {
			return nil, err
		}
		kv := v.one(0)
		if kv == nil {
			return nil, missing("host", "host "+name, "weft host list")
		}
		h, err := decode[model.Host](kv)
		if err != nil {
			return nil, err
		}
		uid = h.UID
		e := v.edit("delete", "host "+name)
		e.same(key, kv)
		e.empty(s.keys.in("idx/on", string(uid)))
		e.remove(key)
		e.remove(s.keys.idxUID("host", uid))
		e.remove(s.keys.facts(uid))
		e.put(s.keys.tombstone(uid), model.Tombstone{Kind: model.KindHost, UID: uid, Name: name, Deleted: now.UTC()})
		for _, kv := range v.all(1) {
			t, err := decode[model.JoinToken](kv)
			if err != nil {
				return nil, err
			}
			if t.Host == name {
				e.remove(string(kv.Key))
			}
		}
		from := unbindNone
		if force {
			from = unbindAny
		}
		more, err := s.unbindAll(ctx, h, from, "host "+name+" was removed", now)
		unbound = append(unbound, more...)
		return e, err
	})
	if err != nil {
		return 0, unbound, err
	}
	// Uids are not used again, so a quarantine that still names this one is swept now or at the next upkeep.
	if err := s.sweep(ctx); err != nil {
		s.cfg.Log.Warn("a removed host is left in quarantines until the next upkeep", "host", name, "err", err)
	}
	return rev, dedupe(unbound), nil
}

// unbinding is from which hosts ports may be taken.
type unbinding int

const (
	unbindNone unbinding = iota // a host that has ports is refused
	unbindAny
	unbindDead // only while it is declared dead: each transaction demands that
)

// unbindAll takes the host out of all bindings, or refuses if it is in one. It returns the ports that are bound to nobody by that.
func (s *Store) unbindAll(ctx context.Context, h *model.Host, from unbinding, why string, now time.Time) ([]model.UID, error) {
	var unbound []model.UID
	on := s.keys.in("idx/on", string(h.UID))
	for {
		v, err := s.look(ctx, clientv3.OpGet(on, clientv3.WithPrefix(), clientv3.WithLimit(unbindBatch)))
		if err != nil {
			return unbound, err
		}
		if len(v.all(0)) == 0 {
			return unbound, nil
		}
		if from == unbindNone {
			return nil, model.Errorf(model.Conflict, "host", "move or detach them first (`weft port move`), or use --force to unbind them",
				"host %s has %d bound ports", h.Name, v.ranges[0].Count)
		}
		ports := make([]model.UID, 0, unbindBatch)
		for _, kv := range v.all(0) {
			ports = append(ports, model.UID(last(kv.Key)))
		}
		done, err := s.unbind(ctx, h, ports, from, why, now)
		if err != nil {
			return unbound, err
		}
		unbound = append(unbound, done...)
	}
}

// unbind takes the host out of some ports' bindings: a port that it has is unbound, one that was to come to it stays where it is.
func (s *Store) unbind(ctx context.Context, h *model.Host, ports []model.UID, from unbinding, why string, now time.Time) ([]model.UID, error) {
	var unbound []model.UID
	_, err := s.write(ctx, func(ctx context.Context) (*edit, error) {
		unbound = nil
		var gets []clientv3.Op
		for _, port := range ports {
			gets = append(gets, get(s.keys.binding(port)), get(s.keys.move(port)))
		}
		gets = append(gets, get(s.keys.idxUID("host", h.UID)))
		v, err := s.look(ctx, gets...)
		if err != nil {
			return nil, err
		}
		e := v.edit("unbind", fmt.Sprintf("%d ports of host %s", len(ports), h.Name))
		if from == unbindDead {
			if err := s.stillDead(e, v.one(2*len(ports)), h); err != nil {
				return nil, err
			}
		}
		for i, port := range ports {
			e.remove(s.keys.idxOn(h.UID, port))
			e.same(s.keys.binding(port), v.one(2*i))
			if v.one(2*i) == nil {
				continue
			}
			gone, err := s.unbindOne(e, v.one(2*i), v.one(2*i+1), h.UID, why, now)
			if err != nil {
				return nil, err
			}
			if gone {
				unbound = append(unbound, port)
			}
		}
		return e, nil
	})
	return unbound, err
}

// stillDead refuses a host that is not declared dead any more, and has the edit see to it that it is so when it is done: what it was given
// after its return is not to be taken from it.
func (s *Store) stillDead(e *edit, kv *keyValue, h *model.Host) error {
	if kv == nil {
		return missing("host", "host "+h.Name, "weft host list")
	}
	is, err := decode[ref](kv)
	if err != nil {
		return err
	}
	e.same(s.keys.idxUID("host", h.UID), kv)
	if is.Duty != model.DutyFailed {
		return model.Errorf(model.Conflict, "host", "look what it has with `weft host show "+h.Name+"`",
			"host %s was taken back into service meanwhile, and keeps the ports that it has", h.Name)
	}
	return nil
}

// unbindOne has an edit take the host out of one binding, with what becomes of the move. It reports whether nobody has the port then.
func (s *Store) unbindOne(e *edit, binding, move *keyValue, host model.UID, why string, now time.Time) (bool, error) {
	b, err := decode[model.Binding](binding)
	if err != nil {
		return false, err
	}
	left := b.Without(host)
	e.put(s.keys.binding(b.Port), left)
	for other := range b.Hosts() {
		if other != host && left.Active != other && left.Incoming != other && left.Draining != other {
			e.remove(s.keys.idxOn(other, b.Port))
		}
	}
	if move != nil {
		m, err := decodeMove(e.meta, move)
		if err != nil {
			return false, err
		}
		e.same(s.keys.move(b.Port), move)
		if m.Open() {
			e.put(s.keys.move(b.Port), m.Unbound(why, now.UTC()))
		}
	}
	return left.Active == "", nil
}

// PutFacts keeps what a host says of itself. Nothing is written when nothing differs.
func (s *Store) PutFacts(ctx context.Context, f model.HostFacts) error {
	_, err := s.write(ctx, func(ctx context.Context) (*edit, error) {
		v, err := s.look(ctx, get(s.keys.facts(f.Host)), get(s.keys.idxUID("host", f.Host)))
		if err != nil {
			return nil, err
		}
		if v.one(1) == nil {
			return nil, missing("host", "host with uid "+string(f.Host), "weft host list")
		}
		if kv := v.one(0); kv != nil && unchanged(kv, f) {
			return nil, nil
		}
		who, err := decode[ref](v.one(1))
		if err != nil {
			return nil, err
		}
		e := v.edit("report", "host "+who.Name)
		e.present(s.keys.idxUID("host", f.Host))
		e.same(s.keys.facts(f.Host), v.one(0))
		e.put(s.keys.facts(f.Host), f)
		return e, nil
	})
	return err
}

// hostName is a host's name for an error, or its uid.
func (s *Store) hostName(ctx context.Context, uid model.UID) string {
	v, err := s.look(ctx, get(s.keys.idxUID("host", uid)))
	if err != nil || v.one(0) == nil {
		return string(uid)
	}
	r, err := decode[ref](v.one(0))
	if err != nil {
		return string(uid)
	}
	return r.Name
}
