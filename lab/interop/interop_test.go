package interop

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/lab/probe"
)

var (
	all     = flag.Bool("interop.all", false, "every cell of the matrix, not only some")
	logFile = flag.String("interop.log", "", "file to write the matrix to")
	commit  = flag.String("interop.commit", "unknown", "commit that is tested, for the log")
)

var built struct {
	once sync.Once
	dir  string
	path string
	err  error
}

// weft is the path of the program under test: WEFT_BIN, or built once.
func weft(t testing.TB) string {
	t.Helper()
	built.once.Do(func() {
		if built.path = os.Getenv("WEFT_BIN"); built.path != "" {
			return
		}
		if built.dir, built.err = os.MkdirTemp("", "weftiop-"); built.err != nil {
			return
		}
		built.path = filepath.Join(built.dir, "weft")
		out, err := exec.Command("go", "build", "-o", built.path, "github.com/weftnet/weft/cmd/weft").CombinedOutput()
		if err != nil {
			built.err = fmt.Errorf("build weft: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}

func TestMain(m *testing.M) {
	status := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(status)
}

// cell is a square of the matrix: VTEPs 1 and 3 are of the first make, VTEP 2 of the second.
type cell struct {
	one, two maker
	flood    flood
}

func (c cell) String() string { return fmt.Sprintf("%s × %s, %s", c.one.name, c.two.name, c.flood) }

var floods = []flood{
	{}, {six: true},
	{group: netip.MustParseAddr("239.9.9.9")}, {six: true, group: netip.MustParseAddr("ff05::9:9")},
}

func cells() (list []cell) {
	for _, f := range floods {
		for _, one := range makes {
			for _, two := range makes {
				if !f.group.IsValid() || one.multicast && two.multicast {
					list = append(list, cell{one, two, f})
				}
			}
		}
	}
	return list
}

// quick are the cells of `make test`: weft with each make, each method and each family once at least.
func quick(c cell) bool {
	pair := c.one.name + " " + c.two.name
	switch c.flood.String() {
	case "unicast IPv4":
		return pair == "weft Open vSwitch" || pair == "Linux vxlan weft"
	case "unicast IPv6":
		return pair == "Open vSwitch weft" || pair == "weft weft"
	case "multicast IPv4":
		return pair == "weft Linux vxlan"
	}
	return pair == "weft weft"
}

// TestInterop turns red for every cell with weft in it when `weft vtep` floods no unknown unicast (vtep.networkOf's UNKNOWN_UNICAST_FLOOD), or
// accepts nothing from remotes (agent.wantAccepts without the externals). The cells without weft are controls.
func TestInterop(t *testing.T) {
	var table []string
	began := time.Now()
	for _, c := range cells() {
		if !*all && !quick(c) {
			continue
		}
		said := "skipped"
		ok := t.Run(c.String(), func(t *testing.T) { said = c.try(t) })
		if !ok {
			said = "FAILED " + said
		}
		table = append(table, fmt.Sprintf("%-13s %-13s %-15s %s", c.one.name, c.two.name, c.flood, said))
	}
	head := []string{fmt.Sprintf("%-13s %-13s %-15s %s", "VTEPs 1 and 3", "VTEP 2", "floods", "ping, TCP, a MAC that moves 1 -> 2 -> 3 -> 1: from silence to an answer at every other VTEP")}
	text := strings.Join(append(head, table...), "\n") + "\n"
	t.Log("\n" + text)
	if *logFile != "" {
		var u unix.Utsname
		must(t, unix.Uname(&u))
		first := fmt.Sprintf("commit %s, %s, Linux %s, %s, %d cells in %s\n\n", *commit, began.UTC().Format(time.DateOnly), unix.ByteSliceToString(u.Release[:]),
			ovsVersion(), len(table), time.Since(began).Round(time.Second))
		must(t, os.WriteFile(*logFile, []byte(first+text), 0o644))
	}
}

func ovsVersion() string {
	out, err := exec.Command("ovs-vswitchd", "--version").Output()
	if err != nil {
		return "no Open vSwitch"
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}

// try builds the cell and puts it to the test. It says what came of it.
func (c cell) try(t *testing.T) string {
	b := newBed(t)
	for i, v := range b.vteps {
		m := []maker{c.one, c.two, c.one}[i]
		m.build(t, b, v, c.flood)
	}
	said := "building"
	defer func() {
		if t.Failed() {
			t.Logf("it failed at: %s", said)
		}
	}()
	for _, from := range b.vteps {
		for _, to := range b.vteps {
			if from == to {
				continue
			}
			said = fmt.Sprintf("ping from %d to %d", from.number, to.number)
			answered(t, said, from, to.ip())
		}
	}
	said = "TCP"
	for _, way := range [][2]*vtep{{b.vteps[0], b.vteps[1]}, {b.vteps[1], b.vteps[2]}} {
		carry(t, way[0], way[1])
	}
	var longest time.Duration
	at := b.vteps[0]
	must(t, at.moves.SetUp("eth0"))
	for _, v := range b.vteps {
		answered(t, "before the move, ping of the MAC that moves", v, movingIP)
	}
	for _, next := range []*vtep{b.vteps[1], b.vteps[2], b.vteps[0]} {
		said = fmt.Sprintf("a MAC moves from %d to %d", at.number, next.number)
		longest = max(longest, c.move(t, b, at, next, said))
		at = next
	}
	return fmt.Sprintf("passed, TCP too; moved within %s", longest.Round(time.Millisecond))
}

// move moves the MAC and waits for it to be reached from everywhere. It speaks first, as a machine does that was moved.
func (c cell) move(t *testing.T, b *bed, from, to *vtep, said string) time.Duration {
	t.Helper()
	must(t, from.moves.SetDown("eth0"))
	must(t, to.moves.SetUp("eth0"))
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, v := range b.vteps {
		if err := probe.PingUntil(ctx, to.moves, v.ip()); err != nil {
			t.Fatalf("%s: from it to workload %d: %v", said, v.number, err)
		}
	}
	took := time.Since(began)
	for _, v := range slices.Backward(b.vteps) {
		answered(t, said+", then ping of it", v, movingIP)
	}
	return took
}

// carry wants a TCP connection to carry all of some octets, to the last.
func carry(t *testing.T, from, to *vtep) {
	t.Helper()
	const octets = 2 << 20
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	l, err := to.stays.Listen(ctx, "tcp", netip.AddrPortFrom(to.ip(), 0).String())
	must(t, err)
	defer l.Close()
	out, err := from.stays.Dial(ctx, &net.Dialer{}, "tcp", l.Addr().String())
	if err != nil {
		t.Fatalf("TCP from %d to %d: %v", from.number, to.number, err)
	}
	defer out.Close()
	in, err := l.Accept()
	must(t, err)
	defer in.Close()
	defer context.AfterFunc(ctx, func() { in.Close(); out.Close() })()
	sent := make(chan error, 1)
	go func() {
		_, err := out.Write(make([]byte, octets))
		sent <- errors.Join(err, out.(*net.TCPConn).CloseWrite())
	}()
	n, err := io.Copy(io.Discard, in)
	if err != nil {
		out.Close()
	}
	if err := errors.Join(err, <-sent); err != nil || n != octets {
		t.Fatalf("TCP from %d to %d carried %d of %d octets: %v", from.number, to.number, n, octets, err)
	}
}

// answered wants a ping to be answered, and then three more of three, once each.
func answered(t *testing.T, said string, from *vtep, to netip.Addr) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := probe.PingUntil(ctx, from.stays, to); err != nil {
		t.Fatalf("%s: from workload %d: %v", said, from.number, err)
	}
	if r, err := probe.Ping(ctx, from.stays, to, probe.PingConfig{Count: 3}); err != nil || !r.Complete() {
		t.Fatalf("%s: from workload %d: %+v, %v", said, from.number, r, err)
	}
}
