package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
)

// movers are three hosts in one network, the third of which takes plans and does not acknowledge them.
func movers(t *testing.T, f *fixture, tenant string) (from, to, peer *double) {
	t.Helper()
	ok(t, f.tenants.CreateTenant, &weftv1.CreateTenantRequest{Name: tenant})
	ok(t, f.networks.CreateNetwork, &weftv1.CreateNetworkRequest{Tenant: tenant, Name: "blue"})
	from, to, peer = f.join(t, tenant+"-from"), f.join(t, tenant+"-to"), f.join(t, tenant+"-peer")
	from.open(facts("192.0.2.71", 1500))
	to.open(facts("192.0.2.72", 1500))
	peer.open(facts("192.0.2.73", 1500))
	for name, h := range map[string]*double{"p": from, "q": peer} {
		ok(t, f.ports.CreatePort, &weftv1.CreatePortRequest{Tenant: tenant, Name: name, Spec: &weftv1.PortSpec{Network: "blue"}})
		ok(t, h.agent.Bind, &planv1.BindRequest{Tenant: tenant, Port: name})
	}
	peer.holds("p", from.uid)
	if w := ok(t, f.system.WaitApplied, &weftv1.WaitAppliedRequest{Tenant: tenant, Network: "blue"}); !w.Complete {
		t.Fatalf("%v", w)
	}
	peer.setMute(true)
	return from, to, peer
}

// at is where port p of a tenant is, and what else its status says.
func (f *fixture) at(t *testing.T, tenant string) *weftv1.PortStatus {
	t.Helper()
	return ok(t, f.ports.GetPort, &weftv1.GetPortRequest{Tenant: tenant, Name: "p"}).Status
}

// TestMoveIsAnnounced: the other hosts list the coming host's VTEP before the port is there. Break it: let move write
// the new host at once.
func TestMoveIsAnnounced(t *testing.T) {
	f := ownServer(t, Config{Limits: Limits{Prepare: time.Minute, Drain: 50 * time.Millisecond, Sweep: 10 * time.Millisecond}})
	from, to, peer := movers(t, f, "announced")
	before := peer.members("announced/blue")
	moved := make(chan error, 1)
	go func() {
		_, err := f.ports.MovePort(context.Background(), connect.NewRequest(&weftv1.MovePortRequest{Tenant: "announced", Name: "p", Host: to.name}))
		moved <- err
	}()
	eventually(t, "the peer lists the coming host", func() bool { return len(peer.members("announced/blue")) == len(before)+1 })
	if p := peer.planned("p"); p.GetActive() != from.uid || p.GetIncoming() != to.uid {
		t.Errorf("in between: active %s, incoming %s", p.GetActive(), p.GetIncoming())
	}
	refused(t, f.ports.BindPort, &weftv1.BindPortRequest{Tenant: "announced", Name: "p", Host: to.name}, conflict, "host", from.name)
	refused(t, peer.agent.Bind, &planv1.BindRequest{Tenant: "announced", Port: "p"}, conflict, "host", from.name)
	if b, is := ok(t, to.agent.Bind, &planv1.BindRequest{Tenant: "announced", Port: "p"}), f.at(t, "announced").Binding; b.Epoch != is.Epoch || is.Incoming != to.name || is.Active != from.name {
		t.Errorf("the coming host asks for the port, and it is at %v, epoch %d", is, b.Epoch)
	}
	peer.acknowledge()
	if err := <-moved; err != nil {
		t.Fatal(err)
	}
	peer.holds("p", to.uid)
	eventually(t, "the peer forgets the old host", func() bool { return len(peer.members("announced/blue")) == len(before) })
}

// TestMoveLosesToUnbind: what was decided meanwhile is not undone.
func TestMoveLosesToUnbind(t *testing.T) {
	f := ownServer(t, Config{Limits: Limits{Prepare: time.Minute}})
	_, to, peer := movers(t, f, "loses")
	moved := make(chan error, 1)
	go func() {
		_, err := f.ports.MovePort(context.Background(), connect.NewRequest(&weftv1.MovePortRequest{Tenant: "loses", Name: "p", Host: to.name}))
		moved <- err
	}()
	eventually(t, "the move began", func() bool {
		return ok(t, f.ports.GetPort, &weftv1.GetPortRequest{Tenant: "loses", Name: "p"}).Status.Binding.Incoming == to.name
	})
	ok(t, f.ports.UnbindPort, &weftv1.UnbindPortRequest{Tenant: "loses", Name: "p"})
	peer.acknowledge()
	wantRefusal(t, <-moved, conflict, "host", "unbound by root")
	if b := f.at(t, "loses").Binding; b.Active != "" || b.Incoming != "" {
		t.Errorf("after the unbind: %v", b)
	}
}

