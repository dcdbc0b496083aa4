package agent

import (
	"bufio"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/plan"
	"github.com/weftnet/weft/wire"
)

// world is what a story tells a host "h1": the plan as resources, the interfaces that are attached, and the kernel.
type world struct {
	t      testing.TB
	kernel *fakeKernel
	rec    *Reconciler
	set    *plan.Set
	locals map[string]local
	step   []*plan.Resource
	gone   []*plan.Resource
	rev    int64
}

var thisEnd = datapath.Local{Addr4: netip.MustParseAddr("192.0.2.1"), UDPPort: 4789, UplinkMTU: 1500}

func newWorld(t testing.TB) *world {
	w := &world{t: t, kernel: newFakeKernel(), set: plan.NewSet(), locals: map[string]local{}}
	w.restart(nil)
	return w
}

// restart is a new agent with the plan (or none) and the attachments of the old one, on the same kernel.
func (w *world) restart(epochs map[string]int64) {
	w.rec = NewReconciler(w.kernel, "h1", thisEnd, slog.New(slog.DiscardHandler))
	maps.Copy(w.rec.view.epochs, epochs)
	w.rec.Take(slices.Collect(w.set.All()), nil)
	if err := w.rec.Load(); err != nil {
		w.t.Fatal(err)
	}
	for uid, l := range w.locals {
		w.rec.SetAttached(uid, &l)
	}
}

func (w *world) put(r *plan.Resource) {
	if w.set.Put(r) {
		w.step = append(w.step, r)
	}
}

// flush applies what was told since the last one.
func (w *world) flush() {
	w.rec.Take(w.step, w.gone)
	w.step, w.gone = nil, nil
	w.rec.Flush()
}

// tell does one line of a story.
func (w *world) tell(line string) {
	w.t.Helper()
	f := strings.Fields(line)
	arg := func(name string) string {
		if i := slices.Index(f, name); i >= 0 && i+1 < len(f) {
			return f[i+1]
		}
		return ""
	}
	list := func(name string) []string {
		if s := arg(name); s != "" {
			return strings.Split(s, ",")
		}
		return nil
	}
	num := func(name string) int64 {
		n, _ := strconv.ParseInt(arg(name), 10, 64)
		return n
	}
	w.rev++
	switch f[0] {
	case "host":
		w.put(plan.NewHost(w.rev, &planv1.Host{Uid: "h1", Name: "h1", Vtep: "h1"}))
	case "vtep":
		a := netip.MustParseAddr(f[2])
		w.put(plan.NewVTEP(w.rev, &planv1.Vtep{Uid: f[1], Addresses: [][]byte{a.AsSlice()}, UdpPort: 4789, External: arg("external") != "",
			OuterChecksum: arg("checksum") == "yes"}))
	case "network":
		n := &planv1.Network{Uid: f[1], Vni: uint32(num("vni")), Mtu: 1450, Display: "acme/" + f[1], DscpUniform: arg("dscp") == "uniform",
			BumLimit: uint32(num("bum"))}
		if arg("neighbours") == "flood" {
			n.Neighbours = planv1.Neighbours_NEIGHBOURS_FLOOD
		}
		w.members(f[1], list("members"))
		for _, e := range list("external") {
			name, mac, _ := strings.Cut(e, "=")
			ext := &planv1.ExternalVtep{Vtep: name}
			if mac != "" {
				ext.Macs = macsOf(w.t, []string{mac})
			}
			n.External = append(n.External, ext)
		}
		w.put(plan.NewNetwork(w.rev, n, list("requires")...))
	case "port":
		var pairs []*planv1.AddressPair
		for _, s := range list("pair") {
			m, ip, _ := strings.Cut(s, "=")
			pairs = append(pairs, &planv1.AddressPair{Mac: macsOf(w.t, []string{m})[0], Ip: ip})
		}
		w.put(plan.NewPort(w.rev, &planv1.Port{
			Ips: list("ip"), AllowedAddressPairs: pairs, Forwarding: arg("forwarding") == "yes", BumLimit: uint32(num("bum")),
			Uid: f[1], Network: arg("in"), Macs: macsOf(w.t, list("mac")), Epoch: num("epoch"),
			Active: arg("at"), Vtep: arg("at"), Incoming: arg("incoming"), Draining: arg("draining"), TenantName: "acme", Name: f[1],
		}))
	case "remove":
		kind := map[string]planv1.Kind{"port": planv1.Kind_KIND_PORT, "network": planv1.Kind_KIND_NETWORK, "vtep": planv1.Kind_KIND_VTEP}[f[1]]
		if r := w.set.Remove(plan.Key{Kind: kind, UID: f[2]}); r != nil {
			w.gone = append(w.gone, r)
		}
	case "attach":
		l := local{ifindex: uint32(num("if")), peer: true, tells: arg("commits") == "first-frame"}
		w.locals[f[1]] = l
		w.rec.SetAttached(f[1], &l)
	case "detach":
		delete(w.locals, f[1])
		w.rec.SetAttached(f[1], nil)
	case "flush":
		w.flush()
	case "restart":
		w.restart(nil)
	case "limit":
		w.kernel.fdbLimit, w.kernel.neighbourLimit = int(num("fdb")), int(num("neighbours"))
	default:
		w.t.Fatalf("story: %q", line)
	}
}

