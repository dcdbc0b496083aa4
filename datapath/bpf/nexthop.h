/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Next hops: the kernel's own routes, path MTU and neighbours, asked once a jiffy for each VTEP and bucket of flows and kept in
 * between; of equal next hops weft's hash chooses. Needs no living agent and costs nothing a packet. */
#pragma once
#include "group.h"
#include "hash.h"

/* The lookup never refreshes a neighbour, so about once in so many jiffies a packet goes through the kernel's own neighbour code,
 * which probes an entry that has grown old. 1 s at HZ=1000, 10 s at HZ=100. */
#define CONFIRM_JIFFIES 1024

/* How often the kernel is asked anew for the wanted one of several next hops. Of two it is not named by 16 answers once in 65,536. */
enum { QUESTIONS = 16 };

/* One question. The kernel chooses among equal next hops by a hash of its own, of what is the host's to say (fib_multipath_hash_policy):
 * by addresses, L4 ports or the flow label. So every question has an L4 port and a label of its own, and all but the first of each bucket
 * (the question of its number) another source, too; that one has the true source, as routes may depend on it. */
static __noinline int ask(ctx_t *ctx, struct scratch *s, struct vtep *vtep, struct local *local)
{
	if (!s || !vtep || !local)
		return -1;
	struct bpf_fib_lookup *f = &s->fib;
	__u32 other = hash3(s->question, 0, 0);
	int i;
	memset(f, 0, sizeof(*f));
	f->ifindex = local->vxlan_ifindex; /* forwarding must be on for it; it is weft's own, so weft may turn it on */
	f->l4_protocol = IPPROTO_UDP;
	f->sport = source_port(other);
	f->dport = vtep->udp_port;
	f->tot_len = 1; /* asks for the path's MTU, exceptions included */
	if (vtep->flags & VTEP_IP6) {
		if (!local->addr6.w[0] && !local->addr6.w[3])
			return -1;
		f->family = AF_INET6;
		f->flowinfo = bpf_htonl(other >> 12);
		for (i = 0; i < 4; i++) {
			f->ipv6_src[i] = local->addr6.w[i];
			f->ipv6_dst[i] = vtep->addr.w[i];
		}
	} else {
		if (!local->addr4.w[3])
			return -1;
		f->family = AF_INET;
		f->ipv4_src = s->question < NEXTHOP_BUCKETS ? local->addr4.w[3] : other;
		f->ipv4_dst = vtep->addr.w[3];
	}
	return bpf_fib_lookup(ctx, f, sizeof(*f), 0);
}

/* Keep an answer. A path's MTU is part of a whole answer only: until the next one what was known of it holds. */
static __noinline int keep_answer(struct nexthop *nh, struct scratch *s, struct local *local, int r)
{
	if (!nh || !s || !local)
		return 0;
	struct bpf_fib_lookup *f = &s->fib;
	nh->state = NEXTHOP_NONE;
	if (!nh->mtu || nh->mtu > local->uplink_mtu)
		nh->mtu = local->uplink_mtu;
	if (r < 0)
		return 0;
	nh->ifindex = f->ifindex;
	nh->family = f->family;
	if (f->family == AF_INET6) {
		for (int i = 0; i < 4; i++)
			nh->gateway.w[i] = f->ipv6_dst[i];
	} else {
		memset(&nh->gateway, 0, sizeof(nh->gateway));
		nh->gateway.w[3] = f->ipv4_dst;
	}
	/* Where there is no guard, nothing leaves, and the mark does not. */
	if ((r == BPF_FIB_LKUP_RET_SUCCESS || r == BPF_FIB_LKUP_RET_NO_NEIGH) && !find_uplink(local, f->ifindex))
		return 0;
	if (r == BPF_FIB_LKUP_RET_SUCCESS) {
		nh->mtu = f->mtu_result < local->uplink_mtu ? f->mtu_result : local->uplink_mtu;
		memcpy(nh->macs, f->dmac, 6);
		memcpy(nh->macs + 6, f->smac, 6);
		nh->state = NEXTHOP_READY;
	} else if (r == BPF_FIB_LKUP_RET_NO_NEIGH) {
		memset(nh->macs, 0, sizeof(nh->macs));
		nh->state = NEXTHOP_RESOLVE;
	} else if (r == BPF_FIB_LKUP_RET_UNSUPP_LWT) {
		nh->state = NEXTHOP_KERNEL;
	}
	return 0;
}

/* How far the answer's next hop is from the one that the bucket wants: 0 is the one, HOPS_MAX is one to avoid (its link is down, or is no
 * uplink), -1 is none of the set, or there is nothing to choose. */
