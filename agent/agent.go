package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/internal/heap"
	"github.com/weftnet/weft/plan"
	"github.com/weftnet/weft/wire"
)

// Agent is one host's. Its state is owned by the goroutine of Run: others reach it through do.
type Agent struct {
	cfg    Config
	log    *slog.Logger
	kernel Datapath
	links  Links
	// source brings the plan; server is who is asked and told meanwhile, the same.
	source source
	server server
	rec    *Reconciler
	// staging is of the current stream; its set is the plan.
	staging *plan.Staging
	room    heap.Room
	// known: there is a plan, from the snapshot or a server. Without one the kernel is left as it is.
	known bool
	// swept: what the plan does not explain of an earlier agent's work was taken in or removed.
	swept bool
	atts  *attachments
	// veths are those made here, as they were last made.
	veths map[string]veth
	// unremoved are TAP devices of the agent's making that a guest had open when they were to go.
	unremoved []string
	// mtus are those that TAP devices were given.
	mtus map[string]tapMTU
	// raised are those that were brought up, by port, with the index that they had.
	raised map[string]uint32
	// unfit are attachments that ended, whose interfaces are still to be made again what they were before the XDP lane.
	unfit  []attachment
	uplink *uplink
	prober *Prober
	// servant answers what workloads ask.
	servant *servant
	// silent are the VTEPs that the watch hears no more.
	silent []watched
	wall   *wall

	// flipper makes commits in the kernel, flips keeps them, and followers see those of this host through.
	flipper   *flipper
	flips     *scribe[[]flip]
	followers *followers
	// dark is the dark time of each port's last commit here; coming says what ports that come here lack, and refusals which of them were
	// not to have come.
	dark     map[string]time.Duration
	coming   map[string]string
	refusals map[string]refusedCommit
	// spoke are ports whose workload sent its first frame before they were prepared, with the epoch of their move.
	spoke map[string]int64

	// tallies are what ports counted here, keptTallies their file; ended has the epochs of bindings that ended a part and may never come with
	// the plan. settling: somebody hands over what is due.
	tallies     tallies
	keptTallies *scribe[tallies]
	ended       map[string]int64
	settling    bool

	// can is what kernel and uplinks were found to be able to do.
	can []datapath.Capability
	// xdpEvents are the indexes of interfaces whose XDP features changed.
	xdpEvents <-chan int
	// member keeps the memberships in groups of the underlay; groupsLeft are those that were wanted when the others were left, nil if not yet.
	member     memberships
	groupsLeft map[netip.Addr]bool
	// looks are the ports that wait for their turn to be looked at, see lookAround.
	looks []string

	work chan func()
	// stopped is closed when the loop is over: nothing is done any more.
	stopped chan struct{}
	// connected is the server that is spoken to, and trouble why there is none.
	connected string
	trouble   error
	// waiting are those who wait for the plan to bring something; asked after every change.
	waiting map[*waiter]bool
	// attaching serialises requests about one port.
	attaching portLocks

	// file is the snapshot's.
	file *snapshotFile
	saving

	snapshotAt, reportAt, uplinkAt time.Time
	lastApplied                    *planv1.Applied
	conditions                     map[string]string
	learned                        learned
	flooded                        flooded
}

// Datapath is Kernel and what is only read of it.
type Datapath interface {
	Kernel
	PortCounters(datapath.PortID) (datapath.PortCounters, error)
	Drops() ([]datapath.DropCount, error)
	Books() ([]datapath.Books, error)
	Lanes() ([]datapath.LaneCount, error)
	// FloodCounts are what ports here flooded, of networks that flooded something.
	FloodCounts() (map[wire.VNI]datapath.FloodCount, error)
	Tables() []datapath.TableUse
	// Programs are what is attached where, a line each, with at most so many of ports'.
	Programs(most int) []string
	// Capabilities are what the kernel and the uplinks can do now.
	Capabilities() []datapath.Capability
	// SetHops says which next hops to a VTEP are equal.
	SetHops(datapath.VTEPID, []datapath.Hop) error
	// CheckXDP looks again at what the uplinks can do for the XDP lane.
	CheckXDP() error
	// FirstFrames tells the numbers of watched ports whose workload sends, until the context ends.
	FirstFrames(context.Context) (<-chan datapath.PortID, error)
	// Punts gives what workloads ask their host for to a function, until the context ends.
	Punts(context.Context, func(datapath.Punt)) error
	// Learners says who taught how many MACs, and Learned which; Forget takes some out.
	Learners() ([]datapath.Learner, error)
	Learned() ([]datapath.LearnedMAC, error)
	Forget([]datapath.FDBKey) (int, error)
	// Strangers tells of unlisted addresses that sent into networks that take them, until the context ends.
	Strangers(context.Context) (<-chan datapath.Accept, error)
	// Publish puts new tables in the place of those of another layout; else it does nothing.
	Publish() error
}

