package qemu

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/internal/testenv"
	"github.com/weftnet/weft/lab/guest"
	"github.com/weftnet/weft/lab/probe"
	"github.com/weftnet/weft/wire"
)

// patience is how long a machine may take to boot, or to move, in software emulation on a busy machine.
const patience = 2 * time.Minute

func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// undo is what there is to take away, should the run be interrupted.
var undo struct {
	sync.Mutex
	list []func()
}

// atEnd has something undone when the test ends, or when the run is interrupted. The last comes first.
func atEnd(t *testing.T, f func()) {
	once := sync.OnceFunc(f)
	undo.Lock()
	undo.list = append(undo.list, once)
	undo.Unlock()
	t.Cleanup(once)
}

func TestMain(m *testing.M) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		<-signals
		undo.Lock()
		for _, f := range slices.Backward(undo.list) {
			f()
		}
		os.Exit(1)
	}()
	os.Exit(m.Run())
}

// bench is two hosts and a workload, joined by bridges: what weft is not needed for.
//
//	host0 br0 --- up | br0 | up --- br0 host1
//	       tap0        |  switch        tap0
//	                  eth0 workload
type bench struct {
	dir      string
	hosts    [2]*netdev.Handle
	workload *netdev.Handle
}

var (
	hostAddrs   = [2]netip.Prefix{netip.MustParsePrefix("10.9.1.1/24"), netip.MustParsePrefix("10.9.1.2/24")}
	workloadIP  = netip.MustParsePrefix("10.9.0.1/24")
	guestIP     = netip.MustParsePrefix("10.9.0.2/24")
	guestMAC    = wire.MAC{2, 0, 0, 0, 9, 2}
	guestMTU    = 1400
	interval    = 10 * time.Millisecond
	echoPort    = 7000
	numbersPort = 7001
)

