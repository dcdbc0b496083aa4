/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The seal: how a packet that a program has written or checked is known where it comes by again. The mark alone is not enough. It has
 * 26 free bits, whoever has CAP_NET_RAW or CAP_NET_ADMIN in any namespace writes it, a macvlan or VLAN interface on the uplink carries it from a
 * container's namespace to the guard, and 2^26 packets are sent in a minute. So there is a second secret, in fields that no socket
 * writes:
 *
 *   out  tc_index: 16 bits, which only a classifier's class writes besides
 *   in   hash: 32 bits, which the kernel computes and nobody else can choose. GRO keeps packets of different hashes apart, so that
 *        no unsealed packet is put together with a sealed one before from_vxlan sees them, either. (tc_index does not do here: other
 *        tools' classifiers on the uplink zero it.) */
#pragma once
#include "pkt.h"

/* In the mark of a packet for the kernel lane: to_uplink has to write CE. */
#define MARK_CE 1

static __always_inline void seal_out(struct __sk_buff *skb, struct local *local, __u32 mark)
{
	skb->mark = mark;
	skb->tc_index = (__u16)local->seal;
}

/* What the packet is sealed with, the mark or the mark ^ MARK_CE; 0 if it is not. The seal has done its work then: other tools' rules
 * match on bits of the mark. */
static __always_inline __u32 unseal_out(struct __sk_buff *skb, struct local *local)
{
	__u32 mark = skb->mark;
	if (unlikely((mark ^ local->mark) & ~MARK_CE || !local->mark || skb->tc_index != (__u16)local->seal))
		return 0;
	skb->mark = 0;
	skb->tc_index = 0;
	return mark;
}

static __always_inline void seal_in(struct __sk_buff *skb, struct local *local)
{
	skb->mark = local->mark;
	bpf_set_hash(skb, local->seal);
}

static __always_inline int unseal_in(struct __sk_buff *skb, struct local *local)
{
	if (!local->mark || skb->mark != local->mark || skb->hash != local->seal)
		return 0;
	skb->mark = 0; /* no workload may see it */
	bpf_set_hash_invalid(skb);
	return 1;
}
