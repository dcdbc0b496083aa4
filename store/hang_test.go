package store

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// member is a way to an etcd that can hang: it takes what it gets and passes nothing on, as a process that was stopped.
type member struct {
	endpoint string
	gate     sync.RWMutex // held by who lets it hang
	conns    sync.WaitGroup
}

func startMember(t *testing.T, endpoint string) *member {
	t.Helper()
	path := filepath.Join(shortDir(t), "m")
	l, err := net.Listen("unix", path)
	must(t, err)
	m := &member{endpoint: "unix://" + path}
	var mu sync.Mutex
	var open []net.Conn
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		m.conns.Wait()
	})
	pass := func(from, to net.Conn) {
		defer from.Close()
		defer to.Close()
		buf := make([]byte, 32<<10)
		for {
			n, err := from.Read(buf)
			m.gate.RLock()
			if err == nil {
				_, err = to.Write(buf[:n])
			}
			m.gate.RUnlock()
			if err != nil {
				return
			}
		}
	}
	m.conns.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("unix", strings.TrimPrefix(endpoint, "unix://"))
			if err != nil {
				near.Close()
				continue
			}
			mu.Lock()
			open = append(open, near, far)
			mu.Unlock()
			m.conns.Go(func() { pass(near, far) })
			m.conns.Go(func() { pass(far, near) })
		}
	})
	return m
}

// TestReadPastAMemberThatHangs: a read that meets a member which takes requests and answers none is answered by another. Break it: count readPatience
// from the beginning of the first try, which takes longer than that.
func TestReadPastAMemberThatHangs(t *testing.T) {
	endpoint := embeddedEndpoint(t)
	m := startMember(t, endpoint)
	s := openAt(t, Config{Endpoints: []string{m.endpoint, endpoint}, Prefix: prefix(), CompactEvery: -1, Timeout: patience})
	read := func() time.Duration {
		t.Helper()
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, err := s.peek(ctx)
		must(t, err)
		return time.Since(began)
	}
	for range 4 { // both are in use
		read()
	}
	m.gate.Lock()
	defer m.gate.Unlock()
	var longest time.Duration
	for i := 0; i < 4 && longest < attemptTime; i++ {
		longest = max(longest, read())
	}
	if longest < attemptTime {
		t.Errorf("no read met the member that hangs: the longest took %s", longest)
	}
}
