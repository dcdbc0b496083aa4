package server

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/plan"
)

// realisation is what hosts told this server and the others since they started: who is connected, what each has applied, and what its
// ports and counters are. It is never stored; a host tells it all again when it opens a stream. A host is live when it
// has a stream to some server. See relay for how the others' part comes here.
type realisation struct {
	mu sync.RWMutex
	// hosts are what was told to this server itself.
	hosts map[model.UID]*heard
	relay
	// changed is closed at the next acknowledgement, and at the next stream that opens or ends; watched is of one host. Who waits makes them.
	changed chan struct{}
	watched map[model.UID]chan struct{}
}

// heard is what one host said.
type heard struct {
	// session is the stream that counts: a newer one replaces an older. nil is not live.
	session *session
	seen    time.Time
	// opened orders a host's streams (Hello.opened).
	opened int64
	// elsewhere: the stream is another server's, which says that it is open. astray: that server cannot be heard any more, and lives.
	elsewhere, astray bool
	// said is the last report, restored (plan.Restore). It is shared, and never changed. told is when it came, maybe on an earlier stream; seen is later.
	// Of a report that another server heard it is when that one had last seen the host.
	said *planv1.Report
	told time.Time

	storeID string
	applied model.Revision
	// refused is why the agent kept its last good plan instead of an update; empty when it did not.
	refused string
	errors  []*planv1.ResourceError

	conditions []*planv1.Condition
	drops      []*planv1.Drop
	books      []*planv1.ProgramBooks
	lanes      []*planv1.LaneCount
	programs   []string
	can        []*planv1.Capability
}

// session is one open stream of a host. cancel ends it with a cause that its agent is told.
type session struct {
	host   model.UID
	name   string
	opened int64
	cancel context.CancelCauseFunc
	// said is the stream's last report, restored; only what takes in the stream's messages uses it.
	said *planv1.Report
}

func newRealisation() *realisation {
	return &realisation{
		hosts: map[model.UID]*heard{}, watched: map[model.UID]chan struct{}{}, relay: newRelay(),
	}
}

// open makes s the host's session and returns the one it replaces, or nil. What the host has applied counts from its
// first acknowledgement on: what it holds in its snapshot may not be in the kernel yet.
func (r *realisation) open(s *session, now time.Time) *session {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.hosts[s.host]
	if h == nil {
		h = &heard{}
		r.hosts[s.host] = h
	}
	old := h.session
	h.session, h.opened, h.seen, h.storeID, h.applied = s, s.opened, now, "", 0
	h.refused, h.errors = "", nil
	delete(r.left, s.host)
	r.tell(s.host, false)
	r.notify()
	return old
}

// closed ends a session; what the host said stays, for whoever asks what was last known.
func (r *realisation) closed(s *session, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h := r.hosts[s.host]; h != nil && h.session == s {
		h.session, h.seen = nil, now
		r.tell(s.host, false)
		r.notify()
	}
}

// acknowledge takes in what a host has applied.
func (r *realisation) acknowledge(s *session, a *planv1.Applied, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.hosts[s.host]
	if h == nil || h.session != s {
		return
	}
	h.seen, h.refused = now, a.GetRefused()
	if h.refused == "" {
		h.storeID, h.applied, h.errors = a.GetStoreId(), model.Revision(a.GetRevision()), a.GetErrors()
	}
	r.tell(s.host, false)
	r.notifyOf(s.host)
}

// restore makes a report of the stream whole. Reports that follow each other may add up, to so many octets and no more.
func (s *session) restore(rep *planv1.Report, limit int) (*planv1.Report, error) {
	more := len(rep.GetPorts())+len(rep.GetPrograms())+len(rep.GetCapabilities()) > 0
	whole, err := plan.Restore(s.said, rep)
	if err != nil {
		return nil, model.Errorf(model.Invalid, "report", "open a new stream", "%v", err)
	}
	if more {
		if n := proto.Size(whole); n > limit {
			return nil, model.Errorf(model.Invalid, "report", "open a new stream", "reports have added up to %d octets, and at most %d are kept of a host", n, limit)
		}
	}
	s.said = whole
	return whole, nil
}

// report replaces what a host said of its ports, by a restored report.
func (r *realisation) report(s *session, rep *planv1.Report, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.hosts[s.host]
	if h == nil || h.session != s {
		return
	}
	h.seen = now
	news := h.reported(rep, now)
	r.tell(s.host, true)
	if news {
		r.notifyOf(s.host)
	}
}

