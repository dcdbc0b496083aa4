package model

import (
	"testing"
	"time"
)

// TestMoveSteps: what each step makes of a binding, and that its epoch and port stay. Break it: let Committed forget the draining host.
func TestMoveSteps(t *testing.T) {
	was := Binding{Port: "p", Network: "n", Epoch: 7, Active: "a"}
	for _, c := range []struct {
		step      string
		got, want Binding
	}{
		{"prepare", was.Preparing("h"), Binding{"p", "n", 7, "a", "h", ""}},
		{"prepare while it drains", Binding{"p", "n", 7, "a", "", "z"}.Preparing("h"), Binding{"p", "n", 7, "a", "h", ""}},
		{"commit", was.Preparing("h").Committed(), Binding{"p", "n", 7, "h", "", "a"}},
		{"abort", was.Preparing("h").Aborted(), was},
		{"drained", was.Preparing("h").Committed().Drained(), Binding{"p", "n", 7, "h", "", ""}},
		{"unbind", was.Preparing("h").Unbound(), Binding{"p", "n", 7, "", "", ""}},
		{"without the active", was.Preparing("h").Without("a"), Binding{"p", "n", 7, "", "", ""}},
		{"without the incoming", was.Preparing("h").Without("h"), was},
		{"without the draining", was.Preparing("h").Committed().Without("a"), Binding{"p", "n", 7, "h", "", ""}},
		{"without another", was.Without("x"), was},
	} {
		if c.got != c.want {
			t.Errorf("%s: %+v, want %+v", c.step, c.got, c.want)
		}
	}
}

// TestMoveOf: a move's record and the binding go together. Break it: leave From out of Of.
func TestMoveOf(t *testing.T) {
	b := Binding{Active: "a"}
	for phase, at := range map[MovePhase]Binding{
		MovePreparing: b.Preparing("h"), MovePrepared: b.Preparing("h"), MoveDraining: b.Preparing("h").Committed(), MoveDone: {}, MoveAborted: {},
	} {
		m := Move{From: "a", To: "h", Phase: phase}
		if !m.Of(&at) {
			t.Errorf("%s is not of %+v", phase, at)
		}
		if other := (Binding{Active: "a"}); m.Open() && (m.Of(&other) || m.Of(nil)) {
			t.Errorf("%s is of %+v", phase, other)
		}
		if swapped := (Move{From: "x", To: "h", Phase: phase}); m.Open() && swapped.Of(&at) {
			t.Errorf("%s from another host is of %+v", phase, at)
		}
	}
}

// TestMoveUnbound: what is said of the move of a port that is taken from all its hosts.
func TestMoveUnbound(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for was, want := range map[MovePhase]MovePhase{
		"": "", MovePreparing: MoveAborted, MovePrepared: MoveAborted, MoveDraining: MoveDone, MoveDone: MoveDone, MoveAborted: MoveAborted,
	} {
		m := Move{Phase: was, Message: "before"}
		got := m.Unbound("why", now)
		if ends := m.Open(); got.Phase != want || ends != (got.Message == "why") || ends != (got.Ended == now) {
			t.Errorf("%q became %+v", was, got)
		}
	}
}
