package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/netdev"
)

// StreamResult is what one TCP stream carried.
type StreamResult struct {
	Octets   uint64
	Duration time.Duration
	// Retransmits the sender counted.
	Retransmits uint64
}

// Gbps is the rate of the payload in 10^9 bits per second.
func (r StreamResult) Gbps() float64 {
	if r.Duration <= 0 {
		return 0
	}
	return float64(r.Octets) * 8 / r.Duration.Seconds() / 1e9
}

const (
	streamChunk = 256 << 10
	// warmUp is not counted: slow start.
	warmUp = 300 * time.Millisecond
	// streamPatience is for what a stream takes longer than that.
	streamPatience = 30 * time.Second
)

// Stream measures one TCP stream with cubic from one namespace to an address of another, for a duration after a warm-up. The
// receiver counts.
func Stream(ctx context.Context, from, to *netdev.Handle, dst netip.Addr, d time.Duration) (StreamResult, error) {
	ctx, cancel := context.WithTimeout(ctx, warmUp+d+streamPatience)
	defer cancel()
	l, err := to.Listen(ctx, "tcp", net.JoinHostPort(dst.String(), "0"))
	if err != nil {
		return StreamResult{}, fmt.Errorf("stream to %s: listen: %w", dst, err)
	}
	defer l.Close()
	dialer := &net.Dialer{Control: func(_, _ string, c syscall.RawConn) error { return control(c, useCubic) }}
	conn, err := from.Dial(ctx, dialer, "tcp", l.Addr().String())
	if err != nil {
		return StreamResult{}, fmt.Errorf("stream to %s: %w", dst, err)
	}
	defer conn.Close()
	far, err := l.Accept()
	if err != nil {
		return StreamResult{}, fmt.Errorf("stream to %s: accept: %w", dst, err)
	}
	defer far.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close(); far.Close() })
	defer stop()
	sent := make(chan error, 1)
	measured := make(chan struct{})
	go func() { sent <- pour(conn, measured) }()
	r, err := drain(far, d, measured)
	if err == nil {
		err = <-sent
		r.Retransmits = retransmits(conn)
	} else {
		conn.Close()
		<-sent
	}
	if err != nil {
		return r, fmt.Errorf("stream to %s: %w", dst, errors.Join(context.Cause(ctx), err))
	}
	return r, nil
}

// pour sends until the receiver has measured: by a clock of its own it could be over before that began, where a process stood still for a while.
func pour(c net.Conn, measured <-chan struct{}) error {
	buf := make([]byte, streamChunk)
	for {
		select {
		case <-measured:
			return c.(*net.TCPConn).CloseWrite()
		default:
		}
		if _, err := c.Write(buf); err != nil {
			return err
		}
	}
}

func drain(c net.Conn, d time.Duration, measured chan<- struct{}) (r StreamResult, err error) {
	buf := make([]byte, streamChunk)
	began := time.Now()
	var from time.Time
	for {
		n, err := c.Read(buf)
		now := time.Now()
		switch {
		case from.IsZero() && now.Sub(began) >= warmUp:
			from = now
		case !from.IsZero() && now.Sub(from) <= d:
			r.Octets += uint64(n)
			r.Duration = now.Sub(from)
		case !from.IsZero() && measured != nil:
			close(measured)
			measured = nil
		}
		if errors.Is(err, io.EOF) {
			return r, nil
		}
		if err != nil {
			return r, err
		}
	}
}

// useCubic chooses the congestion control that results are compared with; the machine's own default may be another.
func useCubic(fd uintptr) error {
	return unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "cubic")
}

func retransmits(c net.Conn) uint64 {
	var total uint64
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			total = uint64(info.Total_retrans)
		}
	})
	return total
}

func control(c syscall.RawConn, f func(fd uintptr) error) (err error) {
	cerr := c.Control(func(fd uintptr) { err = f(fd) })
	return errors.Join(cerr, err)
}