// reported takes a restored report in, and says whether it is news for who waits for a port to be prepared.
func (h *heard) reported(rep *planv1.Report, at time.Time) (news bool) {
	for _, p := range rep.GetPorts() {
		if p.GetPrepared() {
			before := h.port(model.UID(p.GetUid()))
			news = news || !before.GetPrepared() || before.GetEpoch() != p.GetEpoch()
		}
	}
	h.said, h.told, h.conditions, h.drops = rep, at, rep.GetConditions(), rep.GetDrops()
	h.books, h.lanes, h.programs, h.can = rep.GetBooks(), rep.GetLanes(), rep.GetPrograms(), rep.GetCapabilities()
	return news
}

// port is what the host said last of one port, but for its counters, or nil.
func (h *heard) port(uid model.UID) *planv1.PortReport {
	p, _ := plan.PortIn(h.said, string(uid))
	return p
}

// forget drops what is kept of hosts that are gone, and returns their sessions.
func (r *realisation) forget(hostExists func(model.UID) bool) []*session {
	r.mu.Lock()
	defer r.mu.Unlock()
	var gone []*session
	for uid, h := range r.hosts {
		if hostExists(uid) {
			continue
		}
		if h.session != nil {
			gone = append(gone, h.session)
		}
		delete(r.hosts, uid)
	}
	r.relay.forget(hostExists)
	if len(gone) > 0 {
		r.notify()
	}
	return gone
}

// hostGone is forget for one host.
func (r *realisation) hostGone(uid model.UID) *session {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.hosts[uid]
	delete(r.hosts, uid)
	r.relay.forget(func(other model.UID) bool { return other != uid })
	r.notify()
	if h == nil {
		return nil
	}
	return h.session
}

// host is a copy of what a host said last, to whichever server; ok is false when it said nothing.
func (r *realisation) host(uid model.UID) (h heard, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	p := r.last(uid)
	if p == nil {
		return heard{}, false
	}
	h = *p
	if h.said == nil { // its stream is new: what it reported in the one before is what is known
		var before *heard
		for g := range r.of(uid) {
			if g.said != nil && (before == nil || g.opened > before.opened) {
				before = g
			}
		}
		if before != nil {
			h.reported(before.said, before.told)
		}
	}
	return h, true
}

// progress says for each of the hosts that is live, or may be, whether it has applied the revision of that store.
func (r *realisation) progress(hosts []model.UID, storeID string, rev model.Revision) (applied, lagging []model.UID) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, uid := range hosts {
		switch h := r.last(uid); {
		case h == nil || !h.live() && !h.astray:
		case h.astray:
			lagging = append(lagging, uid)
		case h.storeID == storeID && h.applied >= rev && h.refused == "":
			applied = append(applied, uid)
		default:
			lagging = append(lagging, uid)
		}
	}
	return applied, lagging
}

// changes is closed when a host says that it has applied something or is prepared for a port, and when a stream opens or ends.
func (r *realisation) changes() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	return r.changed
}

// watch is closed when what is known of one host may have changed: who waits for one of a thousand is not woken by the others.
func (r *realisation) watch(uid model.UID) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.watched[uid]
	if c == nil {
		c = make(chan struct{})
		r.watched[uid] = c
	}
	return c
}

// least is the host among those that are live, or may be, that is furthest behind in that store, and what it has applied. None is live: no host.
func (r *realisation) least(hosts []model.UID, storeID string) (behind model.UID, applied model.Revision) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, uid := range hosts {
		h := r.last(uid)
		if h == nil || !h.live() && !h.astray {
			continue
		}
		has := h.applied
		if h.astray || h.storeID != storeID || h.refused != "" {
			has = 0
		}
		if behind == "" || has < applied {
			behind, applied = uid, has
		}
	}
	return behind, applied
}

// notify wakes everybody who waits.
func (r *realisation) notify() {
	r.wake()
	for _, c := range r.watched {
		close(c)
	}
	clear(r.watched)
}

// notifyOf wakes those who wait for this host, or for any.
func (r *realisation) notifyOf(uid model.UID) {
	r.wake()
	if c := r.watched[uid]; c != nil {
		close(c)
		delete(r.watched, uid)
	}
}

func (r *realisation) wake() {
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// live reports whether the host has a stream to a server.
func (h *heard) live() bool { return h.session != nil || h.elsewhere }
