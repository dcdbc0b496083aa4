package wire

import (
	"fmt"
	"net/netip"
)

// Protocol says what an IP packet carries (IANA protocol numbers), IPv6 extension headers included.
type Protocol uint8

// The protocols that weft knows.
const (
	ProtoHopByHop    Protocol = 0
	ProtoICMP        Protocol = 1
	ProtoTCP         Protocol = 6
	ProtoUDP         Protocol = 17
	ProtoRouting     Protocol = 43
	ProtoFragment    Protocol = 44
	ProtoESP         Protocol = 50
	ProtoAH          Protocol = 51
	ProtoICMPv6      Protocol = 58
	ProtoNone        Protocol = 59
	ProtoDestination Protocol = 60
	ProtoMobility    Protocol = 135
)

// String is the name, or the number.
func (p Protocol) String() string {
	switch p {
	case ProtoICMP:
		return "ICMP"
	case ProtoTCP:
		return "TCP"
	case ProtoUDP:
		return "UDP"
	case ProtoICMPv6:
		return "ICMPv6"
	}
	return fmt.Sprint(uint8(p))
}

// IPv4Len is the length of an IPv4 header without options.
const IPv4Len = 20

// defaultTTL is what a probe starts with (RFC 1700).
const defaultTTL = 64

// IPv4 is an IPv4 header (RFC 791).
type IPv4 struct {
	// TOS is DSCP (6 bits) and ECN (2 bits).
	TOS uint8
	// TotalLen of header and payload, as the header says; Append computes it.
	TotalLen uint16
	ID       uint16
	DF, MF   bool
	// FragmentOffset in octets, a multiple of 8.
	FragmentOffset uint16
	// TTL; Append writes 64 for 0.
	TTL      uint8
	Protocol Protocol
	// Checksum as read; Append computes it.
	Checksum uint16
	Src, Dst netip.Addr
	// Options, a multiple of 4 octets, at most 40.
	Options []byte
}

// IsFragment reports whether this is a part of a packet.
func (h IPv4) IsFragment() bool { return h.MF || h.FragmentOffset != 0 }

// ParseIPv4 reads a header. payload ends where the header says, and the header must not say more than b has; what follows
// it (Ethernet padding) is left out. The checksum is not verified: see IPv4ChecksumOK.
func ParseIPv4(b []byte) (h IPv4, payload []byte, err error) {
	c := cursor{rest: b}
	first := c.u8()
	h.TOS, h.TotalLen, h.ID = c.u8(), c.u16(), c.u16()
	frag := c.u16()
	h.DF, h.MF, h.FragmentOffset = frag&0x4000 != 0, frag&0x2000 != 0, frag&0x1fff<<3
	h.TTL, h.Protocol, h.Checksum = c.u8(), Protocol(c.u8()), c.u16()
	h.Src, h.Dst = c.addr4(), c.addr4()
	if c.short {
		return IPv4{}, nil, truncated("ipv4")
	}
	if first>>4 != 4 {
		return IPv4{}, nil, malformed("ipv4", "the version is not 4")
	}
	hlen := int(first&0xf) * 4
	if hlen < IPv4Len {
		return IPv4{}, nil, malformed("ipv4", "the header length is below 20")
	}
	if int(h.TotalLen) < hlen {
		return IPv4{}, nil, malformed("ipv4", "the total length is below the header length")
	}
	if options := c.take(hlen - IPv4Len); len(options) > 0 {
		h.Options = options
	}
	payload = c.take(int(h.TotalLen) - hlen)
	if c.short {
		return IPv4{}, nil, truncated("ipv4")
	}
	return h, payload, nil
}

// IPv4ChecksumOK verifies the checksum of the header at the start of b, which ParseIPv4 accepts.
func IPv4ChecksumOK(b []byte) bool {
	if len(b) < IPv4Len {
		return false
	}
	n := int(b[0]&0xf) * 4
	return n >= IPv4Len && n <= len(b) && Checksum(b[:n]) == 0
}

// Append appends header and payload to b. Options beyond 40 octets are cut, and padded to a multiple of 4; a payload that
// does not fit the 16-bit length is the caller's mistake and panics.
func (h IPv4) Append(b, payload []byte) []byte {
	options := h.Options[:min(len(h.Options), 40)]
	hlen := IPv4Len + (len(options)+3)&^3
	if hlen+len(payload) > 65535 {
		panic(fmt.Sprintf("wire: an IPv4 packet cannot have %d octets", hlen+len(payload)))
	}
	if h.TTL == 0 {
		h.TTL = defaultTTL
	}
	frag := h.FragmentOffset >> 3
	if h.DF {
		frag |= 0x4000
	}
	if h.MF {
		frag |= 0x2000
	}
	at := len(b)
	b = append(b, 4<<4|byte(hlen/4), h.TOS)
	b = be.AppendUint16(b, uint16(hlen+len(payload)))
	b = be.AppendUint16(b, h.ID)
	b = be.AppendUint16(b, frag)
	b = append(b, h.TTL, byte(h.Protocol), 0, 0)
	b = append4(append4(b, h.Src), h.Dst)
	b = append(b, options...)
	b = append(b, make([]byte, hlen-IPv4Len-len(options))...)
	be.PutUint16(b[at+10:], Checksum(b[at:]))
	return append(b, payload...)
}
