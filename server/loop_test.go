package server

import (
	"errors"
	"testing"

	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/store"
)

// TestWaiting: what waits is taken in together, in order, and nothing is taken from behind an event that ends the watch. Red when the
// loop in waiting does not look at Reset and Err, or drops what it has read when the channel closes.
func TestWaiting(t *testing.T) {
	plain := func(rev model.Revision) store.Event { return store.Event{Revision: rev} }
	for _, c := range []struct {
		name   string
		queue  []store.Event
		closed bool
		want   int // how many, the first included
	}{
		{"nothing", nil, false, 1},
		{"three", []store.Event{plain(2), plain(3), plain(4)}, false, 4},
		{"closed behind one", []store.Event{plain(2)}, true, 2},
		{"a reset", []store.Event{plain(2), {Revision: 3, Reset: true}, plain(4)}, false, 3},
		{"an error", []store.Event{{Revision: 2, Err: errors.New("unreadable")}, plain(3)}, false, 2},
	} {
		events := make(chan store.Event, 8)
		for _, ev := range c.queue {
			events <- ev
		}
		if c.closed {
			close(events)
		}
		got := waiting(plain(1), events)
		if len(got) != c.want {
			t.Errorf("%s: %d events, want %d", c.name, len(got), c.want)
		}
		for i, ev := range got {
			if ev.Revision != model.Revision(i+1) {
				t.Errorf("%s: event %d is of revision %d", c.name, i, ev.Revision)
			}
		}
	}
	if got := waiting(store.Event{Reset: true}, nil); len(got) != 1 {
		t.Errorf("behind a reset: %d", len(got))
	}
}
