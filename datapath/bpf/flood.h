/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Floods: one frame to many. Local copies first, then what the kernel lane must send, then one encapsulation whose outer
 * addresses are rewritten for each VTEP left (a second adjust_room on one packet is refused). The last copy is the packet
 * itself. */
#pragma once
#include "budget.h"
#include "encap.h"

struct flood {
	struct __sk_buff *skb;
	struct local *local;
	struct scratch *state;
};

static long local_copy(__u32 i, struct flood *f)
{
	struct flood_key k = { .list = f->state->list, .block = i / FLOOD_BLOCK };
	struct flood_block *block = bpf_map_lookup_elem(&floods, &k);
	__u32 id = 0, ifindex = block ? block->to[i % FLOOD_BLOCK] : 0;
	if (!ifindex || ifindex == f->state->sender)
		return 0;
	struct port *port = port_at(ifindex, 0, &id);
	if (!port || port->vni != f->state->vni) {
		count_drop(f->state->id, DROP_COPY_NO_PORT);
		return 0;
	}
	if (port->flags & PORT_HELD) {
		count_drop(id, DROP_COPY_HELD);
		return 0;
	}
	/* Never redirect_peer: it would hand the frame over as if it were addressed to the workload. */
	if (bpf_clone_redirect(f->skb, ifindex, 0)) {
		count_drop(id, DROP_COPY_FAILED);
		return 0;
	}
	count_ingress(f->skb, id);
	f->state->copies++;
	return 0;
}

static __always_inline struct vtep *vtep_of(__u32 id)
{
	struct vtep *vtep = bpf_map_lookup_elem(&vteps, &id);
	return vtep && vtep->flags ? vtep : NULL;
}

static __always_inline int flood_by_kernel(struct flood *f, struct vtep *vtep, __u32 lane)
{
	/* This host is in the group, and over IPv6 the kernel takes what is sent to it for its own. Over IPv4 the source address says by which
	 * interface it leaves. */
	if (unlikely(vtep->flags & VTEP_GROUP && vtep->flags & VTEP_IP6))
		return DROP_COPY_KERNEL_LANE_GROUP;
	int r = set_tunnel(f->skb, f->local, vtep, f->state->vni, f->state->tos, f->state->hash, OUTER_TTL);
	if (r < 0)
		return r == -DROP_KERNEL_LANE_PORT ? DROP_COPY_KERNEL_LANE_PORT : DROP_COPY_FAILED;
	if (bpf_clone_redirect(f->skb, f->local->vxlan_ifindex, 0))
		return DROP_COPY_FAILED;
	__u64 *n = bpf_map_lookup_elem(&lanes, &lane);
	if (n)
		*n += 1;
	f->state->copies++;
	return 0;
}

/* Decides one copy: 0 = the fast path sends it, else it is done with. */
static __always_inline int prepare(struct flood *f, __u32 i, __u32 id)
{
	__u32 lane = 0;
	struct vtep *vtep = vtep_of(id);
	if (!vtep)
		return DROP_COPY_UNKNOWN_VTEP;
	int ip6 = vtep->flags & VTEP_IP6;
	__u32 room = ip6 ? OUTER6_LEN : OUTER4_LEN;
	struct nexthop *nh = find_nexthop(f->skb, f->local, vtep, id, f->state->hash);
	if (!nh || nh->state == NEXTHOP_NONE)
		return DROP_COPY_NO_ROUTE;
	if (f->state->seg + room > nh->mtu)
		return DROP_COPY_TOO_BIG;
	if (f->state->by_kernel)
		lane = f->state->by_kernel;
	else if (vtep->flags & VTEP_CHECKSUM)
		lane = LANE_CHECKSUM;
	else if (nh->state == NEXTHOP_KERNEL)
		lane = LANE_ENCAPSULATED_ROUTE;
	else if (nh->state == NEXTHOP_RESOLVE)
		lane = LANE_NEIGHBOUR; /* a clone cannot be handed to the neighbour code after encapsulation */
	else if (f->skb->len + room > 65535)
		lane = LANE_TOO_LONG;
	else if (f->state->left && !f->state->family6 != !ip6)
		lane = LANE_FAMILY;
	if (lane) {
		int r = flood_by_kernel(f, vtep, lane);
		return r ? r : -1;
	}
	f->state->family6 = !!ip6;
	f->state->last = i;
	f->state->left++;
	return 0;
}