func newBench(t *testing.T) *bench {
	t.Helper()
	testenv.Require(t, testenv.Root)
	b := &bench{dir: t.TempDir()}
	open := func(suffix string) *netdev.Handle {
		name := fmt.Sprintf("wefttest-qemu-%d-%s", os.Getpid(), suffix)
		ok(t, netdev.CreateNamespace(name))
		atEnd(t, func() { netdev.DeleteNamespace(name) })
		h, err := netdev.OpenName(name)
		ok(t, err)
		t.Cleanup(h.Close)
		return h
	}
	middle := open("switch")
	ok(t, middle.AddBridge("br0", 1500))
	ok(t, middle.SetUp("br0"))
	join := func(to *netdev.Handle, name, far string, addr ...netip.Prefix) {
		_, _, err := middle.EnsureVeth(netdev.Veth{Name: name, Peer: netdev.VethPeer{Namespace: to, Name: far, Addresses: addr}})
		ok(t, err)
		ok(t, middle.SetMaster(name, "br0"))
	}
	for i := range b.hosts {
		h := open(fmt.Sprintf("host%d", i))
		join(h, fmt.Sprintf("host%d", i), "up")
		ok(t, h.AddBridge("br0", 1500))
		ok(t, h.SetUp("br0"))
		ok(t, h.SetMaster("up", "br0"))
		ok(t, h.AddAddress("br0", hostAddrs[i]))
		ok(t, h.AddTAP("tap0"))
		ok(t, h.SetMaster("tap0", "br0"))
		ok(t, h.SetUp("tap0"))
		b.hosts[i] = h
	}
	b.workload = open("workload")
	join(b.workload, "workload", "eth0", workloadIP)
	return b
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// machine is a running QEMU.
type machine struct {
	Machine
	*Monitor
	cmd *exec.Cmd
}

// start runs a machine on a host, and ends it with the test.
func (b *bench) start(t *testing.T, host int, m Machine) *machine {
	t.Helper()
	var err error
	m.Dir, err = os.MkdirTemp(b.dir, "vm")
	ok(t, err)
	m.TAP, m.MAC, m.MTU, m.Addresses = "tap0", guestMAC, guestMTU, []string{guestIP.String()}
	args := m.Args()
	cmd := exec.Command(testenv.RequireTool(t, args[0]), args[1:]...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	ok(t, b.hosts[host].Start(cmd))
	atEnd(t, func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	t.Cleanup(func() {
		if console, _ := os.ReadFile(m.Console()); t.Failed() {
			t.Logf("machine on host %d: QEMU said %q, its console:\n%s", host, said.String(), console)
		}
	})
	mon, err := Dial(limited(t), m.MonitorSocket())
	ok(t, err)
	t.Cleanup(mon.Close)
	return &machine{Machine: m, Monitor: mon, cmd: cmd}
}

// image builds what the guests of a test run.
func (b *bench) image(t *testing.T) Machine {
	t.Helper()
	k, err := FindKernel(DefaultKernel)
	if err != nil {
		testenv.Missing(t, testenv.Peers, err.Error())
	}
	weft := os.Getenv("WEFT_BIN")
	if weft == "" {
		weft = filepath.Join(b.dir, "weft")
		cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", weft, "github.com/weftnet/weft/cmd/weft")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build weft: %v\n%s", err, out)
		}
	}
	image := filepath.Join(b.dir, "image")
	ok(t, k.WriteImage(image, weft, testenv.RequireTool(t, "busybox")))
	return Machine{Kernel: k.File(), Image: image, SharedMemory: filepath.Join(b.dir, "memory")}
}

func (m *machine) ask(t *testing.T, r guest.Request) guest.Report {
	t.Helper()
	got, err := guest.Ask(limited(t), m.ControlSocket(), r)
	ok(t, err)
	return got
}

// TestMigrateKeepsTheGuest: a stock kernel boots with the MTU it is told, and goes to another QEMU while it sends, receives and answers; both
// TCP connections and both streams go on there. Goes red when Args leaves host_mtu out, or when Migrate does not ask the source
// how it ended.
func TestMigrateKeepsTheGuest(t *testing.T) {
	b := newBench(t)
	testenv.RequireTool(t, Program)
	spec := b.image(t)
	a := b.start(t, 0, spec)
	if got := a.ask(t, guest.Request{Do: guest.Echo, Port: echoPort}); got.MTU != guestMTU {
		t.Errorf("the guest has an MTU of %d, not %d", got.MTU, guestMTU)
	}
	ok(t, probe.PingUntil(limited(t), b.workload, guestIP.Addr()))
	e, err := probe.StartEcho(t.Context(), b.workload, echoPort)
	ok(t, err)
	defer e.Close()
	s, err := probe.StartSession(limited(t), b.workload, guestIP.Addr(), echoPort, interval)
	ok(t, err)
	tag := probe.NewSequenceTag()
	in, err := probe.StartSequenceReceiver(t.Context(), b.workload, false, numbersPort, tag)
	ok(t, err)
	out, err := probe.StartSequenceSender(t.Context(), b.workload, netip.AddrPortFrom(guestIP.Addr(), uint16(numbersPort)), 1000, tag)
	ok(t, err)
	a.ask(t, guest.Request{Do: guest.Session, Name: "s", Address: netip.AddrPortFrom(workloadIP.Addr(), uint16(echoPort)), Interval: interval})
	a.ask(t, guest.Request{Do: guest.Receive, Name: "q", Port: numbersPort, Tag: tag})
	a.ask(t, guest.Request{Do: guest.Send, Name: "q", Address: netip.AddrPortFrom(workloadIP.Addr(), uint16(numbersPort)), Rate: 1000, Tag: tag})
	goesOn := func(m *machine, where string) {
		t.Helper()
		inside, outside, there := m.ask(t, guest.Request{Do: guest.Tell}), in.Result(), s.Result()
		until(t, "all four go on "+where, func() bool {
			now := m.ask(t, guest.Request{Do: guest.Tell})
			return now.Receivers["q"].Received > inside.Receivers["q"].Received+200 && now.Sessions["s"].Exchanges > inside.Sessions["s"].Exchanges+20 &&
				in.Result().Received > outside.Received+200 && s.Result().Exchanges > there.Exchanges+20
		})
	}
	goesOn(a, "on the first host")
	a.ask(t, guest.Request{Do: guest.Forget})
	in.Forget()

	spec.Incoming = true
	c := b.start(t, 1, spec)
	at, err := Listen(limited(t), c.Monitor, hostAddrs[1].Addr())
	ok(t, err)
	told := false
	m, err := Migrate(limited(t), a.Monitor, c.Monitor, at, func() error { told = true; return nil })
	ok(t, err)
	if !told || m.Stopped.IsZero() || !m.Resumed.After(m.Stopped) || m.Octets == 0 {
		t.Errorf("told %t: %+v", told, m)
	}
	ok(t, a.Execute(limited(t), "quit", nil, nil))
	goesOn(c, "on the second host")
	c.ask(t, guest.Request{Do: guest.Stop, Name: "q"})
	out.Stop()
	in.Drain()
	last, got := c.ask(t, guest.Request{Do: guest.Tell}), in.Stop()
	t.Logf("downtime %s, stopped for %s, in all %s, %d octets; to the guest: %+v; from it: %+v; its session: %+v", m.Downtime, m.Resumed.Sub(m.Stopped),
		m.Total, m.Octets, last.Receivers["q"], got, last.Sessions["s"])
	if r := s.Stop(); r.Err != nil || last.Sessions["s"].Error != "" {
		t.Errorf("a TCP connection ended: %v, %s", r.Err, last.Sessions["s"].Error)
	}
	if got.Duplicated+last.Receivers["q"].Duplicated > 0 {
		t.Error("datagrams came twice")
	}
}

// TestMigrateTellsWhyNot: a machine that cannot go says so, and runs on. Goes red when Migrate
// waits for the target's resumption alone.
func TestMigrateTellsWhyNot(t *testing.T) {
	b := newBench(t)
	testenv.RequireTool(t, Program)
	spec := b.image(t)
	a := b.start(t, 0, spec)
	a.ask(t, guest.Request{Do: guest.Tell})
	other := spec
	other.Incoming, other.Memory, other.SharedMemory = true, 256, filepath.Join(b.dir, "other")
	c := b.start(t, 1, other)
	at, err := Listen(limited(t), c.Monitor, hostAddrs[1].Addr())
	ok(t, err)
	if _, err = Migrate(limited(t), a.Monitor, c.Monitor, at, nil); err == nil || !strings.Contains(err.Error(), "migrat") && !strings.Contains(err.Error(), "ended") {
		t.Errorf("a machine of 192 MiB went to one of 256: %v", err)
	}
	a.ask(t, guest.Request{Do: guest.Tell})
	ok(t, probe.PingUntil(limited(t), b.workload, guestIP.Addr()))
}

func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	ctx := limited(t)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-ctx.Done():
			t.Fatalf("not in time: %s", what)
		case <-tick.C:
		}
	}
}
