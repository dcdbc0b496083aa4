package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/api/gen/plan/v1/planv1connect"
	"github.com/weftnet/weft/trust"
)

// testServer speaks plan.v1 over real TLS, and keeps what it heard.
type testServer struct {
	planv1connect.UnimplementedAgentServiceHandler
	ca   *trust.CA
	http *http.Server
	addr string

	mu      sync.Mutex
	heard   []*planv1.AgentMessage
	join    error
	streams int
	send    chan *planv1.ServerMessage
	changed chan struct{}
}

func newTestServer(t *testing.T, ca *trust.CA) *testServer {
	s := &testServer{ca: ca, send: make(chan *planv1.ServerMessage, 16), changed: make(chan struct{}, 100)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	mux := http.NewServeMux()
	mux.Handle(planv1connect.NewAgentServiceHandler(s))
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	s.http = &http.Server{Handler: mux, TLSConfig: trust.ServerTLS(ca, nil, time.Now), Protocols: protocols, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.http.ServeTLS(l, "", "") })
	t.Cleanup(func() { s.http.Close(); serving.Wait() })
	return s
}

func (s *testServer) Join(_ context.Context, req *connect.Request[planv1.JoinRequest]) (*connect.Response[planv1.JoinResponse], error) {
	if s.join != nil {
		return nil, s.join
	}
	chain, err := s.ca.SignHost(req.Msg.Csr, "h1uid", time.Now())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&planv1.JoinResponse{HostUid: "h1uid", Certificates: chain}), nil
}

func (s *testServer) Renew(_ context.Context, req *connect.Request[planv1.RenewRequest]) (*connect.Response[planv1.RenewResponse], error) {
	chain, err := s.ca.SignHost(req.Msg.Csr, "h1uid", time.Now())
	return connect.NewResponse(&planv1.RenewResponse{Certificates: chain}), err
}

func (s *testServer) Bind(_ context.Context, req *connect.Request[planv1.BindRequest]) (*connect.Response[planv1.BindResponse], error) {
	if req.Msg.Port == "taken" {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New("port: it is bound to h2"))
	}
	return connect.NewResponse(&planv1.BindResponse{PortUid: req.Msg.Port}), nil
}

func (s *testServer) Stream(ctx context.Context, stream *connect.BidiStream[planv1.AgentMessage, planv1.ServerMessage]) error {
	s.mu.Lock()
	s.streams++
	s.mu.Unlock()
	done := make(chan error, 1)
	go func() {
		for {
			m, err := stream.Receive()
			if err != nil {
				done <- err
				return
			}
			s.mu.Lock()
			s.heard = append(s.heard, m)
			s.mu.Unlock()
			s.changed <- struct{}{}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-done:
			return err
		case m := <-s.send:
			if m == nil {
				return connect.NewError(connect.CodeUnavailable, errors.New("stopping"))
			}
			if err := stream.Send(m); err != nil {
				return err
			}
		}
	}
}

// until waits until the server heard something that fits.
func (s *testServer) until(t *testing.T, what string, ok func(*planv1.AgentMessage) bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for seen := 0; ; {
		s.mu.Lock()
		heard := s.heard
		s.mu.Unlock()
		for ; seen < len(heard); seen++ {
			if ok(heard[seen]) {
				return
			}
		}
		select {
		case <-s.changed:
		case <-deadline:
			t.Fatalf("%s was not heard; heard %v", what, heard)
		}
	}
}

// echoLoop is a listener that acknowledges everything.
type echoLoop struct {
	speaker *Speaker
	states  chan string
	refuse  error
}

func (l *echoLoop) Hello(context.Context) (*planv1.Hello, error) {
	return &planv1.Hello{Version: "test"}, nil
}

func (l *echoLoop) Receive(_ context.Context, u *planv1.Update) error {
	if l.refuse != nil {
		return l.refuse
	}
	l.speaker.Say(&planv1.Applied{Revision: u.Revision}, nil, nil)
	return nil
}

func (l *echoLoop) Connection(_ context.Context, server string, _ error) {
	select {
	case l.states <- server:
	default:
	}
}

