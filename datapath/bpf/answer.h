/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What does not fit: the sender is told by ICMP, in the destination's name, with the MACs swapped, because there is no router
 * between the two. RFC 792 and 1191 (fragmentation needed), RFC 4443, section 3.2 (packet too big). The message is made of
 * the packet itself. Slow, in a frame of its own: the fast path pays nothing for it. */
#pragma once
#include "parse.h"

enum { ANSWER_INTERVAL = 1000000, ANSWER_BURST = 100 }; /* ns; a port gets 1000 a second */
enum { ANSWER4_MAX = 576, ANSWER6_MAX = 1280 }; /* octets of the IP packet: RFC 1812, section 4.3.2.3; RFC 4443 */
enum { ICMP_LEN = 8 };

/* One message a millisecond, and what was left over from the last tenth of a second. Two CPUs at once may both get the one. */
static __always_inline int may_answer(__u32 id)
{
	__u64 now = bpf_ktime_get_ns(), *next = bpf_map_lookup_elem(&answer_times, &id);
	if (!next || *next > now)
		return 0;
	__u64 first = now - (ANSWER_BURST - 1) * (__u64)ANSWER_INTERVAL;
	*next = (*next > first ? *next : first) + ANSWER_INTERVAL;
	return 1;
}

/* Cuts the packet down to its Ethernet header and `len` octets. The kernel keeps where a checksum still has to be put (CHECKSUM_PARTIAL) and
 * would put it into the message; it forgets that only when the place itself is cut off. So everything up to CUT goes, and
 * a place behind CUT is refused by the first call. The first call also ends its being an aggregate. */
static __always_inline int cut_down(struct __sk_buff *skb, __u32 ip_len, __u32 len)
{
	enum { CUT = 256 };
	return bpf_skb_change_tail(skb, CUT, 0) || bpf_skb_change_tail(skb, CUT + ETH_LEN + ip_len, 0) ||
	       bpf_skb_adjust_room(skb, -CUT, BPF_ADJ_ROOM_MAC, 0) || bpf_skb_change_tail(skb, ETH_LEN + len, 0);
}

static __always_inline __sum16 fold(__s64 sum)
{
	__u32 s = sum;
	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	return ~s;
}

/* Over the whole of the buffer: behind the message it is zero. */
static __always_inline __s64 message_sum(struct answer *a, __s64 seed)
{
	for (int i = 0; i < ANSWER_MESSAGE / ANSWER_CHUNK; i++)
		seed = bpf_csum_diff(NULL, 0, (__be32 *)(a->message + i * ANSWER_CHUNK), ANSWER_CHUNK, seed);
	return seed;
}

static __always_inline int send_answer(struct __sk_buff *skb, struct pkt *p, struct answer *a, __u32 ip_len, __u32 n)
{
	put_mac(a->head.eth.h_dest, p->src);
	put_mac(a->head.eth.h_source, p->dst);
	a->head.eth.h_proto = p->proto;
	if (n < ICMP_LEN || n > ANSWER_MESSAGE || cut_down(skb, ip_len, ip_len + n))
		return 0;
	if (bpf_skb_store_bytes(skb, 0, &a->head, ETH_LEN + ip_len, BPF_F_RECOMPUTE_CSUM) ||
	    bpf_skb_store_bytes(skb, ETH_LEN + ip_len, a->message, n, BPF_F_RECOMPUTE_CSUM))
		return 0;
	p->out = p->ifindex;
	p->act = bpf_redirect(p->ifindex, 0);
	p->answered = 1;
	if (!unchecked)
		p->books->answers++;
	count_ingress(skb, p->id);
	return 1;
}

/* Reads what the message will quote. Octets of it, or 0. */
static __always_inline __u32 quote(struct __sk_buff *skb, struct answer *a, __u32 ip_len, __u32 max)
{
	__u32 n = skb->len - ETH_LEN;
	for (int i = 0; i < ANSWER_MESSAGE; i += 8)
		*(volatile __u64 *)(a->message + i) = 0; /* volatile, or it becomes a call */
	if (n > max - ip_len - ICMP_LEN)
		n = max - ip_len - ICMP_LEN;
	if (n < ip_len + ICMP_LEN || n > ANSWER_MESSAGE - ICMP_LEN)
		return 0;
	return bpf_skb_load_bytes(skb, ETH_LEN, a->message + ICMP_LEN, n) ? 0 : n;
}

/* No messages about errors: RFC 1122, section 3.2.2. What ICMP types ask or answer something: echo, router discovery, timestamp,
 * information, mask. */
#define ICMP_NO_ERROR ((1 << 0 | 1 << 8 | 1 << 9 | 1 << 10) | 0x3f << 13)

