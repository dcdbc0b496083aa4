/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Groups of the underlay: RFC 7348, section 4.2. Out: a flood list names one as a VTEP, whose next hop follows from the address alone. In: what is
 * sent to a group is for this host if a network here has it. */
#pragma once
#include "parse.h"

static __always_inline struct uplink *find_uplink(struct local *local, __u32 ifindex)
{
	for (int i = 0; i < UPLINKS_MAX; i++)
		if (local->uplinks[i].ifindex == ifindex)
			return &local->uplinks[i];
	return NULL;
}

/* The Ethernet address of a group: RFC 1112, section 6.4; RFC 2464, section 7. Octet 0 lowest. */
static __always_inline __u64 group_mac(__be32 last, int ip6)
{
	__u64 low = last;
	if (ip6)
		return 0x3333ULL | low << 16;
	return 0x5e0001ULL | (low & bpf_htonl(0x7fffff)) << 16;
}

/* The next hop of a group: nothing to resolve, and no route to ask for. Without the guard on the uplink nothing leaves. */
static __noinline int group_hop(struct nexthop *nh, struct vtep *vtep, struct local *local)
{
	if (!nh || !vtep || !local)
		return 0;
	struct uplink *up = find_uplink(local, vtep->ifindex);
	nh->state = NEXTHOP_NONE;
	nh->ifindex = vtep->ifindex;
	nh->mtu = local->uplink_mtu;
	if (!up || !up->ifindex)
		return 0;
	if (vtep->flags & VTEP_IP6 ? !(local->addr6.w[0] | local->addr6.w[3]) : !local->addr4.w[3])
		return 0;
	put_mac(nh->macs, group_mac(vtep->addr.w[3], vtep->flags & VTEP_IP6));
	put_mac(nh->macs + 6, up->mac);
	nh->confirmed = nh->at; /* the kernel's neighbour code knows no group, and would lose a packet to it */
	nh->state = NEXTHOP_READY;
	return 0;
}

/* Is the packet sent to a group that a network here has, on the Ethernet level too? Which network's, check_group sees. */
static __always_inline int is_for_group(__u64 mac, void *to, int ip6)
{
	struct group_key k = { .vni = GROUP_ANY };
	if (ip6) {
		memcpy(&k.group, to, sizeof(k.group));
	} else {
		k.group.w[2] = MAPPED4;
		k.group.w[3] = *(__be32 *)to;
	}
	return mac == group_mac(k.group.w[3], ip6) && bpf_map_lookup_elem(&groups, &k);
}

/* Only by the group of its own network: others may share it, and a VNI that is not here has none. */
static __always_inline int check_group(ctx_t *ctx, struct pkt *p)
{
	struct group_key k = { .vni = p->vni };
	long r;
	if (likely(!p->group))
		return V_NEXT;
	if (p->ip6) {
		r = load(ctx, ETH_LEN + offsetof(struct ipv6hdr, daddr), &k.group, sizeof(k.group));
	} else {
		k.group.w[2] = MAPPED4;
		r = load(ctx, ETH_LEN + offsetof(struct iphdr, daddr), &k.group.w[3], sizeof(k.group.w[3]));
	}
	if (r)
		return -DROP_INTERNAL;
	return bpf_map_lookup_elem(&groups, &k) ? V_NEXT : -DROP_OTHER_GROUP;
}
