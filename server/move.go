package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/plan"
	"github.com/weftnet/weft/store"
)

// A move is a transaction of several steps, each one compare-and-swap (decision 7):
//
//	prepare  {active a}             -> {active a, incoming h}   preparing, then prepared
//	commit   {active a, incoming h} -> {active h, draining a}   draining
//	drained  {active h, draining a} -> {active h}               done
//	abort    {active a, incoming h} -> {active a}               aborted
//
// Handlers take the steps that somebody asks for. What follows by itself is for conduct (conduct.go) on any of the servers, so that a move goes
// on whichever of them is killed.

// MovePort implements weft.v1. The move is written down as one that is to be committed when it is prepared: it comes to its end without this
// request, too.
func (a *api) MovePort(ctx context.Context, req *connect.Request[weftv1.MovePortRequest]) (*connect.Response[weftv1.Port], error) {
	p, h, err := a.portAndHost(ctx, req.Msg)
	if err != nil {
		return nil, err
	}
	at, err := a.prepare(ctx, p, h, preparation{epoch: model.Epoch(req.Msg.GetEpoch()), by: identityOf(ctx).String(), atOnce: true})
	if err != nil {
		return nil, err
	}
	if at.Active != h.UID {
		if err := a.moved(ctx, p, &at.move); err != nil {
			return nil, err
		}
	}
	return a.portAnswer(ctx, p), nil
}

// PrepareMove implements weft.v1.
func (a *api) PrepareMove(ctx context.Context, req *connect.Request[weftv1.PrepareMoveRequest]) (*connect.Response[weftv1.Port], error) {
	p, h, err := a.portAndHost(ctx, req.Msg)
	if err != nil {
		return nil, err
	}
	if _, err := a.prepare(ctx, p, h, preparation{epoch: model.Epoch(req.Msg.GetEpoch()), by: identityOf(ctx).String()}); err != nil {
		return nil, err
	}
	return a.portAnswer(ctx, p), nil
}

func (a *api) portAndHost(ctx context.Context, req interface {
	GetTenant() string
	GetName() string
	GetHost() string
}) (*model.Port, *model.Host, error) {
	p, err := a.port(ctx, "name", req.GetTenant(), req.GetName())
	if err != nil {
		return nil, nil, err
	}
	h, err := a.host(ctx, "host", req.GetHost())
	return p, h, err
}

