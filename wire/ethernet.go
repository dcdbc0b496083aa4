package wire

import (
	"fmt"
	"net/netip"
)

// EtherType says what an Ethernet frame carries (IEEE 802). Below 1536 it is a length.
type EtherType uint16

// The EtherTypes that weft knows.
const (
	TypeIPv4 EtherType = 0x0800
	TypeARP  EtherType = 0x0806
	// TypeVLAN is an IEEE 802.1Q tag.
	TypeVLAN EtherType = 0x8100
	TypeIPv6 EtherType = 0x86dd
	// TypeServiceVLAN is an IEEE 802.1ad tag.
	TypeServiceVLAN EtherType = 0x88a8
)

// String is the name, or the number in hexadecimal.
func (t EtherType) String() string {
	switch t {
	case TypeIPv4:
		return "IPv4"
	case TypeARP:
		return "ARP"
	case TypeVLAN:
		return "802.1Q"
	case TypeIPv6:
		return "IPv6"
	case TypeServiceVLAN:
		return "802.1ad"
	}
	return fmt.Sprintf("0x%04x", uint16(t))
}

const (
	// EthernetLen is the length of an untagged Ethernet header.
	EthernetLen = 14
	// MinFrame is the length of the shortest Ethernet frame without its check sequence.
	MinFrame = 60
	// maxTags bounds the tags that are read; a third one is left as payload.
	maxTags = 2
)

// VLAN is an 802.1Q or 802.1ad tag.
type VLAN struct {
	// TPID is TypeVLAN, which 0 also means, or TypeServiceVLAN.
	TPID EtherType
	// ID of 12 bits.
	ID uint16
	// Priority of 3 bits.
	Priority     uint8
	DropEligible bool
}

// Ethernet is the header of a frame, tags included.
type Ethernet struct {
	Dst, Src MAC
	// VLANs from the outermost.
	VLANs []VLAN
	// Type of what comes after the tags.
	Type EtherType
}

// ParseEthernet reads a header and its tags; payload is the rest, padding included.
func ParseEthernet(b []byte) (h Ethernet, payload []byte, err error) {
	c := cursor{rest: b}
	h.Dst, h.Src, h.Type = c.mac(), c.mac(), EtherType(c.u16())
	for len(h.VLANs) < maxTags && (h.Type == TypeVLAN || h.Type == TypeServiceVLAN) {
		tci := c.u16()
		h.VLANs = append(h.VLANs, VLAN{TPID: h.Type, ID: tci & 0xfff, Priority: uint8(tci >> 13), DropEligible: tci&0x1000 != 0})
		h.Type = EtherType(c.u16())
	}
	if c.short {
		return Ethernet{}, nil, truncated("ethernet")
	}
	return h, c.rest, nil
}

// Append appends the header to b.
func (h Ethernet) Append(b []byte) []byte {
	b = append(b, h.Dst[:]...)
	b = append(b, h.Src[:]...)
	for _, v := range h.VLANs {
		if v.TPID == 0 {
			v.TPID = TypeVLAN
		}
		tci := uint16(v.Priority)<<13 | v.ID&0xfff
		if v.DropEligible {
			tci |= 0x1000
		}
		b = be.AppendUint16(be.AppendUint16(b, uint16(v.TPID)), tci)
	}
	return be.AppendUint16(b, uint16(h.Type))
}

// BroadcastMAC is the address of every interface on a segment.
var BroadcastMAC = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// MulticastMAC is the address that frames to an IP multicast group have (RFC 1112, section 6.4; RFC 2464, section 7). Of an
// address that is not a group it is the zero MAC.
func MulticastMAC(group netip.Addr) MAC {
	switch {
	case !group.IsMulticast():
		return MAC{}
	case group.Is4():
		a := group.As4()
		return MAC{0x01, 0x00, 0x5e, a[1] & 0x7f, a[2], a[3]}
	}
	a := group.As16()
	return MAC{0x33, 0x33, a[12], a[13], a[14], a[15]}
}
