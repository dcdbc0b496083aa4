package store

import (
	"bytes"
	"context"
	"time"

	"github.com/weftnet/weft/model"
)

// CreateJoinToken keeps a join token (its hash).
func (s *Store) CreateJoinToken(ctx context.Context, t *model.JoinToken) error {
	key := s.keys.joinToken(t.ID)
	_, err := s.write(ctx, func(ctx context.Context) (*edit, error) {
		v, err := s.look(ctx, get(key))
		if err != nil {
			return nil, err
		}
		if v.one(0) != nil {
			return nil, taken("join token " + t.ID)
		}
		e := v.edit("create", "join token for host "+t.Host)
		e.absent(key)
		e.put(key, t)
		return e, nil
	})
	return err
}

// GetJoinToken finds a join token by its id.
func (s *Store) GetJoinToken(ctx context.Context, id string) (*model.JoinToken, error) {
	v, err := s.look(ctx, get(s.keys.joinToken(id)))
	if err != nil {
		return nil, err
	}
	if v.one(0) == nil {
		return nil, noJoinToken()
	}
	return decode[model.JoinToken](v.one(0))
}

// UseJoinToken marks a token used by a host. It works once; for the same host and CSR again, it does nothing. Expiry is the
// caller's to check. JoinHost does this and makes the host in one transaction.
func (s *Store) UseJoinToken(ctx context.Context, id string, host model.UID, csrHash []byte) error {
	key := s.keys.joinToken(id)
	_, err := s.write(ctx, func(ctx context.Context) (*edit, error) {
		v, err := s.look(ctx, get(key))
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
		if t.Used == host && bytes.Equal(t.CSRHash, csrHash) {
			return nil, nil
		}
		if t.Used != "" {
			return nil, usedJoinToken(t)
		}
		t.Used, t.CSRHash = host, csrHash
		e := v.edit("use", "join token for host "+t.Host)
		e.same(key, v.one(0))
		e.put(key, t)
		return e, nil
	})
	return err
}

// PruneJoinTokens forgets tokens that expired before a time, and returns how many.
func (s *Store) PruneJoinTokens(ctx context.Context, before time.Time) (int, error) {
	v, err := s.look(ctx, list(s.keys.in("jointoken")))
	if err != nil {
		return 0, err
	}
	var old []string
	for _, kv := range v.all(0) {
		t, err := decode[model.JoinToken](kv)
		if err != nil {
			return 0, err
		}
		if t.Expires.Before(before) {
			old = append(old, string(kv.Key))
		}
	}
	return len(old), s.removeQuietly(ctx, old)
}

// CreateAPIToken keeps an API token (its hash). The tenant that it is for must exist.
func (s *Store) CreateAPIToken(ctx context.Context, t *model.APIToken) error {
	key := s.keys.apiToken(t.Name)
	_, err := s.write(ctx, func(ctx context.Context) (*edit, error) {
		v, err := s.look(ctx, get(key), get(s.keys.tenant(t.Tenant)), get(s.keys.idxUID("apitoken", model.UID(t.ID))))
		if err != nil {
			return nil, err
		}
		if v.one(0) != nil || v.one(2) != nil {
			return nil, taken("API token " + t.Name)
		}
		e := v.edit("create", "API token "+t.Name)
		if t.Tenant != "" {
			if v.one(1) == nil {
				return nil, noTenant("tenant", t.Tenant)
			}
			e.present(s.keys.tenant(t.Tenant))
		}
		e.absent(key)
		e.absent(s.keys.idxUID("apitoken", model.UID(t.ID)))
		e.put(key, t)
		e.put(s.keys.idxUID("apitoken", model.UID(t.ID)), ref{UID: model.UID(t.ID), Name: t.Name})
		return e, nil
	})
	return err
}

// APITokenByID finds an API token by its id.
func (s *Store) APITokenByID(ctx context.Context, id string) (*model.APIToken, error) {
	v, err := s.look(ctx, get(s.keys.idxUID("apitoken", model.UID(id))))
	if err != nil {
		return nil, err
	}
	none := model.Errorf(model.NotFound, "token", "make one with `weft token create`", "there is no such API token")
	if v.one(0) == nil {
		return nil, none
	}
	r, err := decode[ref](v.one(0))
	if err != nil {
		return nil, err
	}
	if v, err = s.look(ctx, get(s.keys.apiToken(r.Name))); err != nil {
		return nil, err
	}
	if v.one(0) == nil {
		return nil, none
	}
	t, err := decode[model.APIToken](v.one(0))
	if err != nil {
		return nil, err
	}
	if t.ID != id {
		return nil, none
	}
	return t, nil
}

// DeleteAPIToken ends an API token.
func (s *Store) DeleteAPIToken(ctx context.Context, name string) (model.Revision, error) {
	key := s.keys.apiToken(name)
	return s.write(ctx, func(ctx context.Context) (*edit, error) {
		v, err := s.look(ctx, get(key))
		if err != nil {
			return nil, err
		}
		if v.one(0) == nil {
			return nil, missing("name", "API token "+name, "weft token list")
		}
		t, err := decode[model.APIToken](v.one(0))
		if err != nil {
			return nil, err
		}
		e := v.edit("delete", "API token "+name)
		e.same(key, v.one(0))
		e.remove(key)
		e.remove(s.keys.idxUID("apitoken", model.UID(t.ID)))
		return e, nil
	})
}

func noJoinToken() error {
	return model.Errorf(model.NotFound, "token", "make one with `weft host token create NAME`", "there is no such join token: it is of another deployment, expired, or its host was removed")
}

func usedJoinToken(t *model.JoinToken) error {
	return model.Errorf(model.Denied, "token", "make a new one with `weft host token create "+t.Host+"`", "the join token was used already")
}
