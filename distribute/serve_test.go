package distribute

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/compile"
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/plan"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// receiver is an agent behind Serve: it stages what it is sent, and may be stuck or break its stream.
type receiver struct {
	*agent
	mu      sync.Mutex
	updates int
	gate    chan struct{} // nil: never stuck
	breaks  int           // breaks the stream after so many messages, 0 never
}

var errBroken = errors.New("broken")

func (r *receiver) serve(ctx context.Context, d *Distributor) error {
	r.mu.Lock()
	r.staging = plan.NewStaging(string(r.host), r.staging.Set(), r.staging.StoreID(), r.staging.Revision())
	hello := r.staging.Hello("test", nil)
	r.mu.Unlock()
	messages := 0
	return d.Serve(ctx, string(r.host), hello, func(m *planv1.ServerMessage) error {
		if r.gate != nil {
			select {
			case <-r.gate:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if messages++; messages == r.breaks {
			return errBroken
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		step, err := r.staging.Receive(m.GetUpdate())
		if step != nil {
			r.updates++
		}
		return err
	})
}

func (r *receiver) at() (int64, int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.staging.Revision(), r.updates
}

// TestStuckStreamBlocksNobody: h0's stream takes nothing; publishing and h1 go on, and h0 catches up in one update. Red
// when Serve holds the lock while it sends.
func TestStuckStreamBlocksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		f := newFleet(Config{RingEntries: 64})
		f.host("h0")
		f.host("h1")
		f.network("n0")
		stuck := &receiver{agent: f.agent("h0"), gate: make(chan struct{})}
		free := &receiver{agent: f.agent("h1")}
		var wg sync.WaitGroup
		wg.Go(func() { _ = stuck.serve(ctx, f.d) })
		wg.Go(func() { _ = free.serve(ctx, f.d) })
		synctest.Wait()
		for i := range 200 {
			uid := model.UID(fmt.Sprint("p", i))
			f.port(uid, "n0")
			f.bind(uid, model.UID(fmt.Sprint("h", i%2)))
		}
		synctest.Wait()
		if rev, _ := free.at(); rev != int64(f.world.Revision) {
			t.Fatalf("h1 is at %d of %d while h0 is stuck", rev, f.world.Revision)
		}
		if rev, _ := stuck.at(); rev != 0 {
			t.Fatalf("h0 is at %d and should be stuck", rev)
		}
		close(stuck.gate)
		synctest.Wait()
		rev, updates := stuck.at()
		if rev != int64(f.world.Revision) || updates != 2 {
			t.Fatalf("h0 caught up to %d of %d in %d updates", rev, f.world.Revision, updates)
		}
		cancel()
		wg.Wait()
		for _, r := range []*receiver{stuck, free} {
			if !r.staging.Set().Equal(f.want(r.host)) {
				t.Fatalf("%s holds %v", r.host, names(r.staging.Set()))
			}
		}
		if s := f.d.Stats(); s.Overruns == 0 || s.Streams != 0 {
			t.Fatalf("stats are %+v", s)
		}
	})
}

// TestAdvanceIsCoalesced: a host that 100 changes do not concern hears of the revision a few times, and of the last one
// within AdvanceEvery. Red when signal wakes every stream.
func TestAdvanceIsCoalesced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		f := newFleet(Config{AdvanceEvery: 200 * time.Millisecond})
		f.host("h0")
		r := &receiver{agent: f.agent("h0")}
		var wg sync.WaitGroup
		wg.Go(func() { _ = r.serve(ctx, f.d) })
		synctest.Wait()
		_, first := r.at()
		for i := range 100 {
			f.network(model.UID(fmt.Sprint("n", i)))
			time.Sleep(10 * time.Millisecond) // the bubble's clock
		}
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		rev, updates := r.at()
		if rev != int64(f.world.Revision) || updates-first > 6 {
			t.Fatalf("at %d of %d after %d updates", rev, f.world.Revision, updates-first)
		}
		cancel()
		wg.Wait()
	})
}

