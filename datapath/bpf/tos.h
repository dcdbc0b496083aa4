/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* ECN and DSCP across the tunnel. ECN by RFC 6040: copied on the way in (normal mode), merged on the way out. DSCP by RFC 2983:
 * the outer one is 0 and the inner one stays as it is (pipe), or one follows the other (uniform), as the network says. What is not
 * IP has neither. */
#pragma once
#include "parse.h"

enum { ECN_MASK = 3, ECN_NOT_ECT = 0, ECN_ECT1 = 1, ECN_ECT0 = 2, ECN_CE = 3 };

/* In the mark of a packet for the kernel lane: to_uplink has to write CE. */
#define MARK_CE 1

/* The first two octets of an IP header. */
union head {
	__u8 o[2];
	__be16 w;
};

/* The ToS octet or traffic class at off, or -1. By the ethertype, as the kernel lane does it, whatever version the header says. */
static __always_inline int load_tos(struct __sk_buff *skb, __u32 off, __be16 proto, union head *h)
{
	if (bpf_skb_load_bytes(skb, off, h, sizeof(*h)))
		return -1;
	if (proto == bpf_htons(ETH_P_IP))
		return h->o[1];
	if (proto == bpf_htons(ETH_P_IPV6))
		return (h->o[0] & 15) << 4 | h->o[1] >> 4;
	return -1;
}

static __always_inline int store_tos(struct __sk_buff *skb, __u32 off, __be16 proto, union head have, __u8 tos)
{
	union head want = have;
	if (proto == bpf_htons(ETH_P_IP)) {
		want.o[1] = tos;
		if (bpf_l3_csum_replace(skb, off + offsetof(struct iphdr, check), have.w, want.w, 2))
			return -1;
		return bpf_skb_store_bytes(skb, off, &want, sizeof(want), 0); /* the sum of the whole stays */
	}
	want.o[0] = (have.o[0] & 0xf0) | tos >> 4;
	want.o[1] = tos << 4 | (have.o[1] & 15);
	return bpf_skb_store_bytes(skb, off, &want, sizeof(want), BPF_F_RECOMPUTE_CSUM);
}

/* RFC 6040, section 4.2, figure 4, all but the drop. */
static __always_inline __u8 merge_ecn(__u8 inner, __u8 outer)
{
	if (inner == ECN_NOT_ECT || inner == ECN_CE)
		return inner;
	if (outer == ECN_CE || outer == ECN_ECT1)
		return outer;
	return inner;
}

/* The outer header says CE: the drop of the same figure. */
static __noinline int check_ecn(struct __sk_buff *skb, struct pkt *p)
{
	union head h;
	if (!p)
		return -DROP_INTERNAL;
	__u32 off = p->vxlan + VXLAN_LEN + ETH_LEN;
	if (off + (p->proto == bpf_htons(ETH_P_IP) ? IP4_LEN : IP6_LEN) > p->seg)
		return V_NEXT;
	int tos = load_tos(skb, off, p->proto, &h);
	return tos >= 0 && (tos & ECN_MASK) == ECN_NOT_ECT ? -DROP_ECN_CE_NOT_ECT : V_NEXT;
}

/* ECT(0) and not-ECT outside change nothing. */
static __always_inline int must_merge_tos(struct pkt *p)
{
	return p->tos & ECN_ECT1 || p->tos_mask == TOS_UNIFORM;
}

/* After stripping. */
static __noinline int merge_tos(struct __sk_buff *skb, struct pkt *p)
{
	union head h;
	if (!p || !must_merge_tos(p) || skb->len < ETH_LEN + (p->proto == bpf_htons(ETH_P_IP) ? IP4_LEN : IP6_LEN))
		return 0;
	int tos = load_tos(skb, ETH_LEN, p->proto, &h), want;
	if (tos < 0)
		return 0;
	want = (p->tos_mask == TOS_UNIFORM ? p->tos : tos) & ~ECN_MASK;
	want |= merge_ecn(tos & ECN_MASK, p->tos & ECN_MASK);
	if (want != tos)
		store_tos(skb, ETH_LEN, p->proto, h, want);
	return 0;
}

/* On the way out: CE in the outer header. */
static __noinline int set_ce(struct __sk_buff *skb)
{
	union head h;
	int tos = load_tos(skb, ETH_LEN, skb->protocol, &h);
	if (tos >= 0)
		store_tos(skb, ETH_LEN, skb->protocol, h, tos | ECN_CE);
	return 0;
}
