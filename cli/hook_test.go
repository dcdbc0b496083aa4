package cli_test

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/weftnet/weft/api/gen/local/v1/localv1connect"
	"github.com/weftnet/weft/cli"
)

// hostOf is a host with a fake agent.
func hostOf(t *testing.T, agent *fakeAgent) (socket string) {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(localv1connect.NewLocalServiceHandler(agent))
	socket = filepath.Join(t.TempDir(), "agent.sock")
	stop, err := listen(socket, mux)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return socket
}

// callHook is one call of `weft hook libvirt`.
func callHook(t *testing.T, socket, domain string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, said bytes.Buffer
	deps := cli.Deps{Stdin: strings.NewReader(domain), Stdout: &out, Stderr: &said, Env: cli.Env{AgentSocket: socket}, RunDir: t.TempDir()}
	status = cli.Run(context.Background(), deps, nil, append([]string{"hook", "libvirt"}, args...))
	return status, out.String(), said.String()
}

// recorded is the calls that libvirt made on one side.
func recorded(t *testing.T, side string) (calls []txtar.File) {
	t.Helper()
	a, err := txtar.ParseFile("testdata/libvirt.recorded")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range a.Files {
		if name, ok := strings.CutPrefix(f.Name, side+"/"); ok {
			_, f.Name, _ = strings.Cut(name, " ")
			calls = append(calls, f)
		}
	}
	if len(calls) == 0 {
		t.Fatalf("nothing was recorded on the %s", side)
	}
	return calls
}

// replay makes the calls of one side, those of the operations only if some are named.
func replay(t *testing.T, side, socket string, operations ...string) {
	t.Helper()
	for _, c := range recorded(t, side) {
		args := strings.Fields(c.Name)
		if len(operations) > 0 && !slices.Contains(operations, args[1]) {
			continue
		}
		status, stdout, stderr := callHook(t, socket, string(c.Data), args...)
		if status != 0 || stdout != "" || stderr != "" {
			t.Fatalf("%s: status %d, standard output %q, standard error %q", c.Name, status, stdout, stderr)
		}
	}
}

func wantCalls(t *testing.T, agent *fakeAgent, want ...string) {
	t.Helper()
	agent.mu.Lock()
	defer agent.mu.Unlock()
	if !slices.Equal(agent.calls, want) {
		t.Errorf("the agent was asked\n  %s\nwant\n  %s", strings.Join(agent.calls, "\n  "), strings.Join(want, "\n  "))
	}
}

const attached = "attach acme/web1 to tap-web1, 2 queues, take "

// Goes red when the hook takes a port for a plain start, attaches after libvirt has opened the device, or forgets the stop.
func TestHookOfAStartAndOfTheSource(t *testing.T) {
	agent := &fakeAgent{}
	replay(t, "source", hostOf(t, agent))
	wantCalls(t, agent, attached+"false", "detach acme/web1")
}

// Goes red when the target does not take the port at "migrate", commits before the machine runs (libvirt says "started" before it has sent the
// memory), or gives a committed port up.
func TestHookOfTheTarget(t *testing.T) {
	agent := &fakeAgent{elsewhere: map[string]bool{"acme/web1": true}}
	socket := hostOf(t, agent)
	replay(t, "target", socket, "migrate", "prepare", "start", "started")
	wantCalls(t, agent, attached+"true")
	agent.mu.Lock()
	agent.attached[0].Move = "" // its first frame came
	agent.mu.Unlock()
	replay(t, "target", socket, "stopped", "release")
	wantCalls(t, agent, attached+"true", "detach acme/web1")
}

// Goes red when the end of a machine that never ran unbinds the port under the one that runs on the source.
func TestHookOfAMigrationThatFails(t *testing.T) {
	agent := &fakeAgent{elsewhere: map[string]bool{"acme/web1": true}}
	replay(t, "target", hostOf(t, agent))
	wantCalls(t, agent, attached+"true", "abort acme/web1: guest vm1 ended on the target before it ran")
}

// A machine whose port runs elsewhere is not started twice. Goes red when a plain start takes.
func TestHookOfASecondStart(t *testing.T) {
	agent := &fakeAgent{elsewhere: map[string]bool{"acme/web1": true}}
	first := recorded(t, "source")[0]
	status, _, stderr := callHook(t, hostOf(t, agent), string(first.Data), strings.Fields(first.Name)...)
	if status != 1 || !strings.Contains(stderr, "guest vm1, prepare: port: it is bound to host h3") && !strings.Contains(stderr, "guest vm1, prepare: port acme/web1: ") {
		t.Errorf("status %d, %q", status, stderr)
	}
	wantCalls(t, agent)
}

// Goes red when a restarted libvirtd finds the hook failing: it would kill the machine.
func TestHookOfARestartedLibvirtd(t *testing.T) {
	agent := &fakeAgent{}
	replay(t, "restarted", hostOf(t, agent))
	wantCalls(t, agent, attached+"false")
	c := recorded(t, "restarted")[0]
	status, _, stderr := callHook(t, filepath.Join(t.TempDir(), "none.sock"), string(c.Data), strings.Fields(c.Name)...)
	if status != 0 || !strings.Contains(stderr, "no agent answered") {
		t.Errorf("status %d, %q", status, stderr)
	}
}

