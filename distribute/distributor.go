package distribute

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/plan"
)

// Config is what a Distributor needs; zero values are the defaults.
type Config struct {
	// RingEntries bounds how many changes are remembered for streams that are behind. Default 65536.
	RingEntries int
	// ChunkOctets is the size at which an update is cut. Default 256 KiB.
	ChunkOctets int
	// AdvanceEvery is how often a host that a change does not concern hears of the revision alone. Default 200 ms. With many
	// streams it is longer, so that they are about AdvanceRate a second over all; Hurry is for who waits for one.
	AdvanceEvery time.Duration
	// Evidence names the revisions after since that took something of a scope from a host (compile.Evidence); subscribed
	// says whether the host still holds the scope. Called from streams' goroutines without a lock held, only for agents
	// that come from the same store; nil gives none.
	Evidence func(host, scope string, since int64, subscribed bool) []plan.Removal
}

// Distributor holds the current resources of all hosts and a bounded ring of what changed. Safe for concurrent use.
type Distributor struct {
	cfg Config

	// mu is held for reading by streams that look what is next for them, so that a thousand of them do not stand in the way of the one
	// that publishes.
	mu       sync.RWMutex
	storeID  string // empty before the first Reset
	revision int64
	set      *plan.Set
	ring     ring
	// touched is the sequence number of the last change in each scope that holds something: what a stream that fell off
	// the ring compares its cursor with.
	touched map[string]uint64
	subs    subscriptions
	streams map[*stream]struct{}
	counts  counts
	latest  atomic.Pointer[latest]
	// turns are taken by streams that work: a few for each processor. starts are the turns of those that begin, and may have a whole plan to send.
	turns, starts chan struct{}
}

// counts are what Stats says, counted by streams side by side.
type counts struct{ updates, octets, resyncs, overruns atomic.Uint64 }

// Stats count what streams went through since start.
type Stats struct {
	// Streams are open now.
	Streams int
	// Updates and Octets were sent; Octets are of bodies.
	Updates, Octets uint64
	// Resyncs are streams that began with, or fell back to, scopes sent whole; Overruns are those that fell off the ring.
	Resyncs, Overruns uint64
}

// New is a distributor that has nothing yet: streams wait for the first Reset.
func New(cfg Config) *Distributor {
	if cfg.RingEntries <= 0 {
		cfg.RingEntries = 1 << 16
	}
	if cfg.ChunkOctets <= 0 {
		cfg.ChunkOctets = 256 << 10
	}
	if cfg.AdvanceEvery <= 0 {
		cfg.AdvanceEvery = 200 * time.Millisecond
	}
	return &Distributor{
		cfg: cfg, set: plan.NewSet(), ring: ring{limit: cfg.RingEntries}, touched: map[string]uint64{},
		subs: newSubscriptions(), streams: map[*stream]struct{}{}, turns: make(chan struct{}, 4*runtime.GOMAXPROCS(0)),
		starts: make(chan struct{}, 2*runtime.GOMAXPROCS(0)),
	}
}

// Reset replaces everything: at start, when the store was loaded anew, and when it was replaced (another store id).
// Streams go on: they are sent what differs.
func (d *Distributor) Reset(storeID string, revision int64, all []*plan.Resource) {
	d.mu.Lock()
	defer d.mu.Unlock()
	another := storeID != d.storeID
	if another {
		d.storeID, d.revision = storeID, 0
		d.set, d.touched, d.subs = plan.NewSet(), map[string]uint64{}, newSubscriptions()
	}
	d.revision = max(d.revision, revision)
	keep := make(map[plan.Key]string, len(all))
	for _, r := range all {
		keep[r.Key()] = r.Scope
	}
	for _, r := range slices.Collect(d.set.All()) {
		if keep[r.Key()] != r.Scope {
			// What deleted it was not seen: streams ask Evidence.
			d.remove(plan.Removal{Scope: r.Scope, Key: r.Key()})
		}
	}
	for _, r := range all {
		d.put(r, 0)
	}
	if another {
		// Nobody can have read what led here.
		d.ring.clear(d.revision)
	}
	for st := range d.streams {
		signal(st.wake)
	}
}

// Publish takes one compiled change in; it never waits for a stream. A store id other than that of the last Reset is an
// error: call Reset.
func (d *Distributor) Publish(storeID string, revision int64, upserts []*plan.Resource, removals []plan.Removal) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if storeID != d.storeID || storeID == "" {
		return fmt.Errorf("publish revision %d: it is of store %q, and the plan of store %q", revision, storeID, d.storeID)
	}
	d.revision = max(d.revision, revision)
	before := d.ring.next
	for _, r := range removals {
		d.remove(r)
	}
	for _, r := range upserts {
		d.put(r, revision)
	}
	d.signal(before)
	return nil
}