// TestAdvanceHasARate: a large fleet hears of a revision that concerns nobody later than a small one, not all at once, and those that are
// hurried now. Red when patience does not look at the number of streams, or when Hurry does nothing.
func TestAdvanceHasARate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		f := newFleet(Config{AdvanceEvery: 100 * time.Millisecond})
		const hosts = 2 * AdvanceRate
		var all []*receiver
		for i := range hosts {
			h := model.UID(fmt.Sprint("h", i))
			f.write(model.Change{Host: &model.Host{Meta: model.Meta{UID: h}, Name: string(h)}})
			all = append(all, &receiver{agent: f.agent(h)})
		}
		var wg sync.WaitGroup
		for _, r := range all {
			wg.Go(func() { _ = r.serve(ctx, f.d) })
		}
		synctest.Wait()
		f.network("n")
		heard := func() (n int) {
			synctest.Wait()
			for _, r := range all {
				if rev, _ := r.at(); rev == int64(f.world.Revision) {
					n++
				}
			}
			return n
		}
		f.d.Hurry([]string{"h0", "h1", "none"})
		if n := heard(); n != 2 {
			t.Errorf("%d heard, and two were hurried", n)
		}
		time.Sleep(time.Second) // the bubble's clock
		if n := heard(); n < hosts/10 || n > hosts*9/10 {
			t.Errorf("%d of %d heard after a second", n, hosts)
		}
		time.Sleep(4 * time.Second)
		if n := heard(); n != hosts {
			t.Errorf("%d of %d heard after all", n, hosts)
		}
		cancel()
		wg.Wait()
	})
}

// TestTurns: streams that begin and that nobody reads keep no turn for ever, however many they are; and no more work at once than there are turns. Red when
// turn does not end by itself, or when there is none.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		f := newFleet(Config{})
		f.host("h0")
		var wg sync.WaitGroup
		var sending, most int
		var mu sync.Mutex
		for range 3 * cap(f.d.starts) {
			wg.Go(func() {
				_ = f.d.Serve(ctx, "h0", &planv1.Hello{}, func(*planv1.ServerMessage) error {
					mu.Lock()
					sending++
					most = max(most, sending)
					mu.Unlock()
					<-ctx.Done() // never read
					return ctx.Err()
				})
			})
		}
		synctest.Wait()
		if most != cap(f.d.starts) {
			t.Errorf("%d streams begin at once, and there are %d turns", most, cap(f.d.starts))
		}
		r := &receiver{agent: f.agent("h0")}
		wg.Go(func() { _ = r.serve(ctx, f.d) })
		time.Sleep(4 * startTime) // the bubble's clock
		synctest.Wait()
		if rev, _ := r.at(); rev != int64(f.world.Revision) {
			t.Errorf("behind streams that nobody reads, one is at %d of %d", rev, f.world.Revision)
		}
		cancel()
		wg.Wait()
	})
}

// TestAJoinWakesNobody: a new host's VTEP comes to the others when there is time, or with the network that lists it; another address of a
// VTEP that is there comes at once. Red when put calls nothing idle, or everything.
func TestAJoinWakesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		f := newFleet(Config{AdvanceEvery: time.Minute})
		f.host("h0")
		f.network("n0")
		f.port("p0", "n0")
		f.port("p1", "n0")
		f.bind("p0", "h0")
		r := &receiver{agent: f.agent("h0")}
		var wg sync.WaitGroup
		wg.Go(func() { _ = r.serve(ctx, f.d) })
		vteps := func() int {
			synctest.Wait()
			return r.staging.Set().Digest(plan.UnderlayScope).Resources
		}
		if n := vteps(); n != 1 {
			t.Fatalf("%d VTEPs at first", n)
		}
		f.host("h1")
		if n := vteps(); n != 1 {
			t.Errorf("%d VTEPs at once after a join", n)
		}
		f.bind("p1", "h1")
		if n := vteps(); n != 2 {
			t.Errorf("%d VTEPs when the network lists the new one", n)
		}
		f.host("h2")
		f.write(model.Change{Facts: &model.HostFacts{Host: "h1", VTEPAddresses: f.world.Facts["h0"].VTEPAddresses, UDPPort: 4790, UplinkMTU: 1500}})
		if n := vteps(); n != 3 {
			t.Errorf("%d VTEPs when one of them changed", n)
		}
		f.host("h3")
		time.Sleep(time.Minute + time.Second) // the bubble's clock
		if n := vteps(); n != 4 {
			t.Errorf("%d VTEPs after a while", n)
		}
		cancel()
		wg.Wait()
	})
}

