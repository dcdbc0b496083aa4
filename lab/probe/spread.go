package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/netdev"
)

// Spread sends datagrams of many flows from a namespace to an address: each flow has an L4 source port of its own. Nobody
// needs to listen; the answers that say so are ignored. It returns how many were sent.
func Spread(ctx context.Context, ns *netdev.Handle, dst netip.Addr, flows, packets int) (sent int, err error) {
	const firstPort, payload = 20000, 64
	target := netip.AddrPortFrom(dst, 9)
	buf := make([]byte, payload)
	for i := range flows {
		c, err := bound(ctx, ns, dst.Is6(), firstPort+i)
		if err != nil {
			return sent, fmt.Errorf("spread flows to %s: %w", dst, err)
		}
		for range packets {
			// An ICMP error about an earlier datagram is reported by the next send, which is then not done.
			if _, err = c.WriteToUDPAddrPort(buf, target); errors.Is(err, syscall.ECONNREFUSED) {
				_, err = c.WriteToUDPAddrPort(buf, target)
			}
			if err != nil || ctx.Err() != nil {
				c.Close()
				return sent, errors.Join(ctx.Err(), err)
			}
			sent++
		}
		c.Close()
	}
	return sent, nil
}

// bound opens an unconnected datagram socket on a port of the namespace.
func bound(ctx context.Context, ns *netdev.Handle, v6 bool, port int) (*net.UDPConn, error) {
	network := "udp4"
	if v6 {
		network = "udp6"
	}
	c, err := ns.ListenPacket(ctx, network, fmt.Sprintf(":%d", port))
	if err != nil {
		return nil, err
	}
	return c.(*net.UDPConn), nil
}

// setBuffers asks for large socket buffers, beyond the machine's limit where we may.
func setBuffers(c syscall.Conn, octets int) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, octets)
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, octets)
	})
}