// server is what the agent asks of the Speaker. Say does not block; the others do.
type server interface {
	Say(*planv1.Applied, *planv1.Facts, *planv1.Report)
	Bind(ctx context.Context, tenant, port string) (*planv1.BindResponse, error)
	Unbind(ctx context.Context, uid, tenant, port string) (*planv1.UnbindResponse, error)
	Prepare(ctx context.Context, tenant, port string) (*planv1.PrepareResponse, error)
	Commit(context.Context, *planv1.CommitRequest) (*planv1.CommitResponse, error)
	Abort(ctx context.Context, uid string, epoch int64, reason string) (*planv1.AbortResponse, error)
	Settle(context.Context, *planv1.SettleRequest) error
}

type waiter struct {
	ready func() bool
	done  chan struct{}
}

// New is an agent whose plan comes from servers. It checks the configuration; nothing is touched before Run.
func New(cfg Config) (*Agent, error) {
	if len(cfg.Servers) == 0 {
		return nil, errNoServer
	}
	cfg = cfg.withDefaults()
	return newAgent(cfg, &served{cfg: cfg}), nil
}

func newAgent(cfg Config, from source) *Agent {
	return &Agent{
		cfg: cfg, log: cfg.Log, source: from, server: from,
		work: make(chan func()), stopped: make(chan struct{}), waiting: map[*waiter]bool{}, conditions: map[string]string{},
	}
}

// Run is the agent's life: open the source of its plan (join), open the datapath, reconcile what is there, and then serve plan, socket
// and events until the context ends. What it leaves in the kernel goes on forwarding.
func (a *Agent) Run(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("the agent must run as root: it makes interfaces and loads programs into the kernel")
	}
	if err := datapath.CheckKernel(); err != nil {
		return err // before a join token is used up
	}
	if err := os.MkdirAll(a.cfg.Dir, 0o700); err != nil {
		return err
	}
	unlock, err := takeDir(ctx, a.cfg.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	uid, err := a.source.open(ctx, a)
	if err != nil {
		return err
	}
	ns, err := netdev.Current()
	if err != nil {
		return err
	}
	defer ns.Close()
	a.links = &hostLinks{Handle: ns, instance: a.cfg.Instance, peers: map[string]string{}}
	if a.uplink, err = waitUplink(ctx, a.cfg, a.links); err != nil {
		return err
	}
	a.log.Info("the tunnel's end is found", "vtep", a.uplink.local.Addr4, "vtep6", a.uplink.local.Addr6, "uplink", a.uplink.name, "mtu", a.uplink.local.UplinkMTU)
	dp, err := datapath.Open(datapath.Config{PinRoot: a.cfg.PinRoot, Uplink: a.uplink.name, XDP: a.cfg.XDP, Local: a.uplink.local, Limits: a.cfg.Limits, Log: a.log})
	if err != nil {
		return fmt.Errorf("open the datapath: %w", err)
	}
	defer dp.Close()
	a.kernel = dp

	var tasks sync.WaitGroup
	ctx, cancel := context.WithCancelCause(ctx)
	defer tasks.Wait()
	defer cancel(nil)
	if err := a.load(uid); err != nil {
		return err
	}
	if err := a.source.begin(ctx, a, &tasks); err != nil {
		return err
	}
	a.probe()
	a.reconcile()
	events, err := a.links.Subscribe(ctx)
	if err != nil {
		return fmt.Errorf("watch interfaces: %w", err)
	}
	if a.xdpEvents, err = a.links.WatchXDP(ctx); err != nil {
		a.log.Warn("changes of what interfaces can do with XDP are seen late", "err", err)
	}
	socket, err := a.listen()
	if err != nil {
		return err
	}
	tasks.Go(func() { socket.serve(ctx) })
	tasks.Go(func() { a.source.run(ctx) })
	a.startWall(ctx, &tasks)
	frames, err := a.kernel.FirstFrames(ctx)
	if err != nil {
		return err
	}
	tasks.Go(func() { a.firstFrames(ctx, frames) })
	if err := a.startServant(ctx, &tasks); err != nil {
		return err
	}
	told, err := a.kernel.Strangers(ctx)
	if err != nil {
		return err
	}
	tasks.Go(func() { a.meetStrangers(ctx, told) })
	a.log.Info("the agent is ready", "host", a.cfg.Name, "plan", a.known, "ports", len(a.atts.byUID))
	return a.loop(ctx, events)
}

