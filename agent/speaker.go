package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/api/gen/plan/v1/planv1connect"
	"github.com/weftnet/weft/plan"
)

// Limits of talking to servers.
const (
	dialTimeout  = 3 * time.Second
	callTimeout  = 10 * time.Second
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = 3 * time.Second
	// lasting is how long a stream was up that worked: longer than one takes that cannot be opened.
	lasting = 2 * dialTimeout
	// A server that went away without a word is found after pingEvery and pingPatience: one that is busy answers later than usual.
	pingEvery    = 3 * time.Second
	pingPatience = 4 * time.Second
	// spread is over how long the agents of a server that went away come to the next one.
	spread = 500 * time.Millisecond
)

// listener is the loop as the Speaker sees it. Its methods block until the loop has done it.
type listener interface {
	// Hello is what opens a stream: what is held now.
	Hello(ctx context.Context) (*planv1.Hello, error)
	// Receive takes one message in; an error ends the stream.
	Receive(ctx context.Context, u *planv1.Update) error
	// Connection tells which server is spoken to; "" and why is none.
	Connection(ctx context.Context, server string, why error)
}

// Speaker talks to one server at a time, and to the next when it goes away: the stream of plans in, and what the loop
// says out. What is said while nobody listens is lost, and stands in the next hello or report.
type Speaker struct {
	servers []string
	tls     func(server string) *tls.Config
	loop    listener
	log     *slog.Logger

	mu      sync.Mutex
	next    int
	opened  int64 // the number of the last stream
	clients map[string]dialled

	// out holds the newest of each kind of message that was not sent yet.
	out   outbox
	ready chan struct{}
	// answered is rung when a call was answered: a server is there, and waiting for the stream any longer makes no sense.
	answered chan struct{}
}

// dialled is a connection to a server, with the certificate of the time when it was made.
type dialled struct {
	planv1connect.AgentServiceClient
	http *http.Client
	// cut breaks it off, whoever is sending.
	cut context.CancelFunc
}

type outbox struct {
	applied *planv1.Applied
	facts   *planv1.Facts
	report  *planv1.Report
}

// NewSpeaker makes one; Run speaks. It begins with any of the servers, so that many agents with one list share them.
func NewSpeaker(servers []string, tls func(server string) *tls.Config, loop listener, log *slog.Logger) *Speaker {
	return &Speaker{
		servers: servers, next: rand.N(len(servers)), tls: tls, loop: loop, log: log,
		clients: map[string]dialled{}, ready: make(chan struct{}, 1),
		answered: make(chan struct{}, 1),
	}
}

// Say queues messages; nil ones are left out. It never blocks: an older one of the same kind that was not sent yet is
// replaced, as every message is absolute. A refusal is not replaced by a later acknowledgement.
func (s *Speaker) Say(applied *planv1.Applied, facts *planv1.Facts, report *planv1.Report) {
	s.mu.Lock()
	if applied != nil && (s.out.applied == nil || s.out.applied.Refused == "") {
		s.out.applied = applied
	}
	if facts != nil {
		s.out.facts = facts
	}
	if report != nil {
		s.out.report = report
	}
	s.mu.Unlock()
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// onlyAcknowledges reports that there is nothing to say but that an update was applied.
func (s *Speaker) onlyAcknowledges() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.applied != nil && s.out.applied.Refused == "" && s.out.facts == nil && s.out.report == nil
}

func (s *Speaker) take() outbox {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.out
	s.out = outbox{}
	return out
}

// Run speaks until the context ends.
func (s *Speaker) Run(ctx context.Context) {
	defer s.close()
	defer context.AfterFunc(ctx, s.close)()
	backoff := firstBackoff
	said := map[string]bool{} // what was logged since a stream last worked
	for failed := 0; ctx.Err() == nil; {
		server := s.server()
		started := time.Now()
		err := s.session(ctx, server)
		s.hangUp(server)
		if ctx.Err() != nil {
			return
		}
		s.loop.Connection(ctx, "", fmt.Errorf("%s: %w", server, err))
		if time.Since(started) > lasting {
			backoff, failed = firstBackoff, 0
			clear(said)
		}
		level := slog.LevelWarn
		if said[server+err.Error()] {
			level = slog.LevelDebug
		}
		said[server+err.Error()] = true
		s.log.Log(ctx, level, "no plan stream; forwarding goes on as it is", "server", server, "err", err)
		s.turn()
		wait := rand.N(spread) // a stream that worked: others come with this one
		if failed++; failed%len(s.servers) == 0 {
			wait = backoff/2 + rand.N(backoff)
			backoff = min(2*backoff, lastBackoff)
		} else if time.Since(started) < spread {
			continue // the next server at once; wait only when none answered
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-s.answered:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// number is the next stream's: servers take the highest for the newest, also those that a killed agent's successor opens.
func (s *Speaker) number() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened = max(s.opened+1, time.Now().UnixNano())
	return s.opened
}

func (s *Speaker) server() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.servers[s.next]
}

func (s *Speaker) turn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = (s.next + 1) % len(s.servers)
}

