/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Learning, in networks that ask for it: the source MAC of a frame is at the port or behind the VTEP that it came from (RFC 7348, section 4.1).
 * The FDB is asked first, so what the plan says wins, and a known destination costs what it costs elsewhere.
 *
 * Several CPUs learn at once. An entry is made by an update that fails where there is one, and moved by a compare-and-swap of its place; whoever
 * does it counts it at the new place and discounts it at the old one, so that the counts are those of the entries. The times and the count of moves
 * beside it are written plainly: at the worst a refresh or one of two moves at the same moment is lost. */
#pragma once
#include "port.h"

enum {
	REFRESH_TICKS = 1000, /* about a second: how often the time of an entry is written at most */
	/* Five moves in 180 s are two places with the same MAC, or a loop: RFC 7432, section 15.1. */
	FREEZE_MOVES = 5,
	FREEZE_TICKS = 180000000000 >> TICK_BITS,
	/* No place of any network: of a VTEP that is accepted unlisted, and not known yet. */
	PLACE_NONE = PLACE_PORT,
};

static __always_inline __u32 ticks(void)
{
	return bpf_ktime_get_coarse_ns() >> TICK_BITS;
}

static __always_inline int is_frozen(struct learned_mac *l, __u32 now)
{
	return l->flags & LEARNED_FROZEN && now - l->window < FREEZE_TICKS;
}

static __always_inline int is_stale(struct learned_mac *l, __u32 now)
{
	return (__s32)(now - l->until) >= 0 && !is_frozen(l, now);
}

/* Where a MAC that is not in the FDB was learned, as an FDB entry. Who sends from further MACs forwards for them: aggregates go to a port by the
 * kernel lane, and never by redirect_peer, which would take a frame for the workload's own. */
static __noinline struct fdb_entry *find_learned(struct pkt *p)
{
	struct fdb_key k = {};
	__u32 zero = 0, place, id;
	if (!p)
		return NULL;
	k.vni = p->vni;
	put_mac(k.mac, p->dst);
	struct learned_mac *l = bpf_map_lookup_elem(&learned, &k);
	struct fdb_entry *e = bpf_map_lookup_elem(&found, &zero);
	if (!l || !e || is_stale(l, ticks()))
		return NULL;
	place = *(volatile __u32 *)&l->place;
	if (!place)
		return NULL;
	e->flags = 0;
	if (!(place & PLACE_PORT)) {
		e->vtep = place;
		e->ifindex = e->port = 0;
		return e;
	}
	id = place & ~PLACE_PORT;
	struct port *port = bpf_map_lookup_elem(&ports, &id);
	if (!port || !port->ifindex || port->vni != p->vni)
		return NULL;
	e->vtep = 0;
	e->ifindex = port->ifindex;
	e->port = id;
	e->flags = FDB_AGGREGATES_BY_KERNEL;
	return e;
}

#ifndef LANE_XDP
static __always_inline struct learner *learner_at(__u32 vni, __u32 place)
{
	struct learner_key k = { .vni = vni, .place = place };
	return bpf_map_lookup_elem(&learners, &k);
}

/* Count one more MAC at a place, if it may have one. */
static __noinline struct learner *take_room(struct network *net, __u32 vni, __u32 place)
{
	struct learner_key k = { .vni = vni, .place = place };
	struct learner none = {}, *to = bpf_map_lookup_elem(&learners, &k);
	if (!net)
		return NULL;
	if (!to) {
		bpf_map_update_elem(&learners, &k, &none, BPF_NOEXIST);
		to = bpf_map_lookup_elem(&learners, &k);
		if (!to)
			return NULL;
	}
	if (__sync_fetch_and_add(&to->macs, 1) < (place & PLACE_PORT ? net->port_limit : net->vtep_limit))
		return to;
	__sync_fetch_and_add(&to->macs, -1);
	__sync_fetch_and_add(&to->refused, 1);
	return NULL;
}

static __always_inline void leave_room(struct learner *from)
{
	if (from)
		__sync_fetch_and_add(&from->macs, -1);
}

/* From another place than it was learned at: the place is changed at once, but not of a MAC that changes it all the time. Where the old place
 * has not sent from it for so long that it does not count any more, it is no move. */