func testCA(t *testing.T) *trust.CA {
	ca, err := trust.OpenCA(filepath.Join(t.TempDir(), "ca"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func testJoin(t *testing.T, ca *trust.CA, servers ...string) (Config, *trust.HostIdentity, error) {
	token, err := trust.NewToken(trust.JoinToken, ca.Fingerprint())
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Name: "h1", Servers: servers, Token: token.String(), Dir: t.TempDir()}.withDefaults()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	id, err := join(ctx, cfg)
	return cfg, id, err
}

// TestJoin turns red when a host does not join at the first server that answers, forgets that it joined, or trusts a
// server of another deployment.
func TestJoin(t *testing.T) {
	ca := testCA(t)
	s := newTestServer(t, ca)
	cfg, id, err := testJoin(t, ca, "127.0.0.1:1", s.addr)
	if err != nil || id.UID != "h1uid" {
		t.Fatalf("%v %v", id, err)
	}
	cfg.Token, cfg.Servers = "", []string{"127.0.0.1:1"}
	if again, err := join(context.Background(), cfg); err != nil || again.UID != "h1uid" {
		t.Errorf("a second start: %v", err)
	}
	if _, _, err := testJoin(t, testCA(t), s.addr); err == nil || !strings.Contains(err.Error(), "another deployment") {
		t.Errorf("a foreign server: %v", err)
	}
	s.join = connect.NewError(connect.CodeUnauthenticated, errors.New("token: it was used"))
	if _, _, err := testJoin(t, ca, s.addr); err == nil || !strings.Contains(err.Error(), "it was used") {
		t.Errorf("a refusal: %v", err)
	}
	if _, err := join(context.Background(), Config{Name: "h1", Dir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "weft host token create h1") {
		t.Errorf("no token: %v", err)
	}
}

// TestSpeaker turns red when a stream is not opened at the server that answers, when acknowledgements do not arrive, or when a
// stream that ended is not opened again.
func TestSpeaker(t *testing.T) {
	ca := testCA(t)
	s := newTestServer(t, ca)
	cfg, id, err := testJoin(t, ca, s.addr)
	if err != nil {
		t.Fatal(err)
	}
	renewer := trust.NewRenewer(trust.RenewerConfig{Dir: filepath.Join(cfg.Dir, "identity"), Identity: id})
	loop := &echoLoop{states: make(chan string, 100)}
	loop.speaker = NewSpeaker([]string{"127.0.0.1:1", s.addr}, renewer.ClientTLS, loop, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { loop.speaker.Run(ctx) })
	defer running.Wait()
	defer cancel()

	s.until(t, "a hello", func(m *planv1.AgentMessage) bool { return m.GetHello().GetVersion() == "test" })
	s.send <- &planv1.ServerMessage{Message: &planv1.ServerMessage_Update{Update: &planv1.Update{Revision: 7, Last: true}}}
	s.until(t, "an acknowledgement", func(m *planv1.AgentMessage) bool { return m.GetApplied().GetRevision() == 7 })
	loop.speaker.Say(nil, &planv1.Facts{Uplink: "eth7"}, &planv1.Report{Conditions: []*planv1.Condition{{Name: "c"}}})
	s.until(t, "facts", func(m *planv1.AgentMessage) bool { return m.GetFacts().GetUplink() == "eth7" })
	s.until(t, "a report", func(m *planv1.AgentMessage) bool { return len(m.GetReport().GetConditions()) == 1 })
	testReportsFollow(t, s, loop.speaker)

	if res, err := loop.speaker.Bind(ctx, "acme", "web1"); err != nil || res.PortUid != "web1" {
		t.Errorf("bind: %v %v", res, err)
	}
	if _, err := loop.speaker.Bind(ctx, "acme", "taken"); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("a refused bind: %v", err)
	}
	chain, err := loop.speaker.Renew(ctx, newCSR(t))
	if err != nil || len(chain) != 2 {
		t.Errorf("renew: %v", err)
	}

	s.mu.Lock()
	s.heard = nil
	s.mu.Unlock()
	s.send <- nil
	s.until(t, "a second hello", func(m *planv1.AgentMessage) bool { return m.GetHello() != nil })

	gone := NewSpeaker([]string{"127.0.0.1:1", "127.0.0.1:2"}, func(string) *tls.Config { return &tls.Config{} }, loop, slog.New(slog.DiscardHandler))
	_, err = gone.Bind(ctx, "acme", "web1")
	var away *unreachable
	if !errors.As(err, &away) || !strings.Contains(err.Error(), "127.0.0.1:1") || !strings.Contains(err.Error(), "127.0.0.1:2") {
		t.Errorf("nobody there: %v", err)
	}
}

// testReportsFollow: once a server has said that it understands, a report says what changed since the one before it on the stream. Break it: shorten
// reports for a server that did not say so, or begin a new stream with one.
func testReportsFollow(t *testing.T, s *testServer, speaker *Speaker) {
	t.Helper()
	said := func(counted uint64, follows bool, ports int) {
		t.Helper()
		speaker.Say(nil, nil, &planv1.Report{Ports: []*planv1.PortReport{{Uid: "p", EgressPackets: counted}}, Conditions: []*planv1.Condition{{Name: fmt.Sprint(counted)}}})
		s.until(t, "a report", func(m *planv1.AgentMessage) bool {
			r := m.GetReport()
			if len(r.GetConditions()) != 1 || r.Conditions[0].Name != fmt.Sprint(counted) {
				return false
			}
			if r.Follows != follows || len(r.Ports) != ports || follows && r.Counts[2] != counted {
				t.Errorf("report %d: %v", counted, r)
			}
			return true
		})
	}
	welcome := func(revision int64) {
		s.send <- &planv1.ServerMessage{Message: &planv1.ServerMessage_Welcome{Welcome: &planv1.Welcome{Follows: true}}}
		s.send <- &planv1.ServerMessage{Message: &planv1.ServerMessage_Update{Update: &planv1.Update{Revision: revision, Last: true}}}
		s.until(t, "an acknowledgement", func(m *planv1.AgentMessage) bool { return m.GetApplied().GetRevision() == revision })
	}
	said(1, false, 1)
	said(2, false, 1)
	welcome(8)
	said(3, true, 0)
	said(4, true, 0)
	s.mu.Lock()
	s.heard = nil
	s.mu.Unlock()
	s.send <- nil
	s.until(t, "another hello", func(m *planv1.AgentMessage) bool { return m.GetHello() != nil })
	said(5, false, 1)
	said(6, false, 1) // it may be another server, which has not said that it understands
	welcome(9)
	said(7, true, 0)
}

func newCSR(t *testing.T) []byte {
	j, err := trust.PrepareJoin(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return j.CSR
}

// TestSay turns red when a refusal is overwritten before it was sent.
func TestSay(t *testing.T) {
	s := NewSpeaker([]string{"x"}, nil, nil, slog.New(slog.DiscardHandler))
	s.Say(&planv1.Applied{Revision: 1, Refused: "too much"}, nil, nil)
	s.Say(&planv1.Applied{Revision: 2}, nil, nil)
	if out := s.take(); out.applied.Refused == "" {
		t.Errorf("sends %v", out.applied)
	}
}

// TestAServerThatHangs: a call with a time limit, as a hypervisor's hook has, reaches the second server while the first takes requests and answers
// none. Give the first all of the time in share and it goes red.
func TestAServerThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSpeaker([]string{"one:1", "two:2"}, func(string) *tls.Config { return &tls.Config{} }, nil, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithTimeout(t.Context(), takeTimeout) // the bubble's clock
		defer cancel()
		asked := 0
		res, err := call(ctx, s, func(_ planv1connect.AgentServiceClient, ctx context.Context, _ *connect.Request[planv1.PrepareRequest]) (*connect.Response[planv1.PrepareResponse], error) {
			if asked++; asked == 1 {
				<-ctx.Done()
			}
			if err := ctx.Err(); err != nil {
				return nil, connect.NewError(connect.CodeDeadlineExceeded, err)
			}
			return connect.NewResponse(&planv1.PrepareResponse{Epoch: 7}), nil
		}, &planv1.PrepareRequest{})
		if err != nil || res.GetEpoch() != 7 || asked != 2 {
			t.Errorf("%v, %v after %d servers were asked", res, err, asked)
		}
	})
}

// heardStream is a stream that notes when what was sent on it.
type heardStream struct {
	planStream
	began time.Time
	said  []string
}

func (h *heardStream) Send(m *planv1.AgentMessage) error {
	what := fmt.Sprint("applied ", m.GetApplied().GetRevision(), m.GetApplied().GetRefused())
	if m.GetReport() != nil {
		what = "report"
	}
	h.said = append(h.said, fmt.Sprint(time.Since(h.began).Milliseconds(), " ms: ", what))
	return nil
}

// TestAcknowledgementsWait: acknowledgements that come close to each other are one, and none is later than it may be; refusals wait for nothing, and
// what else is said takes an acknowledgement along. Break it: wait for everything, for nothing, or for as long as acknowledgements come.
func TestAcknowledgementsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s, h := NewSpeaker([]string{"x"}, nil, nil, slog.New(slog.DiscardHandler)), &heardStream{began: time.Now()}
		var sender sync.WaitGroup
		sender.Go(func() { s.send(ctx, h, new(atomic.Bool)) })
		say := func(revision int64, refused string, report *planv1.Report) {
			s.Say(&planv1.Applied{Revision: revision, Refused: refused}, nil, report)
			synctest.Wait()
		}
		for revision := range int64(7) { // 0, 6, ..., 36 ms
			say(revision, "", nil)
			time.Sleep(6 * time.Millisecond) // the bubble's clock, here and below
		}
		time.Sleep(58 * time.Millisecond)
		say(8, "no", nil) // 100 ms
		say(9, "", &planv1.Report{})
		time.Sleep(100 * time.Millisecond)
		say(10, "", nil) // 200 ms
		time.Sleep(5 * time.Millisecond)
		say(11, "no", nil)
		time.Sleep(95 * time.Millisecond)
		say(12, "", nil) // 300 ms
		time.Sleep(5 * time.Millisecond)
		say(13, "", &planv1.Report{})
		time.Sleep(time.Second)
		cancel()
		sender.Wait()
		want := []string{"20 ms: applied 3", "44 ms: applied 6", "100 ms: applied 8no", "100 ms: applied 9", "100 ms: report",
			"205 ms: applied 11no", "305 ms: applied 13", "305 ms: report"}
		if !slices.Equal(h.said, want) {
			t.Errorf("said %q, want %q", h.said, want)
		}
	})
}

