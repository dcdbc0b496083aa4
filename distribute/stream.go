package distribute

import (
	"maps"
	"slices"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/plan"
)

// stream is where one agent's stream stands. Only its own goroutine uses it, but for the signals and started: its goroutine sets that
// with the distributor's lock held for reading, and others look at it with the lock held for writing.
type stream struct {
	host  string
	hello *planv1.Hello
	// wake: something that concerns this host changed. stale: something else did. Both of size 1.
	wake, stale chan struct{}

	started  bool
	storeID  string
	revision int64
	cursor   uint64   // in the ring: the first change not yet sent
	held     []string // the scopes that the agent holds once it has taken what was sent, sorted

	turn turn
}

// batch is one update before it is cut: everything from where a stream stood up to now, at one revision.
type batch struct {
	storeID  string
	revision int64
	reset    []string
	drop     []string
	upserts  []*plan.Resource
	removals []plan.Removal
	// questions are what Evidence is asked before it is sent.
	questions []question
}

type question struct {
	host, scope string
	since       int64
	subscribed  bool
}

// next is what a stream must be sent now, or nil.
func (d *Distributor) next(st *stream) *batch {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.storeID == "" {
		return nil
	}
	b := &batch{storeID: d.storeID, revision: d.revision}
	switch {
	case !st.started:
		if !d.knows(st) {
			return nil
		}
		d.start(st, b)
	case st.storeID != d.storeID:
		if d.subs.scopes[st.host] == nil {
			return nil
		}
		d.whole(st, b)
	case st.cursor < d.ring.first:
		d.overrun(st, b)
	default:
		d.delta(st, b)
	}
	if len(b.reset) > 0 {
		d.counts.resyncs.Add(1)
	}
	quiet := len(b.reset)+len(b.drop)+len(b.upserts)+len(b.removals) == 0
	if quiet && st.started && st.storeID == d.storeID && st.revision == d.revision {
		st.cursor = d.ring.next
		return nil
	}
	st.started, st.storeID, st.revision, st.cursor = true, d.storeID, d.revision, d.ring.next
	st.held, st.hello = d.subs.scopes[st.host], nil
	return b
}

// knows says whether there is enough here to answer a Hello: this server may be behind the one that the agent heard
// before, or not have seen yet that the host exists. A stream waits for that; taking back what the agent holds, because
// this server knows less, would be wrong.
func (d *Distributor) knows(st *stream) bool {
	if st.hello.GetStoreId() == d.storeID && st.hello.GetRevision() > d.revision {
		return false
	}
	return d.subs.scopes[st.host] != nil
}

// start answers a Hello. Of a scope whose digest differs, the changes since the agent's revision are sent if the ring
// still has them and the digest says that the agent holds what was there then; if not, the scope is sent whole.
func (d *Distributor) start(st *stream, b *batch) {
	digests := make(map[string]*planv1.ScopeDigest, len(st.hello.GetScopes()))
	for _, s := range st.hello.GetScopes() {
		digests[s.GetScope()] = s
	}
	st.held = slices.Sorted(maps.Keys(digests))
	if st.hello.GetStoreId() != d.storeID {
		d.whole(st, b)
		return
	}
	st.revision = st.hello.GetRevision()
	undo := map[string]plan.Digest{}
	cursor, covered := d.ring.after(st.revision)
	if covered {
		for e := range d.ring.since(cursor) {
			undo[e.scope] = add(undo[e.scope], e.undo)
		}
	}
	replay := map[string]bool{}
	d.compare(st, b, func(scope string) bool {
		now := d.set.Digest(scope)
		if now.Matches(digests[scope]) {
			return true
		}
		replay[scope] = covered && add(now, undo[scope]).Matches(digests[scope])
		return replay[scope]
	})
	st.cursor = cursor
	d.replay(st, b, func(scope string) bool { return replay[scope] })
}

// whole sends everything, and no evidence: what another store deleted proves nothing.
func (d *Distributor) whole(st *stream, b *batch) {
	for _, scope := range d.subs.scopes[st.host] {
		d.sendWhole(b, scope)
	}
	for _, scope := range st.held {
		if !holds(d.subs.scopes[st.host], scope) {
			b.drop = append(b.drop, scope)
		}
	}
}

// overrun serves a stream that fell off the ring: what changed since its cursor is sent whole, by scope.
func (d *Distributor) overrun(st *stream, b *batch) {
	d.counts.overruns.Add(1)
	d.compare(st, b, func(scope string) bool {
		last, ok := d.touched[scope]
		return ok && last < st.cursor
	})
}

// compare sends the scopes that are not the same whole, and takes away those that the host no longer subscribes to.
func (d *Distributor) compare(st *stream, b *batch, same func(scope string) bool) {
	want := d.subs.scopes[st.host]
	for _, scope := range want {
		held := holds(st.held, scope)
		if held && same(scope) {
			continue
		}
		d.sendWhole(b, scope)
		if held {
			b.questions = append(b.questions, question{st.host, scope, st.revision, true})
		}
	}
	for _, scope := range st.held {
		if !holds(want, scope) {
			b.drop = append(b.drop, scope)
			b.questions = append(b.questions, question{st.host, scope, st.revision, false})
		}
	}
}

func (d *Distributor) sendWhole(b *batch, scope string) {
	b.reset = append(b.reset, scope)
	for r := range d.set.Scope(scope) {
		b.upserts = append(b.upserts, r)
	}
}

// replay sends the resources that changed in some scopes since the cursor, each once and as it is now. It returns the
// evidence for scopes that are dropped: the last change of the host's own resource, if every one of them was seen to
// happen, or 0.
func (d *Distributor) replay(st *stream, b *batch, in func(scope string) bool) (interest int64) {
	changed := map[entry]int64{} // scope and key, to the evidence of the last change
	seen := true
	for e := range d.ring.since(st.cursor) {
		if e.key.Kind == planv1.Kind_KIND_HOST && e.key.UID == st.host {
			interest, seen = max(interest, e.revision), seen && e.revision != 0
		}
		if in(e.scope) {
			changed[entry{scope: e.scope, key: e.key}] = e.revision
		}
	}
	for e, revision := range changed {
		if r := d.set.Get(e.key); r != nil && r.Scope == e.scope {
			b.upserts = append(b.upserts, r)
			continue
		}
		b.removals = append(b.removals, plan.Removal{Scope: e.scope, Key: e.key, Revision: revision})
		if revision == 0 {
			b.questions = append(b.questions, question{st.host, e.scope, st.revision, true})
		}
	}
	if !seen {
		return 0
	}
	return interest
}

// same reports whether two lists are one: what a host must hold rarely changes, and then its list is made anew.
func same(a, b []string) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// delta sends what the ring has since the cursor: of scopes that are held and stay, the changed resources; new scopes
// whole; and what is dropped.
func (d *Distributor) delta(st *stream, b *batch) {
	want := d.subs.scopes[st.host]
	if same(st.held, want) {
		d.replay(st, b, func(scope string) bool { return holds(want, scope) })
		return
	}
	interest := d.replay(st, b, func(scope string) bool { return holds(st.held, scope) && holds(want, scope) })
	for _, scope := range want {
		if !holds(st.held, scope) {
			d.sendWhole(b, scope)
		}
	}
	for _, scope := range st.held {
		if holds(want, scope) {
			continue
		}
		b.drop = append(b.drop, scope)
		if interest != 0 {
			b.removals = append(b.removals, plan.Removal{Scope: scope, Revision: interest})
		} else {
			b.questions = append(b.questions, question{st.host, scope, st.revision, false})
		}
	}
}
