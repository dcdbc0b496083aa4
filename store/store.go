package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/weftnet/weft/model"
)

// Store is intent in etcd. Its methods are safe for concurrent use, and any number of stores (servers) may share a cluster.
type Store struct {
	cfg  Config
	keys keys
	// etcd is nil with an external cluster.
	etcd *embedded
	cli  *clientv3.Client

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // upkeep and watches
	kicked chan struct{}  // 1: somebody met the quota, or wrote much
	// written octets since the upkeep last looked how full the store is; full is what it saw.
	written atomic.Int64
	full    atomic.Bool
	closed  sync.Once

	mu   sync.Mutex
	meta meta
	// replaced is closed when meta was found to be another than the one here.
	replaced chan struct{}
	pins     map[int64]int // revisions that are being read
}

// meta is the record of the store itself.
type meta struct {
	ID string `json:"id"`
	// Base is added to etcd's revision.
	Base   int64 `json:"base"`
	Format int   `json:"format"`
	// Restoring since: a restore began and has not ended.
	Restoring time.Time `json:"restoring,omitzero"`

	mod int64 // etcd's revision of the record
}

const metaFormat = 1

func (m meta) revision(etcd int64) model.Revision { return model.Revision(m.Base + etcd) }

// Open starts the embedded etcd, or connects to the endpoints, and makes an empty store with the default VNI pool if there
// is none. A store that an interrupted restore left opens too, so that Restore can be run again: every other method then
// returns an *InterruptedError.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	cfg = cfg.withDefaults()
	s := &Store{cfg: cfg, keys: keys{cfg.Prefix}, kicked: make(chan struct{}, 1),
		replaced: make(chan struct{}), pins: map[int64]int{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	endpoints := cfg.Endpoints
	if len(endpoints) == 0 {
		etcd, err := startEmbedded(ctx, cfg)
		if err != nil {
			s.cancel()
			return nil, err
		}
		s.etcd, endpoints = etcd, []string{etcd.endpoint}
	}
	var err error
	s.cli, err = clientv3.New(clientv3.Config{
		Endpoints:            endpoints,
		TLS:                  cfg.TLS,
		DialTimeout:          cfg.Timeout,
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 3 * time.Second,
		Context:              s.ctx,
		Logger:               zap.New(slogCore{log: cfg.Log.With("part", "etcd client"), chatter: clientChatter}),
	})
	if err == nil {
		err = s.foundWithin(ctx, cfg.Timeout)
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("open store: %w", err)
	}
	s.wg.Go(s.upkeep)
	return s, nil
}

// clientChatter is what etcd's client says of every error that it also returns.
var clientChatter = []string{"retrying of unary invoker failed"}

// Close ends the watches, waits for them, and stops the embedded etcd. Closing twice is fine.
func (s *Store) Close() error {
	var err error
	s.closed.Do(func() {
		s.cancel()
		s.wg.Wait()
		if s.cli != nil {
			if err = s.cli.Close(); errors.Is(err, context.Canceled) {
				err = nil
			}
		}
		if s.etcd != nil {
			s.etcd.close()
		}
	})
	return err
}

// ID is the store's id. A restore changes it.
func (s *Store) ID() string { return s.known().ID }

// Revision is the store's current revision.
func (s *Store) Revision(ctx context.Context) (model.Revision, error) {
	v, err := s.look(ctx)
	if err != nil {
		return 0, err
	}
	return v.meta.revision(v.rev), nil
}

// Head is the revision of the last write of any server before the call, or a later one: whoever has seen it has seen all that was
// acknowledged when the call was made. It costs one linearizable read (etcd asks a majority whether its leader still is one). Other
// users of the cluster do not move it.
func (s *Store) Head(ctx context.Context) (model.Revision, error) {
	v, err := s.look(ctx, get(s.keys.head()))
	if err != nil {
		return 0, err
	}
	return v.head(), nil
}

// Size is how many octets the store takes (the largest of an external cluster's members), and how many it may; a quota of
// 0 is unknown: etcd before 3.6 does not tell.
func (s *Store) Size(ctx context.Context) (octets, quota int64, err error) {
	began := time.Now()
	for _, ep := range s.cli.Endpoints() {
		st, e := s.status(ctx, ep)
		if e != nil {
			err = e
			continue
		}
		octets, quota = max(octets, st.DbSize), max(quota, s.quotaOf(st))
	}
	if octets > 0 {
		return octets, quota, nil
	}
	return 0, quota, s.failure(err, began)
}

func (s *Store) status(ctx context.Context, endpoint string) (*clientv3.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	return s.cli.Status(ctx, endpoint)
}

// foundWithin gives a cluster that is starting its time.
func (s *Store) foundWithin(ctx context.Context, d time.Duration) error {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	for {
		err := s.found(ctx)
		var away *UnavailableError
		if !errors.As(err, &away) {
			return err
		}
		away.Tried = time.Since(began)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(watchRetryFirst):
		}
	}
}

// found learns what store there is, or writes the meta record and the default pool into an empty etcd. It reads first: a
// store that reached its quota takes no transaction that could put something.
func (s *Store) found(ctx context.Context) error {
	resp, err := s.page(ctx, s.keys.meta())
	if err != nil {
		return err
	}
	if len(resp.Kvs) == 0 {
		now := time.Now().UTC()
		fresh := meta{ID: string(newUID()), Format: metaFormat}
		pool := model.VNIPool{Meta: model.Meta{UID: newUID(), Created: now}, Name: model.DefaultPool, Spec: model.DefaultPoolSpec}
		began := time.Now()
		ctx, cancel := s.bounded(ctx)
		defer cancel()
		_, err := s.cli.Txn(ctx).
			If(clientv3.Compare(clientv3.CreateRevision(s.keys.meta()), "=", 0)).
			Then(clientv3.OpPut(s.keys.meta(), encode(fresh)), clientv3.OpPut(s.keys.pool(pool.Name), encode(pool))).
			Commit()
		if err != nil {
			return s.failure(err, began)
		}
	}
	v, err := s.peek(ctx)
	if err == nil && !v.meta.Restoring.IsZero() {
		s.cfg.Log.Error("the store holds a part only", "err", &InterruptedError{v.meta.Restoring})
	}
	return err
}

func decodeMeta(kv *keyValue) (meta, error) {
	var m meta
	if err := json.Unmarshal(kv.Value, &m); err != nil {
		return m, fmt.Errorf("the store's meta record is not readable: %w", err)
	}
	if m.Format != metaFormat {
		return m, fmt.Errorf("the store has format %d, and this version knows %d: use the version of weft that wrote it", m.Format, metaFormat)
	}
	m.mod = kv.ModRevision
	return m, nil
}

// known is the meta record as last seen.
func (s *Store) known() meta {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.meta
}

// learn takes in a newer meta record, and wakes the watches if it is another one.
func (s *Store) learn(m meta) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.mod <= s.meta.mod {
		return
	}
	if s.meta.ID != "" {
		close(s.replaced)
		s.replaced = make(chan struct{})
	}
	s.meta = m
}

// metaOf gives the meta record as last seen, and a channel that is closed when it is replaced.
func (s *Store) metaOf() (meta, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.meta, s.replaced
}

func (s *Store) endpoints() []string {
	if s.etcd != nil {
		return []string{"embedded in " + s.cfg.Dir}
	}
	return s.cfg.Endpoints
}

func newUID() model.UID {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return model.NewUID(b)
}

func newSuffix() string {
	var b [4]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
