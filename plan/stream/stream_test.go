package stream

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair is two sides of a connection over loopback. patience and beat are those of the first.
func pair(t *testing.T, limit int, patience, beat time.Duration) (a, b *Conn) {
	t.Helper()
	near, far := connection(t)
	a, b = over(near, limit, patience, beat), over(far, limit, time.Hour, time.Hour)
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func connection(t *testing.T) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

func resource(octets int) *planv1.Resource {
	return &planv1.Resource{Uid: "u", Body: make([]byte, octets)}
}

// TestMessages: what is sent comes, small, empty and large, in order, with beats between. It turns red when a buffer is used again too early,
// or when a beat counts as a message.
func TestMessages(t *testing.T) {
	a, b := pair(t, 8<<20, time.Hour, time.Millisecond)
	sizes := []int{0, 1, keptOctets - 10, keptOctets + 10, stepOctets - 1, 3*stepOctets + 7, 5, 0}
	sent := make(chan error, 1)
	go func() {
		for i, n := range sizes {
			m := resource(n)
			if m.Revision = int64(i); n > 0 {
				m.Body[n-1] = byte(i + 1)
			}
			if err := a.Send(m); err != nil {
				sent <- err
				return
			}
		}
		sent <- a.Send(&planv1.Resource{}) // which takes no octets
	}()
	for i, n := range sizes {
		m := new(planv1.Resource)
		if err := b.Receive(m); err != nil {
			t.Fatal(err)
		}
		if m.Revision != int64(i) || len(m.Body) != n || n > 0 && m.Body[n-1] != byte(i+1) {
			t.Fatalf("message %d came as revision %d with %d octets", i, m.Revision, len(m.Body))
		}
	}
	if err := errors.Join(<-sent, b.Receive(new(planv1.Resource))); err != nil {
		t.Fatal(err)
	}
}

// TestBuffers: large messages one after the other use one buffer on each side, and a small one lets it go. Break it: keep none of that size, or
// keep it for ever.
func TestBuffers(t *testing.T) {
	a, b := pair(t, 8<<20, time.Hour, time.Hour)
	exchange := func(octets int) {
		t.Helper()
		sent := make(chan error, 1)
		go func() { sent <- a.Send(resource(octets)) }()
		if err := errors.Join(b.Receive(new(planv1.Resource)), <-sent); err != nil {
			t.Fatal(err)
		}
	}
	exchange(1 << 18)
	out, in := &a.out[0], &b.in[0]
	exchange(1 << 17)
	if out != &a.out[0] || in != &b.in[0] {
		t.Error("another large message has another buffer")
	}
	exchange(1 << 15)
	if cap(a.out) > 1<<17+1<<10 || cap(b.in) > 1<<17+1<<10 {
		t.Errorf("after a message of %d octets buffers of %d and %d are kept", 1<<15, cap(a.out), cap(b.in))
	}
	exchange(10)
	if cap(a.out) > keptOctets || cap(b.in) > keptOctets {
		t.Errorf("after a small message buffers of %d and %d octets are kept", cap(a.out), cap(b.in))
	}
}

// TestEnds: each way in which a stream ends has its own error.
func TestEnds(t *testing.T) {
	frame := func(kind byte, length uint32, body string) []byte {
		return append([]byte{kind, byte(length >> 24), byte(length >> 16), byte(length >> 8), byte(length)}, body...)
	}
	for name, c := range map[string]struct {
		octets []byte
		want   string
	}{
		"done":              {nil, io.EOF.Error()},
		"inside a header":   {[]byte{0, 0}, io.ErrUnexpectedEOF.Error()},
		"before a body":     {frame(frameMessage, 3, ""), io.ErrUnexpectedEOF.Error()},
		"inside a body":     {frame(frameMessage, 3, "x"), io.ErrUnexpectedEOF.Error()},
		"too large":         {frame(frameMessage, 1001, ""), "a frame of 1001 octets, and at most 1000 are taken"},
		"a beat with words": {frame(frameBeat, 1, "x"), "at most 0 are taken"},
		"long words":        {frame(frameEnd, endOctets+1, ""), "at most 4096 are taken"},
		"a reason":          {frame(frameEnd, 3, "why"), "why"},
		"unknown":           {frame(7, 0, ""), "unknown kind 7"},
		"no message":        {frame(frameMessage, 1, "\xff"), "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			near, far := connection(t)
			b := over(far, 1000, time.Hour, time.Hour)
			defer b.Close()
			if _, err := near.Write(c.octets); err != nil {
				t.Fatal(err)
			}
			near.Close()
			if err := b.Receive(new(planv1.Resource)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// TestReason: what one side says at the end reaches the other, cut to its bound.
func TestReason(t *testing.T) {
	a, b := pair(t, 1000, time.Hour, time.Hour)
	a.End(strings.Repeat("x", endOctets+5))
	err := b.Receive(new(planv1.Resource))
	if end := new(Ended); !errors.As(err, &end) || len(end.Reason) != endOctets {
		t.Errorf("%T %v", err, err)
	}
}

// TestSilence: a side that does not even beat is given up, by who waits for it. It turns red when nobody looks, or when beats do not count.
func TestSilence(t *testing.T) {
	a, _ := pair(t, 1000, 20*time.Millisecond, 10*time.Millisecond) // the other beats once an hour
	if err := a.Receive(new(planv1.Resource)); err != ErrSilent {
		t.Errorf("%v", err)
	}
	if err := a.Send(resource(1)); err == nil {
		t.Error("and it can still send")
	}
}

// TestBeats: who has nothing to say says that it is there, and nothing else. One that does not receive does not wait, so that it cannot take the
// other for dead.
func TestBeats(t *testing.T) {
	near, far := connection(t)
	a := over(near, 1000, time.Hour, time.Millisecond)
	defer a.Close()
	beats := make([]byte, 50*headerOctets)
	if err := far.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(far, beats); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(beats, bytes.Repeat([]byte{frameBeat, 0, 0, 0, 0}, 50)) {
		t.Errorf("% x", beats[:20])
	}
	if a.waits.Load() != 0 {
		t.Error("it takes itself for waiting while nobody receives")
	}
}

// TestCloseBreaks: Close ends a Send that the other side does not read, and a Receive.
func TestCloseBreaks(t *testing.T) {
	a, _ := pair(t, 1000, time.Hour, time.Millisecond)
	ends := make(chan error, 2)
	go func() {
		for {
			if err := a.Send(resource(1 << 20)); err != nil {
				ends <- err
				return
			}
		}
	}()
	go func() { ends <- a.Receive(new(planv1.Resource)) }()
	a.Close()
	for range 2 {
		select {
		case err := <-ends:
			if err == nil {
				t.Error("it ended well")
			}
		case <-time.After(time.Minute):
			t.Fatal("something still hangs")
		}
	}
}
