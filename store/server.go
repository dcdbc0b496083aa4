package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// ServerRecord is a server that lives.
type ServerRecord struct {
	// ID of this life of the server: another one at each start.
	ID string `json:"id"`
	// Address at which other servers reach it, "host:port".
	Address string    `json:"address"`
	Started time.Time `json:"started"`
}

const (
	// presenceTTL is how long a server that says nothing counts as alive. etcd lets leases live longer while it has no leader.
	presenceTTL = 6 * time.Second
	// farewell bounds the end of a presence.
	farewell = time.Second
)

// Present keeps the server's record under a lease until ctx ends, and takes it away then. It says that the server lives, and owns
// nothing: when the lease is lost, as after a long pause, the record is written again.
func (s *Store) Present(ctx context.Context, rec ServerRecord) {
	for failing := false; ctx.Err() == nil; {
		began := time.Now()
		err := s.present(ctx, rec)
		if err != nil && ctx.Err() == nil && !failing {
			s.cfg.Log.Warn("this server cannot tell the others that it lives", "err", s.failure(err, began))
		}
		failing = err != nil
		rest(ctx, watchRetryFirst*10)
	}
}

// present is one lease's life.
func (s *Store) present(ctx context.Context, rec ServerRecord) error {
	once, cancel := s.bounded(ctx)
	defer cancel()
	lease, err := s.cli.Grant(once, int64(presenceTTL/time.Second))
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
		defer cancel()
		_, _ = s.cli.Revoke(ctx, lease.ID) // or it ends by itself
	}()
	if _, err := s.cli.Put(once, s.keys.servers()+rec.ID, encode(rec), clientv3.WithLease(lease.ID)); err != nil {
		return err
	}
	alive, err := s.cli.KeepAlive(ctx, lease.ID)
	if err != nil {
		return err
	}
	for range alive { // until the lease is lost or ctx ends
	}
	return nil
}

// Servers yields the servers that live, sorted by id, now and whenever that changes; a list that nobody has taken is replaced by
// the newer one. What was last known stands while etcd is away. The channel is closed when ctx ends.
func (s *Store) Servers(ctx context.Context) <-chan []ServerRecord {
	out := make(chan []ServerRecord, 1)
	s.wg.Go(func() {
		defer close(out)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(s.ctx, cancel)()
		for ctx.Err() == nil {
			if err := s.followServers(ctx, out); err != nil && ctx.Err() == nil {
				s.cfg.Log.Debug("the list of servers is not known, trying again", "err", err)
			}
			rest(ctx, watchRetryFirst*4)
		}
	})
	return out
}

// followServers lists, and lists again at each change, until the watch breaks.
func (s *Store) followServers(ctx context.Context, out chan []ServerRecord) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for {
		v, err := s.peek(ctx, list(s.keys.servers()))
		if err != nil {
			return err
		}
		var all []ServerRecord
		for _, kv := range v.all(0) {
			r, err := decode[ServerRecord](kv)
			if err != nil {
				return err
			}
			all = append(all, *r)
		}
		slices.SortFunc(all, func(x, y ServerRecord) int { return strings.Compare(x.ID, y.ID) })
		select {
		case <-out:
		default:
		}
		out <- all
		once, done := context.WithCancel(ctx)
		resp, open := <-s.cli.Watch(ownStream(once), s.keys.servers(), clientv3.WithPrefix(), clientv3.WithRev(v.rev+1))
		done()
		if err := resp.Err(); err != nil || !open {
			return fmt.Errorf("watch the servers: %w", err)
		}
	}
}

// CA is the fingerprint of the deployment's CA, or "" as long as no server has said which it is.
func (s *Store) CA(ctx context.Context) (string, error) {
	v, err := s.peek(ctx, get(s.keys.ca()))
	if err != nil || v.one(0) == nil {
		return "", err
	}
	return string(v.one(0).Value), nil
}

// ClaimCA says which CA the deployment has, if that is was ("" is none yet) still, and returns what it is afterwards.
func (s *Store) ClaimCA(ctx context.Context, was, is string) (string, error) {
	v, err := s.peek(ctx, get(s.keys.ca()))
	if err != nil {
		return "", err
	}
	if kv := v.one(0); kv != nil && string(kv.Value) != was || kv == nil && was != "" {
		return s.CA(ctx)
	}
	began := time.Now()
	once, cancel := s.bounded(ctx)
	defer cancel()
	e := v.edit("", "")
	e.same(s.keys.ca(), v.one(0))
	if _, err := s.cli.Txn(once).If(e.cmps...).Then(clientv3.OpPut(s.keys.ca(), is)).Commit(); err != nil {
		return "", s.failure(err, began)
	}
	return s.CA(ctx)
}
