package accept_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/lab"
	"github.com/weftnet/weft/lab/probe"
)

var (
	soak = flag.Bool("soak", false, "let TestKills run its whole length: the server away for 60 s, 30 agents killed (make soak)")
	seed = flag.Uint64("seed", 1, "of what TestKills chooses")
	logs = flag.String("soaklog", "", "file that TestKills writes what it did and saw to")
	what = flag.String("commit", "unknown", "of the program under test, for the file")
)

// dose is how much TestKills does.
type dose struct {
	length, away time.Duration // of a run, and of that without a server
	kills        int           // of agents
	packets      int           // a second
	sessions     int
	changes      int // a second
	ports        int // that churn
}

// TestKills is "kills that hurt": a run without kills and then one with, under the same load. The server is killed and stays
// away, agents are killed all the time, ports come, move and go; datagrams and TCP connections of ports that nobody touches
// must not notice.
//
// Red when, in the agent's reconcile, `if !a.known` is `if false`: an agent that has lost its snapshot then empties the tables until
// the server brings the plan (1,696 of 3,378 datagrams lost, all connections ended). Breaks of what a restart must not touch turn
// TestAgentRestart red, in a sixth of the time.
func TestKills(t *testing.T) {
	d := dose{length: 25 * time.Second, away: 15 * time.Second, kills: 12, packets: 10_000, sessions: 100, changes: 10, ports: 24}
	if *soak {
		d.length, d.away, d.kills = 100*time.Second, 60*time.Second, 30
	}
	f := ownLab(t, lab.Config{Name: "kills"})
	f.tenant(t, "acme")
	f.network(t, "acme", "blue", &weftv1.NetworkSpec{Subnets: []string{"10.1.0.0/24"}})
	var still []*workload
	for _, h := range []string{"h1", "h2", "h3"} {
		still = append(still, f.workload(t, lab.WorkloadSpec{Name: "still-" + h, Host: h, Tenant: "acme", Network: "blue"}))
	}
	for i, w := range still {
		reaches(t, w.ns, still[(i+1)%3].v4())
	}
	c := newChurn(t, f, "acme", "blue", d.ports)

	control := run(t, f, c, still, d, nil)
	killed := run(t, f, c, still, d, rand.New(rand.NewPCG(*seed, 2)))
	if killed.sequence.Lost > control.sequence.Lost {
		t.Errorf("%d datagrams lost, %d more than without kills", killed.sequence.Lost, killed.sequence.Lost-control.sequence.Lost)
	}
	if killed.sequence.Duplicated > 0 {
		t.Errorf("%d datagrams came twice", killed.sequence.Duplicated)
	}
	for _, e := range killed.broken {
		t.Errorf("a TCP connection ended: %v", e)
	}
	if killed.sequence.Received == 0 || killed.exchanges == 0 || killed.agents != d.kills {
		t.Errorf("nothing was tested: %s", killed)
	}
	if *logs != "" {
		writeLog(t, d, control, killed)
	}
}

// outcome is what a run did and saw.
type outcome struct {
	sequence  probe.SequenceResult // of all flows
	exchanges uint64
	sessions  int
	broken    []error
	wait      time.Duration // longest for an answer by TCP
	churn     string
	refusals  map[string]int
	agents    int // killed
	away      time.Duration
	kernel    string
}

func (o outcome) String() string {
	return fmt.Sprintf("%d datagrams sent, %d lost, %d twice, %d reordered, %d not sent, longest gap %d ms; %d TCP connections, %d ended, %d exchanges, longest wait %d ms; "+
		"%d agents killed, server away %s; changes: %s; %s", o.sequence.Sent, o.sequence.Lost, o.sequence.Duplicated, o.sequence.Reordered, o.sequence.Unsent,
		o.sequence.LongestGap.Milliseconds(), o.sessions, len(o.broken), o.exchanges, o.wait.Milliseconds(), o.agents, o.away.Round(time.Second/10), o.churn, o.kernel)
}