// members gives a network these members, whatever ports the story has there.
func (w *world) members(network string, hosts []string) {
	for _, r := range slices.Collect(w.set.Scope(plan.NetworkScope(network))) {
		if name, of, _ := strings.Cut(r.UID, " in "); of == network && !slices.Contains(hosts, name) {
			w.gone = append(w.gone, w.set.Remove(r.Key()))
		}
	}
	for _, host := range hosts {
		w.put(memberOf(network, host))
	}
}

// memberOf is a port that makes a host a member, and has no entry in any table.
func memberOf(network, host string) *plan.Resource {
	last := host[len(host)-1]
	return plan.NewPort(1, &planv1.Port{Uid: host + " in " + network, Network: network, Macs: [][]byte{{2, 0xff, 0, 0, 0, 1}}, Epoch: 1, Draining: host,
		Ips: []string{fmt.Sprintf("192.0.2.%d/24", last), fmt.Sprintf("2001:db8::%d/64", last)}})
}

func macsOf(t testing.TB, list []string) [][]byte {
	var out [][]byte
	for _, s := range list {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, []byte{0x02, 0, 0, 0, byte(n >> 8), byte(n)})
	}
	return out
}

func (w *world) errors() string {
	var b strings.Builder
	for _, e := range w.rec.Errors() {
		fmt.Fprintf(&b, "error %s %s: %s\n", plan.KindName(e.Kind), e.Uid, e.Message)
	}
	return b.String()
}

func (w *world) check() {
	w.t.Helper()
	for _, s := range w.kernel.unsafe {
		w.t.Errorf("unsafe order: %s", s)
	}
}

// story is a file of testdata/stories: lines to tell, and after "expect" the tables that must be there, up to an empty line.
type story struct {
	name   string
	lines  []string
	expect map[int]string // before which line
}

func stories(t *testing.T) []story {
	files, err := filepath.Glob("testdata/stories/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	var list []story
	for _, path := range files {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		s := story{name: strings.TrimSuffix(filepath.Base(path), ".txt"), expect: map[int]string{}}
		expecting := false
		for sc := bufio.NewScanner(f); sc.Scan(); {
			line, _, _ := strings.Cut(sc.Text(), "#")
			line = strings.TrimSpace(line)
			switch {
			case line == "":
				expecting = false
			case line == "expect":
				expecting = true
				s.expect[len(s.lines)] = ""
			case expecting:
				s.expect[len(s.lines)] += line + "\n"
			default:
				s.lines = append(s.lines, line)
			}
		}
		f.Close()
		list = append(list, s)
	}
	return list
}

// TestStories turns red when a table is not what the story says, when a write comes in an unsafe order, or when doing it
// all again writes anything.
func TestStories(t *testing.T) {
	for _, s := range stories(t) {
		t.Run(s.name, func(t *testing.T) {
			w := newWorld(t)
			for i := 0; i <= len(s.lines); i++ {
				if want, ok := s.expect[i]; ok {
					if got := sortLines(w.kernel.String() + w.errors()); got != sortLines(want) {
						t.Errorf("after %q:\n%s\nwant:\n%s", s.lines[:i], got, want)
					}
				}
				if i < len(s.lines) {
					w.tell(s.lines[i])
				}
			}
			w.flush()
			before := w.kernel.writes
			w.rec.dirty.all = true
			w.flush()
			if n := w.kernel.writes - before; n != 0 && len(w.rec.Errors()) == 0 {
				t.Errorf("applying again wrote %d times", n)
			}
			w.restart(nil)
			w.flush()
			if n := w.kernel.writes - before; n != 0 && len(w.rec.Errors()) == 0 {
				t.Errorf("a restarted agent wrote %d times, though nothing had changed", n)
			}
			w.check()
		})
	}
}

func sortLines(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// TestCrashAnywhere turns red when an agent that dies between two writes leaves something that its successor, which
// remembers plan and attachments alone, does not put right; or when any order on the way is unsafe.
func TestCrashAnywhere(t *testing.T) {
	for _, s := range stories(t) {
		if strings.Contains(strings.Join(s.lines, "\n"), "limit") {
			continue // what fits in a full table depends on what came first
		}
		t.Run(s.name, func(t *testing.T) {
			calm := newWorld(t)
			for _, line := range s.lines {
				calm.tell(line)
			}
			calm.flush()
			for at := 1; at <= calm.kernel.writes; at++ {
				w := newWorld(t)
				w.kernel.crashAt = at
				for _, line := range s.lines {
					w.surviving(func() { w.tell(line) })
				}
				w.surviving(w.flush)
				w.flush()
				if got, want := forms(w), forms(calm); got != want {
					t.Fatalf("after a crash at write %d:\n%s\nwant:\n%s", at, got, want)
				}
				w.check()
			}
		})
	}
}

// surviving runs f; if the agent dies in it, another takes over.
func (w *world) surviving(f func()) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(crashed); !ok {
				panic(r)
			}
			w.kernel.crashAt = 0
			w.step, w.gone = nil, nil
			w.restart(nil)
			w.rec.Flush()
		}
	}()
	f()
}

