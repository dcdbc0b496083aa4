/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the maps hold, shared with Go (bpf2go generates its side). Fixed width, padding explicit. Integers are in host order
 * unless their type says __be. An IPv4 address is kept as ::ffff:a.b.c.d. */
#pragma once

struct addr {
	__be32 w[4];
};

#define MAPPED4 bpf_htonl(0xffff) /* third word of ::ffff:a.b.c.d */

enum { UPLINKS_MAX = 4 };
enum uplink_flags { UPLINK_FROM_XDP = 1 } __attribute__((packed)); /* takes frames that XDP redirects to it */

struct uplink {
	__u64 mac; /* octet 0 lowest */
	__u32 ifindex;
	enum uplink_flags flags;
	__u8 pad[3];
};

/* This host's own end. An address that is not there is all zero. */
struct local {
	struct addr addr4;
	struct addr addr6;
	__u32 vxlan_ifindex; /* weft-vxlan: the kernel lane, and where next hops are looked up from */
	__u32 mark;	     /* secret: what the packets carry that weft itself sends or lets in */
	__be16 udp_port;
	__u16 uplink_mtu;
	__u32 seal; /* secret, beside the mark: see seal.h */
	struct uplink uplinks[UPLINKS_MAX];
};

/* Which bits of the inner ToS octet (traffic class) the outer one shares: RFC 2983, RFC 6040. */
enum { TOS_PIPE = 0x03, TOS_UNIFORM = 0xff };

enum { PORT_MACS_MAX = 16, PORT_UID_MAX = 32 };
/* PORT_CLAIMS: what the port says of itself in ARP, or in neighbour discovery, is checked against `claims`. */
enum port_flags {
	PORT_HELD = 1,
	PORT_UNGUARDED = 2,
	PORT_XDP = 4,
	PORT_WATCHED = 8,
	PORT_CLAIMS4 = 16,
	PORT_CLAIMS6 = 32,
	PORT_LEARNS = 64 /* its network does */
} __attribute__((packed));

/* What the agent answers the port, and what its workload may answer others: punt.h. */
enum port_services {
	PORT_DHCP4 = 1,
	PORT_DHCP6 = 2,
	PORT_ADVERTISED = 4,
	PORT_MAY_SERVE_DHCP = 8,
	PORT_MAY_ADVERTISE = 16
} __attribute__((packed));

struct port {
	__u32 ifindex; /* 0: no such port */
	__u32 vni;
	__u32 mtu; /* of its network, octets of an inner IP packet; 0 is no limit */
	enum port_flags flags;
	__u8 mac_count;
	__u8 uid_len;
	__u8 tos_mask;		   /* TOS_PIPE or TOS_UNIFORM, of its network */
	__u64 macs[PORT_MACS_MAX]; /* octet 0 lowest */
	__u8 uid[PORT_UID_MAX];
	enum port_services services;
	__u8 pad[7];
};

struct fdb_key {
	__u32 vni;
	__u8 mac[6];
	__u16 pad;
};

enum fdb_flags {
	FDB_PEER = 1,
	FDB_AGGREGATES_BY_KERNEL = 2,
	FDB_ALL_BY_KERNEL = 4,
	FDB_FORWARD = 8
} __attribute__((packed));

struct fdb_entry {
	__u32 vtep;    /* or 0 */
	__u32 ifindex; /* or 0 */
	__u32 port;    /* hint: the id of the port at ifindex; checked, and looked up when it is stale */
	enum fdb_flags flags;
	__u8 pad[3];
};

enum vtep_flags { VTEP_PRESENT = 1, VTEP_IP6 = 2, VTEP_CHECKSUM = 4, VTEP_GROUP = 8 } __attribute__((packed));

struct vtep {
	struct addr addr;
	__be16 udp_port;
	enum vtep_flags flags;
	__u8 pad;
	__u32 ifindex; /* of a group: the uplink that its packets leave by, which no route is asked for */
};

enum unknown_unicast { UNKNOWN_EXTERNAL, UNKNOWN_FLOOD, UNKNOWN_DROP } __attribute__((packed));

