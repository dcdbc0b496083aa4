package server

import (
	"context"
	"sync"
	"time"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/model"
)

// realisation is what hosts told this server since it started: who is connected, what each has applied, and what its
// ports and counters are. It is never stored; a host tells it all again when it opens a stream. A host is live when it
// has a stream to this server.
type realisation struct {
	mu    sync.RWMutex
	hosts map[model.UID]*heard
	// moved keeps what a port counted on hosts that it left, so that its counters go on after a move.
	moved map[model.UID]portCount
	// changed is closed and replaced at every acknowledgement and every stream that opens or ends.
	changed chan struct{}
}

// heard is what one host said.
type heard struct {
	// session is the stream that counts: a newer one replaces an older. nil is not live.
	session *session
	seen    time.Time

	storeID string
	applied model.Revision
	// refused is why the agent kept its last good plan instead of an update; empty when it did not.
	refused string
	errors  []*planv1.ResourceError

	ports      map[model.UID]*planv1.PortReport
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
	cancel context.CancelCauseFunc
}

// portCount is what a port counted.
type portCount struct {
	ingressPackets, ingressOctets, egressPackets, egressOctets uint64
}

func newRealisation() *realisation {
	return &realisation{
		hosts: map[model.UID]*heard{}, moved: map[model.UID]portCount{}, changed: make(chan struct{}),
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
	h.session, h.seen, h.storeID, h.applied = s, now, "", 0
	h.refused, h.errors = "", nil
	r.notify()
	return old
}

// closed ends a session; what the host said stays, for whoever asks what was last known.
func (r *realisation) closed(s *session, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h := r.hosts[s.host]; h != nil && h.session == s {
		h.session, h.seen = nil, now
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
	r.notify()
}

// report replaces what a host said of its ports. here tells which ports are still bound to it: what another one
// counted before it left is kept.
func (r *realisation) report(s *session, rep *planv1.Report, here func(model.UID) bool, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.hosts[s.host]
	if h == nil || h.session != s {
		return
	}
	ports := make(map[model.UID]*planv1.PortReport, len(rep.GetPorts()))
	news := false // for who waits for a port to be prepared
	for _, p := range rep.GetPorts() {
		uid := model.UID(p.GetUid())
		ports[uid] = p
		news = news || p.GetPrepared() && (!h.ports[uid].GetPrepared() || h.ports[uid].GetEpoch() != p.GetEpoch())
	}
	for uid, last := range h.ports {
		if ports[uid] == nil && !here(uid) {
			r.moved[uid] = r.moved[uid].plus(last)
		}
	}
	h.seen, h.ports, h.conditions, h.drops = now, ports, rep.GetConditions(), rep.GetDrops()
	h.books, h.lanes, h.programs, h.can = rep.GetBooks(), rep.GetLanes(), rep.GetPrograms(), rep.GetCapabilities()
	if news {
		r.notify()
	}
}

// forget drops what is kept of hosts and ports that are gone, and returns the sessions of those hosts.
func (r *realisation) forget(hostExists, portExists func(model.UID) bool) []*session {
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
	for uid := range r.moved {
		if !portExists(uid) {
			delete(r.moved, uid)
		}
	}
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
	r.notify()
	if h == nil {
		return nil
	}
	return h.session
}

// host is a copy of what a host said; ok is false when it said nothing to this server.
func (r *realisation) host(uid model.UID) (h heard, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if p := r.hosts[uid]; p != nil {
		return *p, true
	}
	return heard{}, false
}

// counted is what the port counted on hosts that it left.
func (r *realisation) counted(port model.UID) portCount {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.moved[port]
}

// progress says for each of the hosts that is live whether it has applied the revision of that store, and gives the
// channel that is closed when any answer may have changed.
func (r *realisation) progress(hosts []model.UID, storeID string, rev model.Revision) (applied, lagging []model.UID, changed <-chan struct{}) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, uid := range hosts {
		switch h := r.hosts[uid]; {
		case h == nil || h.session == nil:
		case h.storeID == storeID && h.applied >= rev && h.refused == "":
			applied = append(applied, uid)
		default:
			lagging = append(lagging, uid)
		}
	}
	return applied, lagging, r.changed
}

// changes is closed when a host says that it has applied something or is prepared for a port, and when a stream opens or ends.
func (r *realisation) changes() <-chan struct{} {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.changed
}

// least is the host among those that are live that is furthest behind in that store, and what it has applied. None is live: no host.
func (r *realisation) least(hosts []model.UID, storeID string) (behind model.UID, applied model.Revision) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, uid := range hosts {
		h := r.hosts[uid]
		if h == nil || h.session == nil {
			continue
		}
		has := h.applied
		if h.storeID != storeID || h.refused != "" {
			has = 0
		}
		if behind == "" || has < applied {
			behind, applied = uid, has
		}
	}
	return behind, applied
}

func (r *realisation) notify() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// live reports whether the host has a stream to this server.
func (h heard) live() bool { return h.session != nil }

func (c portCount) plus(p *planv1.PortReport) portCount {
	c.ingressPackets += p.GetIngressPackets()
	c.ingressOctets += p.GetIngressOctets()
	c.egressPackets += p.GetEgressPackets()
	c.egressOctets += p.GetEgressOctets()
	return c
}
