/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Encapsulation: room, then outer headers.
 *
 *   before                [Ethernet][payload]
 *   after adjust_room     [Ethernet][50 or 70 octets][payload]       all of it is then written, the inner Ethernet
 *   after change_head     [50 or 70 octets][Ethernet][payload]       header last: one writer serves both
 */
#pragma once
#include "answer.h"
#include "outer.h"
#include "seal.h"

/* ENCAP_L2 is the inner Ethernet header alone: with the VXLAN header in it every GSO packet dies in segmentation. */
#define ROOM_FLAGS                                                                                                     \
	(BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET | BPF_F_ADJ_ROOM_ENCAP_L4_UDP |                       \
	 BPF_F_ADJ_ROOM_ENCAP_L2(ETH_LEN) | BPF_F_ADJ_ROOM_ENCAP_L2_ETH)

/* 0, or what the kernel lane has to do it for. */
static __always_inline int make_room(struct __sk_buff *skb, struct pkt *p, int ip6)
{
	__u32 len = ip6 ? OUTER6_LEN : OUTER4_LEN;
	if (likely(is_ip(skb->protocol))) {
		if (ip6)
			return bpf_skb_adjust_room(skb, OUTER6_LEN, BPF_ADJ_ROOM_MAC,
						   ROOM_FLAGS | BPF_F_ADJ_ROOM_ENCAP_L3_IPV6)
				       ? LANE_NO_ROOM
				       : 0;
		return bpf_skb_adjust_room(skb, OUTER4_LEN, BPF_ADJ_ROOM_MAC, ROOM_FLAGS | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4)
			       ? LANE_NO_ROOM
			       : 0;
	}
	if (skb->gso_size)
		return LANE_GSO_NON_IP;
	return bpf_skb_change_head(skb, len, 0) ? LANE_NO_ROOM : 0;
}

/* Let the kernel write the Ethernet header, resolving or confirming the neighbour on the way. */
static __noinline int through_neighbour(struct nexthop *nh)
{
	struct bpf_redir_neigh n = {};
	if (!nh)
		return TCX_DROP;
	n.nh_family = nh->family;
	if (nh->family == AF_INET6)
		for (int i = 0; i < 4; i++)
			n.ipv6_nh[i] = nh->gateway.w[i];
	else
		n.ipv4_nh = nh->gateway.w[3];
	return bpf_redirect_neigh(nh->ifindex, &n, sizeof(n), 0);
}

/* The kernel lane: weft-vxlan encapsulates, with the same headers as above but for the source port, which is the kernel's
 * own hash. 0 if the tunnel key is set. */
static __always_inline int set_tunnel(struct __sk_buff *skb, struct local *local, struct vtep *vtep, __u32 vni,
				      __u8 tos, __u32 hash, __u8 ttl)
{
	__u32 zero = 0;
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &zero);
	__u64 flags = BPF_F_DONT_FRAGMENT;
	if (!scratch)
		return -DROP_INTERNAL;
	struct bpf_tunnel_key *k = &scratch->tunnel;
	memset(k, 0, sizeof(*k));
	k->tunnel_id = vni;
	k->tunnel_ttl = ttl;
	k->tunnel_tos = tos & ~ECN_MASK; /* the kernel adds ECN */
	if (!(vtep->flags & VTEP_CHECKSUM))
		flags |= BPF_F_ZERO_CSUM_TX;
	if (vtep->udp_port != local->udp_port)
		return -DROP_KERNEL_LANE_PORT; /* the helper cannot name another port */
	if (vtep->flags & VTEP_IP6) {
		flags |= BPF_F_TUNINFO_IPV6;
		k->tunnel_label = hash >> 12;
		for (int i = 0; i < 4; i++) {
			k->remote_ipv6[i] = vtep->addr.w[i];
			k->local_ipv6[i] = local->addr6.w[i];
		}
	} else {
		k->remote_ipv4 = bpf_ntohl(vtep->addr.w[3]);
		k->local_ipv4 = bpf_ntohl(local->addr4.w[3]);
	}
	if (bpf_skb_set_tunnel_key(skb, k, sizeof(*k), flags))
		return -DROP_INTERNAL;
	seal_out(skb, local, (tos & ECN_MASK) == ECN_CE ? local->mark ^ MARK_CE : local->mark);
	return V_NEXT;
}

static __noinline int send_by_kernel(struct __sk_buff *skb, struct pkt *p, struct vtep *vtep, __u32 lane)
{
	int r;
	if (!p || !vtep)
		return -DROP_INTERNAL;
	r = set_tunnel(skb, p->local, vtep, p->vni, p->tos, p->hash, OUTER_TTL);
	if (r < 0)
		return r;
	count_lane(p, lane);
	p->out = p->local->vxlan_ifindex;
	p->act = bpf_redirect(p->local->vxlan_ifindex, 0);
	return V_ENCAPSULATED;
}

/* Send to one VTEP. */
static __always_inline int send_to_vtep(struct __sk_buff *skb, struct pkt *p, __u32 id)
{
	struct vtep *vtep = bpf_map_lookup_elem(&vteps, &id);
	if (unlikely(!vtep || !vtep->flags))
		return -DROP_UNKNOWN_VTEP;
	int ip6 = vtep->flags & VTEP_IP6;
	__u32 room = ip6 ? OUTER6_LEN : OUTER4_LEN;
	p->hash = flow_hash(skb, p, p->port->tos_mask);
	struct nexthop *nh = find_nexthop(skb, p->local, vtep, id, p->hash);
	if (unlikely(!nh || nh->state == NEXTHOP_NONE))
		return -DROP_NO_ROUTE;
	if (unlikely(p->seg + room > nh->mtu)) {
		p->seg = segment_length(skb);
		if (p->seg + room > nh->mtu)
			return too_big(skb, p, nh->mtu - room);
	}
	int lane = 0;
	if (unlikely(vtep->flags & VTEP_CHECKSUM))
		lane = LANE_CHECKSUM;
	else if (unlikely(nh->state == NEXTHOP_KERNEL))
		lane = LANE_ENCAPSULATED_ROUTE;
	else if (unlikely(skb->len + room > 65535))
		lane = LANE_TOO_LONG;
	else if (unlikely(nh->state == NEXTHOP_RESOLVE && !is_ip(skb->protocol)))
		lane = LANE_NEIGHBOUR;
	else
		lane = make_room(skb, p, ip6);
	if (unlikely(lane))
		return send_by_kernel(skb, p, vtep, lane);

	int r = write_outer(skb, p, ip6);
	if (r < 0)
		return r;
	r = write_destination(skb, vtep, nh, ip6, 0);
	if (r < 0)
		return r;
	seal_out(skb, p->local, p->local->mark);
	p->out = nh->ifindex;
	if (must_confirm(nh) && is_ip(skb->protocol)) {
		nh->confirmed = nh->at;
		p->act = through_neighbour(nh);
	} else {
		p->act = bpf_redirect(nh->ifindex, 0);
	}
	return V_ENCAPSULATED;
}