// run puts the load on, kills if there is something to choose by, and ends with everything in its place.
func run(t *testing.T, f *fixture, c *churn, still []*workload, d dose, kills *rand.Rand) (o outcome) {
	t.Helper()
	before := kernelLosses(t, still)
	load := startLoad(t, still, d)
	c.start(*seed, d.changes)
	done := time.After(d.length)
	if kills != nil {
		var hurting sync.WaitGroup
		hurting.Go(func() { o.away = serverAway(t, f, d) })
		hurting.Go(func() { o.agents = killAgents(t, f, d, kills) })
		hurting.Wait()
	}
	<-done
	c.end()
	load.stop(&o)
	o.churn, o.refusals = c.String(), c.refusal
	o.kernel = fmt.Sprintf("the kernel itself: %s", differences(before, kernelLosses(t, still)))

	t.Log(o)

	// What was asked is done or was refused, by agents of which some were started a moment ago; then the plan is the kernel's state, everywhere.
	for _, h := range c.hosts {
		f.caughtUp(t, h)
	}
	bound := c.verify(t)
	for _, h := range c.hosts {
		f.caughtUp(t, h)
	}
	f.settled(t)
	for _, p := range bound {
		for _, w := range still {
			// The address may have been another port's a moment ago, and the guest's ARP remember that for a while.
			eth0, err := w.ns.LinkByName("eth0")
			if err == nil {
				err = w.ns.SetNeighbour(eth0.Index, p.ip, p.mac)
			}
			if err != nil {
				t.Fatal(err)
			}
			reaches(t, w.ns, p.ip)
		}
	}
	// What the server would send to a host that knows nothing is what is there. Until it comes, the host goes on.
	if kills != nil {
		unharmed(t, still, func() {
			for _, h := range c.hosts {
				was := f.tables(t, h)
				f.resync(t, h)
				if d := differs(was, f.tables(t, h)); len(d) > 0 {
					t.Errorf("a whole new plan changed the tables of %s:\n%s", h, strings.Join(d, "\n"))
				}
			}
		})
	}
	c.clear(t)
	f.settled(t)
	return o
}

// serverAway kills the server after a fifth of what is left of the run, and lets it be away.
func serverAway(t *testing.T, f *fixture, d dose) time.Duration {
	<-time.After((d.length - d.away) / 5)
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), d.length+4*inTime)
	defer cancel()
	if err := f.KillServer(ctx); err != nil {
		t.Error(err)
		return 0
	}
	<-time.After(d.away)
	took := time.Since(began)
	if err := f.StartServer(ctx); err != nil {
		t.Error(err)
	}
	return took
}

// killAgents kills one or another, and starts it again at once.
func killAgents(t *testing.T, f *fixture, d dose, choose *rand.Rand) (n int) {
	ctx, cancel := context.WithTimeout(context.Background(), d.length+4*inTime)
	defer cancel()
	for range d.kills {
		// On average as many as there are, and never in step with anything.
		<-time.After(time.Duration((0.5 + choose.Float64()) * float64(d.length) / float64(d.kills+1)))
		host := fmt.Sprintf("h%d", 1+choose.IntN(3))
		if err := f.KillAgent(ctx, host); err != nil {
			t.Error(err)
			return n
		}
		n++
		if err := f.StartAgent(host); err != nil {
			t.Error(err)
			return n
		}
	}
	return n
}

// load is traffic of ports that nobody touches.
type load struct {
	echoes    []*probe.Echo
	sessions  []*probe.Session
	sequences []*probe.Sequence
}

const (
	echoPort     = 7000
	sequencePort = 7001
)

