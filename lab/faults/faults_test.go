package faults

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/anishathalye/porcupine"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/client"
	"github.com/weftnet/weft/internal/testenv"
)

var (
	count   = flag.Int("faults", 50, "how many TestFaults does, with two servers and with three in turn (make soak: 2000)")
	longest = flag.Duration("faults.time", 0, "how long TestFaults goes on at most, if it has not done so many by then; 0: as long as it takes")
	seed    = flag.Uint64("faults.seed", 1, "of which faults, where and how long")
	logFile = flag.String("faults.log", "", "file that TestFaults writes what it did and saw to")
	what    = flag.String("faults.commit", "unknown", "of the program under test, for the file")
)

const (
	// together is how many faults follow each other in one round: one history, on names of its own.
	together = 4
	// searchTime bounds the search for an order that explains a round.
	searchTime = 2 * time.Minute
)

// tally is what a run did.
type tally struct {
	class          map[string]int
	calls, unknown int
	done           int64
	slowest        recovery
	undecided      int
	rounds         int
}

// TestFaults: whatever breaks, what clients see is linearizable, nothing acknowledged is lost, and hosts hold what the store says once it is
// put right. Red when fresh (server) returns at once, when outcome (store) takes every write without an answer for one that was not done, or
// when a stream's end at one server is taken for the host's by another.
func TestFaults(t *testing.T) {
	testenv.Require(t, testenv.Root)
	began := time.Now()
	total := tally{class: map[string]int{}}
	for _, servers := range []int{2, 3} {
		t.Run(fmt.Sprintf("%d servers", servers), func(t *testing.T) {
			runFaults(t, servers, *count/2, &total)
		})
	}
	report := total.report(time.Since(began), !t.Failed())
	t.Log(report)
	if *logFile != "" {
		must(t, os.WriteFile(*logFile, []byte(report), 0o644))
	}
}

func runFaults(t *testing.T, servers, faults int, total *tally) {
	c := startCluster(t, servers, *seed+uint64(servers))
	c.setUp()
	var hosts []*host
	for n := range 4 {
		hosts = append(hosts, c.join(n))
	}
	c.converged(hosts)
	clients := c.clients()
	var classes []fault
	began := time.Now()
	for round := 0; faults > 0 && (*longest == 0 || time.Since(began) < *longest/2); round++ {
		w := &work{history: newHistory(), round: round, hosts: hosts, clients: clients}
		ctx, stop := context.WithCancel(t.Context())
		var working sync.WaitGroup
		working.Go(func() { w.run(ctx) })
		var did []string
		for range min(together, faults) {
			if len(classes) == 0 { // every class before any comes again
				classes = append(classes, all...)
				c.rand.Shuffle(len(classes), func(i, j int) { classes[i], classes[j] = classes[j], classes[i] })
			}
			f := classes[0]
			classes = classes[1:]
			did = append(did, f.name)
			f.do(c, w)
			c.hold(50, 250) // of what comes back some is to be seen before the next one
			total.class[f.name]++
			faults--
		}
		stop()
		if r := c.recovered(&working, hosts); r.all > total.slowest.all {
			r.after = strings.Join(did, ", ")
			total.slowest = r
		}
		w.last()
		total.add(w)
		if round%25 == 24 {
			t.Logf("round %d is over, %s after the beginning", round+1, time.Since(began).Round(time.Second))
		}
		result, story := w.check(searchTime)
		if result == porcupine.Unknown {
			total.undecided++
		}
		if result == porcupine.Illegal || t.Failed() {
			t.Fatalf("round %d (%s): the history is %s\n%s", round, strings.Join(did, ", "), result, story)
		}
	}
	if total.undecided > 0 {
		t.Errorf("%d rounds could not be decided in %s", total.undecided, searchTime)
	}
}

// recovery is how long a round took from its last fault's end until all hosts had converged, and by when what had come back.
type recovery struct {
	calls, store, servers, all time.Duration
	after                      string
}

// recovered waits for the calls under way, which must end before anybody can have converged to what they write, and then for all the others.
func (c *cluster) recovered(working *sync.WaitGroup, hosts []*host) (r recovery) {
	c.t.Helper()
	ended := time.Now()
	since := func() time.Duration { return time.Since(ended).Round(10 * time.Millisecond) }
	working.Wait()
	r.calls = since()
	c.healthy()
	r.store = since()
	c.ready()
	r.servers = since()
	c.converged(hosts)
	r.all = since()
	return r
}

