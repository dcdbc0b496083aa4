package agent

import (
	"fmt"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// pinger asks hosts themselves, and not their agents, whether they are there: an ICMP echo request to the VTEP's address, which the kernel
// answers. A forger would have to know the number in it, which only the way there and back has seen.
type pinger struct {
	// answered is told of each answer.
	answered func(from netip.Addr, nonce uint64)

	mu      sync.Mutex
	conn    *icmp.PacketConn
	self    netip.Addr
	readers sync.WaitGroup
}

// ICMP's numbers among IP's protocols.
const (
	protocolICMP   = 1
	protocolICMPv6 = 58
)

// ask sends a request from the host's own VTEP address.
func (p *pinger) ask(self, to netip.Addr, nonce uint64) error {
	conn, err := p.open(self)
	if err != nil {
		return err
	}
	m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: int(uint16(nonce >> 16)), Seq: int(uint16(nonce)), Data: head{probeHail, nonce}.append(nil)}}
	if to.Is6() {
		m.Type = ipv6.ICMPTypeEchoRequest
	}
	b, err := m.Marshal(nil)
	if err != nil {
		return err
	}
	_, err = conn.WriteTo(b, &net.IPAddr{IP: to.AsSlice()})
	return err
}

// open gives the socket on the host's own address, and makes it anew when that changed.
func (p *pinger) open(self netip.Addr) (*icmp.PacketConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil && p.self == self {
		return p.conn, nil
	}
	if p.conn != nil {
		p.conn.Close()
		p.conn = nil
	}
	network, protocol := "ip4:icmp", protocolICMP
	if self.Is6() {
		network, protocol = "ip6:ipv6-icmp", protocolICMPv6
	}
	conn, err := icmp.ListenPacket(network, self.String())
	if err != nil {
		return nil, fmt.Errorf("open a socket to ask silent hosts by: %w", err)
	}
	if err := onlyEchoReplies(conn); err != nil {
		conn.Close()
		return nil, fmt.Errorf("have only answers come to the socket to ask silent hosts by: %w", err)
	}
	p.conn, p.self = conn, self
	p.readers.Go(func() { p.read(conn, protocol) })
	return conn, nil
}

// onlyEchoReplies keeps the rest of what the host gets by ICMP from the socket.
func onlyEchoReplies(conn *icmp.PacketConn) error {
	if c := conn.IPv4PacketConn(); c != nil {
		var f ipv4.ICMPFilter
		f.SetAll(true)
		f.Accept(ipv4.ICMPTypeEchoReply)
		return c.SetICMPFilter(&f)
	}
	var f ipv6.ICMPFilter
	f.SetAll(true)
	f.Accept(ipv6.ICMPTypeEchoReply)
	return conn.IPv6PacketConn().SetICMPFilter(&f)
}

// read takes answers until the socket is closed.
func (p *pinger) read(conn *icmp.PacketConn, protocol int) {
	b := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(b)
		if err != nil {
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				continue
			}
			return
		}
		m, err := icmp.ParseMessage(protocol, b[:n])
		if err != nil {
			continue
		}
		echo, ok := m.Body.(*icmp.Echo)
		if !ok {
			continue
		}
		h, ok := parseHead(echo.Data)
		addr, is := netip.AddrFromSlice(from.(*net.IPAddr).IP)
		if ok && is && h.kind == probeHail {
			p.answered(addr.Unmap(), h.nonce)
		}
	}
}

func (p *pinger) close() {
	p.mu.Lock()
	if p.conn != nil {
		p.conn.Close()
	}
	p.mu.Unlock()
	p.readers.Wait()
}
