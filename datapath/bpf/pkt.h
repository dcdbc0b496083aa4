/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* struct pkt: what is known about the packet in hand; enter and leave: where every packet is counted. */
#pragma once
#include "ctx.h"

struct pkt {
	struct local *local;
	struct program_books *books;
	struct port *port; /* from_port: the sender */
	__u8 program;
	__u8 tos_mask; /* of a tunnel packet: of its receiver */
	__u8 receiver; /* port_flags of the port that gets it */
	__u8 ttl;      /* of a packet out of the kernel lane: its outer TTL or hop limit */
	__u32 id;      /* of the local port that counters and drops are about, or 0 */
	__u32 ifindex; /* where it came from: a flood does not go back there */
	__u32 vni;
	__u32 hash;
	__u32 vtep;	/* of a tunnel packet: the VTEP that its source MAC is learned at, or 0 */
	__u32 seg;	/* octets of the inner IP packet, or of the longest segment of it */
	__u64 dst, src; /* inner MACs, octet 0 lowest */
	__be16 proto;	/* inner ethertype */
	__u8 ip6;	/* of a tunnel packet: the outer header is IPv6 */
	__u8 lane;
	__u32 vxlan;	    /* of a tunnel packet: offset of the VXLAN header */
	__sum16 check;	    /* of a tunnel packet: the outer UDP checksum */
	__u8 group;	    /* of a tunnel packet: it is sent to a group */
	__u8 answered;	    /* dropped, and now its answer, which act sends */
	__u8 tos;	    /* outer ToS octet or traffic class: to write, or of a tunnel packet */
	struct addr source; /* of a tunnel packet: outer source */
	__u32 out;	    /* for tests: interface chosen */
	__u32 copies;
	int act;
};

static __always_inline __u64 get_mac(const __u8 *m)
{
	return (__u64) * (__u32 *)m | (__u64) * (__u16 *)(m + 4) << 32;
}

static __always_inline void put_mac(__u8 *m, __u64 v)
{
	*(__u32 *)m = (__u32)v;
	*(__u16 *)(m + 4) = (__u16)(v >> 32);
}

static __noinline void count_drop(__u32 id, __u32 reason)
{
	struct drop_key k = { .port = id, .reason = reason };
	__u64 *n = bpf_map_lookup_elem(&drops, &k), one = 1;
	if (!n) {
		if (!bpf_map_update_elem(&drops, &k, &one, BPF_NOEXIST))
			return;
		n = bpf_map_lookup_elem(&drops, &k); /* another CPU was first */
		if (!n) {
			k.port = 0; /* full */
			n = bpf_map_lookup_elem(&drops, &k);
		}
	}
	if (n)
		*n += 1;
}

static __noinline void count_drop_source(struct addr *source, __u32 reason)
{
	struct drop_source_key k = { .reason = reason, .source = *source };
	__u64 *n = bpf_map_lookup_elem(&drop_sources, &k), one = 1;
	if (!n) { /* another CPU may put it there at the same time, and count on */
		if (!bpf_map_update_elem(&drop_sources, &k, &one, BPF_NOEXIST))
			return;
		n = bpf_map_lookup_elem(&drop_sources, &k);
	}
	if (n)
		__sync_fetch_and_add(n, 1);
}

static __always_inline void count_lane(struct pkt *p, __u32 reason)
{
	__u64 *n = bpf_map_lookup_elem(&lanes, &reason);
	p->lane = reason;
	if (n)
		*n += 1;
}

static __always_inline int enter(ctx_t *ctx, struct pkt *p, __u32 program)
{
	__u32 zero = 0;
	p->program = program;
	p->ifindex = came_from(ctx);
	p->local = bpf_map_lookup_elem(&locals, &zero);
	if (!p->local)
		return -DROP_INTERNAL;
	if (unchecked)
		return V_NEXT;
	p->books = bpf_map_lookup_elem(&books, &program);
	if (!p->books)
		return -DROP_INTERNAL;
	p->books->in++;
	return V_NEXT;
}

static __always_inline int leave(ctx_t *ctx, struct pkt *p, int verdict)
{
	struct program_books *b = p->books;
	if (b) {
		b->copies += p->copies;
		if (verdict == V_DELIVERED)
			b->delivered++;
		else if (verdict == V_ENCAPSULATED)
			b->encapsulated++;
		else if (verdict == V_PASSED || verdict == V_PUNTED)
			b->passed++;
		else if (verdict == V_ANSWERED)
			b->answered++;
		else
			b->dropped++;
	}
	if (traced(ctx)) {
		__u32 zero = 0;
		struct verdict v = {
			.program = p->program,
			.verdict = verdict < 0 ? 0 : verdict,
			.reason = verdict < 0 ? -verdict : 0,
			.lane = p->lane,
			.ifindex = p->out,
			.copies = p->copies,
		};
#ifndef LANE_XDP
		v.mark = ctx->mark;
#endif
		bpf_map_update_elem(&verdicts, &zero, &v, BPF_ANY);
	}
	if (unlikely(verdict <= 0)) {
		count_drop(p->id, -verdict);
		if (p->source.w[0] | p->source.w[1] | p->source.w[2] | p->source.w[3])
			if (DROPS_BY_SOURCE >> (-verdict & 63) & 1)
				count_drop_source(&p->source, -verdict);
		return p->answered ? p->act : ACT_DROP;
	}
	if (verdict == V_PASSED)
		return ACT_PASS;
	return p->act;
}

/* Frames and octets of an aggregate are counted as the frames it stands for; the octets are those in the buffer. */
static __always_inline void count_ingress(ctx_t *ctx, __u32 id)
{
	if (unchecked)
		return;
	struct port_counters *c = bpf_map_lookup_elem(&port_counts, &id);
	if (c) {
		c->ingress_packets += frames(ctx);
		c->ingress_octets += length(ctx);
	}
}

static __always_inline void count_egress(__u32 id, __u64 packets, __u32 octets)
{
	if (unchecked)
		return;
	struct port_counters *c = bpf_map_lookup_elem(&port_counts, &id);
	if (c) {
		c->egress_packets += packets;
		c->egress_octets += octets;
	}
}

/* One way out a program: `goto out` keeps leave() in it once. */
#define STAGE(call)                                                                                                    \
	if ((v = (call)) != V_NEXT)                                                                                    \
	goto out
