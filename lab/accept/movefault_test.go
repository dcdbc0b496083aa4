package accept_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/client"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/lab"
	"github.com/weftnet/weft/lab/probe"
)

var moveFaults = flag.String("movefaults", "", "file that TestMoveFaults writes its table to, of all cases (make soak)")

// fault is something that is done to a move between two hosts.
type fault struct {
	name     string
	do, heal func(f *fixture, source, target string) error
	// shown is how somebody notices; until then it is not healed.
	shown func(t *testing.T, f *fixture, source, target string) (bool, string)
}

func end(which, source, target string) string {
	if which == "source" {
		return source
	}
	return target
}

func killAgent(which string) fault {
	return fault{which + "'s agent killed",
		func(f *fixture, s, t string) error { return f.KillAgent(context.Background(), end(which, s, t)) },
		func(f *fixture, s, t string) error { return f.StartAgent(end(which, s, t)) },
		func(t *testing.T, f *fixture, s, g string) (bool, string) {
			h, err := f.api(t).Hosts.GetHost(limited(t), connect.NewRequest(&weftv1.GetHostRequest{Name: end(which, s, g)}))
			if err != nil {
				return false, err.Error()
			}
			return h.Msg.GetStatus().GetState() == weftv1.HostState_HOST_STATE_UNREACHABLE, h.Msg.GetStatus().GetState().String()
		}}
}

func cutOff(which string) fault {
	return fault{which + " cut off",
		func(f *fixture, s, t string) error {
			return errors.Join(f.Cut(end(which, s, t)), f.CutUnderlay(end(which, s, t)))
		},
		func(f *fixture, s, t string) error {
			return errors.Join(f.Heal(end(which, s, t)), f.HealUnderlay(end(which, s, t)))
		},
		func(t *testing.T, f *fixture, s, g string) (bool, string) {
			deaf := f.condition(t, end(which, s, g), "deaf")
			return deaf != "", deaf
		}}
}

var faults = []fault{
	killAgent("target"), killAgent("source"),
	{"server killed", func(f *fixture, _, _ string) error { return f.KillServer(context.Background()) },
		func(f *fixture, _, _ string) error { return f.StartServer(context.Background()) },
		func(t *testing.T, f *fixture, _, _ string) (bool, string) {
			none := f.condition(t, "h3", "no server")
			return none != "", none
		}},
	cutOff("source"), cutOff("target"),
}

// The points of a move at which a fault comes.
const (
	beforePrepare = "before prepare"
	preparing     = "preparing"
	prepared      = "prepared"
	committing    = "while it commits"
	committed     = "just committed"
	draining      = "draining"
	done          = "done"
)

var points = []string{beforePrepare, preparing, prepared, committing, committed, draining, done}

const (
	byEvent   = "event"
	byCommand = "command"
)

// moveCase is a line of the table.
type moveCase struct {
	fault fault
	point string
	cause string
}

func (c moveCase) String() string { return c.fault.name + ", " + c.point + ", by " + c.cause }

// short are the cases of `make test`: each fault, each point, and both causes at least once.
var short = []string{
	"target's agent killed, prepared, by event", "source's agent killed, while it commits, by event", "server killed, just committed, by event",
	"source cut off, draining, by command", "target cut off, preparing, by command", "server killed, before prepare, by command",
}

