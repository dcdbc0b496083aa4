package netdev

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/wire"
)

// AddBridge makes a Linux bridge without spanning tree and without multicast snooping, down.
func (h *Handle) AddBridge(name string, mtu int) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, mtu
	off := false
	if err := h.nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &off}); err != nil {
		return fmt.Errorf("make bridge %s: %w", name, err)
	}
	return nil
}

// AddBridgeFDB makes a static entry in a bridge: that MAC is behind that member.
func (h *Handle) AddBridgeFDB(member string, mac wire.MAC) error {
	l, err := h.LinkByName(member)
	if err != nil {
		return fmt.Errorf("add FDB entry %s: %w", mac, err)
	}
	n := &netlink.Neigh{LinkIndex: l.Index, Family: unix.AF_BRIDGE, State: netlink.NUD_NOARP, Flags: netlink.NTF_MASTER, HardwareAddr: mac[:]}
	if err := h.nl.NeighSet(n); err != nil {
		return fmt.Errorf("add FDB entry %s behind %s: %w", mac, member, err)
	}
	return nil
}

// SetBridgePortLearning says whether a bridge learns MACs from a member.
func (h *Handle) SetBridgePortLearning(member string, on bool) error {
	return h.change(member, "set learning", func(l netlink.Link) error { return h.nl.LinkSetLearning(l, on) })
}

// SetNeighbourSuppression says whether a bridge answers ARP and neighbour solicitations for what is behind a member, as far as it knows that, instead of
// flooding them there.
func (h *Handle) SetNeighbourSuppression(member string, on bool) error {
	return h.change(member, "set neighbour suppression", func(l netlink.Link) error { return h.nl.LinkSetBrNeighSuppress(l, on) })
}
