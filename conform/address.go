package conform

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/weftnet/weft/datapath"
)

// addressCases are of which outer address is sent from, and which one is sent to.
func addressCases() []Case {
	f := frame(mac1, macA, 100)
	// The VTEP is an address of the loopback interface, which the routes to the other VTEPs would never choose.
	loopback := func(b *bed) error {
		l := b.local(4789)
		l.Addr4, l.Addr6 = IPv4.addresses().Loopback, IPv6.addresses().Loopback
		return b.dp.SetLocal(l)
	}
	return []Case{
		prepared("18", "the outer source is the VTEP's address, not the route's: a VTEP on loopback", loopback, func(b *bed) trial {
			f := frame(macA, mac1, 100)
			t := b.leaves(f)
			t.tunnels[0].from = b.addr.Loopback
			return t
		}),
		prepared("18", "and so in a flood", loopback, func(b *bed) trial {
			f := frame(macGroup, mac1, 100)
			t := trial{fromW1: [][]byte{f}, at: b.members("w1", f), tunnels: []sent{b.to(b.addr.A, f), b.to(b.addr.B, f)}, lanedOut: 2}
			for i := range t.tunnels {
				t.tunnels[i].from = b.addr.Loopback
			}
			return t.passOut("xdp_several")
		}),
		prepared("18", "and so through a router", loopback, func(b *bed) trial {
			f := frame(macFar, mac1, 100)
			return trial{fromW1: [][]byte{f}, tunnels: []sent{b.to(b.addr.Far, f, func(s *sent) { s.via, s.from = macRouter, b.addr.Loopback })}, lanedOut: 1}
		}),
		prepared("18", "a VTEP on loopback receives", loopback, func(b *bed) trial {
			return arrives(b.in(f, func(p *tunnel) { p.dst = b.addr.Loopback }), f)
		}),
		prepared("24", "to an address that was the VTEP's: the kernel lane is shut to it", loopback, func(b *bed) trial { return b.shut(b.in(f)) }),
		simple("24", "to another address of this host: the kernel lane is shut to it", func(b *bed) trial {
			return b.shut(b.in(f, func(p *tunnel) { p.dst = b.addr.Second }))
		}),
		{Rule: "24", Name: "to another address of this host, another UDP port: its own program gets it untouched", do: func(b *bed) error {
			return b.untouched(netip.AddrPortFrom(b.addr.Second, 4790))
		}},
		{Rule: "12", Name: "to the VTEP's address, another UDP port: the host's own program gets it untouched", do: func(b *bed) error {
			return b.untouched(netip.AddrPortFrom(b.addr.Own, 8472))
		}},
		{Rule: "12", Name: "a VTEP's own UDP port, and what only the kernel lane can do: dropped by name", do: func(b *bed) error {
			if err := b.dp.PutVTEPs([]datapath.VTEP{{ID: vtepA, Addr: b.addr.A, UDPPort: 8472, OuterChecksum: true}}); err != nil {
				return err
			}
			return b.try(held(frame(macA, mac1, 100), "kernel_lane_port").passOut("xdp_checksum"))
		}},
	}
}

// shut: the packet reaches the kernel's device past the checks, and goes no further.
func (b *bed) shut(packet []byte) trial {
	return trial{fromPeer: [][]byte{packet}, foreign: 1, unmarked: 1, drops: map[string]uint64{"unmarked": 1}}
}

// untouched: a program of the host's that listens at the address gets the datagram as it was sent.
func (b *bed) untouched(at netip.AddrPort) (err error) {
	conn, err := b.host.ListenPacket(context.Background(), "udp", at.String())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	// A program takes no IPv6 datagram without checksum (RFC 8200, section 8.1).
	packet := b.in(frame(mac1, macA, 100), func(p *tunnel) {
		p.dst, p.l4dst, p.checksum, p.flags, p.reserved = at.Addr(), at.Port(), true, 0xa5, [4]byte{1, 2, 3, 4}
	})
	if err := b.try(ignored(packet)); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(b.patience)); err != nil {
		return err
	}
	got := make([]byte, 2048)
	n, from, err := conn.ReadFrom(got)
	if err != nil {
		return err
	}
	if want := packet[udpAt(packet)+8:]; !bytes.Equal(got[:n], want) {
		return fmt.Errorf("the host's own program got\n%x, want\n%x", got[:n], want)
	}
	if src := from.(*net.UDPAddr).AddrPort().Addr().Unmap(); src != b.addr.A {
		return fmt.Errorf("the host's own program got it from %s, want %s", src, b.addr.A)
	}
	return nil
}
