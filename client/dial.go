package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/weftnet/weft/trust"
)

const (
	// attempt bounds one try of one address, so that a silent server does not use up the others' time.
	attempt = 3 * time.Second
	// pause between rounds over all the servers.
	pause = 200 * time.Millisecond
	// head is how long an address has before the next one is tried beside it.
	head = 400 * time.Millisecond
	// A connection on which nothing has come for pingAfter is asked whether it lives, and given up when it does not say so in pingTimeout.
	pingAfter, pingTimeout = 5 * time.Second, 10 * time.Second
)

// dialer makes connections: to one socket, or to the first server that answers and proves itself.
type dialer struct {
	what     string // "server" or "agent", for messages
	socket   string
	servers  []string
	pin      trust.Pin
	patience time.Duration
	clock    func() time.Time

	mu sync.Mutex
	// connected is the address, by its place, that a connection was last made to; those made from now on begin with first.
	connected, first int
	// generation counts how often a server was left: requests of one do not share a connection with those of another.
	generation int
}

// transport sends requests over the dialer's connections: HTTP/2 over TLS; HTTP/1.1 on a socket.
func (d *dialer) transport() *http.Transport {
	t := &http.Transport{
		MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute,
		HTTP2: &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
	}
	if d.socket != "" {
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return d.dial(ctx) }
		return t
	}
	t.ForceAttemptHTTP2 = true
	t.DialTLSContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return d.dial(ctx) }
	return t
}

// base is the URL that requests are made to; the dialer decides where they go.
func (d *dialer) base() string {
	if d.socket != "" {
		return "http://weft"
	}
	return "https://weft"
}

// now is the generation that a request of this moment belongs to.
func (d *dialer) now() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.generation
}

// leave has the requests that follow begin with another server than those of that generation had, and reports that there is one.
func (d *dialer) leave(generation int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.servers) < 2 {
		return false
	}
	if generation == d.generation { // nobody was faster
		d.generation++
		d.first = (d.connected + 1) % len(d.servers)
	}
	return true
}

// tripper keeps the requests of different generations on different connections. The transport knows connections by the host of the URL.
type tripper struct {
	*http.Transport
	d *dialer
}

// RoundTrip implements http.RoundTripper.
func (t tripper) RoundTrip(req *http.Request) (*http.Response, error) {
	if t.d.socket != "" {
		return t.Transport.RoundTrip(req)
	}
	sent, url := *req, *req.URL
	sent.Host = url.Host
	url.Host = fmt.Sprintf("%s-%d", url.Host, t.d.now())
	sent.URL = &url
	return t.Transport.RoundTrip(&sent)
}

// dial goes over the servers until one answers, patience ends, or waiting cannot help.
func (d *dialer) dial(ctx context.Context) (net.Conn, error) {
	began := time.Now()
	parent := ctx
	ctx, cancel := context.WithTimeout(ctx, d.patience)
	defer cancel()
	un := &Unreachable{What: d.what}
	for {
		conn, tried := d.round(ctx)
		if conn != nil {
			return conn, nil
		}
		hopeless := true
		for i := range tried {
			hopeless = hopeless && isHopeless(tried[i].Err)
			if ctx.Err() != nil && un.Tried != nil {
				tried[i].Err = un.Tried[i].Err // our own patience ended: what it said when it had time says more
			}
		}
		un.Tried, un.Took = tried, time.Since(began)
		if hopeless || parent.Err() != nil {
			return nil, un
		}
		select {
		case <-ctx.Done():
			un.Took = time.Since(began)
			return nil, un
		case <-time.After(pause):
		}
	}
}

// round tries every address once: the next one when one has failed, or has said nothing for a while. The first that answers is taken.
func (d *dialer) round(ctx context.Context) (net.Conn, []Attempt) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	addresses := d.addresses()
	tried := make([]Attempt, len(addresses))
	type answer struct {
		at   int
		conn net.Conn
		err  error
	}
	answers := make(chan answer, len(addresses))
	d.mu.Lock()
	first := d.first
	d.mu.Unlock()
	begun, open := 0, 0
	begin := func() {
		if begun < len(addresses) {
			at := (first + begun) % len(addresses)
			begun, open = begun+1, open+1
			go func() {
				conn, err := d.once(ctx, addresses[at])
				answers <- answer{at, conn, err}
			}()
		}
	}
	begin()
	for open > 0 {
		select {
		case <-time.After(head):
			begin()
		case a := <-answers:
			open--
			if a.err != nil {
				tried[a.at] = Attempt{Address: addresses[a.at], Err: a.err}
				begin()
				continue
			}
			cancel()
			for ; open > 0; open-- { // they were too late
				if late := <-answers; late.conn != nil {
					late.conn.Close()
				}
			}
			d.mu.Lock()
			d.connected = a.at
			d.mu.Unlock()
			return a.conn, nil
		}
	}
	return nil, tried
}

func (d *dialer) addresses() []string {
	if d.socket != "" {
		return []string{d.socket}
	}
	return d.servers
}

func (d *dialer) once(ctx context.Context, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	var nd net.Dialer
	if d.socket != "" {
		return nd.DialContext(ctx, "unix", addr)
	}
	raw, err := nd.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, d.pin.TLS(addr, d.clock))
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return conn, nil
}

// isHopeless reports an error that a few seconds will not mend.
func isHopeless(err error) bool {
	var refusal *trust.Error
	var dns *net.DNSError
	return errors.As(err, &refusal) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) ||
		errors.As(err, &dns) && dns.IsNotFound
}

// WithPort adds the default port to "host", "10.0.0.1", "fd00::1" and "[fd00::1]".
func WithPort(server string) string {
	if _, _, err := net.SplitHostPort(server); err == nil {
		return server
	}
	return net.JoinHostPort(strings.Trim(server, "[]"), DefaultPort)
}

// Attempt is the last try of one address.
type Attempt struct {
	Address string
	Err     error
}

// Unreachable says that nobody answered: where it was tried, and for how long.
type Unreachable struct {
	// What did not answer: "server" or "agent".
	What  string
	Tried []Attempt
	Took  time.Duration
}

// Error is one sentence.
func (u *Unreachable) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "no %s answered in %s: ", u.What, tenths(u.Took))
	for i, a := range u.Tried {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%s: %s", a.Address, cause(a.Err))
	}
	return b.String()
}

// Fix is what to do next.
func (u *Unreachable) Fix() string {
	for _, a := range u.Tried {
		var refusal *trust.Error
		switch {
		case errors.As(a.Err, &refusal):
			return refusal.Fix
		case errors.Is(a.Err, fs.ErrPermission):
			return "run it as root"
		}
	}
	if u.What == "agent" {
		return "run it as root on a host where `weft agent` (or `weft up`) runs, or give --agent-socket"
	}
	return "start the server (`systemctl status weft-server`), or give its address with --server or WEFT_SERVER"
}

// Unwrap gives the attempts' errors.
func (u *Unreachable) Unwrap() []error {
	var errs []error
	for _, a := range u.Tried {
		errs = append(errs, a.Err)
	}
	return errs
}

// cause is what a user understands of a dial error.
func cause(err error) string {
	var refusal *trust.Error
	switch {
	case errors.As(err, &refusal):
		return refusal.Reason
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, fs.ErrNotExist):
		return "there is no such socket"
	case errors.Is(err, fs.ErrPermission):
		return "permission denied"
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer"
	}
	return err.Error()
}

func tenths(d time.Duration) string { return d.Round(100 * time.Millisecond).String() }
