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
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/internal/testenv"
)

// machine is a network namespace that stands for a machine of its own: its own directories, sockets and pins.
type machine struct {
	name string
	ns   *netdev.Handle
	dir  string
	bin  string
}

func addMachine(t *testing.T, name string) *machine {
	t.Helper()
	m := &machine{name: "wefttest-accept-" + name, dir: t.TempDir(), bin: weft(t)}
	if err := netdev.DeleteNamespace(m.name); err != nil {
		t.Fatal(err)
	}
	if err := netdev.CreateNamespace(m.name); err != nil {
		t.Fatal(err)
	}
	atEnd(t, func() error { return netdev.DeleteNamespace(m.name) })
	var err error
	if m.ns, err = netdev.OpenName(m.name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.ns.Close)
	atEnd(t, func() error { return os.RemoveAll(m.pins()) })
	return m
}

func (m *machine) pins() string         { return "/sys/fs/bpf/" + m.name }
func (m *machine) serverSocket() string { return filepath.Join(m.dir, "server.sock") }
func (m *machine) agentSocket() string  { return filepath.Join(m.dir, "agent.sock") }

// weft runs the real program there, which finds server and agent by their sockets.
func (m *machine) weft(t testing.TB, args ...string) result {
	t.Helper()
	cmd := exec.Command(m.bin, args...)
	cmd.Env = clean("WEFT_SOCKET="+m.serverSocket(), "WEFT_AGENT_SOCKET="+m.agentSocket(), "HOME="+m.dir)
	return finish(t, cmd, m.ns.Start)
}

func (m *machine) must(t testing.TB, args ...string) string {
	t.Helper()
	r := m.weft(t, args...)
	if r.status != 0 {
		t.Fatalf("weft %s on %s: status %d\n%s%s", strings.Join(args, " "), m.name, r.status, r.out, r.err)
	}
	return r.out
}

// service is a long-running weft.
type service struct {
	cmd  *exec.Cmd
	done chan error
}

// start runs it until stop, or until the test ends.
func (m *machine) start(t *testing.T, args ...string) *service {
	t.Helper()
	s := &service{cmd: exec.Command(m.bin, args...), done: make(chan error, 1)}
	s.cmd.Env = clean("HOME=" + m.dir)
	log, err := os.Create(filepath.Join(m.dir, args[0]+".log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := m.ns.Start(s.cmd); err != nil {
		t.Fatal(err)
	}
	p := s.cmd
	go func() { s.done <- p.Wait() }()
	atEnd(t, func() error {
		if err := p.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		return nil
	})
	t.Cleanup(func() {
		if t.Failed() {
			b, _ := os.ReadFile(log.Name())
			t.Logf("the log of weft %s on %s:\n%s", args[0], m.name, b)
		}
	})
	return s
}

// stop ends it as a service manager would.
func (s *service) stop(t *testing.T) {
	t.Helper()
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-s.done:
		if err != nil {
			t.Errorf("weft %s ended with %v", s.cmd.Args[1], err)
		}
	case <-time.After(inTime):
		t.Errorf("weft %s does not end", s.cmd.Args[1])
		_ = s.cmd.Process.Kill()
		<-s.done
	}
}

