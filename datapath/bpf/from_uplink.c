// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//go:build ignore

/* tcx ingress on the uplink: tunnel packets are checked, stripped and delivered; everything else goes on as if weft were not
 * there. */
#include "deliver.h"
#include "flood.h"
#include "strip.h"

SEC("tcx/ingress")
int from_uplink(struct __sk_buff *skb)
{
	struct pkt p = {};
	struct fdb_entry *e = NULL;
	__u32 id = 0;
	int v, lane;

	STAGE(enter(skb, &p, FROM_UPLINK));
	STAGE(parse_outer(skb, &p));
	STAGE(parse_tunnel(skb, &p));
	STAGE(check_group(skb, &p));
	STAGE(check_source(&p));
	STAGE(check_inner(&p));
	learn_at_vtep(&p, p.lane || must_verify(skb, &p));
	if (!is_group(p.dst)) {
		e = find_fdb(&p);
		if (!e && unlikely(p.vtep))
			e = find_learned(&p);
		STAGE(e ? check_entry(&p, e, &id) : check_unknown(&p));
	}
	if (unlikely((p.tos & ECN_MASK) == ECN_CE))
		STAGE(check_ecn(skb, &p));
	lane = p.lane;
	if (must_verify(skb, &p))
		lane = LANE_CHECKSUM;
	else if (e && e->flags & (FDB_ALL_BY_KERNEL | FDB_FORWARD))
		lane = e->ifindex ? LANE_ASKED : LANE_FORWARD;
	else if (skb->gso_size && ((e && e->flags & FDB_AGGREGATES_BY_KERNEL) || !is_tcp(skb, &p)))
		lane = LANE_AGGREGATE;
	if (likely(!lane))
		lane = strip(skb, &p);
	if (unlikely(lane)) {
		v = pass_to_kernel(skb, &p, lane);
		goto out;
	}
	if (e) {
		if (unlikely(must_merge_tos(&p)))
			merge_tos(skb, &p);
		v = deliver(skb, &p, e, id, is_ip(p.proto));
	} else
		v = flood_from_tunnel(skb, &p);
out:
	return leave(skb, &p, v);
}
