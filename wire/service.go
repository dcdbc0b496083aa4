package wire

import "net/netip"

// What a host's agent is in every network, on every host, where it answers DHCP and router solicitations: a workload that moved finds
// there what it left.
var (
	// ServiceMAC begins with ReservedPrefix.
	ServiceMAC = MAC{0x02, 0x6f, 0x77, 0, 0, 2}
	// DHCPServer4 is the server identifier. It may be no port's; it is in the datapath, too.
	DHCPServer4 = netip.AddrFrom4([4]byte{169, 254, 73, 48})
	// ServiceLinkLocal is ServiceMAC's link-local address (RFC 4291, appendix A).
	ServiceLinkLocal = netip.AddrFrom16([16]byte{0xfe, 0x80, 8: 0x00, 9: 0x6f, 10: 0x77, 11: 0xff, 12: 0xfe, 15: 2})
)
