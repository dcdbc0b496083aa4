/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* ECN and DSCP across the tunnel. ECN by RFC 6040: copied on the way in (normal mode), merged on the way out. DSCP by RFC 2983:
 * the outer one is 0 and the inner one stays as it is (pipe), or one follows the other (uniform), as the network says. What is not
 * IP has neither. */
#pragma once
#include "parse.h"

enum { ECN_MASK = 3, ECN_NOT_ECT = 0, ECN_ECT1 = 1, ECN_ECT0 = 2, ECN_CE = 3 };

/* The first two octets of an IP header. */
union head {
	__u8 o[2];
	__be16 w;
};

/* The ToS octet or traffic class at off, or -1. By the ethertype, as the kernel lane does it, whatever version the header says. */
static __always_inline int load_tos(ctx_t *ctx, __u32 off, __be16 proto, union head *h)
{
	if (load(ctx, off, h, sizeof(*h)))
		return -1;
	if (proto == bpf_htons(ETH_P_IP))
		return h->o[1];
	if (proto == bpf_htons(ETH_P_IPV6))
		return (h->o[0] & 15) << 4 | h->o[1] >> 4;
	return -1;
}

static __always_inline int store_tos(ctx_t *ctx, __u32 off, __be16 proto, union head have, __u8 tos)
{
	union head want = have;
	if (proto == bpf_htons(ETH_P_IP)) {
		__be16 check;
		__u32 s;
		want.o[1] = tos;
		if (load(ctx, off + offsetof(struct iphdr, check), &check, sizeof(check)))
			return -1;
		s = (__u16)~check + (__u16)~have.w + want.w; /* RFC 1624, equation 3 */
		s = (s & 0xffff) + (s >> 16);
		check = ~((s & 0xffff) + (s >> 16));
		if (store(ctx, off + offsetof(struct iphdr, check), &check, sizeof(check), 1))
			return -1;
		return store(ctx, off, &want, sizeof(want), 1); /* the sum of the whole stays */
	}
	want.o[0] = (have.o[0] & 0xf0) | tos >> 4;
	want.o[1] = tos << 4 | (have.o[1] & 15);
	return store(ctx, off, &want, sizeof(want), 0);
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
static __noinline int check_ecn(ctx_t *ctx, struct pkt *p)
{
	union head h;
	if (!p)
		return -DROP_INTERNAL;
	__u32 off = p->vxlan + VXLAN_LEN + ETH_LEN;
	if (off + (p->proto == bpf_htons(ETH_P_IP) ? IP4_LEN : IP6_LEN) > p->seg)
		return V_NEXT;
	int tos = load_tos(ctx, off, p->proto, &h);
	return tos >= 0 && (tos & ECN_MASK) == ECN_NOT_ECT ? -DROP_ECN_CE_NOT_ECT : V_NEXT;
}

/* ECT(0) and not-ECT outside change nothing. */
static __always_inline int must_merge_tos(struct pkt *p)
{
	return p->tos & ECN_ECT1 || p->tos_mask == TOS_UNIFORM;
}

/* After stripping. */
static __noinline int merge_tos(ctx_t *ctx, struct pkt *p)
{
	union head h;
	if (!p || !must_merge_tos(p) || length(ctx) < ETH_LEN + (p->proto == bpf_htons(ETH_P_IP) ? IP4_LEN : IP6_LEN))
		return 0;
	int tos = load_tos(ctx, ETH_LEN, p->proto, &h), want;
	if (tos < 0)
		return 0;
	want = (p->tos_mask == TOS_UNIFORM ? p->tos : tos) & ~ECN_MASK;
	want |= merge_ecn(tos & ECN_MASK, p->tos & ECN_MASK);
	if (want != tos)
		store_tos(ctx, ETH_LEN, p->proto, h, want);
	return 0;
}
