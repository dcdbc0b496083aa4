package server

import (
	"context"
	"log/slog"
	"sync"
	"testing"

	"connectrpc.com/connect"

	"github.com/weftnet/weft/distribute"
	"github.com/weftnet/weft/model"
)

// TestLostSwapsAreNoRefusal: a step of a move that other writers were first with again and again was not refused. Its agent asks again, and does
// not hold a port whose workload runs there. Break it: let swap answer with the store's Stale.
func TestLostSwapsAreNoRefusal(t *testing.T) {
	f := ownServer(t, Config{})
	from, to, _ := movers(t, f, "busy")
	st := f.storeOf(t)
	ctx, cancel := context.WithCancel(t.Context())
	a := &api{cfg: f.cfg, log: slog.New(slog.DiscardHandler), store: st, view: newView(), heard: newRealisation(), fresher: &fresher{head: st.Head},
		hangs: make(chan struct{}, 1), stopping: ctx}
	a.dist = distribute.New(distribute.Config{Evidence: a.evidence})
	var loop sync.WaitGroup
	loop.Go(func() { a.loop(ctx, func(error) {}) })
	defer loop.Wait()
	defer cancel()
	eventually(t, "the second server has the world", func() bool { return a.view.ready() == nil && a.view.revision() > 0 })
	p, err := a.port(ctx, "name", "busy", "p")
	if err != nil {
		t.Fatal(err)
	}
	var rival model.Binding
	a.view.read(func(w *model.World) { rival = *w.Bindings[p.UID] })
	asked := 0
	_, err = a.swap(ctx, p, func(_ *model.World, at *place) error {
		asked++
		epoch := rival.Epoch
		if rival.Active = model.UID(from.uid); asked%2 == 1 {
			rival.Active = model.UID(to.uid)
		}
		if rival, err = st.PutBinding(ctx, rival, epoch); err != nil {
			t.Errorf("the rival's write: %v", err)
		}
		at.Binding = at.Unbound()
		return nil
	})
	if asked != tries || connect.CodeOf(toConnect(err)) != connect.CodeUnavailable {
		t.Errorf("after %d tries: %v (%v)", asked, err, connect.CodeOf(toConnect(err)))
	}
}
