// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//go:build ignore

/* tcx ingress on the host side of every port: what a workload sends. */
#include "deliver.h"
#include "flood.h"
#include "punt.h"
#include "neighbour.h"
#include "learn.h"

SEC("tcx/ingress")
int from_port(struct __sk_buff *skb)
{
	struct pkt p = {};
	struct fdb_entry *e;
	__u32 id = 0;
	int v;

	STAGE(enter(skb, &p, FROM_PORT));
	STAGE(find_port(&p));
	count_egress(p.id, frames(skb), skb->len);
	STAGE(check_open(skb, &p));
	STAGE(parse_frame(skb, &p));
	STAGE(check_identity(&p));
	STAGE(check_network_mtu(skb, &p));
	STAGE(serve(skb, &p));
	if (unlikely(p.port->flags & PORT_LEARNS))
		learn_at_port(&p);
	if (unlikely(is_talk(skb, &p)))
		STAGE(talk(skb, &p));
	e = is_group(p.dst) && p.vni != OAM_VNI ? NULL : find_fdb(&p);
	if (!e && p.port->flags & PORT_LEARNS && !is_group(p.dst))
		e = find_learned(&p);
	if (!e) {
		v = count_flood(flood_from_port(skb, &p));
		goto out;
	}
	if (!e->ifindex) {
		v = send_to_vtep(skb, &p, e->vtep);
		goto out;
	}
	if (e->ifindex == p.ifindex) {
		v = -DROP_SAME_PORT;
		goto out;
	}
	STAGE(check_receiver(&p, e, &id));
	v = deliver(skb, &p, e, id, is_ip(skb->protocol));
out:
	return leave(skb, &p, v);
}
