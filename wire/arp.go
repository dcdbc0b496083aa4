package wire

import "net/netip"

// ARPOp says what an ARP message wants (RFC 826).
type ARPOp uint16

// The two operations.
const (
	ARPRequest ARPOp = 1
	ARPReply   ARPOp = 2
)

// ARPLen is the length of an ARP message for IPv4 over Ethernet.
const ARPLen = 28

// ARP is an ARP message for IPv4 over Ethernet (RFC 826).
type ARP struct {
	Op        ARPOp
	SenderMAC MAC
	SenderIP  netip.Addr
	TargetMAC MAC
	TargetIP  netip.Addr
}

// ParseARP reads a message; what follows it (padding) is ignored.
func ParseARP(b []byte) (ARP, error) {
	c := cursor{rest: b}
	hardware, protocol, lengths := c.u16(), EtherType(c.u16()), c.u16()
	a := ARP{Op: ARPOp(c.u16()), SenderMAC: c.mac(), SenderIP: c.addr4(), TargetMAC: c.mac(), TargetIP: c.addr4()}
	if c.short {
		return ARP{}, truncated("arp")
	}
	if hardware != 1 || protocol != TypeIPv4 || lengths != 0x0604 {
		return ARP{}, malformed("arp", "not for IPv4 over Ethernet")
	}
	return a, nil
}

// Append appends the message to b. Addresses that are not IPv4 are written as 0.0.0.0.
func (a ARP) Append(b []byte) []byte {
	b = be.AppendUint16(b, 1)
	b = be.AppendUint16(b, uint16(TypeIPv4))
	b = be.AppendUint16(b, 0x0604)
	b = be.AppendUint16(b, uint16(a.Op))
	b = append(b, a.SenderMAC[:]...)
	b = append4(b, a.SenderIP)
	b = append(b, a.TargetMAC[:]...)
	return append4(b, a.TargetIP)
}

// Frame is the message in an Ethernet frame: a request goes to everybody, a reply to its target.
func (a ARP) Frame() []byte {
	h := Ethernet{Dst: BroadcastMAC, Src: a.SenderMAC, Type: TypeARP}
	if a.Op == ARPReply {
		h.Dst = a.TargetMAC
	}
	return a.Append(h.Append(make([]byte, 0, MinFrame)))
}

// Reply answers a request for an address that mac owns.
func (a ARP) Reply(mac MAC) ARP {
	return ARP{Op: ARPReply, SenderMAC: mac, SenderIP: a.TargetIP, TargetMAC: a.SenderMAC, TargetIP: a.SenderIP}
}

// Announcement is a gratuitous ARP request: it tells a segment where an address is (RFC 5227, section 3).
func Announcement(mac MAC, ip netip.Addr) ARP {
	return ARP{Op: ARPRequest, SenderMAC: mac, SenderIP: ip, TargetIP: ip}
}

func append4(b []byte, a netip.Addr) []byte {
	var v [4]byte
	if a = a.Unmap(); a.Is4() {
		v = a.As4()
	}
	return append(b, v[:]...)
}

func append6(b []byte, a netip.Addr) []byte {
	var v [16]byte
	if a.Is6() {
		v = a.As16()
	}
	return append(b, v[:]...)
}
