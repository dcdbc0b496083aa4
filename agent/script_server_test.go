package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/api/gen/plan/v1/planv1connect"
	"github.com/weftnet/weft/plan"
	"github.com/weftnet/weft/trust"
)

// scriptServer is plan.v1 for the hosts h1 and h2 and one network, without a store: it binds what it is asked to, and sends
// everything whole.
type scriptServer struct {
	planv1connect.UnimplementedAgentServiceHandler
	ca   *trust.CA
	http *http.Server
	done sync.WaitGroup

	mu       sync.Mutex
	changed  chan struct{} // closed and made anew with every change
	revision int64
	vteps    map[string]*planv1.Vtep
	ports    map[string]*planv1.Port
	applied  map[string]int64
	reports  map[string]*planv1.Report
	commits  []*planv1.CommitRequest
	settled  []*planv1.SettleRequest
}

type hostKey struct{}

func newScriptServer(t *testing.T, ca *trust.CA, l net.Listener) *scriptServer {
	s := &scriptServer{
		ca: ca, changed: make(chan struct{}), revision: 1, vteps: map[string]*planv1.Vtep{}, ports: map[string]*planv1.Port{},
		applied: map[string]int64{}, reports: map[string]*planv1.Report{},
	}
	for i := range byte(2) {
		uid := fmt.Sprintf("p%d", i+1)
		s.ports[uid] = &planv1.Port{
			Uid: uid, Network: "blue", Macs: [][]byte{{2, 0, 0, 0, 0, i + 1}}, Ips: []string{fmt.Sprintf("10.1.0.%d/24", i+1), fmt.Sprintf("fd00:1::%d/64", i+1)},
			TenantName: "acme", Name: uid,
		}
	}
	mux := http.NewServeMux()
	mux.Handle(planv1connect.NewAgentServiceHandler(s))
	withHost := func(w http.ResponseWriter, r *http.Request) {
		uid, _ := trust.PeerHost(r.TLS)
		mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), hostKey{}, string(uid))))
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	s.http = &http.Server{
		Handler: http.HandlerFunc(withHost), TLSConfig: trust.ServerTLS(ca, nil, time.Now), Protocols: protocols,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0),
	}
	s.done.Go(func() { _ = s.http.ServeTLS(l, "", "") })
	t.Cleanup(s.stop)
	return s
}

func (s *scriptServer) stop() { s.http.Close(); s.done.Wait() }

// change changes the plan under the lock, and tells everybody.
func (s *scriptServer) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revision++
	f()
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *scriptServer) Join(_ context.Context, req *connect.Request[planv1.JoinRequest]) (*connect.Response[planv1.JoinResponse], error) {
	res := &planv1.JoinResponse{HostUid: req.Msg.Host}
	var err error
	switch req.Msg.Host {
	case "h1":
		res.Certificates, err = s.ca.SignHost(req.Msg.Csr, "h1", time.Now())
	case "h2":
		res.Certificates, err = s.ca.SignHost(req.Msg.Csr, "h2", time.Now())
	}
	return connect.NewResponse(res), err
}

func (s *scriptServer) Bind(ctx context.Context, req *connect.Request[planv1.BindRequest]) (res *connect.Response[planv1.BindResponse], err error) {
	host, _ := ctx.Value(hostKey{}).(string)
	s.change(func() {
		p := s.ports[req.Msg.Port]
		if p == nil || p.Active != "" && p.Active != host {
			err = connect.NewError(connect.CodeFailedPrecondition, errors.New("bound elsewhere, or there is none"))
			return
		}
		s.place(p.Uid, host)
		res = connect.NewResponse(&planv1.BindResponse{PortUid: p.Uid, NetworkUid: "blue", Epoch: s.revision, Revision: s.revision})
	})
	return res, err
}

func (s *scriptServer) Unbind(_ context.Context, req *connect.Request[planv1.UnbindRequest]) (*connect.Response[planv1.UnbindResponse], error) {
	s.change(func() { s.place(req.Msg.PortUid, "") })
	return connect.NewResponse(&planv1.UnbindResponse{}), nil
}

