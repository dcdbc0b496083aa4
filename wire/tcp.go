package wire

import (
	"net/netip"
	"strings"
)

// TCPLen is the length of a TCP header without options.
const TCPLen = 20

// TCPFlags are the control bits (RFC 9293, section 3.1).
type TCPFlags uint8

// The flags.
const (
	FIN TCPFlags = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
	ECE
	CWR
)

// String is the names, as "SYN,ACK".
func (f TCPFlags) String() string {
	var names []string
	for i, name := range [...]string{"FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"} {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

// TCP is a TCP header (RFC 9293).
type TCP struct {
	Src, Dst uint16
	Seq, Ack uint32
	Flags    TCPFlags
	Window   uint16
	// Checksum as read; Append computes it.
	Checksum uint16
	Urgent   uint16
	// Options, a multiple of 4 octets, at most 40.
	Options []byte
}

// ParseTCP reads a header; payload is the rest.
func ParseTCP(b []byte) (h TCP, payload []byte, err error) {
	c := cursor{rest: b}
	h.Src, h.Dst, h.Seq, h.Ack = c.u16(), c.u16(), c.u32(), c.u32()
	offset := c.u8()
	h.Flags, h.Window, h.Checksum, h.Urgent = TCPFlags(c.u8()), c.u16(), c.u16(), c.u16()
	if c.short {
		return TCP{}, nil, truncated("tcp")
	}
	hlen := int(offset>>4) * 4
	if hlen < TCPLen {
		return TCP{}, nil, malformed("tcp", "the header length is below 20")
	}
	if options := c.take(hlen - TCPLen); len(options) > 0 {
		h.Options = options
	}
	if c.short {
		return TCP{}, nil, truncated("tcp")
	}
	return h, c.rest, nil
}

// TCPChecksumOK verifies a segment that ParseTCP accepts.
func TCPChecksumOK(src, dst netip.Addr, segment []byte) bool {
	return len(segment) >= TCPLen && TransportChecksum(src, dst, ProtoTCP, segment) == 0
}

// Append appends header and payload to b. Options beyond 40 octets are cut, and padded to a multiple of 4.
func (h TCP) Append(b []byte, src, dst netip.Addr, payload []byte) []byte {
	options := h.Options[:min(len(h.Options), 40)]
	hlen := TCPLen + (len(options)+3)&^3
	at := len(b)
	b = be.AppendUint16(b, h.Src)
	b = be.AppendUint16(b, h.Dst)
	b = be.AppendUint32(b, h.Seq)
	b = be.AppendUint32(b, h.Ack)
	b = append(b, byte(hlen/4)<<4, byte(h.Flags))
	b = be.AppendUint16(b, h.Window)
	b = append(b, 0, 0)
	b = be.AppendUint16(b, h.Urgent)
	b = append(b, options...)
	b = append(b, make([]byte, hlen-TCPLen-len(options))...)
	b = append(b, payload...)
	be.PutUint16(b[at+16:], TransportChecksum(src, dst, ProtoTCP, b[at:]))
	return b
}
