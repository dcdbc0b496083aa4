package accept_test

import (
	"context"
	"encoding/json"
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

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/lab"
	"github.com/weftnet/weft/lab/probe"
)

var (
	moveCount = flag.Int("moves", 20, "of a workload under traffic, by TestMoves (500 in make soak)")
	movesOut  = flag.String("movesout", "", "beginning of the names of the files that TestMoves writes its figures to, .md and .json")
	fastMoves = flag.Int("fastmoves", 100, "without traffic, by TestManyMoves (10,000 in make soak)")
	fastLog   = flag.String("fastlog", "", "file that TestManyMoves writes its figures to")
)

const (
	movesRate = 10_000
	// movesSpan is the datagrams each way without a move, and then around it.
	movesSpan = movesRate / 4
	// onePatience is for one move.
	onePatience = 30 * time.Second
)

// TestMoves moves a workload round three hosts, again and again, while it has 10,000 datagrams a second to it and as many from it, and TCP
// connections both ways, with a peer on h1 and one on h3. No datagram may come twice, and no connection end; afterwards the kernels hold what the API
// says. How long it was dark is told, not judged: the target is p99 <= 10 ms.
//
// Red when a drain does not end (Binding.Drained without its assignment).
func TestMoves(t *testing.T) {
	f := ownLab(t, lab.Config{Name: "moves", Spines: 1})
	m, x := f.movingWorkload(t, movesRate)
	began := time.Now()
	var all []lab.MoveSample
	var dark []time.Duration
	for i := range *moveCount {
		ctx, cancel := context.WithTimeout(context.Background(), onePatience)
		s, err := lab.MeasureMove(ctx, m, x, movesSpan)
		cancel()
		if err != nil {
			_, _ = x.Stop()
			t.Fatalf("move %d: %v", i+1, err)
		}
		all = append(all, s)
		if d := f.move(t, "mover").GetDarkTime(); d != nil {
			dark = append(dark, d.AsDuration())
		}
	}
	took := time.Since(began)
	ctx, cancel := context.WithTimeout(context.Background(), onePatience)
	defer cancel()
	err := m.Finish(ctx)
	r, serr := x.Stop()
	if err := errors.Join(err, serr); err != nil {
		t.Fatal(err)
	}
	f.settled(t)
	if r.In.Duplicated+r.Out.Duplicated > 0 {
		t.Errorf("%d and %d datagrams came twice", r.In.Duplicated, r.Out.Duplicated)
	}
	for _, e := range r.Broken {
		t.Errorf("a TCP connection ended: %v", e)
	}
	if r.In.Received == 0 || r.Out.Received == 0 || r.Exchanges == 0 || len(all) != *moveCount {
		t.Errorf("nothing was tested: %+v", r)
	}
	text := movesText(all, dark, took, r, t.Failed())
	t.Log(text)
	if *movesOut == "" {
		return
	}
	j, err := json.Marshal(map[string]any{"commit": *what, "kernel": kernelRelease(), "cpus": runtime.NumCPU(), "samples": all, "dark": dark, "traffic": r})
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{".md": []byte(text), ".json": append(j, '\n')} {
		if err := os.WriteFile(*movesOut+name, b, 0o644); err != nil {
			t.Error(err)
		}
	}
}

// movingWorkload is "mover", which goes round h1, h2 and h3, with traffic to and from peers on h1 and h3.
func (f *fixture) movingWorkload(t *testing.T, rate int) (lab.Mover, *probe.Exchange) {
	t.Helper()
	f.tenant(t, "acme")
	f.network(t, "acme", "blue", &weftv1.NetworkSpec{Subnets: []string{"10.1.0.0/24"}})
	f.workload(t, lab.WorkloadSpec{Name: "beside", Host: "h1", Tenant: "acme", Network: "blue"})
	f.workload(t, lab.WorkloadSpec{Name: "far", Host: "h3", Tenant: "acme", Network: "blue"})
	f.workloadOf(t, lab.WorkloadSpec{Name: "mover", Host: "h1", Tenant: "acme", Network: "blue"})
	m, err := f.NewMover("mover", []string{"h1", "h2", "h3"}, "beside", "far")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	w := m.Workload()
	for _, p := range w.Peers {
		reaches(t, p.Netns, w.Addr)
	}
	x, err := probe.StartExchange(limited(t), w.Place, w.Peers, rate)
	if err != nil {
		t.Fatal(err)
	}
	return m, x
}

// move is what the API says of a port's last one.
func (f *fixture) move(t testing.TB, port string) *weftv1.Move {
	t.Helper()
	res, err := f.api(t).Ports.GetPort(limited(t), connect.NewRequest(&weftv1.GetPortRequest{Tenant: "acme", Name: port}))
	if err != nil {
		t.Fatal(err)
	}
	return res.Msg.GetStatus().GetMove()
}

