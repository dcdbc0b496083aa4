package agent

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/plan"
	"github.com/weftnet/weft/wire"
)

// TestMove turns red when a port is not reported as prepared (leave passing out of reported), when a commit does not reach the kernels of both
// hosts and the server before the plan does (leave out a.follow), when the dark time is not told, or when the drain's end leaves anything.
func TestMove(t *testing.T) {
	m := newMover(t)
	m.send(going(preparedAt, "h1", "h2", ""))
	m.target.until("prepared without an interface", func() bool {
		p := m.target.report("web1")
		return p.Prepared && p.Epoch == preparedAt && p.State == planv1.PortState_PORT_STATE_DETACHED
	})
	m.prepare()
	m.target.until("prepared with one", func() bool {
		p := m.target.report("web1")
		return p.Prepared && p.State == planv1.PortState_PORT_STATE_HELD
	})
	m.source.has("the source as ever", open, here)
	m.target.has("the target prepared", held+" watched", there)

	if at := m.mustCommit(); at.State != "active" || at.Move != "committed" {
		t.Errorf("committed as %v", at)
	}
	m.target.has("the target open", open, here, "local [11]")
	m.source.has("the source held", held, forwarded, "local []")
	m.target.until("the dark time", func() bool {
		list := m.target.commits() // the loop may have told of it too, before whoever committed did
		return len(list) >= 2 && list[len(list)-1].DarkNanoseconds > 0 && list[0].Epoch == preparedAt &&
			list[0].Cause == planv1.CommitCause_COMMIT_CAUSE_EVENT && m.target.agent.dark["web1"] > 0 // the loop hears beside the server
	})
	if at := m.target.attached(); at.DarkNanoseconds <= 0 || at.Message != "" {
		t.Errorf("attached as %v", at)
	}

	writes := [2]int{m.source.kernel.writes, m.target.kernel.writes}
	m.send(going(preparedAt+1, "h2", "", "h1"))
	if now := [2]int{m.source.kernel.writes, m.target.kernel.writes}; now != writes {
		t.Errorf("the plan that says the same wrote %v, before %v", now, writes)
	}
	if at := m.source.attached(); at.Move != "draining" || at.State != "held" {
		t.Errorf("on the source: %v", at)
	}
	m.send(going(preparedAt+2, "h2", "", ""))
	m.source.has("the end of the drain", there)
	m.source.without("port web1")
	m.source.until("the source's counters", func() bool {
		m.source.server.mu.Lock()
		defer m.source.server.mu.Unlock()
		list := m.source.server.settled
		return len(list) == 1 && list[0].Epoch == preparedAt+2 && list[0].IngressPackets == 2
	})
	if at := m.target.attached(); at.Move != "" || at.State != "active" {
		t.Errorf("on the target: %v", at)
	}
	if _, err := m.commit(); err != nil {
		t.Errorf("committing again what is here: %v", err)
	}
}

// TestCommitDoesNotWaitForTheLoops turns red when a loop has a part in the way from commit to flip, on either host: both are stuck in something
// else here (call believe through do, or commit).
func TestCommitDoesNotWaitForTheLoops(t *testing.T) {
	m := newMover(t)
	m.prepare()
	stuck, free := make(chan struct{}, 2), make(chan struct{})
	release := sync.OnceFunc(func() { close(free) })
	defer release() // also of a test that failed: its end waits for the loops
	var loops sync.WaitGroup
	for _, r := range []*rig{m.source, m.target} {
		loops.Go(func() { _ = r.agent.do(r.ctx, func() { stuck <- struct{}{}; <-free }) })
		<-stuck
	}
	var committing sync.WaitGroup
	committing.Go(func() {
		if _, err := m.commit(); err != nil {
			t.Error(err)
		}
	})
	flipped := func(r *rig, want ...string) bool {
		s := r.kernel.String()
		return !slices.ContainsFunc(want, func(p string) bool { return !strings.Contains(s, p) })
	}
	deadline := time.Now().Add(30 * time.Second)
	for !flipped(m.target, open, here) || !flipped(m.source, held, forwarded) {
		if time.Now().After(deadline) {
			t.Fatalf("no flip while the loops are busy: target\n%s\nsource\n%s", m.target.kernel, m.source.kernel)
		}
	}
	release()
	loops.Wait()
	committing.Wait()
	m.target.has("the target's flood list", "local [11]")
}