// TestCountersMove: what a port counted on the host that it left stays its own, is counted once whatever is settled again or reported late, and
// a later part of the same host is added. Break it: let Settle add always, or With forget the epoch.
func TestCountersMove(t *testing.T) {
	f := ownServer(t, Config{Limits: Limits{Drain: 20 * time.Millisecond, Sweep: 5 * time.Millisecond}})
	from, to, peer := movers(t, f, "counters")
	peer.acknowledge()
	uid := ok(t, f.ports.GetPort, &weftv1.GetPortRequest{Tenant: "counters", Name: "p"}).Meta.Uid
	said := func(d *double, n uint64) {
		d.report(&planv1.Report{Ports: []*planv1.PortReport{{Uid: uid, EgressPackets: n, IngressOctets: 10 * n, Epoch: f.at(t, "counters").Binding.Epoch}}})
	}
	counted := func(want uint64) {
		t.Helper()
		eventually(t, fmt.Sprint(want, " packets are counted"), func() bool {
			c := f.at(t, "counters").Counters
			return c.EgressPackets == want && c.IngressOctets == 10*want
		})
	}
	move := func(h *double) (ended int64) {
		ok(t, f.ports.MovePort, &weftv1.MovePortRequest{Tenant: "counters", Name: "p", Host: h.name})
		eventually(t, "the drain is over", func() bool { return f.at(t, "counters").Move.Phase == done })
		return f.at(t, "counters").Binding.Epoch
	}
	settle := func(n uint64, epoch int64) *planv1.SettleRequest {
		return &planv1.SettleRequest{PortUid: uid, Epoch: epoch, EgressPackets: n, IngressOctets: 10 * n}
	}
	epoch := f.at(t, "counters").Binding.Epoch
	said(from, 100)
	counted(100)
	refused(t, from.agent.Settle, settle(100, epoch), conflict, "epoch", "left")
	refused(t, from.agent.Settle, settle(100, epoch+1000), invalid, "epoch")
	ended := move(to)
	said(to, 7)
	counted(107)
	for range 3 {
		ok(t, from.agent.Settle, settle(100, ended))
		counted(107)
	}
	from.report(&planv1.Report{})
	counted(107)
	back := move(from)
	counted(107)
	ok(t, to.agent.Settle, settle(9, back)) // two more than it last reported
	counted(109)
	said(from, 5)
	counted(114)
	stranger := f.join(t, "counters-stranger")
	refused(t, stranger.agent.Settle, settle(1000, back), denied, "port_uid")

	// Another server, and this one after a restart of its memory, say the same: what is settled is in the store.
	g := secondServer(t, f)
	if c := ok(t, g.ports.GetPort, &weftv1.GetPortRequest{Tenant: "counters", Name: "p"}).Status.Counters; c.EgressPackets < 109 {
		t.Errorf("the second server counts %v", c)
	}
	ok(t, f.ports.UnbindPort, &weftv1.UnbindPortRequest{Tenant: "counters", Name: "p"})
	ok(t, from.agent.Settle, settle(5, f.at(t, "counters").Binding.Epoch))
	counted(114)
	ok(t, f.ports.DeletePort, &weftv1.DeletePortRequest{Tenant: "counters", Name: "p"})
	ok(t, from.agent.Settle, settle(50, back))
	ok(t, f.ports.CreatePort, &weftv1.CreatePortRequest{Tenant: "counters", Name: "p", Spec: &weftv1.PortSpec{Network: "blue"}})
	counted(0)
}

// TestStreamEndsWithCertificate: an hour before the certificate ends, the agent is told to connect again, and may.
func TestStreamEndsWithCertificate(t *testing.T) {
	f := ownServer(t, Config{})
	h := f.join(t, "old-h")
	f.clock.advance(24*time.Hour - 4*time.Second) // on a machine that stands still meanwhile, the stream is to begin before its end still
	h.open(facts("192.0.2.81", 1500))
	if err := h.end(); connect.CodeOf(err) != connect.CodeUnavailable || !strings.Contains(err.Error(), "connect again") {
		t.Fatalf("the stream ended with: %v", err)
	}
	h.open(facts("192.0.2.81", 1500))
	eventually(t, "the host is live again", func() bool { return f.live(t, "old-h") })
}