func movesText(all []lab.MoveSample, dark []time.Duration, took time.Duration, r probe.ExchangeResult, failed bool) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# %d moves of a workload under %d packets/s each way", len(all), movesRate)
	line("")
	line("%s, commit %s, %d CPUs, Linux %s, load of the machine %s, in %s. Three hosts, one spine; peers on two of them; committed by event on the target.",
		time.Now().UTC().Format(time.RFC3339), *what, runtime.NumCPU(), kernelRelease(), loadAverage(), took.Round(time.Second))
	line("The workload's own pause is nothing: it goes on with the next datagram. `dark` is the longest time between the sendings of two datagrams that arrived, with")
	line("lost ones in between, by the sender's clock (0: none was lost). A gap is the longest between two arrivals, in the quarter of a second that begins with the")
	line("move and in the one before it, by the receiver's clock: it has in it what the machine's other work takes, move or not.")
	line("")
	line("| ms | p50 | p90 | p99 | longest |")
	line("|---|---|---|---|---|")
	for _, row := range []struct {
		name string
		of   func(lab.MoveSample) time.Duration
	}{
		{"dark to the workload", func(s lab.MoveSample) time.Duration { return s.InLost }},
		{"dark from the workload", func(s lab.MoveSample) time.Duration { return s.OutLost }},
		{"gap to the workload, move", func(s lab.MoveSample) time.Duration { return s.InGap }},
		{"gap to the workload, no move", func(s lab.MoveSample) time.Duration { return s.InStill }},
		{"gap from the workload, move", func(s lab.MoveSample) time.Duration { return s.OutGap }},
		{"gap from the workload, no move", func(s lab.MoveSample) time.Duration { return s.OutStill }},
		{"the request to the target's agent", func(s lab.MoveSample) time.Duration { return s.Flip }},
	} {
		var list []time.Duration
		for _, s := range all {
			list = append(list, row.of(s))
		}
		line("| %s | %s |", row.name, percentiles(list))
	}
	line("| dark time as weft says it (%d known) | %s |", len(dark), percentiles(dark))
	line("")
	line("| datagrams | sent | lost | of them delivered where the workload was not any more | twice | reordered |")
	line("|---|---|---|---|---|---|")
	for _, way := range []struct {
		name string
		r    probe.SequenceResult
	}{{"to the workload", r.In}, {"from the workload", r.Out}} {
		line("| %s | %d | %d | %d | %d | %d |", way.name, way.r.Sent, way.r.Lost, way.r.Elsewhere, way.r.Duplicated, way.r.Reordered)
	}
	line("")
	line("TCP: %d connections, %d ended, %d exchanges, longest wait %d ms. Result: %s.", r.Sessions, len(r.Broken), r.Exchanges, r.LongestWait.Milliseconds(),
		map[bool]string{false: "passed", true: "FAILED"}[failed])
	return b.String()
}

func percentiles(list []time.Duration) string {
	var parts []string
	for _, p := range []float64{0.5, 0.9, 0.99, 1} {
		parts = append(parts, fmt.Sprintf("%.1f", float64(lab.Percentile(list, p))/float64(time.Millisecond)))
	}
	return strings.Join(parts, " | ")
}

// TestManyMoves moves ports round three hosts as fast as it goes, several at a time and without traffic.
// Afterwards no host may have anything left of where a port was: its tables are what the API says, and so are its interfaces.
//
// Red for the reason of TestMoves.
func TestManyMoves(t *testing.T) {
	const ports, atOnce = 20, 4
	f := ownLab(t, lab.Config{Name: "manymoves", Spines: 1})
	f.tenant(t, "acme")
	f.network(t, "acme", "blue", &weftv1.NetworkSpec{Subnets: []string{"10.1.0.0/24"}})
	var movers [ports]lab.Mover
	for i := range movers {
		name := fmt.Sprintf("m%d", i+1)
		f.workloadOf(t, lab.WorkloadSpec{Name: name, Host: "h1", Tenant: "acme", Network: "blue"})
		var err error
		if movers[i], err = f.NewMover(name, []string{"h1", "h2", "h3"}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := movers[i].Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	began := time.Now()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var took []time.Duration
	for worker := range atOnce {
		wg.Go(func() {
			for i := worker; i < *fastMoves; i += atOnce {
				// Each worker has ports of its own.
				m := movers[worker+i/atOnce%(ports/atOnce)*atOnce]
				d, err := fastMove(m)
				if err != nil {
					t.Errorf("move %d: %v", i+1, err)
					return
				}
				mu.Lock()
				took = append(took, d)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	all := time.Since(began)
	if t.Failed() {
		return
	}
	for _, m := range movers {
		ctx, cancel := context.WithTimeout(context.Background(), onePatience)
		err := m.Finish(ctx)
		cancel()
		if err != nil {
			t.Error(err)
		}
	}
	f.settled(t)
	text := fmt.Sprintf("%d moves of %d ports in %s, %d at a time: %s moves/s; from the request to prepare until the target's agent has committed: p50 | p90 | p99 | longest: %s ms; "+
		"afterwards every host's tables and interfaces are what the API says: %t", len(took), ports, all.Round(time.Millisecond), atOnce,
		fmt.Sprintf("%.1f", float64(len(took))/all.Seconds()), percentiles(took), !t.Failed())
	t.Log(text)
	if *fastLog != "" {
		text = fmt.Sprintf("TestManyMoves, %s, commit %s, %d CPUs, Linux %s, load %s\n%s\n", time.Now().UTC().Format(time.RFC3339), *what, runtime.NumCPU(), kernelRelease(), loadAverage(), text)
		if err := os.WriteFile(*fastLog, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// fastMove moves once. The drain of the move before ends by it.
func fastMove(m lab.Mover) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), onePatience)
	defer cancel()
	began := time.Now()
	if err := m.Prepare(ctx); err != nil {
		return 0, err
	}
	if err := errors.Join(m.Workload().Turn(nil), m.Flip(ctx)); err != nil {
		return 0, err
	}
	return time.Since(began), nil
}
