package wire

// Layers says which headers a Frame has.
type Layers uint16

// The layers.
const (
	LayerARP Layers = 1 << iota
	LayerIPv4
	LayerIPv6
	LayerUDP
	LayerTCP
	LayerICMP
	LayerICMPv6
)

// Frame is an Ethernet frame taken apart as far as weft knows its protocols. A header is filled in if Layers has it.
type Frame struct {
	Ethernet
	Layers
	ARP  ARP
	IPv4 IPv4
	IPv6 IPv6
	UDP  UDP
	TCP  TCP
	ICMP ICMP
	// Segment is the payload of the IP header, if there is one: what a transport checksum covers.
	Segment []byte
	// Payload is what follows the last header.
	Payload []byte
}

// Has reports whether all the layers given are there.
func (l Layers) Has(want Layers) bool { return l&want == want }

// ParseFrame takes a frame apart. Protocols that weft does not know, and later fragments, end in Payload without error.
// On an error the layers before the broken one are there. The result points into b.
func ParseFrame(b []byte) (Frame, error) {
	f := Frame{}
	var err error
	if f.Ethernet, f.Payload, err = ParseEthernet(b); err != nil {
		return f, err
	}
	var proto Protocol
	var later bool // not the first fragment: no transport header
	switch f.Type {
	case TypeARP:
		if f.ARP, err = ParseARP(f.Payload); err == nil {
			f.Layers, f.Payload = LayerARP, nil
		}
		return f, err
	case TypeIPv4:
		h, rest, err := ParseIPv4(f.Payload)
		if err != nil {
			return f, err
		}
		f.IPv4, f.Payload, f.Layers = h, rest, LayerIPv4
		proto, later = h.Protocol, h.FragmentOffset != 0
	case TypeIPv6:
		h, rest, err := ParseIPv6(f.Payload)
		if err != nil {
			return f, err
		}
		f.IPv6, f.Payload, f.Layers = h, rest, LayerIPv6
		proto, later = h.Protocol, h.Fragment != nil && h.Fragment.Offset != 0
	default:
		return f, nil
	}
	f.Segment = f.Payload
	if later {
		return f, nil
	}
	return f, f.parseTransport(proto)
}

func (f *Frame) parseTransport(proto Protocol) error {
	layer, rest, err := Layers(0), f.Payload, error(nil)
	switch {
	case proto == ProtoUDP:
		layer = LayerUDP
		if f.isFragment() {
			// The length is that of the whole datagram, of which this is the first part.
			f.UDP, rest, err = parseUDPStart(f.Payload)
		} else {
			f.UDP, rest, err = ParseUDP(f.Payload)
		}
	case proto == ProtoTCP:
		layer = LayerTCP
		f.TCP, rest, err = ParseTCP(f.Payload)
	case proto == ProtoICMP && f.Has(LayerIPv4):
		layer = LayerICMP
		f.ICMP, rest, err = ParseICMP(f.Payload)
	case proto == ProtoICMPv6 && f.Has(LayerIPv6):
		layer = LayerICMPv6
		f.ICMP, rest, err = ParseICMP(f.Payload)
	}
	if err == nil {
		f.Layers |= layer
		f.Payload = rest
	}
	return err
}

func (f *Frame) isFragment() bool { return f.IPv4.IsFragment() || f.IPv6.IsFragment() }

// ChecksumOK verifies the checksums of the IP header and of what it carries, as far as the frame has them whole. raw is
// what the frame was parsed from.
func (f *Frame) ChecksumOK(raw []byte) bool {
	src, dst := f.IPv4.Src, f.IPv4.Dst
	if f.Has(LayerIPv4) {
		if _, ip, err := ParseEthernet(raw); err != nil || !IPv4ChecksumOK(ip) {
			return false
		}
	} else {
		src, dst = f.IPv6.Src, f.IPv6.Dst
	}
	switch {
	case f.isFragment():
		return true
	case f.Has(LayerUDP):
		return UDPChecksumOK(src, dst, f.Segment)
	case f.Has(LayerTCP):
		return TCPChecksumOK(src, dst, f.Segment)
	case f.Has(LayerICMP), f.Has(LayerICMPv6):
		return ICMPChecksumOK(src, dst, f.Segment)
	}
	return true
}

// parseUDPStart is ParseUDP of the first fragment of a datagram.
func parseUDPStart(b []byte) (h UDP, payload []byte, err error) {
	c := cursor{rest: b}
	h.Src, h.Dst, h.Length, h.Checksum = c.u16(), c.u16(), c.u16(), c.u16()
	if c.short {
		return UDP{}, nil, truncated("udp")
	}
	h.NoChecksum = h.Checksum == 0
	return h, c.rest, nil
}
