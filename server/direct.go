package server

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"time"

	"connectrpc.com/connect"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/api/gen/plan/v1/planv1connect"
	"github.com/weftnet/weft/plan/stream"
	"github.com/weftnet/weft/trust"
)

// direct is an agent's stream with no HTTP between it and TLS. Its guards are made for requests, so it goes in as one: as the request of the
// same procedure, whose answer it is itself.
type direct struct{ *stream.Conn }

// Receive is the next thing that the agent says.
func (d direct) Receive() (*planv1.AgentMessage, error) {
	m := new(planv1.AgentMessage)
	return m, d.Conn.Receive(m)
}

// Send says something to the agent.
func (d direct) Send(m *planv1.ServerMessage) error { return d.Conn.Send(m) }

// Header, Write and WriteHeader make it an http.ResponseWriter: what writes an answer on the way in refuses, and the words are the reason.
func (d direct) Header() http.Header { return http.Header{} }

// Write implements http.ResponseWriter.
func (d direct) Write(p []byte) (int, error) {
	d.End(string(p))
	return len(p), nil
}

// WriteHeader implements http.ResponseWriter.
func (d direct) WriteHeader(int) {}

// directly takes connections over for which stream.Protocol was negotiated.
func (a *api) directly(base context.Context, door http.Handler) func(*http.Server, *tls.Conn, http.Handler) {
	return func(_ *http.Server, c *tls.Conn, _ http.Handler) {
		d := direct{stream.New(c, a.cfg.Limits.RequestOctets, 2*a.cfg.Limits.Ping)}
		defer d.Close()
		req, err := http.NewRequestWithContext(base, http.MethodPost, planv1connect.AgentServiceStreamProcedure, http.NoBody)
		if err != nil {
			a.log.Error("a plan stream could not be let in", "err", err)
			return
		}
		state := c.ConnectionState()
		req.TLS = &state
		door.ServeHTTP(d, req)
	}
}

// directOr serves plan streams that came directly, and leaves what is HTTP to next.
func (g *guard) directOr(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d, ok := w.(direct)
		if !ok {
			next.ServeHTTP(w, r)
			return
		}
		g.hold(r.Context())
		ctx, err := g.admit(r.Context(), r.Header, planv1connect.AgentServiceStreamProcedure, nil)
		if err == nil {
			err = g.api.talk(ctx, d)
		}
		if err != nil {
			d.End(reasonOf(err))
		}
	})
}

// holdPatience is how long an agent's stream waits for the first world, before it is told that there is none yet.
const holdPatience = 30 * time.Second

// hold keeps a host's stream until there is a world, where no other server could serve it: a fleet that is told to come again costs a server that
// starts a handshake for each agent, again and again.
func (g *guard) hold(ctx context.Context) {
	c := connectionOf(ctx)
	if _, host := trust.PeerHost(c.tls); !host || len(g.api.cfg.EtcdEndpoints) > 0 || g.api.view.ready() == nil {
		return
	}
	enough := time.NewTimer(holdPatience)
	defer enough.Stop()
	select {
	case <-g.api.view.loaded:
	case <-enough.C:
	case <-g.api.stopping.Done():
	case <-ctx.Done():
	}
}

// reasonOf is what an agent is told of the end of its stream.
func reasonOf(err error) string {
	err = toConnect(err)
	if ce := new(connect.Error); errors.As(err, &ce) {
		return ce.Message()
	}
	return err.Error()
}