// TestMoveWithoutServer turns red when a commit needs a server, when a restart of either host undoes it (leave out loadFlips), when nobody is
// told that no server knows, or when a server that is back does not hear of it.
func TestMoveWithoutServer(t *testing.T) {
	m := newMover(t)
	m.prepare()
	m.source.setAway(true)
	m.target.setAway(true)
	if at := m.target.attached(); !strings.Contains(at.Message, "waits for a server") {
		t.Errorf("before the commit: %v", at)
	}
	if at := m.mustCommit(); at.Message != "committed; no server has confirmed it yet" || at.State != "active" {
		t.Errorf("committed as %v", at)
	}
	m.source.has("the source held", held, forwarded, "local []")
	m.target.has("the target open", open, here, "local [11]")
	m.target.until("the dark time", func() bool { return m.target.agent.dark["web1"] > 0 })
	m.source.until("the source's file", func() bool {
		list, err := newFlipFile(m.source.dir).read()
		return err == nil && len(list) == 1
	})
	for _, r := range []*rig{m.target, m.source} {
		before := r.kernel.writes
		r.restart()
		if n := r.kernel.writes - before; n != 0 {
			t.Errorf("the restarted agent of %s wrote %d times", r.name, n)
		}
	}
	if at := m.source.attached(); !strings.Contains(at.Message, "waits for a server") || at.Move != "draining" {
		t.Errorf("on the source: %v", at)
	}
	if at := m.target.attached(); at.DarkNanoseconds == 0 || at.Move != "committed" {
		t.Errorf("on the target: %v", at)
	}
	codeOf(t, m.target.agent.detach(m.target.ctx, &localv1.DetachRequest{Tenant: "acme", Port: "web1"}), connect.CodeUnavailable, "stays attached")
	m.target.setAway(false)
	m.target.until("the call", func() bool { return len(m.target.commits()) > 0 && m.target.agent.rec.view.flips["web1"].Confirmed })
	if at := m.target.attached(); at.Message != "" {
		t.Errorf("confirmed, and: %v", at)
	}
}

// TestRestartInEveryPhase turns red when an agent that is started again without a server has another thought of a move than the one before it: nothing
// is written then. Take nothing of the list in, in loadFlips, and it goes red.
func TestRestartInEveryPhase(t *testing.T) {
	m := newMover(t)
	phases := []struct {
		name string
		do   func()
	}{
		{"prepared", m.prepare},
		{"committed", func() {
			m.mustCommit()
			m.source.has("the source held", held, forwarded, "local []")
			m.target.has("the target open", open, here, "local [11]")
			m.source.until("the source's file", func() bool { list, err := newFlipFile(m.source.dir).read(); return err == nil && len(list) == 1 })
		}},
		{"draining", func() { m.send(going(preparedAt+1, "h2", "", "h1")) }},
		{"done", func() { m.send(going(preparedAt+2, "h2", "", "")); m.source.without("port web1") }},
		{"on the way back", func() { m.send(going(preparedAt+3, "h2", "h1", "")) }},
		{"aborted", func() { m.send(going(preparedAt+4, "h2", "", "")) }},
	}
	for _, phase := range phases {
		phase.do()
		for _, r := range []*rig{m.source, m.target} {
			before, writes := r.tables(), r.kernel.writes
			r.server.mu.Lock()
			r.server.away = true
			r.server.mu.Unlock()
			r.restart()
			if after := r.tables(); after != before || r.kernel.writes != writes {
				t.Errorf("%s, %s: %d writes; was\n%s\nis\n%s", phase.name, r.name, r.kernel.writes-writes, before, after)
			}
		}
	}
}