// TestMovesOfOnePortToOneHost: of several who saw the port at one epoch and move it, to the same host even, one does; the others are told
// that what they saw is past. Break it: let move ask for the epoch only when the port is not there yet.
func TestMovesOfOnePortToOneHost(t *testing.T) {
	f := ownServer(t, Config{Limits: Limits{Prepare: time.Minute}})
	from, to, peer := movers(t, f, "twice")
	peer.acknowledge()
	const several = 4
	moved := make(chan error, several)
	for range 10 {
		epoch := ok(t, f.ports.GetPort, &weftv1.GetPortRequest{Tenant: "twice", Name: "p"}).Status.Binding.Epoch
		for range several {
			go func() {
				_, err := f.ports.MovePort(context.Background(), connect.NewRequest(&weftv1.MovePortRequest{Tenant: "twice", Name: "p", Host: to.name, Epoch: epoch}))
				moved <- err
			}()
		}
		done := 0
		for range several {
			if err := <-moved; err == nil {
				done++
			} else {
				wantRefusal(t, err, stale, "epoch")
			}
		}
		if done != 1 {
			t.Errorf("%d of %d moved it", done, several)
		}
		from, to = to, from
	}
}

// TestMoveWaitsForNoSlowHost: a host that is connected and takes no plan, as one whose agent is stopped, holds up no move of its network for long,
// and the move says whom it did not wait for. Break it: let nextPending ask for all that readiness lacks.
func TestMoveWaitsForNoSlowHost(t *testing.T) {
	f := ownServer(t, Config{Limits: Limits{Sweep: 10 * time.Millisecond, Peers: 50 * time.Millisecond}})
	from, to, peer := movers(t, f, "slow")
	to.setUnready(true)
	epoch := ok(t, f.ports.PrepareMove, &weftv1.PrepareMoveRequest{Tenant: "slow", Name: "p", Host: to.name}).Status.Binding.Epoch
	eventually(t, "the peer alone has not taken it", func() bool { // or another one that is late, too, might be named
		w := ok(t, f.system.WaitApplied, &weftv1.WaitAppliedRequest{Tenant: "slow", Network: "blue", Revision: epoch, Timeout: durationpb.New(10 * time.Millisecond)})
		return slices.Equal(w.Lagging, []string{peer.name})
	})
	to.setUnready(false)
	to.acknowledge()
	eventually(t, "it is prepared", func() bool { return f.at(t, "slow").Move.Phase == prepared })
	if m := f.at(t, "slow").Move; !strings.Contains(m.Message, "not waited for: host "+peer.name) {
		t.Errorf("the move says %q", m.Message)
	}
	ok(t, f.ports.CommitMove, &weftv1.CommitMoveRequest{Tenant: "slow", Name: "p"})
	eventually(t, "the new host has it", func() bool { return f.at(t, "slow").Binding.Active == to.name })
	ok(t, f.ports.MovePort, &weftv1.MovePortRequest{Tenant: "slow", Name: "p", Host: from.name})
	if b := f.at(t, "slow").Binding; b.Active != from.name {
		t.Errorf("after the move at once: %v", b)
	}
}

