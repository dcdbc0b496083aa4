package server

import (
	"context"
	"slices"
	"time"

	"connectrpc.com/connect"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/plan"
)

// defaultWait is how long WaitApplied waits when the caller does not say.
const defaultWait = 30 * time.Second

// WaitApplied implements weft.v1. Hosts that are not connected to this server are not waited for.
func (a *api) WaitApplied(ctx context.Context, req *connect.Request[weftv1.WaitAppliedRequest]) (*connect.Response[weftv1.WaitAppliedResponse], error) {
	n, err := a.network(ctx, "network", req.Msg.GetTenant(), req.Msg.GetNetwork())
	if err != nil {
		return nil, err
	}
	timeout := defaultWait
	if d := req.Msg.GetTimeout(); d != nil {
		timeout = d.AsDuration()
	}
	if timeout < 0 || timeout > a.cfg.Limits.Wait {
		return nil, model.Errorf(model.Invalid, "timeout", "use at most "+a.cfg.Limits.Wait.String(), "%s is no time to wait", timeout)
	}
	rev := model.Revision(req.Msg.GetRevision())
	now := a.view.revision()
	switch {
	case rev < 0:
		return nil, model.Errorf(model.Invalid, "revision", "use the revision that a write returned, or 0 for the current one",
			"%d is no revision", rev)
	case rev == 0:
		rev = now
	case rev > now:
		a.refresh(ctx)
		if now = a.view.revision(); rev > now {
			return nil, model.Errorf(model.Invalid, "revision", "use the revision that a write returned, or 0 for the current one",
				"revision %d does not exist yet; the current one is %d", rev, now)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	applied, lagging := a.waitApplied(ctx, n.UID, rev)
	if a.stopping.Err() != nil && len(lagging) > 0 {
		return nil, errStopping
	}
	res := &weftv1.WaitAppliedResponse{Complete: len(lagging) == 0}
	a.view.read(func(w *model.World) {
		for _, uid := range applied {
			res.Applied = append(res.Applied, w.HostName(uid))
		}
		for _, uid := range lagging {
			res.Lagging = append(res.Lagging, w.HostName(uid))
		}
	})
	slices.Sort(res.Applied)
	slices.Sort(res.Lagging)
	return connect.NewResponse(res), nil
}

// hurryAfter is how long a host may take to apply a revision until its stream is asked for it: one that the revision does not
// concern hears of it when there is time.
const hurryAfter = 200 * time.Millisecond

// waitApplied waits until every live host that subscribes to the network has applied the revision, or ctx ends, and
// says who has and who has not.
func (a *api) waitApplied(ctx context.Context, network model.UID, rev model.Revision) (applied, lagging []model.UID) {
	late := time.NewTimer(hurryAfter)
	defer late.Stop()
	for {
		// The hosts are asked for each time: one may be removed, or take its first port, meanwhile.
		storeID, _ := a.dist.Revision()
		scope := plan.NetworkScope(string(network))
		subscribers := a.dist.Subscribers(scope)
		hosts := make([]model.UID, len(subscribers))
		for i, uid := range subscribers {
			hosts[i] = model.UID(uid)
		}
		applied, lagging = a.heard.progress(hosts, storeID, rev)
		if len(lagging) == 0 {
			return applied, nil
		}
		// While one is behind, the others need no look: who waits is not woken by a thousand acknowledgements.
		for behind := lagging[:1]; len(behind) > 0; {
			changed, advanced := a.heard.watch(behind[0]), a.view.advances()
			if _, behind = a.heard.progress(behind, storeID, rev); len(behind) == 0 {
				break
			}
			select {
			case <-changed:
			case <-advanced: // it may have left the network
			case <-late.C:
				a.dist.Hurry(subscribers)
			case <-ctx.Done():
				return a.appliedBy(hosts, rev)
			case <-a.stopping.Done():
				return a.appliedBy(hosts, rev)
			}
			// After a restore, what was applied counts no more; and a host may leave the network.
			if now, _ := a.dist.Revision(); now != storeID || len(behind) > 0 && !a.dist.Subscribed(string(behind[0]), scope) {
				break
			}
		}
	}
}

// appliedBy says which live hosts have applied a revision, and which have not.
func (a *api) appliedBy(hosts []model.UID, rev model.Revision) (applied, lagging []model.UID) {
	storeID, _ := a.dist.Revision()
	applied, lagging = a.heard.progress(hosts, storeID, rev)
	return applied, lagging
}