// TestSourceHearsLate turns red when a claim is not repeated: the source's agent, or the way to it, is not there at first.
func TestSourceHearsLate(t *testing.T) {
	m := newMover(t)
	m.prepare()
	m.source.setAway(true)
	m.target.setAway(true)
	m.hub.setCut(true)
	m.mustCommit()
	m.target.has("the target open", open)
	m.source.has("the source as ever", open, here)
	m.hub.setCut(false)
	m.source.has("the source held", held, forwarded)
	// A source that forgets is told again, also after it answered once.
	m.source.until("the source's file", func() bool { list, _ := newFlipFile(m.source.dir).read(); return len(list) == 1 })
	m.source.stop()
	if err := newFlipFile(m.source.dir).write(nil); err != nil {
		t.Fatal(err)
	}
	m.source.start()
	m.source.has("the source held again", held, forwarded)
}

// TestCommitRefused turns red when a port stays open whose commit the server refuses, when nobody is told why, or when the source does not take
// the plan's word again.
func TestCommitRefused(t *testing.T) {
	m := newMover(t)
	m.prepare()
	answer := func(away bool, refuse error) {
		m.target.server.mu.Lock()
		defer m.target.server.mu.Unlock()
		m.target.server.away, m.target.server.refuse = away, refuse
	}
	answer(true, nil) // whoever commits is told of a refusal that comes first
	m.mustCommit()
	answer(false, connect.NewError(connect.CodeFailedPrecondition, errors.New("the move was aborted at epoch 301")))
	m.target.has("the target held", held, there)
	m.target.until("the reason", func() bool {
		return strings.Contains(m.target.agent.conditions["commit"], "the commit of port acme/web1 here was refused: the move was aborted at epoch 301")
	})
	_, err := m.commit()
	codeOf(t, err, connect.CodeFailedPrecondition, "was refused")
	m.send(going(preparedAt+1, "h1", "", ""))
	m.source.has("the source open", open, here, "local [11]")
	m.target.has("where it is", there)
	m.target.without("port web1")
	m.target.until("the reason still", func() bool { return m.target.agent.conditions["commit"] != "" })
}

// TestOtherWinner turns red when a flip outlives a plan with a higher epoch, or when the loser is not told.
func TestOtherWinner(t *testing.T) {
	m := newMover(t)
	m.prepare()
	m.source.setAway(true)
	m.target.setAway(true)
	m.mustCommit()
	m.source.has("the source held", held, forwarded)
	m.send(going(preparedAt+5, "h1", "", ""))
	m.source.has("the source open", open, here)
	m.target.has("where it is", there)
	m.target.without("port web1")
	m.target.until("the reason", func() bool {
		return strings.Contains(m.target.agent.conditions["commit"], "epoch 305 has it on host h1")
	})
	for _, r := range []*rig{m.source, m.target} {
		r.until("an empty file", func() bool { list, err := newFlipFile(r.dir).read(); return err == nil && len(list) == 0 })
		r.until("nobody follows", func() bool { return len(r.agent.followers.ports()) == 0 })
	}
}

// TestClaimsAreChecked: a source believes only what its own plan has just so. Leave any of the comparisons out of believe and it goes red.
func TestClaimsAreChecked(t *testing.T) {
	m := newMover(t)
	m.prepare()
	f := m.source.agent.flipper
	target, other := oamMAC(netip.MustParseAddr("192.0.2.2"), nativeLane), oamMAC(netip.MustParseAddr("192.0.2.3"), nativeLane)
	good := moveClaim{uid: "web1", claimant: "h2", epoch: preparedAt}
	for what, c := range map[string]struct {
		moveClaim
		from wire.MAC
	}{
		"an old epoch":   {moveClaim{"web1", "h2", preparedAt - 1}, target},
		"a later epoch":  {moveClaim{"web1", "h2", preparedAt + 1}, target},
		"another host":   {moveClaim{"web1", "h3", preparedAt}, target},
		"another's MAC":  {good, other},
		"another port":   {moveClaim{"web2", "h2", preparedAt}, target},
		"this host's":    {moveClaim{"web1", "h1", preparedAt}, target},
		"nothing at all": {moveClaim{}, wire.MAC{}},
	} {
		if f.believe(c.moveClaim, c.from) {
			t.Errorf("believed: %s", what)
		}
	}
	for _, from := range []string{"192.0.2.1", "192.0.2.2"} {
		if m.target.agent.flipper.believe(good, oamMAC(netip.MustParseAddr(from), nativeLane)) {
			t.Errorf("the target believes %s that it has committed", from)
		}
	}
	m.source.has("the source as ever", open, here)
	m.source.within(func() { // while the loop takes a flip in, claims are not answered
		for range 2 {
			if !f.believe(good, target) {
				t.Error("what the plan has is not believed, or not twice")
			}
		}
	})
	m.source.has("the source held", held, forwarded)
	m.source.until("the loop has taken it in", func() bool { return m.source.agent.rec.view.flips["web1"].Epoch == preparedAt })
	if !f.believe(good, target) || f.believe(moveClaim{"web1", "h3", preparedAt}, target) {
		t.Error("after the flip: the claimant is to be answered, and no other")
	}
	m.send(going(preparedAt+1, "h2", "", "h1"))
	if !f.believe(good, target) || f.believe(moveClaim{"web1", "h3", preparedAt}, target) {
		t.Error("after the plan: the claimant is to be answered, and no other")
	}
	m.send(going(preparedAt+2, "h2", "", ""))
	if f.believe(good, target) {
		t.Error("believed after the end")
	}
}

