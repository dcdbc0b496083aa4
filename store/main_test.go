package store

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/wire"
)

// shared is one embedded etcd for all tests: each takes a prefix of its own in it, which is a store of its own.
var shared struct {
	once  sync.Once
	store *Store
	dir   string
	err   error
	n     atomic.Int64
}

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir)
		return
	}
	code := m.Run()
	if shared.store != nil {
		shared.store.Close()
		os.RemoveAll(shared.dir)
	}
	if code == 0 {
		err := goleak.Find()
		for began := time.Now(); err != nil && time.Since(began) < 10*time.Second; { // some are on their way out
			err = goleak.Find()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "goroutines left after every store was closed:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// childDir names the directory of a process that is to be killed.
const childDir = "WEFT_STORE_TEST_CHILD"

func embeddedEndpoint(t testing.TB) string {
	t.Helper()
	shared.once.Do(func() {
		if shared.dir, shared.err = os.MkdirTemp("", "wefttest-store-"); shared.err == nil {
			shared.store, shared.err = Open(context.Background(), Config{Dir: shared.dir, CompactEvery: -1})
		}
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.store.etcd.endpoint
}

// prefix is a new store's.
func prefix() string { return fmt.Sprintf("/test%d", shared.n.Add(1)) }

// open opens a new, empty store.
func open(t testing.TB, endpoint string) *Store {
	t.Helper()
	return openAt(t, Config{Endpoints: []string{endpoint}, Prefix: prefix(), CompactEvery: -1})
}

func openAt(t testing.TB, cfg Config) *Store {
	t.Helper()
	w := &testWriter{t: t}
	cfg.Log = slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelWarn}))
	t.Cleanup(w.end)
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// testWriter is a test's log, until the test ends: what etcd's last goroutines say after that would be a panic.
type testWriter struct {
	t    testing.TB
	mu   sync.Mutex
	over bool
}

func (w *testWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over {
		w.t.Logf("%s", b)
	}
	return len(b), nil
}

func (w *testWriter) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
}

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func meta1() model.Meta { return model.Meta{UID: newUID(), Created: now} }

// The objects of the tests.

func tenant(name string) *model.Tenant { return &model.Tenant{Meta: meta1(), Name: name} }

func network(tenant, name string, vni wire.VNI, subnets ...string) *model.Network {
	n := &model.Network{Meta: meta1(), Tenant: tenant, Name: name, Alloc: model.NetworkAlloc{VNI: vni}}
	for _, s := range subnets {
		n.Spec.Subnets = append(n.Spec.Subnets, netip.MustParsePrefix(s))
	}
	return n
}

func port(tenant, name, network string, mac byte, ips ...string) *model.Port {
	p := &model.Port{Meta: meta1(), Tenant: tenant, Name: name, Spec: model.PortSpec{Network: network}}
	if mac != 0 {
		p.Alloc.MACs = []wire.MAC{{2, 0, 0, 0, 0, mac}}
	}
	for _, ip := range ips {
		p.Alloc.IPs = append(p.Alloc.IPs, netip.MustParsePrefix(ip))
	}
	return p
}

func host(name string) *model.Host { return &model.Host{Meta: meta1(), Name: name} }

func vtep(name string) *model.VTEP {
	return &model.VTEP{Meta: meta1(), Name: name, Spec: model.VTEPSpec{Address: netip.MustParseAddr("192.0.2.9")}}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ok[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
