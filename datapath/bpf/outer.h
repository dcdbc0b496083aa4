/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The outer headers, written where there is room for them. */
#pragma once
#include "nexthop.h"

struct vxlanhdr {
	__be32 flags;
	__be32 vni;
} __attribute__((packed));
#define VXLAN_I bpf_htonl(0x08000000)

enum { OUTER_TTL = 64 };

struct outer4 {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	struct vxlanhdr vxlan;
	struct ethhdr inner;
} __attribute__((packed));

struct outer6 {
	struct ethhdr eth;
	struct ipv6hdr ip;
	struct udphdr udp;
	struct vxlanhdr vxlan;
	struct ethhdr inner;
} __attribute__((packed));

static __always_inline void write_tunnel(struct udphdr *udp, struct vxlanhdr *vxlan, struct ethhdr *inner,
					 struct pkt *p, __u32 udp_len)
{
	udp->source = source_port(p->hash);
	udp->len = bpf_htons(udp_len);
	udp->check = 0;
	vxlan->flags = VXLAN_I;
	vxlan->vni = bpf_htonl(p->vni << 8);
	put_mac(inner->h_dest, p->dst);
	put_mac(inner->h_source, p->src);
	inner->h_proto = p->proto;
}

/* Everything that is the same for every VTEP. */
static __always_inline int write_outer(ctx_t *ctx, struct pkt *p, int ip6)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 len = length(ctx) - ETH_LEN;
	if (ip6) {
		struct outer6 *o = data;
		if ((void *)(o + 1) > end)
			return -DROP_INTERNAL;
		o->eth.h_proto = bpf_htons(ETH_P_IPV6);
		o->ip.ver_tc_flow =
			bpf_htonl(6 << 28 | (__u32)p->tos << 20 | (p->hash >> 12)); /* flow label: RFC 6438 */
		o->ip.payload_len = bpf_htons(len - IP6_LEN);
		o->ip.nexthdr = IPPROTO_UDP;
		o->ip.hop_limit = OUTER_TTL;
		for (int i = 0; i < 4; i++)
			o->ip.saddr[i] = p->local->addr6.w[i];
		write_tunnel(&o->udp, &o->vxlan, &o->inner, p, len - IP6_LEN);
		return V_NEXT;
	}
	struct outer4 *o = data;
	if ((void *)(o + 1) > end)
		return -DROP_INTERNAL;
	o->eth.h_proto = bpf_htons(ETH_P_IP);
	o->ip.ver_ihl = 0x45;
	o->ip.tos = p->tos;
	o->ip.tot_len = bpf_htons(len);
	o->ip.id = 0; /* atomic: never fragmented (RFC 6864) */
	o->ip.frag_off = bpf_htons(IP_DF);
	o->ip.ttl = OUTER_TTL;
	o->ip.protocol = IPPROTO_UDP;
	o->ip.saddr = p->local->addr4.w[3];
	write_tunnel(&o->udp, &o->vxlan, &o->inner, p, len - IP4_LEN);
	return V_NEXT;
}

/* What differs from VTEP to VTEP. `sum` is ip4_sum of the header, which all copies of a flood share, or 0. */
static __always_inline int write_destination(ctx_t *ctx, struct vtep *vtep, struct nexthop *nh, int ip6, __u32 sum)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	if (ip6) {
		struct outer6 *o = data;
		if ((void *)(o + 1) > end)
			return -DROP_INTERNAL;
		memcpy(&o->eth, nh->macs, 12);
		for (int i = 0; i < 4; i++)
			o->ip.daddr[i] = vtep->addr.w[i];
		o->udp.dest = vtep->udp_port;
		return V_NEXT;
	}
	struct outer4 *o = data;
	if ((void *)(o + 1) > end)
		return -DROP_INTERNAL;
	memcpy(&o->eth, nh->macs, 12);
	o->ip.daddr = vtep->addr.w[3];
	o->ip.check = ip4_checksum_to(sum ? sum : ip4_sum(&o->ip), vtep->addr.w[3]);
	o->udp.dest = vtep->udp_port;
	return V_NEXT;
}
