package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/client"
	"github.com/weftnet/weft/wire"
)

// The arp measure: a workload asks who has one of many addresses whose workloads are on the other host, and its own host answers: weft from its
// table of neighbours, the bridge by neighbour suppression on its vxlan port, from static neighbours and a static FDB. Answers are counted where
// they come back. Before, each address is asked for once, and each answer looked at.
//
//	workload: generator -> eth0 ==> host: whose is it? ==> eth0 -> counter, drop

const (
	arpLength  = 14 + wire.ARPLen
	nsLength   = 14 + 40 + 24 + 8
	nsTarget   = 14 + 40 + 8
	nsChecksum = 14 + 40 + 2
)

var (
	arpAddrs = []netip.Prefix{netip.MustParsePrefix("10.96.0.11/15"), netip.MustParsePrefix("fd00:96::11/64")}
	arpMAC   = wire.MAC{0x02, 0x77, 0x65, 0, 0, 0x0e}
)

// arpKnown is workload i of those that are asked for: its number is 16 bits of each of its addresses, and no part of what solicited-node groups
// are made of.
func arpKnown(i int) (mac wire.MAC, ip4, ip6 netip.Addr) {
	n := binary.BigEndian.AppendUint16(nil, uint16(i))
	mac = wire.MAC{0x02, 0x77, 0x65, 1, n[0], n[1]}
	return mac, netip.AddrFrom4([4]byte{10, 97, n[0], n[1]}), netip.AddrFrom16([16]byte{0: 0xfd, 3: 0x96, 8: n[0], 9: n[1], 15: 1})
}

// answerer is a Contender whose hosts answer for many.
type answerer interface {
	// answerFor gives a workload whose host knows n others, which are on the other host.
	answerFor(ctx context.Context, n int) (Workload, error)
}

var asker = member{segment: segment{name: "arp", number: 2}, name: "w4", addr: arpAddrs, mac: arpMAC}

func (c *bridgeVXLAN) answerFor(ctx context.Context, n int) (w Workload, err error) {
	if w, err = c.member(ctx, asker); err != nil {
		return w, err
	}
	bridge, vxlan := asker.devices()
	h := c.uplinks[0].netns
	br, err := h.LinkByName(bridge)
	if err != nil {
		return w, err
	}
	if err := h.SetNeighbourSuppression(vxlan, true); err != nil {
		return w, err
	}
	var macs []wire.MAC
	for i := range n {
		mac, ip4, ip6 := arpKnown(i)
		macs = append(macs, mac)
		if err := errors.Join(h.SetNeighbour(br.Index, ip4, mac), h.SetNeighbour(br.Index, ip6, mac)); err != nil {
			return w, err
		}
	}
	return w, h.AddFDBs(vxlan, macs, hostAddrs[1])
}

func (c *weftContender) answerFor(ctx context.Context, n int) (w Workload, err error) {
	if w, err = c.member(ctx, asker); err != nil {
		return w, err
	}
	api, err := c.lab.Client()
	if err != nil {
		return w, err
	}
	state, err := c.lab.State()
	if err != nil {
		return w, err
	}
	return w, many(n, func(i int) error {
		mac, ip4, ip6 := arpKnown(i)
		return boundPort(ctx, api, fmt.Sprintf("known%d", i), state.Hosts[1].Name, &weftv1.PortSpec{Network: asker.segment.name, Macs: []string{mac.String()},
			Ips: []string{ip4.String(), ip6.String()}})
	})
}

// boundPort makes a port that a host has, without an interface.
func boundPort(ctx context.Context, api *client.Client, name, host string, spec *weftv1.PortSpec) error {
	if _, err := api.Ports.CreatePort(ctx, connect.NewRequest(&weftv1.CreatePortRequest{Tenant: "bench", Name: name, Spec: spec})); err != nil {
		return err
	}
	_, err := api.Ports.BindPort(ctx, connect.NewRequest(&weftv1.BindPortRequest{Tenant: "bench", Name: name, Host: host}))
	return err
}

