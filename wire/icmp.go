package wire

import "net/netip"

// ICMPLen is the length of an ICMP or ICMPv6 header, the four octets whose meaning depends on the type included.
const ICMPLen = 8

// ICMP types and codes that weft reads or writes (RFC 792; RFC 4443; RFC 4861).
const (
	ICMPEchoReply   = 0
	ICMPUnreachable = 3
	// ICMPFragmentation is the code of ICMPUnreachable for "fragmentation needed" (RFC 1191).
	ICMPFragmentation   = 4
	ICMPEchoRequest     = 8
	ICMPv6PacketTooBig  = 2
	ICMPv6EchoRequest   = 128
	ICMPv6EchoReply     = 129
	ICMPv6Solicitation  = 135
	ICMPv6Advertisement = 136
)

// ICMP is an ICMP or ICMPv6 message.
type ICMP struct {
	Type, Code uint8
	// Checksum as read; the appending methods compute it.
	Checksum uint16
	// Rest is the four octets whose meaning depends on the type.
	Rest [4]byte
}

// ParseICMP reads a header of ICMP or ICMPv6; body is what follows it.
func ParseICMP(b []byte) (h ICMP, body []byte, err error) {
	c := cursor{rest: b}
	h.Type, h.Code, h.Checksum = c.u8(), c.u8(), c.u16()
	copy(h.Rest[:], c.take(4))
	if c.short {
		return ICMP{}, nil, truncated("icmp")
	}
	return h, c.rest, nil
}

// Append appends an ICMP message to b, or an ICMPv6 message if the addresses, which its checksum covers, are IPv6.
func (h ICMP) Append(b []byte, src, dst netip.Addr, body []byte) []byte {
	at := len(b)
	b = append(b, h.Type, h.Code, 0, 0)
	b = append(append(b, h.Rest[:]...), body...)
	sum := uint16(0)
	if src.Is6() {
		sum = TransportChecksum(src, dst, ProtoICMPv6, b[at:])
	} else {
		sum = Checksum(b[at:])
	}
	be.PutUint16(b[at+2:], sum)
	return b
}

// ICMPChecksumOK verifies a message; of which of the two protocols it is, the addresses say.
func ICMPChecksumOK(src, dst netip.Addr, message []byte) bool {
	if len(message) < ICMPLen {
		return false
	}
	if src.Is6() {
		return TransportChecksum(src, dst, ProtoICMPv6, message) == 0
	}
	return Checksum(message) == 0
}

// Echo is a ping, or its answer.
type Echo struct {
	Reply   bool
	ID, Seq uint16
}

// Echo reads a message of family 4 or 6 (whether v6) as a ping; false if it is something else.
func (h ICMP) Echo(v6 bool) (Echo, bool) {
	e := Echo{ID: be.Uint16(h.Rest[:]), Seq: be.Uint16(h.Rest[2:])}
	request, reply := uint8(ICMPEchoRequest), uint8(ICMPEchoReply)
	if v6 {
		request, reply = ICMPv6EchoRequest, ICMPv6EchoReply
	}
	e.Reply = h.Type == reply
	return e, h.Code == 0 && (e.Reply || h.Type == request)
}

// ICMP is the header of the ping in ICMP or ICMPv6.
func (e Echo) ICMP(v6 bool) ICMP {
	h := ICMP{Type: ICMPEchoRequest}
	switch {
	case v6 && e.Reply:
		h.Type = ICMPv6EchoReply
	case v6:
		h.Type = ICMPv6EchoRequest
	case e.Reply:
		h.Type = ICMPEchoReply
	}
	be.PutUint16(h.Rest[:], e.ID)
	be.PutUint16(h.Rest[2:], e.Seq)
	return h
}
