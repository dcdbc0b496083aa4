package agent

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/wire"
)

// What workloads ask of their host, and it answers from the plan alone: DHCPv4, DHCPv6, router solicitations. Nothing is stored: a lease is what
// the plan says, whoever asks, whenever. So it goes on without a server, after a restart from the snapshot, and on the host that a port moved to.

// dhcp is what a network tells its ports.
type dhcp struct {
	gateways, dns []netip.Addr
	domain        string
	routes        []route
	lease         time.Duration
}

type route struct {
	prefix  netip.Prefix
	gateway netip.Addr
}

func decodeDHCP(m *planv1.Dhcp) (*dhcp, error) {
	if m == nil {
		return nil, nil
	}
	d := &dhcp{domain: m.Domain, lease: time.Duration(cmp.Or(m.LeaseSeconds, 86400)) * time.Second}
	for _, list := range []struct {
		from []string
		to   *[]netip.Addr
	}{{m.Gateways, &d.gateways}, {m.DnsServers, &d.dns}} {
		for _, s := range list.from {
			a, err := netip.ParseAddr(s)
			if err != nil {
				return nil, err
			}
			*list.to = append(*list.to, a)
		}
	}
	for _, r := range m.Routes {
		p, err := netip.ParsePrefix(r.Prefix)
		if err != nil {
			return nil, err
		}
		g, err := netip.ParseAddr(r.Gateway)
		if err != nil {
			return nil, err
		}
		d.routes = append(d.routes, route{p.Masked(), g})
	}
	return d, nil
}

// services are what a port gets of its host, and may do itself. Where a port of the network may advertise itself as a router, it is left to it.
func (r *Reconciler) services(p *port, n *network) (s datapath.Services) {
	if p.dhcpServer {
		s |= datapath.MayServeDHCP
	}
	if p.router {
		s |= datapath.MayAdvertise
	}
	if n.dhcp == nil {
		return s
	}
	for _, ip := range p.ips {
		switch {
		case ip.Addr().Is4():
			s |= datapath.ServeDHCP4
		case len(r.view.routers[n.uid]) == 0:
			s |= datapath.ServeDHCP6 | datapath.ServeRouter
		default:
			s |= datapath.ServeDHCP6
		}
	}
	return s
}

// client is a port as the answers need it; shared, and never changed.
type client struct {
	uid, hostname string
	macs          []wire.MAC
	ips           []netip.Prefix
	mtu           int
	dhcp          *dhcp
	services      datapath.Services
	counts        *serviceCounts
}

type serviceCounts struct{ requests, answers, refused, advertisements atomic.Uint64 }

func (c *serviceCounts) proto() *planv1.ServiceCounts {
	m := &planv1.ServiceCounts{Requests: c.requests.Load(), Answers: c.answers.Load(), Refused: c.refused.Load(), Advertisements: c.advertisements.Load()}
	if m.Requests+m.Advertisements == 0 {
		return nil
	}
	return m
}

// clientOf is a port that is served; nil: it is not.
func (r *Reconciler) clientOf(uid string) *client {
	p := r.view.ports[uid]
	if p == nil {
		return nil
	}
	n := r.view.nets[p.network]
	if n == nil || n.dhcp == nil {
		return nil
	}
	return &client{uid: uid, hostname: p.hostname, macs: p.macs, ips: p.ips, mtu: n.mtu, dhcp: n.dhcp, services: r.services(p, n)}
}

// addresses are those of a family that the port's workload gets for one of its MACs: all, or where it has several MACs, the one that stands
// in the MAC's place. ok is false of a MAC that is not the port's own.
func (c *client) addresses(mac wire.MAC, six bool) (list []netip.Prefix, ok bool) {
	i := slices.Index(c.macs, mac)
	if i < 0 {
		return nil, false
	}
	for _, ip := range c.ips {
		if ip.Addr().Is6() == six {
			list = append(list, ip)
		}
	}
	switch {
	case len(c.macs) == 1:
		return list, true
	case i >= len(list):
		return nil, true
	}
	return list[i : i+1], true
}

// owns reports whether an address is the port's.
func (c *client) owns(a netip.Addr) bool {
	return slices.ContainsFunc(c.ips, func(ip netip.Prefix) bool { return ip.Addr() == a })
}