// TestManyStreams: publishes, breaking streams and reconnects at once, for the race detector; all converge.
func TestManyStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		f := newFleet(Config{RingEntries: 16, ChunkOctets: 300})
		var world sync.RWMutex
		f.cfg.Evidence = func(host, scope string, since int64, subscribed bool) []plan.Removal {
			world.RLock()
			defer world.RUnlock()
			return compile.Evidence(f.world, model.UID(host), scope, since, subscribed)
		}
		f.restart()
		var receivers []*receiver
		for i := range 8 {
			h := model.UID(fmt.Sprint("h", i))
			f.host(h)
			receivers = append(receivers, &receiver{agent: f.agent(h)})
		}
		f.network("n0")
		f.network("n1")
		var wg sync.WaitGroup
		calm := make(chan struct{})
		for i, r := range receivers {
			wg.Go(func() {
				for {
					if r.breaks = 2 + i; isClosed(calm) {
						r.breaks = 0
					}
					if err := r.serve(ctx, f.d); !errors.Is(err, errBroken) {
						return
					}
				}
			})
		}
		rnd := rand.New(rand.NewPCG(1, 2))
		for i := range 400 {
			world.Lock()
			uid := model.UID(fmt.Sprint("p", rnd.IntN(30)))
			switch {
			case f.world.Ports[uid] == nil && f.world.Tombstones[uid] == nil:
				f.port(uid, model.UID(fmt.Sprint("n", rnd.IntN(2))))
			case i%10 == 9:
				f.deletePort(uid)
			case f.world.Ports[uid] != nil:
				f.bind(uid, receivers[rnd.IntN(len(receivers))].host)
			}
			world.Unlock()
			f.d.Subscribers("network/n0")
		}
		close(calm)
		// A last change wakes the streams that are to break once more.
		for _, r := range receivers {
			world.Lock()
			f.port("last-"+r.host, "n0")
			f.bind("last-"+r.host, r.host)
			world.Unlock()
		}
		time.Sleep(time.Minute) // the bubble's clock
		synctest.Wait()
		cancel()
		wg.Wait()
		for _, r := range receivers {
			if rev, _ := r.at(); rev != int64(f.world.Revision) || !r.staging.Set().Equal(f.want(r.host)) {
				t.Errorf("%s is at %d of %d and holds %v, not %v", r.host, rev, f.world.Revision, names(r.staging.Set()), names(f.want(r.host)))
			}
		}
	})
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// TestTurnsOfChanges: a change to many hosts is sent to a few at a time, and those that do not read hold up the others for a moment only. It
// turns red when changes have no turns, when a turn has no end, or when changes wait behind starts.
func TestTurnsOfChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const hosts = 100
		d := New(Config{})
		at := func(revision int64) (all []*plan.Resource) {
			for i := range hosts {
				all = append(all, plan.NewHost(revision, &planv1.Host{Uid: fmt.Sprint("h", i), Name: fmt.Sprint("at ", revision)}))
			}
			return all
		}
		d.Reset("s", 1, at(1))
		ctx, cancel := context.WithCancel(t.Context())
		var serving sync.WaitGroup
		var begun atomic.Int64
		read := make(chan struct{})
		for i := range hosts {
			serving.Go(func() {
				_ = d.Serve(ctx, fmt.Sprint("h", i), &planv1.Hello{}, func(m *planv1.ServerMessage) error {
					if m.GetUpdate().GetRevision() > 1 {
						begun.Add(1)
						<-read
					}
					return nil
				})
			})
		}
		synctest.Wait()
		if err := d.Publish("s", 2, at(2), nil); err != nil {
			t.Fatal(err)
		}
		turns := int64(cap(d.turns))
		for want := turns; want <= 3*turns; want += turns {
			synctest.Wait()
			if n := begun.Load(); n != want {
				t.Errorf("%d are sent the change, and none reads; %d were to be", n, want)
			}
			time.Sleep(turnTime)
		}
		close(read)
		synctest.Wait()
		if n := begun.Load(); n != hosts {
			t.Errorf("all read, and %d of %d were sent the change", n, hosts)
		}
		cancel()
		serving.Wait()
	})
}
