package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/plan/stream"
	"github.com/weftnet/weft/trust"
)

// plainStream is an agent's side of a stream by stream.Protocol.
type plainStream struct{ *stream.Conn }

func (s plainStream) Send(m *planv1.AgentMessage) error { return s.Conn.Send(m) }

func (s plainStream) Receive() (*planv1.ServerMessage, error) {
	m := new(planv1.ServerMessage)
	return m, s.Conn.Receive(m)
}

func (s plainStream) CloseRequest() error  { return s.Close() }
func (s plainStream) CloseResponse() error { return s.Close() }

// plain opens a stream by stream.Protocol, as the host, or as nobody.
func (f *fixture) plain(t *testing.T, id *trust.HostIdentity) (agentStream, error) {
	addr := f.srv.Addr().String()
	cfg := f.pin(t).TLS(addr, f.clock.now)
	if id != nil {
		cfg = id.ClientTLS(addr, f.clock.now)
	}
	cfg.NextProtos = []string{stream.Protocol}
	c, err := (&tls.Dialer{Config: cfg}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	s := plainStream{stream.New(c.(*tls.Conn), 16<<20, time.Minute)}
	t.Cleanup(func() { s.Close() })
	return s, nil
}

// TestPlainStreams: a stream with no HTTP in it gives what a gRPC one does: plans, acknowledgements, one a host, and an end with its reason. Break
// it: end a stream without End, or take its identity from anything but the certificate.
func TestPlainStreams(t *testing.T) {
	f := ownServer(t, Config{})
	h := f.join(t, "plain-h")
	h.plain = func() (agentStream, error) { return f.plain(t, h.id) }
	h.open(facts("192.0.2.41", 1500))
	eventually(t, "the host is live", func() bool { return f.live(t, "plain-h") })

	// What it must hold comes, and what it applied is waited for.
	ok(t, f.tenants.CreateTenant, &weftv1.CreateTenantRequest{Name: "plain"})
	ok(t, f.networks.CreateNetwork, &weftv1.CreateNetworkRequest{Tenant: "plain", Name: "blue", Spec: &weftv1.NetworkSpec{Subnets: []string{"10.0.0.0/24"}}})
	ok(t, f.ports.CreatePort, &weftv1.CreatePortRequest{Tenant: "plain", Name: "p", Spec: &weftv1.PortSpec{Network: "blue"}})
	b := ok(t, h.agent.Bind, &planv1.BindRequest{Tenant: "plain", Port: "p"})
	if res := ok(t, f.system.WaitApplied, &weftv1.WaitAppliedRequest{Tenant: "plain", Network: "blue", Revision: b.Revision}); !res.Complete || len(res.Applied) != 1 {
		t.Errorf("applied: %v", res)
	}

	// A newer stream takes the place of the first, though that is a gRPC one.
	first := h.ended
	h2 := &double{clients: h.clients, t: t, name: h.name, uid: h.uid, id: h.id, staging: h.staging}
	h2.open(facts("192.0.2.41", 1500))
	<-first
	if !strings.Contains(h.err.Error(), "newer stream") {
		t.Errorf("the first stream ended with: %v", h.err)
	}
	h2.hangUp()

	// Facts that cannot be, a message that is too large, and no hello.
	for _, c := range []struct {
		name, want string
		say        *planv1.AgentMessage
	}{
		{"facts", "vtep_addresses[0]", hello(facts("224.0.0.1", 1500))},
		{"size", "at most 16777216 are taken", hello(&planv1.Facts{Kernel: strings.Repeat("x", 17<<20)})},
		{"no hello", "begins with a hello", &planv1.AgentMessage{Message: &planv1.AgentMessage_Report{Report: &planv1.Report{}}}},
	} {
		if err := f.answerTo(t, h.id, c.say); !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if err := f.answerTo(t, nil, hello(facts("192.0.2.41", 1500))); !strings.Contains(err.Error(), "needs a credential") {
		t.Errorf("without a certificate: %v", err)
	}

	h.open(facts("192.0.2.41", 1500))
	eventually(t, "the host is live again", func() bool { return f.live(t, "plain-h") })
	ok(t, f.hosts.RemoveHost, &weftv1.RemoveHostRequest{Name: "plain-h", Force: true})
	if err := h.end(); !strings.Contains(err.Error(), "was removed") {
		t.Errorf("a removed host's stream ended with: %v", err)
	}
	if err := f.answerTo(t, h.id, hello(facts("192.0.2.41", 1500))); !strings.Contains(err.Error(), "was removed") {
		t.Errorf("a removed host is told: %v", err)
	}
}

// TestPlainStreamEndsWithTheServer: a stop is told to agents before the connection goes.
func TestPlainStreamEndsWithTheServer(t *testing.T) {
	f := ownServer(t, Config{})
	h := f.join(t, "h")
	h.plain = func() (agentStream, error) { return f.plain(t, h.id) }
	h.open(facts("192.0.2.42", 1500))
	eventually(t, "the host is live", func() bool { return f.live(t, "h") })
	f.cancel()
	if err := h.end(); !strings.Contains(err.Error(), "the server is stopping") {
		t.Errorf("it ended with: %v", err)
	}
}

func hello(f *planv1.Facts) *planv1.AgentMessage {
	return &planv1.AgentMessage{Message: &planv1.AgentMessage_Hello{Hello: &planv1.Hello{Facts: f}}}
}

// answerTo is how a stream ends that begins with a message.
func (f *fixture) answerTo(t *testing.T, id *trust.HostIdentity, m *planv1.AgentMessage) error {
	t.Helper()
	s, err := f.plain(t, id)
	if err != nil {
		t.Fatal(err)
	}
	defer s.CloseResponse()
	_ = s.Send(m) // its end may come first
	for {
		if _, err := s.Receive(); err != nil {
			return err
		}
	}
}

// TestHeldStreams: a host's stream waits for the first world where this is the only server, and nobody else's does, nor any where another server
// could serve it. Red when hold does not look at the certificate or at the store, or returns at once.
func TestHeldStreams(t *testing.T) {
	host := &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{URIs: []*url.URL{{Scheme: "weft", Host: "host", Path: "/h1"}}}}}}
	if _, ok := trust.PeerHost(host); !ok {
		t.Fatal("the certificate is no host's")
	}
	for _, c := range []struct {
		name      string
		tls       *tls.ConnectionState
		endpoints []string
		waits     time.Duration
	}{
		{"a host, the only server", host, nil, 7 * time.Second},
		{"a host, a cluster", host, []string{"etcd1"}, 0},
		{"a stranger", &tls.ConnectionState{}, nil, 0},
		{"a host, and no world comes", host, nil, holdPatience},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &guard{api: &api{cfg: Config{EtcdEndpoints: c.endpoints}, view: newView(), stopping: t.Context()}}
				if c.waits != holdPatience {
					time.AfterFunc(7*time.Second, func() { g.api.view.load(model.NewWorld("s")) })
				}
				began := time.Now()
				g.hold(context.WithValue(t.Context(), connectionKey{}, connection{tls: c.tls}))
				if got := time.Since(began); got != c.waits {
					t.Errorf("held for %s, want %s", got, c.waits)
				}
				g.api.view.load(model.NewWorld("s")) // nobody waits any more
				g.hold(context.WithValue(t.Context(), connectionKey{}, connection{tls: c.tls}))
				if got := time.Since(began); got != c.waits {
					t.Errorf("held for %s with a world, want %s", got, c.waits)
				}
			})
		})
	}
}
