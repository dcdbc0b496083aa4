package bench

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/internal/testenv"
)

// TestFramesForNobodyAreAnError proves the method itself: every frame is counted, and frames that do not arrive are an error, not a
// fast round. Turn the counter's length test off and it goes red.
func TestFramesForNobodyAreAnError(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.BPF)
	c := built(t, func(prefix string) (Contender, error) { return newBridgeVXLAN(tunedName, prefix, true) })
	a, b := c.Workloads()
	if _, err := packetCost(a, b, traffic{Length: 2000}, 1000); !errors.Is(err, errLost) {
		t.Errorf("frames that do not fit: %v, want that they were lost", err)
	}
	if err := c.(tableFiller).fill(t.Context(), 10); err != nil {
		t.Fatal(err)
	}
	if _, err := packetCost(a, b, traffic{Length: 64, Destinations: 10, Entries: 10, Flows: 1000}, 1000); err != nil {
		t.Errorf("frames to the table's MACs: %v", err)
	}
	if _, err := packetCost(a, b, traffic{Length: 64, Destinations: 20, Entries: 20}, 1000); err != nil {
		t.Logf("frames to MACs that are not in the table are flooded or lost: %v", err)
	}
}

// TestAstray turns red when a sample counts although its frames were carried by another core than the one whose time is taken.
func TestAstray(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.BPF)
	if runtime.NumCPU() < 2 {
		testenv.Missing(t, testenv.Root, "one core only: there is no other")
	}
	c := built(t, newDirectVeth)
	a, b := c.Workloads()
	if err := c.(preparer).prepare(); err != nil {
		t.Fatal(err)
	}
	f := flow{from: a, frame: udpFrame(a, b, 64), length: 64, at: end{b.Netns, b.Ifindex, ebpf.AttachTCXIngress}, rate: 1000, core: packetCore + 1}
	st, err := f.start()
	if err != nil {
		t.Fatal(err)
	}
	await(t, "the first frames arrive", func() bool { n, err := st.s.sink.read(); return err != nil || n >= steadyBurst })
	if err := st.s.sink.onCore(packetCore); !doesNotCount(err) {
		t.Errorf("frames of another core: %v", err)
	}
	if err := st.s.sink.onCore(packetCore + 1); err != nil {
		t.Errorf("frames of their own core: %v", err)
	}
	if _, sent, arrived, err := st.stop(); err != nil || arrived != sent {
		t.Errorf("%d of %d frames arrived, %v", arrived, sent, err)
	}

	idle := exec.Command("sleep", "600")
	if err := idle.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { idle.Process.Kill(); idle.Wait() }()
	if err := pinProcesses([]int{packetCore}, idle.Process.Pid); err != nil {
		t.Fatal(err)
	}
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(idle.Process.Pid, &set); err != nil || set.Count() != 1 || !set.IsSet(packetCore) {
		t.Errorf("a pinned process may run on %v, %v", set, err)
	}
}

func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	if err := waitFor(t.Context(), carryPatience, what, cond); err != nil {
		t.Fatal(err)
	}
}

// built is a contender of a test's own.
func built(t *testing.T, build func(prefix string) (Contender, error)) Contender {
	t.Helper()
	c, err := build("wefttest-bench-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(c.Close(), removeAnchor()); err != nil {
			t.Error(err)
		}
	})
	return c
}

