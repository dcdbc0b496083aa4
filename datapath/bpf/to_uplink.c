// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//go:build ignore

/* tcx egress on the uplink: nobody but weft sends to the tunnel's UDP port. Not stopped: AF_PACKET with PACKET_QDISC_BYPASS and
 * AF_XDP, both of which need CAP_NET_RAW in the host's own namespace. Read from the frame: the sender of a raw packet chooses
 * skb->protocol. */
#include "seal.h"
#include "tos.h"

enum { GUARD_TAGS = 2, GUARD_EXTENSIONS = 8 };

static __always_inline int is_tunnel_port(struct __sk_buff *skb, struct pkt *p, __u32 off)
{
	struct udphdr udp;
	if (bpf_skb_load_bytes(skb, off, &udp, sizeof(udp)))
		return 0;
	return udp.dest == p->local->udp_port;
}

static __noinline int is_tunnel_packet(struct __sk_buff *skb, struct pkt *p)
{
	struct iphdr ip;
	struct ipv6hdr ip6;
	__u32 off = ETH_LEN;
	__be16 proto;
	__u8 next, ext[8];
	if (!p || bpf_skb_load_bytes(skb, ETH_LEN - 2, &proto, sizeof(proto)))
		return 0;
	for (int i = 0; i < GUARD_TAGS && is_vlan(proto); i++) {
		if (bpf_skb_load_bytes(skb, off + 2, &proto, sizeof(proto)))
			return 0;
		off += 4;
	}
	if (is_vlan(proto))
		return 1; /* nothing honest has so many tags */
	if (proto == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, off, &ip, sizeof(ip)))
			return 0;
		if (ip.protocol != IPPROTO_UDP || ip.frag_off & bpf_htons(IP_OFFSET))
			return 0; /* without its first fragment a packet is nothing */
		p->source.w[2] = MAPPED4;
		p->source.w[3] = ip.saddr;
		return is_tunnel_port(skb, p, off + (ip.ver_ihl & 15) * 4);
	}
	if (proto != bpf_htons(ETH_P_IPV6) || bpf_skb_load_bytes(skb, off, &ip6, sizeof(ip6)))
		return 0;
	memcpy(&p->source, ip6.saddr, 16);
	off += IP6_LEN;
	next = ip6.nexthdr;
	for (int i = 0; i < GUARD_EXTENSIONS; i++) {
		if (next == IPPROTO_UDP)
			return is_tunnel_port(skb, p, off);
		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS &&
		    next != IPPROTO_FRAGMENT)
			return 0;
		if (bpf_skb_load_bytes(skb, off, ext, sizeof(ext)))
			return 0;
		if (next == IPPROTO_FRAGMENT) {
			if (ext[2] | (ext[3] & 0xf8))
				return 0;
			off += 8;
		} else {
			off += 8 + ext[1] * 8;
		}
		next = ext[0];
	}
	return 1; /* nothing honest has so many extension headers */
}

/* From the kernel lane: CE in the outer header. */
static __noinline int set_ce(struct __sk_buff *skb)
{
	union head h;
	int tos = load_tos(skb, ETH_LEN, skb->protocol, &h);
	if (tos >= 0)
		store_tos(skb, ETH_LEN, skb->protocol, h, tos | ECN_CE);
	return 0;
}

/* What weft wrote itself, which is nearly all that leaves, goes by with nothing noted of it: each copy of a flood comes here. */
static __always_inline int is_ours(struct __sk_buff *skb)
{
	__u32 zero = 0, program = TO_UPLINK;
	struct local *local = bpf_map_lookup_elem(&locals, &zero);
	struct program_books *b = bpf_map_lookup_elem(&books, &program);
	if (unchecked || !local || !b || traced(skb) || skb->mark != local->mark || !unseal_out(skb, local))
		return 0;
	b->in++;
	b->passed++;
	return 1;
}

/* In a frame of its own: what it notes is set to zero only where it is needed. */
static __noinline int guard(struct __sk_buff *skb)
{
	struct pkt p = {};
	__u32 mark;
	int v;

	STAGE(enter(skb, &p, TO_UPLINK));
	v = V_PASSED;
	if (unchecked)
		goto out;
	mark = unseal_out(skb, p.local);
	if (likely(mark)) {
		/* From the kernel lane, which writes ECT(0) around CE (RFC 3168). */
		if (unlikely(mark != p.local->mark))
			set_ce(skb);
		goto out;
	}
	if (is_tunnel_packet(skb, &p))
		v = -DROP_FORGED_TUNNEL;
out:
	return leave(skb, &p, v);
}

SEC("tcx/egress")
int to_uplink(struct __sk_buff *skb)
{
	return likely(is_ours(skb)) ? ACT_PASS : guard(skb);
}
