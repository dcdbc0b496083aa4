package wire

import (
	"fmt"
	"net/netip"
)

const (
	// IPv6Len is the length of an IPv6 header without extensions.
	IPv6Len = 40
	// maxExtensions bounds the extension headers that are read; a packet with more is malformed.
	maxExtensions = 8
)

// Fragment is an IPv6 fragment header (RFC 8200, section 4.5).
type Fragment struct {
	// Offset in octets, a multiple of 8.
	Offset uint16
	More   bool
	ID     uint32
}

// IPv6 is an IPv6 header and what its extension headers say (RFC 8200).
type IPv6 struct {
	TrafficClass uint8
	// FlowLabel of 20 bits.
	FlowLabel uint32
	// PayloadLen as the header says, extensions included; Append computes it.
	PayloadLen uint16
	// HopLimit; Append writes 64 for 0.
	HopLimit uint8
	Src, Dst netip.Addr
	// Protocol of the payload, after the extension headers.
	Protocol Protocol
	// Extensions are the kinds of the extension headers, in order. Append writes none but Fragment.
	Extensions []Protocol
	// Fragment, if there is such a header.
	Fragment *Fragment
}

// IsFragment reports whether this is a part of a packet. An atomic fragment, which is whole (RFC 6946), is not one.
func (h IPv6) IsFragment() bool {
	return h.Fragment != nil && (h.Fragment.More || h.Fragment.Offset != 0)
}

// ParseIPv6 reads a header and its extension headers. payload ends where the header says, and the header must not say more
// than b has. Jumbograms (RFC 2675) are malformed.
func ParseIPv6(b []byte) (h IPv6, payload []byte, err error) {
	c := cursor{rest: b}
	first := c.u32()
	h.TrafficClass, h.FlowLabel = uint8(first>>20), first&0xfffff
	h.PayloadLen, h.Protocol, h.HopLimit = c.u16(), Protocol(c.u8()), c.u8()
	h.Src, h.Dst = c.addr6(), c.addr6()
	if c.short {
		return IPv6{}, nil, truncated("ipv6")
	}
	if first>>28 != 6 {
		return IPv6{}, nil, malformed("ipv6", "the version is not 6")
	}
	c.rest = c.take(int(h.PayloadLen))
	if c.short {
		return IPv6{}, nil, truncated("ipv6")
	}
	for h.isExtension() {
		if len(h.Extensions) == maxExtensions {
			return IPv6{}, nil, malformed("ipv6", "too many extension headers")
		}
		h.extension(&c)
		if c.short {
			return IPv6{}, nil, truncated("ipv6 extension header")
		}
	}
	return h, c.rest, nil
}

// isExtension reports whether what comes next is an extension header that can be read: not in a later fragment.
func (h *IPv6) isExtension() bool {
	if h.Fragment != nil && h.Fragment.Offset != 0 {
		return false
	}
	switch h.Protocol {
	case ProtoHopByHop, ProtoRouting, ProtoFragment, ProtoAH, ProtoDestination, ProtoMobility:
		return true
	}
	return false
}

// extension steps over one extension header.
func (h *IPv6) extension(c *cursor) {
	kind := h.Protocol
	h.Extensions = append(h.Extensions, kind)
	h.Protocol = Protocol(c.u8())
	length := int(c.u8())
	switch kind {
	case ProtoFragment:
		v := c.u16()
		h.Fragment = &Fragment{Offset: v &^ 7, More: v&1 != 0, ID: c.u32()}
	case ProtoAH: // in words of 4 octets, less 2 (RFC 4302, section 2.2)
		c.take((length+2)*4 - 2)
	default: // in words of 8 octets, less 1
		c.take((length+1)*8 - 2)
	}
}

// Append appends header, fragment header if there is one, and payload to b. A payload that does not fit the 16-bit length
// is the caller's mistake and panics.
func (h IPv6) Append(b, payload []byte) []byte {
	length := len(payload)
	next := h.Protocol
	if h.Fragment != nil {
		length, next = length+8, ProtoFragment
	}
	if length > 65535 {
		panic(fmt.Sprintf("wire: an IPv6 packet cannot have a payload of %d octets", length))
	}
	if h.HopLimit == 0 {
		h.HopLimit = defaultTTL
	}
	b = be.AppendUint32(b, 6<<28|uint32(h.TrafficClass)<<20|h.FlowLabel&0xfffff)
	b = be.AppendUint16(b, uint16(length))
	b = append(b, byte(next), h.HopLimit)
	b = append6(append6(b, h.Src), h.Dst)
	if f := h.Fragment; f != nil {
		v := f.Offset &^ 7
		if f.More {
			v |= 1
		}
		b = append(b, byte(h.Protocol), 0)
		b = be.AppendUint32(be.AppendUint16(b, v), f.ID)
	}
	return append(b, payload...)
}
