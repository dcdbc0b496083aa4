// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//go:build ignore

/* XDP on the host side of a port in the XDP lane: what a workload sends. The stages, their order and so the verdicts are those of
 * from_port. */
#include "xdp.h"
#include "punt.h"
#include "talk.h"

SEC("xdp.frags")
int xdp_from_port(struct xdp_md *ctx)
{
	__u32 octets = length(ctx), sender = 0, id = 0;
	struct pkt p = {};
	struct fdb_entry *e;
	int v;

	STAGE(enter(ctx, &p, XDP_FROM_PORT));
	STAGE(check_whole(ctx, &p));
	STAGE(find_port(&p));
	sender = p.id;
	STAGE(check_open(ctx, &p));
	STAGE(parse_frame(ctx, &p));
	STAGE(check_identity(&p));
	STAGE(check_network_mtu(ctx, &p));
	if (unlikely(may_be_service(ctx, &p))) {
		v = pass_on(&p, LANE_XDP_SERVICE);
		goto out;
	}
	if (unlikely(is_talk(ctx, &p)))
		STAGE(pass_on(&p, LANE_XDP_NEIGHBOUR));
	if (unlikely(p.port->flags & PORT_LEARNS) && !learn_at_port(&p)) {
		v = pass_on(&p, LANE_XDP_LEARN);
		goto out;
	}
	e = is_group(p.dst) ? NULL : find_fdb(&p);
	if (!e && p.port->flags & PORT_LEARNS && !is_group(p.dst))
		e = find_learned(&p);
	if (!e) {
		v = pass_on(&p, LANE_XDP_SEVERAL);
		goto out;
	}
	if (!e->ifindex) {
		v = send_to_vtep(ctx, &p, e->vtep);
		goto out;
	}
	if (e->ifindex == p.ifindex) {
		v = -DROP_SAME_PORT;
		goto out;
	}
	STAGE(check_receiver(&p, e, &id));
	STAGE(check_receives_xdp(&p));
	v = deliver(ctx, &p, e, id);
out:
	if (v != V_PASSED && sender) /* what is passed on from_port counts */
		count_egress(sender, 1, octets);
	return leave(ctx, &p, v);
}