// CommitMove implements weft.v1. Committing again what is committed changes nothing.
func (a *api) CommitMove(ctx context.Context, req *connect.Request[weftv1.CommitMoveRequest]) (*connect.Response[weftv1.Port], error) {
	p, err := a.port(ctx, "name", req.Msg.GetTenant(), req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	epoch := model.Epoch(req.Msg.GetEpoch())
	_, err = a.swap(ctx, p, func(w *model.World, at *place) error {
		if err := at.is(p, epoch); err != nil {
			return err
		}
		switch m := &at.move; {
		case m.Phase == model.MoveDraining || m.Phase == model.MoveDone && at.Active == m.To:
			return nil
		case !m.Pending():
			return noMove(p, m, "commit")
		}
		if r := a.readiness(w, p, at, nil); at.move.Phase == model.MovePreparing || !r.reachable || r.broken != "" {
			return model.Errorf(model.Conflict, "name",
				fmt.Sprintf("wait until it is prepared: `weft port show %s --tenant %s`", p.Name, p.Tenant), "the move is not prepared: %s", r.missing())
		}
		at.commit(model.CommitByCommand, a.moment())
		return nil
	})
	if err != nil {
		return nil, err
	}
	return a.portAnswer(ctx, p), nil
}

// AbortMove implements weft.v1. Aborting again what is aborted changes nothing.
func (a *api) AbortMove(ctx context.Context, req *connect.Request[weftv1.AbortMoveRequest]) (*connect.Response[weftv1.Port], error) {
	p, err := a.port(ctx, "name", req.Msg.GetTenant(), req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	epoch, who := model.Epoch(req.Msg.GetEpoch()), identityOf(ctx).String()
	_, err = a.swap(ctx, p, func(w *model.World, at *place) error {
		if err := at.is(p, epoch); err != nil {
			return err
		}
		switch m := &at.move; {
		case m.Phase == model.MoveAborted:
			return nil
		case !m.Pending():
			return noMove(p, m, "abort")
		}
		at.abort("aborted by "+who, a.moment())
		return nil
	})
	if err != nil {
		return nil, err
	}
	return a.portAnswer(ctx, p), nil
}

// preparation is what is asked for.
type preparation struct {
	// epoch is 0 or the one that the asker saw.
	epoch model.Epoch
	by    string
	// atOnce: commit it when it is prepared.
	atOnce bool
	// allowed says whether the asker may move the port that is there; nil is yes.
	allowed func(w *model.World, at *place) error
}

// prepare makes a host incoming. Asking again for what is under way changes nothing.
func (a *api) prepare(ctx context.Context, p *model.Port, h *model.Host, want preparation) (place, error) {
	return a.swap(ctx, p, func(w *model.World, at *place) error {
		m := &at.move
		switch {
		case want.epoch != 0 && want.epoch != at.Epoch:
			return staleEpoch(p, want.epoch, at.Epoch)
		case at.Active == "":
			return model.Errorf(model.Conflict, "name",
				fmt.Sprintf("attach it on its host with `weft port attach %s --tenant %s`", p.Name, p.Tenant),
				"port %s is not bound to a host, so there is nothing to move", p.Name)
		}
		if want.allowed != nil {
			if err := want.allowed(w, at); err != nil {
				return err
			}
		}
		switch {
		case m.Pending() && at.Incoming == h.UID:
			m.AtOnce = m.AtOnce || want.atOnce
			return nil
		case at.Incoming != "":
			return model.Errorf(model.Conflict, "host",
				fmt.Sprintf("let it end, or abort it with `weft port move %s --tenant %s --abort`", p.Name, p.Tenant),
				"port %s is already moving, to host %s", p.Name, w.HostName(at.Incoming))
		case at.Active == h.UID && want.atOnce:
			return nil // it is where it is wanted
		case at.Active == h.UID:
			return model.Errorf(model.Conflict, "host", "name another host", "port %s is on host %s already", p.Name, h.Name)
		}
		if err := a.takes(w, h, p); err != nil {
			return err
		}
		at.Binding = at.Preparing(h.UID)
		at.move = model.Move{
			Port: p.UID, From: at.Active, To: h.UID, Phase: model.MovePreparing, AtOnce: want.atOnce, By: want.by,
			Started: a.moment(), Revision: m.Revision,
		}
		return nil
	})
}

// takes refuses a host that a port cannot be moved to now.
func (a *api) takes(w *model.World, h *model.Host, p *model.Port) error {
	if no := dutyOf(w, h).Receives(h.Name); no != nil {
		return no
	}
	f := w.Facts[h.UID]
	if f == nil || len(f.VTEPAddresses) == 0 {
		return model.Errorf(model.Conflict, "host", "start its agent, and see `weft host show "+h.Name+"`",
			"host %s has told no uplink address, so nothing reaches it", h.Name)
	}
	if said, _ := a.heard.host(h.UID); !said.live() {
		return model.Errorf(model.Conflict, "host", "see that its agent runs and reaches a server, or choose another host",
			"host %s is not connected, so the move cannot be prepared there", h.Name)
	}
	if !slices.Contains(f.Features, plan.FeatureMoves) {
		return model.Errorf(model.Conflict, "host", "upgrade it there, or choose another host",
			"the agent of host %s (version %s) is too old to take a port over by steps", h.Name, f.Version)
	}
	return hostCarries(w, h, w.Networks[p.Alloc.NetworkUID])
}

// moved waits until a move that is committed as soon as it can be has left its preparation, and says how.
func (a *api) moved(ctx context.Context, p *model.Port, begun *model.Move) error {
	for {
		advanced := a.view.advances()
		var at place
		var gone bool
		a.view.read(func(w *model.World) { at, gone = placeOf(w, p), w.Ports[p.UID] == nil })
		switch m := &at.move; {
		case gone:
			return missing("name", "port", p.Name, "weft port list --tenant "+p.Tenant)
		case m.Epoch > begun.Epoch && m.From != begun.To:
			return staleEpoch(p, begun.Epoch, at.Epoch)
		case m.Epoch > begun.Epoch || m.Epoch == begun.Epoch && (m.Phase == model.MoveDraining || m.Phase == model.MoveDone && at.Active == m.To):
			return nil
		case m.Epoch == begun.Epoch && !m.Open():
			return model.Errorf(model.Conflict, "host", fmt.Sprintf("look with `weft port show %s --tenant %s`, and move it again when that is put right", p.Name, p.Tenant),
				"the port was not moved: %s", m.Message)
		}
		select {
		case <-advanced:
		case <-ctx.Done():
			return ctx.Err()
		case <-a.stopping.Done():
			return &store.UnknownError{What: "the move of port " + p.Name, Err: errors.New("the server is stopping")}
		}
	}
}

// is refuses an epoch that is not of the move. 0 is of any. While a move is pending, the binding's own epoch names it as well: after a restore
// that is another one.
func (at *place) is(p *model.Port, epoch model.Epoch) error {
	if epoch == 0 || epoch == at.move.Epoch || at.move.Pending() && epoch == at.Epoch {
		return nil
	}
	return model.Errorf(model.Stale, "epoch",
		fmt.Sprintf("look with `weft port show %s --tenant %s`, and repeat with the epoch that it shows of the move", p.Name, p.Tenant),
		"epoch %d is not of the last move of port %s, which is %d", epoch, p.Name, at.move.Epoch)
}

func noMove(p *model.Port, m *model.Move, verb string) error {
	what := "has not been moved"
	switch m.Phase {
	case model.MoveAborted:
		what = "stayed where it was: " + m.Message
	case model.MoveDraining, model.MoveDone:
		what = "was moved already"
	}
	return model.Errorf(model.Conflict, "name", fmt.Sprintf("begin one with `weft port move %s --tenant %s --host HOST`", p.Name, p.Tenant),
		"there is no move of port %s to %s: it %s", p.Name, verb, what)
}

func (at *place) commit(cause model.CommitCause, now time.Time) {
	m := &at.move
	if m.Prepared.IsZero() && cause == model.CommitByCommand {
		m.Prepared = now
	}
	at.Binding = at.Committed()
	m.Phase, m.Cause, m.Committed, m.Message = model.MoveDraining, cause, now, ""
}

func (at *place) abort(why string, now time.Time) {
	at.Binding, at.move = at.Aborted(), at.move.End(model.MoveAborted, why, now)
}

func (at *place) drained(why string, now time.Time) {
	at.Binding, at.move = at.Drained(), at.move.End(model.MoveDone, why, now)
}

// moment is now, as it is written down.
func (a *api) moment() time.Time { return a.now().UTC().Round(0) }

// WatchMove implements weft.v1.
func (a *api) WatchMove(ctx context.Context, req *connect.Request[weftv1.WatchMoveRequest], out *connect.ServerStream[weftv1.Move]) error {
	p, err := a.port(ctx, "name", req.Msg.GetTenant(), req.Msg.GetName())
	if err != nil {
		return err
	}
	var epoch model.Epoch
	var sent *weftv1.Move
	for {
		advanced, changed := a.view.advances(), a.heard.changes()
		var now *weftv1.Move
		a.view.read(func(w *model.World) {
			if w.Ports[p.UID] == nil {
				return
			}
			m := w.Moves[p.UID]
			switch {
			case m == nil:
			case epoch != 0 && m.Epoch != epoch: // the next one began: this one ended before it
				now = proto.CloneOf(sent)
				now.Phase, now.Ended, now.Message = weftv1.MovePhase_MOVE_PHASE_ABORTED, timeOut(m.Started), "it ended before the next move began"
				if now.To == w.HostName(m.From) {
					now.Phase = weftv1.MovePhase_MOVE_PHASE_DONE
				}
			default:
				epoch, now = m.Epoch, a.moveOut(w, p, m)
			}
		})
		if now == nil {
			return noMove(p, &model.Move{}, "watch")
		}
		if !proto.Equal(now, sent) {
			if err := out.Send(now); err != nil {
				return err
			}
			sent = now
		}
		if now.Phase == weftv1.MovePhase_MOVE_PHASE_DONE || now.Phase == weftv1.MovePhase_MOVE_PHASE_ABORTED {
			return nil
		}
		select {
		case <-advanced:
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-a.stopping.Done():
			return errStopping
		}
	}
}
