package agent

import (
	"cmp"
	"context"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/wire"
)

// An underlay that does not deliver a group is noticed by its members. Each host sends a probe to every group that it sends floods to, over the OAM
// network, and listens for those of the others:
//
//	sender                                       every other member
//	   | -- probe, to the group ----------------> |   from_port, group, from_uplink: the way of a flood
//
// Who has not come for too long is reported, and so is what is sent: a server puts the two together, as a host whose agent is away sends no probes, and
// its floods go on.
const (
	// groupProbeEvery is the time between two probes of a host to a group, give or take a quarter. It grows with the members, so that each hears
	// no more than mostHeard a second by one group.
	groupProbeEvery = 4 * time.Second
	mostHeard       = 10
	// missedAfter is how many of these times without a probe it takes: three in a row, however they fell.
	missedAfter = 4
	// groupTick is how often the watch looks.
	groupTick = time.Second
	// mostStill is the time without a look after which this process has stood still.
	mostStill = 3 * groupTick
	// mostMissed senders are in a report.
	mostMissed = 100
)

// GroupWatch knows which groups this host probes, and whose probes it misses. It sends nothing itself: tick says where to send.
type GroupWatch struct {
	mu     sync.Mutex
	groups map[netip.Addr]*probedGroup
	ticked time.Time
}

type probedGroup struct {
	every time.Duration
	// since is when this host began to probe it and to listen; next is when the next probe is due.
	since, next time.Time
	// senders are who else does, by the MAC that their probes come from.
	senders map[wire.MAC]*groupSender
}

type groupSender struct {
	uid string
	// at is its last probe, or when it was first expected.
	at     time.Time
	missed bool
}

func newGroupWatch() *GroupWatch { return &GroupWatch{groups: map[netip.Addr]*probedGroup{}} }

// Set says which groups there are, and who else sends to them: uids of VTEPs by the MACs of their probes.
func (w *GroupWatch) Set(groups map[netip.Addr]map[wire.MAC]string, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	known := w.groups
	w.groups = map[netip.Addr]*probedGroup{}
	for group, senders := range groups {
		g := &probedGroup{since: now, next: now, senders: map[wire.MAC]*groupSender{}}
		have := known[group]
		if have != nil {
			g.since, g.next = have.since, have.next
		}
		g.every = max(groupProbeEvery, time.Duration(len(senders)+1)*time.Second/mostHeard)
		for mac, uid := range senders {
			g.senders[mac] = &groupSender{uid: uid, at: now}
			if have != nil && have.senders[mac] != nil && have.senders[mac].uid == uid {
				g.senders[mac] = have.senders[mac]
			}
		}
		w.groups[group] = g
	}
}

// hear takes a probe in.
func (w *GroupWatch) hear(from wire.MAC, group netip.Addr, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if g := w.groups[group]; g != nil && g.senders[from] != nil {
		g.senders[from].at = now
	}
}

// tick is to be called every groupTick. It says to which groups a probe is due, and whether somebody is missed since the last one, or no longer.
func (w *GroupWatch) tick(now time.Time) (due []netip.Addr, changed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	still := !w.ticked.IsZero() && now.Sub(w.ticked) > mostStill // this process stood still, and neither sent nor heard
	w.ticked = now
	for group, g := range w.groups {
		if still {
			g.since = now
		}
		if !now.Before(g.next) {
			due = append(due, group)
			g.next = now.Add(g.every*3/4 + rand.N(g.every/2))
		}
		for _, s := range g.senders {
			if still && !s.missed {
				s.at = now
			}
			missed := now.Sub(s.at) >= missedAfter*g.every
			changed = changed || missed != s.missed
			s.missed = missed
		}
	}
	return due, changed
}

// Said is what a report says of it.
func (w *GroupWatch) Said(now time.Time) (list []*planv1.ProbedGroup) {
	w.mu.Lock()
	defer w.mu.Unlock()
	missed := 0
	for _, group := range slices.SortedFunc(maps.Keys(w.groups), netip.Addr.Compare) {
		g := w.groups[group]
		m := &planv1.ProbedGroup{Group: group.AsSlice(), EveryNanoseconds: int64(g.every), SendingNanoseconds: int64(now.Sub(g.since))}
		if now.Sub(w.ticked) > mostStill {
			m.SendingNanoseconds = 0
		}
		for _, s := range g.senders {
			if s.missed {
				m.Missed = append(m.Missed, &planv1.MissedSender{Vtep: s.uid, MissedNanoseconds: int64(now.Sub(s.at))})
			}
		}
		slices.SortFunc(m.Missed, func(x, y *planv1.MissedSender) int { return cmp.Compare(x.Vtep, y.Vtep) })
		m.Missed = m.Missed[:min(len(m.Missed), mostMissed-missed)] // the same ones each time
		missed += len(m.Missed)
		list = append(list, m)
	}
	return list
}

// probeGroups probes until the context ends.
func (p *Prober) probeGroups(ctx context.Context) {
	tick := time.NewTicker(groupTick)
	defer tick.Stop()
	for {
		p.regroup(ctx)
		due, changed := p.groups.tick(time.Now())
		for _, group := range due {
			h := head{probeGroup, rand.Uint64()}
			octets := group.As16()
			if err := p.socket.Send(p.flow(oamGroupMAC(group)).UDP(probePort(h), probeUDPPort, append(h.append(nil), octets[:]...)), 0); err != nil {
				p.log.Debug("a group was not probed", "group", group, "err", err)
			}
		}
		if changed {
			p.changed(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// hearGroup takes a probe in that came by a group.
func (p *Prober) hearGroup(from wire.MAC, body []byte, now time.Time) {
	if len(body) < 16 {
		return
	}
	p.groups.hear(from, netip.AddrFrom16([16]byte(body[:16])).Unmap(), now)
}

// tellGroups says which groups there are, if that may have changed.
func (a *Agent) tellGroups() {
	if !a.rec.oam.regroup {
		return
	}
	a.rec.oam.regroup = false
	macs := map[string]wire.MAC{}
	for mac, uid := range a.rec.oam.peers {
		if mac[5]&1 == byte(nativeLane) {
			macs[uid] = mac
		}
	}
	groups := map[netip.Addr]map[wire.MAC]string{}
	for group, members := range a.rec.groupMembers() {
		groups[group] = map[wire.MAC]string{}
		for uid := range members {
			if mac, ok := macs[uid]; ok {
				groups[group][mac] = uid
			}
		}
	}
	a.prober.groups.Set(groups, time.Now())
}