// lockName is the file in the agent's directory that whoever works there holds.
const lockName = "lock"

// lockPatience is how long a directory may stay locked by an agent that is coming to its end: the kernel takes a moment to close all that a killed one had.
const lockPatience = 2 * time.Second

// takeDir takes the agent's directory for this process, and waits for one that is just ending.
func takeDir(ctx context.Context, dir string) (unlock func(), err error) {
	for until := time.Now().Add(lockPatience); ; {
		if unlock, err = lockDir(dir); !errors.Is(err, unix.EWOULDBLOCK) || !time.Now().Before(until) {
			return unlock, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// lockDir keeps a second agent out of the directory.
func lockDir(dir string) (func(), error) {
	path := filepath.Join(dir, lockName)
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			f.Close()
			return nil, fmt.Errorf("another agent runs in %s (%w): stop it, or give this one a directory of its own with --dir", dir, err)
		}
		// Leave takes the file away: what was opened before and locked after that keeps nobody out.
		held, err := f.Stat()
		if now, serr := os.Stat(path); err == nil && serr == nil && os.SameFile(held, now) {
			return func() { f.Close() }, nil
		}
		f.Close()
		if err != nil {
			return nil, err
		}
	}
}

// load brings back what an earlier agent left: plan, attachments and the kernel's tables.
func (a *Agent) load(uid string) error {
	a.file = &snapshotFile{dir: a.cfg.Dir}
	a.saved = make(chan error, 1)
	snap := a.file.read(a.log)
	a.known = snap.StoreID != ""
	a.stage(uid, snap.Set, snap.StoreID, snap.Revision)
	var err error
	if a.atts, err = openAttachments(a.cfg.Dir); err != nil {
		return err
	}
	a.flipper = newFlipper(a.kernel, uid)
	a.rec = NewReconciler(a.flipper, uid, a.uplink.local, a.log)
	for port, epoch := range snap.Epochs {
		a.rec.view.epochs[port] = epoch
	}
	var all []*plan.Resource
	for r := range snap.Set.All() {
		all = append(all, r)
	}
	a.rec.Take(all, nil)
	a.dark, a.refusals, a.ended = map[string]time.Duration{}, map[string]refusedCommit{}, map[string]int64{}
	a.followers, a.spoke = newFollowers(), map[string]int64{}
	a.loadFlips()
	a.loadTallies()
	if err := a.rec.Load(); err != nil {
		return err
	}
	a.veths, a.raised, a.mtus = map[string]veth{}, map[string]uint32{}, map[string]tapMTU{}
	a.checkLinks()
	return a.kernel.SetLocal(a.uplink.local)
}

// stage begins to take updates in, on what is held.
func (a *Agent) stage(uid string, set *plan.Set, store string, revision int64) {
	a.staging = plan.NewStaging(uid, set, store, revision)
	a.staging.AcceptLoss, a.staging.Spread = a.cfg.AcceptLoss, onAllCores
}

// errEnded is why a request that was under way when the agent ended was not done.
var errEnded = errors.New("the agent is ending")

// do runs f in the loop and waits for it.
func (a *Agent) do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case a.work <- func() { defer close(done); f() }:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-a.stopped:
		return errEnded
	}
	<-done
	return nil
}

