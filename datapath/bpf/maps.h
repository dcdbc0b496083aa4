/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Every map: who writes it, who reads it, how big, and what happens when it is full. The agent's side of the limits is set
 * before load (Limits in ../limits.go); the numbers here are the defaults. All are pinned. */
#pragma once
#include "layout.h"

/* Writer: Go. Reader: every program, once a packet. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct local);
	__uint(max_entries, 1);
} locals SEC(".maps");

/* ifindex -> port id. Writer: Go. Reader: from_port, xdp_from_port. Full: Go refuses the port. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 10240);
} port_ids SEC(".maps");

/* Port id -> port. Writer: Go. Reader: from_port and every delivery. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct port);
	__uint(max_entries, 10241);
} ports SEC(".maps");

/* Port ids: a held port that is watched has sent a frame. Writer: from_port, xdp_from_port. Reader: Go. Full: the port stays watched, so that its
 * next frame tells, and the books count it as untold. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 16384); /* octets, 16 an event; rounded up to whole pages when it is made */
} first_frames SEC(".maps");

/* Writer: Go. Reader: all. Full: Go refuses the entry. Never LRU: an entry that works is never evicted. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct fdb_key);
	__type(value, struct fdb_entry);
	__uint(max_entries, 1048576);
} fdb SEC(".maps");

/* VTEP id -> VTEP. Writer: Go. Reader: from_port, xdp_from_port. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct vtep);
	__uint(max_entries, 4097);
} vteps SEC(".maps");

/* VNI -> network. Writer: Go. Reader: floods and misses only. Full: Go refuses the network. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct network);
	__uint(max_entries, 10240);
} networks SEC(".maps");

/* Writer: Go, whole lists, aside. Reader: floods. Full: Go refuses the network and the old list stays. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct flood_key);
	__type(value, struct flood_block);
	__uint(max_entries, 131072);
} floods SEC(".maps");

/* VNI -> what was flooded. Writer: from_port, floods only; Go makes and deletes. Reader: Go. As many as networks. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct flood_count);
	__uint(max_entries, 10240);
} flood_counts SEC(".maps");

/* (VNI, outer source) -> the VTEP that its MACs are learned at, or 0. Writer: Go. Reader: from_uplink, from_vxlan. Full: Go refuses the entry. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct accept_key);
	__type(value, __u32);
	__uint(max_entries, 262144);
} accepts SEC(".maps");

/* Port id -> budget of its floods. Writer: Go, and from_port. Reader: from_port, floods only. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct budget);
	__uint(max_entries, 10241);
} port_budgets SEC(".maps");

/* VNI -> budget of the floods of all its ports here. Writer: Go, and from_port. Reader: from_port, floods only. As many as networks. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct budget);
	__uint(max_entries, 10240);
} network_budgets SEC(".maps");

/* (VNI, address) -> who has it. Writer: Go. Reader: from_port, of ARP and neighbour discovery. Full: Go refuses the entry, and the address is
 * asked for as one that is not known. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct neighbour_key);
	__type(value, struct neighbour);
	__uint(max_entries, 1048576);
} neighbours SEC(".maps");

/* (port id, address, MAC) -> 1. Writer: Go. Reader: from_port, of ARP and neighbour discovery. Full: Go refuses the port. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct claim_key);
	__type(value, __u32);
	__uint(max_entries, 131072);
} claims SEC(".maps");

/* (VNI, port id or 0, address) -> ns: when it was last asked for. Writer and reader: from_port. Full: what was not asked for for longest is
 * forgotten, because a tenant chooses the keys. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct asked_key);
	__type(value, __u64);
	__uint(max_entries, 16384);
} asked SEC(".maps");

/* The ARP packet or the message in hand. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct talk);
	__uint(max_entries, 1);
} talks SEC(".maps");

/* Writer: the programs, where a network learns; Go forgets (`forget`). Reader: the programs, where fdb has no entry, so that a static one
 * wins. Full: the frame teaches nothing, and its learner counts it; what is learned already works on. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct fdb_key);
	__type(value, struct learned_mac);
	__uint(max_entries, 1048576);
} learned SEC(".maps");

/* Writer: the programs, for a place's first MAC; Go deletes. Reader: learning. Full: nothing is learned at the place; it has room for all
 * accepts and ports. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct learner_key);
	__type(value, struct learner);
	__uint(max_entries, 272384);
} learners SEC(".maps");

/* What find_learned has found, as the FDB would say it. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct fdb_entry);
	__uint(max_entries, 1);
} found SEC(".maps");

/* (VNI, prefix) -> 1. Writer: Go. Reader: from_uplink, from_vxlan, xdp_from_uplink, for packets from nobody in accepts. Full: Go refuses the
 * network's prefixes. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct source_key);
	__type(value, __u32);
	__uint(max_entries, 4096);
} sources SEC(".maps");

/* Who sent such packets. Writer: the programs. Reader: Go. Full: the sender's next packet tells. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 65536); /* octets, 32 an event; rounded up to whole pages when it is made */
} strangers SEC(".maps");

