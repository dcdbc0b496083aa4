/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* One hash of the inner headers for every lane: source port, next-hop bucket, flow label. Jenkins' lookup3 as in the
 * kernel's jhash.h. Seeded with nothing, so that all hosts and lanes agree. */
#pragma once
#include "port.h"

static __always_inline __u32 rol(__u32 w, __u32 n)
{
	return w << n | w >> (32 - n);
}

#define JHASH_INIT 0xdeadbeef
#define JHASH_MIX(a, b, c)                                                                                             \
	{                                                                                                              \
		a -= c, a ^= rol(c, 4), c += b;                                                                        \
		b -= a, b ^= rol(a, 6), a += c;                                                                        \
		c -= b, c ^= rol(b, 8), b += a;                                                                        \
		a -= c, a ^= rol(c, 16), c += b;                                                                       \
		b -= a, b ^= rol(a, 19), a += c;                                                                       \
		c -= b, c ^= rol(b, 4), b += a;                                                                        \
	}
#define JHASH_FINAL(a, b, c)                                                                                           \
	{                                                                                                              \
		c ^= b, c -= rol(b, 14);                                                                               \
		a ^= c, a -= rol(c, 11);                                                                               \
		b ^= a, b -= rol(a, 25);                                                                               \
		c ^= b, c -= rol(b, 16);                                                                               \
		a ^= c, a -= rol(c, 4);                                                                                \
		b ^= a, b -= rol(a, 14);                                                                               \
		c ^= b, c -= rol(b, 24);                                                                               \
	}

static __always_inline __u32 hash3(__u32 a, __u32 b, __u32 c)
{
	a += JHASH_INIT, b += JHASH_INIT, c += JHASH_INIT;
	JHASH_FINAL(a, b, c);
	return c;
}

static __always_inline int has_l4_ports(__u8 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_SCTP;
}

/* The hash, and on the way the outer ToS octet: ECN as it is inside (RFC 6040, normal mode), DSCP as the network says (tos_mask).
 * Addresses, protocol and L4 ports; no L4 ports for any fragment, the first included, so that all fragments of a packet
 * go one way; the MACs where there is no whole IP header. */
static __always_inline __u32 flow_hash(ctx_t *ctx, struct pkt *p, __u8 tos_mask)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	if (p->proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = data + ETH_LEN;
		if ((void *)(ip + 1) > end)
			goto macs;
		p->tos = ip->tos & tos_mask;
		if ((ip->ver_ihl & 0xf0) != 0x40)
			goto macs;
		__u32 l4 = 0, off = ETH_LEN + (ip->ver_ihl & 15) * 4;
		if (has_l4_ports(ip->protocol) && !(ip->frag_off & bpf_htons(IP_MF | IP_OFFSET)) &&
		    off >= ETH_LEN + IP4_LEN && data + off + 4 <= end)
			l4 = *(__u32 *)(data + off);
		return hash3(ip->saddr, ip->daddr, l4 ^ ip->protocol);
	}
	if (p->proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = data + ETH_LEN;
		if ((void *)(ip + 1) > end)
			goto macs;
		p->tos = traffic_class(ip) & tos_mask;
		if ((ip->ver_tc_flow & 0xf0) != 0x60)
			goto macs;
		__u32 l4 = 0, a, b, c;
		if (has_l4_ports(ip->nexthdr) && data + ETH_LEN + IP6_LEN + 4 <= end)
			l4 = *(__u32 *)(data + ETH_LEN + IP6_LEN);
		a = ip->saddr[0] + JHASH_INIT, b = ip->saddr[1] + JHASH_INIT, c = ip->saddr[2] + JHASH_INIT;
		JHASH_MIX(a, b, c);
		a += ip->saddr[3], b += ip->daddr[0], c += ip->daddr[1];
		JHASH_MIX(a, b, c);
		a += ip->daddr[2], b += ip->daddr[3], c += l4 ^ ip->nexthdr;
		JHASH_FINAL(a, b, c);
		return c;
	}
macs:
	return hash3((__u32)p->dst, (__u32)p->src, (__u32)(p->dst >> 32) << 16 | (__u32)(p->src >> 32));
}

/* RFC 7348, section 5: 49152-65535. The low bits choose the next hop, so the high ones are used here. */
static __always_inline __be16 source_port(__u32 hash)
{
	return bpf_htons((__u16)(49152 + (hash >> 18)));
}
