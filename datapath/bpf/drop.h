/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Every reason to drop a packet, once. ../drop_gen.go and docs/drops.md are generated from this list: keep one line a
 * reason, "X(NAME, name, source, text)" - source is 1 where the drop is about who sent it and is counted per outer source too.
 * Append only: numbers are kept in pinned maps. Reasons that begin with copy_ count copies of a flood, which stand apart
 * from the books. */
#pragma once

/* clang-format off */
#define DROP_REASONS(X) \
	X(PORT_HELD, port_held, 0, "the port the frame comes from or goes to is held: its policy is not in place yet, or it lives on another host") \
	X(UNKNOWN_PORT, unknown_port, 0, "the interface has no port entry, or the FDB names an interface without one in this network") \
	X(TRUNCATED, truncated, 1, "the buffer ends inside a header that must be there: a frame whose type is IP has a whole IP header") \
	X(INNER_VLAN, inner_vlan, 1, "the inner frame carries a VLAN tag and none is configured (RFC 7348, section 6)") \
	X(SOURCE_INVALID, source_invalid, 1, "the inner source MAC is a group address, zero, or weft's own reserved MAC") \
	X(SOURCE_MAC, source_mac, 0, "the inner source MAC is not one of the port's") \
	X(LINK_LOCAL, link_local, 1, "link-local multicast (01:80:c2:00:00:00 to 0f: STP, LACP, LLDP) does not leave its link") \
	X(TOO_BIG, too_big, 0, "the inner packet, or a segment of it, does not fit the network's MTU or the path's; a sender that may be told is told by ICMP") \
	X(SAME_PORT, same_port, 0, "the destination MAC is at the port the frame came from") \
	X(UNKNOWN_NETWORK, unknown_network, 0, "the network has no entry here") \
	X(UNKNOWN_UNICAST, unknown_unicast, 0, "the destination MAC is not known and the network's setting drops such frames") \
	X(NO_RECEIVER, no_receiver, 0, "a frame for several had nobody to go to") \
	X(UNKNOWN_VTEP, unknown_vtep, 0, "the FDB names a VTEP that has no entry") \
	X(NO_ROUTE, no_route, 0, "the kernel has no usable route to the VTEP, or this host has no address of its IP version") \
	X(KERNEL_LANE_PORT, kernel_lane_port, 0, "the frame needs the kernel lane, which cannot send to this VTEP's UDP port") \
	X(OUTER_VLAN, outer_vlan, 1, "a tunnel packet came with an outer VLAN tag and none is configured") \
	X(OUTER_FRAGMENT, outer_fragment, 1, "a tunnel packet came as a fragment (RFC 7348, section 4.3)") \
	X(BAD_IP_HEADER, bad_ip_header, 1, "the outer IP header's length or checksum is wrong") \
	X(BAD_UDP_LENGTH, bad_udp_length, 1, "the outer UDP length is not what the IP header leaves for it") \
	X(NO_VNI_FLAG, no_vni_flag, 1, "the I flag of the VXLAN header is not set (RFC 7348, section 5)") \
	X(OWN_SOURCE, own_source, 1, "a tunnel packet came with this host's own address as its source") \
	X(UNKNOWN_VNI, unknown_vni, 1, "a tunnel packet for a VNI that no network here has") \
	X(SOURCE_NOT_ACCEPTED, source_not_accepted, 1, "a tunnel packet from an address that is not a VTEP of its VNI") \
	X(UNKNOWN_UNICAST_FROM_TUNNEL, unknown_unicast_from_tunnel, 1, "a tunnel packet for a MAC that no local port has") \
	X(SPLIT_HORIZON, split_horizon, 1, "a tunnel packet for a MAC behind another VTEP: what comes from a tunnel does not go back into one, but after a port that has just moved") \
	X(UNMARKED, unmarked, 1, "a packet reached weft's vxlan device past the checks on the uplink") \
	X(FORGED_TUNNEL, forged_tunnel, 1, "a packet to the tunnel's UDP port was about to leave on the uplink and weft had not written it") \
	X(COPY_FAILED, copy_failed, 0, "the kernel refused a copy of a flood") \
	X(COPY_NO_PORT, copy_no_port, 0, "a copy of a flood was for an interface that is not a port of the network") \
	X(COPY_HELD, copy_held, 0, "a copy of a flood was for a held port") \
	X(COPY_UNKNOWN_VTEP, copy_unknown_vtep, 0, "a copy of a flood was for a VTEP that has no entry") \
	X(COPY_NO_ROUTE, copy_no_route, 0, "a copy of a flood was for a VTEP without a usable route") \
	X(COPY_TOO_BIG, copy_too_big, 0, "a copy of a flood does not fit the path to its VTEP") \
	X(COPY_KERNEL_LANE_PORT, copy_kernel_lane_port, 0, "a copy of a flood needs the kernel lane, which cannot send to its VTEP's UDP port") \
	X(INTERNAL, internal, 0, "the program found its own invariant broken: please report it") \
	X(TOO_BIG_NO_DF, too_big_no_df, 0, "an IPv4 packet without DF does not fit the network's MTU or the path's: weft does not fragment, and ICMP has no message for it") \
	X(ECN_CE_NOT_ECT, ecn_ce_not_ect, 1, "the underlay marked a tunnel packet as having met congestion (CE), and its inner packet knows nothing of ECN: RFC 6040, section 4.2") \
	X(FORWARD_TTL, forward_ttl, 1, "a tunnel packet to be forwarded after its port has used up its outer TTL: hosts forward it to each other") \
	X(FORWARD_TOO_BIG, forward_too_big, 1, "a tunnel packet to be forwarded after its port does not fit the path to where that is") \
	X(DHCP_SERVER, dhcp_server, 0, "a workload answers as a DHCP server (UDP to port 68 or 546), and its port may not") \
	X(ROUTER_ADVERTISEMENT, router_advertisement, 0, "a workload sends router advertisements or redirects, or a first fragment that may hide one, and its port may not") \
	X(AGENT_BUSY, agent_busy, 0, "a request for the agent (DHCP, router solicitation) that its queue had no room for; the workload asks again") \
	X(AGENT_LIMIT, agent_limit, 0, "a port asks the agent more often than 50 times a second") \
	X(NEIGHBOUR_CLAIM, neighbour_claim, 0, "ARP or neighbour discovery says that an address is at a MAC, and the port's addresses and allowed pairs do not") \
	X(NEIGHBOUR_ASKED, neighbour_asked, 0, "an address that weft does not know was asked for again within a second") \
	X(BUM_PORT_LIMIT, bum_port_limit, 0, "the port sends more broadcast, unknown unicast and multicast frames than its BUM limit") \
	X(BUM_NETWORK_LIMIT, bum_network_limit, 0, "the ports of the network here together send more broadcast, unknown unicast and multicast frames than its BUM limit") \
	X(OTHER_GROUP, other_group, 0, "a flood came by a multicast group for a network that does not use the group here: networks may share one, and not all are on every host") \
	X(COPY_KERNEL_LANE_GROUP, copy_kernel_lane_group, 0, "a flood to an IPv6 group needs the kernel lane, whose route for a group that the host is in leads back to the host")

