package datapath

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// echo answers UDP and swallows TCP on port 7 of the workload, until the test ends.
func (w *workload) echo() {
	t := w.host.t
	t.Helper()
	for _, ip := range []netip.Addr{w.ip4, w.ip6} {
		c, err := w.ns.ListenPacket(t.Context(), "udp", netip.AddrPortFrom(ip, 7).String())
		must(t, err)
		done := make(chan struct{})
		t.Cleanup(func() { c.Close(); <-done })
		go func() {
			defer close(done)
			b := make([]byte, 65536)
			for {
				n, from, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				c.WriteTo(b[:n], from)
			}
		}()
	}
}

// ping sends a datagram to port 7 of the other and waits for its echo.
func (w *workload) ping(to netip.Addr, size int) error {
	c, err := w.caller(to)
	if err != nil {
		return err
	}
	defer c.Close()
	return call(c, size)
}

// caller is a socket to another workload's echo.
func (w *workload) caller(to netip.Addr) (net.Conn, error) {
	var d net.Dialer
	return w.ns.Dial(w.host.t.Context(), &d, "udp", netip.AddrPortFrom(to, 7).String())
}

// call wants back what it sends.
func call(c net.Conn, size int) error {
	want := make([]byte, size)
	rand.Read(want)
	got := make([]byte, size+1)
	var failed error
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) { // a datagram may be lost while addresses are being resolved, and the next be refused for it
		if _, failed = c.Write(want); failed != nil {
			time.Sleep(time.Millisecond)
			continue
		}
		c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		n, err := c.Read(got)
		if err == nil && string(got[:n]) == string(want) {
			return nil
		}
	}
	return errors.Join(fmt.Errorf("no echo from %s", c.RemoteAddr()), failed)
}

// stream sends n octets by TCP and compares what arrives.
func (w *workload) stream(to *workload, ip netip.Addr, n int64) error {
	t := w.host.t
	l, err := to.ns.Listen(t.Context(), "tcp", netip.AddrPortFrom(ip, 5001).String())
	if err != nil {
		return err
	}
	defer l.Close()
	type result struct {
		sum []byte
		err error
	}
	got := make(chan result, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			got <- result{err: err}
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(2 * patience))
		h := sha256.New()
		_, err = io.Copy(h, c)
		got <- result{h.Sum(nil), err}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var d net.Dialer
	c, err := w.ns.Dial(ctx, &d, "tcp", netip.AddrPortFrom(ip, 5001).String())
	if err != nil {
		return err
	}
	c.SetDeadline(time.Now().Add(2 * patience))
	h := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(c, h), rand.Reader, n); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	c.Close()
	r := <-got
	if r.err == nil && string(r.sum) != string(h.Sum(nil)) {
		r.err = fmt.Errorf("the stream arrived changed")
	}
	return r.err
}

// TestPingAcrossHosts turns red when, for instance, strip() does not pass DECAP_L3_IPV6, or encapsulation is refused.
func TestPingAcrossHosts(t *testing.T) {
	for _, ip6 := range []bool{false, true} {
		t.Run(map[bool]string{false: "underlay4", true: "underlay6"}[ip6], func(t *testing.T) {
			a, b := twoHosts(t, ip6)
			join(t, 5001, a, b)
			w1, w2 := a.workload(5001, 1, b), b.workload(5001, 2, a)
			w3 := a.workload(5001, 3, b)
			w2.echo()
			w3.echo()
			for _, to := range []netip.Addr{w2.ip4, w2.ip6, w3.ip4, w3.ip6} {
				for _, size := range []int{1, 100, 1472 - 24} {
					if err := w1.ping(to, size); err != nil {
						t.Errorf("%d octets to %s: %v", size, to, err)
					}
				}
			}
			for _, ip := range []netip.Addr{w2.ip4, w2.ip6} {
				if err := w1.stream(w2, ip, 8<<20); err != nil {
					t.Errorf("TCP to %s: %v", ip, err)
				}
			}
			a.balanced()
			b.balanced()
		})
	}
}

// segments sends one UDP aggregate (UDP_SEGMENT), and reads the datagrams that it stands for.
func (w *workload) segments(to *workload, ip netip.Addr, size, n int) error {
	c, err := to.ns.ListenPacket(w.host.t.Context(), "udp", netip.AddrPortFrom(ip, 5002).String())
	if err != nil {
		return err
	}
	defer c.Close()
	var dialer net.Dialer
	out, err := w.ns.Dial(w.host.t.Context(), &dialer, "udp", netip.AddrPortFrom(ip, 5002).String())
	if err != nil {
		return err
	}
	defer out.Close()
	raw, err := out.(*net.UDPConn).SyscallConn()
	if err != nil {
		return err
	}
	if err := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, size) }); err != nil {
		return err
	}
	want := bytes.Buffer{}
	for i := range n {
		want.Write(bytes.Repeat([]byte{byte(i + 1)}, size))
	}
	if _, err := out.Write(want.Bytes()); err != nil {
		return err
	}
	got, b := bytes.Buffer{}, make([]byte, 65536)
	c.SetReadDeadline(time.Now().Add(patience))
	for i := range n {
		k, _, err := c.ReadFrom(b)
		if err != nil {
			return fmt.Errorf("after %d of %d datagrams: %w", i, n, err)
		}
		if k != size {
			return fmt.Errorf("a datagram of %d octets, not %d", k, size)
		}
		got.Write(b[:k])
	}
	if !bytes.Equal(got.Bytes(), want.Bytes()) {
		return fmt.Errorf("the datagrams arrived changed, or in another order")
	}
	return nil
}

// TestAggregatesOfDatagrams: what a workload sends by UDP_SEGMENT crosses the underlay whole and arrives as the datagrams it stands for. Red when
// from_uplink strips such an aggregate itself: nothing arrives.
func TestAggregatesOfDatagrams(t *testing.T) {
	eachUnderlay(t, func(t *testing.T, ip6 bool) {
		a, b := twoHosts(t, ip6)
		join(t, 7, a, b)
		w1, w2 := a.workload(7, 1, b), b.workload(7, 2, a)
		w2.echo()
		for _, to := range []netip.Addr{w2.ip4, w2.ip6} {
			must(t, w1.ping(to, 100))
			before := b.book("from_uplink").Delivered
			for _, size := range []int{100, 1200, 1448} {
				if err := w1.segments(w2, to, size, 40); err != nil {
					t.Errorf("40 datagrams of %d octets to %s: %v", size, to, err)
				}
			}
			if n := b.lane(LaneAggregate); n == 0 {
				t.Errorf("no aggregate came whole; %d packets were delivered", b.book("from_uplink").Delivered-before)
			}
		}
		a.balanced()
		b.balanced()
	})
}
