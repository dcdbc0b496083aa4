package cli_test

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
)

// A move of the fake server goes a phase on each time a watch has been told the one before. How it behaves is in the port's description:
// "stuck" is never prepared, "fails" aborts itself, "event" is committed by its workload as soon as it is prepared, "deaf" loses the first answer to a
// commit that it did, "cut" breaks off a watch after each message.
func (f *fake) moving(p *weftv1.Port, how string) bool { return p.GetSpec().GetDescription() == how }

func (f *fake) portOf(tenant, name string) (*weftv1.Port, error) {
	p, ok := f.ports.by[tenant+"/"+name]
	if !ok {
		return nil, refuse(connect.CodeNotFound, "name", "there is no port "+name, "")
	}
	return p, nil
}

func (f *fake) rebind(p *weftv1.Port, b *weftv1.Binding) {
	f.revision++
	b.Epoch = f.revision
	p.Status.Binding = b
}

func stale(p *weftv1.Port, epoch int64) error {
	if b := p.GetStatus().GetBinding(); epoch != 0 && epoch != b.GetEpoch() {
		return refuse(connect.CodeAborted, "epoch", fmt.Sprintf("epoch %d is not the current one, %d", epoch, b.GetEpoch()), "look again")
	}
	return nil
}

func (f ports) PrepareMove(_ context.Context, r *connect.Request[weftv1.PrepareMoveRequest]) (*connect.Response[weftv1.Port], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, err := f.portOf(r.Msg.GetTenant(), r.Msg.GetName())
	if err == nil {
		err = stale(p, r.Msg.GetEpoch())
	}
	if err != nil {
		return nil, err
	}
	b := p.GetStatus().GetBinding()
	if b.GetIncoming() != "" {
		return nil, refuse(connect.CodeFailedPrecondition, "name", "it is moving to "+b.GetIncoming()+" already", "abort that move first")
	}
	if b.GetActive() == r.Msg.GetHost() {
		return nil, refuse(connect.CodeFailedPrecondition, "host", "it is there already", "name another host")
	}
	if h := f.hosts.by[r.Msg.GetHost()]; h.GetStatus().GetDuty() != weftv1.HostDuty_HOST_DUTY_ACTIVE {
		return nil, refuse(connect.CodeFailedPrecondition, "host", r.Msg.GetHost()+" is drained", "return it with `weft host return`")
	}
	f.rebind(p, &weftv1.Binding{Active: b.GetActive(), Incoming: r.Msg.GetHost()})
	p.Status.Move = &weftv1.Move{From: b.GetActive(), To: r.Msg.GetHost(), Phase: weftv1.MovePhase_MOVE_PHASE_PREPARING, By: "root",
		Message: "waiting for " + r.Msg.GetHost(), Epoch: f.revision}
	return answer(proto.Clone(p).(*weftv1.Port), nil)
}

func (f *fake) commit(p *weftv1.Port, cause weftv1.CommitCause) {
	b := p.GetStatus().GetBinding()
	f.rebind(p, &weftv1.Binding{Active: b.GetIncoming(), Draining: b.GetActive()})
	p.Status.Move.Phase, p.Status.Move.Message, p.Status.Move.CommitCause = weftv1.MovePhase_MOVE_PHASE_DRAINING, "", cause
}

func (f *fake) abort(p *weftv1.Port, why string) {
	f.rebind(p, &weftv1.Binding{Active: p.GetStatus().GetBinding().GetActive()})
	p.Status.Move.Phase, p.Status.Move.Message = weftv1.MovePhase_MOVE_PHASE_ABORTED, why
}

func (f ports) CommitMove(_ context.Context, r *connect.Request[weftv1.CommitMoveRequest]) (*connect.Response[weftv1.Port], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, err := f.portOf(r.Msg.GetTenant(), r.Msg.GetName())
	if err == nil {
		err = stale(p, r.Msg.GetEpoch())
	}
	if err != nil {
		return nil, err
	}
	if f.moving(p, "event") && p.GetStatus().GetMove().GetPhase() == weftv1.MovePhase_MOVE_PHASE_PREPARED {
		f.commit(p, weftv1.CommitCause_COMMIT_CAUSE_FIRST_FRAME) // it was the faster one
	}
	if p.GetStatus().GetMove().GetPhase() != weftv1.MovePhase_MOVE_PHASE_PREPARED {
		return nil, refuse(connect.CodeFailedPrecondition, "name", "its move is not prepared", "wait for it")
	}
	f.commit(p, weftv1.CommitCause_COMMIT_CAUSE_COMMAND)
	if f.moving(p, "deaf") {
		p.Spec.Description = ""
		return nil, connect.NewError(connect.CodeUnavailable, fmt.Errorf("the server is stopping"))
	}
	return answer(proto.Clone(p).(*weftv1.Port), nil)
}

func (f ports) AbortMove(_ context.Context, r *connect.Request[weftv1.AbortMoveRequest]) (*connect.Response[weftv1.Port], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, err := f.portOf(r.Msg.GetTenant(), r.Msg.GetName())
	if err == nil {
		err = stale(p, r.Msg.GetEpoch())
	}
	if err != nil {
		return nil, err
	}
	if p.GetStatus().GetBinding().GetIncoming() == "" {
		return nil, refuse(connect.CodeFailedPrecondition, "name", "it is not moving", "")
	}
	f.abort(p, "by root")
	return answer(proto.Clone(p).(*weftv1.Port), nil)
}

