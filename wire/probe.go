package wire

import (
	"net/netip"
	"time"
)

// Flow is who a probe is from and to; its methods build whole Ethernet frames. Both addresses are of one family.
type Flow struct {
	SrcMAC, DstMAC MAC
	Src, Dst       netip.Addr
	// VLANs to tag the frame with.
	VLANs []VLAN
	// TTL or hop limit; 0 is 64.
	TTL uint8
	// TOS or traffic class.
	TOS uint8
	// ID is the IPv4 identification.
	ID uint16
	// DF is the IPv4 don't-fragment bit.
	DF bool
	// FlowLabel is of IPv6.
	FlowLabel uint32
}

// Back is the flow of the answers.
func (f Flow) Back() Flow {
	f.SrcMAC, f.DstMAC, f.Src, f.Dst = f.DstMAC, f.SrcMAC, f.Dst, f.Src
	return f
}

// Echo is a ping with data.
func (f Flow) Echo(e Echo, data []byte) []byte {
	if f.Src.Is6() {
		return f.packet(ProtoICMPv6, e.ICMP(true).Append(nil, f.Src, f.Dst, data))
	}
	return f.packet(ProtoICMP, e.ICMP(false).Append(nil, f.Src, f.Dst, data))
}

// UDP is a datagram between two UDP ports.
func (f Flow) UDP(src, dst uint16, payload []byte) []byte {
	return f.packet(ProtoUDP, UDP{Src: src, Dst: dst}.Append(nil, f.Src, f.Dst, payload))
}

// TCP is a segment.
func (f Flow) TCP(h TCP, payload []byte) []byte {
	return f.packet(ProtoTCP, h.Append(nil, f.Src, f.Dst, payload))
}

// packet puts a transport segment into IP and Ethernet.
func (f Flow) packet(proto Protocol, segment []byte) []byte {
	h := Ethernet{Dst: f.DstMAC, Src: f.SrcMAC, VLANs: f.VLANs, Type: TypeIPv4}
	b := make([]byte, 0, EthernetLen+4*len(f.VLANs)+IPv6Len+len(segment))
	if f.Src.Is6() {
		h.Type = TypeIPv6
		return IPv6{TrafficClass: f.TOS, FlowLabel: f.FlowLabel, HopLimit: f.TTL, Protocol: proto, Src: f.Src, Dst: f.Dst}.
			Append(h.Append(b), segment)
	}
	return IPv4{TOS: f.TOS, ID: f.ID, DF: f.DF, TTL: f.TTL, Protocol: proto, Src: f.Src, Dst: f.Dst}.Append(h.Append(b), segment)
}

// SequenceLen is the length of a Sequence.
const SequenceLen = 24

// sequenceMagic begins every Sequence, so that a stray datagram is not counted: "weft".
const sequenceMagic = 0x77656674

// Sequence is the payload of a counted datagram: loss, duplicates, order and delay are told by it.
type Sequence struct {
	// Stream tells senders apart.
	Stream uint32
	Number uint64
	// Sent is the sender's clock.
	Sent time.Time
}

// Append appends the payload to b.
func (s Sequence) Append(b []byte) []byte {
	b = be.AppendUint32(b, sequenceMagic)
	b = be.AppendUint32(b, s.Stream)
	b = be.AppendUint64(b, s.Number)
	sent := int64(0)
	if !s.Sent.IsZero() {
		sent = s.Sent.UnixNano()
	}
	return be.AppendUint64(b, uint64(sent))
}

// ParseSequence reads a payload; what follows it (padding to a wanted size) is ignored.
func ParseSequence(b []byte) (Sequence, error) {
	c := cursor{rest: b}
	magic := c.u32()
	s := Sequence{Stream: c.u32(), Number: uint64(c.u32())<<32 | uint64(c.u32())}
	sent := int64(uint64(c.u32())<<32 | uint64(c.u32()))
	if c.short {
		return Sequence{}, truncated("sequence")
	}
	if magic != sequenceMagic {
		return Sequence{}, malformed("sequence", "not a counted datagram")
	}
	if sent != 0 {
		s.Sent = time.Unix(0, sent)
	}
	return s, nil
}