// forms is the kernel with VTEP and port ids replaced by what they stand for: numbering depends on history.
func forms(w *world) string {
	k := newFakeKernel()
	*k = *w.kernel
	s := k.String()
	var out []string
	for _, line := range strings.Split(s, "\n") {
		f := strings.Fields(line)
		for i := 1; i < len(f); i++ {
			switch f[i-1] {
			case "vtep":
				id, _ := strconv.Atoi(f[i])
				f[i] = k.vteps[datapath.VTEPID(id)].Addr.String()
			case "id":
				f[i] = "*"
			}
		}
		if len(f) > 0 && f[0] == "net" {
			vni, _ := strconv.Atoi(f[1])
			n := k.nets[wire.VNI(vni)]
			var remotes []string
			for _, id := range n.Remotes {
				remotes = append(remotes, k.vteps[id].Addr.String())
			}
			slices.Sort(remotes)
			f = append(f[:6], fmt.Sprint(remotes), fmt.Sprint(n.External)+settings(n))
		}
		out = append(out, strings.Join(f, " "))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// TestNeighbourThatStays: an address whose entry could not be deleted is an error until it is gone, whatever is written meanwhile. Red when putNeighbours
// forgets every failure that nobody claims.
func TestNeighbourThatStays(t *testing.T) {
	w := newWorld(t)
	w.tell("host")
	portIn := func(uid, network string, last byte) *plan.Resource {
		return plan.NewPort(1, &planv1.Port{Uid: uid, Network: network, Epoch: 1, Active: "h2", Vtep: "h2", TenantName: "acme", Name: uid,
			Macs: [][]byte{{2, 0, 0, 0, 0, last}}, Ips: []string{fmt.Sprintf("10.0.0.%d/24", last)}})
	}
	w.put(plan.NewVTEP(1, &planv1.Vtep{Uid: "h2", Addresses: [][]byte{{198, 18, 0, 2}}, UdpPort: 4789}))
	for i, network := range []string{"n1", "n2"} {
		w.put(plan.NewNetwork(1, &planv1.Network{Uid: network, Vni: uint32(5000 + i), Mtu: 1450}))
	}
	gone := portIn("p1", "n1", 1)
	w.put(gone)
	w.flush()
	if len(w.kernel.neighbours) != 1 {
		t.Fatalf("the kernel holds %v", w.kernel.neighbours)
	}
	w.kernel.keepsNeighbours = true
	w.gone = append(w.gone, w.set.Remove(gone.Key()))
	w.flush()
	w.put(portIn("p2", "n2", 2)) // somebody else
	w.flush()
	if errs := w.rec.Errors(); !strings.Contains(fmt.Sprint(errs), "neighbour table, address 10.0.0.1") {
		t.Errorf("errors: %v", errs)
	}
	w.kernel.keepsNeighbours = false
	w.rec.Retry()
	w.rec.Flush()
	if errs := w.rec.Errors(); len(errs) != 0 || len(w.kernel.neighbours) != 1 {
		t.Errorf("errors %v, and the kernel holds %v", errs, w.kernel.neighbours)
	}
}
