package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"

	"github.com/weftnet/weft/api/gen/plan/v1/planv1connect"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/api/gen/weft/v1/weftv1connect"
	"github.com/weftnet/weft/internal/testenv"
	"github.com/weftnet/weft/trust"
)

// shared is one server for all tests that need nothing of their own: each uses tenants and hosts of its own names. users are the
// tests that had it: when one runs again (-count), its names are taken, and it gets another server.
var shared struct {
	sync.Mutex
	*fixture
	users map[string]*testing.T
}

func TestMain(m *testing.M) {
	code := m.Run()
	if err := endShared(); err != nil {
		println(err.Error())
		code = 1
	}
	err := goleak.Find()
	for began := time.Now(); err != nil && time.Since(began) < 10*time.Second; { // some are on their way out
		err = goleak.Find()
	}
	if err != nil && code == 0 {
		println(err.Error())
		code = 1
	}
	os.Exit(code)
}

// endShared ends the shared server, if there is one.
func endShared() error {
	f := shared.fixture
	if f == nil {
		return nil
	}
	shared.fixture = nil
	defer os.RemoveAll(f.dir)
	if err := f.stop(); err != nil {
		return fmt.Errorf("the shared server: %w", err)
	}
	return nil
}

// fixture is a running server and root's clients of it.
type fixture struct {
	*clients
	dir    string
	cfg    Config
	srv    *Server
	cancel context.CancelFunc
	done   chan error
	clock  *testClock
	sweeps atomic.Int64
}

// testClock is real time plus what a test adds.
type testClock struct {
	mu     sync.Mutex
	offset time.Duration
}

func (c *testClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.offset)
}

func (c *testClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset += d
}

// server is the shared one.
func server(t *testing.T) *fixture {
	t.Helper()
	testenv.Require(t, testenv.Root)
	shared.Lock()
	defer shared.Unlock()
	if before := shared.users[t.Name()]; before != nil && before != t {
		if err := endShared(); err != nil {
			t.Fatal(err)
		}
	}
	if shared.fixture == nil {
		// Nobody's test is about how long a drain, or the way to another group, takes.
		f, err := start(Config{Limits: Limits{Drain: 50 * time.Millisecond, Join: 50 * time.Millisecond, Sweep: 10 * time.Millisecond}}, "")
		if err != nil {
			t.Fatal(err)
		}
		shared.fixture, shared.users = f, map[string]*testing.T{}
	}
	shared.users[t.Name()] = t
	return shared.fixture
}

// ownServer is one that ends with the test.
func ownServer(t *testing.T, cfg Config) *fixture {
	t.Helper()
	testenv.Require(t, testenv.Root)
	cfg.Limits.Peers = cmp.Or(cfg.Limits.Peers, time.Minute) // hosts that a test keeps mute are waited for
	f, err := start(cfg, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.stop(); err != nil {
			t.Errorf("the server ended with: %v", err)
		}
		os.RemoveAll(f.dir)
	})
	return f
}

// start runs a server in dir, or in a new one: short, as the path of a socket is.
func start(cfg Config, dir string) (*fixture, error) {
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "wefttest-server-"); err != nil {
			return nil, err
		}
	}
	f := &fixture{dir: dir, clock: &testClock{}, done: make(chan error, 1)}
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	cfg.Dir, cfg.Socket, cfg.Clock = filepath.Join(dir, "d"), filepath.Join(dir, "s"), f.clock.now
	cfg.swept = func() { f.sweeps.Add(1) }
	cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: logLevel()}))
	f.cfg = cfg
	f.srv = New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel = cancel
	go func() { f.done <- f.srv.Run(ctx) }()
	select {
	case <-f.srv.Ready():
	case err := <-f.done:
		cancel()
		return nil, errors.Join(errors.New("the server ended before it was ready"), err)
	case <-time.After(patience):
		cancel()
		return nil, fmt.Errorf("the server is not ready after %s", patience)
	}
	f.clients = newClients("http://local", &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", cfg.Socket)
		},
	}, "")
	return f, nil
}

func logLevel() slog.Level {
	if os.Getenv("WEFT_TEST_LOG") != "" {
		return slog.LevelDebug
	}
	return slog.LevelError + 8
}

// stop ends the server and returns what Run did.
func (f *fixture) stop() error {
	f.clients.close()
	f.cancel()
	select {
	case err := <-f.done:
		return err
	case <-time.After(patience):
		return errors.New("Run does not return")
	}
}

// bearer are clients with an API token over TLS.
func (f *fixture) bearer(t *testing.T, token string) *clients {
	t.Helper()
	return f.tlsClients(t, f.pin(t), token, nil)
}

