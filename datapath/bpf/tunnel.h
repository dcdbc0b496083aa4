/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Tunnel packets that arrive: are they ours, are they right, may their sender send, and stripping. */
#pragma once
#include "group.h"
#include "learn.h"
#include "outer.h"

static __always_inline int same_addr(struct addr *a, struct addr *b)
{
	return a->w[3] == b->w[3] && a->w[2] == b->w[2] && a->w[1] == b->w[1] && a->w[0] == b->w[0];
}

/* Ours: sent to our own address and UDP port, on the Ethernet level too. V_PASSED: not ours. From here on a header may be trusted
 * only as far as its buffer goes. */
static __always_inline int parse_outer4(ctx_t *ctx, struct pkt *p)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = data + ETH_LEN;
	if ((void *)(ip + 1) > end)
		return V_PASSED;
	if (ip->protocol != IPPROTO_UDP || (ip->daddr != p->local->addr4.w[3] && !p->group))
		return V_PASSED;
	__u32 ihl = (ip->ver_ihl & 15) * 4, off = ETH_LEN + ihl;
	if (ihl < IP4_LEN || ip->frag_off & bpf_htons(IP_OFFSET))
		return V_PASSED; /* a later fragment has no port; reassembled it reaches weft-vxlan unmarked */
	struct udphdr *udp = data + off;
	if ((void *)(udp + 1) > end)
		return V_PASSED;
	if (udp->dest != p->local->udp_port)
		return V_PASSED;
	if (unlikely(p->group) && !is_for_group(get_mac(data), (void *)ip + offsetof(struct iphdr, daddr), 0))
		return V_PASSED;
	p->source.w[2] = MAPPED4;
	p->source.w[3] = ip->saddr;
	if (unlikely(tag_beside(ctx)))
		return -DROP_OUTER_VLAN;
	if (unlikely(ip->frag_off & bpf_htons(IP_MF)))
		return -DROP_OUTER_FRAGMENT;
	__u32 len = length(ctx) - ETH_LEN, total = bpf_ntohs(ip->tot_len);
	if (unlikely(len > 65535 && !total)) /* an aggregate that the field cannot hold */
		total = len;
	else if (unlikely(bpf_ntohs(udp->len) + ihl != total))
		return total > len || total < ihl ? -DROP_BAD_IP_HEADER : -DROP_BAD_UDP_LENGTH;
	if (unlikely((ip->ver_ihl & 0xf0) != 0x40 || total > len || total < ihl))
		return -DROP_BAD_IP_HEADER;
	if (likely(ihl == IP4_LEN)) {
		if (!unchecked && unlikely(ip4_checksum(ip) != ip->check))
			return -DROP_BAD_IP_HEADER;
	} else {
		p->lane = LANE_OPTIONS; /* the kernel checks them */
	}
	if (unlikely(total < ihl + UDP_LEN + VXLAN_LEN + ETH_LEN))
		return -DROP_TRUNCATED;
	p->tos = ip->tos;
	p->check = udp->check;
	p->vxlan = off + UDP_LEN;
	p->seg = total + ETH_LEN; /* octets of the frame that count; more is padding */
	return V_NEXT;
}

static __always_inline int parse_outer6(ctx_t *ctx, struct pkt *p)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ipv6hdr *ip = data + ETH_LEN;
	struct udphdr *udp = (void *)(ip + 1);
	int fragment;
	if ((void *)(udp + 1) > end)
		return V_PASSED;
	if (!same_addr((struct addr *)ip->daddr, &p->local->addr6) && !p->group)
		return V_PASSED;
	fragment = ip->nexthdr == IPPROTO_FRAGMENT;
	if (unlikely(fragment)) {
		/* Fragment header: next header, reserved, offset and flags, id; then the UDP header, if it is the first. */
		if ((void *)(udp + 2) > end || *(__u8 *)udp != IPPROTO_UDP || udp->dest & bpf_htons(0xfff8))
			return V_PASSED;
		udp++;
	} else if (ip->nexthdr != IPPROTO_UDP) {
		return V_PASSED;
	}
	if (udp->dest != p->local->udp_port)
		return V_PASSED;
	if (unlikely(p->group) && !is_for_group(get_mac(data), (void *)ip + offsetof(struct ipv6hdr, daddr), 1))
		return V_PASSED;
	p->ip6 = 1;
	memcpy(&p->source, ip->saddr, 16);
	if (unlikely(tag_beside(ctx)))
		return -DROP_OUTER_VLAN;
	if (unlikely(fragment))
		return -DROP_OUTER_FRAGMENT;
	__u32 len = length(ctx) - ETH_LEN - IP6_LEN, total = bpf_ntohs(ip->payload_len);
	if (unlikely(len > 65535 && !total))
		total = len;
	else if (unlikely(bpf_ntohs(udp->len) != total))
		return total > len ? -DROP_BAD_IP_HEADER : -DROP_BAD_UDP_LENGTH;
	if (unlikely((ip->ver_tc_flow & 0xf0) != 0x60 || total > len))
		return -DROP_BAD_IP_HEADER;
	if (unlikely(total < UDP_LEN + VXLAN_LEN + ETH_LEN))
		return -DROP_TRUNCATED;
	p->tos = traffic_class(ip);
	p->check = udp->check;
	p->vxlan = ETH_LEN + IP6_LEN + UDP_LEN;
	p->seg = total + ETH_LEN + IP6_LEN;
	return V_NEXT;
}