func (r recovery) String() string {
	return fmt.Sprintf("%s (the last call ended after %s, the store took writes after %s, all servers answered after %s; the faults: %s)",
		r.all, r.calls, r.store, r.servers, r.after)
}

// clients are one for each server, for each worker; those of odd workers know the other servers, too.
func (c *cluster) clients() [][]*client.Client {
	var out [][]*client.Client
	for i := range workers {
		var own []*client.Client
		for j := range c.servers {
			list := append(append([]*process(nil), c.servers[j:]...), c.servers[:j]...)
			if i%2 == 0 {
				list = list[:1]
			}
			own = append(own, c.at(list...))
		}
		out = append(out, own)
	}
	return out
}

func (s *tally) add(w *work) {
	s.rounds++
	s.calls += len(w.ops)
	s.done += w.done.Load()
	s.unknown += int(w.unknown.Load())
}

func (s *tally) report(took time.Duration, ok bool) string {
	var b strings.Builder
	result := "linearizable, nothing acknowledged lost, every host as the store says"
	if !ok {
		result = "FAILED"
	}
	faults := 0
	for _, n := range s.class {
		faults += n
	}
	fmt.Fprintf(&b, "TestFaults, %s\ncommit:   %s\nmachine:  %d CPUs\nseed:     %d\nduration: %s, two servers and then three, three members of etcd, 4 hosts, %d clients\n\n",
		time.Now().UTC().Format(time.RFC3339), *what, runtime.NumCPU(), *seed, took.Round(time.Second), workers)
	fmt.Fprintf(&b, "%d faults in %d rounds: %s\n", faults, s.rounds, result)
	fmt.Fprintf(&b, "%d calls in the histories, %d writes done, %d of unknown outcome\nslowest until all hosts had converged after a round: %s\n\n",
		s.calls, s.done, s.unknown, s.slowest)
	for _, f := range all {
		fmt.Fprintf(&b, "%6d  %s\n", s.class[f.name], f.name)
	}
	return b.String()
}

// TestStaleIsFound is the test of the test: a server that answers two reads in a hundred from before is found out. Red when step (here) takes
// any read.
func TestStaleIsFound(t *testing.T) {
	testenv.Require(t, testenv.Root)
	c := startCluster(t, 2, *seed)
	c.setUp()
	hosts := []*host{c.join(0), c.join(1)}
	c.converged(hosts)
	clients := c.clients()
	for round := range 20 {
		w := &work{history: newHistory(), round: round, hosts: hosts, clients: clients, stale: 20}
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		w.run(ctx)
		cancel()
		if result, _ := w.check(searchTime); result == porcupine.Illegal {
			return
		}
	}
	t.Fatal("a server that answers from before was not found out")
}

// TestServerWithoutStore: a server that is cut off from the store says so instead of answering from before, and its hosts go to the one that is
// not and learn what is written there. Red when attend (server) sends nobody away, or fresh returns at once.
func TestServerWithoutStore(t *testing.T) {
	testenv.Require(t, testenv.Root)
	c := startCluster(t, 2, *seed)
	c.setUp()
	var hosts []*host
	for n := range 6 {
		hosts = append(hosts, c.join(n))
	}
	c.converged(hosts)
	join := c.cut([]string{"s0"}, []string{"e0", "e1", "e2"})
	ctx := t.Context()
	other := c.root(c.servers[1]) // which has more patience than the workers' clients
	_, err := other.Ports.CreatePort(ctx, connect.NewRequest(&weftv1.CreatePortRequest{Tenant: tenant, Name: "p", Spec: &weftv1.PortSpec{Network: network}}))
	must(t, err)
	for _, h := range hosts {
		_, err := other.Ports.CreatePort(ctx, connect.NewRequest(&weftv1.CreatePortRequest{Tenant: tenant, Name: h.name, Spec: &weftv1.PortSpec{Network: network}}))
		must(t, err)
		_, err = other.Ports.BindPort(ctx, connect.NewRequest(&weftv1.BindPortRequest{Tenant: tenant, Name: h.name, Host: h.name}))
		must(t, err)
	}
	_, err = c.root(c.servers[0]).Ports.GetPort(ctx, connect.NewRequest(&weftv1.GetPortRequest{Tenant: tenant, Name: "p"}))
	var refused *client.Error
	if !errors.As(err, &refused) || refused.Code != connect.CodeUnavailable || refused.MaybeDone || !strings.Contains(refused.Reason, "may be old") {
		t.Errorf("the server that is cut off answers: %v", err)
	}
	c.eventually("every host holds what was written behind the cut", func() error { return c.holdsStore(hosts) })
	join()
	c.converged(hosts)
}
