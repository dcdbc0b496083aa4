package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/internal/testenv"
)

func inNamespace(t *testing.T) *netdev.Handle {
	t.Helper()
	testenv.Require(t, "root")
	name := fmt.Sprintf("wefttest-lab-%d-proc", os.Getpid())
	if err := netdev.CreateNamespace(name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netdev.DeleteNamespace(name) })
	h, err := netdev.OpenName(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// Goes red when a process is ended by its pid alone: pids are used again.
func TestOnlyProvenProcessesAreEnded(t *testing.T) {
	h := inNamespace(t)
	log := filepath.Join(t.TempDir(), "x", "x.log")
	p, ended, err := launch((*netdev.Handle).Start, h, log, nil, "/bin/sh", "-c", "echo ready; exec sleep 1000")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { p.signal(9); <-ended }()
	waitFor(t, "the shell became sleep", func() bool { return len(procArgs(p.PID)) == 2 && strings.Contains(tail(log), "ready") })
	p.Args = procArgs(p.PID)
	if !p.Alive() {
		t.Fatal("a running process counts as ended")
	}
	for name, forged := range map[string]Process{
		"another start time":   {PID: p.PID, Started: p.Started + 1, Args: p.Args},
		"another command line": {PID: p.PID, Started: p.Started, Args: []string{"sleep", "1"}},
		"no process":           {},
	} {
		if forged.Alive() {
			t.Errorf("%s: it counts as ours", name)
		}
		if err := stop(t.Context(), []Process{forged}); err != nil || !p.Alive() {
			t.Errorf("%s: it was ended (%v)", name, err)
		}
	}
	if err := stop(t.Context(), []Process{p}); err != nil || p.Alive() {
		t.Errorf("ours was not ended: %v", err)
	}
}

func TestProcessThatWillNotEndIsKilled(t *testing.T) {
	h := inNamespace(t)
	log := filepath.Join(t.TempDir(), "x.log")
	p, ended, err := launch((*netdev.Handle).Start, h, log, nil, "/bin/sh", "-c", "trap '' TERM; echo ready; while :; do read x; done < /dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the trap is set", func() bool { return tail(log) == "ready" })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := stop(ctx, []Process{p}); err != nil {
		t.Error(err)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("it ended with %v", err)
	}
}

func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		if <-tick.C; time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func TestPercentileAndMedian(t *testing.T) {
	var list []time.Duration
	for i := 100; i > 0; i-- {
		list = append(list, time.Duration(i))
	}
	if Percentile(list, 0.5) != 50 || Percentile(list, 0.99) != 99 || Percentile(list, 1) != 100 || Percentile(list[:1], 0.99) != 100 || Percentile(nil, 0.5) != 0 {
		t.Errorf("%d %d %d", Percentile(list, 0.5), Percentile(list, 0.99), Percentile(list, 1))
	}
	c := Comparison{A: []float64{1, 9, 4}, B: []float64{2, 3, 4}}
	if m, low, high := c.Ratio(); m != 1 || low != 0.5 || high != 3 {
		t.Errorf("%f (%f to %f)", m, low, high)
	}
}
