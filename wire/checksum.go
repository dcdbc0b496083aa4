package wire

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// Checksum is the Internet checksum of b (RFC 1071). Of octets that contain their own right checksum it is 0.
func Checksum(b []byte) uint16 { return ^fold(sum(0, b)) }

// TransportChecksum is the checksum of a TCP, UDP or ICMPv6 segment with the pseudo header of its IP packet (RFC 9293,
// section 3.1; RFC 8200, section 8.1). Of a segment that contains its own right checksum it is 0. It does not know UDP's
// rule that 0 is sent as 0xffff: see UDP.
func TransportChecksum(src, dst netip.Addr, proto Protocol, segment []byte) uint16 {
	s := sum(sum(0, src.AsSlice()), dst.AsSlice())
	s, carry := bits.Add64(s, uint64(proto)+uint64(len(segment)), 0)
	return ^fold(sum(s+carry, segment))
}

// sum adds b to a running sum of 16-bit words. The sum of 64-bit words with the carry brought round is the same, modulo
// 0xffff.
func sum(s uint64, b []byte) uint64 {
	var carry uint64
	for len(b) >= 8 {
		s, carry = bits.Add64(s, binary.BigEndian.Uint64(b), carry)
		b = b[8:]
	}
	if len(b) > 0 {
		var last [8]byte
		copy(last[:], b)
		s, carry = bits.Add64(s, binary.BigEndian.Uint64(last[:]), carry)
	}
	s, carry = bits.Add64(s, 0, carry)
	return s + carry
}

func fold(s uint64) uint16 {
	s = s>>32 + s&0xffffffff
	s = s>>32 + s&0xffffffff
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	return uint16(s)
}
