package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
)

// Agents watch each other's VTEPs: each the next ones after its own in the ring of uids (agent/silence.go). What they say of one that does not
// answer any more is shown, and acted upon where a host's spec says so, with care: that somebody hears nothing may be his own trouble, and a
// host whose agent alone is away still forwards.

const (
	// watchers are how many hosts watch one (mostWatched in agent/silence.go).
	watchers = 4
	// enough of them must say that a host is silent; where fewer watch it, all of them.
	enough = 2
	// comeBack is how long agents may take to come back to a server that was started.
	comeBack = 30 * time.Second
)

// silence is what the watchers say.
type silence struct {
	// ring has the hosts with a VTEP, sorted by uid.
	ring []model.UID
	// by has for each VTEP who does not hear it.
	by map[model.UID][]witness
}

// witness is a host with a stream that does not hear another one, and for how long when it last said so.
type witness struct {
	host model.UID
	long time.Duration
	// answered: by the host itself, though not by its agent.
	answered bool
}

// silence collects what is said now. Only for use inside read.
func (a *api) silence(w *model.World) silence {
	s := silence{by: map[model.UID][]witness{}}
	for uid := range w.Hosts {
		if f := w.Facts[uid]; f != nil && len(f.VTEPAddresses) > 0 {
			s.ring = append(s.ring, uid)
		}
		said, _ := a.heard.host(uid)
		if !said.live() {
			continue // what it said when it was last heard says nothing of now
		}
		for _, v := range said.said.GetSilent() {
			of := model.UID(v.GetVtep())
			s.by[of] = append(s.by[of], witness{uid, time.Duration(v.GetSilentNanoseconds()), v.GetHostAnswers()})
		}
	}
	slices.Sort(s.ring)
	return s
}

// watch is how many hosts watch one.
func (s silence) watch(host model.UID) int {
	others := len(s.ring)
	if _, in := slices.BinarySearch(s.ring, host); in {
		others--
	}
	return max(min(watchers, others), len(s.by[host]))
}

// certain: as many say that the host is silent as it takes, and it answers none of them.
func (s silence) certain(host model.UID) bool {
	said, watch := len(s.by[host]), s.watch(host)
	return said > 0 && said >= min(enough, watch) && !s.answers(host)
}

// answers: the host itself answers somebody whom its agent does not.
func (s silence) answers(host model.UID) bool {
	return slices.ContainsFunc(s.by[host], func(w witness) bool { return w.answered })
}

// condition says who does not hear the host, or is nil.
func (s silence) condition(w *model.World, host model.UID) *weftv1.Condition {
	switch {
	case len(s.by[host]) == 0:
		return nil
	case s.answers(host):
		return &weftv1.Condition{Name: "agent-silent", Message: s.text(w, host) + "; the host itself answers: its agent is away, and what is attached goes on"}
	}
	return &weftv1.Condition{Name: "silent", Message: s.text(w, host) + ", and neither does the host itself"}
}

func (s silence) text(w *model.World, host model.UID) string {
	var names []string
	var long time.Duration
	for _, one := range s.by[host] {
		names, long = append(names, w.HostName(one.host)), max(long, one.long)
	}
	slices.Sort(names)
	return fmt.Sprintf("its VTEP does not answer %s (%d of %d that watch it) for %s", strings.Join(names, ", "), len(names), s.watch(host),
		long.Round(100*time.Millisecond))
}

// failSilent declares hosts dead that are silent, whose agents have no stream, and whose spec says so. since has when each was first seen to be
// so. Nothing is done while more than half of all hosts seem to be in trouble: then it is more likely the watchers', or this server's own.
func (a *api) failSilent(ctx context.Context, since map[model.UID]time.Time) {
	now := a.now()
	dead := map[string]string{}
	a.view.read(func(w *model.World) {
		var suspects []*model.Host
		for h := range w.HostsToFail() {
			if said, _ := a.heard.host(h.UID); !said.live() && !said.astray {
				suspects = append(suspects, h)
			}
		}
		if len(suspects) == 0 {
			clear(since)
			return
		}
		s := a.silence(w)
		silent := map[model.UID]bool{}
		for _, h := range suspects {
			if silent[h.UID] = s.certain(h.UID); !silent[h.UID] {
				continue
			}
			if since[h.UID].IsZero() {
				since[h.UID] = now
			}
			if now.Sub(since[h.UID]) >= a.cfg.Limits.Silent && now.Sub(a.started) >= comeBack && !a.troubled(w, s) {
				dead[h.Name] = fmt.Sprintf("declared dead by its when_silent: %s, and its agent has no stream", s.text(w, h.UID))
			}
		}
		for uid := range since {
			if !silent[uid] {
				delete(since, uid)
			}
		}
	})
	for name, why := range dead {
		if _, _, err := a.failHost(ctx, name, why); err != nil {
			a.complain("a silent host could not be declared dead, and that is tried again", err)
		}
	}
}

// troubled reports whether more than half of the hosts with a VTEP are silent to somebody or have no stream. Those that were declared dead do
// not count.
func (a *api) troubled(w *model.World, s silence) bool {
	all, bad := 0, 0
	for _, uid := range s.ring {
		if w.Hosts[uid].Duty == model.DutyFailed {
			continue
		}
		all++
		if said, _ := a.heard.host(uid); !said.live() || len(s.by[uid]) > 0 {
			bad++
		}
	}
	return 2*bad > all
}
