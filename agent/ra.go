package agent

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/wire"
)

// Router advertisements say where addresses come from (DHCPv6), what is on the link, its MTU and its DNS servers. They name a router only where
// the network has one, in whose name they are then sent: it is known by its link-local address.

const (
	// The pause between advertisements that nobody asked for: MinRtrAdvInterval and MaxRtrAdvInterval of RFC 4861, section 6.2.1.
	leastAdvertisement, mostAdvertisement = 200 * time.Second, 600 * time.Second
	// routerLifetime is the longest that can be said (RFC 8319): an agent that is away takes no router away. One that is taken out of the plan
	// is said with 0.
	routerLifetime = 65535 * time.Second
)

var allNodes = netip.MustParseAddr("ff02::1")

func (c *client) answerSolicitation(f *wire.Frame) ([]byte, string) {
	if f.ICMP.Type != wire.ICMPv6RouterSolicitation || f.IPv6.HopLimit != 255 || f.ICMP.Code != 0 {
		return nil, "no router solicitation of this link"
	}
	if _, ok := c.addresses(f.Ethernet.Src, true); !ok {
		return nil, "a router solicitation from another MAC than the port's own"
	}
	if f.IPv6.Src.IsLinkLocalUnicast() {
		return c.advertisement(f.Ethernet.Src, f.IPv6.Src), ""
	}
	return c.advertisement(wire.MulticastMAC(allNodes), allNodes), ""
}

func (c *client) advertisement(mac wire.MAC, to netip.Addr) []byte {
	a := wire.RouterAdvertisement{Managed: true, Other: true, MAC: wire.ServiceMAC, MTU: uint32(c.mtu), Domain: c.dhcp.domain, DNSLifetime: c.dhcp.lease}
	flow := wire.Flow{SrcMAC: wire.ServiceMAC, DstMAC: mac, Src: wire.ServiceLinkLocal, Dst: to}
	for _, g := range c.dhcp.gateways {
		if g.Is6() && !c.owns(g) {
			flow.Src, a.Lifetime, a.MAC = g, routerLifetime, wire.MAC{}
		}
	}
	for _, ip := range c.ips {
		if ip.Addr().Is6() {
			a.Prefixes = append(a.Prefixes, ip.Masked())
		}
	}
	for _, s := range c.dhcp.dns {
		if s.Is6() {
			a.DNSServers = append(a.DNSServers, s)
		}
	}
	return a.Frame(flow)
}

func advertisementPause() time.Duration {
	return leastAdvertisement + rand.N(mostAdvertisement-leastAdvertisement)
}

// advertise tells every port, after each pause, until the context ends.
func (s *servant) advertise(ctx context.Context, pause func() time.Duration) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause()):
			s.advertiseAll(ctx)
		}
	}
}

func (s *servant) advertiseAll(ctx context.Context) {
	type place struct {
		id      datapath.PortID
		ifindex uint32
	}
	var open []place
	if err := s.agent.do(ctx, func() {
		for ifindex, p := range s.agent.rec.tables.ports {
			if !p.Held && !p.Unguarded && p.Services&datapath.ServeRouter != 0 {
				open = append(open, place{p.ID, ifindex})
			}
		}
	}); err != nil {
		return
	}
	for _, at := range open {
		c := s.client(ctx, at.id)
		if c != nil && s.send(at.ifindex, c.advertisement(wire.MulticastMAC(allNodes), allNodes)) {
			c.counts.advertisements.Add(1)
		}
	}
}
