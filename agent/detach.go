package agent

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
)

// leaving is what a port's detachment needs of a server.
type leaving int

const (
	// leaveUnbound: the port is bound here and is to be bound nowhere.
	leaveUnbound leaving = iota
	// leaveAborted: it is on its way here, and its move is to be aborted.
	leaveAborted
	// leaveMove: it is on its way elsewhere, or went: where it is its move decides.
	leaveMove
)

// detach takes a port's interface away and gives the port up; both, or (without a server) neither. One that is on its way to another host, or
// went there, loses its interface alone.
func (a *Agent) detach(ctx context.Context, req *localv1.DetachRequest) error {
	defer a.attaching.lock(req.Tenant + "/" + req.Port)()
	var at attachment
	var uid string
	var how leaving
	var begun *flip
	var epoch int64
	if err := a.do(ctx, func() {
		a.takeFlips()
		at, uid = a.attachedAs(req.Tenant, req.Port)
		how, epoch = a.leaves(uid)
		if f, ok := a.rec.view.flips[uid]; ok && f.To == a.rec.self && !f.Confirmed {
			begun = &f
		}
	}); err != nil {
		return err
	}
	if uid == "" {
		return refuse(connect.CodeNotFound, "port %s/%s is not attached on this host; `weft port show %s` says where it is", req.Tenant, req.Port, req.Port)
	}
	ended, err := a.giveUp(ctx, req, uid, how, epoch, begun)
	if err != nil {
		return err
	}
	if at.UID == "" {
		return nil
	}
	derr := a.do(ctx, func() {
		if _, still := a.atts.byUID[uid]; still { // the plan may have been faster
			if ended != 0 {
				a.ended[uid] = ended
			}
			err = a.forget(at)
		}
	})
	if err := errors.Join(derr, err); err != nil {
		return refuse(connect.CodeInternal, "the port is given up, but its interface %s: %v", at.Interface, err)
	}
	a.log.Info("the port is detached", "port", req.Tenant+"/"+req.Port)
	return nil
}

// attachedAs is a port's attachment, and its uid; the uid alone of one that is here without an interface. In the loop.
func (a *Agent) attachedAs(tenant, port string) (at attachment, uid string) {
	for id, have := range a.atts.byUID {
		if have.Tenant == tenant && have.Port == port {
			return have, id
		}
	}
	uid = a.partOf(tenant, port)
	if p := a.rec.view.ports[uid]; p == nil || p.place.active != a.rec.self {
		uid = ""
	}
	return at, uid
}

// leaves is how a port is given up, and the epoch of its binding. In the loop.
func (a *Agent) leaves(uid string) (leaving, int64) {
	p := a.rec.view.ports[uid]
	switch {
	case p == nil:
		return leaveUnbound, 0
	case p.place.comes(a.rec.self):
		return leaveAborted, p.place.epoch
	case p.place.goes(a.rec.self), p.place.active == a.rec.self && p.place.incoming != "" && p.place.incoming != a.rec.self:
		return leaveMove, p.place.epoch
	}
	return leaveUnbound, p.place.epoch
}

// giveUp asks a server. ended is the epoch of the binding that ended this host's part, where it is known.
func (a *Agent) giveUp(ctx context.Context, req *localv1.DetachRequest, uid string, how leaving, epoch int64, begun *flip) (ended int64, err error) {
	switch how {
	case leaveMove:
		return 0, nil
	case leaveAborted:
		var res *planv1.AbortResponse
		res, err = a.server.Abort(ctx, uid, epoch, "its interface was taken away there")
		ended = res.GetEpoch()
	default:
		if begun != nil { // the server must know that it is here before it can be nowhere
			_, err = a.server.Commit(ctx, &planv1.CommitRequest{PortUid: uid, Epoch: begun.Epoch, Cause: begun.Cause, DarkNanoseconds: int64(begun.Dark)})
		}
		if err == nil {
			var res *planv1.UnbindResponse
			res, err = a.server.Unbind(ctx, uid, req.Tenant, req.Port)
			ended = res.GetEpoch()
		}
	}
	var away *unreachable
	switch {
	case errors.As(err, &away):
		return 0, refuse(connect.CodeUnavailable, "port %s/%s stays attached: to give it up needs a server, and %w; try again when one is back", req.Tenant, req.Port, away)
	case err == nil, connect.CodeOf(err) == connect.CodeNotFound:
		return ended, nil // of a deleted port only the interface is left
	case how == leaveAborted && refusal(err), begun != nil && refusal(err):
		return 0, nil // it is not this host's to give up: the plan will say whose it is
	}
	return 0, passOn(err)
}

// abort gives up a port that is on its way here. Its interface goes too.
func (a *Agent) abort(ctx context.Context, req *localv1.AbortRequest) error {
	defer a.attaching.lock(req.Tenant + "/" + req.Port)()
	var at attachment
	var uid string
	var epoch int64
	err := a.do(ctx, func() {
		a.takeFlips()
		uid = a.partOf(req.Tenant, req.Port)
		at = a.atts.byUID[uid]
		p := a.rec.view.ports[uid]
		switch {
		case p == nil || !p.place.comes(a.rec.self) && p.place.active != a.rec.self:
			uid = ""
		case !p.place.comes(a.rec.self):
			epoch = 0
		default:
			epoch = p.place.epoch
		}
	})
	switch {
	case err != nil:
		return err
	case uid == "":
		return refuse(connect.CodeNotFound, "port %s/%s is not on its way to this host; `weft port show %s` says where it is", req.Tenant, req.Port, req.Port)
	case epoch == 0:
		return refuse(connect.CodeFailedPrecondition, "port %s/%s is here: its move was committed, or there is none; move it back with `weft port move`", req.Tenant, req.Port)
	}
	_, err = a.server.Abort(ctx, uid, epoch, req.Reason)
	var away *unreachable
	switch {
	case errors.As(err, &away):
		return refuse(connect.CodeUnavailable, "the move of port %s/%s stays as it is: to abort it needs a server, and %w; try again when one is back", req.Tenant, req.Port, away)
	case err != nil:
		return passOn(err)
	case at.UID == "":
		return nil
	}
	derr := a.do(ctx, func() {
		if _, still := a.atts.byUID[uid]; still {
			err = a.forget(at)
		}
	})
	if err := errors.Join(derr, err); err != nil {
		return refuse(connect.CodeInternal, "the move is aborted, but interface %s: %v", at.Interface, err)
	}
	a.log.Info("the move is aborted", "port", req.Tenant+"/"+req.Port)
	return nil
}
