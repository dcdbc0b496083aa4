// Package oracle is a slow, obvious model of the datapath, written from RFC 7348 and weft's documents and not from the C.
//
// Given what the tables hold (Plan) and a packet at a hook, it says what must become of the packet and of every copy of it,
// octet by octet. Nothing here is fast, shared with the programs, or able to touch a kernel: where the oracle and a lane
// differ, one of them is wrong, or a document is silent.
//
// The order of the checks is part of the model, since a packet may deserve several reasons and every lane must name the same one.
//
//	from_port    unknown_port, port_held, truncated, inner_vlan, source_invalid, link_local, truncated (IP header), source_mac, too_big (the
//	             network's), dhcp_server, router_advertisement, handed to the agent, then the FDB: same_port, unknown_port, port_held; unknown_vtep, no_route, too_big (the path's), kernel_lane_port
//	from_uplink  whose is it? outer_vlan, outer_fragment, bad_ip_header (length), bad_udp_length, bad_ip_header (version, checksum),
//	             truncated, no_vni_flag, other_group, own_source, unknown_vni, source_not_accepted, inner_vlan, source_invalid, link_local,
//	             truncated (inner IP header), then the FDB: split_horizon, unknown_port, port_held, unknown_unicast_from_tunnel, ecn_ce_not_ect, no_receiver; then the kernel lane's reasons:
//	             checksum, forward, asked, aggregate, options, no_room
//
//	from_vxlan   unmarked, then as from_uplink from own_source on; of what follows its port to another VTEP forward_ttl, unknown_vtep, no_route,
//	             forward_too_big, kernel_lane_port
//
// The XDP lane has the verdicts and octets of the tc lane, or passes a packet on as it came.
//
// too_big is too_big_no_df where the packet is IPv4 without DF. The ICMP messages about the others are not modelled.
//
// What a frame teaches in a network that learns is part of the plan from then on. A frame teaches when its source is known to be right: from a
// port behind too_big, out of a tunnel behind truncated (inner IP header), or in from_vxlan where the kernel has to look at the outer headers first.
//
// A plan is consistent: entries of the FDB and of the accept table are of networks that are there. What the programs do with
// others is not modelled.
//
// Read Plan, Packet and Result first.
package oracle
