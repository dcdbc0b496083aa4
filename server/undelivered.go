package server

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
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
		// It may have stopped sending since: an agent that was away has a stream again a moment before it reports.
		if !said.live() || now.Sub(said.told) > freshFor {
			continue
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

// byHost sorts them by the hosts that they are said of: of who misses, and of who is missed. But of a sender only where it is missed by as many as its
// receiver misses: who misses more senders has the fault with itself.
func byHost(list []undelivered) map[model.UID][]undelivered {
	type mute struct {
		sender model.UID
		group  netip.Addr
	}
	misses, missed := map[deaf]int{}, map[mute]int{}
	for _, u := range list {
		misses[u.deaf()]++
		missed[mute{u.sender, u.group}]++
	}
	of := map[model.UID][]undelivered{}
	for _, u := range list {
		of[u.receiver] = append(of[u.receiver], u)
		if missed[mute{u.sender, u.group}] >= misses[u.deaf()] {
			of[u.sender] = append(of[u.sender], u)
		}
	}
	return of
}

func everyPair(undelivered) bool { return true }

// deaf is a host that misses senders of a group.
type deaf struct {
	receiver model.UID
	group    netip.Addr
}

func (u undelivered) deaf() deaf { return deaf{u.receiver, u.group} }

// mostSenders are named in one line of the log.
const mostSenders = 10

// tellUndelivered logs who has begun to miss senders of a group since the last time, and who has ceased to.
func (a *api) tellUndelivered(before map[deaf]bool) {
	a.view.read(func(w *model.World) {
		senders := map[deaf][]string{}
		for _, u := range a.undelivered(w) {
			senders[u.deaf()] = append(senders[u.deaf()], w.HostName(u.sender))
		}
		for d, list := range senders {
			if before[d] {
				continue
			}
			before[d] = true
			a.log.Warn("the underlay does not deliver a group", "receiver", w.HostName(d.receiver), "group", d.group, "senders", len(list),
				"among them", strings.Join(list[:min(len(list), mostSenders)], ", "))
		}
		for d := range before {
			if senders[d] == nil {
				delete(before, d)
				a.log.Info("the underlay is not said to lose a group any more", "receiver", w.HostName(d.receiver), "group", d.group)
			}
		}
	})
}