// many does the same n times, a few at once, and gives the first error.
func many(n int, do func(i int) error) error {
	const atOnce = 16
	var wg sync.WaitGroup
	next, errs := make(chan int), make(chan error, atOnce)
	for range min(n, atOnce) {
		wg.Go(func() {
			for i := range next {
				if err := do(i); err != nil {
					select {
					case errs <- err:
					default: // the first ones are enough
					}
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	close(errs)
	return <-errs
}

// asking is one way to ask.
type asking struct {
	name string
	t    traffic
	// ask is the question for an address; read is who has one by an answer.
	ask  func(i int) []byte
	read func(frame []byte) (netip.Addr, wire.MAC)
	want func(i int) netip.Addr
}

func askings(n int) []asking {
	arp := func(i int) []byte {
		_, ip4, _ := arpKnown(i)
		return wire.ARP{Op: wire.ARPRequest, SenderMAC: arpMAC, SenderIP: arpAddrs[0].Addr(), TargetIP: ip4}.Frame()
	}
	nd := func(i int) []byte {
		_, _, ip6 := arpKnown(i)
		return wire.Solicitation(arpMAC, arpAddrs[1].Addr(), ip6)
	}
	first := nd(0) // whose number, which the checksum covers, is 0
	return []asking{
		{askARP, traffic{Length: arpLength, Frame: arp(0), Questions: question{N: n, At: arpLength - 2}}, arp,
			func(frame []byte) (netip.Addr, wire.MAC) {
				f, err := wire.ParseFrame(frame)
				if err != nil || f.ARP.Op != wire.ARPReply {
					return netip.Addr{}, wire.MAC{}
				}
				return f.ARP.SenderIP, f.ARP.SenderMAC
			}, func(i int) netip.Addr { _, ip4, _ := arpKnown(i); return ip4 }},
		{askND, traffic{Length: nsLength, Frame: first, Questions: question{N: n, At: nsTarget + 8, SumAt: nsChecksum,
			Sum: int(^binary.BigEndian.Uint16(first[nsChecksum:]))}}, nd,
			func(frame []byte) (netip.Addr, wire.MAC) {
				f, err := wire.ParseFrame(frame)
				if err != nil || !f.Has(wire.LayerICMPv6) || !f.ChecksumOK(frame) {
					return netip.Addr{}, wire.MAC{}
				}
				m, err := wire.ParseNeighbour(f.ICMP, f.Payload)
				if err != nil || !m.Advertisement {
					return netip.Addr{}, wire.MAC{}
				}
				return m.Target, m.MAC
			}, func(i int) netip.Addr { _, _, ip6 := arpKnown(i); return ip6 }},
	}
}

// askAll asks for each of n addresses, and looks at the answers.
func askAll(w Workload, a asking, n int) error {
	fd, err := packetSocket(w)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	buf := make([]byte, 2048)
	for i := range n {
		mac, _, _ := arpKnown(i)
		if err := unix.Sendto(fd, a.ask(i), 0, &unix.SockaddrLinklayer{Ifindex: w.Ifindex, Halen: 6}); err != nil {
			return fmt.Errorf("ask for %s: %w", a.want(i), err)
		}
		for {
			n, from, err := unix.Recvfrom(fd, buf, 0)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return fmt.Errorf("nobody says who has %s: %w", a.want(i), err)
			}
			if ll, ok := from.(*unix.SockaddrLinklayer); !ok || ll.Pkttype == unix.PACKET_OUTGOING {
				continue
			}
			ip, found := a.read(buf[:n])
			if ip != a.want(i) {
				continue
			}
			if found != mac {
				return fmt.Errorf("%s is said to be at %s, and is at %s", ip, found, mac)
			}
			break
		}
	}
	return nil
}

// packetSocket hears and sends whole frames on a workload's interface. It waits for a frame for half a second.
func packetSocket(w Workload) (fd int, err error) {
	err = w.run(func() error {
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		half := unix.NsecToTimeval((500 * time.Millisecond).Nanoseconds())
		if err := errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &half),
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: allProtocols, Ifindex: w.Ifindex})); err != nil {
			return errors.Join(err, unix.Close(fd))
		}
		return nil
	})
	return fd, err
}

const allProtocols = 0x0300 // ETH_P_ALL in network byte order

// questionsMeasure is the name of the answers to one kind of question.
func questionsMeasure(kind string, n int) string {
	return fmt.Sprintf("%s for %s known addresses, answered", kind, grouped(n))
}

const (
	askARP = "ARP questions"
	askND  = "neighbour solicitations"
)

const answersUnit = "answers/s"

// questions measures how many are answered.
func (f *field) questions(ctx context.Context) ([]Series, error) {
	contenders, err := f.need(ctx, weftName, tunedName)
	if err != nil {
		return nil, err
	}
	n := f.cfg.Known
	askers := map[string]Workload{}
	for _, c := range contenders {
		w, err := c.(answerer).answerFor(ctx, n)
		if err != nil {
			return nil, fmt.Errorf("build %d known addresses for %s: %w", n, c.Name(), err)
		}
		askers[c.Name()] = w
		for _, a := range askings(n) {
			// The agents hear of the last port after the server has it.
			if werr := waitFor(ctx, carryPatience, c.Name()+" to answer "+a.name, func() bool { err = askAll(w, a, n); return err == nil }); werr != nil {
				return nil, errors.Join(werr, err)
			}
		}
	}
	var out []Series
	for _, a := range askings(n) {
		s, err := f.compare(ctx, Series{Measure: questionsMeasure(a.name, n), Unit: answersUnit, Higher: true}, contenders, func(c Contender) (float64, error) {
			w := askers[c.Name()]
			ns, err := packetCostTo(w, w, end{w.Netns, w.Ifindex, ebpf.AttachTCXIngress}, a.t, f.cfg.Frames)
			return 1e9 / ns, err
		})
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}
