/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How many frames a port, and all ports of a network here together, may have flooded: a token bucket that holds a second's worth. Asked before
 * the copies are made, of those that a local port sends; what comes from a tunnel was asked for where it was sent. */
#pragma once
#include "pkt.h"

enum { BUDGET_SECOND = 1000000000 };

/* Takes n frames out of a budget, if they are in it. Of two CPUs at once one goes first, and the other looks again; the third time it
 * takes what is not there, which is a frame. */
static __always_inline int take(struct budget *b, __u64 now, __u64 n)
{
	if (!b || !b->interval)
		return 1;
	__u64 cost = n * b->interval;
	for (int i = 0; i < 3; i++) {
		__u64 next = *(volatile __u64 *)&b->next;
		__u64 from = next > now - BUDGET_SECOND ? next : now - BUDGET_SECOND;
		if (from + cost > now)
			return 0;
		if (__sync_val_compare_and_swap(&b->next, next, from + cost) == next)
			break;
	}
	return 1;
}

static __always_inline int check_budget(struct __sk_buff *skb, struct pkt *p)
{
	struct budget *of_port = bpf_map_lookup_elem(&port_budgets, &p->id);
	struct budget *of_network = bpf_map_lookup_elem(&network_budgets, &p->vni);
	__u64 now = bpf_ktime_get_ns(), n = frames(skb);
	if (!take(of_port, now, n))
		return -DROP_BUM_PORT_LIMIT;
	return take(of_network, now, n) ? V_NEXT : -DROP_BUM_NETWORK_LIMIT;
}
