/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Tunnel packets that arrive: are they ours, are they right, may their sender send, and stripping. */
#pragma once
#include "flood.h"

static __always_inline int same_addr(struct addr *a, struct addr *b)
{
	return a->w[3] == b->w[3] && a->w[2] == b->w[2] && a->w[1] == b->w[1] && a->w[0] == b->w[0];
}

/* Ours: sent to our own address and UDP port, on the Ethernet level too. V_PASSED: not ours. From here on skb may be trusted
 * only as far as its buffer goes. */
static __always_inline int parse_outer4(struct __sk_buff *skb, struct pkt *p)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + ETH_LEN;
	if ((void *)(ip + 1) > end)
		return V_PASSED;
	if (ip->daddr != p->local->addr4.w[3] || ip->protocol != IPPROTO_UDP)
		return V_PASSED;
	__u32 ihl = (ip->ver_ihl & 15) * 4, off = ETH_LEN + ihl;
	if (ihl < IP4_LEN || ip->frag_off & bpf_htons(IP_OFFSET))
		return V_PASSED; /* a later fragment has no port; reassembled it reaches weft-vxlan unmarked */
	struct udphdr *udp = data + off;
	if ((void *)(udp + 1) > end)
		return V_PASSED;
	if (udp->dest != p->local->udp_port)
		return V_PASSED;
	p->source.w[2] = MAPPED4;
	p->source.w[3] = ip->saddr;
	if (unlikely(skb->vlan_present))
		return -DROP_OUTER_VLAN;
	if (unlikely(ip->frag_off & bpf_htons(IP_MF)))
		return -DROP_OUTER_FRAGMENT;
	__u32 len = skb->len - ETH_LEN, total = bpf_ntohs(ip->tot_len);
	if (unlikely(len > 65535 && !total)) /* an aggregate that the field cannot hold */
		total = len;
	else if (unlikely(bpf_ntohs(udp->len) + ihl != total))
		return total > len || total < ihl ? -DROP_BAD_IP_HEADER : -DROP_BAD_UDP_LENGTH;
	if (unlikely((ip->ver_ihl & 0xf0) != 0x40 || total > len || total < ihl))
		return -DROP_BAD_IP_HEADER;
	if (likely(ihl == IP4_LEN)) {
		if (unlikely(ip4_checksum(ip) != ip->check))
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

static __always_inline int parse_outer6(struct __sk_buff *skb, struct pkt *p)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ipv6hdr *ip = data + ETH_LEN;
	struct udphdr *udp = (void *)(ip + 1);
	int fragment;
	if ((void *)(udp + 1) > end)
		return V_PASSED;
	if (!same_addr((struct addr *)ip->daddr, &p->local->addr6))
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
	p->ip6 = 1;
	memcpy(&p->source, ip->saddr, 16);
	if (unlikely(skb->vlan_present))
		return -DROP_OUTER_VLAN;
	if (unlikely(fragment))
		return -DROP_OUTER_FRAGMENT;
	__u32 len = skb->len - ETH_LEN - IP6_LEN, total = bpf_ntohs(ip->payload_len);
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

static __always_inline int parse_outer(struct __sk_buff *skb, struct pkt *p)
{
	if (skb->pkt_type != PACKET_HOST)
		return V_PASSED;
	linear(skb, ETH_LEN + OUTER6_LEN);
	struct ethhdr *eth = (void *)(long)skb->data;
	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return V_PASSED;
	if (eth->h_proto == bpf_htons(ETH_P_IP))
		return parse_outer4(skb, p);
	if (eth->h_proto == bpf_htons(ETH_P_IPV6))
		return parse_outer6(skb, p);
	return V_PASSED;
}

/* RFC 7348, section 5: the I flag counts, all other bits are ignored. */
static __always_inline int parse_tunnel(struct __sk_buff *skb, struct pkt *p)
{
	struct tunnel {
		struct vxlanhdr vxlan;
		struct ethhdr inner;
	} __attribute__((packed)) * t;
	__u32 off = p->vxlan;
	if (off > 128)
		return -DROP_INTERNAL;
	linear(skb, off + VXLAN_LEN + ETH_LEN);
	void *data = (void *)(long)skb->data;
	t = data + off;
	if ((void *)(t + 1) > (void *)(long)skb->data_end)
		return -DROP_TRUNCATED;
	if (unlikely(!(t->vxlan.flags & VXLAN_I)))
		return -DROP_NO_VNI_FLAG;
	p->vni = bpf_ntohl(t->vxlan.vni) >> 8;
	p->dst = get_mac(t->inner.h_dest);
	p->src = get_mac(t->inner.h_source);
	p->proto = t->inner.h_proto;
	return V_NEXT;
}

/* Only from a VTEP that the plan lists for the VNI. */
static __always_inline int check_source(struct pkt *p)
{
	struct accept_key k = { .vni = p->vni, .source = p->source };
	if (unlikely(same_addr(&p->source, p->ip6 ? &p->local->addr6 : &p->local->addr4)))
		return -DROP_OWN_SOURCE;
	if (likely(bpf_map_lookup_elem(&accepts, &k)))
		return V_NEXT;
	return bpf_map_lookup_elem(&networks, &p->vni) ? -DROP_SOURCE_NOT_ACCEPTED : -DROP_UNKNOWN_VNI;
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

static __always_inline int check_inner(struct pkt *p)
{
	if (unlikely(is_vlan(p->proto)))
		return -DROP_INNER_VLAN;
	return check_macs(p);
}

/* Up the stack to weft-vxlan, with the mark that opens it. The kernel drops what has a reserved bit set, so they are
 * cleared here, in the checksum too. */
static __noinline int pass_to_kernel(struct __sk_buff *skb, struct pkt *p, __u32 lane)
{
	struct vxlanhdr have, want = { .flags = VXLAN_I };
	if (!p)
		return -DROP_INTERNAL;
	if (bpf_skb_load_bytes(skb, p->vxlan, &have, sizeof(have)))
		return -DROP_INTERNAL;
	want.vni = have.vni & bpf_htonl(0xffffff00);
	if (have.flags != want.flags || have.vni != want.vni) {
		if (p->check) {
			__s64 diff = bpf_csum_diff((__be32 *)&have, sizeof(have), (__be32 *)&want, sizeof(want), 0);
			bpf_l4_csum_replace(skb, p->vxlan - 2, 0, diff, BPF_F_MARK_MANGLED_0);
		}
		if (bpf_skb_store_bytes(skb, p->vxlan, &want, sizeof(want), BPF_F_RECOMPUTE_CSUM))
			return -DROP_INTERNAL;
	}
	count_lane(p, lane);
	skb->mark = p->local->mark;
	return V_PASSED;
}

/* A checksum that is there is verified: by the card or GRO already, else by the kernel lane. */
static __always_inline int must_verify(struct __sk_buff *skb, struct pkt *p)
{
	return unlikely(p->check) && bpf_csum_level(skb, BPF_CSUM_LEVEL_QUERY) < 0;
}

/* Take the outer headers off. 0, or what the kernel lane has to do it for. */
static __always_inline int strip(struct __sk_buff *skb, struct pkt *p)
{
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET;
	__s32 len = p->ip6 ? -OUTER6_LEN : -OUTER4_LEN;
	if (unlikely(skb->len > p->seg) && bpf_skb_change_tail(skb, p->seg, 0))
		return LANE_NO_ROOM;
	/* Without it skb->protocol stays the outer one. For a frame that is not IP it only lowers what must be left over. */
	if (p->ip6 && p->proto != bpf_htons(ETH_P_IPV6))
		flags |= BPF_F_ADJ_ROOM_DECAP_L3_IPV4;
	else if (!p->ip6 && p->proto == bpf_htons(ETH_P_IPV6))
		flags |= BPF_F_ADJ_ROOM_DECAP_L3_IPV6;
	if (unlikely(bpf_skb_adjust_room(skb, len, BPF_ADJ_ROOM_MAC, flags)))
		return LANE_NO_ROOM;
	struct ethhdr *eth = (void *)(long)skb->data;
	if ((void *)(eth + 1) > (void *)(long)skb->data_end)
		return LANE_MAX;
	put_mac(eth->h_dest, p->dst);
	put_mac(eth->h_source, p->src);
	eth->h_proto = p->proto;
	if (unlikely(p->check))
		bpf_csum_level(skb, BPF_CSUM_LEVEL_DEC);
	return 0;
}
