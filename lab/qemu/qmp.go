package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

// Monitor speaks QMP, QEMU's machine protocol (docs/interop/qmp-spec.txt of QEMU), over a unix socket. Its methods may be called at the
// same time.
type Monitor struct {
	conn net.Conn
	done chan struct{}

	mu      sync.Mutex
	next    int
	waiting map[int]chan answer
	events  []Event
	// changed is closed and made anew with each event.
	changed chan struct{}
	err     error
}

// Event is one that QEMU told of its own accord.
type Event struct {
	Name string
	// At is QEMU's clock, that of this machine.
	At   time.Time
	Data json.RawMessage
}

// maxEvents that are kept: more than a machine's life has; the oldest go.
const maxEvents = 1024

type answer struct {
	value json.RawMessage
	err   error
}

// message is whatever QEMU sends: a greeting, an answer, or an event.
type message struct {
	ID     *int            `json:"id"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
	Event     string          `json:"event"`
	Data      json.RawMessage `json:"data"`
	Timestamp struct {
		Seconds      int64 `json:"seconds"`
		Microseconds int64 `json:"microseconds"`
	} `json:"timestamp"`
}

// Dial connects to a monitor, which may not be listening yet, until ctx ends.
func Dial(ctx context.Context, path string) (*Monitor, error) {
	conn, err := dialUntil(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("reach QEMU's monitor: %w", err)
	}
	m := &Monitor{conn: conn, done: make(chan struct{}), waiting: map[int]chan answer{}, changed: make(chan struct{})}
	go m.read()
	if err := m.Execute(ctx, "qmp_capabilities", nil, nil); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// dialUntil connects to a unix socket as soon as somebody listens there.
func dialUntil(ctx context.Context, path string) (net.Conn, error) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
		if err == nil {
			return conn, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		case <-tick.C:
		}
	}
}

func (m *Monitor) read() {
	defer close(m.done)
	lines := bufio.NewReader(m.conn)
	for {
		line, err := lines.ReadBytes('\n')
		var msg message
		if err == nil {
			err = json.Unmarshal(line, &msg)
		}
		m.mu.Lock()
		if err != nil {
			m.fail(fmt.Errorf("QEMU's monitor has ended: %w", err))
			m.mu.Unlock()
			return
		}
		m.take(msg)
		m.mu.Unlock()
	}
}

// fail tells everybody who waits; m.mu is held.
func (m *Monitor) fail(err error) {
	m.err = err
	for _, c := range m.waiting {
		c <- answer{err: err}
	}
	m.waiting = nil
	close(m.changed)
}

// take gives a message to whoever waits for it; m.mu is held.
func (m *Monitor) take(msg message) {
	switch {
	case msg.Event != "":
		if len(m.events) == maxEvents {
			m.events = slices.Delete(m.events, 0, 1)
		}
		m.events = append(m.events, Event{Name: msg.Event, At: time.Unix(msg.Timestamp.Seconds, msg.Timestamp.Microseconds*1000), Data: msg.Data})
		close(m.changed)
		m.changed = make(chan struct{})
	case msg.ID != nil && m.waiting[*msg.ID] != nil:
		a := answer{value: msg.Return}
		if msg.Error != nil {
			a.err = fmt.Errorf("QEMU refuses: %s (%s)", msg.Error.Desc, msg.Error.Class)
		}
		m.waiting[*msg.ID] <- a
		delete(m.waiting, *msg.ID)
	}
}

// Execute sends a command and waits for its answer, which is put into result if that is not nil.
func (m *Monitor) Execute(ctx context.Context, command string, arguments, result any) error {
	got := make(chan answer, 1)
	m.mu.Lock()
	if m.err != nil {
		m.mu.Unlock()
		return fmt.Errorf("%s: %w", command, m.err)
	}
	m.next++
	id := m.next
	m.waiting[id] = got
	request := map[string]any{"execute": command, "id": id}
	if arguments != nil {
		request["arguments"] = arguments
	}
	b, err := json.Marshal(request)
	if err == nil {
		_, err = m.conn.Write(append(b, '\n'))
	}
	if err != nil {
		delete(m.waiting, id)
	}
	m.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	select {
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", command, ctx.Err())
	case a := <-got:
		if a.err == nil && result != nil {
			a.err = json.Unmarshal(a.value, result)
		}
		if a.err != nil {
			return fmt.Errorf("%s: %w", command, a.err)
		}
		return nil
	}
}

// Await waits for the first event since the monitor was reached that cond takes.
func (m *Monitor) Await(ctx context.Context, what string, cond func(Event) bool) (Event, error) {
	seen := 0
	for {
		m.mu.Lock()
		i := slices.IndexFunc(m.events[min(seen, len(m.events)):], cond)
		if i >= 0 {
			e := m.events[min(seen, len(m.events))+i]
			m.mu.Unlock()
			return e, nil
		}
		changed, err := m.changed, m.err
		if seen = len(m.events); seen == maxEvents {
			seen = 0 // they move: look at all of them again
		}
		m.mu.Unlock()
		if err != nil {
			return Event{}, fmt.Errorf("wait until %s: %w", what, err)
		}
		select {
		case <-ctx.Done():
			return Event{}, fmt.Errorf("wait until %s: %w", what, ctx.Err())
		case <-changed:
		}
	}
}

// forget drops the events so far, so that Await waits for one that is still to come.
func (m *Monitor) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events = nil
}

// Named takes events by their name.
func Named(name string) func(Event) bool { return func(e Event) bool { return e.Name == name } }

// Close lets go of the monitor; the machine runs on.
func (m *Monitor) Close() {
	m.conn.Close()
	<-m.done
}
