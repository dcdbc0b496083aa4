package conform

import (
	"context"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/internal/testenv"
)

// TestConform runs every case in every row. Red when, for instance, from_uplink takes a reserved bit for an error, or write_outer
// forgets the don't-fragment bit.
func TestConform(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.BPF)
	ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	results, err := Run(ctx, Config{})
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	failed, err := Write(&table, results)
	if err != nil {
		t.Fatal(err)
	}
	if failed > 0 {
		t.Error(table.String())
	}
	if len(results) < len(Rows())*280 {
		t.Errorf("only %d results", len(results))
	}
	empty(t)
}

// empty: nothing is left.
func empty(t *testing.T) {
	t.Helper()
	if left, err := netdev.Namespaces(prefix); err != nil || len(left) > 0 {
		t.Errorf("namespaces are left: %v %v", left, err)
	}
	if _, err := os.Stat(pinRoot); !os.IsNotExist(err) {
		t.Errorf("pins are left: %v", err)
	}
}

// TestInterruptedLeavesNothing: the context ends while cases run; and a run that was killed is cleaned up by the next.
func TestInterruptedLeavesNothing(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.BPF)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, Config{}); err == nil {
		t.Error("an interrupted run reports nothing")
	}
	empty(t)
	if _, err := newBed(Rows()[0]); err != nil { // and nobody takes it away
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), Config{Rows: Rows()[:1], Match: regexp.MustCompile("^9 ")}); err != nil {
		t.Fatal(err)
	}
	empty(t)
}

// TestCasesHaveNamesOfTheirOwn: the table has a line for each.
func TestCasesHaveNamesOfTheirOwn(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range Cases() {
		name := c.Rule + " " + c.Name
		if seen[name] || c.Rule == "" || c.Name == "" || c.do == nil {
			t.Errorf("%q is twice, or unfinished", name)
		}
		seen[name] = true
	}
}