// TestTheLoopUndoesNoFlip turns red when the loop writes what it thinks of a port that was flipped beside it (leave out flipped or without).
func TestTheLoopUndoesNoFlip(t *testing.T) {
	m := newMover(t)
	m.prepare()
	if err := m.target.agent.do(m.target.ctx, func() {
		f, k := m.target.agent.flipper, m.target.kernel
		port, entries := k.ports[11], must(k.FDB())
		if _, err := f.commit("web1", planv1.CommitCause_COMMIT_CAUSE_EVENT); err != nil {
			t.Error(err)
		}
		keys := []datapath.FDBKey{}
		for _, e := range entries {
			keys = append(keys, e.FDBKey)
		}
		if err := cmp.Or(f.UpdatePort(port), f.PutFDB(entries), f.DeleteFDB(keys[:1]), f.DetachPort(11)); err != nil {
			t.Error(err)
		}
		if s := k.String(); !strings.Contains(s, open) || !strings.Contains(s, here) {
			t.Errorf("undone:\n%s", s)
		}
		m.target.agent.audit()
		if s := k.String(); !strings.Contains(s, open) || !strings.Contains(s, here) {
			t.Errorf("undone by the audit:\n%s", s)
		}
	}); err != nil {
		t.Fatal(err)
	}
}

// TestFirstFrame turns red when a guest's first frame does not commit (leave out the names by number), or commits where a command is to do it.
func TestFirstFrame(t *testing.T) {
	m := newMover(t)
	m.send(going(preparedAt, "h1", "h2", ""))
	ask := tapRequest("web1", "tap0")
	ask.CommitOn = localv1.CommitOn_COMMIT_ON_COMMAND
	if _, err := m.target.attach(ask); err != nil {
		t.Fatal(err)
	}
	if s := m.target.tables(); strings.Contains(s, "watched") {
		t.Errorf("watched, and a command is to commit:\n%s", s)
	}
	m.prepare()
	m.target.has("the watch", held+" watched")
	m.target.kernel.frames <- 2
	m.target.has("the target open", open+"\n", here)
	m.source.has("the source held", held, forwarded)
	m.target.until("the cause", func() bool {
		list := m.target.commits()
		return len(list) > 0 && list[0].Cause == planv1.CommitCause_COMMIT_CAUSE_FIRST_FRAME
	})
	m.target.kernel.frames <- 2 // one more that was on its way
	m.target.restart()
	m.target.has("the target open", open+"\n", here)
}

// TestFirstFrameTooEarly turns red when a guest that speaks before its port is prepared is not heard (leave out commitLate): the kernel tells once.
func TestFirstFrameTooEarly(t *testing.T) {
	m := newMover(t)
	m.prepare()
	keep := func(on bool) {
		m.target.kernel.mu.Lock()
		defer m.target.kernel.mu.Unlock()
		m.target.kernel.keepsNetworks = on
	}
	keep(true) // so that the loop may try again meanwhile
	smaller := networkOf()
	smaller.Mtu = 1400
	m.sendTo(m.target, plan.NewNetwork(2, smaller))
	m.target.kernel.frames <- 2
	m.target.until("the frame", func() bool { return m.target.agent.spoke["web1"] == preparedAt })
	m.target.has("the target held", held)
	keep(false)
	m.target.within(func() { m.target.agent.rec.Retry(); m.target.agent.reconcile() })
	m.target.has("the target open", open+"\n", here)
}

