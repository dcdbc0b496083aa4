package conform

import (
	"encoding/binary"

	"github.com/weftnet/weft/wire"
)

// aggregate is a TCP stream's n octets as a port offers them, in segments of mss octets: one frame with a virtio header, whose checksum
// and cutting are left to whoever carries it; and what must come of it on the wire.
func aggregate(src wire.MAC, n, mss int, edits ...func(*wire.Flow)) (head virtio, whole []byte, segments [][]byte) {
	f := flow(macA, src, append(edits, dontFragment)...)
	data := payload(n)
	h := wire.TCP{Src: 1111, Dst: 2222, Seq: 1000, Ack: 2000, Flags: wire.ACK | wire.PSH, Window: 500}
	for at := 0; at < n; at += mss {
		g, s := f, h
		s.Seq += uint32(at)
		if s.Flags = wire.ACK; at+mss >= n {
			s.Flags |= wire.PSH // of the last one only
		}
		if g.Src.Is4() {
			g.ID += uint16(at / mss)
		}
		segments = append(segments, g.TCP(s, data[at:min(n, at+mss)]))
	}
	whole = f.TCP(h, data)
	tcp, kind := wire.EthernetLen+wire.IPv4Len, byte(virtioTCP4)
	if f.Src.Is6() {
		tcp, kind = wire.EthernetLen+wire.IPv6Len, virtioTCP6
	}
	// The checksum field holds the sum of the pseudo header.
	binary.BigEndian.PutUint16(whole[tcp+16:], ^wire.TransportChecksum(f.Src, f.Dst, wire.ProtoTCP, make([]byte, len(whole)-tcp)))
	head[0], head[1] = virtioNeedsChecksum, kind
	binary.NativeEndian.PutUint16(head[2:], uint16(tcp+wire.TCPLen))
	binary.NativeEndian.PutUint16(head[4:], uint16(mss))
	binary.NativeEndian.PutUint16(head[6:], uint16(tcp))
	binary.NativeEndian.PutUint16(head[8:], 16)
	return head, whole, segments
}