func (a *Agent) loop(ctx context.Context, events <-chan netdev.Event) error {
	defer a.followers.end()
	defer close(a.stopped)
	defer a.flips.wait()
	defer a.keptTallies.wait()
	defer a.writing.Wait()
	report := time.NewTicker(a.cfg.ReportEvery)
	defer report.Stop()
	audit := time.NewTicker(a.cfg.AuditEvery)
	defer audit.Stop()
	retry := time.NewTicker(retryEvery)
	defer retry.Stop()
	soon := time.NewTimer(0)
	defer soon.Stop()
	for {
		select {
		case <-ctx.Done():
			a.takeFlips() // what was made a moment ago is written down too
			a.saveSnapshot()
			return nil
		case f := <-a.work:
			f()
		case <-a.flipper.rung:
			a.takeFlips()
		case err := <-a.saved:
			a.snapshotDone(err)
		case e, ok := <-events:
			if !ok {
				if ctx.Err() != nil {
					continue
				}
				return errors.New("the kernel's interface events ended")
			}
			a.event(e)
		case index, ok := <-a.xdpEvents:
			if !ok {
				a.xdpEvents = nil
				continue
			}
			a.xdpChanged(index)
		case <-report.C:
			a.report()
		case <-audit.C:
			a.audit()
		case <-retry.C:
			a.lookAround()
			a.removeTAPs()
			a.ageUnlisted()
			if a.rec.anyFailed() || a.rec.Dirty() {
				a.rec.Retry()
				a.reconcile()
			}
		case <-soon.C:
			a.due()
		}
		a.arm(soon)
	}
}

