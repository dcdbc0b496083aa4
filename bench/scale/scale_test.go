package scale

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/internal/testenv"
	"github.com/weftnet/weft/plan"
	"github.com/weftnet/weft/trust"
)

// weft is the path of the program under test: WEFT_BIN, or built now.
func weft(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("WEFT_BIN"); path != "" {
		return path
	}
	path := filepath.Join(t.TempDir(), "weft")
	if out, err := exec.Command("go", "build", "-o", path, "github.com/weftnet/weft/cmd/weft").CombinedOutput(); err != nil {
		t.Fatalf("build weft: %v\n%s", err, out)
	}
	return path
}

// TestFleet is a whole run with a small fleet: a server process, real joins, binds, changes, two restarts and a host that comes
// with nothing. Run compares every agent with the store, digest by digest. It turns red when a stream leaves something out (take
// the append out of distribute's replay: agents wait for ever; send a resource of an older revision: a digest differs), when a
// resume believes too much, or when the server keeps an acknowledgement to itself.
func TestFleet(t *testing.T) {
	testenv.Require(t, testenv.Root)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	cfg := Config{Hosts: 40, Ports: 800, Networks: 40, Changes: 10, ColdStarts: 2, Clients: 2, ReportEvery: 300 * time.Millisecond,
		Binary: weft(t), Dir: t.TempDir(), Commit: "test", Machine: "a machine"}
	r, err := Run(t.Context(), cfg)
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(cfg.Dir, "server.log"))
		t.Fatalf("%v\nthe server says:\n%s", err, log[max(0, len(log)-4000):])
	}
	want := map[string]float64{
		// All ports, one network of each, all hosts' VTEPs, and itself; the cold host's own ports come on top.
		"cold start: resources of the plan": float64(cfg.Ports + 2*cfg.Networks + cfg.Hosts + 2),
		// With nothing changed, digests are all that a restart takes.
		"all agents back after a restart of the server: plan octets": 0,
	}
	for _, f := range r.Figures {
		if w, ok := want[f.What]; ok && f.Value != w {
			t.Errorf("%s: %g, want %g", f.What, f.Value, w)
		}
		delete(want, f.What)
		if f.Value < 0 {
			t.Errorf("%s: %g", f.What, f.Value)
		}
	}
	if len(want) > 0 {
		t.Errorf("not measured: %v", want)
	}
	path, err := r.Save(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(strings.TrimSuffix(path, ".md") + ".json")
	if err != nil || json.Unmarshal(b, &Result{}) != nil || !bytes.Contains(b, []byte(`"hosts": 40`)) {
		t.Errorf("saved %s, %v", b, err)
	}
}

// TestTruthFindsWhatIsWrong turns red when check lets an agent pass that lacks, changed, or kept something.
func TestTruthFindsWhatIsWrong(t *testing.T) {
	port := func(uid string, epoch int64) *plan.Resource {
		return plan.NewPort(1, &planv1.Port{Uid: uid, Network: "n", Epoch: epoch})
	}
	host := plan.NewHost(1, &planv1.Host{Uid: "h", Networks: []string{"n"}})
	network := plan.NewNetwork(1, &planv1.Network{Uid: "n", Vni: 5000})
	all := []*plan.Resource{host, network, port("p", 1), port("q", 1)}
	must := &truth{set: plan.NewSet(all...), hosts: map[string]*plan.Resource{"h": host}}
	for _, c := range []struct {
		name string
		held []*plan.Resource
		good bool
	}{
		{"all", all, true},
		{"nothing", nil, false},
		{"one port less", all[:3], false},
		{"another epoch", []*plan.Resource{host, network, port("p", 1), port("q", 2)}, false},
		{"a network too much", append([]*plan.Resource{plan.NewNetwork(1, &planv1.Network{Uid: "m"})}, all...), false},
	} {
		a := &simulated{name: "h", id: &trust.HostIdentity{UID: "h"}, staging: plan.NewStaging("h", plan.NewSet(c.held...), "s", 1)}
		if err := must.check(a); (err == nil) != c.good {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// TestSharedChecks turns red when shared takes the word of a second message for its octets.
func TestSharedChecks(t *testing.T) {
	s := newShared()
	good := plan.NewPort(1, &planv1.Port{Uid: "p", Network: "n", Epoch: 7, Active: "h"}).Proto()
	first, err := s.decode(good)
	if err != nil {
		t.Fatal(err)
	}
	second, err := s.decode(good)
	if err != nil || second != first {
		t.Errorf("the same octets are kept twice: %v", err)
	}
	if active, epoch := s.place(second); active != "h" || epoch != 7 {
		t.Errorf("the port is at %q, epoch %d", active, epoch)
	}
	bad := &planv1.Resource{Scope: good.Scope, Kind: good.Kind, Uid: good.Uid, Sha256: good.Sha256, Body: append([]byte{}, good.Body[1:]...)}
	if _, err := s.decode(bad); err == nil {
		t.Error("octets that are not those of the hash pass")
	}
}

// TestLayout: every network and host has its part, and the wide network a port on each host.
func TestLayout(t *testing.T) {
	for _, c := range []Config{{Hosts: 1000, Ports: 100_000, Networks: 1000}, {Hosts: 7, Ports: 50, Networks: 3}, {Hosts: 12, Ports: 12, Networks: 1}} {
		networks, hosts, seen := map[int]int{}, map[int]int{}, map[int]bool{}
		for i := range c.Ports {
			networks[c.networkOf(i)]++
			hosts[c.hostOf(i)]++
			seen[scattered(i, c.Ports)] = true
			if i < c.Hosts && (c.networkOf(i) != 0 || c.hostOf(i) != i) {
				t.Errorf("port %d is in network %d on host %d", i, c.networkOf(i), c.hostOf(i))
			}
		}
		if len(networks) != c.Networks || len(hosts) != c.Hosts || len(seen) != c.Ports {
			t.Errorf("%+v: %d networks, %d hosts, %d ports", c, len(networks), len(hosts), len(seen))
		}
		for h, n := range hosts {
			if mean := c.Ports / c.Hosts; c.Hosts == 1000 && (n < mean/2 || n > 2*mean) {
				t.Errorf("host %d has %d ports, the mean is %d", h, n, mean)
			}
		}
	}
}

// TestPercentile turns red when an index is one off.
func TestPercentile(t *testing.T) {
	var all []time.Duration
	for i := range 200 {
		all = append(all, time.Duration(i+1))
	}
	if p50, p99 := percentile(all, 50), percentile(all, 99); p50 != 100 || p99 != 198 {
		t.Errorf("p50 %d, p99 %d", p50, p99)
	}
	if p := percentile(all[:1], 99); p != 1 {
		t.Errorf("of one value p99 is %d", p)
	}
}
