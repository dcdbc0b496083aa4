// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//go:build ignore

/* XDP on the uplink. The stages, their order and so the verdicts are those of from_uplink. */
#include "xdp.h"

SEC("xdp.frags")
int xdp_from_uplink(struct xdp_md *ctx)
{
	struct pkt p = {};
	struct fdb_entry *e;
	__u32 id = 0;
	int v;

	STAGE(enter(ctx, &p, XDP_FROM_UPLINK));
	STAGE(check_whole(ctx, &p));
	STAGE(parse_outer(ctx, &p));
	if (unlikely(p.group)) {
		v = pass_on(&p, LANE_XDP_GROUP);
		goto out;
	}
	STAGE(parse_tunnel(ctx, &p));
	STAGE(check_source(&p));
	STAGE(check_inner(&p));
	if (!learn_at_vtep(&p, p.lane || p.check)) {
		v = pass_on(&p, LANE_XDP_LEARN);
		goto out;
	}
	e = is_group(p.dst) ? NULL : find_fdb(&p);
	if (!e && unlikely(p.vtep) && !is_group(p.dst))
		e = find_learned(&p);
	if (!e) {
		v = pass_on(&p, LANE_XDP_SEVERAL);
		goto out;
	}
	STAGE(check_entry(&p, e, &id));
	if (unlikely((p.tos & ECN_MASK) == ECN_CE))
		STAGE(check_ecn(ctx, &p));
	STAGE(check_strippable(&p, e));
	STAGE(strip(ctx, &p));
	if (unlikely(must_merge_tos(&p)))
		merge_tos(ctx, &p);
	v = deliver(ctx, &p, e, id);
out:
	return leave(ctx, &p, v);
}
