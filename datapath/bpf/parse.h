/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Parsing: once, from the buffer, never by what a header says about lengths. */
#pragma once
#include "pkt.h"

enum { ETH_LEN = 14, IP4_LEN = 20, IP6_LEN = 40, UDP_LEN = 8, VXLAN_LEN = 8 };
/* Octets that are linear before a frame is looked at: up to the end of a TCP header behind the longest IPv4 header. */
enum { HEADERS_LEN = ETH_LEN + 60 + 20 };
enum { IPPROTO_ICMP = 1, IPPROTO_ICMPV6 = 58, IPPROTO_AH = 51 };
enum { EXTENSIONS_MAX = 8 }; /* extension headers that are looked behind */
enum { OUTER4_LEN = IP4_LEN + UDP_LEN + VXLAN_LEN + ETH_LEN, OUTER6_LEN = IP6_LEN + UDP_LEN + VXLAN_LEN + ETH_LEN };

static __always_inline int is_vlan(__be16 proto)
{
	return proto == bpf_htons(ETH_P_8021Q) || proto == bpf_htons(ETH_P_8021AD) || proto == bpf_htons(ETH_P_QINQ1);
}

static __always_inline int is_ip(__be16 proto)
{
	return proto == bpf_htons(ETH_P_IP) || proto == bpf_htons(ETH_P_IPV6);
}

static __always_inline int is_group(__u64 mac)
{
	return mac & 1;
}

/* The reserved MAC of weft-vxlan: the kernel drops frames from it without a word. 02:6f:77:00:00:01 */
#define RESERVED_MAC 0x010000776f02ULL

static __always_inline int check_macs(struct pkt *p)
{
	if (unchecked)
		return V_NEXT;
	if (unlikely(is_group(p->src) || !p->src || p->src == RESERVED_MAC))
		return -DROP_SOURCE_INVALID;
	/* 01:80:c2:00:00:00 - 0f */
	if (unlikely((p->dst & 0xf0ffffffffffULL) == 0xc28001ULL))
		return -DROP_LINK_LOCAL;
	return V_NEXT;
}

/* What every frame of a workload must pass, from a port or out of a tunnel; it is `len` octets long. The kernel's vxlan device loses
 * a frame that says it is IP and has no whole IP header, without a word, in and out: so no lane takes one. */
static __always_inline int check_frame(struct pkt *p, __u32 len)
{
	int v;
	if (unlikely(is_vlan(p->proto)))
		return -DROP_INNER_VLAN;
	v = check_macs(p);
	if (unlikely(v != V_NEXT))
		return v;
	if (unlikely(is_ip(p->proto) && len < ETH_LEN + (p->proto == bpf_htons(ETH_P_IP) ? IP4_LEN : IP6_LEN)))
		return -DROP_TRUNCATED;
	return V_NEXT;
}

/* A frame as it comes from a port or from weft-vxlan. */
static __always_inline int parse_frame(ctx_t *ctx, struct pkt *p)
{
	if (unlikely(tag_beside(ctx)))
		return -DROP_INNER_VLAN;
	linear(ctx, HEADERS_LEN);
	struct ethhdr *eth = (void *)(long)ctx->data;
	if ((void *)(eth + 1) > (void *)(long)ctx->data_end)
		return -DROP_TRUNCATED;
	p->dst = get_mac(eth->h_dest);
	p->src = get_mac(eth->h_source);
	p->proto = eth->h_proto;
	return check_frame(p, length(ctx));
}

static __always_inline __u8 traffic_class(struct ipv6hdr *ip)
{
	return bpf_ntohl(ip->ver_tc_flow) >> 20;
}

/* The sum of a header but for its destination and the checksum itself. */
static __always_inline __u32 ip4_sum(struct iphdr *ip)
{
	__u16 *w = (__u16 *)ip;
	__u32 s = w[0];
	s += w[1], s += w[2], s += w[3], s += w[4];
	s += w[6], s += w[7];
	return s;
}

static __always_inline __sum16 ip4_checksum_to(__u32 sum, __be32 daddr)
{
	__u32 s = sum + (daddr & 0xffff) + (daddr >> 16);
	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	return ~s;
}

static __always_inline __sum16 ip4_checksum(struct iphdr *ip)
{
	return ip4_checksum_to(ip4_sum(ip), ip->daddr);
}

/* Octets of the longest IP packet that an aggregate will be cut into. */
static __noinline __u32 segment_length(ctx_t *ctx)
{
	__u32 gso = segment_size(ctx), len = length(ctx) - ETH_LEN, l4 = 0;
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	__u8 proto, *h;
	if (!gso)
		return len;
	if (data + ETH_LEN + IP4_LEN > end)
		return len;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = data + ETH_LEN;
		l4 = (ip->ver_ihl & 15) * 4;
		proto = ip->protocol;
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = data + ETH_LEN;
		if ((void *)(ip + 1) > end)
			return len;
		l4 = IP6_LEN;
		proto = ip->nexthdr;
	} else {
		return len;
	}
	if (proto == IPPROTO_UDP)
		return l4 + UDP_LEN + gso;
	if (proto == IPPROTO_TCP) {
		h = data + ETH_LEN + l4;
		if ((void *)(h + 20) > end)
			return len;
		return l4 + (h[12] >> 4) * 4 + gso;
	}
	/* Another L4, or extension headers first: IPv6 with 40 octets of them and the longest TCP header. Never too small. */
	return l4 + 40 + 60 + gso;
}