// scripted is a stream that brings these messages.
type scripted struct {
	planStream
	list []*planv1.ServerMessage
}

func (s *scripted) Receive() (*planv1.ServerMessage, error) {
	if len(s.list) == 0 {
		return nil, io.EOF
	}
	m := s.list[0]
	s.list = s.list[1:]
	return m, nil
}

// TestWelcome: a server's welcome says what it understands, and nothing of a plan: it is there for the agent from its first update on. Break it: tell of
// the connection at whatever comes first, or take no notice of the welcome.
func TestWelcome(t *testing.T) {
	welcome := &planv1.ServerMessage{Message: &planv1.ServerMessage_Welcome{Welcome: &planv1.Welcome{Follows: true}}}
	update := &planv1.ServerMessage{Message: &planv1.ServerMessage_Update{Update: &planv1.Update{Revision: 1, Last: true}}}
	for _, c := range []struct {
		name    string
		list    []*planv1.ServerMessage
		told    int
		follows bool
	}{
		{"a server of the first version", []*planv1.ServerMessage{update, update}, 1, false},
		{"one that waits", []*planv1.ServerMessage{welcome}, 0, true},
		{"one that has a plan", []*planv1.ServerMessage{welcome, update, update}, 1, true},
	} {
		loop := &echoLoop{states: make(chan string, 10)}
		loop.speaker = NewSpeaker([]string{"x"}, nil, loop, slog.New(slog.DiscardHandler))
		var follows atomic.Bool
		if err := loop.speaker.receive(t.Context(), &ahead{planStream: &scripted{list: c.list}}, "x", &follows); err == nil || len(loop.states) != c.told || follows.Load() != c.follows {
			t.Errorf("%s: told %d times, follows %t, %v", c.name, len(loop.states), follows.Load(), err)
		}
	}
}

