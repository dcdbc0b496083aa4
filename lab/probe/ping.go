package probe

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/netdev"
)

// PingConfig says how to ping; the zero value is one packet of 56 octets, waited for a second.
type PingConfig struct {
	Count int
	// Interval between packets; 0: the next goes when the answer is there or overdue.
	Interval time.Duration
	Timeout  time.Duration
	// Size of the ICMP payload in octets, at least 24.
	Size int
	// TOS is the IPv4 ToS or IPv6 traffic class octet of the requests: DSCP and ECN. A Linux kernel answers with the same.
	TOS int
	// DontFragment forbids fragments on the way.
	DontFragment bool
}

// PingResult is what came of a ping.
type PingResult struct {
	Sent, Received int
	// Duplicates are second answers to one request.
	Duplicates int
	// RTT of the answers in the order of arrival.
	RTT []time.Duration
}

// Complete reports whether every request had exactly one answer.
func (r PingResult) Complete() bool {
	return r.Sent > 0 && r.Received == r.Sent && r.Duplicates == 0
}

const (
	icmpEchoRequest, icmpEchoReply   = 8, 0
	icmp6EchoRequest, icmp6EchoReply = 128, 129
	icmpHeader, pingTag              = 8, 24 // the tag: 16 random octets and the time of sending
	defaultPingSize                  = 56
	defaultPingTimeout               = time.Second
)

// Ping sends ICMP or ICMPv6 echo requests from a namespace and counts the answers. Answers to anything else are not counted.
func Ping(ctx context.Context, ns *netdev.Handle, dst netip.Addr, cfg PingConfig) (PingResult, error) {
	p, err := newPinger(ctx, ns, dst, cfg)
	if err != nil {
		return PingResult{}, fmt.Errorf("ping %s: %w", dst, err)
	}
	defer p.conn.Close()
	stop := context.AfterFunc(ctx, func() { p.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	for i := range p.cfg.Count {
		began := time.Now()
		if err := p.send(i); err != nil {
			return p.result, fmt.Errorf("ping %s: %w", dst, err)
		}
		p.result.Sent++
		if p.cfg.Interval == 0 {
			p.receive(began.Add(p.cfg.Timeout), true)
		} else if i < p.cfg.Count-1 {
			p.receive(began.Add(p.cfg.Interval), false)
		}
		if ctx.Err() != nil {
			return p.result, ctx.Err()
		}
	}
	if p.result.Received < p.result.Sent && p.cfg.Interval > 0 {
		p.receive(time.Now().Add(p.cfg.Timeout), true)
	}
	return p.result, ctx.Err()
}

// PingUntil pings until an answer comes or ctx ends, ten times a second.
func PingUntil(ctx context.Context, ns *netdev.Handle, dst netip.Addr) error {
	for {
		r, err := Ping(ctx, ns, dst, PingConfig{Timeout: 100 * time.Millisecond})
		if r.Received > 0 {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("no answer from %s: %w", dst, context.Cause(ctx))
		}
		// While there is no route or neighbour yet, sending fails at once.
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
}

type pinger struct {
	cfg    PingConfig
	dst    netip.Addr
	conn   *net.IPConn
	id     uint16
	tag    [16]byte
	seen   []bool
	result PingResult
}

func newPinger(ctx context.Context, ns *netdev.Handle, dst netip.Addr, cfg PingConfig) (*pinger, error) {
	cfg.Count = max(cfg.Count, 1)
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultPingTimeout
	}
	if cfg.Size == 0 {
		cfg.Size = defaultPingSize
	}
	cfg.Size = max(cfg.Size, pingTag)
	p := &pinger{cfg: cfg, dst: dst, seen: make([]bool, cfg.Count)}
	rand.Read(p.tag[:])
	p.id = binary.BigEndian.Uint16(p.tag[:])
	network, any := "ip4:icmp", "0.0.0.0"
	if dst.Is6() {
		network, any = "ip6:ipv6-icmp", "::"
	}
	c, err := ns.ListenPacket(ctx, network, any)
	if err != nil {
		return nil, err
	}
	p.conn = c.(*net.IPConn)
	if err := p.options(); err != nil {
		c.Close()
		return nil, err
	}
	return p, nil
}

// options sets what the configuration says of the packets' headers.
func (p *pinger) options() error {
	raw, err := p.conn.SyscallConn()
	if err != nil {
		return err
	}
	level, tos, discover, do := unix.IPPROTO_IP, unix.IP_TOS, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO
	if p.dst.Is6() {
		level, tos, discover, do = unix.IPPROTO_IPV6, unix.IPV6_TCLASS, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO
	}
	cerr := raw.Control(func(fd uintptr) {
		if p.cfg.DontFragment {
			err = unix.SetsockoptInt(int(fd), level, discover, do)
		}
		if p.cfg.TOS != 0 {
			err = errors.Join(err, unix.SetsockoptInt(int(fd), level, tos, p.cfg.TOS))
		}
	})
	return errors.Join(cerr, err)
}

func (p *pinger) send(seq int) error {
	b := make([]byte, icmpHeader+p.cfg.Size)
	b[0] = icmpEchoRequest
	if p.dst.Is6() {
		b[0] = icmp6EchoRequest
	}
	binary.BigEndian.PutUint16(b[4:], p.id)
	binary.BigEndian.PutUint16(b[6:], uint16(seq))
	copy(b[icmpHeader:], p.tag[:])
	binary.BigEndian.PutUint64(b[icmpHeader+len(p.tag):], uint64(time.Now().UnixNano()))
	if !p.dst.Is6() { // the kernel fills in the other
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	}
	_, err := p.conn.WriteTo(b, &net.IPAddr{IP: p.dst.AsSlice()})
	return err
}

// stoodStill is how late a deadline must be noticed to say that this process stood still; it then looks for so long at what came meanwhile.
const stoodStill = 100 * time.Millisecond

// receive takes answers until the deadline, or until none is missing if complete is set.
func (p *pinger) receive(deadline time.Time, complete bool) {
	buf := make([]byte, 65536)
	for again := false; !complete || p.result.Received < p.result.Sent; {
		p.conn.SetReadDeadline(deadline)
		n, from, err := p.conn.ReadFromIP(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if again || time.Since(deadline) < stoodStill {
				return
			}
			again, deadline = true, time.Now().Add(stoodStill)
			continue
		}
		if err != nil {
			continue // an ICMP error about an earlier packet
		}
		p.count(buf[:n], from)
	}
}

func (p *pinger) count(b []byte, from *net.IPAddr) {
	want := byte(icmpEchoReply)
	if p.dst.Is6() {
		want = icmp6EchoReply
	}
	if len(b) < icmpHeader+pingTag || b[0] != want || !bytes.Equal(b[icmpHeader:icmpHeader+16], p.tag[:]) {
		return
	}
	if a, ok := netip.AddrFromSlice(from.IP); !ok || a.Unmap() != p.dst {
		return
	}
	seq := int(binary.BigEndian.Uint16(b[6:]))
	if seq >= len(p.seen) {
		return
	}
	if p.seen[seq] {
		p.result.Duplicates++
		return
	}
	p.seen[seq] = true
	p.result.Received++
	sent := time.Unix(0, int64(binary.BigEndian.Uint64(b[icmpHeader+16:])))
	p.result.RTT = append(p.result.RTT, time.Since(sent))
}

// checksum is the Internet checksum (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