// put takes a resource in; revision is the evidence for what a host loses by it, 0 when it was not seen to change.
func (d *Distributor) put(r *plan.Resource, revision int64) {
	old := d.set.Get(r.Key())
	if old != nil && old.Scope != r.Scope {
		d.remove(plan.Removal{Scope: old.Scope, Key: r.Key(), Revision: revision})
	}
	before := d.set.Digest(r.Scope)
	if !d.set.Put(r) {
		return
	}
	// A host that joins is a new VTEP for every other, which none sends to until a network lists it.
	idle := old == nil && r.Scope == plan.UnderlayScope
	d.note(entry{scope: r.Scope, key: r.Key(), revision: revision, idle: idle}, before)
	if r.Kind == planv1.Kind_KIND_HOST {
		d.subs.put(r.UID, plan.Subscription(r.Host()))
	}
}

func (d *Distributor) remove(r plan.Removal) {
	if old := d.set.Get(r.Key); old == nil || old.Scope != r.Scope {
		return
	}
	before := d.set.Digest(r.Scope)
	d.set.Remove(r.Key)
	d.note(entry{scope: r.Scope, key: r.Key, revision: r.Revision}, before)
	if r.Key.Kind == planv1.Kind_KIND_HOST {
		d.subs.remove(r.Key.UID)
	}
}

// note puts a change of a scope, whose digest was before, on the ring.
func (d *Distributor) note(e entry, before plan.Digest) {
	after := d.set.Digest(e.scope)
	e.at, e.undo = d.revision, add(before, negative(after))
	d.touched[e.scope] = d.ring.next
	if after.Resources == 0 {
		delete(d.touched, e.scope)
	}
	d.ring.push(e)
}

// signal wakes the streams that the changes since a sequence number concern, and tells the others that time went by.
func (d *Distributor) signal(since uint64) {
	scopes := map[string]struct{}{}
	hosts := map[string]struct{}{}
	for e := range d.ring.since(since) {
		switch {
		case e.idle:
		case e.key.Kind == planv1.Kind_KIND_HOST:
			hosts[e.key.UID] = struct{}{}
		default:
			scopes[e.scope] = struct{}{}
		}
	}
	// A network knows its few hosts, so that under load, when many networks change at once, nobody asks each stream for each of them.
	d.subs.resolve(scopes, hosts)
	// More changes at once than the ring holds: everybody is behind.
	all := since < d.ring.first
	for st := range d.streams {
		_, named := hosts[st.host]
		if all || named || !st.started || d.subs.any(st.host, scopes) {
			signal(st.wake)
		} else {
			signal(st.stale)
		}
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // Size 1: a signal that stands there already says the same.
	}
}

// Subscribers are the hosts that must hold a scope by the current plan, connected or not, sorted.
func (d *Distributor) Subscribers(scope string) []string {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.subs.hostsOf(scope)
}

// Subscribed says whether one host must hold a scope by the current plan.
func (d *Distributor) Subscribed(host, scope string) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return holds(d.subs.scopes[host], scope)
}

// Revision is what was last published, and of which store.
func (d *Distributor) Revision() (storeID string, revision int64) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.storeID, d.revision
}

// Stats are the counters.
func (d *Distributor) Stats() Stats {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return Stats{
		Streams: len(d.streams), Updates: d.counts.updates.Load(), Octets: d.counts.octets.Load(),
		Resyncs: d.counts.resyncs.Load(), Overruns: d.counts.overruns.Load(),
	}
}

// Serve feeds one stream until ctx ends or send fails, and returns why. send may block as long as it likes, and must
// return when ctx ends. The messages share their resources with other streams: they must not be modified.
func (d *Distributor) Serve(ctx context.Context, host string, hello *planv1.Hello, send func(*planv1.ServerMessage) error) error {
	st := d.open(host, hello)
	defer d.close(st)
	for {
		if err := d.step(ctx, st, send); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-st.wake:
		case <-st.stale:
			if err := wait(ctx, d.patience(), st.wake); err != nil {
				return err
			}
		}
	}
}

// AdvanceRate is how many updates a second bring a revision and nothing else, whatever the number of streams.
const AdvanceRate = 500

// patience is how long a host that a change does not concern goes without hearing of its revision. The streams of a large fleet
// do not come to the end of theirs together.
func (d *Distributor) patience() time.Duration {
	d.mu.RLock()
	defer d.mu.RUnlock()
	fair := time.Duration(len(d.streams)) * time.Second / AdvanceRate
	if fair <= d.cfg.AdvanceEvery {
		return d.cfg.AdvanceEvery
	}
	return d.cfg.AdvanceEvery + rand.N(2*(fair-d.cfg.AdvanceEvery))
}

