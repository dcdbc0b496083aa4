package bench

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/wire"
)

// Contender is one way to join two workloads on two hosts.
type Contender interface {
	Name() string
	// Workloads are the two ends. Each can reach the other's Addr.
	Workloads() (a, b Workload)
	// SetWire makes the underlay behave as a wire (every packet cut to the MTU and with its checksum before it leaves; the
	// receiver may aggregate), or, off, lets packets of 64 kB cross whole.
	SetWire(on bool) error
	// Close removes everything that belongs to it.
	Close() error
}

// preparer is a Contender that has something to set before packets are measured, as SetWire does before streams.
type preparer interface{ prepare() error }

// attended is a Contender whose own processes send now and then. What they send from another core would take the path over to that core for as
// long as frames come: a NAPI instance stays where it was scheduled until it has nothing more to do. Only where they have little else to do: the
// agents of arp and replicate have just been told of many objects, and would take time from that core.
type attended interface{ keepProcesses(cores []int) error }

// shaper is a Contender that cannot take frames as fast as they come.
type shaper interface{ shape(traffic) traffic }

// Workload is an end of a path: an interface in a namespace of its own.
type Workload struct {
	Netns   *netdev.Handle
	Ifname  string
	Ifindex int
	MAC     wire.MAC
	Addr    netip.Addr
}

func (w Workload) run(f func() error) error { return w.Netns.Run(f) }

// openWorkload reads what an interface in a namespace is.
func openWorkload(netns, ifname string, addr netip.Addr) (Workload, error) {
	h, err := netdev.Open(netns)
	if err != nil {
		return Workload{}, err
	}
	l, err := h.LinkByName(ifname)
	if err != nil {
		h.Close()
		return Workload{}, err
	}
	return Workload{Netns: h, Ifname: ifname, Ifindex: l.Index, MAC: l.MAC, Addr: addr}, nil
}

// setWire switches the offloads of both ends of an underlay link.
func setWire(on bool, uplinks ...uplink) error {
	for _, u := range uplinks {
		for _, f := range []netdev.Feature{netdev.TX, netdev.TSO, netdev.GSO} {
			if err := ensureFeature(u, f, !on); err != nil {
				return err
			}
		}
		if err := ensureFeature(u, netdev.GRO, on); err != nil {
			return err
		}
	}
	return nil
}

// ensureFeature switches only what is not as it should be: each switch waits for every packet on the machine.
func ensureFeature(u uplink, f netdev.Feature, on bool) error {
	if is, err := u.netns.Feature(u.ifname, f); err == nil && is == on {
		return nil
	}
	return u.netns.SetFeature(u.ifname, f, on)
}

type uplink struct {
	netns  *netdev.Handle
	ifname string
}

const (
	// UnderlayMTU leaves room for 1500 octets inside: 50 of outer headers (RFC 7348 section 5).
	underlayMTU = 1550
	innerMTU    = 1500
	benchVNI    = 7348
)

var (
	hostAddrs     = [2]netip.Addr{netip.MustParseAddr("198.19.255.1"), netip.MustParseAddr("198.19.255.2")}
	workloadAddrs = [2]netip.Addr{netip.MustParseAddr("10.99.0.11"), netip.MustParseAddr("10.99.0.12")}
	workloadMACs  = [2]wire.MAC{{0x02, 0x77, 0x65, 0, 0, 0x0b}, {0x02, 0x77, 0x65, 0, 0, 0x0c}}
)

// bridgeVXLAN is the kernel's own overlay: a bridge and a vxlan device on each host.
type bridgeVXLAN struct {
	name      string
	prefix    string
	tuned     bool
	netns     []string
	handles   []*netdev.Handle
	uplinks   []uplink
	workloads [2]Workload
	more      []Workload
	machines  []*machine
	// tap: the workloads are joined by TAP devices instead of veths.
	tap bool
}

// newBridgeVXLAN builds the kernel's overlay. Tuned means: no learning, every FDB entry static, bridge-nf-call-* off
// where the kernel has it; not tuned is what `ip link add` gives.
func newBridgeVXLAN(name, prefix string, tuned bool) (Contender, error) {
	return (&bridgeVXLAN{name: name, prefix: prefix, tuned: tuned}).build()
}

