/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A packet as a program gets it: struct __sk_buff in the tc lane, struct xdp_md in the XDP lane (LANE_XDP is defined). The stages are
 * written against ctx_t and what is here, and so say the same in both. Lengths come from the buffer. */
#pragma once
#include "maps.h"

#ifdef LANE_XDP
typedef struct xdp_md ctx_t;
enum { ACT_DROP = XDP_DROP, ACT_PASS = XDP_PASS };
#else
typedef struct __sk_buff ctx_t;
enum { ACT_DROP = TCX_DROP, ACT_PASS = TCX_NEXT };
#endif

static __always_inline __u32 came_from(ctx_t *ctx)
{
#ifdef LANE_XDP
	return ctx->ingress_ifindex;
#else
	return ctx->ifindex;
#endif
}

/* Is this a test's packet, whose verdict is to be read? trace_verdicts is set before load to the priority that these have: the hosts of
 * a test have packets of their own (neighbour discovery), which must not write over it. Before XDP a packet has no priority. */
static __always_inline int traced(ctx_t *ctx)
{
#ifdef LANE_XDP
	return trace_verdicts != 0;
#else
	return trace_verdicts && ctx->priority == trace_verdicts;
#endif
}

/* Octets of the frame, wherever they are. */
static __always_inline __u32 length(ctx_t *ctx)
{
#ifdef LANE_XDP
	return bpf_xdp_get_buff_len(ctx);
#else
	return ctx->len;
#endif
}

/* Frames that an aggregate stands for. */
static __always_inline __u64 frames(ctx_t *ctx)
{
#ifdef LANE_XDP
	return 1;
#else
	__u32 n = ctx->gso_segs;
	return n ? n : 1;
#endif
}

/* Octets that each segment of an aggregate carries, 0 if it is none. */
static __always_inline __u32 segment_size(ctx_t *ctx)
{
#ifdef LANE_XDP
	return 0;
#else
	return ctx->gso_size;
#endif
}

/* Has the kernel moved a tag out of the frame? Before XDP it moves none. */
static __always_inline int tag_beside(ctx_t *ctx)
{
#ifdef LANE_XDP
	return 0;
#else
	return ctx->vlan_present;
#endif
}

/* `want` octets from the start are made linear, if there are so many. XDP: see is_split. */
static __always_inline void linear(ctx_t *ctx, __u32 want)
{
#ifndef LANE_XDP
	__u32 have = (__u32)(ctx->data_end - ctx->data);
	if (unlikely(have < want && have < ctx->len))
		bpf_skb_pull_data(ctx, want < ctx->len ? want : ctx->len);
#endif
}

static __always_inline long load(ctx_t *ctx, __u32 off, void *to, __u32 len)
{
#ifdef LANE_XDP
	return bpf_xdp_load_bytes(ctx, off, to, len);
#else
	return bpf_skb_load_bytes(ctx, off, to, len);
#endif
}

/* `balanced`: what is stored has the one's complement sum of what was there. */
static __always_inline long store(ctx_t *ctx, __u32 off, void *from, __u32 len, int balanced)
{
#ifdef LANE_XDP
	return bpf_xdp_store_bytes(ctx, off, from, len);
#else
	return bpf_skb_store_bytes(ctx, off, from, len, balanced ? 0 : BPF_F_RECOMPUTE_CSUM);
#endif
}
