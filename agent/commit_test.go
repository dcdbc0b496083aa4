package agent

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"

	"connectrpc.com/connect"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
)

// TestCommitAsTheAgentEnds turns red when a commit that the loop has not taken in at its end is not written down: the port would be held after a restart.
func TestCommitAsTheAgentEnds(t *testing.T) {
	m := newMover(t)
	m.prepare()
	m.source.setAway(true)
	m.target.setAway(true)
	a, ended := m.target.agent, make(chan struct{})
	if err := a.do(m.target.ctx, func() {
		if _, err := a.flipper.commit("web1", planv1.CommitCause_COMMIT_CAUSE_EVENT); err != nil {
			t.Error(err)
		}
		go func() { m.target.stop(); close(ended) }()
		<-m.target.ctx.Done()
		<-a.flipper.rung // the end comes first
	}); err != nil {
		t.Fatal(err)
	}
	<-ended
	m.target.start()
	m.target.has("the target open", open, here)
	m.source.has("the source held", held, forwarded)
}

// TestCommitOvertaken turns red when a hypervisor is told that a port is here, and the plan has ended its move meanwhile.
func TestCommitOvertaken(t *testing.T) {
	m := newMover(t)
	m.prepare()
	a, in := m.target.agent, make(chan struct{})
	go func() {
		_ = a.do(m.target.ctx, func() {
			close(in)
			for !a.flipper.has("web1") && m.target.ctx.Err() == nil {
				runtime.Gosched()
			}
			u := &planv1.Update{StoreId: "s1", Revision: m.rev + 1, Last: true, Upserts: []*planv1.Resource{going(preparedAt+1, "h1", "", "").Proto()}}
			if err := a.take(u); err != nil {
				t.Error(err)
			}
		})
	}()
	<-in
	_, err := m.commit()
	codeOf(t, err, connect.CodeNotFound, "not on its way to this host")
}

// askedContext tells that somebody is about to wait for it.
type askedContext struct {
	context.Context
	once  sync.Once
	asked chan struct{}
}

func (c *askedContext) Done() <-chan struct{} {
	c.once.Do(func() { close(c.asked) })
	return c.Context.Done()
}

// TestFirstFrameWhileTheLoopIsBusy turns red when a frame is forgotten that came between the port's entry and the loop's word about its flip
// (leave out speaker's wait), or one whose port was prepared before the loop heard of it (leave out followFlips in firstFrames).
func TestFirstFrameWhileTheLoopIsBusy(t *testing.T) {
	t.Run("entry", func(t *testing.T) {
		m := newMover(t)
		m.prepare()
		a, ctx := m.target.agent, &askedContext{Context: m.target.ctx, asked: make(chan struct{})}
		uid := make(chan string, 1)
		if err := a.do(m.target.ctx, func() {
			a.flipper.prepare(map[string]ready{}, map[string]place{})
			go func() { uid <- a.speaker(ctx, 2); ctx.Done() }()
			<-ctx.asked // it waits for the loop, or gave up
			a.followFlips()
		}); err != nil {
			t.Fatal(err)
		}
		if got := <-uid; got != "web1" {
			t.Errorf("port %q spoke", got)
		}
	})
	t.Run("prepared", func(t *testing.T) {
		m := newMover(t)
		m.prepare()
		a := m.target.agent
		if err := a.do(m.target.ctx, func() {
			a.rec.failed.nets[5001] = errors.New("no room")
			a.followFlips()
			delete(a.rec.failed.nets, 5001)
		}); err != nil {
			t.Fatal(err)
		}
		m.target.kernel.frames <- 2
		m.target.has("the target open", open+"\n", here)
	})
}

// TestCountsOutliveTheInterface turns red when what a port counted until its interface went is forgotten with a restart (keep the port's number until it
// is detached).
func TestCountsOutliveTheInterface(t *testing.T) {
	r := newRig(t)
	r.base()
	r.links.add("tap0", "tuntap")
	if _, err := r.attach(tapRequest("web1", "tap0")); err != nil {
		t.Fatal(err)
	}
	var counted uint64
	count := func() {
		if err := r.agent.do(r.ctx, func() { counted = r.agent.portReport("web1", nil).IngressPackets }); err != nil {
			t.Fatal(err)
		}
	}
	count()
	before := counted
	r.links.drop("tap0")
	r.until("the port's end", func() bool { return len(r.kernel.ports) == 0 })
	r.restart()
	if count(); before == 0 || counted != before {
		t.Errorf("%d packets, and %d after the restart", before, counted)
	}
}