static __always_inline int answer4(struct __sk_buff *skb, struct pkt *p, struct answer *a, __u32 mtu)
{
	__u32 n = quote(skb, a, IP4_LEN, ANSWER4_MAX);
	struct iphdr *from = (void *)(a->message + ICMP_LEN), *ip = &a->head.ip4;
	__u32 l4 = (from->ver_ihl & 15) * 4;
	if (!n || (from->ver_ihl & 0xf0) != 0x40 || l4 < IP4_LEN)
		return -DROP_TOO_BIG;
	if (!(from->frag_off & bpf_htons(IP_DF)))
		return -DROP_TOO_BIG_NO_DF;
	if (is_group(p->dst) || from->frag_off & bpf_htons(IP_OFFSET) || l4 + 4 > n)
		return -DROP_TOO_BIG;
	/* Group, broadcast and reserved addresses, and a sender that is not one. */
	if ((from->daddr & 0xff) >= 224 || (from->saddr & 0xff) >= 224 || (from->saddr & 0xff) == 0 ||
	    (from->saddr & 0xff) == 127)
		return -DROP_TOO_BIG;
	if (from->protocol == IPPROTO_ICMP) {
		__u8 type = a->message[ICMP_LEN + l4];
		if (type > 31 || !(ICMP_NO_ERROR >> type & 1))
			return -DROP_TOO_BIG;
	}
	if (!may_answer(p->id))
		return -DROP_TOO_BIG;
	memset(ip, 0, sizeof(*ip));
	ip->ver_ihl = 0x45;
	ip->tos = 0xc0; /* RFC 1812, section 4.3.2.5 */
	ip->tot_len = bpf_htons(IP4_LEN + ICMP_LEN + n);
	ip->frag_off = bpf_htons(IP_DF);
	ip->ttl = 64;
	ip->protocol = IPPROTO_ICMP;
	ip->saddr = from->daddr;
	ip->daddr = from->saddr;
	ip->check = ip4_checksum(ip);
	a->message[0] = 3;
	a->message[1] = 4;
	*(__be16 *)(a->message + 6) = bpf_htons(mtu);
	*(__sum16 *)(a->message + 2) = fold(message_sum(a, 0));
	send_answer(skb, p, a, IP4_LEN, ICMP_LEN + n);
	return -DROP_TOO_BIG;
}

/* Behind the extension headers: may there be a message about it? */
static __always_inline int answerable6(struct answer *a, __u32 n)
{
	struct ipv6hdr *ip = (void *)(a->message + ICMP_LEN);
	__u32 off = IP6_LEN;
	__u8 next = ip->nexthdr, *h;
	for (int i = 0; i < EXTENSIONS_MAX; i++) {
		if (off + ICMP_LEN > n || off > ANSWER_MESSAGE - 2 * ICMP_LEN)
			return 0;
		h = a->message + ICMP_LEN + off;
		if (next == IPPROTO_ICMPV6)
			return h[0] >= 128 && h[0] != 137; /* errors, redirects: RFC 4443, section 2.4 (e) */
		if (next == IPPROTO_FRAGMENT) {
			if (h[2] | (h[3] & 0xf8))
				return 0;
			off += 8;
		} else if (next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_DSTOPTS) {
			off += 8 + h[1] * 8;
		} else if (next == IPPROTO_AH) {
			off += 8 + h[1] * 4;
		} else {
			return 1;
		}
		next = h[0];
	}
	return 0;
}

static __always_inline int answer6(struct __sk_buff *skb, struct pkt *p, struct answer *a, __u32 mtu)
{
	__u32 n = quote(skb, a, IP6_LEN, ANSWER6_MAX);
	struct ipv6hdr *from = (void *)(a->message + ICMP_LEN), *ip = &a->head.ip6;
	__be32 tail[2] = { bpf_htonl(ICMP_LEN + n), bpf_htonl(IPPROTO_ICMPV6) };
	__s64 sum;
	if (!n || (from->ver_tc_flow & 0xf0) != 0x60)
		return -DROP_TOO_BIG;
	if (is_group(p->dst) || (from->daddr[0] & 0xff) == 0xff || (from->saddr[0] & 0xff) == 0xff)
		return -DROP_TOO_BIG;
	if (!(from->saddr[0] | from->saddr[1] | from->saddr[2] | from->saddr[3]))
		return -DROP_TOO_BIG;
	if (!answerable6(a, n) || !may_answer(p->id))
		return -DROP_TOO_BIG;
	ip->ver_tc_flow = bpf_htonl(6 << 28);
	ip->payload_len = bpf_htons(ICMP_LEN + n);
	ip->nexthdr = IPPROTO_ICMPV6;
	ip->hop_limit = 64;
	for (int i = 0; i < 4; i++) {
		ip->saddr[i] = from->daddr[i];
		ip->daddr[i] = from->saddr[i];
	}
	a->message[0] = 2;
	*(__be32 *)(a->message + 4) = bpf_htonl(mtu);
	sum = bpf_csum_diff(NULL, 0, ip->saddr, 32, 0);
	sum = bpf_csum_diff(NULL, 0, tail, sizeof(tail), sum);
	*(__sum16 *)(a->message + 2) = fold(message_sum(a, sum));
	send_answer(skb, p, a, IP6_LEN, ICMP_LEN + n);
	return -DROP_TOO_BIG;
}

/* The drop of a packet that is longer than mtu octets; its sender is told, where it may be. */
static __noinline int too_big(struct __sk_buff *skb, struct pkt *p, __u32 mtu)
{
	__u32 zero = 0;
	struct answer *a = bpf_map_lookup_elem(&answers, &zero);
	if (!a || !p)
		return -DROP_INTERNAL;
	if (p->proto == bpf_htons(ETH_P_IP))
		return answer4(skb, p, a, mtu);
	if (p->proto == bpf_htons(ETH_P_IPV6))
		return answer6(skb, p, a, mtu);
	return -DROP_TOO_BIG;
}
