package server

import (
	"cmp"
	"context"
	"strings"
	"time"

	"connectrpc.com/connect"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/store"
	"github.com/weftnet/weft/trust"
)

// Join implements plan.v1: a join token and a certificate request become a host's certificate. The token works once; the
// same key may ask again, as an answer may be lost on its way.
func (a *api) Join(ctx context.Context, req *connect.Request[planv1.JoinRequest]) (*connect.Response[planv1.JoinResponse], error) {
	name := req.Msg.GetHost()
	token, err := trust.ParseToken(trust.JoinToken, req.Msg.GetToken())
	if err != nil {
		return nil, err
	}
	csr, err := trust.CheckCSR(req.Msg.GetCsr())
	if err != nil {
		return nil, err
	}
	record, err := a.store.GetJoinToken(ctx, token.ID)
	if err != nil && refusal(err) == nil {
		return nil, err
	}
	if err := token.CheckJoin(a.ca.Fingerprint(), record, name, csr.KeyHash, a.now()); err != nil {
		return nil, err
	}
	h, err := a.host(ctx, "host", name)
	if err != nil {
		return nil, err
	}
	ctx = store.WithActor(ctx, trust.Identity{Kind: trust.Host, Name: name}.String())
	// The store is the judge of two that come with one token at the same time.
	if err := a.store.UseJoinToken(ctx, token.ID, h.UID, csr.KeyHash); err != nil {
		return nil, err
	}
	chain, err := a.ca.SignHost(req.Msg.GetCsr(), h.UID, a.now())
	if err != nil {
		return nil, err
	}
	a.log.Info("a host joined", "host", name)
	return connect.NewResponse(&planv1.JoinResponse{HostUid: string(h.UID), Certificates: chain}), nil
}

// Renew implements plan.v1.
func (a *api) Renew(ctx context.Context, req *connect.Request[planv1.RenewRequest]) (*connect.Response[planv1.RenewResponse], error) {
	chain, err := a.ca.SignHost(req.Msg.GetCsr(), identityOf(ctx).Host, a.now())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&planv1.RenewResponse{Certificates: chain}), nil
}

// Bind implements plan.v1: a host takes an unbound port for itself. One that somebody makes incoming there is attached as soon as that is asked for,
// which may be before the host has heard of it.
func (a *api) Bind(ctx context.Context, req *connect.Request[planv1.BindRequest]) (*connect.Response[planv1.BindResponse], error) {
	p, err := a.port(ctx, "port", req.Msg.GetTenant(), req.Msg.GetPort())
	if err != nil {
		return nil, err
	}
	h, err := a.caller(ctx)
	if err != nil {
		return nil, err
	}
	b, err := a.bind(ctx, p, h, true)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&planv1.BindResponse{
		PortUid: string(p.UID), NetworkUid: string(p.Alloc.NetworkUID), Epoch: int64(b.Epoch), Revision: int64(b.Epoch),
	}), nil
}

// Unbind implements plan.v1: a host gives up a port that it holds.
func (a *api) Unbind(ctx context.Context, req *connect.Request[planv1.UnbindRequest]) (*connect.Response[planv1.UnbindResponse], error) {
	p, err := a.port(ctx, "port", req.Msg.GetTenant(), req.Msg.GetPort())
	if err != nil {
		return nil, err
	}
	if uid := req.Msg.GetPortUid(); uid != "" && uid != string(p.UID) {
		return nil, model.Errorf(model.NotFound, "port_uid", "nothing is left to unbind",
			"port %s/%s was deleted and made again", p.Tenant, p.Name)
	}
	b, err := a.release(ctx, p, identityOf(ctx).Host)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&planv1.UnbindResponse{Epoch: int64(b.Epoch), Revision: int64(b.Epoch)}), nil
}

// Prepare implements plan.v1: a host's hypervisor is about to take a machine over from another one's.
func (a *api) Prepare(ctx context.Context, req *connect.Request[planv1.PrepareRequest]) (*connect.Response[planv1.PrepareResponse], error) {
	p, err := a.port(ctx, "port", req.Msg.GetTenant(), req.Msg.GetPort())
	if err != nil {
		return nil, err
	}
	h, err := a.caller(ctx)
	if err != nil {
		return nil, err
	}
	at, err := a.prepare(ctx, p, h, preparation{by: identityOf(ctx).String(), allowed: func(w *model.World, at *place) error {
		return migrate(w, h, at)
	}})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&planv1.PrepareResponse{
		PortUid: string(p.UID), NetworkUid: string(p.Alloc.NetworkUID), Epoch: int64(at.move.Epoch),
	}), nil
}

