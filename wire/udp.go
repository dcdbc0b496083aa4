package wire

import (
	"fmt"
	"net/netip"
)

// UDPLen is the length of a UDP header.
const UDPLen = 8

// UDP is a UDP header (RFC 768).
type UDP struct {
	Src, Dst uint16
	// Length of header and payload as read; Append computes it.
	Length uint16
	// Checksum as read. Append computes it, unless NoChecksum is set.
	Checksum uint16
	// NoChecksum writes zero, as tunnels do (RFC 7348, section 5; RFC 6935).
	NoChecksum bool
}

// ParseUDP reads a header. payload ends where the header says, and the header must not say more than b has.
func ParseUDP(b []byte) (h UDP, payload []byte, err error) {
	c := cursor{rest: b}
	h.Src, h.Dst, h.Length, h.Checksum = c.u16(), c.u16(), c.u16(), c.u16()
	if c.short {
		return UDP{}, nil, truncated("udp")
	}
	if h.Length < UDPLen {
		return UDP{}, nil, malformed("udp", "the length is below 8")
	}
	h.NoChecksum = h.Checksum == 0
	if payload = c.take(int(h.Length) - UDPLen); c.short {
		return UDP{}, nil, truncated("udp")
	}
	return h, payload, nil
}

// UDPChecksumOK verifies a segment that ParseUDP accepts: zero means that none was sent, which tunnels are allowed over IPv6
// as well.
func UDPChecksumOK(src, dst netip.Addr, segment []byte) bool {
	if len(segment) < UDPLen {
		return false
	}
	n := int(be.Uint16(segment[4:]))
	if n < UDPLen || n > len(segment) {
		return false
	}
	return be.Uint16(segment[6:]) == 0 || TransportChecksum(src, dst, ProtoUDP, segment[:n]) == 0
}

// Append appends header and payload to b. A payload that does not fit the 16-bit length panics.
func (h UDP) Append(b []byte, src, dst netip.Addr, payload []byte) []byte {
	length := UDPLen + len(payload)
	if length > 65535 {
		panic(fmt.Sprintf("wire: a UDP datagram cannot have %d octets", length))
	}
	at := len(b)
	b = be.AppendUint16(b, h.Src)
	b = be.AppendUint16(b, h.Dst)
	b = be.AppendUint16(b, uint16(length))
	b = append(append(b, 0, 0), payload...)
	if h.NoChecksum {
		return b
	}
	sum := TransportChecksum(src, dst, ProtoUDP, b[at:])
	if sum == 0 {
		sum = 0xffff // zero says that there is none (RFC 768)
	}
	be.PutUint16(b[at+6:], sum)
	return b
}