// TestMoveFaults moves a workload under traffic, does something to the move at one of its points, heals it, and goes on as an operator would: what
// is pending is attached and committed again. Each case must end with the port active on one host, by the API and by all kernels; with no datagram
// delivered twice; with a move that is over and says how; and with traffic both ways.
//
// Red when a drain does not end (Binding.Drained without its assignment).
func TestMoveFaults(t *testing.T) {
	f := ownLab(t, lab.Config{Name: "movefaults"})
	f.tenant(t, "acme")
	f.network(t, "acme", "blue", &weftv1.NetworkSpec{Subnets: []string{"10.1.0.0/24"}})
	far := f.workload(t, lab.WorkloadSpec{Name: "far", Host: "h3", Tenant: "acme", Network: "blue"})
	m := &faulted{t: t, f: f, peers: []*workload{far}}
	var lines []string
	ran := 0
	for _, fl := range faults {
		for _, point := range points {
			for _, cause := range []string{byEvent, byCommand} {
				c := moveCase{fl, point, cause}
				if *moveFaults == "" && !*soak && !slices.Contains(short, c.String()) {
					continue
				}
				ran++
				t.Run(c.String(), func(t *testing.T) { lines = append(lines, m.run(t, c)) })
			}
		}
	}
	if all := len(faults) * len(points) * 2; ran != all && ran != len(short) {
		t.Errorf("%d cases ran, of %d", ran, all)
	}
	if *moveFaults == "" {
		return
	}
	text := fmt.Sprintf("TestMoveFaults, %s, commit %s, %d CPUs, Linux %s, load %s\n%d cases; each: one active host, nothing twice, traffic both ways afterwards: %s\n\n"+
		"fault | at | commit by | ended as | active | longest gap to it | twice | on the way\n%s\n",
		time.Now().UTC().Format(time.RFC3339), *what, runtime.NumCPU(), kernelRelease(), loadAverage(), ran,
		map[bool]string{false: "passed", true: "FAILED"}[t.Failed()], strings.Join(lines, "\n"))
	if err := os.WriteFile(*moveFaults, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// faulted is a workload that is moved between h1 and h2, in one case after the other.
type faulted struct {
	t     *testing.T // of all cases
	f     *fixture
	peers []*workload
	made  int
	port  string
	// host that the port is on, and the workload's interface there.
	host   string
	moving *lab.Moving
	ns     string
	// said are errors on the way, of the case.
	said []string
	// here and there are the workload's interfaces on source and target; before is the epoch of the last move before the case.
	here, there string
	before      int64
}

// fresh makes a new workload, at first and after a case that failed.
func (m *faulted) fresh(t *testing.T) {
	t.Helper()
	m.made++
	m.port = fmt.Sprintf("mover%d", m.made)
	m.host = "h1"
	w := m.f.workloadOf(m.t, lab.WorkloadSpec{Name: m.port, Host: m.host, Tenant: "acme", Network: "blue"})
	m.ns = w.Namespace
	m.moving = &lab.Moving{Place: probe.Place{Netns: w.ns, Addr: w.v4()}, Interface: "eth0"}
	for _, p := range m.peers {
		m.moving.Peers = append(m.moving.Peers, probe.Place{Netns: p.ns, Addr: p.v4()})
	}
	if err := m.moving.Know(); err != nil {
		t.Fatal(err)
	}
	reaches(t, w.ns, m.peers[0].v4())
}

// workloadOf is workload of a test whose port moves: it is taken away wherever it is by then.
func (f *fixture) workloadOf(t *testing.T, spec lab.WorkloadSpec) *workload {
	t.Helper()
	w, err := f.AddWorkload(limited(t), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), inTime)
		defer cancel()
		res, err := f.api(t).Ports.GetPort(ctx, connect.NewRequest(&weftv1.GetPortRequest{Tenant: spec.Tenant, Name: w.Port}))
		if err == nil {
			err = f.PlaceWorkload(spec.Name, res.Msg.GetStatus().GetBinding().GetActive(), "")
		}
		if err := errors.Join(err, f.RemoveWorkload(ctx, spec.Name)); err != nil {
			t.Error(err)
		}
	})
	return &workload{Workload: w, ns: f.node(t, w.Name)}
}

// try does a step, and notes what it said if it failed: with a fault about, steps do.
func (m *faulted) try(what string, patience time.Duration, do func(context.Context) error) bool {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := do(ctx)
	if err != nil {
		m.note(what + ": " + firstLine(client.Explain(err).Error()))
	}
	return err == nil
}