// TestUp is the way of a user with real machines: `weft up` on the first, a network, two workloads; a second machine that joins with a
// token; and everything taken away again.
//
//	[up1: weft up] 192.0.2.1 ---- 192.0.2.2 [up2: weft agent]
//	  |   |                                     |
//	 w1   w2                                    w3
//
// Goes red when weft up does not make a token for its own agent, or when detaching leaves the veth.
func TestUp(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.BPF)
	one, two := addMachine(t, "up1"), addMachine(t, "up2")
	_, _, err := one.ns.EnsureVeth(netdev.Veth{Name: "underlay0", MTU: 1550, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")},
		Peer: netdev.VethPeer{Namespace: two.ns, Name: "underlay0", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24")}}})
	if err != nil {
		t.Fatal(err)
	}
	up := one.start(t, "up", "--name", "up1", "--listen", ":7348", "--server-dir", filepath.Join(one.dir, "server"), "--server-socket", one.serverSocket(),
		"--agent-dir", filepath.Join(one.dir, "agent"), "--agent-socket", one.agentSocket(), "--instance", one.name, "--pin-root", one.pins(), "--vtep-address", "192.0.2.1")
	ready := func(host string) {
		t.Helper()
		eventually(t, host+" is ready", func() (bool, string) {
			r := one.weft(t, "host", "show", host)
			return r.status == 0 && strings.Contains(r.out, "ready"), r.out + r.err
		})
	}
	ready("up1")

	one.must(t, "tenant", "create", "acme")
	one.must(t, "network", "create", "blue", "--tenant", "acme", "--subnet", "10.1.0.0/24", "--subnet", "fd00:1::/64")
	works := map[string]*machine{}
	place := func(name, ip string, on *machine) {
		t.Helper()
		w := addMachine(t, name)
		works[name] = w
		one.must(t, "port", "create", name, "--tenant", "acme", "--network", "blue", "--ip", "10.1.0."+ip, "--ip", "fd00:1::"+ip)
		on.must(t, "port", "attach", name, "--tenant", "acme", "--netns", w.name)
		eventually(t, name+" is active", func() (bool, string) {
			out := one.must(t, "port", "show", name, "--tenant", "acme")
			return strings.Contains(out, "active"), out
		})
	}
	place("w1", "11", one)
	place("w2", "12", one)
	reaches(t, works["w1"].ns, netip.MustParseAddr("10.1.0.12"))
	reaches(t, works["w2"].ns, netip.MustParseAddr("fd00:1::11"))

	token := strings.TrimSpace(one.must(t, "host", "token", "create", "up2"))
	agent := two.start(t, "agent", "--name", "up2", "--server", "192.0.2.1:7348", "--token", token, "--dir", filepath.Join(two.dir, "agent"),
		"--socket", two.agentSocket(), "--instance", two.name, "--pin-root", two.pins())
	ready("up2")
	place("w3", "13", two)
	for _, dst := range []string{"10.1.0.11", "10.1.0.12", "fd00:1::11", "fd00:1::12"} {
		reaches(t, works["w3"].ns, netip.MustParseAddr(dst))
	}
	reaches(t, works["w1"].ns, netip.MustParseAddr("10.1.0.13"))
	exchange(t, works["w1"].ns, works["w3"].ns, netip.MustParseAddr("fd00:1::13"), 20)

	two.must(t, "port", "detach", "w3", "--tenant", "acme")
	one.must(t, "port", "detach", "w1", "--tenant", "acme")
	one.must(t, "port", "detach", "w2", "--tenant", "acme")
	for name := range works {
		one.must(t, "port", "delete", name, "--tenant", "acme")
	}
	one.must(t, "network", "delete", "blue", "--tenant", "acme")
	one.must(t, "tenant", "delete", "acme")
	for name, w := range works {
		if _, err := w.ns.LinkByName("eth0"); !errors.Is(err, netdev.ErrNotFound) {
			t.Errorf("%s has its interface still: %v", name, err)
		}
	}
	for _, m := range []*machine{one, two} {
		eventually(t, "no port's interface is left on "+m.name, func() (bool, string) {
			links, err := m.ns.Owned(m.name)
			var ports []string
			for _, l := range links {
				if l.Kind == "veth" && !strings.HasPrefix(l.Name, "weft-") {
					ports = append(ports, l.Name)
				}
			}
			return err == nil && len(ports) == 0, fmt.Sprint(ports, err)
		})
	}
	agent.stop(t)
	one.must(t, "host", "remove", "up2")
	up.stop(t)
	for _, socket := range []string{one.serverSocket(), one.agentSocket(), two.agentSocket()} {
		if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket %s is left: %v", socket, err)
		}
	}
}

// TestUnits: systemd takes the units, and every command and flag that they name exists.
// Goes red when a unit names a command, flag or key that is not there.
func TestUnits(t *testing.T) {
	testenv.Require(t, testenv.Root)
	units, err := filepath.Glob("../../packaging/systemd/*.service")
	if err != nil || len(units) < 3 {
		t.Fatalf("found the units %v: %v", units, err)
	}
	bin := weft(t)
	dir := t.TempDir()
	var copies []string
	for _, u := range units {
		b, err := os.ReadFile(u)
		if err != nil {
			t.Fatal(err)
		}
		execs := 0
		for _, line := range strings.Split(string(b), "\n") {
			command, ok := strings.CutPrefix(line, "ExecStart=/usr/local/bin/weft ")
			if !ok {
				continue
			}
			execs++
			args := strings.Fields(command)
			help := exec.Command(bin, args[0], "--help")
			r := finish(t, help, (*exec.Cmd).Start)
			if r.status != 0 || !strings.Contains(r.out, "weft "+args[0]) {
				t.Errorf("%s starts weft %s, which does not exist: status %d", u, args[0], r.status)
			}
			for _, a := range args[1:] {
				if name, _, _ := strings.Cut(a, "="); strings.HasPrefix(a, "--") && !strings.Contains(r.out, name+" ") {
					t.Errorf("%s gives weft %s the flag %s, which does not exist", u, args[0], name)
				}
			}
		}
		if execs != 1 {
			t.Errorf("%s starts weft %d times", u, execs)
		}
		// systemd looks whether the program is there.
		path := filepath.Join(dir, filepath.Base(u))
		if err := os.WriteFile(path, bytes.ReplaceAll(b, []byte("/usr/local/bin/weft"), []byte(bin)), 0o644); err != nil {
			t.Fatal(err)
		}
		copies = append(copies, path)
	}
	verify := exec.Command(testenv.RequireTool(t, "systemd-analyze"), append([]string{"verify", "--man=no", "--recursive-errors=no"}, copies...)...)
	verify.Env = clean("SYSTEMD_LOG_LEVEL=warning", "SYSTEMD_LOG_TARGET=console")
	ctx, cancel := context.WithTimeout(context.Background(), inTime)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = verify.Process.Kill() })
	defer stop()
	if r := finish(t, verify, (*exec.Cmd).Start); r.status != 0 || strings.TrimSpace(r.err) != "" {
		t.Errorf("systemd-analyze verify: status %d\n%s%s", r.status, r.out, r.err)
	}
}
