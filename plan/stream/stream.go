package stream

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"
)

// Protocol is the name by which TLS negotiates it (ALPN).
const Protocol = "weft-plan/1"

// What a frame is.
const (
	frameMessage = iota // one protobuf message
	frameBeat           // nothing, from a side that has nothing to say
	frameEnd            // the last: why, in words
)

const (
	headerOctets = 5
	// keptOctets is how large a buffer may be that is kept in any case; a larger one is while messages need a keptPart of it.
	keptOctets = 16 << 10
	keptPart   = 4
	// stepOctets is how much room is made at once for what is announced and has not come yet.
	stepOctets = 1 << 20
	// endOctets bounds the words of an end, and lastWords how long they may take.
	endOctets = 4096
	lastWords = time.Second
)

// BeatEvery is how long a side says nothing before it says that it is there. The other may wait twice that and more.
const BeatEvery = 3 * time.Second

// ErrSilent ends a stream whose other side has not even said that it is there.
var ErrSilent = errors.New("the other side says nothing any more")

// Ended is why the other side ended the stream.
type Ended struct{ Reason string }

// Error is the reason.
func (e *Ended) Error() string { return e.Reason }

// Conn is one side of a stream. One goroutine may receive while others send.
type Conn struct {
	conn     net.Conn
	limit    int
	patience time.Duration

	began time.Time
	// wrote and heard are when something last went and came, waits is since when Receive waits for more, or 0: nanoseconds since began. Who
	// is busy with what came does not hear, and must not take the other for dead.
	wrote, heard, waits atomic.Int64

	sending sync.Mutex
	out     []byte
	in      []byte

	closing sync.Once
	closed  chan struct{}
	beating sync.WaitGroup
	silent  atomic.Bool
}

// New takes a connection over whose handshake is done. Messages of more than limit octets are refused; a side that says nothing for as long
// as patience is given up.
func New(conn *tls.Conn, limit int, patience time.Duration) *Conn {
	return over(conn, limit, patience, BeatEvery)
}

func over(conn net.Conn, limit int, patience, beatEvery time.Duration) *Conn {
	c := &Conn{conn: conn, limit: limit, patience: patience, began: time.Now(), closed: make(chan struct{})}
	c.beating.Go(func() { c.beat(beatEvery) })
	return c
}

// now is never 0.
func (c *Conn) now() int64 { return int64(time.Since(c.began)) + 1 }

// beat says now and then that this side is there, and looks whether the other is.
func (c *Conn) beat(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-c.closed:
			return
		case <-tick.C:
		}
		now := c.now()
		if since := c.waits.Load(); since != 0 && now-max(since, c.heard.Load()) > int64(c.patience) {
			c.silent.Store(true)
			c.conn.Close()
			return
		}
		// Who sends just now is heard anyway.
		if now-c.wrote.Load() >= int64(every)/2 && c.sending.TryLock() {
			_ = c.write(frameBeat, nil) // Receive learns why not
			c.sending.Unlock()
		}
	}
}

// Send sends one message. It blocks while the other side does not read, until Close or a deadline.
func (c *Conn) Send(m proto.Message) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	return c.write(frameMessage, m)
}

// End says why this side ends the stream, if the other still reads.
func (c *Conn) End(reason string) {
	if len(reason) > endOctets {
		reason = reason[:endOctets]
	}
	_ = c.conn.SetWriteDeadline(time.Now().Add(lastWords))
	c.sending.Lock()
	defer c.sending.Unlock()
	c.out = append(append(c.out[:0], frameEnd, 0, 0, 0, 0), reason...)
	_ = c.flush()
}

// write is one frame in one piece; the caller has the lock.
func (c *Conn) write(kind byte, m proto.Message) (err error) {
	c.out = append(c.out[:0], kind, 0, 0, 0, 0)
	if m != nil {
		if c.out, err = (proto.MarshalOptions{}).MarshalAppend(c.out, m); err != nil {
			return fmt.Errorf("marshal a message: %w", err)
		}
	}
	return c.flush()
}

func (c *Conn) flush() error {
	binary.BigEndian.PutUint32(c.out[1:headerOctets], uint32(len(c.out)-headerOctets))
	_, err := c.conn.Write(c.out)
	c.wrote.Store(c.now())
	if cap(c.out) > max(keptOctets, keptPart*len(c.out)) {
		c.out = nil
	}
	return c.because(err)
}

// Receive takes the next message in. io.EOF is the end of a side that had nothing more to say, Ended one that said why.
func (c *Conn) Receive(m proto.Message) error {
	c.waits.Store(c.now())
	defer c.waits.Store(0)
	for {
		var header [headerOctets]byte
		if err := c.fill(header[:]); err != nil {
			return c.because(err)
		}
		body, err := c.body(header[0], binary.BigEndian.Uint32(header[1:]))
		if err != nil {
			return c.because(err)
		}
		switch header[0] {
		case frameBeat:
			continue
		case frameEnd:
			return &Ended{Reason: string(body)}
		}
		if err := proto.Unmarshal(body, m); err != nil {
			return fmt.Errorf("a message that cannot be read: %w", err)
		}
		return nil
	}
}

// body reads what follows a header. Room is made as it comes, and not because somebody says that it will.
func (c *Conn) body(kind byte, length uint32) ([]byte, error) {
	limit := 0
	switch kind {
	case frameMessage:
		limit = c.limit
	case frameBeat:
	case frameEnd:
		limit = endOctets
	default:
		return nil, fmt.Errorf("a frame of unknown kind %d", kind)
	}
	if int64(length) > int64(limit) {
		return nil, fmt.Errorf("a frame of %d octets, and at most %d are taken", length, limit)
	}
	b := c.in[:0]
	for left := int(length); left > 0; {
		step := min(left, stepOctets)
		if free := cap(b) - len(b); free < step {
			b = append(make([]byte, 0, max(len(b)+step, min(2*len(b), int(length)))), b...)
		}
		if err := c.fill(b[len(b) : len(b)+step]); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		b, left = b[:len(b)+step], left-step
	}
	if c.in = b; cap(b) > max(keptOctets, keptPart*len(b)) {
		c.in = nil
	}
	return b, nil
}

// fill reads until p is full. What comes shows that the other side is there.
func (c *Conn) fill(p []byte) error {
	for got := 0; got < len(p); {
		n, err := c.conn.Read(p[got:])
		if n > 0 {
			c.heard.Store(c.now())
		}
		if got += n; err != nil && got < len(p) {
			if err == io.EOF && got > 0 {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// because puts the reason for which the connection was given up in the place of what became of that.
func (c *Conn) because(err error) error {
	if err != nil && c.silent.Load() {
		return ErrSilent
	}
	return err
}

// SetReadDeadline and SetWriteDeadline end a Receive or Send under way. After one has passed, the stream is of no use any more.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.conn.SetReadDeadline(t) }

// SetWriteDeadline is like SetReadDeadline.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.conn.SetWriteDeadline(t) }

// Close ends the stream and whatever is under way on it. It may be called more than once, and from anywhere.
func (c *Conn) Close() (err error) {
	c.closing.Do(func() {
		close(c.closed)
		err = c.conn.Close()
	})
	c.beating.Wait()
	return err
}
