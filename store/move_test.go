package store

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/weftnet/weft/model"
)

// testMove: a move is written with its binding or not at all, over the record that it was based on; it is loaded, watched, restored, and goes
// with its port. Break it: leave the comparison out of withMove, or the move out of DeletePort.
func testMove(t *testing.T, at string) {
	s, ctx := open(t, at), t.Context()
	p, h1, h2 := bindable(t, s)
	b := ok[model.Binding](t)(s.PutBinding(ctx, model.Binding{Port: p.UID, Active: h1.UID}, 0))
	events := s.Watch(ctx, model.Revision(b.Epoch))
	m := &model.Move{From: h1.UID, To: h2.UID, Phase: model.MovePreparing, By: "root", Started: now}
	b2 := ok[model.Binding](t)(s.PutMove(ctx, b.Preparing(h2.UID), b.Epoch, m))
	if m.Epoch != b2.Epoch || m.Revision != model.Revision(b2.Epoch) || m.Port != p.UID {
		t.Fatalf("%+v at %+v", m, b2)
	}
	e := next(t, events)
	var seen *model.Move
	for _, c := range e.Changes {
		if c.Move != nil {
			seen = c.Move
		}
	}
	if len(e.Changes) != 2 || !reflect.DeepEqual(seen, m) {
		t.Fatalf("watched %+v, written %+v", e, m)
	}

	begun := *m
	m.Phase, m.Prepared = model.MovePrepared, now
	must(t, s.UpdateMove(ctx, m))
	if m.Revision <= begun.Revision {
		t.Fatalf("%+v after %+v", m, begun)
	}
	old := begun
	refused(t, s.UpdateMove(ctx, &old), model.Stale, "move", "web1")
	_, err := s.PutMove(ctx, b2.Committed(), b2.Epoch, &old)
	refused(t, err, model.Stale, "move", "web1")
	_, err = s.PutMove(ctx, b2.Committed(), b.Epoch, m)
	refused(t, err, model.Stale, "epoch", "web1")
	w := ok[*model.World](t)(s.Load(ctx))
	if got := w.Moves[p.UID]; !reflect.DeepEqual(got, m) || *w.Bindings[p.UID] != b2 {
		t.Fatalf("loaded %+v at %+v, want %+v at %+v", got, w.Bindings[p.UID], m, b2)
	}

	var backup bytes.Buffer
	must(t, s.Backup(ctx, &backup))
	b3 := ok[model.Binding](t)(s.PutMove(ctx, b2.Aborted(), b2.Epoch, m))
	ok[model.Binding](t)(s.PutBinding(ctx, model.Binding{Port: p.UID}, b3.Epoch))
	ok[model.Revision](t)(s.DeletePort(ctx, "acme", "web1", now))
	if w := ok[*model.World](t)(s.Load(ctx)); len(w.Moves) != 0 {
		t.Fatalf("the move outlived its port: %+v", w.Moves)
	}
	refused(t, s.UpdateMove(ctx, m), model.NotFound, "port", string(p.UID))
	ok[int](t)(s.Restore(ctx, &backup))
	w = ok[*model.World](t)(s.Load(ctx))
	got := w.Moves[p.UID]
	if got == nil || got.Phase != model.MovePrepared || got.Epoch != m.Epoch || got.Revision <= m.Revision || !got.Of(w.Bindings[p.UID]) {
		t.Fatalf("restored %+v", got)
	}
}