/* NEIGHBOURS_ANSWER: ARP requests and neighbour solicitations are answered. NEIGHBOURS_CLOSED: every address of that IP version is known, so that
 * all ports together may ask for another one; else each port may. */
enum network_neighbours {
	NEIGHBOURS_ANSWER = 1,
	NEIGHBOURS_CLOSED4 = 2,
	NEIGHBOURS_CLOSED6 = 4
} __attribute__((packed));
enum network_flags { NETWORK_SOURCES = 1 } __attribute__((packed)); /* unlisted VTEPs may come: look in sources */

/* A network's flood list is blocks of receivers: first those of interfaces, `local` of them, then those of VTEPs: `remote` that get floods,
 * `direct` that get them by a group among those, and so only unknown unicast for themselves. The last `external` of all are run by others.
 * What is left of a block is 0. A changed list is a new list number. */
struct network {
	__u32 list;
	__u32 local;
	__u32 remote;
	__u32 direct;
	__u32 external;
	__u32 mtu;
	enum unknown_unicast unknown;
	__u8 tos_mask;
	enum network_neighbours neighbours;
	enum network_flags flags;
	__u32 ageing;	  /* ticks that a learned MAC is good for after its last frame; 0: the network learns none */
	__u32 vtep_limit; /* MACs learned behind one VTEP */
	__u32 port_limit; /* and behind one port */
};

struct neighbour_key {
	__u32 vni;
	struct addr ip;
};

/* NEIGHBOUR_ASK: the address is one of the network's, and its MAC is not certain: whoever asks for it asks all. */
enum neighbour_flags { NEIGHBOUR_ROUTER = 1, NEIGHBOUR_ASK = 2 } __attribute__((packed));

struct neighbour {
	__u8 mac[6];
	enum neighbour_flags flags;
	__u8 pad;
};

/* A port may say that an address is at a MAC. MAC 0: at any of the port's. Address 0: any address. */
struct claim_key {
	__u32 port;
	__u8 mac[6];
	__u16 pad;
	struct addr ip;
};

struct asked_key {
	__u32 vni;
	__u32 port; /* or 0: the network's */
	struct addr ip;
};

struct arp {
	__be16 hardware, protocol;
	__u8 hardware_len, protocol_len;
	__be16 op;
	__u8 sender_mac[6];
	__u8 sender[4];
	__u8 target_mac[6];
	__u8 target[4];
} __attribute__((packed));

/* RFC 4861, section 4, with one option behind it. */
struct discovery {
	__u8 type, code;
	__sum16 check;
	__be32 flags;
	struct addr target;
	__u8 option, option_len;
	__u8 option_mac[6];
} __attribute__((packed));

/* What a frame says in ARP or neighbour discovery, and the answer in the making: more than the stack holds. */
struct talk {
	struct neighbour_key target;
	struct claim_key claim;
	struct asked_key asked;
	struct neighbour found;
	struct addr said; /* address that the message is about */
	struct {
		__u8 kind, len, mac[6];
	} option;
	__u32 at;	/* offset of the message */
	__u32 fragment; /* it is in a fragment, the first */
	struct {
		struct ethhdr eth;
		union {
			struct arp arp;
			struct {
				struct ipv6hdr ip6;
				struct discovery nd;
			} __attribute__((packed));
		};
	} __attribute__((packed)) frame;
	__u8 pad[2];
	__be32 sum[18]; /* of an ND message: addresses, length and protocol, message */
};

/* How many frames a second may be flooded: one for every `interval` ns, and what was saved up in the last second. interval 0: any number. */
struct budget {
	__u64 next; /* ns: when there is nothing saved up and nothing owed */
	__u32 interval;
	__u32 limit; /* frames a second that interval was made of, for Go */
};

/* What was flooded for the ports of a network here. */
struct flood_count {
	__u64 floods; /* frames */
	__u64 copies; /* packets that they became on the underlay, by whatever lane */
};

struct flood_key {
	__u32 list;
	__u32 block;
};

enum { FLOOD_BLOCK = 16 };
struct flood_block {
	__u32 to[FLOOD_BLOCK] __attribute__((aligned(8)));
};

