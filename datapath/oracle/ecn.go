package oracle

import (
	"bytes"
	"encoding/binary"

	"github.com/weftnet/weft/wire"
)

// The ECN field: RFC 3168, section 5.
const (
	maskECN       = 3
	notECT        = 0
	ect1          = 1
	congestionMet = 3
)

// tosOf is the ToS octet or traffic class of a frame's IP header, by the ethertype; ok is false where there is no whole one.
func tosOf(frame []byte) (tos byte, ok bool) {
	b := frame[wire.EthernetLen:]
	switch binary.BigEndian.Uint16(frame[12:]) {
	case typeIPv4:
		if len(b) >= wire.IPv4Len {
			return b[1], true
		}
	case typeIPv6:
		if len(b) >= wire.IPv6Len {
			return b[0]<<4 | b[1]>>4, true
		}
	}
	return 0, false
}

// leaveTunnel is the frame as it leaves the tunnel, or nil where it must not: RFC 6040, section 4.2, figure 4, and RFC 2983.
func leaveTunnel(frame []byte, outer byte, uniform bool) []byte {
	tos, ok := tosOf(frame)
	if !ok {
		return frame
	}
	old, ecn := tos, tos&maskECN
	switch mark := outer & maskECN; {
	case ecn == notECT && mark == congestionMet:
		return nil
	case ecn != notECT && ecn != congestionMet && (mark == congestionMet || mark == ect1):
		tos = tos&^maskECN | mark
	}
	if uniform {
		tos = outer&^maskECN | tos&maskECN
	}
	if tos == old {
		return frame
	}
	out := bytes.Clone(frame)
	b := out[wire.EthernetLen:]
	if binary.BigEndian.Uint16(frame[12:]) == typeIPv6 {
		b[0], b[1] = b[0]&0xf0|tos>>4, tos<<4|b[1]&15
		return out
	}
	word := binary.BigEndian.Uint16(b)
	b[1] = tos
	binary.BigEndian.PutUint16(b[10:], update(binary.BigEndian.Uint16(b[10:]), word, binary.BigEndian.Uint16(b)))
	return out
}

// update keeps a checksum as right or wrong as it was: RFC 1624.
func update(check, old, now uint16) uint16 {
	var b []byte
	for _, w := range []uint16{^check, ^old, now} {
		b = binary.BigEndian.AppendUint16(b, w)
	}
	return ^sum(b)
}
