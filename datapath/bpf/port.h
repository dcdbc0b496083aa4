/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The local ports: who sends, may it, and delivery to one. */
#pragma once
#include "tos.h"

/* Which port is this? */
static __always_inline int find_port(struct pkt *p)
{
	__u32 *id = bpf_map_lookup_elem(&port_ids, &p->ifindex);
	if (unlikely(!id))
		return -DROP_UNKNOWN_PORT;
	struct port *port = bpf_map_lookup_elem(&ports, id);
	if (unlikely(!port || port->ifindex != p->ifindex))
		return -DROP_UNKNOWN_PORT;
	p->port = port;
	p->id = *id;
	p->vni = port->vni;
	return V_NEXT;
}

static __always_inline int check_open(struct pkt *p)
{
	return unlikely(p->port->flags & PORT_HELD) ? -DROP_PORT_HELD : V_NEXT;
}

/* A port sends only from its own MACs. */
static __always_inline int check_identity(struct pkt *p)
{
	struct port *port = p->port;
	if (likely(port->macs[0] == p->src) || port->flags & PORT_UNGUARDED || unchecked)
		return V_NEXT;
	for (__u32 i = 1; i < PORT_MACS_MAX; i++)
		if (i < port->mac_count && port->macs[i] == p->src)
			return V_NEXT;
	return -DROP_SOURCE_MAC;
}

/* What does not fit is dropped and its sender told, by the lane that can: answer.h. */
static int too_big(ctx_t *ctx, struct pkt *p, __u32 mtu);

/* Does it fit the network? Per segment for an aggregate, not by skb->len. */
static __always_inline int check_network_mtu(ctx_t *ctx, struct pkt *p)
{
	__u32 mtu = p->port->mtu;
	p->seg = length(ctx) - ETH_LEN;
	if (likely(p->seg <= mtu || !mtu) || unchecked)
		return V_NEXT;
	p->seg = segment_length(ctx);
	return p->seg <= mtu ? V_NEXT : too_big(ctx, p, mtu);
}

static __always_inline struct fdb_entry *find_fdb(struct pkt *p)
{
	struct fdb_key k = { .vni = p->vni };
	put_mac(k.mac, p->dst);
	return bpf_map_lookup_elem(&fdb, &k);
}

/* The port behind an interface of this network, and its id. */
static __always_inline struct port *port_at(__u32 ifindex, __u32 hint, __u32 *id)
{
	*id = hint;
	struct port *port = bpf_map_lookup_elem(&ports, id);
	if (likely(port && port->ifindex == ifindex))
		return port;
	__u32 *found = bpf_map_lookup_elem(&port_ids, &ifindex);
	if (!found)
		return NULL;
	*id = *found;
	port = bpf_map_lookup_elem(&ports, id);
	return port && port->ifindex == ifindex ? port : NULL;
}

/* May the frame go to the local port that the FDB names? Done before a tunnel packet is stripped, too. */
static __always_inline int check_receiver(struct pkt *p, struct fdb_entry *e, __u32 *id)
{
	struct port *port = port_at(e->ifindex, e->port, id);
	if (unlikely(!port || port->vni != p->vni))
		return -DROP_UNKNOWN_PORT;
	if (unlikely(port->flags & PORT_HELD)) {
		p->id = *id;
		return -DROP_PORT_HELD;
	}
	p->tos_mask = port->tos_mask;
	p->receiver = port->flags;
	return V_NEXT;
}
