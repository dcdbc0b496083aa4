package probe

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/weftnet/weft/datapath/netdev"
)

// Echo is a TCP server that sends back what it gets.
type Echo struct {
	l     net.Listener
	mu    sync.Mutex
	conns map[net.Conn]struct{} // nil after Close
	wg    sync.WaitGroup
}

// StartEcho listens in a namespace, on every address it has and will have.
func StartEcho(ctx context.Context, ns *netdev.Handle, l4port int) (*Echo, error) {
	l, err := ns.Listen(ctx, "tcp", ":"+strconv.Itoa(l4port))
	if err != nil {
		return nil, fmt.Errorf("echo server: %w", err)
	}
	e := &Echo{l: l, conns: map[net.Conn]struct{}{}}
	e.wg.Go(e.accept)
	return e, nil
}

func (e *Echo) accept() {
	for {
		c, err := e.l.Accept()
		if err != nil {
			return
		}
		if !e.keep(c) {
			c.Close()
			return
		}
		e.wg.Go(func() {
			_, _ = io.Copy(c, c) // the other end says what went wrong
			c.Close()
			e.mu.Lock()
			delete(e.conns, c)
			e.mu.Unlock()
		})
	}
}

// keep has Close end the connection; false if it was here already.
func (e *Echo) keep(c net.Conn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.conns == nil {
		return false
	}
	e.conns[c] = struct{}{}
	return true
}

// Close ends the server and its connections.
func (e *Echo) Close() {
	e.l.Close()
	e.mu.Lock()
	for c := range e.conns {
		c.Close()
	}
	e.conns = nil
	e.mu.Unlock()
	e.wg.Wait()
}

// SessionResult is what came of a TCP connection.
type SessionResult struct {
	// Exchanges are numbered lines that came back.
	Exchanges uint64
	// LongestWait for an answer.
	LongestWait time.Duration
	// Err is why the connection ended before Stop; nil if it did not.
	Err error
}

// Session is a TCP connection to an Echo that is used all the time.
type Session struct {
	conn   net.Conn
	stop   chan struct{}
	done   chan struct{}
	mu     sync.Mutex
	result SessionResult
}

// sessionPatience is how long an answer may take before the connection counts as lost.
const sessionPatience = 30 * time.Second

// StartSession connects from a namespace and exchanges a numbered line with every interval.
func StartSession(ctx context.Context, from *netdev.Handle, dst netip.Addr, l4port int, interval time.Duration) (*Session, error) {
	c, err := from.Dial(ctx, nil, "tcp", netip.AddrPortFrom(dst, uint16(l4port)).String())
	if err != nil {
		return nil, fmt.Errorf("session to %s: %w", dst, err)
	}
	s := &Session{conn: c, stop: make(chan struct{}), done: make(chan struct{})}
	go s.run(interval)
	return s, nil
}

func (s *Session) run(interval time.Duration) {
	defer close(s.done)
	r := bufio.NewReader(s.conn)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for i := uint64(0); ; i++ {
		began := time.Now()
		line := strconv.FormatUint(i, 10)
		s.conn.SetDeadline(began.Add(sessionPatience))
		_, err := io.WriteString(s.conn, line+"\n")
		var got string
		if err == nil {
			got, err = r.ReadString('\n')
		}
		if err == nil && strings.TrimSpace(got) != line {
			err = fmt.Errorf("sent %s, got %q back", line, got)
		}
		s.mu.Lock()
		s.result.LongestWait = max(s.result.LongestWait, time.Since(began))
		if err == nil {
			s.result.Exchanges++
		} else if !errors.Is(err, net.ErrClosed) {
			s.result.Err = err
		}
		s.mu.Unlock()
		if err != nil {
			return
		}
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
	}
}

// Result is how the connection does so far.
func (s *Session) Result() SessionResult {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.result
}

// Stop ends the connection after the exchange under way, and reports.
func (s *Session) Stop() SessionResult {
	close(s.stop)
	<-s.done
	s.conn.Close()
	return s.Result()
}