// Hurry has hosts hear of the revision now, for somebody waits for them. Hosts without a stream are left out.
func (d *Distributor) Hurry(hosts []string) {
	asked := make(map[string]bool, len(hosts))
	for _, h := range hosts {
		asked[h] = true
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	for st := range d.streams {
		if asked[st.host] {
			signal(st.wake)
		}
	}
}

// step sends a stream what is there for it, when it is its turn: what it is sent is decided only then.
func (d *Distributor) step(ctx context.Context, st *stream, send func(*planv1.ServerMessage) error) error {
	turns, limit := d.turns, turnTime
	if !st.started {
		turns, limit = d.starts, startTime
	}
	if err := st.turn.take(ctx, turns, limit); err != nil {
		return err
	}
	defer st.turn.end()
	b := d.next(st)
	if b == nil {
		return nil
	}
	if err := d.send(ctx, b, send); err != nil {
		return fmt.Errorf("send the plan to host %s: %w", st.host, err)
	}
	return nil
}

// turnTime is how long a stream has its turn at most: a host that does not read takes nobody else's. A start has longer, for it may be a whole
// plan, and on a busy machine that takes its time: a thousand hosts that come back with nothing are then served a few at a time still.
const (
	turnTime  = 5 * time.Millisecond
	startTime = 500 * time.Millisecond
)

// turn is a stream's, one after the other. A change to a thousand streams makes them all ready at once, and without turns whatever else the server
// does, such as answering, would stand behind all of them at each step.
type turn struct {
	late *time.Timer

	mu sync.Mutex
	of chan struct{} // what it is a turn of; nil: it is over
}

// take waits for one of a few turns, first come first served. It is over after the limit, at the latest.
func (t *turn) take(ctx context.Context, turns chan struct{}, limit time.Duration) error {
	select {
	case turns <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.of = turns
	if t.late == nil {
		t.late = time.AfterFunc(limit, t.over)
	} else {
		t.late.Reset(limit)
	}
	return nil
}

func (t *turn) end() {
	t.late.Stop()
	t.over()
}

// over gives the turn to another stream, once. A limit that runs out just when the turn ends may end the next one early: then one stream more has a turn.
func (t *turn) over() {
	t.mu.Lock()
	turns := t.of
	t.of = nil
	t.mu.Unlock()
	if turns != nil {
		<-turns
	}
}

// wait lets a while go by, or less when there is something to do.
func wait(ctx context.Context, d time.Duration, wake <-chan struct{}) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-wake:
	case <-t.C:
	}
	return nil
}

// send completes the evidence and sends the chunks.
func (d *Distributor) send(ctx context.Context, b *batch, send func(*planv1.ServerMessage) error) error {
	b.ask(d.cfg.Evidence)
	if r := b.single(); r != nil {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := send(d.one(b, r)); err != nil {
			return err
		}
		d.counts.updates.Add(1)
		d.counts.octets.Add(uint64(len(r.Body)))
		return nil
	}
	octets := 0
	for u := range b.chunks(d.cfg.ChunkOctets) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := send(message(u)); err != nil {
			return err
		}
		for _, r := range u.GetUpserts() {
			octets += len(r.GetBody())
		}
	}
	d.counts.updates.Add(1)
	d.counts.octets.Add(uint64(octets))
	return nil
}

func message(u *planv1.Update) *planv1.ServerMessage {
	return &planv1.ServerMessage{Message: &planv1.ServerMessage_Update{Update: u}}
}

// latest is a change of one resource, as a message. It goes to all streams as it is, and nobody modifies it.
type latest struct {
	storeID  string
	revision int64
	resource *plan.Resource
	message  *planv1.ServerMessage
}

// one is the message of a batch that is one resource. A thousand streams are mostly sent the same.
func (d *Distributor) one(b *batch, r *plan.Resource) *planv1.ServerMessage {
	if l := d.latest.Load(); l != nil && l.storeID == b.storeID && l.revision == b.revision && l.resource == r {
		return l.message
	}
	u := b.update()
	u.Upserts, u.Last = []*planv1.Resource{r.Proto()}, true
	m := message(u)
	d.latest.Store(&latest{b.storeID, b.revision, r, m})
	return m
}

func (d *Distributor) open(host string, hello *planv1.Hello) *stream {
	st := &stream{host: host, hello: hello, wake: make(chan struct{}, 1), stale: make(chan struct{}, 1)}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.streams[st] = struct{}{}
	return st
}

func (d *Distributor) close(st *stream) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.streams, st)
}
