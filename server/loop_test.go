package server

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weftnet/weft/distribute"
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

// followed is an api that follows what begin makes, from revision 1 on, and complains all the time that its watch hangs, which complaint tells.
func followed(t *testing.T, patience time.Duration, complaint chan<- struct{}, begin func(context.Context, model.Revision) <-chan store.Event) *api {
	a := &api{log: slog.New(slog.DiscardHandler), view: newView(), heard: newRealisation(), dist: distribute.New(distribute.Config{}), hangs: make(chan struct{})}
	w := model.NewWorld("s")
	w.Revision = 1
	a.begin(w)
	ctx, cancel := context.WithCancel(t.Context())
	ended, silent := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		watch := watching{from: 1, begin: begin, patience: patience}
		for a.followOnce(ctx, &watch) {
		}
	}()
	go func() {
		defer close(silent)
		for {
			select {
			case a.hangs <- struct{}{}:
			case <-ctx.Done():
				return
			}
			select {
			case complaint <- struct{}{}:
			default: // nobody listens now
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-ended; <-silent })
	return a
}

// TestAWatchIsGivenTime: complaints do not end a watch that has only just begun, or brought something; a store under load answers late, and
// would never. Break it: let followOnce end at each.
func TestAWatchIsGivenTime(t *testing.T) {
	var begun atomic.Int64
	complaint := make(chan struct{})
	a := followed(t, time.Minute, complaint, func(ctx context.Context, from model.Revision) <-chan store.Event {
		begun.Add(1)
		events := make(chan store.Event)
		go func() {
			defer close(events)
			for rev := from + 1; rev <= 20; rev++ {
				for range 3 { // a busy store takes longer than it takes them to come
					select {
					case <-complaint:
					case <-ctx.Done():
						return
					}
				}
				select {
				case events <- store.Event{Revision: rev}:
				case <-ctx.Done():
					return
				}
			}
			<-ctx.Done()
		}()
		return events
	})
	eventually(t, "all has come", func() bool { return a.view.revision() == 20 })
	if n := begun.Load(); n != 1 {
		t.Errorf("%d watches were begun", n)
	}
}

// TestAWatchThatHangsBeginsAgain: and goes on where it stood. Break it: let followOnce hear no complaint.
func TestAWatchThatHangsBeginsAgain(t *testing.T) {
	var begun atomic.Int64
	a := followed(t, time.Millisecond, nil, func(ctx context.Context, from model.Revision) <-chan store.Event {
		events := make(chan store.Event, 1)
		if begun.Add(1) > 1 {
			events <- store.Event{Revision: from + 1}
		}
		go func() { <-ctx.Done(); close(events) }()
		return events
	})
	eventually(t, "the second watch brings something", func() bool { return a.view.revision() > 1 })
}
