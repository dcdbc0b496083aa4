package server

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
)

// floodStep is since when a network's next step may be taken.
type floodStep struct {
	revision model.Revision
	at       time.Time
}

// carryFloods takes the networks whose way to flood changes one step on: senders change when every host with a member has joined, and groups are left
// when every sender has changed. A host that is away is waited for, whatever it takes: it floods, and is flooded, as it was. Not so on the way to
// copies, which each host takes as it is. When all have joined the underlay still needs a moment to bring the group to them; Limits.Join is for that.
func (a *api) carryFloods(ctx context.Context, since map[model.UID]floodStep) {
	now := a.now()
	var due []*model.Network
	a.view.read(func(w *model.World) {
		for uid := range since {
			if n := w.Networks[uid]; n == nil || n.Alloc.Flood.Settled() {
				delete(since, uid)
			}
		}
		for n := range w.FloodsChange() {
			members := a.view.members(n.UID)
			toCopies := n.Alloc.Flood.Sends.IsValid() && !n.Alloc.Flood.Group.IsValid()
			if !toCopies && len(a.unready(w, n, members)) > 0 {
				delete(since, n.UID)
				continue
			}
			seen := floodStep{n.Revision, now}
			if before := since[n.UID]; before.revision == n.Revision {
				seen = before
			}
			since[n.UID] = seen
			if len(members) == 0 || !n.Alloc.Flood.Group.IsValid() || now.Sub(seen.at) >= a.cfg.Limits.Join {
				next := *n
				next.Alloc.Flood = n.Alloc.Flood.Next()
				due = append(due, &next)
			}
		}
	})
	for _, n := range due {
		err := a.store.UpdateNetwork(ctx, n)
		switch {
		case err == nil:
			a.readBack(ctx, n.Revision)
		case !isKind(err, model.Stale) && !isKind(err, model.NotFound) && ctx.Err() == nil:
			a.log.Warn("a change of how a network floods could not be carried on, and is tried again", "network", n.Tenant+"/"+n.Name, "err", err)
		}
	}
}

// unready are the hosts with a member that have not applied the network as it is, and why, sorted.
func (a *api) unready(w *model.World, n *model.Network, members []model.UID) []string {
	var list []string
	for _, uid := range members {
		said, ok := a.heard.host(uid)
		name := w.HostName(uid)
		switch {
		case !ok || !said.live():
			list = append(list, "host "+name+" is not connected")
		case said.storeID != w.StoreID || said.refused != "" || said.applied < n.Revision:
			list = append(list, "host "+name+" has not taken the plan yet")
		default:
			for _, e := range said.errors {
				if model.UID(e.GetUid()) == n.UID {
					list = append(list, "host "+name+": "+e.GetMessage())
					break
				}
			}
		}
	}
	slices.Sort(list)
	return list
}

// floodStatus tells how the network floods, and what a change of that waits for.
func (a *api) floodStatus(w *model.World, n *model.Network, out *weftv1.NetworkStatus) {
	f := n.Alloc.Flood
	out.Flood, out.Group = floodOut(f.Sends.IsValid()), groupOut(f.Sends)
	for _, g := range f.Joined {
		out.JoinedGroups = append(out.JoinedGroups, g.String())
	}
	members := a.view.members(n.UID)
	out.FanOut = fanOut(w, n, members)
	if f.Settled() {
		return
	}
	name, what := "flood method changes", "senders go on by head-end replication"
	if f.Sends.IsValid() {
		what = "senders go on by group " + f.Sends.String()
	}
	if f.Sends == f.Group {
		name, what = "old groups", "the groups of before are still joined"
	}
	why := "the underlay is given time to bring the group to all"
	if waits := a.unready(w, n, members); len(waits) > 0 {
		why = strings.Join(waits, "; ")
	}
	out.Conditions = append(out.Conditions, &weftv1.Condition{Name: name, Message: fmt.Sprintf("%s: %s", what, why)})
}

// fanOut is how many packets a flood becomes on the underlay, from a host with a member that has addresses of each IP version.
func fanOut(w *model.World, n *model.Network, members []model.UID) uint32 {
	group, count := n.Alloc.Flood.Sends, 0
	reached := func(addrs []netip.Addr) bool {
		return group.IsValid() && slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Unmap().Is4() == group.Is4() })
	}
	others := 0
	for _, uid := range members {
		f := w.Facts[uid]
		if f == nil || len(f.VTEPAddresses) == 0 {
			continue
		}
		others++
		if !reached(f.VTEPAddresses) {
			count++
		}
	}
	if !group.IsValid() || count == others {
		count = max(0, others-1) // all but the sender; also where no host has the group's IP version
	} else {
		count++
	}
	for _, part := range n.Spec.VTEPs {
		v := w.VTEPs[part.VTEP]
		if v != nil && !(part.Flood == model.VTEPFloodGroup && reached([]netip.Addr{v.Spec.Address})) {
			count++
		}
	}
	return uint32(count)
}

// floodedOn adds what a host says of the network's floods there.
func floodedOn(out *weftv1.NetworkStatus, network model.UID, host string, said heard) {
	for _, f := range said.said.GetFloods() {
		if model.UID(f.GetNetwork()) != network {
			continue
		}
		out.HostFloods = append(out.HostFloods, &weftv1.HostFloods{Host: host, Floods: f.GetFloods(), Copies: f.GetCopies(),
			FloodsPerSecond: f.GetFloodsPerSecond(), CopiesPerSecond: f.GetCopiesPerSecond()})
		out.FloodsPerSecond += f.GetFloodsPerSecond()
		out.CopiesPerSecond += f.GetCopiesPerSecond()
	}
}
