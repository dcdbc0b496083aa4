package accept_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/client"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/internal/testenv"
	"github.com/weftnet/weft/lab"
	"github.com/weftnet/weft/lab/probe"
)

// inTime is how long anything may take that ought to work at once, on a slow and busy machine that stands still for seconds at times.
const inTime = 30 * time.Second

// fixture is a lab and what tests do with it.
type fixture struct {
	*lab.Lab
	name string
	bin  string
}

// sharedLab is a lab of three hosts and two spines that all tests use that do not hurt it. Each uses tenants of its own.
func sharedLab(t *testing.T) *fixture {
	t.Helper()
	testenv.Require(t, testenv.Root, testenv.BPF)
	takeDown.Lock()
	f := takeDown.shared
	takeDown.Unlock()
	if f == nil {
		f = upLab(t, lab.Config{Name: "acc"})
		takeDown.Lock()
		takeDown.shared = f
		takeDown.Unlock()
	}
	explain(t, f)
	return f
}

// ownLab is a lab of the test's own, taken away when it ends.
func ownLab(t *testing.T, cfg lab.Config) *fixture {
	t.Helper()
	testenv.Require(t, testenv.Root, testenv.BPF)
	f := upLab(t, cfg)
	t.Cleanup(func() {
		takeDown.Lock()
		delete(takeDown.labs, f.name)
		takeDown.Unlock()
		if err := f.Down(context.Background()); err != nil {
			t.Errorf("take the lab away: %v", err)
		}
	})
	explain(t, f)
	return f
}

func upLab(t *testing.T, cfg lab.Config) *fixture {
	t.Helper()
	cfg.Binary = weft(t)
	// A run that was killed may have left one.
	if err := lab.Down(context.Background(), cfg); err != nil {
		t.Fatal(err)
	}
	takeDown.Lock()
	takeDown.labs[cfg.Name] = cfg
	takeDown.Unlock()
	l, err := lab.Up(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &fixture{Lab: l, name: cfg.Name, bin: cfg.Binary}
}

// explain shows, when the test has failed, what weft itself says about the lab, and the ends of its logs.
func explain(t *testing.T, f *fixture) {
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		for _, args := range [][]string{{"status"}, {"host", "list"}, {"drops"}} {
			r := f.weft(t, args...)
			t.Logf("weft %s:\n%s%s", strings.Join(args, " "), r.out, r.err)
		}
		s, err := f.State()
		if err != nil {
			return
		}
		for _, n := range append([]string{"server"}, hostNames(s)...) {
			b, _ := os.ReadFile(filepath.Join(s.Dir, n, n+".log"))
			lines := strings.Split(strings.TrimSpace(string(b)), "\n")
			t.Logf("the end of the log of %s:\n%s", n, strings.Join(lines[max(0, len(lines)-15):], "\n"))
		}
	})
}

func hostNames(s lab.State) (names []string) {
	for _, h := range s.Hosts {
		names = append(names, h.Name)
	}
	return names
}

// result is what a command did.
type result struct {
	out, err string
	status   int
}

// clean is the environment without weft's variables, with more.
func clean(more ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "WEFT_") })
	return append(env, more...)
}

// finish runs a prepared command and tells its end; an error that is no exit status is the test's.
func finish(t testing.TB, cmd *exec.Cmd, start func(*exec.Cmd) error) result {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("run %s: %v", strings.Join(cmd.Args, " "), err)
	}
	return result{out: out.String(), err: errs.String(), status: cmd.ProcessState.ExitCode()}
}

// weft runs the real program as root on the server's machine.
func (f *fixture) weft(t testing.TB, args ...string) result {
	t.Helper()
	return f.weftWith(t, "", args...)
}

