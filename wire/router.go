package wire

import (
	"net/netip"
	"strings"
	"time"
)

// Types and options of router discovery (RFC 4861, sections 4.1, 4.2 and 4.6; RFC 8106).
const (
	ICMPv6RouterSolicitation  = 133
	ICMPv6RouterAdvertisement = 134
	ICMPv6Redirect            = 137

	raManaged = 0x80
	raOther   = 0x40

	ndOptionPrefix = 3
	ndOptionMTU    = 5
	ndOptionRDNSS  = 25
	ndOptionDNSSL  = 31

	prefixOnLink = 0x80
	forever      = 0xffffffff
)

// RouterAdvertisement is what a router says of itself and of the link (RFC 4861, section 4.2). Addresses are not to be made from its prefixes,
// which are on the link for ever.
type RouterAdvertisement struct {
	// Managed: addresses come by DHCPv6. Other: the rest does.
	Managed, Other bool
	// Lifetime as a default router; 0: it is none.
	Lifetime time.Duration
	// MAC is the router's; zero leaves the option out.
	MAC      MAC
	MTU      uint32
	Prefixes []netip.Prefix
	// DNSServers and Domain hold for DNSLifetime (RFC 8106).
	DNSServers  []netip.Addr
	Domain      string
	DNSLifetime time.Duration
}

// Frame is the message in an Ethernet frame with the hop limit that receivers insist on.
func (a RouterAdvertisement) Frame(f Flow) []byte {
	h := ICMP{Type: ICMPv6RouterAdvertisement, Rest: [4]byte{0: 64}}
	if a.Managed {
		h.Rest[1] |= raManaged
	}
	if a.Other {
		h.Rest[1] |= raOther
	}
	be.PutUint16(h.Rest[2:], uint16(min(a.Lifetime/time.Second, 0xffff)))
	f.TTL = ndHopLimit
	return f.packet(ProtoICMPv6, h.Append(nil, f.Src, f.Dst, a.body()))
}

func (a RouterAdvertisement) body() []byte {
	b := make([]byte, 8, 256) // reachable time, retransmission timer: not stated
	if !a.MAC.IsZero() {
		b = append(append(b, ndOptionSourceLink, 1), a.MAC[:]...)
	}
	if a.MTU != 0 {
		b = be.AppendUint32(append(b, ndOptionMTU, 1, 0, 0), a.MTU)
	}
	for _, p := range a.Prefixes {
		b = append(b, ndOptionPrefix, 4, byte(p.Bits()), prefixOnLink)
		b = be.AppendUint32(be.AppendUint32(b, forever), forever)
		b = append6(append(b, 0, 0, 0, 0), p.Masked().Addr())
	}
	life := uint32(min(a.DNSLifetime/time.Second, forever))
	if n := len(a.DNSServers); n > 0 {
		b = be.AppendUint32(append(b, ndOptionRDNSS, byte(1+2*n), 0, 0), life)
		for _, s := range a.DNSServers {
			b = append6(b, s)
		}
	}
	if a.Domain != "" {
		name := domainName(a.Domain)
		b = be.AppendUint32(append(b, ndOptionDNSSL, byte(1+len(name)/8), 0, 0), life)
		b = append(b, name...)
	}
	return b
}

// domainName is a name as DNS writes it, filled up to whole units of 8 octets.
func domainName(d string) (b []byte) {
	for label := range strings.SplitSeq(d, ".") {
		b = append(append(b, byte(len(label))), label...)
	}
	for b = append(b, 0); len(b)%8 != 0; {
		b = append(b, 0)
	}
	return b
}
