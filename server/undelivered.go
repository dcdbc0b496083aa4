package server

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
)

// Agents probe the groups that their hosts send floods to, and say whom they send to and whose probes they miss (agent/group_watch.go). Here the two
// are put together: who misses a sender that sends has an underlay that does not deliver.

const (
	// sentEnough of its intervals a host has to have probed without a break before it is missed (missedAfter in agent/group_watch.go).
	sentEnough = 4
	// freshFor is how old a report of it may be: three reports.
	freshFor = 10 * time.Second
	// mostNotDelivered pairs stand among the conditions of one object.
	mostNotDelivered = 20
	notDelivered     = "group not delivered"
)

// undelivered is a host that does not receive what another one sends to a group.
type undelivered struct {
	receiver, sender model.UID
	group            netip.Addr
}

// undelivered collects what is so now. Only for use inside read.
func (a *api) undelivered(w *model.World) (list []undelivered) {
	type stream struct {
		host  model.UID
		group netip.Addr
	}
	now := a.now()
	sends := map[stream]bool{}
	for uid := range w.Hosts {
		said, _ := a.heard.host(uid)
		if !said.live() || now.Sub(said.seen) > freshFor {
			continue // it may have stopped sending since
		}
		for _, g := range said.said.GetProbedGroups() {
			group, _ := netip.AddrFromSlice(g.GetGroup())
			if g.GetSendingNanoseconds() >= sentEnough*g.GetEveryNanoseconds() {
				sends[stream{uid, group}] = true
			}
			for _, m := range g.GetMissed() {
				list = append(list, undelivered{uid, model.UID(m.GetVtep()), group})
			}
		}
	}
	list = slices.DeleteFunc(list, func(u undelivered) bool { return !sends[stream{u.sender, u.group}] })
	slices.SortFunc(list, func(x, y undelivered) int {
		return cmp.Or(x.group.Compare(y.group), cmp.Compare(w.HostName(x.receiver), w.HostName(y.receiver)), cmp.Compare(w.HostName(x.sender), w.HostName(y.sender)))
	})
	return list
}

// conditionsOf says it of those that are about an object.
func conditionsOf(w *model.World, list []undelivered, about func(undelivered) bool) (out []*weftv1.Condition) {
	more := 0
	for _, u := range list {
		if !about(u) {
			continue
		}
		if len(out) == mostNotDelivered {
			more++
			continue
		}
		out = append(out, &weftv1.Condition{Name: notDelivered, Message: u.text(w)})
	}
	if more > 0 {
		out = append(out, &weftv1.Condition{Name: notDelivered, Message: fmt.Sprintf("and %d more pairs of hosts", more)})
	}
	return out
}

func (u undelivered) text(w *model.World) string {
	return fmt.Sprintf("%s does not receive what %s sends to %s", w.HostName(u.receiver), w.HostName(u.sender), u.group)
}

// tellUndelivered logs what has come and gone since the last time.
func (a *api) tellUndelivered(before map[undelivered]bool) {
	a.view.read(func(w *model.World) {
		now := map[undelivered]bool{}
		for _, u := range a.undelivered(w) {
			if now[u] = true; !before[u] {
				before[u] = true
				a.log.Warn("the underlay does not deliver a group", "receiver", w.HostName(u.receiver), "sender", w.HostName(u.sender), "group", u.group)
			}
		}
		for u := range before {
			if !now[u] {
				delete(before, u)
				a.log.Info("the underlay is not said to lose a group any more", "receiver", w.HostName(u.receiver), "sender", w.HostName(u.sender), "group", u.group)
			}
		}
	})
}