// startLoad sends numbered datagrams in a ring of the workloads, and keeps TCP connections busy between all of them.
func startLoad(t *testing.T, still []*workload, d dose) *load {
	t.Helper()
	// Not a test's usual patience: the connections live as long as the run.
	ctx, cancel := context.WithTimeout(context.Background(), 4*inTime)
	defer cancel()
	l := &load{}
	for _, w := range still {
		e, err := probe.StartEcho(ctx, w.ns, echoPort)
		if err != nil {
			t.Fatal(err)
		}
		l.echoes = append(l.echoes, e)
	}
	n := len(still)
	for i := range d.sessions {
		from, to := still[i%n], still[(i%n+1+i/n%(n-1))%n]
		s, err := probe.StartSession(ctx, from.ns, to.v4(), echoPort, 100*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		l.sessions = append(l.sessions, s)
	}
	for i, from := range still {
		to := still[(i+1)%n]
		q, err := probe.StartSequence(ctx, from.ns, to.ns, to.v4(), sequencePort, (d.packets+n-1)/n)
		if err != nil {
			t.Fatal(err)
		}
		l.sequences = append(l.sequences, q)
	}
	return l
}

func (l *load) stop(o *outcome) {
	results, errs := stopAll(l.sequences)
	for i, r := range results {
		if errs[i] != nil {
			o.broken = append(o.broken, errs[i])
		}
		o.sequence.Add(r)
	}
	for _, s := range l.sessions {
		r := s.Stop()
		o.sessions++
		o.exchanges += r.Exchanges
		o.wait = max(o.wait, r.LongestWait)
		if r.Err != nil {
			o.broken = append(o.broken, r.Err)
		}
	}
	for _, e := range l.echoes {
		e.Close()
	}
}

// stopAll ends sequences at once: each waits for what is on the way.
func stopAll(list []*probe.Sequence) ([]probe.SequenceResult, []error) {
	results, errs := make([]probe.SequenceResult, len(list)), make([]error, len(list))
	var stopping sync.WaitGroup
	for i, q := range list {
		stopping.Go(func() { results[i], errs[i] = q.Stop() })
	}
	stopping.Wait()
	return results, errs
}

// kernelLosses are datagrams that the kernel itself lost for want of room: in the receivers' sockets, and between veths.
func kernelLosses(t *testing.T, still []*workload) map[string]uint64 {
	t.Helper()
	out := map[string]uint64{}
	for _, w := range still {
		n, err := receiveErrors(w.ns)
		if err != nil {
			t.Fatal(err)
		}
		out["sockets of "+w.Name] = n
	}
	b, err := os.ReadFile("/proc/net/softnet_stat")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var processed, dropped uint64
		if _, err := fmt.Sscanf(line, "%x %x", &processed, &dropped); err == nil {
			out["backlog"] += dropped
		}
	}
	return out
}

// receiveErrors is the namespace's Udp RcvbufErrors.
func receiveErrors(ns *netdev.Handle) (n uint64, err error) {
	err = ns.Run(func() error {
		b, err := os.ReadFile("/proc/thread-self/net/snmp")
		if err != nil {
			return err
		}
		var names []string
		for line := range strings.Lines(string(b)) {
			words := strings.Fields(line)
			if len(words) == 0 || words[0] != "Udp:" {
				continue
			}
			if names == nil {
				names = words
				continue
			}
			i := slices.Index(names, "RcvbufErrors")
			if i < 0 || i >= len(words) {
				return fmt.Errorf("no RcvbufErrors in %q", line)
			}
			_, err = fmt.Sscan(words[i], &n)
		}
		return err
	})
	return n, err
}

func differences(before, after map[string]uint64) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(after)) {
		parts = append(parts, fmt.Sprintf("%s lost %d", k, after[k]-before[k]))
	}
	return strings.Join(parts, ", ")
}

// writeLog records a run for those who were not there.
func writeLog(t *testing.T, d dose, control, killed outcome) {
	t.Helper()
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("TestKills, %s", time.Now().UTC().Format(time.RFC3339))
	line("commit:   %s", *what)
	line("machine:  %d CPUs, Linux %s", runtime.NumCPU(), kernelRelease())
	line("seed:     %d", *seed)
	line("duration: %s a run, server away %s, %d agents killed, %d packets/s, %d TCP connections, %d changes/s of %d ports", d.length, d.away, d.kills,
		d.packets, d.sessions, d.changes, d.ports)
	for _, r := range []struct {
		name string
		o    outcome
	}{{"control", control}, {"kills", killed}} {
		line("")
		line("%s:", r.name)
		for part := range strings.SplitSeq(r.o.String(), "; ") {
			line("  %s", part)
		}
		for _, why := range slices.Sorted(maps.Keys(r.o.refusals)) {
			line("  refused %d times: %s", r.o.refusals[why], strings.ReplaceAll(why, "\n", " "))
		}
	}
	line("")
	line("lost beyond the control run: %d; TCP connections ended: %d; result: %s", max(int64(killed.sequence.Lost)-int64(control.sequence.Lost), 0), len(killed.broken),
		map[bool]string{false: "passed", true: "FAILED"}[t.Failed()])
	if err := os.WriteFile(*logs, []byte(b.String()), 0o644); err != nil {
		t.Error(err)
	}
}

func kernelRelease() string {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b))
}
