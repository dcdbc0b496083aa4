package netdev

import (
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/wire"
)

// ErrNotFound is what looking up a link that is not there gives, wrapped.
var ErrNotFound = errors.New("no such interface")

// Link is what the kernel says about an interface.
type Link struct {
	Index int
	Name  string
	// Kind is veth, tuntap, bridge, vxlan, ...; "device" for hardware and lo.
	Kind  string
	Alias string
	MAC   wire.MAC
	MTU   int
	// Up is the administrative state, Running that it has carrier too.
	Up, Running bool
	// NoARP: the kernel neither asks nor answers on it.
	NoARP bool
	// Master is the index of the bridge it belongs to, or 0.
	Master int
	// Peer is the index of the other end of a veth, in the namespace that PeerNamespaceID names (-1: this one).
	Peer            int
	PeerNamespaceID int
	// VirtioHeader: of a TAP device, whoever has its file writes aggregates, and leaves checksums to be computed.
	VirtioHeader bool
	// TAP: it is a TAP device. MultiQueue is its kind, OpenQueues how many files one with several queues is open by.
	TAP, MultiQueue bool
	OpenQueues      int

	group uint32
}

// Mark is the link's ownership mark; ok is false if it carries none.
func (l Link) Mark() (m Mark, ok bool) { return ParseMark(l.Name, l.Alias) }

func linkOf(n netlink.Link) Link {
	a := n.Attrs()
	l := Link{
		Index: a.Index, Name: a.Name, Kind: n.Type(), Alias: a.Alias, MTU: a.MTU, Master: a.MasterIndex,
		Up: a.RawFlags&unix.IFF_UP != 0, Running: a.RawFlags&unix.IFF_LOWER_UP != 0, NoARP: a.RawFlags&unix.IFF_NOARP != 0,
		Peer: a.ParentIndex, PeerNamespaceID: a.NetNsID, group: a.Group,
	}
	if len(a.HardwareAddr) == len(l.MAC) {
		copy(l.MAC[:], a.HardwareAddr)
	}
	if t, ok := n.(*netlink.Tuntap); ok {
		l.VirtioHeader = t.Flags&netlink.TUNTAP_VNET_HDR != 0
		l.TAP, l.MultiQueue = t.Mode == netlink.TUNTAP_MODE_TAP, t.Flags&netlink.TUNTAP_MULTI_QUEUE != 0
		l.OpenQueues = t.Queues + t.DisabledQueues
	}
	return l
}

// ref names a link to the library without another lookup.
func ref(index int) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
}

// LinkByName looks an interface up. The error of a missing one is ErrNotFound.
func (h *Handle) LinkByName(name string) (Link, error) {
	if name == "" || len(name) > 15 {
		return Link{}, fmt.Errorf("interface %q: %w", name, ErrNotFound)
	}
	n, err := h.nl.LinkByName(name)
	if err != nil {
		return Link{}, fmt.Errorf("interface %s: %w", name, notFound(err))
	}
	return linkOf(n), nil
}

// LinkByIndex looks an interface up. The error of a missing one is ErrNotFound.
func (h *Handle) LinkByIndex(index int) (Link, error) {
	n, err := h.nl.LinkByIndex(index)
	if err != nil {
		return Link{}, fmt.Errorf("interface %d: %w", index, notFound(err))
	}
	return linkOf(n), nil
}

func notFound(err error) error {
	if errors.As(err, new(netlink.LinkNotFoundError)) || errors.Is(err, unix.ENODEV) {
		return ErrNotFound
	}
	return err
}

// Links lists every interface of the namespace.
func (h *Handle) Links() ([]Link, error) {
	all, err := dump(h.nl.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces of %s: %w", h.name, err)
	}
	links := make([]Link, 0, len(all))
	for _, n := range all {
		links = append(links, linkOf(n))
	}
	return links, nil
}

// SetUp brings an interface up; SetDown takes it down.
func (h *Handle) SetUp(name string) error {
	return h.change(name, "bring up", h.nl.LinkSetUp)
}

// SetDown takes an interface down.
func (h *Handle) SetDown(name string) error {
	return h.change(name, "take down", h.nl.LinkSetDown)
}