/* The tick in which this CPU last told of one: one a tick is told, whoever sends how much. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 1);
} told SEC(".maps");

/* (VNI, group) -> 1, and (GROUP_ANY, group) -> 1 for each group. Writer: Go. Reader: from_uplink and xdp_from_uplink, for what is sent to a
 * group. Full: Go refuses the entry. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct group_key);
	__type(value, __u32);
	__uint(max_entries, 30720);
} groups SEC(".maps");

/* VTEP id -> the equal ways to it. Writer: Go. Reader: from_port, once a jiffy and bucket. What is not in it is not chosen, and the kernel's own
 * choice holds. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct hops);
	__uint(max_entries, 4097);
} equal_hops SEC(".maps");

/* VTEP id * NEXTHOP_BUCKETS + bucket. Writer and reader: from_port. Nothing in it outlives a jiffy. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct nexthop);
	__uint(max_entries, 4097 * NEXTHOP_BUCKETS);
} nexthops SEC(".maps");

/* Port id -> counters. Writer: the programs; Go zeroes. Reader: Go. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct port_counters);
	__uint(max_entries, 10241);
} port_counts SEC(".maps");

/* Port id -> ns: from when on the port may get an ICMP message again. Writer and reader: from_port. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 10241);
} answer_times SEC(".maps");

/* Frames that the agent answers. Writer: from_port. Reader: Go. Full: the frame is dropped as agent_busy, and its sender asks again. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1048576); /* octets: some 2,500 requests */
} punts SEC(".maps");

/* Port id -> ns: from when on the port may ask the agent again. Writer and reader: from_port. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 10241);
} punt_times SEC(".maps");

/* The frame for the agent in hand: too long for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct punt);
	__uint(max_entries, 1);
} punt_scratch SEC(".maps");

/* The ICMP message in hand: too long for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct answer);
	__uint(max_entries, 1);
} answers SEC(".maps");

/* Program -> books. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct program_books);
	__uint(max_entries, PROGRAM_MAX);
} books SEC(".maps");

/* (port id, reason) -> packets. Writer: the programs. Full: counted under port 0, whose keys Go makes first. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct drop_key);
	__type(value, __u64);
	__uint(max_entries, 65536);
} drops SEC(".maps");

/* (reason, outer source) -> packets. Writer: the programs. Full: the sender not seen for longest is forgotten, because an
 * attacker chooses the keys. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct drop_source_key);
	__type(value, __u64);
	__uint(max_entries, 4096);
} drop_sources SEC(".maps");

/* lane_reason -> packets left to the kernel lane. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, LANE_MAX);
} lanes SEC(".maps");

/* The flood in hand. Kept in a map, not on the stack: the stack has 512 octets, and the verifier (6.6 to 6.18) follows every value
 * that a loop counts up there and does not end; what a map holds it does not follow. */
enum { FLOOD_MAX = 4096 };
struct scratch {
	struct bpf_fib_lookup fib; /* for ask; what follows is choose_hop's */
	__u32 vtep;
	__u32 bucket;
	__u32 question;
	__u32 asked;		      /* first of this time */
	__s32 best;		      /* distance so far */
	__u32 narrow;		      /* smallest path MTU so far */
	struct bpf_tunnel_key tunnel; /* for set_tunnel */
	__u32 list;
	__u32 first_block; /* of the list's VTEPs */
	__u32 first;	   /* which of them is loop round 0 */
	__u32 vni;
	__u32 sender; /* ifindex that gets no copy */
	__u32 id;     /* port that failed copies are counted for */
	__u32 hash;
	__u32 seg;
	__u32 tos;
	__u32 by_kernel; /* the lane reason, if all copies go there */
	__u32 copies;	 /* made */
	__u32 local;	 /* of these, to ports here */
	__u32 itself;	 /* the packet itself left for a VTEP: copies does not count it */
	__u32 frames;	 /* that it stands for, and that are to be counted still */
	__u32 left;	 /* for the fast path, after prepare_remote */
	__u32 last;	 /* round of the last of them */
	__u32 family6;	 /* of the first of them */
	__u32 sum;	 /* of the outer IPv4 header but for its destination */
	/* The list; 0 where no outer headers are written here any more. */
	struct flood_block vteps[FLOOD_MAX / FLOOD_BLOCK];
};
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct scratch);
	__uint(max_entries, 1);
} scratches SEC(".maps");

/* For tests. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct verdict);
	__uint(max_entries, 1);
} verdicts SEC(".maps");
const volatile __u32 trace_verdicts = 0; /* see traced() */

/* For the bench, which loads the programs once more to learn what identity, accept table, MTU, checksums, the guard on the way out and
 * all counters cost. weft never sets it: without them tenants are not apart. */
const volatile __u8 unchecked = 0;
