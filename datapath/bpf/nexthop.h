/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Next hops: the kernel's own routes, ECMP choice, path MTU and neighbours, asked once a jiffy for each VTEP and bucket of
 * flows and kept in between. Needs no living agent and costs nothing a packet. */
#pragma once
#include "hash.h"

/* The lookup never refreshes a neighbour, so about once in so many jiffies a packet goes through the kernel's own neighbour code,
 * which probes an entry that has grown old. 1 s at HZ=1000, 10 s at HZ=100. */
#define CONFIRM_JIFFIES 1024

static __noinline int ask_kernel(ctx_t *ctx, struct nexthop *nh, struct vtep *vtep, struct local *local, __u32 hash)
{
	__u32 zero = 0;
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &zero); /* the stack has no room for 64 octets here */
	int i, r;
	if (!scratch)
		return 0;
	struct bpf_fib_lookup *f = &scratch->fib;
	memset(f, 0, sizeof(*f));
	f->ifindex = local->vxlan_ifindex; /* forwarding must be on for it; it is weft's own, so weft may turn it on */
	f->l4_protocol = IPPROTO_UDP;
	f->sport = source_port(hash * 0x9E3779B1);
	f->dport = vtep->udp_port;
	f->tot_len = 1; /* asks for the path's MTU, exceptions included */
	nh->state = NEXTHOP_NONE;
	if (vtep->flags & VTEP_IP6) {
		if (!local->addr6.w[0] && !local->addr6.w[3])
			return 0;
		f->family = AF_INET6;
		for (i = 0; i < 4; i++) {
			f->ipv6_src[i] = local->addr6.w[i];
			f->ipv6_dst[i] = vtep->addr.w[i];
		}
	} else {
		if (!local->addr4.w[3])
			return 0;
		f->family = AF_INET;
		f->ipv4_src = local->addr4.w[3];
		f->ipv4_dst = vtep->addr.w[3];
	}
	r = bpf_fib_lookup(ctx, f, sizeof(*f), 0);
	nh->ifindex = f->ifindex;
	nh->mtu = local->uplink_mtu;
	nh->family = f->family;
	if (f->family == AF_INET6) {
		for (i = 0; i < 4; i++)
			nh->gateway.w[i] = f->ipv6_dst[i];
	} else {
		memset(&nh->gateway, 0, sizeof(nh->gateway));
		nh->gateway.w[3] = f->ipv4_dst;
	}
	if (r == BPF_FIB_LKUP_RET_SUCCESS) {
		if (f->mtu_result < nh->mtu)
			nh->mtu = f->mtu_result;
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

static __always_inline struct nexthop *find_nexthop(ctx_t *ctx, struct local *local, struct vtep *vtep, __u32 id,
						    __u32 hash)
{
	__u32 i = id * NEXTHOP_BUCKETS + (hash & (NEXTHOP_BUCKETS - 1));
	struct nexthop *nh = bpf_map_lookup_elem(&nexthops, &i);
	__u64 now = bpf_jiffies64();
	if (nh && unlikely(nh->at != now)) {
		nh->at = now;
		ask_kernel(ctx, nh, vtep, local, hash & (NEXTHOP_BUCKETS - 1));
	}
	return nh;
}

/* The kernel's neighbour code has to see this packet: its next hop is not resolved, or has not been asked for so long that it may be old. */
static __always_inline int must_confirm(struct nexthop *nh)
{
	return unlikely(nh->at - nh->confirmed > CONFIRM_JIFFIES || nh->state != NEXTHOP_READY);
}