// session is one stream's life; its error says why it ended and is never nil.
func (s *Speaker) session(ctx context.Context, server string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.open(ctx, server)
	if err != nil {
		return err
	}
	hello, err := s.loop.Hello(ctx)
	if err != nil {
		return errors.Join(err, stream.CloseResponse())
	}
	hello.Opened = s.number()
	s.take() // what was not sent stands in the hello, and is said anew below
	if err := stream.Send(&planv1.AgentMessage{Message: &planv1.AgentMessage_Hello{Hello: hello}}); err != nil {
		_, rerr := stream.Receive() // Send says EOF; the reason is here
		return errors.Join(streamError(err, rerr), stream.CloseResponse())
	}
	var follows atomic.Bool
	var sender sync.WaitGroup
	sender.Go(func() {
		defer cancel()
		s.send(ctx, stream, &follows)
		// The transport does not look at the context while it waits for more to send.
		_ = stream.CloseRequest()
	})
	in := ahead{planStream: stream}
	err = s.receive(ctx, &in, server, &follows)
	cancel()
	sender.Wait()
	in.reading.Wait()      // the context has ended
	stream.CloseResponse() // ended already: nothing to learn
	return err
}

// receive takes in what the server says, and notes whether reports may follow each other on this stream. A server is there for the agent from its first
// update on: one that knows less than the agent holds sends none, and is nobody to report to yet.
func (s *Speaker) receive(ctx context.Context, stream *ahead, server string, follows *atomic.Bool) error {
	for said := false; ; {
		m, err := stream.Receive()
		if err != nil {
			return streamError(err, nil)
		}
		if w := m.GetWelcome(); w != nil {
			follows.Store(w.GetFollows())
		}
		if u := m.GetUpdate(); u != nil {
			if !said {
				said = true
				s.loop.Connection(ctx, server, nil)
			}
			if !u.GetLast() {
				stream.begin()
			}
			if err := s.loop.Receive(ctx, u); err != nil {
				return err
			}
		}
	}
}

// ahead is a stream whose next message is read while the one before is taken in, where more is known to come: reading one of a large plan is
// a quarter of the work.
type ahead struct {
	planStream
	reading sync.WaitGroup
	next    chan received
}

type received struct {
	message *planv1.ServerMessage
	err     error
}

// begin reads the next message.
func (a *ahead) begin() {
	next := make(chan received, 1)
	a.next = next
	a.reading.Go(func() {
		m, err := a.planStream.Receive()
		next <- received{m, err}
	})
}

// Receive is what is read already or under way, or the next.
func (a *ahead) Receive() (*planv1.ServerMessage, error) {
	if a.next == nil {
		return a.planStream.Receive()
	}
	r := <-a.next
	a.next = nil
	return r.message, r.err
}

func streamError(err, reason error) error {
	if reason != nil {
		err = reason
	}
	if ce := new(connect.Error); errors.As(err, &ce) {
		return errors.New(ce.Message())
	}
	return err
}

// acknowledgeWithin is how long an acknowledgement may wait for the next one, or for a report, and go with it. A change to many hosts reaches the last
// of them sooner when the first ones' acknowledgements do not come while the server still sends; a burst of changes has few.
const acknowledgeWithin = 20 * time.Millisecond

// send says what there is to say until the context ends. Where follows, a report is shortened by the one before it on the stream.
func (s *Speaker) send(ctx context.Context, stream planStream, follows *atomic.Bool) {
	wait := time.NewTimer(0)
	defer wait.Stop()
	var reported *planv1.Report
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.ready:
		}
		wait.Reset(acknowledgeWithin)
		for over := false; !over && s.onlyAcknowledges(); {
			select {
			case <-ctx.Done():
				return
			case <-s.ready: // perhaps there is more to say
			case <-wait.C:
				over = true
			}
		}
		out := s.take()
		var list []*planv1.AgentMessage
		if out.facts != nil {
			list = append(list, &planv1.AgentMessage{Message: &planv1.AgentMessage_Facts{Facts: out.facts}})
		}
		if out.applied != nil {
			list = append(list, &planv1.AgentMessage{Message: &planv1.AgentMessage_Applied{Applied: out.applied}})
		}
		if out.report != nil {
			short := out.report
			if follows.Load() {
				short = plan.Shorten(reported, out.report)
			}
			reported = out.report
			list = append(list, &planv1.AgentMessage{Message: &planv1.AgentMessage_Report{Report: short}})
		}
		for _, m := range list {
			if err := stream.Send(m); err != nil {
				return // Receive learns why
			}
		}
	}
}

// client keeps one connection a server, so that calls go beside the stream.
func (s *Speaker) client(server string) planv1connect.AgentServiceClient {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.clients[server]
	if !ok {
		var life context.Context
		life, c.cut = context.WithCancel(context.Background())
		c.http = httpClient(life, s.tls(server))
		c.AgentServiceClient = planv1connect.NewAgentServiceClient(c.http, "https://"+server)
		s.clients[server] = c
	}
	return c
}

