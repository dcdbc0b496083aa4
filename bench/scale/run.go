package scale

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/client"
	"github.com/weftnet/weft/internal/heap"
)

// Config of a run. Zero fields take the defaults named.
type Config struct {
	// Hosts, Ports and Networks of the fleet: 1,000, 100,000 and 1,000. One network has a port on every host.
	Hosts, Ports, Networks int
	// Changes that are sent to all hosts, one after the other: 200.
	Changes int
	// ColdStarts of a host that holds all ports: 5.
	ColdStarts int
	// Clients of the API, each with a connection of its own and several requests under way: 4.
	Clients int
	// ReportEvery: 3 s, as a real agent.
	ReportEvery time.Duration
	// Real measures a real agent with the largest plan too; it needs root and BPF.
	Real bool
	// EtcdEndpoints of an external cluster, which must hold nothing of weft's; none is the server's own.
	EtcdEndpoints []string
	// Binary is the weft program; empty is the running one.
	Binary string
	// Dir for the server's and the agents' files; empty is a temporary one, which is removed.
	Dir string
	// Profiles is a directory for processor profiles of the server and of the agents during the changes; empty takes none.
	Profiles string
	// Machine and OtherLoad (percent of a core) are for the Result.
	Machine   string
	OtherLoad float64
	// Version and Commit of the program measured.
	Version, Commit string
	Progress        io.Writer

	// began is when the run did.
	began time.Time
	// askedAgain counts requests that the server gave no answer to in time.
	askedAgain *atomic.Int64
}

func (c Config) withDefaults() (Config, error) {
	for _, d := range []struct {
		v        *int
		fallback int
	}{{&c.Hosts, 1000}, {&c.Ports, 100_000}, {&c.Networks, 1000}, {&c.Changes, 200}, {&c.ColdStarts, 5}, {&c.Clients, 4}} {
		*d.v = cmp.Or(*d.v, d.fallback)
	}
	c.began, c.askedAgain = time.Now(), new(atomic.Int64)
	c.ReportEvery = cmp.Or(c.ReportEvery, 3*time.Second)
	if c.Progress == nil {
		c.Progress = io.Discard
	}
	if c.Binary == "" {
		var err error
		if c.Binary, err = os.Executable(); err != nil {
			return c, err
		}
	}
	switch {
	case c.Hosts < 1 || c.Networks < 1 || c.Changes < 1 || c.ColdStarts < 1 || c.Clients < 1:
		return c, errors.New("hosts, networks, changes, cold starts and clients must be 1 or more")
	case c.Ports < c.Hosts:
		return c, fmt.Errorf("%d ports are too few: the network that all hold has one on each of %d hosts", c.Ports, c.Hosts)
	case c.Hosts > maxHosts || c.Ports > maxPorts:
		return c, fmt.Errorf("at most %d hosts and %d ports: more have no addresses here", maxHosts, maxPorts)
	}
	return c, nil
}

// agentsGC is how much garbage this process lets stand, in percent of what it holds. A real agent's collector looks at one plan; here one looks
// at those of all agents each time, in the middle of a change.
const agentsGC = 300

// changesGarbage is how much may stand while a change to all is timed: then the collector of this process does not run. It would look at the plans of
// all agents at once, for a second on every core, where each agent looks at its own on its own machine. The server's collector runs as ever.
const changesGarbage = 6 << 30

// touched is how much of that has been in memory before: an agent's heap is in use again and again, and a change touches no page for the first time.
const touched = 3 << 30

// uncollected lets garbage stand, within changesGarbage, until the function that it returns is called.
func uncollected() (again func()) {
	heap.Touch(touched)
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	limit := debug.SetMemoryLimit(int64(m.HeapAlloc) + changesGarbage)
	debug.SetGCPercent(-1)
	return func() {
		debug.SetGCPercent(agentsGC)
		debug.SetMemoryLimit(limit)
	}
}

const (
	maxHosts = 100_000   // VTEP addresses of 198.18.0.0/15
	maxPorts = 4_000_000 // one update, plan.MaxStagedResources
)

// run is a run under way.
type run struct {
	cfg    Config
	server *server
	fleet  *fleet
	apis   []*client.Client
	out    *Result
}