/* Addressed to this host on the Ethernet level? */
static __always_inline int is_for_host(ctx_t *ctx, struct pkt *p, struct ethhdr *eth)
{
#ifdef LANE_XDP /* nobody has looked yet */
	struct uplink *up = find_uplink(p->local, p->ifindex);
	return up && up->mac == get_mac(eth->h_dest);
#else
	return ctx->pkt_type == PACKET_HOST;
#endif
}

/* Or to several? */
static __always_inline int is_for_several(ctx_t *ctx, struct ethhdr *eth)
{
#ifdef LANE_XDP
	return eth->h_dest[0] & 1;
#else
	return ctx->pkt_type == PACKET_MULTICAST;
#endif
}

static __always_inline int parse_outer(ctx_t *ctx, struct pkt *p)
{
	linear(ctx, ETH_LEN + OUTER6_LEN);
	struct ethhdr *eth = (void *)(long)ctx->data;
	if ((void *)(eth + 1) > (void *)(long)ctx->data_end)
		return V_PASSED;
	if (unlikely(!is_for_host(ctx, p, eth))) {
		if (!is_for_several(ctx, eth))
			return V_PASSED;
		p->group = 1;
	}
	if (eth->h_proto == bpf_htons(ETH_P_IP))
		return parse_outer4(ctx, p);
	if (eth->h_proto == bpf_htons(ETH_P_IPV6))
		return parse_outer6(ctx, p);
	return V_PASSED;
}

/* RFC 7348, section 5: the I flag counts, all other bits are ignored. */
static __always_inline int parse_tunnel(ctx_t *ctx, struct pkt *p)
{
	struct tunnel {
		struct vxlanhdr vxlan;
		struct ethhdr inner;
	} __attribute__((packed)) * t;
	__u32 off = p->vxlan;
	if (off > 128)
		return -DROP_INTERNAL;
	linear(ctx, off + VXLAN_LEN + ETH_LEN);
	void *data = (void *)(long)ctx->data;
	t = data + off;
	if ((void *)(t + 1) > (void *)(long)ctx->data_end)
		return -DROP_TRUNCATED;
	if (unlikely(!(t->vxlan.flags & VXLAN_I)))
		return -DROP_NO_VNI_FLAG;
	p->vni = bpf_ntohl(t->vxlan.vni) >> 8;
	p->dst = get_mac(t->inner.h_dest);
	p->src = get_mac(t->inner.h_source);
	p->proto = t->inner.h_proto;
	return V_NEXT;
}

/* Only from a VTEP that the plan lists for the VNI, or from where the network lets others come. */
static __always_inline int check_source(struct pkt *p)
{
	struct accept_key k = { .vni = p->vni, .source = p->source };
	if (unchecked)
		return V_NEXT;
	if (unlikely(same_addr(&p->source, p->ip6 ? &p->local->addr6 : &p->local->addr4)))
		return -DROP_OWN_SOURCE;
	__u32 *vtep = bpf_map_lookup_elem(&accepts, &k);
	if (unlikely(!vtep))
		return admit(p);
	p->vtep = *vtep;
	return V_NEXT;
}

/* A MAC that is not in the FDB: under the setting flood every member's ports get it, wherever the sender is. */
static __always_inline int check_unknown(struct pkt *p)
{
	struct network *net;
	if (is_group(p->dst))
		return V_NEXT;
	net = bpf_map_lookup_elem(&networks, &p->vni);
	return net && net->unknown == UNKNOWN_FLOOD ? V_NEXT : -DROP_UNKNOWN_UNICAST_FROM_TUNNEL;
}

/* May the frame go where the FDB says? Done before it is stripped, too. What comes from a tunnel does not go back into one, but to where
 * its receiver has just moved. */
static __always_inline int check_entry(struct pkt *p, struct fdb_entry *e, __u32 *id)
{
	if (likely(e->ifindex))
		return check_receiver(p, e, id);
	return e->flags & FDB_FORWARD ? V_NEXT : -DROP_SPLIT_HORIZON;
}

static __always_inline int check_inner(struct pkt *p)
{
	return check_frame(p, p->seg - p->vxlan - VXLAN_LEN);
}
