package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/lab/probe"
	"github.com/weftnet/weft/wire"
)

// Contender is what most systems use today, on the same underlay: under leaf 1 and under leaf 2 a guest with a Linux bridge
// and a vxlan device, tuned (no learning, static FDB, no bridge netfilter), and a workload behind each.
//
//	leaf1 - guest1 [vx0 br0] - guestw1 192.0.2.1      leaf2 - guest2 [vx0 br0] - guestw2 192.0.2.2
type Contender struct {
	lab      *Lab
	From, To *netdev.Handle
	// Address of To.
	Address netip.Addr
	names   []string
}

const (
	contenderVNI  = 4095 // nobody else's: it is on UDP port 4789 of hosts that weft does not run on
	contenderPort = 4789
)

// AddContender builds it. The lab needs two hosts at least.
func (l *Lab) AddContender() (*Contender, error) {
	if l.cfg.Hosts < 2 {
		return nil, errors.New("a contender needs two leaves: build the lab with --hosts 2 or more")
	}
	c := &Contender{lab: l, Address: netip.MustParseAddr("192.0.2.2")}
	for i := 1; i <= 2; i++ {
		c.names = append(c.names, guestName(i), contenderWorkload(i))
	}
	if err := l.update(func(s *State) error { s.Extra = append(s.Extra, c.names...); return nil }); err != nil {
		return nil, err
	}
	for i := 1; i <= 2; i++ {
		if err := c.build(i); err != nil {
			return nil, errors.Join(fmt.Errorf("build the Linux bridge with vxlan: %w", err), c.Remove())
		}
	}
	var err error
	if c.From, err = l.Node(contenderWorkload(1)); err == nil {
		c.To, err = l.Node(contenderWorkload(2))
	}
	return c, err
}

func contenderWorkload(i int) string { return fmt.Sprintf("guestw%d", i) }

func contenderMAC(i int) wire.MAC { return wire.MAC{0x02, 0, 0, 0, 0xcc, byte(i)} }

func (c *Contender) build(i int) error {
	l := c.lab
	t := topology{cfg: l.cfg, nodes: map[string]*netdev.Handle{}}
	for s := 1; s <= l.cfg.Spines; s++ {
		h, err := l.Node(spineName(s))
		if err != nil {
			return err
		}
		t.nodes[spineName(s)] = h
	}
	leaf, err := l.Node(leafName(i))
	if err != nil {
		return err
	}
	t.nodes[leafName(i)] = leaf
	for _, n := range []string{guestName(i), contenderWorkload(i)} {
		if err := t.node(n); err != nil {
			return err
		}
		l.mu.Lock()
		l.nodes[n] = t.nodes[n]
		l.mu.Unlock()
	}
	var out [2][]netdev.Hop
	if err := t.below(i, guestBase+i, 0, t.nodes[guestName(i)], &out); err != nil {
		return err
	}
	if err := t.outward(t.nodes[guestName(i)], out, [2]netip.Prefix{}); err != nil {
		return err
	}
	return l.cfg.overlayByKernel(t.nodes[guestName(i)], t.nodes[contenderWorkload(i)], i)
}

// overlayByKernel joins a workload to a bridge with a vxlan device, whose other end is the other guest.
func (c Config) overlayByKernel(guest, workload *netdev.Handle, i int) error {
	address := func(i int) netip.Addr {
		_, node := edge(guestBase+i, 0)
		return node[c.family()].Addr()
	}
	other, mtu := 3-i, c.MTU-c.overhead()
	for _, key := range []string{"iptables", "ip6tables", "arptables"} {
		// Where br_netfilter is not loaded there is nothing to switch off.
		if err := guest.SetSysctl("net/bridge/bridge-nf-call-"+key, "0"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := guest.AddBridge("br0", mtu); err != nil {
		return err
	}
	if err := guest.AddVXLAN(netdev.VXLAN{Name: "vx0", VNI: contenderVNI, Local: address(i), UDPPort: contenderPort, Underlay: uplinkName(0), MTU: mtu}); err != nil {
		return err
	}
	for _, mac := range []wire.MAC{{}, contenderMAC(other)} {
		if err := guest.AddVXLANFDB("vx0", mac, address(other)); err != nil {
			return err
		}
	}
	_, _, err := guest.EnsureVeth(netdev.Veth{Name: "w0", MTU: mtu, Peer: netdev.VethPeer{Namespace: workload, Name: "eth0", MAC: contenderMAC(i),
		Addresses: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 24)}}})
	if err != nil {
		return err
	}
	for _, member := range []string{"vx0", "w0"} {
		if err := guest.SetMaster(member, "br0"); err != nil {
			return err
		}
		if err := guest.SetUp(member); err != nil {
			return err
		}
	}
	for mac, member := range map[wire.MAC]string{contenderMAC(i): "w0", contenderMAC(other): "vx0"} {
		if err := guest.AddBridgeFDB(member, mac); err != nil {
			return err
		}
	}
	return guest.SetUp("br0")
}

// Remove takes the contender away; routers forget the way to it with its links, spines keep a route that leads nowhere.
func (c *Contender) Remove() error {
	var errs []error
	for _, n := range c.names {
		c.lab.forget(n)
		errs = append(errs, netdev.DeleteNamespace(c.lab.cfg.namespace(n)))
	}
	return errors.Join(errs...)
}

// Path is where a stream runs.
type Path struct {
	From, To *netdev.Handle
	Address  netip.Addr
}

// Comparison is what two paths carried, round by round.
type Comparison struct {
	A, B []float64 // Gb/s
}

// Ratio is the median of the rounds' ratios A/B, with the smallest and the largest.
func (c Comparison) Ratio() (median, low, high float64) {
	var r []float64
	for i := range c.A {
		r = append(r, c.A[i]/c.B[i])
	}
	slices.Sort(r)
	return medianOf(r), r[0], r[len(r)-1]
}

func medianOf(list []float64) float64 {
	s := slices.Sorted(slices.Values(list))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// CompareStreams measures one TCP stream on two paths in turns, so that both see the same machine: A B, B A, A B, …
func CompareStreams(ctx context.Context, a, b Path, rounds int, d time.Duration) (Comparison, error) {
	var c Comparison
	for i := range rounds {
		var got [2]float64
		for k := range 2 {
			which := (i + k) % 2
			p := []Path{a, b}[which]
			r, err := probe.Stream(ctx, p.From, p.To, p.Address, d)
			if err != nil {
				return c, err
			}
			got[which] = r.Gbps()
		}
		c.A, c.B = append(c.A, got[0]), append(c.B, got[1])
	}
	return c, nil
}
