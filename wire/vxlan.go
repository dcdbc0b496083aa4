package wire

const (
	// VXLANLen is the length of a VXLAN header.
	VXLANLen = 8
	// Overhead4 is what encapsulation adds to an inner IP packet in an IPv4 underlay packet: inner Ethernet, VXLAN, UDP and
	// IPv4 headers.
	Overhead4 = EthernetLen + VXLANLen + UDPLen + IPv4Len
	// Overhead6 is the same in an IPv6 underlay.
	Overhead6 = EthernetLen + VXLANLen + UDPLen + IPv6Len
	// MinSourcePort and MaxSourcePort bound the outer UDP source port (RFC 7348, section 5).
	MinSourcePort, MaxSourcePort = 49152, 65535

	vxlanFlagVNI = 0x08
)

// VXLAN is a VXLAN header (RFC 7348, section 5).
type VXLAN struct {
	// Valid is the I flag: without it there is no VNI, and the packet is dropped.
	Valid bool
	VNI   VNI
	// Reserved reports that a reserved bit was set, which is ignored on receipt. Append always writes zeroes.
	Reserved bool
}

// ParseVXLAN reads a header; payload is the inner frame.
func ParseVXLAN(b []byte) (h VXLAN, payload []byte, err error) {
	c := cursor{rest: b}
	flags, last := c.u32(), c.u32()
	if c.short {
		return VXLAN{}, nil, truncated("vxlan")
	}
	h.Valid = flags&(vxlanFlagVNI<<24) != 0
	h.VNI = VNI(last >> 8)
	h.Reserved = flags&^(vxlanFlagVNI<<24) != 0 || last&0xff != 0
	return h, c.rest, nil
}

// Append appends the header to b.
func (h VXLAN) Append(b []byte) []byte {
	flags := uint32(0)
	if h.Valid {
		flags = vxlanFlagVNI << 24
	}
	return be.AppendUint32(be.AppendUint32(b, flags), uint32(h.VNI&MaxVNI)<<8)
}

// Encapsulate is an inner frame in an underlay frame: outer addresses from f, a zero UDP checksum and don't-fragment, as
// weft's datapath does.
func Encapsulate(f Flow, src, dst uint16, vni VNI, inner []byte) []byte {
	payload := append(VXLAN{Valid: true, VNI: vni}.Append(make([]byte, 0, VXLANLen+len(inner))), inner...)
	f.DF = true
	return f.packet(ProtoUDP, UDP{Src: src, Dst: dst, NoChecksum: true}.Append(nil, f.Src, f.Dst, payload))
}
