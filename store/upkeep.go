package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// reliefPause is the least time between two looks at how full the store is: making room costs.
const reliefPause = 30 * time.Second

// pruneEvery is how often the audit trail is pruned: often, so that what a burst of writes leaves never takes long.
const pruneEvery = 30 * time.Second

// kick asks the upkeep to look how full the store is.
func (s *Store) kick() {
	select {
	case s.kicked <- struct{}{}:
	default: // it was asked already
	}
}

// upkeep compacts history, prunes the audit trail, sweeps quarantines, and makes room when the quota is near. Any number of
// servers do this side by side.
func (s *Store) upkeep() {
	every := s.cfg.CompactEvery
	if every < 0 {
		every = defaultCompactEvery
	}
	pause := min(reliefPause, every)
	tick := time.NewTicker(every)
	defer tick.Stop()
	prune := time.NewTicker(min(pruneEvery, every))
	defer prune.Stop()
	relief := time.NewTimer(0) // the quota may have been reached before this start
	defer relief.Stop()
	var last int64 // etcd's revision one period ago
	var relieved time.Time
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.kicked:
			relief.Reset(max(0, pause-time.Since(relieved)))
		case <-relief.C:
			if err := s.relieve(s.ctx); err != nil && s.ctx.Err() == nil {
				s.cfg.Log.Error("the store is full, and no room could be made", "err", err)
			}
			relieved = time.Now()
		case <-prune.C:
			if err := s.pruneAudit(s.ctx, auditLimit); err != nil && s.ctx.Err() == nil {
				s.cfg.Log.Warn("the audit trail could not be pruned, and is tried again", "err", err)
			}
		case <-tick.C:
			rev, err := s.tidy(s.ctx, last)
			if err != nil && s.ctx.Err() == nil {
				s.cfg.Log.Warn("the store's upkeep failed, and is tried again", "err", err)
			}
			last = rev
			s.kick()
		}
	}
}

// tidy is one round of the upkeep. It returns the revision to compact at in the next.
func (s *Store) tidy(ctx context.Context, last int64) (int64, error) {
	v, err := s.look(ctx)
	if err != nil {
		return last, err
	}
	return v.rev, errors.Join(s.sweep(ctx), s.compact(ctx, last))
}

// compact forgets history before a revision, but not what a Load or Backup is reading.
func (s *Store) compact(ctx context.Context, rev int64, opts ...clientv3.CompactOption) error {
	if s.cfg.CompactEvery < 0 {
		return nil
	}
	s.mu.Lock()
	for pinned := range s.pins {
		rev = min(rev, pinned)
	}
	s.mu.Unlock()
	if rev <= 0 {
		return nil
	}
	// Not bounded by the request timeout: a physical compaction takes as long as there is history.
	_, err := s.cli.Compact(ctx, rev, opts...)
	if errors.Is(err, rpctypes.ErrCompacted) { // another server was faster
		return nil
	}
	return err
}

// pin keeps a revision from being compacted by this server until it is released.
func (s *Store) pin(rev int64) (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pins[rev]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.pins[rev]--; s.pins[rev] == 0 {
			delete(s.pins, rev)
		}
	}
}

// relieve makes room. When what is in use comes near the quota, history is forgotten, and if that is not enough nothing
// more is created (see commit), so that what frees room still works. When etcd has raised its quota alarm, the free space
// inside its file is given back too, and the alarm is taken off once there is room; writes wait meanwhile, but none is
// accepted then anyway.
func (s *Store) relieve(ctx context.Context) error {
	s.written.Store(0)
	alarms, err := s.cli.AlarmList(ctx)
	if err != nil {
		return err
	}
	var full []*etcdserverpb.AlarmMember
	for _, a := range alarms.Alarms {
		if a.Alarm == etcdserverpb.AlarmType_NOSPACE {
			full = append(full, a)
		}
	}
	near, err := s.nearFull(ctx)
	if err != nil {
		return err
	}
	if len(full) > 0 || near {
		if !s.full.Load() {
			s.cfg.Log.Warn("the store comes near its quota, and history is removed to make room")
		}
		v, err := s.peek(ctx)
		if err != nil {
			return err
		}
		if err := s.compact(ctx, v.rev, clientv3.WithCompactPhysical()); err != nil {
			return fmt.Errorf("compact: %w", err)
		}
		if near, err = s.nearFull(ctx); err != nil {
			return err
		}
	}
	s.full.Store(near)
	if len(full) == 0 {
		return nil
	}
	for _, ep := range s.cli.Endpoints() {
		if err := s.shrink(ctx, ep); err != nil {
			return err
		}
	}
	for _, a := range full {
		if _, err := s.cli.AlarmDisarm(ctx, (*clientv3.AlarmMember)(a)); err != nil {
			return fmt.Errorf("take the quota alarm off: %w", err)
		}
	}
	s.cfg.Log.Info("the store takes writes again")
	return nil
}

// nearFull says whether a member uses more than seven eighths of its quota, history included. An etcd that does not tell
// its quota is never near it.
func (s *Store) nearFull(ctx context.Context) (bool, error) {
	for _, ep := range s.cli.Endpoints() {
		st, err := s.status(ctx, ep)
		if err != nil {
			return false, err
		}
		if quota := s.quotaOf(st); quota > 0 && st.DbSizeInUse > quota/8*7 {
			return true, nil
		}
	}
	return false, nil
}

// quotaOf is a member's quota; 0 is unknown: etcd before 3.6 does not tell.
func (s *Store) quotaOf(st *clientv3.StatusResponse) int64 {
	if s.etcd != nil {
		return s.cfg.QuotaOctets
	}
	return st.DbSizeQuota
}

// shrink gives a member's free space back, and tells an error if that was not enough to go on.
func (s *Store) shrink(ctx context.Context, endpoint string) error {
	before, err := s.status(ctx, endpoint)
	if err != nil {
		return err
	}
	if _, err := s.cli.Defragment(ctx, endpoint); err != nil {
		return fmt.Errorf("defragment: %w", err)
	}
	after, err := s.status(ctx, endpoint)
	if err != nil {
		return err
	}
	quota := s.quotaOf(after)
	limit := quota - quota/20 // above the limit for creating, below the quota
	if quota == 0 {
		limit = before.DbSize - before.DbSize/10
	}
	if after.DbSize > limit {
		return fmt.Errorf("%d octets are in use after the removal of history, and going on takes no more than %d: raise the quota", after.DbSize, limit)
	}
	return nil
}
