/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A port has moved, and frames for it still come here by the tunnel, from hosts that have not heard: they follow it, by the tunnel again.
 * Few do, for seconds, so all go by the kernel lane, which carries every kind of packet: from_uplink leaves them to it, the kernel strips
 * them, and forward sends them back into weft-vxlan. Two hosts that forward to each other end a frame by its outer TTL. */
#pragma once
#include "encap.h"

/* In a frame of its own: the stack. Without ICMP messages: the sender is another host's port. */
static __noinline int forward(struct __sk_buff *skb, struct pkt *p, __u32 id)
{
	int r;
	if (!p)
		return -DROP_INTERNAL;
	struct network *net = bpf_map_lookup_elem(&networks, &p->vni);
	if (!net)
		return -DROP_UNKNOWN_NETWORK;
	if (p->ttl <= 1)
		return -DROP_FORWARD_TTL;
	struct vtep *vtep = bpf_map_lookup_elem(&vteps, &id);
	if (!vtep || !vtep->flags)
		return -DROP_UNKNOWN_VTEP;
	p->tos_mask = net->tos_mask;
	merge_tos(skb, p); /* as it leaves one tunnel */
	p->tos = 0;
	p->hash = flow_hash(skb, p, net->tos_mask); /* as it goes into the other */
	p->seg = segment_length(skb);
	struct nexthop *nh = find_nexthop(skb, p->local, vtep, id, p->hash);
	if (!nh || nh->state == NEXTHOP_NONE)
		return -DROP_NO_ROUTE;
	if (p->seg + (vtep->flags & VTEP_IP6 ? OUTER6_LEN : OUTER4_LEN) > nh->mtu)
		return -DROP_FORWARD_TOO_BIG;
	r = set_tunnel(skb, p->local, vtep, p->vni, p->tos, p->hash, p->ttl - 1);
	if (r < 0)
		return r;
	p->out = p->local->vxlan_ifindex;
	p->act = bpf_redirect(p->local->vxlan_ifindex, 0);
	return V_ENCAPSULATED;
}