// TestMoveByHand: prepare, what is missing, commit, drain, done; a watcher sees each. Break it: let CommitMove ask for no phase, or let the
// preparation not wait for the peer.
func TestMoveByHand(t *testing.T) {
	f := ownServer(t, Config{Limits: Limits{Drain: time.Hour, Sweep: 10 * time.Millisecond}})
	from, to, peer := movers(t, f, "hand")
	to.setUnready(true)
	prepare := &weftv1.PrepareMoveRequest{Tenant: "hand", Name: "p", Host: to.name}
	s := ok(t, f.ports.PrepareMove, prepare).Status
	m := s.Move
	if m.From != from.name || m.To != to.name || m.Phase != preparing || m.Epoch != s.Binding.Epoch || m.By != "root" || m.Started == nil || m.Message == "" {
		t.Fatalf("%v", m)
	}
	if again := ok(t, f.ports.PrepareMove, prepare).Status.Move; again.Epoch != m.Epoch {
		t.Errorf("prepared again: %v, before %v", again, m)
	}
	refused(t, f.ports.PrepareMove, &weftv1.PrepareMoveRequest{Tenant: "hand", Name: "p", Host: peer.name}, conflict, "host", "already moving", to.name, "--abort")
	refused(t, f.ports.CommitMove, &weftv1.CommitMoveRequest{Tenant: "hand", Name: "p"}, conflict, "name", "not prepared", to.name)
	refused(t, f.ports.CommitMove, &weftv1.CommitMoveRequest{Tenant: "hand", Name: "p", Epoch: m.Epoch - 1}, stale, "epoch")

	phases, latest := f.watchMove(t, "hand")
	seen := func(phase weftv1.MovePhase) { // a watcher is told what is so, and not each phase that there was
		t.Helper()
		eventually(t, "the watcher sees "+phase.String(), func() bool { return weftv1.MovePhase(latest.Load()) == phase })
	}
	to.setUnready(false)
	to.acknowledge()
	eventually(t, "only the peer is missing", func() bool { return strings.Contains(f.at(t, "hand").Move.Message, peer.name) })
	refused(t, f.ports.CommitMove, &weftv1.CommitMoveRequest{Tenant: "hand", Name: "p"}, conflict, "name", "not prepared", peer.name)
	peer.acknowledge()
	eventually(t, "it is prepared", func() bool { return f.at(t, "hand").Move.Phase == prepared })
	seen(prepared)
	s = ok(t, f.ports.CommitMove, &weftv1.CommitMoveRequest{Tenant: "hand", Name: "p", Epoch: m.Epoch}).Status
	if b := s.Binding; b.Active != to.name || b.Draining != from.name && b.Draining != "" || b.Incoming != "" || s.Move.CommitCause != weftv1.CommitCause_COMMIT_CAUSE_COMMAND {
		t.Errorf("after the commit: %v, %v", b, s.Move)
	}
	seen(draining)
	before := f.sweeps.Load()
	eventually(t, "the server has begun to count the drain", func() bool { return f.sweeps.Load() >= before+2 })
	f.clock.advance(time.Hour)
	eventually(t, "it is done", func() bool { return f.at(t, "hand").Move.Phase == done })
	if s := f.at(t, "hand"); s.Binding.Draining != "" || s.Move.Ended == nil {
		t.Errorf("after the end: %v", s)
	}
	if again := ok(t, f.ports.CommitMove, &weftv1.CommitMoveRequest{Tenant: "hand", Name: "p", Epoch: m.Epoch}).Status.Move; again.Phase != done {
		t.Errorf("committed again: %v", again)
	}
	refused(t, f.ports.AbortMove, &weftv1.AbortMoveRequest{Tenant: "hand", Name: "p"}, conflict, "name", "already")
	if got := <-phases; !slices.Equal(got, []weftv1.MovePhase{preparing, prepared, draining, done}) {
		t.Errorf("the watcher saw %v", got)
	}
}

const (
	preparing = weftv1.MovePhase_MOVE_PHASE_PREPARING
	prepared  = weftv1.MovePhase_MOVE_PHASE_PREPARED
	draining  = weftv1.MovePhase_MOVE_PHASE_DRAINING
	done      = weftv1.MovePhase_MOVE_PHASE_DONE
	aborted   = weftv1.MovePhase_MOVE_PHASE_ABORTED
)

// watchMove watches the move of port p until its end, and gives the phases that it saw, each once; latest is the one that it saw last.
func (f *fixture) watchMove(t *testing.T, tenant string) (phases <-chan []weftv1.MovePhase, latest *atomic.Int32) {
	t.Helper()
	first, out, latest := make(chan struct{}), make(chan []weftv1.MovePhase, 1), &atomic.Int32{}
	began := sync.OnceFunc(func() { close(first) })
	go func() {
		defer close(out)
		defer began()
		s, err := f.ports.WatchMove(t.Context(), connect.NewRequest(&weftv1.WatchMoveRequest{Tenant: tenant, Name: "p"}))
		if err != nil {
			t.Error(err)
			return
		}
		defer s.Close()
		var phases []weftv1.MovePhase
		for s.Receive() {
			phases = append(phases, s.Msg().Phase)
			latest.Store(int32(s.Msg().Phase))
			began()
		}
		if s.Err() != nil {
			t.Error(s.Err())
		}
		out <- slices.Compact(phases)
	}()
	<-first
	return out, latest
}
