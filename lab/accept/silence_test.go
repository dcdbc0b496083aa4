package accept_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/lab"
)

// TestSilentVTEP takes the uplinks of a host away, and nothing else: both other agents notice that its VTEP is silent, the host itself that it hears
// nobody, and the server shows it, and all take it back. How long that took is told, not judged: TestSilence of the agent judges it in a time of its own.
//
// Red when the watch sends nothing (watchAll without p.small), and when w.deaf is always false; "agent" when nobody asks the host itself
// (host_answers is never set).
func TestSilentVTEP(t *testing.T) {
	f := ownLab(t, lab.Config{Name: "silent"})
	up := time.Now()
	hosts := []string{"h1", "h2", "h3"}
	for round, cut := range []string{"h2", "h1", "h3"} {
		seen := map[string]int{}
		for _, h := range hosts {
			seen[h] = len(f.says(t, h, "a VTEP is silent"))
		}
		// What has never answered is not missed.
		if round == 0 {
			for _, h := range hosts {
				eventually(t, h+" is answered", func() (bool, string) { s := f.oamPackets(t, h); return s > 20, fmt.Sprint(s) })
			}
		}
		began := time.Now()
		if err := f.CutUnderlay(cut); err != nil {
			t.Fatal(err)
		}
		for _, h := range hosts {
			if h == cut {
				continue
			}
			eventually(t, h+" notices that "+cut+" is silent", func() (bool, string) {
				said := f.says(t, h, "a VTEP is silent")[seen[h]:]
				return strings.Contains(strings.Join(said, "\n"), "vtep="+cut), fmt.Sprint(said)
			})
			t.Logf("%s noticed that %s is silent after %s", h, cut, time.Since(began).Round(time.Millisecond))
		}
		shown := func(want bool) func() (bool, string) {
			return func() (bool, string) {
				got := f.hostCondition(t, cut, "silent")
				return (got != "") == want, got
			}
		}
		eventually(t, "the server shows that "+cut+" is silent", shown(true))
		t.Logf("the server shows it after %s", time.Since(began).Round(time.Millisecond))
		for _, h := range hosts {
			eventually(t, "of all, "+cut+" alone hears nobody", func() (bool, string) {
				got := f.condition(t, h, "deaf")
				return (got != "") == (h == cut), h + ": " + got
			})
		}
		if err := f.HealUnderlay(cut); err != nil {
			t.Fatal(err)
		}
		healed := time.Now()
		eventually(t, "the server shows that it is back", shown(false))
		for _, h := range hosts {
			eventually(t, h+" takes it back", func() (bool, string) {
				said := len(f.says(t, h, "a VTEP is silent"))
				back := len(f.says(t, h, "a VTEP is not silent any more"))
				got := f.condition(t, h, "deaf")
				return got == "" && said == back, fmt.Sprintf("%s: deaf %q, %d silent, %d back", h, got, said, back)
			})
			t.Logf("%s hears all again after %s", h, time.Since(healed).Round(time.Millisecond))
			// An agent that stood still for a moment was silent too, and its host answered.
			said := slices.DeleteFunc(f.says(t, h, "a VTEP is silent")[seen[h]:], func(line string) bool {
				return !strings.Contains(line, "vtep="+cut) && strings.Contains(line, "its_host_answers=true")
			})
			if (h == cut) != (len(said) == 0) || len(said) > 1 {
				t.Errorf("%s was cut off, and %s says: %v", cut, h, said)
			}
		}
	}
	t.Run("agent", func(t *testing.T) { f.agentOfASilentHost(t, up) })
}

// agentOfASilentHost: a host that is to be declared dead when it is silent is not while only its agent is gone, and its workloads go on; when its
// uplinks go too, it is. up is since when the server is: it declares nobody dead at first (comeBack of server).
func (f *fixture) agentOfASilentHost(t *testing.T, up time.Time) {
	f.must(t, "tenant", "create", "acme")
	f.must(t, "network", "create", "blue", "--tenant", "acme", "--subnet", "10.1.0.0/24")
	var w []*workload // they go with the lab: a dead host gives nothing back
	for _, host := range []string{"h1", "h2"} {
		one, err := f.AddWorkload(limited(t), lab.WorkloadSpec{Name: "on" + host, Host: host, Tenant: "acme", Network: "blue"})
		if err != nil {
			t.Fatal(err)
		}
		w = append(w, &workload{Workload: one, ns: f.node(t, one.Name)})
	}
	reaches(t, w[0].ns, w[1].v4())
	f.must(t, "host", "set", "h2", "--when-silent", "fail")
	if err := f.KillAgent(limited(t), "h2"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the server shows that h2's agent is silent", func() (bool, string) {
		return f.hostCondition(t, "h2", "agent-silent") != "", f.must(t, "host", "list")
	})
	// Longer than comeBack, and then than a host may be silent (Limits.Silent).
	for began := time.Now(); time.Since(began) < 8*time.Second || time.Since(up) < 38*time.Second; time.Sleep(500 * time.Millisecond) {
		if got := f.hostCondition(t, "h2", "silent"); got != "" {
			t.Fatalf("h2 runs without an agent, and is called silent: %s", got)
		}
		if out := f.must(t, "host", "show", "h2"); strings.Contains(out, "failed") {
			t.Fatalf("h2 runs without an agent, and was declared dead:\n%s", out)
		}
	}
	reaches(t, w[0].ns, w[1].v4())
	if err := f.CutUnderlay("h2"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "h2 is declared dead", func() (bool, string) {
		out := f.must(t, "host", "show", "h2")
		return strings.Contains(out, "failed") && strings.Contains(out, "when_silent"), out
	})
}

// hostCondition is what the server says of a host's condition, "" if it has not it.
func (f *fixture) hostCondition(t testing.TB, host, name string) string {
	t.Helper()
	res, err := f.api(t).Hosts.GetHost(limited(t), connect.NewRequest(&weftv1.GetHostRequest{Name: host}))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range res.Msg.GetStatus().GetConditions() {
		if c.GetName() == name {
			return c.GetMessage()
		}
	}
	return ""
}

// says are the lines of a host's agent that contain something.
func (f *fixture) says(t testing.TB, host, what string) (lines []string) {
	t.Helper()
	b, err := os.ReadFile(f.AgentLog(host))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, what) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// condition is what a host's agent says of one, "" if it has not it.
func (f *fixture) condition(t testing.TB, host, name string) string {
	t.Helper()
	a, err := f.Agent(host)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	st, err := a.GetStatus(limited(t), connect.NewRequest(&localv1.GetStatusRequest{}))
	if err != nil {
		return ""
	}
	for _, c := range st.Msg.GetConditions() {
		if c.GetName() == name {
			return c.GetMessage()
		}
	}
	return ""
}

// oamPackets are those that a host's agent got through the tunnel.
func (f *fixture) oamPackets(t testing.TB, host string) uint64 {
	t.Helper()
	s, err := f.node(t, host).Stats("weft-oam1")
	if err != nil {
		return 0
	}
	return s.RxPackets
}