static __always_inline __u32 flood_blocks(__u32 receivers)
{
	return (receivers + FLOOD_BLOCK - 1) / FLOOD_BLOCK;
}

struct accept_key {
	__u32 vni;
	struct addr source;
};

/* What learning counts time in: 2^20 ns of the kernel's coarse clock, which costs next to nothing to read. They wrap after 52 days, and
 * nothing is learned for more than half of that. */
enum { TICK_BITS = 20 };

/* Where a MAC was learned: a VTEP's id, or a port's with this bit. One word, so that a move is one compare-and-swap. */
enum { PLACE_PORT = 1u << 31 };

enum learned_flags { LEARNED_FROZEN = 1 };
struct learned_mac {
	__u32 place;  /* 0: it is being forgotten */
	__u32 until;  /* tick */
	__u32 seen;   /* tick, behind by up to REFRESH_TICKS */
	__u32 window; /* tick of the first of the moves; of a frozen one of the last */
	__u32 moves;
	__u32 flags;
};

/* Who has taught: what is learned at one place of one network. */
struct learner_key {
	__u32 vni;
	__u32 place;
};
struct learner {
	__u32 macs;
	__u32 pad;
	__u64 refused; /* frames that taught nothing as `macs` was at the network's limit */
	__u64 full;    /* frames that taught nothing as the table was full */
	__u64 moves;   /* MACs that came from another place */
	__u64 freezes; /* of these, that moved too often */
	__u64 frozen;  /* frames that taught nothing as their MAC was frozen elsewhere */
};

/* Is what was learned at this key to go? See forget. */
enum forget_why { FORGET_STALE, FORGET_PLACE, FORGET_ANY };
struct forget_args {
	struct fdb_key key;
	__u32 place; /* for FORGET_PLACE */
	enum forget_why why;
	__u32 now; /* tick, for FORGET_STALE: not every kind of program may read the clock */
};

/* Addresses from which a network accepts VTEPs that it does not list. The VNI is in network order, as a trie compares bits. */
struct source_key {
	__u32 prefix;
	__be32 vni;
	struct addr source;
};

/* A tunnel packet came from such an address. */
struct stranger {
	__u32 vni;
	struct addr source;
};

/* The VNI of the probes of hosts. Its group MACs stand for groups of the underlay, each in the FDB as a MAC behind that group. */
enum { OAM_VNI = 0 };

/* A group that floods of a VNI come by. GROUP_ANY: by which floods of any VNI do. */
enum { GROUP_ANY = 0xffffffffU };
struct group_key {
	__u32 vni;
	struct addr group;
};

enum nexthop_state { NEXTHOP_NONE, NEXTHOP_READY, NEXTHOP_RESOLVE, NEXTHOP_KERNEL };

/* The kernel's answer for one VTEP and one bucket of flows, valid for one jiffy. */
struct nexthop {
	__u64 at;	 /* jiffies */
	__u64 confirmed; /* jiffies of the last packet that went through the kernel's neighbour code */
	__u32 ifindex;
	__u16 mtu; /* of the path: octets of an outer IP packet */
	__u8 state;
	__u8 family; /* of the gateway */
	struct addr gateway;
	__u8 macs[12];	 /* destination, source */
	__u32 question;	 /* that had this answer: see choose_hop */
	__u64 narrow_at; /* jiffies when the smallest path MTU of the equal next hops was last seen */
	__u32 narrow;
	__u32 turn; /* of the question that is asked for it alone */
};

enum { NEXTHOP_BUCKETS = 8 };

/* The equal next hops of the route to a VTEP, in an order that stays. */
enum { HOPS_MAX = 8 };
enum hop_flags { HOP_DOWN = 1 } __attribute__((packed)); /* its link has no carrier */
struct hop {
	struct addr gateway; /* IPv4 in the last word, the others 0 */
	__u32 ifindex;
	__u8 family; /* of the gateway */
	enum hop_flags flags;
	__u8 pad[2];
};
struct hops {
	__u32 count;
	struct hop hop[HOPS_MAX];
};