// SetMTU sets the MTU in octets of an IP packet.
func (h *Handle) SetMTU(name string, mtu int) error {
	return h.change(name, "set MTU "+strconv.Itoa(mtu), func(l netlink.Link) error { return h.nl.LinkSetMTU(l, mtu) })
}

// SetMAC sets the hardware address.
func (h *Handle) SetMAC(name string, mac wire.MAC) error {
	return h.change(name, "set MAC "+mac.String(), func(l netlink.Link) error {
		return h.nl.LinkSetHardwareAddr(l, net.HardwareAddr(mac[:]))
	})
}

// SetARP turns the kernel's own ARP and ND on an interface on or off.
func (h *Handle) SetARP(name string, on bool) error {
	f := h.nl.LinkSetARPOff
	if on {
		f = h.nl.LinkSetARPOn
	}
	return h.change(name, "set ARP", f)
}

// SetMaster puts an interface into a bridge, or takes it out if bridge is empty.
func (h *Handle) SetMaster(name, bridge string) error {
	master := 0
	if bridge != "" {
		b, err := h.LinkByName(bridge)
		if err != nil {
			return fmt.Errorf("put %s into bridge: %w", name, err)
		}
		master = b.Index
	}
	return h.change(name, "put into bridge "+bridge, func(l netlink.Link) error { return h.nl.LinkSetMasterByIndex(l, master) })
}

func (h *Handle) change(name, what string, f func(netlink.Link) error) error {
	l, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := f(ref(l.Index)); err != nil {
		return fmt.Errorf("%s: interface %s: %w", what, name, notFound(err))
	}
	return nil
}

// DeleteLink removes an interface, whoever made it: for namespaces that are the caller's own. On a host use DeleteOwned. One
// that is not there is no error.
func (h *Handle) DeleteLink(name string) error {
	l, err := h.LinkByName(name)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := h.nl.LinkDel(ref(l.Index)); err != nil && !errors.Is(notFound(err), ErrNotFound) {
		return fmt.Errorf("delete interface %s: %w", name, err)
	}
	return nil
}

// Quiet makes the kernel itself silent on an interface that only weft's programs serve: no IPv6 (so no link-local address,
// no router solicitation, no MLD), no ARP. It must be called before the interface goes up to be silent from the start.
func (h *Handle) Quiet(name string) error {
	l, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("make quiet: %w", err)
	}
	const addrGenModeNone = 1 // IN6_ADDR_GEN_MODE_NONE
	// A kernel without IPv6 has nothing to be told.
	if err := h.nl.LinkSetIP6AddrGenMode(ref(l.Index), addrGenModeNone); err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		return fmt.Errorf("make %s quiet: address generation: %w", name, err)
	}
	if err := h.SetSysctl("net/ipv6/conf/"+name+"/disable_ipv6", "1"); err != nil && !missingSysctl(err) {
		return fmt.Errorf("make %s quiet: %w", name, err)
	}
	if err := h.nl.LinkSetARPOff(ref(l.Index)); err != nil {
		return fmt.Errorf("make %s quiet: ARP off: %w", name, err)
	}
	return nil
}

// Stats are an interface's own counters.
type Stats struct {
	RxPackets, RxOctets, RxErrors, RxDropped uint64
	TxPackets, TxOctets, TxErrors, TxDropped uint64
}

// Stats reads an interface's counters.
func (h *Handle) Stats(name string) (Stats, error) {
	n, err := h.nl.LinkByName(name)
	if err != nil {
		return Stats{}, fmt.Errorf("counters of %s: %w", name, notFound(err))
	}
	s := n.Attrs().Statistics
	if s == nil {
		return Stats{}, fmt.Errorf("counters of %s: the kernel gave none", name)
	}
	return Stats{
		RxPackets: s.RxPackets, RxOctets: s.RxBytes, RxErrors: s.RxErrors, RxDropped: s.RxDropped,
		TxPackets: s.TxPackets, TxOctets: s.TxBytes, TxErrors: s.TxErrors, TxDropped: s.TxDropped,
	}, nil
}
