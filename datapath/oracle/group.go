package oracle

import (
	"net/netip"

	"github.com/weftnet/weft/wire"
)

// Group is a multicast group of the underlay by which floods of a VNI come in: RFC 7348, section 4.2.
type Group struct {
	VNI  wire.VNI
	Addr netip.Addr
}

// anyones: some network here has the group.
func (p *Plan) anyones(group netip.Addr) bool {
	for g := range p.Groups {
		if g.Addr == group {
			return true
		}
	}
	return false
}

// groupMAC is the Ethernet address of a group: 01:00:5e and the last 23 bits (RFC 1112, section 6.4), or 33:33 and the last 32 (RFC 2464, section 7).
func groupMAC(group netip.Addr) wire.MAC {
	b := group.AsSlice()
	if group.Is6() {
		return wire.MAC{0x33, 0x33, b[12], b[13], b[14], b[15]}
	}
	return wire.MAC{0x01, 0x00, 0x5e, b[1] & 0x7f, b[2], b[3]}
}

// mine says whether a destination, on the Ethernet level and on that of IP, is this host: its own addresses, or those of a group.
func (p *Plan) mine(mac wire.MAC, dst, own netip.Addr) bool {
	if mac == p.UplinkMAC {
		return dst == own
	}
	return dst.IsMulticast() && mac == groupMAC(dst) && p.anyones(dst)
}