func (s *scriptServer) Prepare(ctx context.Context, req *connect.Request[planv1.PrepareRequest]) (*connect.Response[planv1.PrepareResponse], error) {
	host, _ := ctx.Value(hostKey{}).(string)
	res := &planv1.PrepareResponse{PortUid: req.Msg.Port, NetworkUid: "blue"}
	s.change(func() {
		s.step(req.Msg.Port, s.ports[req.Msg.Port].Active, host, "")
		res.Epoch = s.revision
	})
	return connect.NewResponse(res), nil
}

func (s *scriptServer) Commit(ctx context.Context, req *connect.Request[planv1.CommitRequest]) (*connect.Response[planv1.CommitResponse], error) {
	host, _ := ctx.Value(hostKey{}).(string)
	res := &planv1.CommitResponse{}
	s.change(func() {
		s.commits = append(s.commits, req.Msg)
		if p := s.ports[req.Msg.PortUid]; p.Incoming == host {
			s.step(p.Uid, host, "", p.Active)
		}
		res.Epoch = s.ports[req.Msg.PortUid].Epoch
	})
	return connect.NewResponse(res), nil
}

func (s *scriptServer) Settle(_ context.Context, req *connect.Request[planv1.SettleRequest]) (*connect.Response[planv1.SettleResponse], error) {
	s.change(func() { s.settled = append(s.settled, req.Msg) })
	return connect.NewResponse(&planv1.SettleResponse{}), nil
}

// place moves a port. The lock is held.
func (s *scriptServer) place(uid, host string) { s.step(uid, host, "", "") }

// step changes a port's binding. The lock is held.
func (s *scriptServer) step(uid, active, incoming, draining string) {
	p := s.ports[uid]
	s.ports[uid] = &planv1.Port{
		Uid: uid, Network: p.Network, Macs: p.Macs, Ips: p.Ips, TenantName: p.TenantName, Name: p.Name,
		Epoch: s.revision, Active: active, Vtep: active, Incoming: incoming, Draining: draining,
	}
}

// update is everything. The lock is held.
func (s *scriptServer) update(host string) *planv1.Update {
	u := &planv1.Update{StoreId: "script", Revision: s.revision, Last: true}
	h := &planv1.Host{Uid: host, Name: host, Vtep: host, Networks: []string{"blue"}}
	n := &planv1.Network{Uid: "blue", Vni: 5001, Mtu: 1550, Display: "acme/blue"}
	for uid, v := range s.vteps {
		h.Vteps = append(h.Vteps, uid)
		u.Upserts = append(u.Upserts, plan.NewVTEP(s.revision, v).Proto())
	}
	u.Upserts = append(u.Upserts, plan.NewHost(s.revision, h).Proto(), plan.NewNetwork(s.revision, n).Proto())
	for _, p := range s.ports {
		u.Upserts = append(u.Upserts, plan.NewPort(s.revision, p).Proto())
	}
	return u
}

func (s *scriptServer) Stream(ctx context.Context, stream *connect.BidiStream[planv1.AgentMessage, planv1.ServerMessage]) error {
	host, _ := ctx.Value(hostKey{}).(string)
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	addr := net.ParseIP(first.GetHello().GetFacts().GetVtepAddresses()[0]).To4()
	s.change(func() { s.vteps[host] = &planv1.Vtep{Uid: host, Name: host, Addresses: [][]byte{addr}, UdpPort: 4789} })
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer cancel()
		for {
			m, err := stream.Receive()
			if err != nil {
				return
			}
			s.mu.Lock()
			if a := m.GetApplied(); a != nil {
				s.applied[host] = a.Revision
			}
			if r := m.GetReport(); r != nil {
				s.reports[host] = r
			}
			s.mu.Unlock()
		}
	}()
	for {
		s.mu.Lock()
		u, changed := s.update(host), s.changed
		s.mu.Unlock()
		if err := stream.Send(&planv1.ServerMessage{Message: &planv1.ServerMessage_Update{Update: u}}); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// until waits for a condition of what was heard.
func (s *scriptServer) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		s.mu.Lock()
		done := ok()
		s.mu.Unlock()
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s did not happen", what)
		}
		time.Sleep(5 * time.Millisecond) // a poll, bounded by the deadline
	}
}

// untilApplied waits until every host has the newest plan in its kernel.
func (s *scriptServer) untilApplied(t *testing.T) {
	t.Helper()
	s.until(t, "the newest plan's acknowledgement", func() bool {
		for _, host := range []string{"h1", "h2"} {
			if s.applied[host] < s.revision {
				return false
			}
		}
		return true
	})
}