// arm sets the timer to the nearest of what waits to be done.
func (a *Agent) arm(soon *time.Timer) {
	var next time.Time
	for _, at := range []time.Time{a.snapshotAt, a.reportAt, a.uplinkAt} {
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	if !next.IsZero() {
		soon.Reset(max(0, time.Until(next)))
	}
}

func (a *Agent) due() {
	now := time.Now()
	past := func(at *time.Time) bool {
		if at.IsZero() || at.After(now) {
			return false
		}
		*at = time.Time{}
		return true
	}
	if past(&a.uplinkAt) {
		a.checkUplink()
	}
	if past(&a.snapshotAt) {
		a.startSnapshot()
	}
	if past(&a.reportAt) {
		a.report()
	}
}

// later sets a deadline that is not set yet.
func later(at *time.Time, delay time.Duration) {
	if at.IsZero() {
		*at = time.Now().Add(delay)
	}
}

// Hello is the plan that is held, for a new stream.
func (a *Agent) Hello(ctx context.Context) (hello *planv1.Hello, err error) {
	err = a.do(ctx, func() {
		a.stage(a.rec.self, a.staging.Set(), a.staging.StoreID(), a.staging.Revision())
		hello = a.staging.Hello(a.cfg.Version, a.uplink.facts(a.cfg))
		a.lastApplied = nil
	})
	return hello, err
}

// Connection notes which server is spoken to. At the start of a stream everything is said anew.
func (a *Agent) Connection(ctx context.Context, server string, why error) {
	// The context ends with the agent: then nobody needs to know.
	_ = a.do(ctx, func() {
		a.connected, a.trouble = server, why
		if server != "" {
			a.log.Info("the plan stream is up", "server", server)
			a.acknowledge()
			later(&a.reportAt, 0)
		} else {
			a.room.Close() // the rest of what was coming comes anew
		}
	})
}

// Receive takes a message of the plan in.
func (a *Agent) Receive(ctx context.Context, u *planv1.Update) (err error) {
	derr := a.do(ctx, func() { err = a.take(u) })
	return errors.Join(derr, err)
}

// resourceOctets are what a resource of a large plan takes of the heap, about, from the message to the tables.
const resourceOctets = 2800

func (a *Agent) take(u *planv1.Update) error {
	store := a.staging.StoreID()
	if coming := int(u.GetResources()); coming > 2*a.staging.Set().Len() {
		a.room.Open(int64(coming) * resourceOctets)
	}
	step, err := a.staging.Receive(u)
	if step != nil || err != nil {
		defer a.room.Close()
	}
	if err != nil {
		a.log.Error("the plan was refused, and the last good one is kept", "err", err)
		a.conditions["plan refused"] = err.Error()
		a.server.Say(&planv1.Applied{StoreId: a.staging.StoreID(), Revision: a.staging.Revision(), Refused: err.Error()}, nil, nil)
		return err
	}
	if step == nil {
		return nil
	}
	delete(a.conditions, "plan refused")
	first := !a.known
	a.known = true
	if store != step.StoreID && store != "" {
		a.log.Warn("the plan is of another store", "was", store, "is", step.StoreID)
	}
	a.changed++ // before what waits for the plan's being on the disk is looked at
	if len(step.Upserts)+len(step.Removed) > 0 || first {
		a.rec.Take(step.Upserts, step.Removed)
		a.rec.view.pruneEpochs()
		if err := a.file.writeRecent(a.snapshot()); err != nil {
			a.log.Error("the plan could not be written down before it is applied", "err", err)
		}
		if a.touchesVTEPs(step) {
			a.moveEnd()
			later(&a.uplinkAt, uplinkDelay)
		}
		a.reconcile()
		later(&a.reportAt, reportDelay)
	}
	later(&a.snapshotAt, snapshotDelay)
	a.acknowledge()
	return nil
}

func (a *Agent) touchesVTEPs(step *plan.Step) bool {
	for _, list := range [][]*plan.Resource{step.Upserts, step.Removed} {
		for _, r := range list {
			if r.Kind == planv1.Kind_KIND_VTEP {
				return true
			}
		}
	}
	return false
}

// mostErrors bounds what one acknowledgement lists.
const mostErrors = 100

// acknowledge says what is in the kernel now.
func (a *Agent) acknowledge() {
	if !a.known {
		return
	}
	applied := &planv1.Applied{StoreId: a.staging.StoreID(), Revision: a.staging.Revision(), Errors: a.rec.Errors()}
	if extra := len(applied.Errors) - mostErrors; extra > 0 {
		applied.Errors = append(applied.Errors[:mostErrors], &planv1.ResourceError{
			Kind: planv1.Kind_KIND_HOST, Uid: a.rec.self, Message: fmt.Sprintf("and %d more", extra),
		})
	}
	a.lastApplied = applied
	a.server.Say(applied, nil, nil)
}

// reconcile writes what differs, and lets go of interfaces whose ports went elsewhere.
func (a *Agent) reconcile() {
	if !a.known {
		return
	}
	a.takeFlips()
	fresh := !a.swept
	if fresh {
		a.swept = true
		a.adopt()
		a.remake()
	}
	a.checkFastPaths()
	a.joinGroups()
	for range 3 { // an eviction makes a second round, its detachment none
		if a.rec.Dirty() {
			a.rec.Flush()
		}
		if !a.evict() {
			break
		}
	}
	if fresh {
		a.log.Info("the kernel was compared with the plan", "revision", a.staging.Revision(), "writes", a.rec.writes)
		if err := a.kernel.Publish(); err != nil {
			a.log.Error("the tables of an earlier version go on forwarding, as the new ones cannot take over", "err", err)
			a.setCondition("layout", err.Error())
		}
		a.sweep()
	}
	a.leaveGroups()
	a.raise()
	a.settle()
	a.unfitAll()
	a.tellProber()
	a.servant.forget()
	a.followFlips()
	for w := range a.waiting {
		if w.ready() {
			delete(a.waiting, w)
			close(w.done)
		}
	}
}

// evict takes the interfaces away of ports that the plan has elsewhere, or nowhere. They are held already. It reports
// whether there were any.
func (a *Agent) evict() bool {
	var gone []string
	for uid := range a.atts.byUID {
		if p := a.rec.view.ports[uid]; p == nil || !p.place.on(a.rec.self) && p.stale == 0 {
			gone = append(gone, uid)
		}
	}
	// The newer epoch reaches the disk before anything else: a restart without a server must not open the port again.
	if gone = a.mayLeave(gone); len(gone) == 0 {
		return false
	}
	links := map[string]attachment{}
	for _, uid := range gone {
		links[uid] = a.atts.byUID[uid]
	}
	if err := a.atts.remove(gone...); err != nil {
		a.log.Error("ports that went away stay held, as the attachments cannot be written", "err", err)
		return false
	}
	for uid, at := range links {
		a.log.Info("the port is not on this host any more", "port", at.Tenant+"/"+at.Port, "uid", uid, "interface", at.Interface)
		if err := a.unmake(at); err != nil {
			a.log.Error("an interface could not be removed", "interface", at.Interface, "err", err)
		}
		delete(a.veths, uid)
		delete(a.raised, uid)
		delete(a.mtus, uid)
		a.rec.SetAttached(uid, nil)
		a.unfit = append(a.unfit, at)
	}
	later(&a.reportAt, reportDelay)
	return true
}

// audit reads the kernel's tables and puts right what somebody else changed.
func (a *Agent) audit() {
	if err := a.rec.Load(); err != nil {
		a.log.Error("the audit could not read the tables", "err", err)
		return
	}
	before := a.rec.writes
	a.checkLinks()
	a.checkGroups()
	a.forgiveFastPaths()
	a.checkXDP()
	a.reconcile()
	if n := a.rec.writes - before; n > 0 {
		a.log.Warn("the audit put entries right that somebody else had changed", "writes", n)
	}
	later(&a.uplinkAt, 0)
}