func (f *fixture) pin(t *testing.T) trust.Pin {
	t.Helper()
	pin, err := trust.PinFile(filepath.Join(f.cfg.Dir, "ca", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	return pin
}

func (f *fixture) tlsClients(t *testing.T, pin trust.Pin, token string, id *trust.HostIdentity) *clients {
	t.Helper()
	addr := f.srv.Addr().String()
	var cfg *tls.Config
	if id != nil {
		cfg = id.ClientTLS(addr, f.clock.now)
	} else {
		cfg = pin.TLS(addr, f.clock.now)
	}
	c := newClients("https://"+addr, &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true}, token)
	t.Cleanup(c.close)
	return c
}

// clients are all services by one transport.
type clients struct {
	base      string
	transport *http.Transport
	http      *http.Client
	tenants   weftv1connect.TenantServiceClient
	networks  weftv1connect.NetworkServiceClient
	ports     weftv1connect.PortServiceClient
	hosts     weftv1connect.HostServiceClient
	vteps     weftv1connect.VTEPServiceClient
	pools     weftv1connect.VNIPoolServiceClient
	groups    weftv1connect.GroupPoolServiceClient
	system    weftv1connect.SystemServiceClient
	agent     planv1connect.AgentServiceClient
}

type withToken struct {
	next  http.RoundTripper
	token string
}

func (w withToken) RoundTrip(r *http.Request) (*http.Response, error) {
	if w.token != "" {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+w.token)
	}
	return w.next.RoundTrip(r)
}

func newClients(base string, tr *http.Transport, token string) *clients {
	h := &http.Client{Transport: withToken{tr, token}}
	return &clients{
		base: base, transport: tr, http: h,
		tenants:  weftv1connect.NewTenantServiceClient(h, base),
		networks: weftv1connect.NewNetworkServiceClient(h, base),
		ports:    weftv1connect.NewPortServiceClient(h, base),
		hosts:    weftv1connect.NewHostServiceClient(h, base),
		vteps:    weftv1connect.NewVTEPServiceClient(h, base),
		pools:    weftv1connect.NewVNIPoolServiceClient(h, base),
		groups:   weftv1connect.NewGroupPoolServiceClient(h, base),
		system:   weftv1connect.NewSystemServiceClient(h, base),
		agent:    planv1connect.NewAgentServiceClient(h, base, connect.WithGRPC()),
	}
}

func (c *clients) close() { c.transport.CloseIdleConnections() }

// call is any unary method of a client.
type call[Req, Res any] func(context.Context, *connect.Request[Req]) (*connect.Response[Res], error)

// ok calls and wants an answer.
func ok[Req, Res any](t *testing.T, f call[Req, Res], req *Req) *Res {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	res, err := f(ctx, connect.NewRequest(req))
	if err != nil {
		t.Fatalf("%T: %v", req, err)
	}
	return res.Msg
}

// refused calls and wants a refusal: its code, the field it names, and words of its reason and fix.
func refused[Req, Res any](t *testing.T, f call[Req, Res], req *Req, code connect.Code, field string, words ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := f(ctx, connect.NewRequest(req))
	if err == nil {
		t.Fatalf("%T %v: was not refused", req, req)
	}
	wantRefusal(t, err, code, field, words...)
}

func wantRefusal(t *testing.T, err error, code connect.Code, field string, words ...string) {
	t.Helper()
	if got := connect.CodeOf(err); got != code {
		t.Fatalf("code %v, want %v: %v", got, code, err)
	}
	d := detailOf(err)
	if d == nil {
		t.Fatalf("no ErrorDetail in: %v", err)
	}
	if d.Field != field {
		t.Errorf("field %q, want %q: %v", d.Field, field, err)
	}
	if d.Reason == "" || d.Fix == "" {
		t.Errorf("reason %q and fix %q: neither may be empty", d.Reason, d.Fix)
	}
	for _, w := range words {
		if !strings.Contains(d.Reason+"; "+d.Fix, w) {
			t.Errorf("%q is not in: %s; %s", w, d.Reason, d.Fix)
		}
	}
}

func detailOf(err error) *weftv1.ErrorDetail {
	var ce *connect.Error
	if !errors.As(err, &ce) {
		return nil
	}
	for _, d := range ce.Details() {
		if v, err := d.Value(); err == nil {
			if detail, ok := v.(*weftv1.ErrorDetail); ok {
				return detail
			}
		}
	}
	return nil
}

// patience with whatever is to become so.
const patience = time.Minute

// eventually waits for a named condition.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not so after %s: %s", patience, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