/* The list is read once, a block at a time: a lookup for every copy would be a tenth of what a copy costs. */
static long load_block(__u32 i, struct flood *f)
{
	struct flood_key k = { .list = f->state->list, .block = f->state->first_block + i };
	struct flood_block none = {}, *block = bpf_map_lookup_elem(&floods, &k);
	if (i >= FLOOD_MAX / FLOOD_BLOCK)
		return 1;
	f->state->vteps[i] = block ? *block : none;
	return 0;
}

/* The VTEP of a round. */
static __always_inline __u32 *receiver(struct flood *f, __u32 i)
{
	i += f->state->first;
	return i < FLOOD_MAX ? &f->state->vteps[i / FLOOD_BLOCK].to[i % FLOOD_BLOCK] : NULL;
}

static long prepare_remote(__u32 i, struct flood *f)
{
	__u32 *id = receiver(f, i);
	int r;
	if (!id)
		return 1;
	r = prepare(f, i, *id);
	if (r > 0)
		count_drop(f->state->id, r);
	if (r)
		*id = 0;
	return 0;
}

static __noinline int aim(struct flood *f, __u32 id, __u32 *ifindex)
{
	if (!f || !ifindex)
		return DROP_COPY_FAILED;
	struct vtep *vtep = vtep_of(id);
	if (!vtep)
		return DROP_COPY_UNKNOWN_VTEP;
	struct nexthop *nh = find_nexthop(f->skb, f->local, vtep, id, f->state->hash);
	if (!nh || nh->state != NEXTHOP_READY)
		return DROP_COPY_NO_ROUTE;
	*ifindex = nh->ifindex;
	return write_destination(f->skb, vtep, nh, f->state->family6, f->state->sum) ? DROP_COPY_FAILED : 0;
}

static long remote_copy(__u32 i, struct flood *f)
{
	__u32 ifindex = 0, *id = receiver(f, i);
	int r;
	if (i >= f->state->last || !id)
		return 1;
	if (!*id)
		return 0;
	r = aim(f, *id, &ifindex);
	if (!r && bpf_clone_redirect(f->skb, ifindex, 0))
		r = DROP_COPY_FAILED;
	if (r)
		count_drop(f->state->id, r);
	else
		f->state->copies++;
	return 0;
}

/* When the kernel gave no room after all: what is left goes by the kernel lane. */
static long remaining_copy(__u32 i, struct flood *f)
{
	__u32 *id = receiver(f, i);
	int r = DROP_COPY_UNKNOWN_VTEP;
	if (!id)
		return 1;
	if (!*id)
		return 0;
	struct vtep *vtep = vtep_of(*id);
	if (vtep)
		r = flood_by_kernel(f, vtep, LANE_NO_ROOM);
	if (r)
		count_drop(f->state->id, r);
	return 0;
}

/* flow_hash in a frame of its own: the stack again. */
static __noinline __u32 flood_hash(struct __sk_buff *skb, struct pkt *p)
{
	return p ? flow_hash(skb, p, p->port->tos_mask) : 0;
}

static __always_inline __u32 outer_sum(struct __sk_buff *skb, int ip6)
{
	struct outer4 *o = (void *)(long)skb->data;
	return ip6 || (void *)(o + 1) > (void *)(long)skb->data_end ? 0 : ip4_sum(&o->ip);
}

/* What a flood has to reach. */
enum flood_scope { FLOOD_LOCAL = 1, FLOOD_REMOTE = 2, FLOOD_EXTERNAL = 4 };

static __noinline int flood_remote(struct flood *f, struct pkt *p, __u32 n)
{
	__u32 ifindex = 0, *last;
	int r;
	if (!f || !p)
		return -DROP_INTERNAL;
	if (f->skb->gso_size && !is_ip(f->skb->protocol))
		f->state->by_kernel = LANE_GSO_NON_IP;
	bpf_loop(flood_blocks(f->state->first + n), load_block, f, 0);
	bpf_loop(n, prepare_remote, f, 0);
	if (!f->state->left)
		return V_NEXT;
	if (make_room(f->skb, p, f->state->family6)) {
		bpf_loop(n, remaining_copy, f, 0);
		return V_NEXT;
	}
	if (write_outer(f->skb, p, f->state->family6) < 0)
		return -DROP_INTERNAL;
	f->state->sum = outer_sum(f->skb, f->state->family6);
	seal_out(f->skb, f->local, f->local->mark);
	if (f->state->left > 1)
		bpf_loop(n, remote_copy, f, 0);
	last = receiver(f, f->state->last);
	if (!last)
		return -DROP_INTERNAL;
	r = aim(f, *last, &ifindex);
	if (r) {
		count_drop(f->state->id, r);
		return V_NEXT;
	}
	f->state->itself = 1;
	p->out = ifindex;
	p->act = bpf_redirect(ifindex, 0);
	return V_ENCAPSULATED;
}