// TestNotYet turns red when a port is opened that lacks something, or when nobody learns what.
func TestNotYet(t *testing.T) {
	m := newMover(t)
	_, err := m.commit()
	codeOf(t, err, connect.CodeNotFound, "not on its way to this host", "--prepare")
	m.send(going(preparedAt, "h1", "h2", ""))
	_, err = m.commit()
	codeOf(t, err, connect.CodeFailedPrecondition, "no interface is attached")
	m.prepare()
	m.target.links.drop("tap0")
	m.target.until("the report", func() bool {
		p := m.target.report("web1")
		return !p.Prepared && strings.Contains(p.Message, "interface")
	})
	_, err = m.commit()
	codeOf(t, err, connect.CodeFailedPrecondition, "its interface is not there")
	m.source.has("the source as ever", open, here)
	m.send(going(preparedAt+1, "h2", "", "h1"))
	_, err = m.source.agent.commit(m.source.ctx, &localv1.CommitRequest{Tenant: "acme", Port: "web1"})
	codeOf(t, err, connect.CodeFailedPrecondition, "went from this host to h2")
}

// TestDetachWhileMoving turns red when a detachment on the source tears down the move (unbind it), when it is refused, or when one on the target
// does not end it.
func TestDetachWhileMoving(t *testing.T) {
	detach := &localv1.DetachRequest{Tenant: "acme", Port: "web1"}
	for _, phase := range []string{"before the commit", "in the drain"} {
		t.Run(phase, func(t *testing.T) {
			m := newMover(t)
			m.prepare()
			if phase == "in the drain" {
				m.mustCommit()
				m.source.has("the source held", held, forwarded)
			}
			m.source.setAway(true) // it needs no server
			if err := m.source.agent.detach(m.source.ctx, detach); err != nil {
				t.Fatal(err)
			}
			if s := m.source.tables(); strings.Contains(s, "port web1") {
				t.Errorf("still there:\n%s", s)
			}
			if phase == "before the commit" {
				m.mustCommit()
			}
			m.source.has("frames forwarded without an interface", forwarded)
			m.source.setAway(false)
			m.source.until("the counters", func() bool { p := m.source.report("web1"); return p.IngressPackets == 2 })
			m.send(going(preparedAt+1, "h2", "", "h1"))
			m.source.has("frames forwarded by the plan", forwarded)
			m.send(going(preparedAt+2, "h2", "", ""))
			m.source.until("the counters are handed over", func() bool {
				m.source.server.mu.Lock()
				defer m.source.server.mu.Unlock()
				list := m.source.server.settled
				return len(list) == 1 && list[0].Epoch == preparedAt+2 && list[0].IngressPackets == 2
			})
		})
	}
	t.Run("on the target", func(t *testing.T) {
		m := newMover(t)
		m.prepare()
		m.target.setAway(true)
		codeOf(t, m.target.agent.detach(m.target.ctx, detach), connect.CodeUnavailable, "stays attached")
		codeOf(t, m.target.agent.abort(m.target.ctx, &localv1.AbortRequest{Tenant: "acme", Port: "web1"}), connect.CodeUnavailable, "needs a server")
		m.target.has("the target as it was", held)
		m.target.setAway(false)
		if err := m.target.agent.abort(m.target.ctx, &localv1.AbortRequest{Tenant: "acme", Port: "web1", Reason: "QEMU said no"}); err != nil {
			t.Fatal(err)
		}
		if s := m.target.tables(); strings.Contains(s, "port web1") {
			t.Errorf("still there:\n%s", s)
		}
		if got := m.target.server.aborted; len(got) != 1 || got[0] != "web1: QEMU said no" {
			t.Errorf("aborted: %q", got)
		}
		codeOf(t, m.source.agent.abort(m.source.ctx, &localv1.AbortRequest{Tenant: "acme", Port: "web1"}), connect.CodeFailedPrecondition, "is here")
	})
}

