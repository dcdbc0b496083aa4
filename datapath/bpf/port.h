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

/* One of the port's MACs behind the first? */
static __always_inline int is_other_mac(struct port *port, __u64 mac)
{
	for (__u32 i = 1; i < PORT_MACS_MAX; i++)
		if (i < port->mac_count && port->macs[i] == mac)
			return 1;
	return 0;
}

/* The first frame of a held port that is watched, from one of its MACs, is told, once: of several CPUs one finds the flag set. Go may write the
 * whole entry at the same time; then the flag stays or goes as Go says, and at the worst two frames are told. */
static __noinline int tell_first(ctx_t *ctx, struct pkt *p)
{
	struct {
		__u8 mac[6];
		__u16 pad;
	} src = {};
	if (!p || !p->port || !p->books || load(ctx, offsetof(struct ethhdr, h_source), src.mac, sizeof(src.mac)))
		return 0;
	struct port *port = p->port;
	__u64 mac = get_mac(src.mac);
	if (port->macs[0] != mac && !is_other_mac(port, mac))
		return 0;
	__u32 *word = (__u32 *)&port->flags; /* the objects are little-endian: the flags are its lowest octet */
	if (!(__sync_fetch_and_and(word, ~(__u32)PORT_WATCHED) & PORT_WATCHED))
		return 0;
	if (bpf_ringbuf_output(&first_frames, &p->id, sizeof(p->id), 0)) {
		__sync_fetch_and_or(word, (__u32)PORT_WATCHED);
		p->books->untold++;
	}
	return 0;
}

static __always_inline int check_open(ctx_t *ctx, struct pkt *p)
{
	if (likely(!(p->port->flags & PORT_HELD)))
		return V_NEXT;
	if (p->port->flags & PORT_WATCHED)
		tell_first(ctx, p);
	return -DROP_PORT_HELD;
}

/* A port sends only from its own MACs. */
static __always_inline int check_identity(struct pkt *p)
{
	struct port *port = p->port;
	if (likely(port->macs[0] == p->src) || port->flags & PORT_UNGUARDED || unchecked)
		return V_NEXT;
	return is_other_mac(port, p->src) ? V_NEXT : -DROP_SOURCE_MAC;
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
