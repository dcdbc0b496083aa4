package server

import (
	"fmt"
	"iter"
	"maps"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	peerv1 "github.com/weftnet/weft/api/gen/peer/v1"
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/plan"
)

// relay is the others' part of a realisation: what the hosts say whose streams end at other servers, and which of this server's own hosts
// the others are still to be told of. Everything is under the realisation's lock.
//
// A host may have been heard by several servers. The newest of its open streams counts, and without one what was said in the newest. While
// a server that lives cannot be heard, its hosts are astray: neither live nor gone, until it is heard again, or its lease ends, or they
// come elsewhere.
type relay struct {
	// others are the servers that are heard, or will be again, by id.
	others map[string]map[model.UID]*heard
	// left is what was last heard of hosts by servers that are gone.
	left      map[model.UID]*heard
	listeners map[*listener]struct{}
	// hasStore: the store answers this server. haveStore says it of the others that are heard.
	hasStore  bool
	haveStore map[string]bool
}

func newRelay() relay {
	return relay{others: map[string]map[model.UID]*heard{}, left: map[model.UID]*heard{}, listeners: map[*listener]struct{}{}, haveStore: map[string]bool{}}
}

// listener is another server that hears this one. It is owed what is not sent yet: the hosts, and whether their reports are new, so that
// what waits for a slow one is never more than that.
type listener struct {
	owed map[model.UID]bool
	// wake is of size 1: a signal that stands there already says the same.
	wake chan struct{}
}

// of are all that was heard of a host.
func (r *realisation) of(uid model.UID) iter.Seq[*heard] {
	return func(yield func(*heard) bool) {
		if h := r.hosts[uid]; h != nil && !yield(h) {
			return
		}
		for _, hosts := range r.others {
			if h := hosts[uid]; h != nil && !yield(h) {
				return
			}
		}
		if h := r.left[uid]; h != nil {
			yield(h)
		}
	}
}

// last is what counts of what was heard of a host, or nil.
func (r *realisation) last(uid model.UID) *heard {
	var best *heard
	for h := range r.of(uid) {
		if best == nil || h.newer(best) {
			best = h
		}
	}
	return best
}

// newer reports whether h goes before g: an open stream before one that is not, the newer stream before the older.
func (h *heard) newer(g *heard) bool {
	if h.live() != g.live() {
		return h.live()
	}
	return h.opened > g.opened
}

// tell notes that the listeners are owed a host, and whether its report is new.
func (r *realisation) tell(uid model.UID, report bool) {
	for l := range r.listeners {
		l.owed[uid] = l.owed[uid] || report
		l.ring()
	}
}

func (l *listener) ring() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// listen begins to hear this server: the listener is owed everything.
func (r *realisation) listen() *listener {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := &listener{owed: make(map[model.UID]bool, len(r.hosts)), wake: make(chan struct{}, 1)}
	for uid := range r.hosts {
		l.owed[uid] = true
	}
	l.wake <- struct{}{}
	r.listeners[l] = struct{}{}
	return l
}

func (r *realisation) unlisten(l *listener) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.listeners, l)
}

// Bounds of one message to another server; what one host said (a report, an acknowledgement) may be larger by itself.
const (
	relayHosts  = 256
	relayOctets = 256 << 10
)

// collect takes some of what a listener is owed, as it is now, and says whether that was all.
func (r *realisation) collect(l *listener) (m *peerv1.HearResponse, all bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out, all := r.collectHosts(l)
	return &peerv1.HearResponse{Hosts: out, HasStore: r.hasStore}, all
}

func (r *realisation) collectHosts(l *listener) (out []*peerv1.Host, all bool) {
	octets := 0
	for uid, report := range l.owed {
		if len(out) >= relayHosts || octets >= relayOctets {
			return out, false
		}
		delete(l.owed, uid)
		h := r.hosts[uid]
		if h == nil { // it was removed, and the others know that from the store
			continue
		}
		m := &peerv1.Host{
			Uid: string(uid), Opened: h.opened, Live: h.session != nil, Seen: timestamppb.New(h.seen),
			StoreId: h.storeID, Applied: int64(h.applied), Errors: h.errors, Refused: h.refused,
		}
		if report {
			m.Report = h.said
		}
		octets += proto.Size(m)
		out = append(out, m)
	}
	return out, true
}

// restored has the reports in what another server hears restored: an older one sends them as they came to it.
func restored(said *peerv1.HearResponse) error {
	for _, m := range said.GetHosts() {
		if m.Report == nil {
			continue
		}
		var err error
		if m.Report, err = plan.Restore(nil, m.Report); err != nil {
			return fmt.Errorf("what it says of host %s: %w", m.GetUid(), err)
		}
	}
	return nil
}

// relayed takes in what another server hears, its reports restored, and returns this server's sessions that are older than a stream over there.
func (r *realisation) relayed(server string, said *peerv1.HearResponse) (replaced []*session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.haveStore[server] = said.GetHasStore()
	from := r.others[server]
	if from == nil {
		from = map[model.UID]*heard{}
		r.others[server] = from
	}
	for _, m := range said.GetHosts() {
		uid := model.UID(m.GetUid())
		h := from[uid]
		if h == nil {
			h = &heard{}
			from[uid] = h
		}
		h.opened, h.elsewhere, h.astray, h.seen = m.GetOpened(), m.GetLive(), false, m.GetSeen().AsTime()
		h.storeID, h.applied, h.errors, h.refused = m.GetStoreId(), model.Revision(m.GetApplied()), m.GetErrors(), m.GetRefused()
		if m.Report != nil {
			h.reported(m.Report, h.seen)
		}
		if !h.elsewhere {
			continue
		}
		delete(r.left, uid)
		if own := r.hosts[uid]; own != nil && own.session != nil && own.opened < h.opened {
			replaced = append(replaced, own.session)
		}
	}
	r.notify()
	return replaced
}

// heardAll forgets hosts that a server has not named in telling all that it has.
func (r *realisation) heardAll(server string, named map[model.UID]struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.others[server], func(uid model.UID, _ *heard) bool {
		_, is := named[uid]
		return !is
	})
	r.notify()
}

// unheard notes that a server that lives is not heard any more: where its hosts are is not known.
func (r *realisation) unheard(server string, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.haveStore, server)
	for _, h := range r.others[server] {
		if h.elsewhere {
			h.elsewhere, h.astray, h.seen = false, true, now
		}
	}
	r.notify()
}

// departed notes that a server is gone, and its hosts with it unless they came elsewhere.
func (r *realisation) departed(server string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for uid, h := range r.others[server] {
		h.elsewhere, h.astray = false, false
		if was := r.left[uid]; was == nil || h.newer(was) {
			r.left[uid] = h
		}
	}
	delete(r.others, server)
	delete(r.haveStore, server)
	r.notify()
}

// forget drops what is kept of hosts that are gone.
func (r *relay) forget(exists func(model.UID) bool) {
	gone := func(uid model.UID, _ *heard) bool { return !exists(uid) }
	for _, hosts := range r.others {
		maps.DeleteFunc(hosts, gone)
	}
	maps.DeleteFunc(r.left, gone)
}