// note notes something, once in a row.
func (m *faulted) note(s string) {
	if len(m.said) == 0 || m.said[len(m.said)-1] != s {
		m.said = append(m.said, s)
	}
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

const (
	// soon is how long a step may take after the fault, which may hold it up; then it is tried again after healing.
	soon       = 3 * time.Second
	faultRate  = 1000
	faultDrain = 10 * time.Second
)

func (m *faulted) run(t *testing.T, c moveCase) string {
	if m.moving == nil {
		m.fresh(t)
	}
	whole := false
	defer func() {
		if !whole || t.Failed() {
			m.moving = nil // the next case has a workload of its own
			t.Logf("on the way: %s", strings.Join(m.said, "; "))
			for _, h := range []string{"h1", "h2", "h3"} {
				t.Logf("%s says:\n%s", h, strings.Join(m.f.says(t, h, "port=acme/"+m.port+" "), "\n"))
			}
		}
	}()
	source, target := m.host, map[string]string{"h1": "h2", "h2": "h1"}[m.host]
	m.said, m.here, m.there, m.before = nil, m.moving.Interface, m.moving.Other(), m.get(t).GetStatus().GetMove().GetEpoch()
	x, err := probe.StartExchange(limited(t), m.moving.Place, m.moving.Peers, faultRate)
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	defer func() {
		if !stopped {
			_, _ = x.Stop()
		}
	}()
	m.move(t, c, x, source, target)
	eventually(t, c.fault.name+" is noticed", func() (bool, string) { return c.fault.shown(t, m.f, source, target) })
	if err := c.fault.heal(m.f, source, target); err != nil {
		t.Fatal(err)
	}
	for _, h := range []string{"h1", "h2", "h3"} {
		m.f.caughtUp(t, h)
	}
	move := m.finish(t, c, x, source, target)
	m.flows(t, x)
	stopped = true
	r, err := x.Stop()
	if err != nil {
		t.Error(err)
	}
	if n := r.In.Duplicated + r.Out.Duplicated; n > 0 {
		t.Errorf("%d datagrams came twice", n)
	}
	m.f.settled(t)
	m.oneActive(t)
	whole = true
	line := fmt.Sprintf("%s | %s | %s | %s | %s (%s) | %s | %d | %s", c.fault.name, c.point, c.cause, ended(move), m.host, map[bool]string{true: "source", false: "target"}[m.host == source],
		r.In.LongestGap.Round(time.Millisecond), r.In.Duplicated+r.Out.Duplicated, strings.Join(m.said, "; "))
	t.Log(line)
	return line
}

func ended(m *weftv1.Move) string {
	if m == nil {
		return "not begun"
	}
	s := strings.ToLower(strings.TrimPrefix(m.GetPhase().String(), "MOVE_PHASE_"))
	if m.GetPhase() == weftv1.MovePhase_MOVE_PHASE_DONE {
		s += " by " + strings.ToLower(strings.TrimPrefix(m.GetCommitCause().String(), "COMMIT_CAUSE_"))
	}
	if d := m.GetDarkTime(); d != nil {
		s += ", dark " + d.AsDuration().Round(100*time.Microsecond).String()
	}
	if m.GetMessage() != "" {
		s += ": " + firstLine(m.GetMessage())
	}
	return s
}

// move makes the move, with the fault at its point.
func (m *faulted) move(t *testing.T, c moveCase, x *probe.Exchange, source, target string) {
	// Before the fault nothing but a busy machine holds up a step, and a move that does not come to the fault's point would test nothing.
	patience := inTime
	hurt := func(at string) {
		if at != c.point {
			return
		}
		patience = soon
		if err := c.fault.do(m.f, source, target); err != nil {
			t.Fatal(err)
		}
	}
	hurt(beforePrepare)
	if !m.try("prepare", patience, func(ctx context.Context) error {
		_, err := m.f.api(t).Ports.PrepareMove(ctx, connect.NewRequest(&weftv1.PrepareMoveRequest{Tenant: "acme", Name: m.port, Host: target}))
		return err
	}) {
		return
	}
	hurt(preparing)
	m.try("attach", patience, func(ctx context.Context) error { return m.attach(ctx, target) })
	m.try("wait until prepared", patience, func(ctx context.Context) error {
		_, err := m.f.WaitMove(ctx, "acme", m.port, weftv1.MovePhase_MOVE_PHASE_PREPARED)
		return err
	})
	hurt(prepared)
	var during sync.WaitGroup
	during.Go(func() { hurt(committing) })
	m.commit(t, c, x, target)
	during.Wait()
	hurt(committed)
	if c.point != draining && c.point != done {
		return
	}
	m.try("wait for the drain", patience, func(ctx context.Context) error {
		_, err := m.f.WaitMove(ctx, "acme", m.port, weftv1.MovePhase_MOVE_PHASE_DRAINING)
		return err
	})
	hurt(draining)
	if c.point == done {
		m.try("wait until it is done", faultDrain, func(ctx context.Context) error {
			_, err := m.f.WaitMove(ctx, "acme", m.port, weftv1.MovePhase_MOVE_PHASE_DONE)
			return err
		})
	}
	hurt(done)
}

// attach gives the workload its interface on the target.
func (m *faulted) attach(ctx context.Context, target string) error {
	a, err := m.f.Agent(target)
	if err != nil {
		return err
	}
	defer a.Close()
	_, err = a.Attach(ctx, connect.NewRequest(&localv1.AttachRequest{Tenant: "acme", Port: m.port,
		Interface: &localv1.AttachRequest_Netns{Netns: &localv1.NetnsInterface{Netns: netdev.NamespacePath(m.ns), Ifname: m.there}}}))
	if err != nil {
		return err
	}
	if m.moving.Interface == m.there {
		return nil
	}
	return m.moving.Bring()
}

// commit moves the workload, and says so: an event comes from where it runs already, after a command it goes on there.
func (m *faulted) commit(t *testing.T, c moveCase, x *probe.Exchange, target string) {
	if _, err := m.moving.Netns.LinkByName(m.there); err != nil {
		m.note("the workload stays, as it has no interface on the target")
		return
	}
	if c.cause == byEvent {
		m.turn(t, x, m.there)
		m.try("commit", soon, func(ctx context.Context) error {
			a, err := m.f.Agent(target)
			if err != nil {
				return err
			}
			defer a.Close()
			_, err = a.Commit(ctx, connect.NewRequest(&localv1.CommitRequest{Tenant: "acme", Port: m.port}))
			return err
		})
		return
	}
	if m.try("commit", soon, func(ctx context.Context) error {
		_, err := m.f.api(t).Ports.CommitMove(ctx, connect.NewRequest(&weftv1.CommitMoveRequest{Tenant: "acme", Name: m.port}))
		return err
	}) {
		m.turn(t, x, m.there)
	}
}

// turn has the workload use an interface.
func (m *faulted) turn(t *testing.T, x *probe.Exchange, iface string) {
	t.Helper()
	if m.moving.Interface == iface {
		return
	}
	if err := m.moving.Turn(x); err != nil {
		t.Fatal(err)
	}
}

// finish does after healing what an operator would, until the move is over and the workload is where its port is. It gives nil if none was begun.
func (m *faulted) finish(t *testing.T, c moveCase, x *probe.Exchange, source, target string) (move *weftv1.Move) {
	t.Helper()
	eventually(t, "the move is over", func() (bool, string) {
		p := m.get(t)
		b := p.GetStatus().GetBinding()
		if move = p.GetStatus().GetMove(); move.GetEpoch() <= m.before {
			move = nil // of the case before
		}
		_, err := m.moving.Netns.LinkByName(m.there)
		switch pending := move.GetPhase() == weftv1.MovePhase_MOVE_PHASE_PREPARING || move.GetPhase() == weftv1.MovePhase_MOVE_PHASE_PREPARED; {
		case pending && err != nil:
			m.try("attach again", soon, func(ctx context.Context) error { return m.attach(ctx, target) })
		case move.GetPhase() == weftv1.MovePhase_MOVE_PHASE_PREPARED:
			m.commit(t, c, x, target)
		}
		m.host = b.GetActive()
		return b.GetActive() != "" && b.GetIncoming() == "" && b.GetDraining() == "", fmt.Sprint(b, move)
	})
	aborted := move.GetPhase() == weftv1.MovePhase_MOVE_PHASE_ABORTED
	if over := aborted || move.GetPhase() == weftv1.MovePhase_MOVE_PHASE_DONE; move != nil && !over || (move == nil || aborted) != (m.host == source) {
		t.Errorf("the port is on %s, and its move from %s says: %v", m.host, source, move)
	}
	if aborted && move.GetMessage() == "" {
		t.Error("the move was aborted, and does not say why")
	}
	if move != nil && !aborted && move.GetCommitCause() == weftv1.CommitCause_COMMIT_CAUSE_UNSPECIFIED {
		t.Error("the move is done, and does not say what committed it")
	}
	if m.host == target {
		m.turn(t, x, m.there)
	} else {
		m.turn(t, x, m.here)
	}
	return move
}

func (m *faulted) get(t *testing.T) *weftv1.Port {
	t.Helper()
	res, err := m.f.api(t).Ports.GetPort(limited(t), connect.NewRequest(&weftv1.GetPortRequest{Tenant: "acme", Name: m.port}))
	if err != nil {
		t.Fatal(err)
	}
	return res.Msg
}

// flows waits until numbers come both ways, as many as none of those that were under way.
func (m *faulted) flows(t *testing.T, x *probe.Exchange) {
	t.Helper()
	in0, out0 := x.Count()
	eventually(t, "datagrams come both ways", func() (bool, string) {
		in, out := x.Count()
		return in.Received > in0.Received+faultRate/2 && out.Received > out0.Received+faultRate/2,
			fmt.Sprintf("%d to the workload and %d from it, of port %s on %s", in.Received-in0.Received, out.Received-out0.Received, m.port, m.host)
	})
}

// oneActive wants the port in the kernel of one host, open.
func (m *faulted) oneActive(t *testing.T) {
	t.Helper()
	uid := m.get(t).GetMeta().GetUid()
	var have []string
	for _, h := range []string{"h1", "h2", "h3"} {
		for _, line := range m.f.tables(t, h) {
			if strings.HasPrefix(line, "port "+uid) {
				have = append(have, h+": "+line)
			}
		}
	}
	if len(have) != 1 || !strings.HasPrefix(have[0], m.host+": ") || !strings.HasSuffix(have[0], "held false") {
		t.Errorf("the port is on %s by the API, and in kernels: %v", m.host, have)
	}
}