// Run builds the fleet, measures it, compares every agent with the store, and takes everything away. Of one that fails there is what it measured
// before, with a note that says so.
func Run(ctx context.Context, cfg Config) (_ *Result, err error) {
	cfg, err = cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	dir := cfg.Dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "weft-scale-"); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	defer debug.SetGCPercent(debug.SetGCPercent(agentsGC))
	r := &run{cfg: cfg, out: newResult(cfg)}
	if r.server, err = newServer(cfg, dir); err != nil {
		return nil, err
	}
	if err := r.server.start(); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.server.stop()) }()
	r.fleet = newFleet(ctx, cfg, r.server, dir)
	defer r.fleet.close()
	if err := r.server.ready(ctx); err != nil {
		return nil, err
	}
	if r.apis, err = clients(ctx, r.server, cfg.Clients); err != nil {
		return nil, err
	}
	defer func() {
		for _, c := range r.apis {
			c.Close()
		}
	}()
	for _, stage := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"build", r.build}, {"memory", r.memory},
		{"changes", func(ctx context.Context) error { return r.profiled(ctx, "changes", r.changes) }},
		{"restart, agents unchanged", func(ctx context.Context) error { return r.restart(ctx, false) }},
		{"restart, agents empty", func(ctx context.Context) error { return r.restart(ctx, true) }},
		{"cold start", r.cold},
	} {
		if err := stage.do(ctx); err != nil {
			r.out.Notes = append([]string{fmt.Sprintf("NOT COMPLETE: %s: %v", stage.name, err)}, r.out.Notes...)
			r.out.Seconds = int(time.Since(r.out.Time).Seconds())
			return r.out, fmt.Errorf("%s: %w", stage.name, err)
		}
	}
	r.out.project()
	r.out.Seconds = int(time.Since(r.out.Time).Seconds())
	return r.out, nil
}

func (c Config) say(format string, args ...any) {
	fmt.Fprintf(c.Progress, "%7s  ", time.Since(c.began).Truncate(100*time.Millisecond))
	fmt.Fprintf(c.Progress, format+"\n", args...)
}

// timed does something n times at once and keeps its rate, and what each cost the server's processor.
func (r *run) timed(what, unit string, n int, do func() error) error {
	before, err := r.server.usage()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := do(); err != nil {
		return err
	}
	took := time.Since(began)
	after, err := r.server.usage()
	if err != nil {
		return err
	}
	r.add(Figure{What: what, Value: float64(n) / took.Seconds(), Unit: unit + "/s"})
	if n := r.cfg.askedAgain.Swap(0); n > 0 {
		r.add(Figure{What: what + ", asked again as no answer came in time", Value: float64(n), Unit: "requests"})
	}
	r.add(Figure{What: what + costOfOne, Value: float64((after.CPU - before.CPU).Microseconds()) / float64(n), Unit: "us"})
	return nil
}

func (r *run) add(f Figure) {
	r.out.Figures = append(r.out.Figures, f.judged())
	r.cfg.say("%s: %s", f.What, f.value())
}

// build makes networks, ports and hosts, and binds the ports while all streams are open.
func (r *run) build(ctx context.Context) error {
	c := r.cfg
	if err := r.heap(ctx, heapEmpty); err != nil {
		return err
	}
	if err := r.timed("networks created", "networks", c.Networks, func() error { return c.fillNetworks(ctx, r.apis) }); err != nil {
		return err
	}
	if err := r.timed(portsCreated, "ports", c.Ports, func() error { return c.fillPorts(ctx, r.apis) }); err != nil {
		return err
	}
	if err := r.heap(ctx, heapPorts); err != nil {
		return err
	}
	if err := r.timed(hostsJoined, "hosts", c.Hosts, func() error { return r.fleet.muster(ctx, r.apis) }); err != nil {
		return err
	}
	if err := r.heap(ctx, heapHosts); err != nil {
		return err
	}
	if err := r.bind(ctx, membersBound, 0, c.Hosts); err != nil {
		return err
	}
	if c.Ports > c.Hosts {
		if err := r.bind(ctx, portsBound, c.Hosts, c.Ports); err != nil {
			return err
		}
	}
	_, _, resources, _ := r.fleet.sums()
	r.add(Figure{What: "resources held by an agent, mean", Value: float64(resources) / float64(c.Hosts), Unit: "resources"})
	return r.fleet.verify(ctx, c.Ports)
}