// TestTake turns red when a port of another host is not made incoming, when a failed attachment leaves it so, or when nobody learns that a move
// cannot begin without a server.
func TestTake(t *testing.T) {
	m := newMover(t)
	s := m.target.server
	s.onPrepare = func(_, port string) *planv1.PrepareResponse {
		if !s.silent {
			go m.send(going(preparedAt, "h1", "h2", ""))
		}
		return &planv1.PrepareResponse{PortUid: port, NetworkUid: "blue", Epoch: preparedAt}
	}
	s.elsewhere = true
	ask := tapRequest("web1", "tap0")
	_, err := m.target.attach(ask)
	codeOf(t, err, connect.CodeFailedPrecondition, "bound to another host")
	ask.Take = true
	s.silent = true
	m.target.agent.cfg.BindTimeout = 10 * time.Millisecond
	_, err = m.target.attach(ask)
	codeOf(t, err, connect.CodeDeadlineExceeded, "prepared on this host", "plan did not bring it")
	if !slices.Equal(s.aborted, []string{"web1: it could not be attached there"}) {
		t.Errorf("aborted: %q", s.aborted)
	}
	m.target.setAway(true)
	_, err = m.target.attach(ask)
	codeOf(t, err, connect.CodeUnavailable, "a move cannot begin without a server")
	m.target.setAway(false)
	s.silent = false
	m.target.agent.cfg.BindTimeout = bindPatience
	at, err := taken(func() (*localv1.Attachment, error) { return m.target.attach(ask) })
	if err != nil || at.State != "held" || at.Move != "incoming" {
		t.Fatalf("attached as %v, %v", at, err)
	}
	m.target.has("the target prepared", held)
}

