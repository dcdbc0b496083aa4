/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The XDP lane: one frame to one receiver, before the kernel makes a packet of it. What it cannot do it passes on to the tc
 * lane as it came, and counts why; so a frame is only changed when nothing can fail any more. */
#pragma once
#include "tunnel.h"

static __always_inline int pass_on(struct pkt *p, __u32 reason)
{
	count_lane(p, reason);
	return V_PASSED;
}

static __always_inline int too_big(ctx_t *ctx, struct pkt *p, __u32 mtu)
{
	return pass_on(p, LANE_XDP_TOO_BIG);
}

/* A long frame comes in several buffers. Every header that is looked at must be in the first. */
static __always_inline int check_whole(ctx_t *ctx, struct pkt *p)
{
	enum { HEADERS_MAX = 128 }; /* Ethernet, the longest IPv4 header, UDP, VXLAN, Ethernet, and some */
	__u32 have = ctx->data_end - ctx->data;
	if (unlikely(have < HEADERS_MAX && have < length(ctx)))
		return pass_on(p, LANE_XDP_SPLIT);
	return V_NEXT;
}

/* Only a port that is in the lane takes a redirected frame: elsewhere the kernel loses it and counts nothing. */
static __always_inline int check_receives_xdp(struct pkt *p)
{
	return likely(p->receiver & PORT_XDP) ? V_NEXT : pass_on(p, LANE_XDP_RECEIVER);
}

static __always_inline int deliver(ctx_t *ctx, struct pkt *p, struct fdb_entry *e, __u32 id)
{
	count_ingress(ctx, id);
	p->out = e->ifindex;
	p->act = bpf_redirect(e->ifindex, 0);
	return V_DELIVERED;
}

static __always_inline int takes_xdp(struct local *local, __u32 ifindex)
{
	struct uplink *up = find_uplink(local, ifindex);
	return up && up->flags & UPLINK_FROM_XDP;
}

static __always_inline int send_to_vtep(ctx_t *ctx, struct pkt *p, __u32 id)
{
	struct vtep *vtep = bpf_map_lookup_elem(&vteps, &id);
	if (unlikely(!vtep || !vtep->flags))
		return -DROP_UNKNOWN_VTEP;
	int ip6 = vtep->flags & VTEP_IP6, r;
	int room = ip6 ? OUTER6_LEN : OUTER4_LEN;
	p->hash = flow_hash(ctx, p, p->port->tos_mask);
	struct nexthop *nh = find_nexthop(ctx, p->local, vtep, id, p->hash);
	if (unlikely(!nh || nh->state == NEXTHOP_NONE))
		return -DROP_NO_ROUTE;
	if (unlikely(p->seg + room > nh->mtu))
		return pass_on(p, LANE_XDP_TOO_BIG);
	if (unlikely(vtep->flags & VTEP_CHECKSUM))
		return pass_on(p, LANE_XDP_CHECKSUM);
	if (must_confirm(nh))
		return pass_on(p, LANE_XDP_NEXT_HOP);
	if (unlikely(!takes_xdp(p->local, nh->ifindex)))
		return pass_on(p, LANE_XDP_UPLINK);
	if (unlikely(bpf_xdp_adjust_head(ctx, -room)))
		return pass_on(p, LANE_XDP_NO_ROOM);
	if ((r = write_outer(ctx, p, ip6)) < 0 || (r = write_destination(ctx, vtep, nh, ip6, 0)) < 0)
		return r;
	p->out = nh->ifindex;
	p->act = bpf_redirect(nh->ifindex, 0);
	return V_ENCAPSULATED;
}

/* What only another lane strips. */
static __always_inline int check_strippable(struct pkt *p, struct fdb_entry *e)
{
	if (unlikely(p->lane))
		return pass_on(p, LANE_XDP_OPTIONS);
	if (unlikely(p->check))
		return pass_on(p, LANE_XDP_CHECKSUM);
	if (unlikely(e->flags & (FDB_ALL_BY_KERNEL | FDB_FORWARD)))
		return pass_on(p, LANE_XDP_ASKED);
	return check_receives_xdp(p);
}

/* The outer headers off, and what is behind the packet. */
static __always_inline int strip(ctx_t *ctx, struct pkt *p)
{
	__u32 len = length(ctx);
	if (unlikely(len > p->seg) && bpf_xdp_adjust_tail(ctx, (int)p->seg - (int)len))
		return pass_on(p, LANE_XDP_NO_ROOM);
	if (unlikely(bpf_xdp_adjust_head(ctx, p->vxlan + VXLAN_LEN)))
		return pass_on(p, LANE_XDP_NO_ROOM);
	return V_NEXT;
}
