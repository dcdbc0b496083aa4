/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Delivery to a local port. */
#pragma once
#include "port.h"

/* Hand over. redirect_peer skips the host side of the veth and takes any frame as addressed to the workload: exact FDB hits
 * only, and only where skb->protocol is right (`native`). */
static __always_inline int deliver(struct __sk_buff *skb, struct pkt *p, struct fdb_entry *e, __u32 id, int native)
{
	count_ingress(skb, id);
	p->out = e->ifindex;
	if (e->flags & FDB_PEER && native)
		p->act = bpf_redirect_peer(e->ifindex, 0);
	else
		p->act = bpf_redirect(e->ifindex, 0);
	return V_DELIVERED;
}
