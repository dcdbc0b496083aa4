package server

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/compile"
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/plan"
	"github.com/weftnet/weft/trust"
)

// lastWords is how long a stream that was ended from this side may still take to tell its agent why.
const lastWords = time.Second

var (
	errReplaced  = connect.NewError(connect.CodeAborted, errors.New("this host opened a newer stream"))
	errSilent    = connect.NewError(connect.CodeDeadlineExceeded, errors.New("no hello came"))
	errExpired   = connect.NewError(connect.CodeUnavailable, errors.New("the certificate of this connection comes to its end: connect again with the renewed one"))
	errAgentDone = errors.New("the agent ended the stream")
)

// planStream is an agent's stream, however it came: a gRPC one, or stream.Conn.
type planStream interface {
	Receive() (*planv1.AgentMessage, error)
	Send(*planv1.ServerMessage) error
}

// Stream implements plan.v1, for agents that know no better.
func (a *api) Stream(ctx context.Context, stream *connect.BidiStream[planv1.AgentMessage, planv1.ServerMessage]) error {
	return a.talk(ctx, stream)
}

// welcome is the first answer on every stream.
var welcome = &planv1.ServerMessage{Message: &planv1.ServerMessage_Welcome{Welcome: &planv1.Welcome{Follows: true}}}

// talk is a stream's life. Two goroutines work for it, one a direction: what the agent says is taken in here, what it
// must hold is sent by distribute. A third ends both when the host is removed, opens a newer stream, or the server stops.
func (a *api) talk(ctx context.Context, stream planStream) error {
	id, conn := identityOf(ctx), connectionOf(ctx)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if leaf := peerLeaf(conn.tls); leaf != nil {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, streamLife(leaf, a.now()), errExpired)
		defer stop()
	}
	defer context.AfterFunc(a.stopping, func() { cancel(errStopping) })()

	s := &session{host: id.Host, name: id.Name, cancel: cancel}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		<-gctx.Done()
		// Neither Receive nor Send listens to a context: deadlines end them. What is left of the write side is for the
		// error that tells the agent why.
		_ = conn.control.SetReadDeadline(time.Unix(1, 0))
		_ = conn.control.SetWriteDeadline(time.Now().Add(lastWords))
		return nil
	})
	g.Go(func() error { return a.converse(gctx, g, s, stream) })
	err := g.Wait()
	a.heard.closed(s, a.now())
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	if errors.Is(err, errAgentDone) {
		return nil
	}
	return err
}

// streamLife is how long a stream may last on a connection that was opened with a certificate. It ends an hour early, so
// that the agent comes back while the old certificate is still good: the answer then closes the connection behind that
// stream (see withConnection), and the next one is opened with the renewed certificate.
func streamLife(leaf *x509.Certificate, now time.Time) time.Duration {
	if early := leaf.NotAfter.Add(-trust.Skew); now.Before(early) {
		return early.Sub(now)
	}
	return leaf.NotAfter.Sub(now)
}

// converse reads what the agent says until the stream ends, and starts the other direction after the hello.
func (a *api) converse(ctx context.Context, g *errgroup.Group, s *session, stream planStream) error {
	silence := time.AfterFunc(a.cfg.Limits.Hello, func() { s.cancel(errSilent) })
	first, err := stream.Receive()
	silence.Stop()
	if err != nil {
		return ended(err)
	}
	hello := first.GetHello()
	if hello == nil {
		return model.Errorf(model.Invalid, "hello", "upgrade the agent", "a stream begins with a hello")
	}
	if err := a.learn(ctx, s, hello, hello.GetFacts()); err != nil {
		return err
	}
	if s.opened = hello.GetOpened(); s.opened == 0 { // an agent that does not count its streams
		s.opened = a.now().UnixNano()
	}
	if old := a.heard.open(s, a.now()); old != nil {
		old.cancel(errReplaced)
	}
	// It may have been removed between the check of its certificate and now.
	if !a.view.hostExists(s.host) {
		return errHostRemoved
	}
	a.log.Info("a host opened its stream", "host", s.name, "version", hello.GetVersion())
	if err := stream.Send(welcome); err != nil {
		return fmt.Errorf("send to the agent: %w", err)
	}
	g.Go(func() error {
		err := a.dist.Serve(ctx, string(s.host), hello, stream.Send)
		if err == nil {
			err = errAgentDone
		}
		return err
	})
	for {
		m, err := stream.Receive()
		if err != nil {
			return ended(err)
		}
		if err := a.takeIn(ctx, s, hello, m); err != nil {
			return err
		}
	}
}

// takeIn takes in one message.
func (a *api) takeIn(ctx context.Context, s *session, hello *planv1.Hello, m *planv1.AgentMessage) error {
	switch m := m.GetMessage().(type) {
	case *planv1.AgentMessage_Applied:
		a.heard.acknowledge(s, m.Applied, a.now())
		return a.freeVNIs(ctx, s, m.Applied)
	case *planv1.AgentMessage_Report:
		rep, err := s.restore(m.Report, a.cfg.Limits.RequestOctets)
		if err != nil {
			return err
		}
		a.heard.report(s, rep, a.now())
	case *planv1.AgentMessage_Facts:
		return a.learn(ctx, s, hello, m.Facts)
	case *planv1.AgentMessage_Hello:
		return model.Errorf(model.Invalid, "hello", "open a new stream", "a stream has one hello")
	}
	return nil
}

// learn keeps what others' plans depend upon. Facts that cannot be are refused, and the stream with them.
func (a *api) learn(ctx context.Context, s *session, hello *planv1.Hello, said *planv1.Facts) error {
	facts, err := factsIn(s.host, said, hello.GetVersion(), hello.GetFeatures())
	if err != nil {
		return err
	}
	if err := facts.Validate(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Limits.Unary)
	defer cancel()
	if err := a.store.PutFacts(ctx, facts); err != nil {
		return fmt.Errorf("keep the host's facts: %w", err)
	}
	return nil
}

// freeVNIs ends the host's part in the quarantine of VNIs whose removal it has applied. Most acknowledgements end none,
// and cost no transaction.
func (a *api) freeVNIs(ctx context.Context, s *session, applied *planv1.Applied) error {
	rev := model.Revision(applied.GetRevision())
	storeID, _ := a.dist.Revision()
	if applied.GetRefused() != "" || applied.GetStoreId() != storeID || failedNetwork(applied) || !a.view.holdsQuarantine(s.host, rev) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Limits.Unary)
	defer cancel()
	if err := a.store.AcknowledgeVNIs(ctx, s.host, rev); err != nil {
		// The next acknowledgement tries again.
		a.log.Warn("a quarantined VNI could not be freed", "host", s.name, "err", err)
	}
	return nil
}

// failedNetwork reports whether the host could not apply some network: then it may still hold one that is gone. An error of
// the host itself counts too: with one, an agent says that its list of errors was cut.
func failedNetwork(applied *planv1.Applied) bool {
	for _, e := range applied.GetErrors() {
		if k := e.GetKind(); k == planv1.Kind_KIND_NETWORK || k == planv1.Kind_KIND_HOST {
			return true
		}
	}
	return false
}

// ended tells an agent that is done from one that broke off.
func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return errAgentDone
	}
	return fmt.Errorf("receive from the agent: %w", err)
}

// evidence is compile's, for distribute: what took something away from a host since a revision.
func (a *api) evidence(host, scope string, since int64, subscribed bool) (out []plan.Removal) {
	a.view.read(func(w *model.World) { out = compile.Evidence(w, model.UID(host), scope, since, subscribed) })
	return out
}
