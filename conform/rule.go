package conform

// Rule is what a standard asks for, in short.
type Rule struct {
	// ID is the number of the rule of RFC 7348, or a word.
	ID string
	// Source is the document and section; Text what it asks of a VTEP, and what weft does where it leaves the choice.
	Source, Text string
	// Missing says why there is no case, if there is none.
	Missing string
}

// Rules are all of them, in the order in which the table has them.
func Rules() []Rule { return rules }

var rules = []Rule{
	{ID: "1", Source: "RFC 7348, section 4.1", Text: "out: a MAC of the network goes to its port or its VTEP, and only there; groups and unknown MACs are flooded, once to each member"},
	{ID: "2", Source: "RFC 7348, section 4.1", Text: "in: delivered only if the VNI is held here and a local port of it has the inner MAC"},
	{ID: "3", Source: "RFC 7348, section 4.1", Text: "learning inner MAC to outer source from what arrives; weft learns nothing unless a network asks for it"},
	{ID: "4", Source: "RFC 7348, section 4.2", Text: "broadcast, multicast and unknown unicast go to the VNI's IP multicast group, where management has given it one, and come in by no other"},
	{ID: "5", Source: "RFC 7348, section 4.2", Text: "a VTEP joins the group (IGMPv3, MLDv2) when it has a member, and leaves it when it has none"},
	{ID: "6", Source: "RFC 7348, section 4.3", Text: "a VTEP MUST NOT fragment VXLAN packets"},
	{ID: "7", Source: "RFC 7348, section 4.3", Text: "VXLAN fragments may be discarded: weft does, by name"},
	{ID: "8", Source: "RFC 7348, section 4.3; RFC 1191; RFC 8201", Text: "what does not fit the network or the path is dropped, and the sender is told by ICMP where it may be"},
	{ID: "9", Source: "RFC 7348, section 5", Text: "the I flag must be set; the other flags are 0 when sent and ignored when received"},
	{ID: "10", Source: "RFC 7348, section 5", Text: "the reserved fields are 0 when sent and ignored when received"},
	{ID: "11", Source: "RFC 7348, section 5", Text: "a VNI has 24 bits, and ports of different VNIs cannot talk"},
	{ID: "12", Source: "RFC 7348, section 5", Text: "the destination UDP port is 4789 unless configured"},
	{ID: "13", Source: "RFC 7348, section 5; RFC 6438", Text: "the source UDP port, and the IPv6 flow label, are a hash of the inner headers; ports from 49152"},
	{ID: "14", Source: "RFC 7348, section 5; RFC 6935", Text: "the UDP checksum is sent as zero, over IPv6 too"},
	{ID: "15", Source: "RFC 7348, section 5; RFC 6935", Text: "a UDP checksum of zero is accepted, over IPv6 too"},
	{ID: "16", Source: "RFC 7348, section 5", Text: "a UDP checksum that is sent is right"},
	{ID: "17", Source: "RFC 7348, section 5", Text: "a UDP checksum that is received may be verified, and the packet is dropped if it is wrong: weft verifies"},
	{ID: "18", Source: "RFC 7348, section 5", Text: "the outer addresses are the VTEPs', the outer MAC is the next hop's, an outer VLAN tag is optional: weft has none"},
	{ID: "19", Source: "RFC 7348, section 5", Text: "outer IPv4 and IPv6; neither the inner frame check sequence nor padding is carried"},
	{ID: "20", Source: "RFC 7348, section 6", Text: "gateway, in: a frame with an inner VLAN tag is discarded unless configured: nothing is configured"},
	{ID: "21", Source: "RFC 7348, section 6", Text: "gateway, out: the VLAN selects the VNI where it is configured: nothing is, and a tag selects none"},
	{ID: "22", Source: "RFC 7348, section 6.1", Text: "in: a frame with an inner VLAN tag is discarded unless configured"},
	{ID: "23", Source: "RFC 7348, section 6.1", Text: "out: no inner VLAN tag is sent unless configured: weft drops such frames"},
	{ID: "24", Source: "RFC 7348, section 7", Text: "rogue packets: a VNI's packets are taken only from its VTEPs, and a port sends only as itself"},
	{ID: "ECN", Source: "RFC 6040", Text: "congestion marks: copied to the outer header (normal mode), merged as figure 4 says, CE around not-ECT dropped"},
	{ID: "DSCP", Source: "RFC 2983", Text: "pipe (the default): the inner code point stays and none leaks out; uniform: each follows the other"},
	{ID: "TTL", Source: "RFC 1122, section 3.2.1.7", Text: "the outer TTL is a host's, 64; the inner one is untouched, for a network is one segment"},
	{ID: "lengths", Source: "RFC 768; RFC 791; RFC 8200", Text: "lengths come from the buffer: nothing is delivered that a header only promises, nor what lies behind it"},
	{ID: "header", Source: "RFC 791; RFC 8200", Text: "outer IP headers that are wrong, or carry options"},
	{ID: "lane", Source: "docs/drops.md", Text: "what a lane cannot do it passes on to the next, and counts why; the octets are the same"},
	{ID: "link-local", Source: "IEEE 802.1Q, section 8.6.3", Text: "STP, LACP, LLDP and their like do not leave their link"},
}
