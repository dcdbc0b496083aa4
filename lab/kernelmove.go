package lab

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/lab/probe"
	"github.com/weftnet/weft/wire"
)

// moveScript is what changes the FDBs of all guests.
//
//go:embed move.sh
var moveScript string

// KernelMover moves a workload between guests with a Linux bridge and a vxlan device each, on the same underlay as the lab's hosts:
//
//	leaf1 - guest1 [bridge vxlan] - the workload, then a peer     leaf2 - guest2 [bridge vxlan]     leaf3 - guest3 [bridge vxlan] - a peer
//
// Either as administrators do it who know where things are: no learning, every entry static, and a script when a machine has moved. Or as
// it comes: bridges and vxlan devices flood and learn, and the workload announces itself where it goes on, as a hypervisor does for it.
type KernelMover struct {
	lab    *Lab
	learn  bool
	number int
	moving *Moving
	guests []*netdev.Handle
	// at is the guest that the workload is on, from 0.
	at    int
	names []string
	mac   wire.MAC
}

// AddKernelMovers builds one that is told and one that learns, on three guests. The lab needs three hosts.
func (l *Lab) AddKernelMovers() (told, learns *KernelMover, err error) {
	if l.cfg.Hosts < 3 || l.cfg.family() != 0 {
		return nil, nil, errors.New("moving with the kernel's bridges needs three leaves and an IPv4 underlay")
	}
	told, learns = &KernelMover{lab: l, number: 1}, &KernelMover{lab: l, number: 2, learn: true}
	for i := range 3 {
		told.names = append(told.names, guestName(i+1))
	}
	for _, m := range []*KernelMover{told, learns} {
		for i := range 3 {
			m.names = append(m.names, m.workloadName(i))
		}
	}
	if err := l.update(func(s *State) error { s.Extra = append(append(s.Extra, told.names...), learns.names...); return nil }); err != nil {
		return nil, nil, err
	}
	ctx := context.Background()
	if err := told.guestsOf(l); err != nil {
		return nil, nil, errors.Join(err, told.Close(ctx), learns.Close(ctx))
	}
	learns.guests = told.guests
	for _, m := range []*KernelMover{told, learns} {
		if err := m.build(); err != nil {
			return nil, nil, errors.Join(fmt.Errorf("build %s: %w", m.Name(), err), told.Close(ctx), learns.Close(ctx))
		}
	}
	return told, learns, nil
}

func (m *KernelMover) workloadName(i int) string { return contenderWorkload(10*m.number + i + 1) }

// guestsOf makes the guests below their leaves.
func (m *KernelMover) guestsOf(l *Lab) error {
	t := topology{cfg: l.cfg, nodes: map[string]*netdev.Handle{}}
	var err error
	for s := 1; s <= l.cfg.Spines; s++ {
		if t.nodes[spineName(s)], err = l.Node(spineName(s)); err != nil {
			return err
		}
	}
	for i := 1; i <= 3; i++ {
		if t.nodes[leafName(i)], err = l.Node(leafName(i)); err != nil {
			return err
		}
		if err := t.node(guestName(i)); err != nil {
			return err
		}
		guest := t.nodes[guestName(i)]
		l.keep(guestName(i), guest)
		var out [2][]netdev.Hop
		if err := t.below(i, guestBase+i, 0, guest, &out); err != nil {
			return err
		}
		if err := t.outward(guest, out, [2]netip.Prefix{}); err != nil {
			return err
		}
		for _, key := range []string{"iptables", "ip6tables", "arptables"} {
			if err := guest.SetSysctl("net/bridge/bridge-nf-call-"+key, "0"); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		m.guests = append(m.guests, guest)
	}
	return nil
}

// keep makes a handle the lab's.
func (l *Lab) keep(name string, h *netdev.Handle) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nodes[name] = h
}

func (m *KernelMover) bridge() string { return fmt.Sprintf("br%d", m.number) }
func (m *KernelMover) vxlan() string  { return fmt.Sprintf("vx%d", m.number) }

func (m *KernelMover) vtep(guest int) netip.Addr {
	_, node := edge(guestBase+guest+1, 0)
	return node[0].Addr()
}

// build makes bridges, vxlan devices and workloads: the one that moves on guest 1, with a peer beside it, and one on guest 3.
func (m *KernelMover) build() error {
	mtu := m.lab.cfg.MTU - m.lab.cfg.overhead()
	for i, g := range m.guests {
		if err := g.AddBridge(m.bridge(), mtu); err != nil {
			return err
		}
		if err := g.AddVXLAN(netdev.VXLAN{Name: m.vxlan(), VNI: wire.VNI(contenderVNI - m.number), Local: m.vtep(i), UDPPort: contenderPort,
			Underlay: uplinkName(0), MTU: mtu, Learning: m.learn}); err != nil {
			return err
		}
		for other := range m.guests {
			if other == i {
				continue
			}
			if err := g.AddVXLANFDB(m.vxlan(), wire.MAC{}, m.vtep(other)); err != nil {
				return err
			}
		}
		if err := m.join(g, m.vxlan()); err != nil {
			return err
		}
		if err := g.SetUp(m.bridge()); err != nil {
			return err
		}
	}
	var places []probe.Place
	for i, guest := range []int{0, 0, 2} { // the workload that moves, and its peers
		p, err := m.workload(i, guest)
		if err != nil {
			return err
		}
		places = append(places, p)
	}
	m.moving = &Moving{Place: places[0], Peers: places[1:], Interface: "eth0"}
	m.mac = m.macOf(0)
	return m.moving.Know()
}

