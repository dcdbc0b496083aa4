package accept_test

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/lab"
)

var latencyLog = flag.String("latencylog", "", "file that TestChangeLatency writes its figures to")

// TestChangeLatency binds a port 200 times, to one host after the other, and wants a datagram from every host at it each time. How
// long that took is told, not judged: `weft lab demo` judges it, beside what else it measures.
//
// Red when the agent does not apply what a step of the plan brings (take without `len(step.Upserts)`).
func TestChangeLatency(t *testing.T) {
	const changes = 200
	f := ownLab(t, lab.Config{Name: "latency"})
	f.tenant(t, "acme")
	f.network(t, "acme", "blue", &weftv1.NetworkSpec{Subnets: []string{"10.1.0.0/24"}})
	cfg := lab.LatencyConfig{Tenant: "acme", Network: "blue", IP: netip.MustParseAddr("10.1.0.99"), Changes: changes}
	for _, h := range []string{"h1", "h2", "h3"} {
		w := f.workload(t, lab.WorkloadSpec{Name: "knock-" + h, Host: h, Tenant: "acme", Network: "blue"})
		cfg.Knockers = append(cfg.Knockers, w.Name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	took, err := f.ChangeLatency(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if len(took) != changes {
		t.Fatalf("%d of %d changes were measured", len(took), changes)
	}
	figures := fmt.Sprintf("p50 %s, p90 %s, p99 %s, longest %s", round(lab.Percentile(took, 0.5)), round(lab.Percentile(took, 0.9)),
		round(lab.Percentile(took, 0.99)), round(lab.Percentile(took, 1)))
	t.Logf("%d changes: %s", changes, figures)
	f.settled(t)
	if *latencyLog == "" {
		return
	}
	text := strings.Join([]string{
		"Change latency in the lab: from the request to the agent until a datagram from every one of three hosts was delivered to the port.",
		"", "date:    " + time.Now().UTC().Format(time.RFC3339), "commit:  " + *what,
		fmt.Sprintf("machine: %d CPUs, Linux %s, load %s", runtime.NumCPU(), kernelRelease(), loadAverage()),
		fmt.Sprintf("changes: %d, all delivered", changes), "latency: " + figures, "",
	}, "\n")
	if err := os.WriteFile(*latencyLog, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func round(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

// loadAverage is that of the last minute: what else the machine did.
func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err.Error()
	}
	first, _, _ := strings.Cut(string(b), " ")
	return first
}
