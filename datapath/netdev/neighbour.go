package netdev

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/wire"
)

// Neighbour is an entry of the kernel's neighbour table.
type Neighbour struct {
	Index int
	IP    netip.Addr
	// MAC is zero while it is not resolved.
	MAC wire.MAC
	// Managed: the kernel resolves it and keeps it fresh by itself (NTF_EXT_MANAGED).
	Managed bool
	// Resolved: the MAC may be used. Permanent: it was stated, not found.
	Resolved, Permanent bool
}

const resolved = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE | netlink.NUD_PERMANENT | netlink.NUD_NOARP

func neighbourOf(n netlink.Neigh) Neighbour {
	out := Neighbour{Index: n.LinkIndex, IP: addrOf(n.IP), Managed: n.FlagsExt&netlink.NTF_EXT_MANAGED != 0,
		Resolved: n.State&resolved != 0, Permanent: n.State&netlink.NUD_PERMANENT != 0}
	if len(n.HardwareAddr) == len(out.MAC) {
		copy(out.MAC[:], n.HardwareAddr)
	}
	return out
}

// ManageNeighbour asks the kernel to resolve an address on an interface and to keep it fresh for as long as the entry is
// there. bpf_fib_lookup does neither. Doing it again changes nothing; an entry that somebody stated as permanent stays as it is.
func (h *Handle) ManageNeighbour(index int, ip netip.Addr) error {
	n := &netlink.Neigh{LinkIndex: index, IP: ipOf(ip), FlagsExt: netlink.NTF_EXT_MANAGED}
	all, err := h.Neighbours(index)
	if err != nil {
		return err
	}
	for _, have := range all {
		if have.IP == ip && (have.Managed || have.Permanent) {
			return nil
		}
	}
	if err := h.nl.NeighSet(n); err != nil {
		return fmt.Errorf("manage neighbour %s on interface %d: %w", ip, index, err)
	}
	return nil
}

// ReleaseNeighbour removes a managed entry. One that is not managed is not ours and stays; a missing one is no error.
func (h *Handle) ReleaseNeighbour(index int, ip netip.Addr) error {
	all, err := h.Neighbours(index)
	if err != nil {
		return err
	}
	for _, have := range all {
		if have.IP != ip || !have.Managed {
			continue
		}
		err := h.nl.NeighDel(&netlink.Neigh{LinkIndex: index, IP: ipOf(ip)})
		if err := unless(err, unix.ENOENT); err != nil {
			return fmt.Errorf("release neighbour %s on interface %d: %w", ip, index, err)
		}
	}
	return nil
}

// SetNeighbour states an entry for good (permanent).
func (h *Handle) SetNeighbour(index int, ip netip.Addr, mac wire.MAC) error {
	n := &netlink.Neigh{LinkIndex: index, IP: ipOf(ip), State: netlink.NUD_PERMANENT, HardwareAddr: mac[:]}
	if err := h.nl.NeighSet(n); err != nil {
		return fmt.Errorf("set neighbour %s on interface %d: %w", ip, index, err)
	}
	return nil
}

// Neighbours lists the entries of an interface, or of all interfaces if index is 0.
func (h *Handle) Neighbours(index int) ([]Neighbour, error) {
	var list []Neighbour
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		all, err := dump(func() ([]netlink.Neigh, error) { return h.nl.NeighList(index, family) })
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
			return nil, fmt.Errorf("list neighbours of %s: %w", h.name, err)
		}
		for _, n := range all {
			list = append(list, neighbourOf(n))
		}
	}
	return list, nil
}