// answer is the frame for what the workload asks, or nil. why says what was refused of it, with or without an answer.
func (c *client) answer(frame []byte, length int) (out []byte, why string) {
	if length > len(frame) {
		return nil, fmt.Sprintf("%d octets are more than a request has", length)
	}
	f, err := wire.ParseFrame(frame)
	if err != nil {
		return nil, err.Error()
	}
	switch {
	case f.Has(wire.LayerARP):
		return c.answerARP(&f)
	case f.IPv4.IsFragment() || f.IPv6.IsFragment():
		return nil, "a fragment"
	case f.Has(wire.LayerIPv4 | wire.LayerUDP):
		return c.answerDHCP4(&f)
	case f.Has(wire.LayerIPv6 | wire.LayerUDP):
		return c.answerDHCP6(&f)
	case f.Has(wire.LayerICMPv6):
		return c.answerSolicitation(&f)
	}
	return nil, "no request"
}

// answerARP tells where the DHCP server is, for the requests that renew a lease.
func (c *client) answerARP(f *wire.Frame) ([]byte, string) {
	if f.ARP.Op != wire.ARPRequest || f.ARP.TargetIP != wire.DHCPServer4 || f.ARP.SenderMAC != f.Ethernet.Src {
		return nil, "ARP for another"
	}
	return f.ARP.Reply(wire.ServiceMAC).Frame(), ""
}

// servant answers. Its table is a cache of what the loop knows: it is asked once for each port and change.
type servant struct {
	log   *slog.Logger
	agent *Agent
	// transmit puts a frame on an interface.
	transmit func(ifindex uint32, frame []byte) error

	mu      sync.Mutex
	clients map[datapath.PortID]*client
	counts  map[string]*serviceCounts // by port uid
}

func (a *Agent) startServant(ctx context.Context, tasks *sync.WaitGroup) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open a socket for answers to workloads: %w", err)
	}
	a.servant = newServant(a, func(ifindex uint32, frame []byte) error {
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: int(ifindex), Halen: 6})
	})
	if err := a.kernel.Punts(ctx, func(p datapath.Punt) { a.servant.serve(ctx, p) }); err != nil {
		unix.Close(fd)
		return err
	}
	tasks.Go(func() { a.servant.advertise(ctx, advertisementPause) })
	return nil
}

func newServant(a *Agent, transmit func(ifindex uint32, frame []byte) error) *servant {
	return &servant{log: a.log, agent: a, transmit: transmit, clients: map[datapath.PortID]*client{}, counts: map[string]*serviceCounts{}}
}

// forget is for the loop, when what it knows may have changed.
func (s *servant) forget() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.clients)
	for uid := range s.counts {
		if _, here := s.agent.atts.byUID[uid]; !here {
			delete(s.counts, uid)
		}
	}
}

// countsOf is what a report says of a port.
func (s *servant) countsOf(uid string) *planv1.ServiceCounts {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.counts[uid]; c != nil {
		return c.proto()
	}
	return nil
}

// client is who has a port number; the loop is asked if need be.
func (s *servant) client(ctx context.Context, id datapath.PortID) *client {
	s.mu.Lock()
	c, known := s.clients[id]
	s.mu.Unlock()
	if known {
		return c
	}
	// An agent that ends answers nobody.
	_ = s.agent.do(ctx, func() {
		for uid, n := range s.agent.rec.portIDs {
			if n == id {
				c = s.agent.rec.clientOf(uid)
			}
		}
		s.learn(id, c)
	})
	return c
}

// learn keeps what the loop said of a port. It is called in the loop.
func (s *servant) learn(id datapath.PortID, c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clients[id] = c; c == nil {
		return
	}
	if s.counts[c.uid] == nil {
		s.counts[c.uid] = &serviceCounts{}
	}
	c.counts = s.counts[c.uid]
}

// serve answers one request.
func (s *servant) serve(ctx context.Context, p datapath.Punt) {
	c := s.client(ctx, p.ID)
	if c == nil {
		return
	}
	c.counts.requests.Add(1)
	// What a workload sends reaches parsers that others wrote: one that panics costs that workload its answer, and nobody else.
	defer func() {
		if broken := recover(); broken != nil {
			c.counts.refused.Add(1)
			s.log.Error("a workload's request broke its parser: please report it", "port", c.uid, "frame", fmt.Sprintf("%x", p.Frame), "err", broken)
		}
	}()
	frame, why := c.answer(p.Frame, p.Length)
	if why != "" {
		c.counts.refused.Add(1)
		s.log.Debug("a workload's request is refused", "port", c.uid, "why", why)
	}
	if frame != nil && s.send(p.Ifindex, frame) && why == "" {
		c.counts.answers.Add(1)
	}
}

// send gives a frame to a workload: it leaves on the host's end of its interface.
func (s *servant) send(ifindex uint32, frame []byte) bool {
	err := s.transmit(ifindex, frame)
	if err != nil {
		s.log.Warn("an answer to a workload could not be sent", "ifindex", ifindex, "err", err)
	}
	return err == nil
}