// next takes a move a phase on; false when it stays as it is.
func (f *fake) next(p *weftv1.Port) bool {
	m := p.GetStatus().GetMove()
	switch m.GetPhase() {
	case weftv1.MovePhase_MOVE_PHASE_PREPARING:
		if f.moving(p, "stuck") {
			return false
		}
		if f.moving(p, "fails") {
			f.abort(p, "h3: the table of ports is full")
			return true
		}
		m.Phase, m.Message = weftv1.MovePhase_MOVE_PHASE_PREPARED, ""
	case weftv1.MovePhase_MOVE_PHASE_PREPARED:
		if !f.moving(p, "event") {
			return false
		}
		f.commit(p, weftv1.CommitCause_COMMIT_CAUSE_FIRST_FRAME)
	case weftv1.MovePhase_MOVE_PHASE_DRAINING:
		f.rebind(p, &weftv1.Binding{Active: p.GetStatus().GetBinding().GetActive()})
		m.Phase, m.DarkTime = weftv1.MovePhase_MOVE_PHASE_DONE, durationpb.New(1234567*time.Nanosecond)
	default:
		return false
	}
	return true
}

func (f ports) WatchMove(ctx context.Context, r *connect.Request[weftv1.WatchMoveRequest], s *connect.ServerStream[weftv1.Move]) error {
	for {
		f.mu.Lock()
		p, err := f.portOf(r.Msg.GetTenant(), r.Msg.GetName())
		m := proto.Clone(p.GetStatus().GetMove()).(*weftv1.Move)
		f.mu.Unlock()
		if err != nil {
			return err
		}
		if err := s.Send(m); err != nil || m.GetPhase() >= weftv1.MovePhase_MOVE_PHASE_DONE {
			return err
		}
		if m.GetPhase() == weftv1.MovePhase_MOVE_PHASE_DRAINING { // who has seen enough has hung up by then, and the move stays there
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(500 * time.Millisecond):
			}
		}
		f.mu.Lock()
		cut := f.moving(p, "cut")
		went := f.next(p)
		f.mu.Unlock()
		if cut {
			return connect.NewError(connect.CodeUnavailable, fmt.Errorf("the server is stopping"))
		}
		if !went {
			<-ctx.Done()
			return nil
		}
	}
}

func (f *fakeAgent) Commit(_ context.Context, r *connect.Request[localv1.CommitRequest]) (*connect.Response[localv1.CommitResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := f.find(r.Msg.GetTenant(), r.Msg.GetPort())
	if at.GetMove() != "incoming" {
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("port %s/%s is not incoming on this host; begin a move", r.Msg.GetTenant(), r.Msg.GetPort()))
	}
	at.Move, at.State, at.DarkNanoseconds = "committed", "active", 2500*1000
	return answer(&localv1.CommitResponse{Attachment: at}, nil)
}

func (f *fakeAgent) Abort(_ context.Context, r *connect.Request[localv1.AbortRequest]) (*connect.Response[localv1.AbortResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.find(r.Msg.GetTenant(), r.Msg.GetPort()).GetMove() != "incoming" {
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("port %s/%s is not incoming on this host", r.Msg.GetTenant(), r.Msg.GetPort()))
	}
	f.drop(r.Msg.GetTenant(), r.Msg.GetPort())
	f.calls = append(f.calls, "abort "+r.Msg.GetTenant()+"/"+r.Msg.GetPort()+": "+r.Msg.GetReason())
	return answer(&localv1.AbortResponse{}, nil)
}

func (f hosts) duty(name string, d weftv1.HostDuty, why string) (*weftv1.Host, error) {
	h, ok := f.hosts.by[name]
	if !ok {
		return nil, refuse(connect.CodeNotFound, "name", "there is no host "+name, "look with `weft host list`")
	}
	h.Status.Duty, h.Status.DutyMessage = d, why
	return proto.Clone(h).(*weftv1.Host), nil
}

func (f hosts) DrainHost(_ context.Context, r *connect.Request[weftv1.DrainHostRequest]) (*connect.Response[weftv1.DrainHostResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h, err := f.duty(r.Msg.GetName(), weftv1.HostDuty_HOST_DUTY_DRAINED, "")
	if err != nil {
		return nil, err
	}
	res := &weftv1.DrainHostResponse{Host: h}
	for _, p := range f.ports.all("") {
		if b := p.GetStatus().GetBinding(); b.GetActive() == h.GetName() || b.GetIncoming() == h.GetName() || b.GetDraining() == h.GetName() {
			res.Ports = append(res.Ports, proto.Clone(p).(*weftv1.Port))
		}
	}
	return answer(res, nil)
}

func (f hosts) FailHost(_ context.Context, r *connect.Request[weftv1.FailHostRequest]) (*connect.Response[weftv1.FailHostResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h, err := f.duty(r.Msg.GetName(), weftv1.HostDuty_HOST_DUTY_FAILED, r.Msg.GetReason())
	if err != nil {
		return nil, err
	}
	res := &weftv1.FailHostResponse{Host: h}
	for _, p := range f.ports.all("") {
		if p.GetStatus().GetBinding().GetActive() == h.GetName() {
			f.rebind(p, &weftv1.Binding{})
			res.UnboundPorts = append(res.UnboundPorts, p.GetTenant()+"/"+p.GetName())
		}
	}
	return answer(res, nil)
}

func (f hosts) ReturnHost(_ context.Context, r *connect.Request[weftv1.ReturnHostRequest]) (*connect.Response[weftv1.Host], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return answer(f.duty(r.Msg.GetName(), weftv1.HostDuty_HOST_DUTY_ACTIVE, ""))
}