/* Copies apart, the packet itself counts as encapsulated if any copy left by a tunnel, else as delivered. */
static __always_inline int flood(struct __sk_buff *skb, struct pkt *p, struct network *net, __u32 scope)
{
	__u32 zero = 0, n;
	int r = V_NEXT;
	struct flood f = { .skb = skb, .local = p->local, .state = bpf_map_lookup_elem(&scratches, &zero) };
	struct scratch *state = f.state;
	if (!state)
		return -DROP_INTERNAL;
	state->list = net->list;
	state->vni = p->vni;
	state->sender = p->ifindex;
	state->id = p->id;
	state->seg = p->seg;
	state->frames = scope == FLOOD_LOCAL ? 0 : frames(skb); /* of a tunnel's it was counted where it was sent */
	state->by_kernel = 0;
	state->copies = state->local = state->itself = state->left = state->last = state->family6 = 0;
	p->act = TCX_DROP; /* when all copies are made */
	if (scope & FLOOD_LOCAL)
		bpf_loop(net->local, local_copy, &f, 0);
	state->local = state->copies;
	if (scope & (FLOOD_REMOTE | FLOOD_EXTERNAL)) {
		n = scope & FLOOD_REMOTE ? net->remote : net->external;
		state->first_block = flood_blocks(net->local);
		state->first = scope & FLOOD_REMOTE ? 0 : net->remote + net->direct - n;
		if (n > 0) {
			linear(skb, HEADERS_LEN);
			p->hash = state->hash = flood_hash(skb, p);
			state->tos = p->tos;
			r = flood_remote(&f, p, n);
		}
	}
	p->copies = state->copies;
	if (r < 0)
		return r;
	if (r == V_ENCAPSULATED || state->copies > state->local)
		return V_ENCAPSULATED;
	return state->local ? V_DELIVERED : -DROP_NO_RECEIVER;
}

/* Where a frame without an FDB entry goes, or a group frame. */
static __noinline int flood_from_port(struct __sk_buff *skb, struct pkt *p)
{
	__u32 scope = FLOOD_LOCAL | FLOOD_REMOTE;
	if (!p)
		return -DROP_INTERNAL;
	struct network *net = bpf_map_lookup_elem(&networks, &p->vni);
	if (!net)
		return -DROP_UNKNOWN_NETWORK;
	if (!is_group(p->dst) && net->unknown != UNKNOWN_FLOOD) {
		if (net->unknown == UNKNOWN_DROP || !net->external)
			return -DROP_UNKNOWN_UNICAST;
		scope = FLOOD_EXTERNAL;
	}
	int r = check_budget(skb, p);
	if (r != V_NEXT)
		return r;
	return flood(skb, p, net, scope);
}

/* Counts what flood_from_port has just flooded, if it did, and gives its verdict back. Apart from it, as the stack has no room for one value more. */
static __noinline int count_flood(int verdict)
{
	__u32 zero = 0;
	struct scratch *state = bpf_map_lookup_elem(&scratches, &zero);
	if (unchecked || !state || !state->frames)
		return verdict;
	struct flood_count *c = bpf_map_lookup_elem(&flood_counts, &state->vni);
	if (c) {
		c->floods += state->frames;
		c->copies += (__u64)state->frames * (state->copies - state->local + state->itself);
	}
	state->frames = 0;
	return verdict;
}

static __noinline int flood_from_tunnel(struct __sk_buff *skb, struct pkt *p)
{
	if (!p)
		return -DROP_INTERNAL;
	struct network *net = bpf_map_lookup_elem(&networks, &p->vni);
	if (!net)
		return -DROP_UNKNOWN_NETWORK;
	p->tos_mask = net->tos_mask;
	merge_tos(skb, p);
	return flood(skb, p, net, FLOOD_LOCAL);
}