// chunked is a stream of these updates, and the loop that takes them in.
type chunked struct {
	planStream
	updates []*planv1.Update
	asked   atomic.Int32
	took    []int64
	problem string
}

func (c *chunked) Receive() (*planv1.ServerMessage, error) {
	n := int(c.asked.Add(1))
	if n > len(c.updates) {
		return nil, io.EOF
	}
	return &planv1.ServerMessage{Message: &planv1.ServerMessage_Update{Update: c.updates[n-1]}}, nil
}

// takingLoop takes in what a chunked stream brings.
type takingLoop struct {
	listener
	*chunked
}

func (l takingLoop) Connection(context.Context, string, error) {}

func (l takingLoop) Receive(_ context.Context, u *planv1.Update) error {
	l.took = append(l.took, u.GetRevision())
	synctest.Wait()
	if asked := int(l.asked.Load()); (asked > len(l.took)) == u.GetLast() {
		l.problem += fmt.Sprintf("while %d was taken in, %d messages were asked for; ", u.GetRevision(), asked)
	}
	if u.GetRevision() == 5 {
		return errors.New("refused")
	}
	return nil
}

// TestReadsAhead: while a part of a plan is taken in the next is read, in order, and nothing is when no more is known to come. Break it: read
// ahead always, or never, or leave what was read behind.
func TestReadsAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &chunked{}
		for i, last := range []bool{true, false, false, true, false, false} {
			c.updates = append(c.updates, &planv1.Update{Revision: int64(i + 1), Last: last})
		}
		s, in := NewSpeaker([]string{"x"}, nil, takingLoop{chunked: c}, slog.New(slog.DiscardHandler)), &ahead{planStream: c}
		err := s.receive(t.Context(), in, "x", new(atomic.Bool))
		in.reading.Wait()
		if want := []int64{1, 2, 3, 4, 5}; !slices.Equal(c.took, want) || c.problem != "" || err == nil || err.Error() != "refused" {
			t.Errorf("took %v, want %v; %s%v", c.took, want, c.problem, err)
		}
	})
}