static __noinline int distance(struct scratch *s, struct local *local)
{
	if (!s || !local)
		return -1;
	__u32 id = s->vtep;
	struct bpf_fib_lookup *f = &s->fib;
	struct hops *set = bpf_map_lookup_elem(&equal_hops, &id);
	if (!set || set->count < 2)
		return -1;
	for (__u32 i = 0; i < HOPS_MAX && i < set->count; i++) {
		struct hop *h = &set->hop[i];
		if (h->ifindex != f->ifindex || h->family != f->family)
			continue;
		if (f->family == AF_INET
			    ? h->gateway.w[3] != f->ipv4_dst
			    : h->gateway.w[0] != f->ipv6_dst[0] || h->gateway.w[1] != f->ipv6_dst[1] ||
				      h->gateway.w[2] != f->ipv6_dst[2] || h->gateway.w[3] != f->ipv6_dst[3])
			continue;
		if (h->flags & HOP_DOWN || !find_uplink(local, h->ifindex))
			return HOPS_MAX;
		return (i + set->count - s->bucket % set->count) % set->count;
	}
	return -1;
}

/* Ask, and keep the answer if it is better than those before. */
static __always_inline void consider(ctx_t *ctx, struct nexthop *nh, struct scratch *s, struct vtep *vtep,
				     struct local *local)
{
	int r = ask(ctx, s, vtep, local), d = distance(s, local);
	if (r || d < 0 || d == HOPS_MAX)
		return;
	if (s->fib.mtu_result < s->narrow)
		s->narrow = s->fib.mtu_result;
	if (d >= s->best)
		return;
	keep_answer(nh, s, local, r);
	s->best = d;
	nh->question = s->question - NEXTHOP_BUCKETS; /* the first to be asked the next time */
}

/* The kernel notes an ICMP message about a path's MTU at one of the equal next hops, chosen by its own hash of the packet that it is
 * about (IPv6; IPv4 before 6.13), and that need not be the one that weft's packet took. So the smallest of all holds, for as long as it is
 * seen: each time one question more is asked, another one each time. */
enum { NARROW_JIFFIES = 256 };

static __always_inline void keep_narrowest(struct nexthop *nh, struct scratch *s)
{
	if (s->narrow <= nh->narrow || nh->at - nh->narrow_at > NARROW_JIFFIES) {
		nh->narrow = s->narrow;
		nh->narrow_at = nh->at;
	}
	if (nh->narrow < nh->mtu)
		nh->mtu = nh->narrow;
}

/* Of equal next hops each bucket of flows wants one, and takes the next in line where that one is away: the others' flows stay where they
 * are. Which are equal the agent says; that a hop is one now, and resolved, only the kernel: it is asked until it names the wanted one, or
 * a better one than before. A living agent is not needed: a hop that the kernel does not name is not taken, and where the kernel's
 * first answer is none of the agent's, that answer holds. Not static, so that the verifier reads it once, not anew for each caller. */
__noinline int choose_hop(ctx_t *ctx, struct nexthop *nh, struct vtep *vtep, struct local *local, __u32 i)
{
	__u32 zero = 0;
	struct scratch *s = bpf_map_lookup_elem(&scratches, &zero); /* the stack has no room for any of it here */
	int r, d;
	if (!s || !nh || !vtep || !local)
		return 0;
	if (vtep->flags & VTEP_GROUP)
		return group_hop(nh, vtep, local);
	s->vtep = i / NEXTHOP_BUCKETS;
	s->bucket = s->question = i % NEXTHOP_BUCKETS;
	r = ask(ctx, s, vtep, local);
	d = distance(s, local);
	keep_answer(nh, s, local, r);
	if (d < 0 || (r != BPF_FIB_LKUP_RET_SUCCESS && r != BPF_FIB_LKUP_RET_NO_NEIGH))
		return 0;
	s->best = nh->state == NEXTHOP_READY ? d : HOPS_MAX;
	s->narrow = nh->state == NEXTHOP_READY ? nh->mtu : local->uplink_mtu;
	s->asked = nh->question;
	for (__u32 n = 0; n < QUESTIONS && s->best; n++) {
		s->question = NEXTHOP_BUCKETS + (s->asked + n) % QUESTIONS;
		consider(ctx, nh, s, vtep, local);
	}
	s->question = NEXTHOP_BUCKETS + nh->turn++ % QUESTIONS;
	consider(ctx, nh, s, vtep, local);
	keep_narrowest(nh, s);
	return 0;
}

static __always_inline struct nexthop *find_nexthop(ctx_t *ctx, struct local *local, struct vtep *vtep, __u32 id,
						    __u32 hash)
{
	__u32 i = id * NEXTHOP_BUCKETS + (hash & (NEXTHOP_BUCKETS - 1));
	struct nexthop *nh = bpf_map_lookup_elem(&nexthops, &i);
	__u64 now = bpf_jiffies64();
	if (nh && unlikely(nh->at != now)) {
		nh->at = now;
		choose_hop(ctx, nh, vtep, local, i);
	}
	return nh;
}

/* The kernel's neighbour code has to see this packet: its next hop is not resolved, or has not been asked for so long that it may be old. */
static __always_inline int must_confirm(struct nexthop *nh)
{
	return unlikely(nh->at - nh->confirmed > CONFIRM_JIFFIES || nh->state != NEXTHOP_READY);
}