// migrate refuses a move between hosts that an administrator has not said it of. What somebody who may has begun, the host may ask for again.
func migrate(w *model.World, h *model.Host, at *place) error {
	if at.move.Pending() && at.Incoming == h.UID {
		return nil
	}
	for _, uid := range []model.UID{h.UID, at.Active} {
		if one := w.Hosts[uid]; one == nil || !one.Spec.Migrates {
			name := w.HostName(uid)
			return model.Errorf(model.Denied, "host",
				"let both take over ports from each other with `weft host set "+name+" --migrates`, or prepare the move with an API token",
				"host %s may not move ports by itself", name)
		}
	}
	return nil
}

// Commit implements plan.v1: the workload runs on the calling host now, whether the move is prepared or not.
func (a *api) Commit(ctx context.Context, req *connect.Request[planv1.CommitRequest]) (*connect.Response[planv1.CommitResponse], error) {
	cause, known := causes[req.Msg.GetCause()]
	dark := time.Duration(req.Msg.GetDarkNanoseconds())
	switch {
	case !known:
		return nil, model.Errorf(model.Invalid, "cause", "upgrade the server", "%d is no known cause of a commit", req.Msg.GetCause())
	case dark < 0:
		return nil, model.Errorf(model.Invalid, "dark_nanoseconds", "leave it out if it is not known", "%s is no time", dark)
	}
	at, err := a.step(ctx, req.Msg, func(w *model.World, p *model.Port, at *place) error {
		m := &at.move
		switch {
		case m.Pending():
			at.commit(cause, a.moment())
		case m.Phase == model.MoveAborted:
			return noMove(p, m, "commit")
		case m.Cause == model.CommitByCommand:
			m.Cause = cause // an agent that a plan has told of the commit makes none of its own, so its word was first, and the command overtook it here
		}
		m.Dark = max(m.Dark, dark)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&planv1.CommitResponse{Epoch: int64(at.Epoch)}), nil
}

var causes = map[planv1.CommitCause]model.CommitCause{
	planv1.CommitCause_COMMIT_CAUSE_COMMAND:     model.CommitByCommand,
	planv1.CommitCause_COMMIT_CAUSE_EVENT:       model.CommitByEvent,
	planv1.CommitCause_COMMIT_CAUSE_FIRST_FRAME: model.CommitByFirstFrame,
}

// Abort implements plan.v1: the calling host gives up a port that was to come to it.
func (a *api) Abort(ctx context.Context, req *connect.Request[planv1.AbortRequest]) (*connect.Response[planv1.AbortResponse], error) {
	who := identityOf(ctx).Name
	at, err := a.step(ctx, req.Msg, func(w *model.World, p *model.Port, at *place) error {
		switch m := &at.move; {
		case m.Pending():
			at.abort("host "+who+" gave it up: "+cmp.Or(clip(req.Msg.GetReason()), "it did not say why"), a.moment())
		case m.Phase != model.MoveAborted:
			return noMove(p, m, "abort")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&planv1.AbortResponse{Epoch: int64(at.Epoch)}), nil
}

// Settle implements plan.v1: what a port counted on the calling host, whose part in it has ended.
func (a *api) Settle(ctx context.Context, req *connect.Request[planv1.SettleRequest]) (*connect.Response[planv1.SettleResponse], error) {
	err := a.store.Settle(ctx, model.UID(req.Msg.GetPortUid()), identityOf(ctx).Host, model.Epoch(req.Msg.GetEpoch()), countsIn(req.Msg))
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&planv1.SettleResponse{}), nil
}

// step is a step of the target's in the last move of a port: its agent names the port by uid, and the epoch in which it became incoming.
func (a *api) step(ctx context.Context, req interface {
	GetPortUid() string
	GetEpoch() int64
}, decide func(w *model.World, p *model.Port, at *place) error) (place, error) {
	p := find(ctx, a, func(w *model.World) *model.Port { return w.Ports[model.UID(req.GetPortUid())] })
	if p == nil {
		return place{}, model.Errorf(model.NotFound, "port_uid", "forget it", "the port was deleted")
	}
	host, epoch := identityOf(ctx).Host, model.Epoch(req.GetEpoch())
	return a.swap(ctx, p, func(w *model.World, at *place) error {
		if at.move.To != host || epoch == 0 {
			return model.Errorf(model.Stale, "epoch", "hold it, and take the plan as it is",
				"port %s is not on its way to host %s at epoch %d", p.Name, w.HostName(host), epoch)
		}
		if err := at.is(p, epoch); err != nil {
			return err
		}
		return decide(w, p, at)
	})
}

// clip bounds what an agent says and the store keeps.
func clip(s string) string {
	if len(s) > 500 {
		s = strings.ToValidUTF8(s[:500], "") + "..."
	}
	return s
}

// caller is the host under whose certificate the call came.
func (a *api) caller(ctx context.Context) (*model.Host, error) {
	id := identityOf(ctx)
	h := find(ctx, a, func(w *model.World) *model.Host { return w.Hosts[id.Host] })
	if h == nil {
		return nil, errHostRemoved
	}
	return h, nil
}