// TestMadeTAP turns red when a TAP device is not made as it was asked for, does not get its network's MTU, is not made again after a reboot, outlives its
// port (leave out unmake), or goes although somebody else made it.
func TestMadeTAP(t *testing.T) {
	r := newRig(t)
	r.base()
	ask := tapRequest("web1", "vm1")
	_, err := r.attach(ask)
	codeOf(t, err, connect.CodeNotFound, "vm1")
	ask.MakeTap = &localv1.MakeTap{Queues: 4, Owner: "nobody-at-all"}
	_, err = r.attach(ask)
	codeOf(t, err, connect.CodeInvalidArgument, "owner", "nobody-at-all")
	ask.MakeTap = &localv1.MakeTap{Queues: 4, Group: "0"}
	for _, bad := range []string{"", "much-too-long-a-name", "weftvm1"} {
		wrong := tapRequest("web1", bad)
		wrong.MakeTap = ask.MakeTap
		if _, err := r.attach(wrong); err == nil {
			t.Errorf("a TAP device %q is made", bad)
		}
	}
	at, err := r.attach(ask)
	if err != nil || at.State != "active" || at.Queues != 4 {
		t.Fatalf("attached as %v, %v", at, err)
	}
	link := func(name string) netdev.Link {
		l, err := r.links.Link(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return l
	}
	if l := link("vm1"); l.MTU != 1450 || !l.Up || r.links.taps["vm1"] != (madeTAP{4, -1, 0}) {
		t.Errorf("made %+v, %+v", l, r.links.taps)
	}
	smaller := networkOf()
	smaller.Mtu = 1400
	if err := r.send(plan.NewNetwork(2, smaller)); err != nil {
		t.Fatal(err)
	}
	if l := link("vm1"); l.MTU != 1400 {
		t.Errorf("after the change: %+v", l)
	}
	if at, err = r.attach(tapRequest("web1", "vm1")); err != nil || at.Queues != 4 {
		t.Errorf("attached again as %v, %v", at, err)
	}
	r.stop()
	delete(r.links.links, "vm1")
	*r.kernel = *newFakeKernel()
	r.start()
	if l := link("vm1"); l.MTU != 1400 || !l.Up {
		t.Errorf("after a reboot: %+v", l)
	}
	r.links.mu.Lock()
	r.links.opened["vm1"] = true
	r.links.mu.Unlock()
	if err := r.agent.detach(r.ctx, &localv1.DetachRequest{Tenant: "acme", Port: "web1"}); err != nil {
		t.Errorf("detached while a guest has it open: %v", err)
	}
	if l := link("vm1"); l.Up {
		t.Error("without its port it is up")
	}
	r.links.mu.Lock()
	r.links.opened["vm1"] = false
	r.links.mu.Unlock()
	if err := r.agent.do(r.ctx, r.agent.removeTAPs); err != nil {
		t.Fatal(err)
	}
	if _, err := r.links.Link("vm1"); !errors.Is(err, netdev.ErrNotFound) {
		t.Errorf("it is there still: %v", err)
	}

	r.links.add("tap0", "tuntap")
	ask = tapRequest("web2", "tap0")
	ask.MakeTap = &localv1.MakeTap{}
	if at, err := r.attach(ask); err != nil || at.Queues != 0 {
		t.Fatalf("attached as %v, %v", at, err)
	}
	if err := r.agent.detach(r.ctx, &localv1.DetachRequest{Tenant: "acme", Port: "web2"}); err != nil {
		t.Fatal(err)
	}
	link("tap0")
}

// TestCountsAreKept turns red when what a port counted is lost while no server answers, also over a restart (leave out the write in counted).
func TestCountsAreKept(t *testing.T) {
	r := newRig(t)
	r.base()
	r.links.add("tap0", "tuntap")
	if _, err := r.attach(tapRequest("web1", "tap0")); err != nil {
		t.Fatal(err)
	}
	r.setAway(true)
	if err := r.send(plan.NewPort(1, portOf("web1", "h2", 500))); err != nil {
		t.Fatal(err)
	}
	r.until("the file", func() bool {
		got, err := readTallies(talliesPath(r.dir))
		return err == nil && len(got.Due) == 1 && got.Due[0].Epoch == 500
	})
	r.restart()
	r.setAway(false)
	r.until("the call", func() bool {
		r.server.mu.Lock()
		defer r.server.mu.Unlock()
		return len(r.server.settled) == 1 && r.server.settled[0].PortUid == "web1" && r.server.settled[0].Epoch == 500 && r.server.settled[0].IngressPackets > 0
	})
	r.until("an empty file", func() bool { got, err := readTallies(talliesPath(r.dir)); return err == nil && len(got.Due) == 0 })
}

// TestParseClaim turns red when a claim that is cut short is taken, or one does not come back as it was.
func TestParseClaim(t *testing.T) {
	c := moveClaim{uid: "0123456789abcdef0123456789abcdef", claimant: "h2", epoch: 1 << 40}
	b := c.append(nil)
	if got, ok := parseClaim(b); !ok || got != c {
		t.Errorf("%+v came back as %+v, %t", c, got, ok)
	}
	for n := range b {
		if got, ok := parseClaim(b[:n]); ok {
			t.Errorf("%d of %d octets are taken for %+v", n, len(b), got)
		}
	}
	var l claims
	at := time.Unix(1_000_000, 0)
	for range mostClaims {
		if !l.allow(at) {
			t.Fatal("refused below the limit")
		}
	}
	if l.allow(at) || !l.allow(at.Add(time.Second)) {
		t.Error("the limit is not a second's")
	}
}

// TestScribe turns red when the newest content is not what is there at last, or when somebody is told before it is.
func TestScribe(t *testing.T) {
	var mu sync.Mutex
	var there []int
	s := &scribe[int]{write: func(n int) error {
		mu.Lock()
		defer mu.Unlock()
		there = append(there, n)
		return nil
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var all sync.WaitGroup
	for n := range 100 {
		written := s.put(n)
		all.Go(func() {
			select {
			case err := <-written:
				mu.Lock()
				defer mu.Unlock()
				if last := there[len(there)-1]; err != nil || last < n {
					t.Errorf("told of %d when %d was there, %v", n, last, err)
				}
			case <-ctx.Done():
				t.Errorf("%d was never written", n)
			}
		})
	}
	all.Wait()
	s.wait()
	if there[len(there)-1] != 99 || !slices.IsSorted(there) {
		t.Errorf("written: %v", there)
	}
}