struct port_counters {
	__u64 ingress_packets; /* ingress and egress as the workload sees them */
	__u64 ingress_octets;
	__u64 egress_packets;
	__u64 egress_octets;
};

/* A stage returns 0 (go on), a verdict, or -DROP_X. */
/* V_PUNTED: to the agent; passed, in the books. V_ANSWERED: the frame was turned into the answer, and goes back to the port. */
enum verdict_kind { V_NEXT = 0, V_DELIVERED, V_ENCAPSULATED, V_PASSED, V_PUNTED, V_ANSWERED };

enum program { FROM_PORT, FROM_UPLINK, FROM_VXLAN, TO_UPLINK, XDP_FROM_PORT, XDP_FROM_UPLINK, PROGRAM_MAX };

struct program_books {
	__u64 in;
	__u64 delivered;
	__u64 encapsulated;
	__u64 passed;
	__u64 dropped;
	__u64 copies;
	__u64 answers; /* ICMP messages made of dropped packets */
	__u64 untold;  /* first frames of held ports that first_frames had no room for */
	__u64 answered;
};

/* An ICMP message in the making: headers, then ICMP header and quotation. */
enum { ANSWER_CHUNK = 248, ANSWER_MESSAGE = 5 * ANSWER_CHUNK };
struct answer {
	struct {
		struct ethhdr eth;
		union {
			struct iphdr ip4;
			struct ipv6hdr ip6;
		};
	} __attribute__((packed)) head;
	__u8 pad[2];
	__u8 message[ANSWER_MESSAGE] __attribute__((aligned(8)));
};

/* A frame for the agent. */
enum { PUNT_FRAME = 1514 };
struct punt {
	__u64 at; /* ns since boot */
	__u32 port;
	__u32 ifindex;
	__u32 length; /* of the whole frame */
	__u32 service;
	__u8 frame[PUNT_FRAME];
	__u8 pad[6];
};

struct drop_key {
	__u32 port;
	__u32 reason;
};

struct drop_source_key {
	__u32 reason;
	struct addr source;
};

/* The last verdict, for tests: see traced(). */
struct verdict {
	enum program program;
	enum verdict_kind verdict;
	enum drop_reason reason;
	enum lane_reason lane;
	__u32 ifindex;
	__u32 copies;
	__u32 mark;
	__u32 pad;
};

_Static_assert(sizeof(struct uplink) == 16, "uplink");
_Static_assert(sizeof(struct local) == 112, "local");
_Static_assert(sizeof(struct port) == 184, "port");
_Static_assert(offsetof(struct punt, frame) == 24, "punt");
_Static_assert(offsetof(struct port, flags) % 4 == 0, "told changes flags as a part of its word");
_Static_assert(sizeof(struct fdb_key) == 12, "fdb_key");
_Static_assert(sizeof(struct fdb_entry) == 16, "fdb_entry");
_Static_assert(sizeof(struct vtep) == 24, "vtep");
_Static_assert(sizeof(struct network) == 40, "network");
_Static_assert(sizeof(struct learned_mac) == 24, "learned_mac");
_Static_assert(sizeof(struct learner) == 48, "learner");
_Static_assert(sizeof(struct forget_args) == 24, "forget_args");
_Static_assert(sizeof(struct source_key) == 24, "source_key");
_Static_assert(sizeof(struct accept_key) == 20, "accept_key");
_Static_assert(sizeof(struct neighbour_key) == 20, "neighbour_key");
_Static_assert(sizeof(struct neighbour) == 8, "neighbour");
_Static_assert(sizeof(struct claim_key) == 28, "claim_key");
_Static_assert(sizeof(struct asked_key) == 24, "asked_key");
_Static_assert(sizeof(struct arp) == 28, "arp");
_Static_assert(sizeof(struct discovery) == 32, "discovery");
_Static_assert(sizeof(struct group_key) == 20, "group_key");
_Static_assert(offsetof(struct answer, message) == 56, "answer");
_Static_assert(sizeof(struct nexthop) == 72, "nexthop");
_Static_assert(sizeof(struct hops) == 4 + HOPS_MAX * 24, "hops");
_Static_assert(sizeof(struct verdict) == 32, "verdict");
