package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/weftnet/weft/distribute"
	"github.com/weftnet/weft/internal/heap"
	"github.com/weftnet/weft/store"
	"github.com/weftnet/weft/trust"
)

// Server is one of a deployment's servers.
type Server struct {
	cfg   Config
	ready chan struct{}
	once  sync.Once
	// room is made for the store's content, until it is loaded.
	room heap.Room
	// addr is set before ready is closed.
	addr net.Addr
}

// New is a server that Run starts.
func New(cfg Config) *Server {
	return &Server{cfg: cfg.withDefaults(), ready: make(chan struct{})}
}

// Ready is closed once the server answers on both listeners. A store that a restore left half done answers to nothing
// but the next restore.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Addr is where the server listens for TLS. Only after Ready.
func (s *Server) Addr() net.Addr { return s.addr }

// Run serves until ctx ends, and returns after everything that it started has ended. It runs once.
//
//	open store and CA -> listen -> load the world -> ready
//	stop: streams are told, requests under way get their time, then the loop ends, then the store closes
func (s *Server) Run(ctx context.Context) (err error) {
	if err := ctx.Err(); err != nil {
		return nil
	}
	storage := store.Config{
		Dir: s.cfg.etcdDir(), Endpoints: s.cfg.EtcdEndpoints, TLS: s.cfg.EtcdTLS,
		QuotaOctets: s.cfg.EtcdQuotaOctets, CompactEvery: s.cfg.EtcdCompactEvery, Log: s.cfg.Log,
	}
	s.room.Open(loadFactor * storage.FileOctets())
	defer s.room.Close()
	st, err := store.Open(ctx, storage)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	ca, err := openCA(ctx, s.cfg, st)
	if err != nil {
		return err
	}
	tcp, err := listenTLS(s.cfg)
	if err != nil {
		return err
	}
	defer tcp.Close()
	local, err := listenUnix(s.cfg.Socket)
	if err != nil {
		return err
	}
	defer local.Close()
	s.addr = tcp.Addr()
	return s.serve(ctx, ca, st, tcp, local)
}

// serve runs the loop, housekeeping and both listeners until ctx ends or a listener breaks.
func (s *Server) serve(ctx context.Context, ca *trust.CA, st *store.Store, tcp, local net.Listener) error {
	// Three lives, ended one after the other: streams and waits, requests, the loop.
	stopping, stop := context.WithCancel(context.Background())
	defer stop()
	requests, endRequests := context.WithCancel(context.Background())
	defer endRequests()
	looping, endLoop := context.WithCancel(context.Background())
	defer endLoop()

	a := &api{
		cfg: s.cfg, id: newServerID(), log: s.cfg.Log, store: st, ca: ca, view: newView(), heard: newRealisation(),
		claims: newClaims(), started: s.cfg.Clock(), stopping: stopping,
		fresher: &fresher{head: st.Head}, hangs: make(chan struct{}, 1),
	}
	address, err := advertised(s.cfg, tcp.Addr())
	if err != nil {
		return err
	}
	a.dist = distribute.New(distribute.Config{Evidence: a.evidence})
	door := &gate{next: a.handler()}
	tlsServer, localServer := a.httpServers(requests, ca, door)

	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { a.loop(looping, s.attempted); return nil })
	g.Go(func() error { a.housekeep(looping); return nil })
	g.Go(func() error { s.paced(looping); return nil })
	g.Go(func() error { a.conduct(looping); return nil })
	g.Go(func() error { a.gather(stopping, address); return nil })
	g.Go(func() error { a.attend(stopping); return nil })
	g.Go(func() error { return served(tlsServer.ServeTLS(tcp, "", "")) })
	g.Go(func() error { return served(localServer.Serve(local)) })
	g.Go(func() error {
		<-gctx.Done()
		stop()
		patience, cancel := context.WithTimeout(context.Background(), s.cfg.Limits.Shutdown)
		defer cancel()
		var both errgroup.Group
		both.Go(func() error { return tlsServer.Shutdown(patience) })
		both.Go(func() error { return localServer.Shutdown(patience) })
		if err := both.Wait(); err != nil {
			s.cfg.Log.Warn("requests were cut off at the stop", "err", err)
		}
		endRequests()
		tlsServer.Close()
		localServer.Close()
		door.shut()
		endLoop()
		return nil
	})
	return g.Wait()
}

// paced lets the collector give way once the store is loaded: a change to many hosts shares the cores with it.
func (s *Server) paced(ctx context.Context) {
	select {
	case <-s.ready:
		heap.Pace(ctx)
	case <-ctx.Done():
	}
}

// loadFactor is how much of the heap is taken while a store is loaded, about, for an octet of its file: etcd's index, the world, what is compiled of it.
const loadFactor = 4

// attempted makes the server ready once there is a world, or only a restore can bring one.
func (s *Server) attempted(err error) {
	var interrupted *store.InterruptedError
	if err == nil || errors.As(err, &interrupted) {
		s.once.Do(func() {
			s.room.Close()
			s.cfg.Log.Info("the server is ready", "listen", s.addr.String(), "socket", s.cfg.Socket)
			close(s.ready)
		})
	}
}

// served drops the error of a server that was asked to stop.
func served(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve: %w", err)
}