/* Why a packet was left to another lane: to the kernel lane, or (XDP_) by the XDP lane to the tc lane. */
#define LANE_REASONS(X) \
	X(GSO_NON_IP, gso_non_ip, "a GSO frame that is not IP") \
	X(TOO_LONG, too_long, "with its outer headers the aggregate passes 65535 octets") \
	X(NO_ROOM, no_room, "the kernel gave no room for the headers, or cannot strip them here") \
	X(CHECKSUM, checksum, "the outer UDP checksum has to be computed or verified") \
	X(NEIGHBOUR, neighbour, "the next hop is not resolved and the frame is not IP") \
	X(ENCAPSULATED_ROUTE, encapsulated_route, "the route to the VTEP has an encapsulation of its own") \
	X(FAMILY, family, "a flood's VTEPs are of both IP versions") \
	X(OPTIONS, options, "the outer IPv4 header has options") \
	X(AGGREGATE, aggregate, "a GRO aggregate for a port that takes them from the kernel lane, or one that is not TCP") \
	X(ASKED, asked, "the FDB entry asks for it") \
	X(XDP_SPLIT, xdp_split, "the headers are not in the frame's first buffer") \
	X(XDP_SEVERAL, xdp_several, "the frame is for several, or its destination MAC is not in the FDB") \
	X(XDP_TOO_BIG, xdp_too_big, "the packet does not fit, and its sender may have to be told") \
	X(XDP_RECEIVER, xdp_receiver, "the receiving port is not in the XDP lane") \
	X(XDP_UPLINK, xdp_uplink, "the interface that leads to the VTEP takes no frames from XDP") \
	X(XDP_NEXT_HOP, xdp_next_hop, "the next hop is not resolved, or it is time to confirm it") \
	X(XDP_CHECKSUM, xdp_checksum, "the outer UDP checksum has to be computed or verified") \
	X(XDP_OPTIONS, xdp_options, "the outer IPv4 header has options") \
	X(XDP_NO_ROOM, xdp_no_room, "the driver gave no room for the headers") \
	X(XDP_ASKED, xdp_asked, "the FDB entry asks for the kernel lane") \
	X(FORWARD, forward, "it came by the tunnel for a port that has moved on, and follows it") \
	X(XDP_SERVICE, xdp_service, "it may be DHCP or router discovery, which the tc lane looks at") \
	X(XDP_NEIGHBOUR, xdp_neighbour, "it is ARP or neighbour discovery") \
	X(XDP_LEARN, xdp_learn, "the frame's source MAC is to be learned, or has moved") \
	X(XDP_GROUP, xdp_group, "it came by a multicast group of the underlay")
/* clang-format on */

#define DROP_ENUM(NAME, name, source, text) DROP_##NAME,
enum drop_reason { DROP_NONE, DROP_REASONS(DROP_ENUM) DROP_MAX };
#define DROP_SOURCE_BIT(NAME, name, source, text) | ((__u64)(source) << DROP_##NAME)
#define DROPS_BY_SOURCE (0ULL DROP_REASONS(DROP_SOURCE_BIT))
_Static_assert(DROP_MAX <= 64, "DROPS_BY_SOURCE has 64 bits");

#define LANE_ENUM(NAME, name, text) LANE_##NAME,
enum lane_reason { LANE_NONE, LANE_REASONS(LANE_ENUM) LANE_MAX };
