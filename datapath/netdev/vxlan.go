package netdev

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/wire"
)

// VXLAN is a Linux vxlan device for one VNI: an external VTEP in tests, a contender in benchmarks. (The metadata-mode device
// of weft's own kernel lane belongs to package datapath.)
type VXLAN struct {
	Name string
	VNI  wire.VNI
	// Local is the outer source address.
	Local   netip.Addr
	UDPPort uint16
	// Underlay is the interface to send on; empty: by route.
	Underlay string
	MTU      int
	MAC      wire.MAC
	// Learning from received packets; without it the FDB is what AddVXLANFDB says.
	Learning bool
	// OuterChecksum sends a correct outer UDP checksum; without it zero is sent, and accepted over IPv6 too.
	OuterChecksum bool
}

// AddVXLAN makes a vxlan device, down.
func (h *Handle) AddVXLAN(v VXLAN) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = v.Name, v.MTU
	if !v.MAC.IsZero() {
		attrs.HardwareAddr = net.HardwareAddr(v.MAC[:])
	}
	n := &netlink.Vxlan{
		LinkAttrs: attrs, VxlanId: int(v.VNI), SrcAddr: ipOf(v.Local), Port: int(v.UDPPort), Learning: v.Learning, UDPCSum: v.OuterChecksum,
		UDP6ZeroCSumTx: !v.OuterChecksum, UDP6ZeroCSumRx: true, NoAge: !v.Learning,
		PortLow: 49152, PortHigh: 65535, // RFC 7348 section 5
	}
	if v.Underlay != "" {
		l, err := h.LinkByName(v.Underlay)
		if err != nil {
			return fmt.Errorf("make vxlan device %s: %w", v.Name, err)
		}
		n.VtepDevIndex = l.Index
	}
	if err := h.nl.LinkAdd(n); err != nil {
		return fmt.Errorf("make vxlan device %s, VNI %d, UDP port %d: %w", v.Name, v.VNI, v.UDPPort, err)
	}
	return nil
}

// AddVXLANFDB says that a MAC is behind the VTEP at that address. The zero MAC is the flood list, and may have several.
func (h *Handle) AddVXLANFDB(device string, mac wire.MAC, vtep netip.Addr) error {
	l, err := h.LinkByName(device)
	if err != nil {
		return fmt.Errorf("add FDB entry %s: %w", mac, err)
	}
	n := &netlink.Neigh{LinkIndex: l.Index, Family: unix.AF_BRIDGE, State: netlink.NUD_NOARP | netlink.NUD_PERMANENT,
		Flags: netlink.NTF_SELF, IP: ipOf(vtep), HardwareAddr: mac[:]}
	if mac.IsZero() {
		err = unless(h.nl.NeighAppend(n), unix.EEXIST)
	} else {
		err = h.nl.NeighSet(n)
	}
	if err != nil {
		return fmt.Errorf("add FDB entry %s behind %s to %s: %w", mac, vtep, device, err)
	}
	return nil
}