// hangUp forgets a connection whose stream ended: the next is made with the certificate that is current then.
func (s *Speaker) hangUp(server string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.clients[server]; ok {
		delete(s.clients, server)
		c.http.CloseIdleConnections() // a call that is under way may finish
	}
}

// close breaks everything off: a server that does not read must not keep an agent from stopping.
func (s *Speaker) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.clients {
		c.cut()
		c.http.CloseIdleConnections()
	}
}

// httpClient speaks HTTP/2 over TLS. Its connections do not outlive the context.
func httpClient(life context.Context, cfg *tls.Config) *http.Client {
	if len(cfg.NextProtos) == 0 {
		cfg.NextProtos = []string{"h2"}
	}
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig:   cfg,
		ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := (&net.Dialer{Timeout: dialTimeout, KeepAlive: pingEvery}).DialContext(ctx, network, address)
			if err == nil {
				context.AfterFunc(life, func() { c.Close() })
			}
			return c, err
		},
		TLSHandshakeTimeout: dialTimeout,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: pingEvery, PingTimeout: pingPatience},
	}}
}

// unreachable is the error of a call that no server answered.
type unreachable struct{ tried []string }

func (u *unreachable) Error() string { return "no server answers: " + strings.Join(u.tried, "; ") }

// call asks the server that is spoken to, or else the others in turn. An answer, also a refusal, is final.
func call[Req, Res any](ctx context.Context, s *Speaker, do func(planv1connect.AgentServiceClient, context.Context, *connect.Request[Req]) (*connect.Response[Res], error), req *Req) (*Res, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s.mu.Lock()
	first := s.next
	s.mu.Unlock()
	failure := &unreachable{}
	for i := range s.servers {
		server := s.servers[(first+i)%len(s.servers)]
		attempt, done := share(ctx, len(s.servers)-i)
		res, err := do(s.client(server), attempt, connect.NewRequest(req))
		done()
		if err == nil {
			select {
			case s.answered <- struct{}{}:
			default:
			}
			return res.Msg, nil
		}
		if !goneAway(err) {
			return nil, err
		}
		failure.tried = append(failure.tried, server+": "+streamError(err, nil).Error())
	}
	return nil, failure
}

// share is one server's part of the time that is left for so many: one that hangs must leave the others some.
func share(ctx context.Context, servers int) (context.Context, context.CancelFunc) {
	if at, ok := ctx.Deadline(); ok && servers > 1 {
		return context.WithTimeout(ctx, time.Until(at)/time.Duration(servers))
	}
	return ctx, func() {}
}

// goneAway tells a server that cannot answer from one that refuses. connect gives what the transport says, and what a
// server without its store says, the same codes.
func goneAway(err error) bool {
	switch connect.CodeOf(err) {
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeCanceled:
		return true
	}
	return false
}

// Bind asks for a port to be bound to this host.
func (s *Speaker) Bind(ctx context.Context, tenant, port string) (*planv1.BindResponse, error) {
	return call(ctx, s, planv1connect.AgentServiceClient.Bind, &planv1.BindRequest{Tenant: tenant, Port: port})
}

// Unbind asks for a port to be bound nowhere.
func (s *Speaker) Unbind(ctx context.Context, uid, tenant, port string) (*planv1.UnbindResponse, error) {
	return call(ctx, s, planv1connect.AgentServiceClient.Unbind, &planv1.UnbindRequest{PortUid: uid, Tenant: tenant, Port: port})
}

// Prepare asks for a port that is bound to another host to be made incoming on this one.
func (s *Speaker) Prepare(ctx context.Context, tenant, port string) (*planv1.PrepareResponse, error) {
	return call(ctx, s, planv1connect.AgentServiceClient.Prepare, &planv1.PrepareRequest{Tenant: tenant, Port: port})
}

// Commit tells that the workload of a port that is incoming here runs here.
func (s *Speaker) Commit(ctx context.Context, req *planv1.CommitRequest) (*planv1.CommitResponse, error) {
	return call(ctx, s, planv1connect.AgentServiceClient.Commit, req)
}

// Abort gives up a port that is incoming here.
func (s *Speaker) Abort(ctx context.Context, uid string, epoch int64, reason string) (*planv1.AbortResponse, error) {
	return call(ctx, s, planv1connect.AgentServiceClient.Abort, &planv1.AbortRequest{PortUid: uid, Epoch: epoch, Reason: reason})
}

// Settle hands over what a port counted here.
func (s *Speaker) Settle(ctx context.Context, req *planv1.SettleRequest) error {
	_, err := call(ctx, s, planv1connect.AgentServiceClient.Settle, req)
	return err
}

// Renew asks for a new certificate.
func (s *Speaker) Renew(ctx context.Context, csr []byte) ([][]byte, error) {
	res, err := call(ctx, s, planv1connect.AgentServiceClient.Renew, &planv1.RenewRequest{Csr: csr})
	if err != nil {
		return nil, err
	}
	return res.Certificates, nil
}