static __noinline int move(struct network *net, struct learned_mac *l, __u32 vni, __u32 place)
{
	__u32 now = ticks(), old;
	struct learner *to;
	if (!net || !l)
		return 0;
	old = *(volatile __u32 *)&l->place;
	if (!old || old == place)
		return 0;
	if (is_frozen(l, now)) {
		to = learner_at(vni, old);
		if (to)
			__sync_fetch_and_add(&to->frozen, 1);
		return 0;
	}
	int stale = is_stale(l, now);
	to = take_room(net, vni, place);
	if (!to)
		return 0;
	if (__sync_val_compare_and_swap(&l->place, old, place) != old) {
		leave_room(to); /* another CPU was first */
		return 0;
	}
	leave_room(learner_at(vni, old));
	l->seen = now;
	l->until = now + net->ageing;
	l->flags = 0;
	if (stale) {
		l->moves = 0;
		return 0;
	}
	__sync_fetch_and_add(&to->moves, 1);
	if (!l->moves || now - l->window >= FREEZE_TICKS) {
		l->window = now;
		l->moves = 0;
	}
	if (__sync_fetch_and_add(&l->moves, 1) + 1 < FREEZE_MOVES)
		return 0;
	l->window = now;
	l->flags = LEARNED_FROZEN;
	__sync_fetch_and_add(&to->freezes, 1);
	return 0;
}

static __noinline int insert(struct network *net, struct fdb_key *k, __u32 place)
{
	struct learned_mac new = { .place = place };
	struct learner *to;
	if (!net || !k)
		return 0;
	to = take_room(net, k->vni, place);
	if (!to)
		return 0;
	new.seen = ticks();
	new.until = new.seen + net->ageing;
	if (!bpf_map_update_elem(&learned, k, &new, BPF_NOEXIST))
		return 0;
	leave_room(to);
	if (!bpf_map_lookup_elem(&learned, k)) /* else another CPU was first */
		__sync_fetch_and_add(&to->full, 1);
	return 0;
}
#endif

/* Learn that the frame's source MAC is at a place. The XDP lane says by 0 that there is something to be done, which the tc lane will do, and else
 * keeps the entry fresh as that does. */
static __noinline int learn(struct pkt *p, __u32 place)
{
	struct fdb_key k = {};
	if (!p || place == PLACE_NONE)
		return 1;
	k.vni = p->vni;
	put_mac(k.mac, p->src);
	struct learned_mac *l = bpf_map_lookup_elem(&learned, &k);
	if (likely(l && *(volatile __u32 *)&l->place == place)) {
		__u32 now = ticks();
		if (likely(now - l->seen < REFRESH_TICKS && (__s32)(now - l->until) < 0))
			return 1;
		struct network *net = bpf_map_lookup_elem(&networks, &p->vni);
		if (net) {
			l->seen = now;
			l->until = now + net->ageing;
		}
		return 1;
	}
	if (bpf_map_lookup_elem(&fdb, &k)) /* a static entry wins */
		return 1;
#ifndef LANE_XDP
	struct network *net = bpf_map_lookup_elem(&networks, &p->vni);
	if (!net || !net->ageing)
		return 1;
	if (l)
		move(net, l, k.vni, place);
	else
		insert(net, &k, place);
	return 1;
#else
	return 0;
#endif
}

/* From a port. Its own MACs are in the FDB. */
static __always_inline int learn_at_port(struct pkt *p)
{
	return p->port->macs[0] == p->src || learn(p, p->id | PLACE_PORT);
}

/* Out of a tunnel, if what says from where is known to be right by now: not before a checksum that is there, or options in the header, which
 * the kernel lane looks at. What that lets through comes by again in from_vxlan. */
static __always_inline int learn_at_vtep(struct pkt *p, int doubtful)
{
	return likely(!p->vtep) || doubtful || learn(p, p->vtep);
}

static __noinline void tell_stranger(struct pkt *p)
{
	struct stranger s = {};
	__u32 zero = 0, now = ticks(), *last = bpf_map_lookup_elem(&told, &zero);
	if (!p || !last || *last == now)
		return;
	*last = now;
	s.vni = p->vni;
	s.source = p->source;
	bpf_ringbuf_output(&strangers, &s, sizeof(s), 0);
}

/* A tunnel packet from nobody in the accept table: some networks let others come, from where they say. */
static __noinline int admit(struct pkt *p)
{
	struct source_key k = { .prefix = 8 * (sizeof(k) - sizeof(k.prefix)) };
	if (!p)
		return -DROP_INTERNAL;
	struct network *net = bpf_map_lookup_elem(&networks, &p->vni);
	if (!net)
		return -DROP_UNKNOWN_VNI;
	if (!(net->flags & NETWORK_SOURCES))
		return -DROP_SOURCE_NOT_ACCEPTED;
	k.vni = bpf_htonl(p->vni);
	k.source = p->source;
	if (!bpf_map_lookup_elem(&sources, &k))
		return -DROP_SOURCE_NOT_ACCEPTED;
	tell_stranger(p);
	p->vtep = PLACE_NONE;
	return V_NEXT;
}