func (m *KernelMover) join(g *netdev.Handle, member string) error {
	return errors.Join(g.SetMaster(member, m.bridge()), g.SetBridgePortLearning(member, m.learn), g.SetUp(member))
}

func (m *KernelMover) macOf(i int) wire.MAC {
	return wire.MAC{0x02, 0, 0, 0xcc, byte(m.number), byte(i)}
}

func (m *KernelMover) addrOf(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{192, 0, 2, byte(16*m.number + i)})
}

// workload makes one, and says on every guest where it is.
func (m *KernelMover) workload(i, guest int) (p probe.Place, err error) {
	t := topology{cfg: m.lab.cfg, nodes: map[string]*netdev.Handle{}}
	if err := t.node(m.workloadName(i)); err != nil {
		return p, err
	}
	p = probe.Place{Netns: t.nodes[m.workloadName(i)], Addr: m.addrOf(i)}
	m.lab.keep(m.workloadName(i), p.Netns)
	if err := m.plug(i, guest, p.Netns, "eth0"); err != nil || m.learn {
		return p, err
	}
	for g, h := range m.guests {
		member := m.vxlan()
		if g == guest {
			member = m.member(i, "eth0")
		} else if err := h.AddVXLANFDB(m.vxlan(), m.macOf(i), m.vtep(guest)); err != nil {
			return p, err
		}
		if err := h.AddBridgeFDB(member, m.macOf(i)); err != nil {
			return p, err
		}
	}
	return p, nil
}

// member is the bridge's port that leads to an interface of a workload.
func (m *KernelMover) member(i int, iface string) string {
	return fmt.Sprintf("w%d%d-%s", m.number, i, iface)
}

// plug gives a workload an interface on a guest.
func (m *KernelMover) plug(i, guest int, ns *netdev.Handle, iface string) error {
	name := m.member(i, iface)
	_, _, err := m.guests[guest].EnsureVeth(netdev.Veth{Name: name, MTU: m.lab.cfg.MTU - m.lab.cfg.overhead(),
		Peer: netdev.VethPeer{Namespace: ns, Name: iface, MAC: m.macOf(i), Addresses: []netip.Prefix{netip.PrefixFrom(m.addrOf(i), 24)}}})
	if err != nil {
		return err
	}
	return m.join(m.guests[guest], name)
}

// Name implements Mover.
func (m *KernelMover) Name() string {
	if m.learn {
		return "bridge + vxlan, flood and learn"
	}
	return "bridge + vxlan, FDB by script"
}

// Workload implements Mover.
func (m *KernelMover) Workload() *Moving { return m.moving }

func (m *KernelMover) target() int { return 1 - m.at }

// Prepare implements Mover: the target has an interface for the workload.
func (m *KernelMover) Prepare(ctx context.Context) error {
	if err := m.Finish(ctx); err != nil {
		return err
	}
	return m.plug(0, m.target(), m.moving.Netns, m.moving.Other())
}

// guest is how a script names a guest's namespace.
func (m *KernelMover) guest(i int) string { return m.lab.cfg.namespace(guestName(i + 1)) }

// Flip implements Mover, after the workload has turned.
func (m *KernelMover) Flip(ctx context.Context) error {
	defer func() { m.at = m.target() }()
	if m.learn {
		return m.announce()
	}
	args := []string{"-c", moveScript, "move.sh", m.member(0, m.moving.Interface), m.vxlan(), m.mac.String(), m.guest(m.target()), m.vtep(m.target()).String()}
	for i := range m.guests {
		if i != m.target() {
			args = append(args, m.guest(i))
		}
	}
	if out, err := exec.CommandContext(ctx, "sh", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("move.sh: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// announce has the workload say by ARP to all where it is, RFC 5227 section 3.
func (m *KernelMover) announce() error {
	l, err := m.moving.Netns.LinkByName(m.moving.Interface)
	if err != nil {
		return err
	}
	return m.moving.Netns.Run(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, wire.Announcement(m.mac, m.moving.Addr).Frame(), 0, &unix.SockaddrLinklayer{Ifindex: l.Index})
	})
}

// Finish implements Mover: the interface that the workload does not use is gone.
func (m *KernelMover) Finish(context.Context) error {
	return m.guests[m.target()].DeleteLink(m.member(0, m.moving.Other()))
}

// Close implements Mover.
func (m *KernelMover) Close(context.Context) error {
	var errs []error
	for _, n := range m.names {
		m.lab.forget(n)
		errs = append(errs, netdev.DeleteNamespace(m.lab.cfg.namespace(n)))
	}
	return errors.Join(errs...)
}
