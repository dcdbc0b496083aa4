/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Does a frame talk about who has which address? ARP (RFC 826) and neighbour discovery (RFC 4861). */
#pragma once
#include "punt.h"

enum { ND_SOLICIT = 135, ND_ADVERTISE = 136 };

/* Behind an extension header there may be anything: talk() looks. The fast path pays one comparison for IPv4, two loads for IPv6. */
static __always_inline int is_talk(ctx_t *ctx, struct pkt *p)
{
	__u8 next, type, *ip = (void *)(long)ctx->data + ETH_LEN;
	if (likely(p->proto == bpf_htons(ETH_P_IP)))
		return 0;
	if (p->proto == bpf_htons(ETH_P_ARP))
		return 1;
	if (p->proto != bpf_htons(ETH_P_IPV6) || (void *)(ip + IP6_LEN + 1) > (void *)(long)ctx->data_end)
		return 0;
	next = ip[offsetof(struct ipv6hdr, nexthdr)];
	if (likely(next == IPPROTO_TCP || next == IPPROTO_UDP))
		return 0;
	if (next == IPPROTO_ICMPV6) {
		type = ip[IP6_LEN];
		return type == ND_ROUTER_SOLICIT || type == ND_SOLICIT || type == ND_ADVERTISE;
	}
	return next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_FRAGMENT ||
	       next == IPPROTO_DSTOPTS || next == IPPROTO_AH;
}