func (c *bridgeVXLAN) build() (_ Contender, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("build %s: %w", c.name, err), c.Close())
		}
	}()
	hosts, err := c.hosts()
	if err != nil {
		return nil, err
	}
	for i, h := range hosts {
		if err = c.host(h, i); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// hosts are two namespaces, joined by the underlay.
func (c *bridgeVXLAN) hosts() (hosts [2]*netdev.Handle, err error) {
	for i := range hosts {
		if hosts[i], err = c.namespace(fmt.Sprintf("h%d", i+1)); err != nil {
			return hosts, err
		}
		c.uplinks = append(c.uplinks, uplink{hosts[i], "up0"})
	}
	_, _, err = hosts[0].EnsureVeth(netdev.Veth{
		Name: "up0", MTU: underlayMTU, Addresses: []netip.Prefix{netip.PrefixFrom(hostAddrs[0], 24)},
		Peer: netdev.VethPeer{Namespace: hosts[1], Name: "up0", Addresses: []netip.Prefix{netip.PrefixFrom(hostAddrs[1], 24)}},
	})
	return hosts, err
}

// port makes workload i and joins it to a host by the interface port0.
func (c *bridgeVXLAN) port(h *netdev.Handle, i int) error { return c.portNamed(h, i, "port0") }

func (c *bridgeVXLAN) portNamed(h *netdev.Handle, i int, name string) error {
	wl, err := c.namespace(fmt.Sprintf("w%d", i+1))
	if err != nil {
		return err
	}
	if _, _, err := h.EnsureVeth(netdev.Veth{
		Name: name, MTU: innerMTU,
		Peer: netdev.VethPeer{Namespace: wl, Name: "eth0", MAC: workloadMACs[i], Addresses: []netip.Prefix{netip.PrefixFrom(workloadAddrs[i], 24)}},
	}); err != nil {
		return err
	}
	// The generator sends frames straight to the interface, which must have NAPI.
	if err := h.SetFeature(name, netdev.GRO, true); err != nil {
		return err
	}
	c.workloads[i], err = openWorkload(wl.String(), "eth0", workloadAddrs[i])
	return err
}

func (c *bridgeVXLAN) host(h *netdev.Handle, i int) error {
	join := c.port
	if c.tap {
		join = c.machine
	}
	if err := join(h, i); err != nil {
		return err
	}
	vx := netdev.VXLAN{Name: "vx0", VNI: benchVNI, Local: hostAddrs[i], UDPPort: wire.VXLANPort, MTU: innerMTU, Learning: !c.tuned}
	steps := []func() error{
		func() error { return h.AddBridge("br0", innerMTU) },
		func() error { return h.AddVXLAN(vx) },
		func() error { return h.SetMaster("vx0", "br0") },
		func() error { return h.SetMaster("port0", "br0") },
		func() error { return h.AddVXLANFDB("vx0", wire.MAC{}, hostAddrs[1-i]) },
		func() error { return h.SetUp("vx0") },
		func() error { return h.SetUp("br0") },
	}
	if c.tuned {
		steps = append(steps, func() error { return c.tune(h, i) })
	} else {
		steps = append(steps, func() error { return setBridgeNF(h, "1") })
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (c *bridgeVXLAN) tune(h *netdev.Handle, i int) error {
	return errors.Join(
		h.AddBridgeFDB("port0", workloadMACs[i]),
		h.AddBridgeFDB("vx0", workloadMACs[1-i]),
		h.AddVXLANFDB("vx0", workloadMACs[1-i], hostAddrs[1-i]),
		h.SetBridgePortLearning("vx0", false),
		h.SetBridgePortLearning("port0", false),
		setBridgeNF(h, "0"))
}

// machine makes workload i as a machine that is joined to a host by the TAP device port0.
func (c *bridgeVXLAN) machine(h *netdev.Handle, i int) error {
	m, err := newMachine(h, "port0", fmt.Sprintf("%sm%d", c.prefix, i+1), i)
	if err != nil {
		return err
	}
	c.machines, c.workloads[i] = append(c.machines, m), m.workload
	return nil
}

func (c *bridgeVXLAN) ends() []*machine { return c.machines }

// setBridgeNF sets bridge-nf-call-* where the kernel has them.
func setBridgeNF(h *netdev.Handle, value string) error {
	for _, key := range []string{"iptables", "ip6tables", "arptables"} {
		key = "net/bridge/bridge-nf-call-" + key
		if _, err := h.Sysctl(key); err != nil {
			continue
		}
		if err := h.SetSysctl(key, value); err != nil {
			return err
		}
	}
	return nil
}

func (c *bridgeVXLAN) namespace(suffix string) (*netdev.Handle, error) {
	name := c.prefix + suffix
	if err := netdev.CreateNamespace(name); err != nil {
		return nil, err
	}
	c.netns = append(c.netns, name)
	h, err := netdev.OpenName(name)
	if err != nil {
		return nil, err
	}
	c.handles = append(c.handles, h)
	return h, h.SetUp("lo")
}

// Name implements Contender.
func (c *bridgeVXLAN) Name() string { return c.name }

// Workloads implements Contender.
func (c *bridgeVXLAN) Workloads() (a, b Workload) { return c.workloads[0], c.workloads[1] }

// SetWire implements Contender.
func (c *bridgeVXLAN) SetWire(on bool) error { return setWire(on, c.uplinks...) }

// Close implements Contender.
func (c *bridgeVXLAN) Close() error {
	var errs []error
	for _, m := range c.machines {
		errs = append(errs, m.Close())
	}
	for _, w := range append(c.workloads[:], c.more...) {
		if w.Netns != nil && len(c.machines) == 0 {
			w.Netns.Close()
		}
	}
	for _, h := range c.handles {
		h.Close()
	}
	for _, name := range c.netns {
		errs = append(errs, netdev.DeleteNamespace(name))
	}
	return errors.Join(errs...)
}

// directVeth is the floor: one veth between the workloads, no hosts, no overlay.
type directVeth struct {
	netns     []string
	handles   []*netdev.Handle
	workloads [2]Workload
}

func newDirectVeth(prefix string) (_ Contender, err error) {
	c := &directVeth{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("build direct veth: %w", err), c.Close())
		}
	}()
	for i := range 2 {
		name := fmt.Sprintf("%sw%d", prefix, i+1)
		if err = netdev.CreateNamespace(name); err != nil {
			return nil, err
		}
		c.netns = append(c.netns, name)
		h, err := netdev.OpenName(name)
		if err != nil {
			return nil, err
		}
		c.handles = append(c.handles, h)
	}
	if _, _, err = c.handles[0].EnsureVeth(netdev.Veth{
		Name: "eth0", MTU: innerMTU, MAC: workloadMACs[0], Addresses: []netip.Prefix{netip.PrefixFrom(workloadAddrs[0], 24)},
		Peer: netdev.VethPeer{Namespace: c.handles[1], Name: "eth0", MAC: workloadMACs[1], Addresses: []netip.Prefix{netip.PrefixFrom(workloadAddrs[1], 24)}},
	}); err != nil {
		return nil, err
	}
	if err = c.handles[1].SetFeature("eth0", netdev.GRO, true); err != nil {
		return nil, err
	}
	for i := range 2 {
		if c.workloads[i], err = openWorkload(c.netns[i], "eth0", workloadAddrs[i]); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Name implements Contender.
func (c *directVeth) Name() string { return vethName }

// Workloads implements Contender.
func (c *directVeth) Workloads() (a, b Workload) { return c.workloads[0], c.workloads[1] }

// SetWire implements Contender.
func (c *directVeth) SetWire(on bool) error {
	return setWire(on, uplink{c.handles[0], "eth0"}, uplink{c.handles[1], "eth0"})
}

// Close implements Contender.
func (c *directVeth) Close() error {
	var errs []error
	for _, w := range c.workloads {
		if w.Netns != nil {
			w.Netns.Close()
		}
	}
	for _, h := range c.handles {
		h.Close()
	}
	for _, name := range c.netns {
		errs = append(errs, netdev.DeleteNamespace(name))
	}
	return errors.Join(errs...)
}
