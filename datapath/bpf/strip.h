/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What becomes of a tunnel packet that is right: stripped here, or by the kernel lane. */
#pragma once
#include "seal.h"
#include "tunnel.h"

/* Up the stack to weft-vxlan, with the seal that opens it. The kernel drops what has a reserved bit set, so they are
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
	seal_in(skb, p->local);
	return V_PASSED;
}

/* A checksum that is there is verified: by the card or GRO already, else by the kernel lane. */
static __always_inline int must_verify(struct __sk_buff *skb, struct pkt *p)
{
	return unlikely(p->check) && bpf_csum_level(skb, BPF_CSUM_LEVEL_QUERY) < 0;
}

/* An aggregate that is stripped here keeps the tunnel's GSO type. One of TCP is taken whole by who receives it. One of datagrams is cut before a
 * socket gets it, and the kernel then cuts the tunnel packet that it no longer is, and loses all of it: so only TCP is stripped here. */
static __always_inline int is_tcp(struct __sk_buff *skb, struct pkt *p)
{
	__u32 at =
		p->proto == bpf_htons(ETH_P_IP) ? offsetof(struct iphdr, protocol) : offsetof(struct ipv6hdr, nexthdr);
	__u8 l4 = 0;
	if (!is_ip(p->proto) || bpf_skb_load_bytes(skb, p->vxlan + VXLAN_LEN + ETH_LEN + at, &l4, sizeof(l4)))
		return 0;
	return l4 == IPPROTO_TCP;
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
