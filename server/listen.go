package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/net/netutil"

	"github.com/weftnet/weft/api/gen/peer/v1/peerv1connect"
	"github.com/weftnet/weft/api/gen/plan/v1/planv1connect"
	"github.com/weftnet/weft/api/gen/weft/v1/weftv1connect"
	"github.com/weftnet/weft/plan/stream"
	"github.com/weftnet/weft/trust"
)

const (
	// strangerOctets bounds the request of a caller that has proved nothing: a join is about 1 KiB.
	strangerOctets = 64 << 10
	headerOctets   = 64 << 10
	headerTime     = 10 * time.Second
	idleTime       = 2 * time.Minute
)

// listenTLS is the only TCP listener.
func listenTLS(cfg Config) (net.Listener, error) {
	ln, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", cfg.Listen, err)
	}
	return netutil.LimitListener(ln, cfg.Limits.Connections), nil
}

// listenUnix makes the root-only socket, in place of one that a killed server left.
func listenUnix(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make the socket's directory: %w", err)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("listen on %s: another server answers there; stop it, or choose another path", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the old socket: %w", err)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	// Who connects before this is asked for its uid all the same.
	if err := os.Chmod(path, 0o600); err != nil {
		ln.Close()
		return nil, fmt.Errorf("protect the socket: %w", err)
	}
	return ln, nil
}

// handler mounts every service behind the guard.
func (a *api) handler() http.Handler {
	g := &guard{api: a}
	opts := []connect.HandlerOption{
		connect.WithInterceptors(g), connect.WithReadMaxBytes(a.cfg.Limits.RequestOctets), connect.WithRecover(a.recovered),
	}
	mux := http.NewServeMux()
	mux.Handle(weftv1connect.NewTenantServiceHandler(a, opts...))
	mux.Handle(weftv1connect.NewNetworkServiceHandler(a, opts...))
	mux.Handle(weftv1connect.NewPortServiceHandler(a, opts...))
	mux.Handle(weftv1connect.NewHostServiceHandler(a, opts...))
	mux.Handle(weftv1connect.NewVTEPServiceHandler(a, opts...))
	mux.Handle(weftv1connect.NewVNIPoolServiceHandler(a, opts...))
	mux.Handle(weftv1connect.NewGroupPoolServiceHandler(a, opts...))
	mux.Handle(weftv1connect.NewSystemServiceHandler(a, opts...))
	mux.Handle(peerv1connect.NewPeerServiceHandler(a, opts...))
	// Compression would be most of what a change costs here: it is done for each stream, and a plan's octets are hashes and names.
	path, agents := planv1connect.NewAgentServiceHandler(a, append(opts, connect.WithCompression("gzip", nil, nil))...)
	mux.Handle(path, g.directOr(agents))
	mux.Handle(profilePath, profiles())
	return g.withConnection(g.bounded(mux))
}

// recovered turns a broken invariant of ours into one failed request.
func (a *api) recovered(_ context.Context, spec connect.Spec, _ http.Header, cause any) error {
	a.log.Error("a handler panicked", "procedure", spec.Procedure, "err", fmt.Sprint(cause))
	return connect.NewError(connect.CodeInternal, errors.New("the server made a mistake; its log says which"))
}

// bounded keeps bodies from strangers small, and those of single requests from taking for ever.
func (g *guard) bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := connectionOf(r.Context())
		if !c.local && !g.known(c, r.Header.Get("Authorization")) {
			r.Body = http.MaxBytesReader(w, r.Body, strangerOctets)
		}
		if !streams(r.URL.Path) {
			_ = c.control.SetReadDeadline(time.Now().Add(g.api.cfg.Limits.Unary))
			r.Body = &timelyBody{ReadCloser: r.Body, control: c.control}
		}
		next.ServeHTTP(w, r)
	})
}

// known reports whether a caller has proved something, before its request is read.
func (g *guard) known(c connection, auth string) bool {
	if auth != "" {
		_, err := g.bearer(auth)
		return err == nil
	}
	_, ok := trust.PeerHost(c.tls)
	return ok
}

// streams reports whether a procedure's request body stays open.
func streams(procedure string) bool {
	return procedure == planv1connect.AgentServiceStreamProcedure || procedure == weftv1connect.SystemServiceRestoreProcedure
}

// timelyBody lifts the deadline once the body is read: what the handler does then has its own.
type timelyBody struct {
	io.ReadCloser
	control *http.ResponseController
	lift    sync.Once
}

// Read implements io.Reader.
func (b *timelyBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.lift.Do(func() { _ = b.control.SetReadDeadline(time.Time{}) })
	}
	return n, err
}

// gate lets requests through until it is shut, and waits for those that are inside.
type gate struct {
	inside sync.RWMutex
	next   http.Handler
}

// ServeHTTP implements http.Handler.
func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !g.inside.TryRLock() {
		http.Error(w, "the server is stopping", http.StatusServiceUnavailable)
		return
	}
	defer g.inside.RUnlock()
	g.next.ServeHTTP(w, r)
}

// shut waits for the last one inside, for good.
func (g *gate) shut() { g.inside.Lock() }

// httpServers are one for each listener; base is the context of every request.
func (a *api) httpServers(base context.Context, ca *trust.CA, h http.Handler) (secure, local *http.Server) {
	cfg := a.cfg
	common := func() *http.Server {
		return &http.Server{
			Handler: h, MaxHeaderBytes: headerOctets, ReadHeaderTimeout: headerTime, IdleTimeout: idleTime,
			BaseContext: func(net.Listener) context.Context { return base },
			// Scanners and lost connections; what matters is answered or logged elsewhere.
			ErrorLog: slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
			HTTP2: &http.HTTP2Config{
				MaxConcurrentStreams: cfg.Limits.StreamsPerConnection,
				SendPingTimeout:      cfg.Limits.Ping, PingTimeout: cfg.Limits.Ping,
			},
		}
	}
	secure, local = common(), common()
	secure.TLSConfig = trust.ServerTLS(ca, names(cfg), cfg.Clock)
	secure.TLSConfig.NextProtos = append([]string{stream.Protocol}, secure.TLSConfig.NextProtos...)
	secure.Protocols = new(http.Protocols)
	secure.Protocols.SetHTTP1(true)
	secure.Protocols.SetHTTP2(true)
	secure.TLSNextProto = map[string]tlsTaker{stream.Protocol: a.directly(base, h)}
	local.ConnContext = localCaller
	local.Protocols = new(http.Protocols)
	local.Protocols.SetHTTP1(true)
	local.Protocols.SetUnencryptedHTTP2(true)
	return secure, local
}

// tlsTaker takes over a connection for which a protocol of another name than HTTP's was negotiated.
type tlsTaker = func(*http.Server, *tls.Conn, http.Handler)

// names of the server's certificate. The address that a client dials is added by itself.
func names(cfg Config) []string {
	out := append([]string(nil), cfg.Names...)
	if host, err := os.Hostname(); err == nil && host != "" {
		out = append(out, strings.ToLower(host))
	}
	return out
}