// weftWith is weft with a standard input.
func (f *fixture) weftWith(t testing.TB, stdin string, args ...string) result {
	t.Helper()
	s, err := f.State()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(f.bin, args...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = clean("WEFT_SOCKET=" + s.ServerSocket)
	return finish(t, cmd, (*exec.Cmd).Start)
}

// must runs a command that has to succeed, and gives its output.
func (f *fixture) must(t testing.TB, args ...string) string {
	t.Helper()
	r := f.weft(t, args...)
	if r.status != 0 {
		t.Fatalf("weft %s: status %d\n%s%s", strings.Join(args, " "), r.status, r.out, r.err)
	}
	return r.out
}

// weftOn runs the real program on a host: in its network namespace, with its agent's socket.
func (f *fixture) weftOn(t testing.TB, host string, args ...string) result {
	t.Helper()
	s, err := f.State()
	if err != nil {
		t.Fatal(err)
	}
	h, ok := s.Host(host)
	if !ok {
		t.Fatalf("no host %s", host)
	}
	cmd := exec.Command(f.bin, args...)
	cmd.Env = clean("WEFT_SOCKET="+s.ServerSocket, "WEFT_AGENT_SOCKET="+h.AgentSocket)
	return finish(t, cmd, f.node(t, host).Start)
}

func (f *fixture) node(t testing.TB, name string) *netdev.Handle {
	t.Helper()
	h, err := f.Node(name)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (f *fixture) api(t testing.TB) *client.Client {
	t.Helper()
	c, err := f.Client()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// tenant makes one, and takes it away with its networks and ports when the test ends.
func (f *fixture) tenant(t *testing.T, name string) {
	t.Helper()
	ctx := limited(t)
	if _, err := f.api(t).Tenants.CreateTenant(ctx, connect.NewRequest(&weftv1.CreateTenantRequest{Name: name, Spec: &weftv1.TenantSpec{}})); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.dropTenant(t, name) })
}

func (f *fixture) dropTenant(t *testing.T, name string) {
	ctx, cancel := context.WithTimeout(context.Background(), inTime)
	defer cancel()
	c := f.api(t)
	ports, err := c.Ports.ListPorts(ctx, connect.NewRequest(&weftv1.ListPortsRequest{Tenant: name}))
	if err != nil {
		t.Errorf("take tenant %s away: %v", name, err)
		return
	}
	for _, p := range ports.Msg.GetPorts() {
		_, _ = c.Ports.UnbindPort(ctx, connect.NewRequest(&weftv1.UnbindPortRequest{Tenant: name, Name: p.GetName()}))
		if _, err := c.Ports.DeletePort(ctx, connect.NewRequest(&weftv1.DeletePortRequest{Tenant: name, Name: p.GetName()})); err != nil {
			t.Errorf("take port %s of %s away: %v", p.GetName(), name, err)
		}
	}
	networks, err := c.Networks.ListNetworks(ctx, connect.NewRequest(&weftv1.ListNetworksRequest{Tenant: name}))
	if err != nil {
		t.Errorf("take tenant %s away: %v", name, err)
		return
	}
	for _, n := range networks.Msg.GetNetworks() {
		if _, err := c.Networks.DeleteNetwork(ctx, connect.NewRequest(&weftv1.DeleteNetworkRequest{Tenant: name, Name: n.GetName()})); err != nil {
			t.Errorf("take network %s of %s away: %v", n.GetName(), name, err)
		}
	}
	if _, err := c.Tenants.DeleteTenant(ctx, connect.NewRequest(&weftv1.DeleteTenantRequest{Name: name})); err != nil {
		t.Errorf("take tenant %s away: %v", name, err)
	}
}

// network makes one of a tenant and returns it. It goes with the tenant.
func (f *fixture) network(t *testing.T, tenant, name string, spec *weftv1.NetworkSpec) *weftv1.Network {
	t.Helper()
	res, err := f.api(t).Networks.CreateNetwork(limited(t), connect.NewRequest(&weftv1.CreateNetworkRequest{Tenant: tenant, Name: name, Spec: spec}))
	if err != nil {
		t.Fatal(err)
	}
	return res.Msg
}

// workload makes one with a port of its own, active when it returns, and takes it away when the test ends.
func (f *fixture) workload(t *testing.T, spec lab.WorkloadSpec) *workload {
	t.Helper()
	w, err := f.AddWorkload(limited(t), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), inTime)
		defer cancel()
		if err := f.RemoveWorkload(ctx, spec.Name); err != nil {
			t.Error(err)
		}
	})
	return &workload{Workload: w, ns: f.node(t, w.Name)}
}

type workload struct {
	lab.Workload
	ns *netdev.Handle
}

// v4 and v6 are its first addresses of the family.
func (w *workload) v4() netip.Addr { return first(w.IPs, netip.Addr.Is4) }
func (w *workload) v6() netip.Addr { return first(w.IPs, netip.Addr.Is6) }

func first(list []string, is func(netip.Addr) bool) netip.Addr {
	for _, s := range list {
		a, err := netip.ParseAddr(s)
		if err != nil {
			if p, perr := netip.ParsePrefix(s); perr == nil {
				a, err = p.Addr(), nil
			}
		}
		if err == nil && is(a) {
			return a
		}
	}
	return netip.Addr{}
}

// limited is a context that ends with the test's patience.
func limited(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), inTime)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits for a named condition, and says what it last was.
func eventually(t testing.TB, what string, cond func() (ok bool, now string)) {
	t.Helper()
	deadline := time.Now().Add(inTime)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, now := cond()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("wait until %s: after %s it is: %s", what, inTime, now)
		}
		<-tick.C
	}
}

// reaches waits for the first answer, and then wants every one of three, once.
func reaches(t testing.TB, from *netdev.Handle, to netip.Addr) {
	t.Helper()
	if err := reach(limited(t), from, to); err != nil {
		t.Fatalf("ping from %s to %s: %v", from, to, err)
	}
}

func reach(ctx context.Context, from *netdev.Handle, to netip.Addr) error {
	if err := probe.PingUntil(ctx, from, to); err != nil {
		return err
	}
	r, err := probe.Ping(ctx, from, to, probe.PingConfig{Count: 3})
	if err == nil && !r.Complete() {
		err = fmt.Errorf("%d of %d answers, %d twice", r.Received, r.Sent, r.Duplicates)
	}
	return err
}

const (
	// quiet is how long nothing has to come before we believe that nothing will: the only waits that are not for a condition.
	quiet     = 300 * time.Millisecond
	pingEvery = 50 * time.Millisecond
	// streamTime of a TCP stream that is to show that it works, not how fast.
	streamTime = 300 * time.Millisecond
)