// What cannot be done is refused, or only said where that was chosen; always in time. Goes red when --on-error or --limit is not heeded.
func TestHookThatCannot(t *testing.T) {
	good := string(recorded(t, "source")[0].Data)
	silent := filepath.Join(t.TempDir(), "silent.sock")
	l, err := net.Listen("unix", silent) // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	half := &fakeAgent{}
	for name, c := range map[string]struct{ socket, domain, want string }{
		"no agent":         {filepath.Join(t.TempDir(), "none.sock"), good, "there is no such socket"},
		"silent agent":     {silent, good, "gave no answer in"},
		"broken XML":       {"", good[:len(good)/2], "domain: it is not a machine's description: XML syntax error"},
		"another XML":      {"", "<network/>", "expected element type <domain>"},
		"no XML":           {"", "", "domain: it is not a machine's description: EOF"},
		"foreign":          {"", strings.Replace(good, "github.com/weftnet/weft", "weft.example", 1), "which is not weft's"},
		"unknown port":     {hostOf(t, half), strings.Replace(good, "web1", "unknown", 1), "there is no port unknown"},
		"no such device":   {"", strings.Replace(good, `dev="tap-web1"`, `dev="tap9"`, 1), "the machine has no such <interface type='ethernet'>"},
		"libvirt's own":    {"", strings.Replace(good, "managed='no'", "", 1), "libvirt would make tap-web1 itself"},
		"another MAC":      {hostOf(t, half), strings.Replace(good, "02:77:65:00:00:01", "02:77:65:00:00:02", 1), "is none of its own (02:77:65:00:00:01)"},
		"too large an MTU": {hostOf(t, half), strings.Replace(good, "size='1450'", "size='9000'", 1), "9000, is more than its network's, 1450"},
	} {
		t.Run(name, func(t *testing.T) {
			for onError, want := range map[string]int{"closed": 1, "open": 0} {
				limit := "20s"
				if c.socket == silent {
					limit = "800ms"
				}
				done := make(chan struct{})
				var status int
				var stdout, stderr string
				go func() {
					defer close(done)
					status, stdout, stderr = callHook(t, c.socket, c.domain, "vm1", "prepare", "begin", "-", "--limit", limit, "--on-error", onError)
				}()
				select {
				case <-done:
				case <-time.After(30 * time.Second):
					t.Fatal("it hangs")
				}
				if status != want || stdout != "" || !strings.Contains(stderr, c.want) || !strings.Contains(stderr, "guest vm1, prepare: ") {
					t.Errorf("%s: status %d, standard output %q, standard error %q; want %q", onError, status, stdout, stderr, c.want)
				}
			}
		})
	}
	half.mu.Lock()
	defer half.mu.Unlock()
	if len(half.attached) > 0 {
		t.Errorf("left attached after a refusal: %v", half.attached)
	}
}

// A description that does not come to an end is not waited for. Goes red when standard input is read without a limit of time.
func TestHookWithoutAnEnd(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	var said bytes.Buffer
	done := make(chan int, 1)
	go func() {
		done <- cli.Run(context.Background(), cli.Deps{Stdin: r, Stdout: &said, Stderr: &said}, nil, []string{"hook", "libvirt", "vm1", "prepare", "--limit", "500ms"})
	}()
	select {
	case status := <-done:
		if status != 1 || !strings.Contains(said.String(), "did not come to an end in 500ms") {
			t.Errorf("status %d, %q", status, said.String())
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it hangs")
	}
}

// A machine without ports of weft's needs no agent. Goes red when it is asked for one.
func TestHookOfAnotherMachine(t *testing.T) {
	status, stdout, stderr := callHook(t, "/nonexistent/agent.sock", "<domain type='kvm'><name>x</name><devices/></domain>", "x", "prepare", "begin", "-")
	if status != 0 || stdout != "" || stderr != "" {
		t.Errorf("status %d, %q, %q", status, stdout, stderr)
	}
}

// Goes red when a port's interface is found otherwise than by the name it gives, else by its own, else as the only one there is.
func TestHookFindsInterfaces(t *testing.T) {
	card := func(dev string) string {
		return "<interface type='ethernet'><mac address='02:77:65:00:00:01'/><target dev='" + dev + "' managed='no'/></interface>"
	}
	for _, c := range []struct{ ports, cards, want string }{
		{"<port name='web1'/>", card("vnet7"), "acme/web1 to vnet7"},
		{"<port name='web1'/><port name='web2'/>", card("web2") + card("web1"), "acme/web1 to web1;acme/web2 to web2"},
		{"<port name='web1' dev='b' tenant='zeta'/>", card("web1") + card("b") + "<interface type='bridge'><target dev='b'/></interface>", "zeta/web1 to b"},
	} {
		agent := &fakeAgent{}
		domain := "<domain><metadata><ports xmlns='https://github.com/weftnet/weft/libvirt'>" + c.ports + "</ports></metadata><devices>" + c.cards + "</devices></domain>"
		if status, _, stderr := callHook(t, hostOf(t, agent), domain, "x", "prepare", "--tenant", "acme"); status != 0 {
			t.Errorf("%s: %s", c.ports, stderr)
		}
		var want []string
		for w := range strings.SplitSeq(c.want, ";") {
			want = append(want, "attach "+w+", 1 queues, take false")
		}
		wantCalls(t, agent, want...)
	}
}