// TestEveryMeasureOnce takes each at a size that says nothing, through the real program, and expects a number above zero for every
// contender. Leave any contender's Close out and the check for leftovers goes red.
func TestEveryMeasureOnce(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.BPF)
	testenv.RequireTool(t, "ovs-vswitchd")
	testenv.RequireTool(t, "dnsmasq")
	binary := os.Getenv("WEFT_BIN")
	if binary == "" {
		binary = filepath.Join(t.TempDir(), "weft")
		if out, err := exec.Command("go", "build", "-o", binary, "../cmd/weft").CombinedOutput(); err != nil {
			t.Fatalf("build weft: %v\n%s", err, out)
		}
	}
	var progress bytes.Buffer
	r, err := Run(t.Context(), Config{Rounds: MinRounds, Frames: 500, Stream: 10 * time.Millisecond, Requests: 20, Tables: []int{10, 200}, VTEPs: 4, Known: 20, MACs: 500, Leases: 40, PlanEntries: 2000, Moves: 2, kinds: []traffic{{Length: 64, Flows: 1}, {Length: 1400, Flows: 1000}},
		Binary: binary, Progress: &progress})
	if err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	for line := range strings.Lines(progress.String()) {
		if !strings.Contains(line, ", round ") {
			t.Log(strings.TrimSpace(line))
		}
	}
	for _, s := range r.Series {
		if len(s.Rows) < 2 && s.Group != "plan" || len(s.Samples) != len(s.Rows)*MinRounds {
			t.Errorf("%s: %d contenders, %d samples", s.Measure, len(s.Rows), len(s.Samples))
		}
		for _, row := range s.Rows {
			if row.Median < 0 || row.Median == 0 && s.Group != "cpu" {
				t.Errorf("%s of %s is %v", s.Measure, row.Contender, row.Median)
			}
		}
		if s.Group == "packets" && !slices.ContainsFunc(s.Rows, func(row Row) bool { return row.Contender == ovsName }) {
			t.Errorf("%s was not measured of %s", s.Measure, ovsName)
		}
	}
	for _, v := range r.Verdicts {
		sized := slices.ContainsFunc([]string{"1,000,000", "256", "1,000 addresses", "100,000 MACs"}, func(size string) bool { return strings.Contains(v.What, size) })
		if v.Measured == sized {
			t.Errorf("%s against %s: measured is %t", v.What, v.Against, v.Measured)
		}
	}
	wantSaved(t, r)
	names, err := netdev.Namespaces(benchPrefix)
	if err != nil || len(names) > 0 {
		t.Errorf("left behind: %v %v", names, err)
	}
}

// wantSaved wants files that can be read: charts that are XML, and not large.
func wantSaved(t *testing.T, r *Result) {
	t.Helper()
	dir := t.TempDir()
	if _, err := r.Save(dir); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 2+len(MeasureNames()) {
		t.Errorf("saved %v %v", files, err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil || len(b) > 200_000 {
			t.Errorf("%s: %d octets, %v", name, len(b), err)
		}
		if filepath.Ext(name) != ".svg" {
			continue
		}
		for d := xml.NewDecoder(bytes.NewReader(b)); err == nil; {
			_, err = d.Token()
		}
		if !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestARunThatFails keeps what it had measured, and says that it is not all. Break it: return nothing with the error.
func TestARunThatFails(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.BPF)
	defer func(all []measure) { measures = all }(measures)
	measures = []measure{
		{"first", true, func(*field, context.Context) ([]Series, error) { return []Series{{Measure: "m"}}, nil }},
		{"second", true, func(*field, context.Context) ([]Series, error) { return nil, errLost }},
		{"third", true, func(*field, context.Context) ([]Series, error) { panic("the run goes on") }},
	}
	r, err := Run(t.Context(), Config{Rounds: MinRounds})
	if !errors.Is(err, errLost) || r == nil || len(r.Series) != 1 || !strings.HasPrefix(r.Notes[0], "NOT COMPLETE: second") {
		t.Errorf("%+v, %v", r, err)
	}
	measures = measures[1:]
	if r, err := Run(t.Context(), Config{Rounds: MinRounds}); !errors.Is(err, errLost) || r != nil {
		t.Errorf("nothing was measured: %+v, %v", r, err)
	}
}

// TestARunThatWasKilledIsRemoved leaves what a killed run leaves. Take the namespaces out of removeLeftovers and it goes red.
func TestARunThatWasKilledIsRemoved(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.BPF)
	c, err := newBridgeVXLAN(tunedName, benchPrefix+"t-", true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = Run(ctx, Config{Only: []string{"latency"}, Binary: "/bin/false"})
	if err == nil {
		t.Fatal("a run whose context has ended succeeds")
	}
	names, err := netdev.Namespaces(benchPrefix)
	if err != nil || len(names) > 0 {
		t.Errorf("still there: %v %v", names, err)
	}
}