// bind has ports bound, and waits until every agent holds what follows from that.
func (r *run) bind(ctx context.Context, what string, from, to int) error {
	var bound time.Time
	var done *awaited
	before, updatesBefore, _, _ := r.fleet.sums()
	if err := r.timed(what, "ports", to-from, func() error {
		revision, err := r.fleet.bind(ctx, r.apis, from, to)
		bound = time.Now()
		done = r.fleet.expect(revision, false)
		return err
	}); err != nil {
		return err
	}
	if err := r.fleet.await(ctx, done); err != nil {
		return err
	}
	octets, updates, _, _ := r.fleet.sums()
	r.add(Figure{What: what + ", the last until every agent holds all", Value: max(0, r.fleet.last().Sub(bound).Seconds()), Unit: "s"})
	r.add(Figure{What: what + planOctets, Value: float64(octets-before) / float64(to-from), Unit: "B"})
	r.add(Figure{What: what + ", updates for one", Value: float64(updates-updatesBefore) / float64(to-from), Unit: "updates"})
	return nil
}

// heap is what the server's own objects take now.
func (r *run) heap(ctx context.Context, what string) error {
	n, err := r.server.heap(ctx)
	if err == nil {
		r.add(Figure{What: what, Value: float64(n), Unit: "B"})
	}
	return err
}

// idleReports are how many reports of each agent the fleet is watched for, doing nothing else.
const idleReports = 2

// memory is what the server takes with the whole fleet connected, and its load when nothing happens.
func (r *run) memory(ctx context.Context) error {
	before, err := r.server.usage()
	if err != nil {
		return err
	}
	idleLook := idleReports * r.cfg.ReportEvery
	select {
	case <-time.After(idleLook):
	case <-ctx.Done():
		return ctx.Err()
	}
	after, err := r.server.usage()
	if err != nil {
		return err
	}
	r.add(Figure{What: idleLoad, Value: 100 * (after.CPU - before.CPU).Seconds() / idleLook.Seconds(), Unit: "% of a core"})
	status, err := r.apis[0].System.GetStatus(ctx, connect.NewRequest(&weftv1.GetStatusRequest{}))
	if err != nil {
		return err
	}
	ports := float64(r.cfg.Ports)
	if err := r.heap(ctx, heapAll); err != nil {
		return err
	}
	r.add(Figure{What: "server's heap after a collection, for a port", Value: r.out.figure(heapAll) / ports, Unit: "B"})
	r.add(Figure{What: "server's memory (RSS)", Value: float64(after.RSS), Unit: "B"})
	r.add(Figure{What: "server's memory (RSS), for a port", Value: float64(after.RSS) / ports, Unit: "B"})
	r.add(Figure{What: "of it pages of files, which are etcd's database", Value: float64(after.Files), Unit: "B"})
	whole, follows := r.fleet.reportOctets()
	r.add(Figure{What: "the first report of a stream, mean", Value: whole, Unit: "B"})
	r.add(Figure{What: reportOctets, Value: follows, Unit: "B"})
	r.add(Figure{What: storeOctets, Value: float64(status.Msg.GetStoreOctets()), Unit: "B"})
	return nil
}

// changes are one port of the wide network, again and again, until every agent has it and until the server knows.
func (r *run) changes(ctx context.Context) error {
	var applied, known []time.Duration
	defer uncollected()()
	before, err := r.server.usage()
	if err != nil {
		return err
	}
	ours, err := usageOf(os.Getpid())
	if err != nil {
		return err
	}
	for i := range r.cfg.Changes {
		revision, began, err := change(ctx, r.apis[0], portName(i%r.cfg.Hosts))
		if err != nil {
			return err
		}
		done := r.fleet.expect(revision, false)
		n, err := acknowledged(ctx, r.apis[0], revision)
		if err != nil {
			return err
		}
		known = append(known, time.Since(began))
		if err := r.fleet.await(ctx, done); err != nil {
			return err
		}
		if n != r.cfg.Hosts {
			return fmt.Errorf("the server waited for %d hosts of %d: not all are connected", n, r.cfg.Hosts)
		}
		applied = append(applied, r.fleet.last().Sub(began))
	}
	after, err := r.server.usage()
	if err != nil {
		return err
	}
	oursAfter, err := usageOf(os.Getpid())
	if err != nil {
		return err
	}
	for _, m := range []struct {
		what string
		all  []time.Duration
		want float64
	}{{"one change, until the last of all agents has applied it", applied, 100}, {"one change, until the server has every acknowledgement", known, 0}} {
		slices.Sort(m.all)
		r.add(Figure{What: m.what + ", p50", Value: milliseconds(percentile(m.all, 50)), Unit: "ms"})
		r.add(Figure{What: m.what + ", p99", Value: milliseconds(percentile(m.all, 99)), Unit: "ms", AtMost: m.want})
		r.add(Figure{What: m.what + ", longest", Value: milliseconds(m.all[len(m.all)-1]), Unit: "ms"})
	}
	each := float64(r.cfg.Changes * r.cfg.Hosts)
	r.add(Figure{What: changeCost, Unit: "us", Value: float64((after.CPU - before.CPU).Microseconds()) / each})
	r.add(Figure{What: "one change, agents' processor time for each", Unit: "us", Value: float64((oursAfter.CPU - ours.CPU).Microseconds()) / each})
	return nil
}

