package netdev

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/weftnet/weft/wire"
)

// Veth is a pair of interfaces joined back to back: one end in the Handle's namespace, the other placed straight into
// another.
type Veth struct {
	// Name of the near end, and its mark; a zero Mark marks nothing (for namespaces made by the caller).
	Name string
	Mark Mark
	// MTU of both ends; 0 is the kernel's default.
	MTU int
	// MAC and Addresses of the near end; a zero MAC is made by the kernel.
	MAC       wire.MAC
	Addresses []netip.Prefix
	// Quiet keeps the kernel silent on the near end (see Handle.Quiet).
	Quiet bool
	// Down leaves the near end as it is, and a new one down, so that nothing is received before what guards it is attached.
	Down bool
	Peer VethPeer
}

// VethPeer is the far end.
type VethPeer struct {
	// Namespace it is placed in; nil is the near end's own.
	Namespace *Handle
	Name      string
	MAC       wire.MAC
	Addresses []netip.Prefix
}

// EnsureVeth makes the pair, both ends up (see Down), and returns the near and the far end. Doing it again changes nothing; a pair that
// carries our mark is adopted if its far end is in the right place, and made anew if not. An interface of that name without
// our mark is ErrNotOwned; a name that is taken in the far namespace is an error that wraps os.ErrExist.
func (h *Handle) EnsureVeth(v Veth) (near, far Link, err error) {
	peer := v.Peer.Namespace
	if peer == nil {
		peer = h
	}
	adopted, err := h.adoptVeth(v, peer)
	if err != nil {
		return Link{}, Link{}, err
	}
	if !adopted {
		if err := h.addVeth(v, peer); err != nil {
			return Link{}, Link{}, fmt.Errorf("make veth %s to %s: %w", v.Name, v.Peer.Name, err)
		}
	}
	near, far, err = h.settleVeth(v, peer)
	if err != nil {
		err = fmt.Errorf("set up veth %s to %s: %w", v.Name, v.Peer.Name, err)
	}
	return near, far, err
}

// adoptVeth reports whether the pair is there and right. A wrong one of ours is deleted.
func (h *Handle) adoptVeth(v Veth, peer *Handle) (bool, error) {
	near, err := h.LinkByName(v.Name)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	// Without an alias it was left by a creator that was killed before it could mark it: the name is a hash of ours.
	if v.Mark == (Mark{}) || near.Kind != "veth" || near.Alias != "" && near.Alias != v.Mark.String() {
		return false, fmt.Errorf("interface %s exists (alias %q): %w", v.Name, near.Alias, ErrNotOwned)
	}
	far, err := peer.LinkByName(v.Peer.Name)
	if err == nil && far.Kind == "veth" && far.Index == near.Peer && far.Peer == near.Index && h.namespaceID(peer) == near.PeerNamespaceID {
		return true, nil
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return false, err
	}
	if err := h.nl.LinkDel(ref(near.Index)); err != nil {
		return false, fmt.Errorf("delete interface %s, whose other end is elsewhere: %w", v.Name, err)
	}
	return false, nil
}

// namespaceID is the number by which h's kernel structures name another namespace; -1 for itself or none.
func (h *Handle) namespaceID(o *Handle) int {
	if h.Same(o) {
		return -1
	}
	id, err := h.nl.GetNetNsIdByFd(o.fd)
	if err != nil {
		return -1
	}
	return id
}

func (h *Handle) addVeth(v Veth, peer *Handle) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = v.Name, v.MTU
	if v.Mark != (Mark{}) {
		attrs.Group = group(v.Mark.Instance)
	}
	if !v.MAC.IsZero() {
		attrs.HardwareAddr = net.HardwareAddr(v.MAC[:])
	}
	n := netlink.NewVeth(attrs)
	n.PeerName, n.PeerMTU, n.PeerNamespace = v.Peer.Name, uint32(v.MTU), netlink.NsFd(peer.fd)
	if !v.Peer.MAC.IsZero() {
		n.PeerHardwareAddr = net.HardwareAddr(v.Peer.MAC[:])
	}
	return h.nl.LinkAdd(n)
}

// settleVeth brings every setting to what v says; the near end goes up last, when everything else is right.
func (h *Handle) settleVeth(v Veth, peer *Handle) (near, far Link, err error) {
	if v.Mark != (Mark{}) {
		if err := h.SetMark(v.Name, v.Mark); err != nil {
			return near, far, err
		}
	}
	if v.Quiet {
		if err := h.Quiet(v.Name); err != nil {
			return near, far, err
		}
	}
	if err := h.settle(v.Name, v.MAC, v.MTU, v.Addresses); err != nil {
		return near, far, err
	}
	if err := peer.settle(v.Peer.Name, v.Peer.MAC, v.MTU, v.Peer.Addresses); err != nil {
		return near, far, err
	}
	if err := peer.SetUp(v.Peer.Name); err != nil {
		return near, far, err
	}
	if !v.Down {
		if err := h.SetUp(v.Name); err != nil {
			return near, far, err
		}
	}
	if far, err = peer.LinkByName(v.Peer.Name); err != nil {
		return near, far, err
	}
	near, err = h.LinkByName(v.Name)
	return near, far, err
}

func (h *Handle) settle(name string, mac wire.MAC, mtu int, addrs []netip.Prefix) error {
	l, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	if !mac.IsZero() && l.MAC != mac {
		if err := h.SetMAC(name, mac); err != nil {
			return err
		}
	}
	if mtu != 0 && l.MTU != mtu {
		if err := h.SetMTU(name, mtu); err != nil {
			return err
		}
	}
	for _, a := range addrs {
		if err := h.AddAddress(name, a); err != nil {
			return err
		}
	}
	return nil
}