// restart ends the server and starts it again: the clock runs from its start until it has heard from every agent that it holds the
// current revision.
func (r *run) restart(ctx context.Context, empty bool) error {
	if err := r.server.stop(); err != nil {
		return err
	}
	if err := r.fleet.gone(ctx); err != nil {
		return err
	}
	what := backUnchanged
	if empty {
		what = backEmpty
		for _, a := range r.fleet.agents {
			a.forget()
		}
	}
	before, _, _, _ := r.fleet.sums()
	done := r.fleet.expect(0, true)
	if err := r.server.start(); err != nil {
		return err
	}
	if err := r.server.ready(ctx); err != nil {
		return err
	}
	r.add(Figure{What: what + serverAnswers, Value: time.Since(r.server.started).Seconds(), Unit: "s"})
	loaded, err := r.server.usage()
	if err != nil {
		return err
	}
	r.add(Figure{What: what + serverLoaded, Value: loaded.CPU.Seconds(), Unit: "s"})
	if err := r.fleet.await(ctx, done); err != nil {
		return err
	}
	for {
		n, err := acknowledged(ctx, r.apis[0], 0)
		if err != nil {
			return err
		}
		if n == r.cfg.Hosts {
			break
		}
	}
	r.add(Figure{What: what, Value: time.Since(r.server.started).Seconds(), Unit: "s", AtMost: 30})
	octets, _, _, _ := r.fleet.sums()
	r.add(Figure{What: what + ": plan octets", Value: float64(octets - before), Unit: "B"})
	u, err := r.server.usage()
	if err != nil {
		return err
	}
	r.add(Figure{What: what + serverTime, Value: u.CPU.Seconds(), Unit: "s"})
	return r.fleet.verify(ctx, r.cfg.Ports)
}

// cold is a host that holds every port of the fleet, coming with nothing.
func (r *run) cold(ctx context.Context) error {
	id, err := r.fleet.join(ctx, r.apis[0], coldName)
	if err != nil {
		return err
	}
	if err := r.cfg.fillCold(ctx, r.apis); err != nil {
		return err
	}
	t, err := readTruth(ctx, r.server)
	if err != nil {
		return err
	}
	var took []time.Duration
	var last simulatedState
	for range r.cfg.ColdStarts {
		if last, err = r.coldStart(ctx, t, id); err != nil {
			return err
		}
		took = append(took, last.took.Sub(last.saidHello))
	}
	slices.Sort(took)
	r.add(Figure{What: "cold start: resources of the plan", Value: float64(last.resources), Unit: "resources"})
	r.add(Figure{What: coldOctets, Value: float64(last.octets) / float64(last.resources), Unit: "B"})
	r.add(Figure{What: "cold start: hello until the whole plan is staged, median", Value: percentile(took, 50).Seconds(), Unit: "s", AtMost: 2})
	r.add(Figure{What: "cold start: hello until the whole plan is staged, longest", Value: took[len(took)-1].Seconds(), Unit: "s"})
	if !r.cfg.Real {
		return nil
	}
	return r.real(ctx)
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// percentile of sorted values: the smallest that p percent of them do not exceed.
func percentile(sorted []time.Duration, p int) time.Duration {
	return sorted[max(0, (len(sorted)*p+99)/100-1)]
}
