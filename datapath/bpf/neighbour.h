/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* ARP and neighbour discovery as a port speaks them. What the port says of itself must be in `claims`; what it asks for and `neighbours` has is
 * answered, the frame turned round to the port; what nobody here knows is asked for by a flood, at a limited rate. In frames of its own: the
 * fast path pays is_talk() for it. docs/decisions/0011-neighbours.md */
#pragma once
#include "answer.h"
#include "port.h"
#include "talk.h"

/* A little less than the second after which hosts ask again (RFC 4861, RETRANS_TIMER): timers are as exact as a jiffy. */
enum { ASKED_INTERVAL = 900000000 /* ns */ };
enum { ARP_ETHERNET = 1, ARP_IEEE802 = 6, ARP_REQUEST = 1, ARP_REPLY = 2, ETH_ALEN = 6 };
enum { ND_SOURCE_MAC = 1, ND_TARGET_MAC = 2, ND_OPTIONS_MAX = 8, ND_HOPS = 255 };
enum { ND_LEN = 8 + 16 + 8, ND_AT = ETH_LEN + IP6_LEN };
#define ND_ROUTER bpf_htonl(1U << 31)
#define ND_SOLICITED bpf_htonl(1U << 30)
#define ND_OVERRIDE bpf_htonl(1U << 29)

static __always_inline int is_zero(struct addr *a)
{
	return !(a->w[0] | a->w[1] | a->w[2] | a->w[3]);
}

static __always_inline int is_link_local(struct addr *a)
{
	return (a->w[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

static __always_inline void map4(struct addr *a, __u8 *ip)
{
	a->w[0] = a->w[1] = 0;
	a->w[2] = MAPPED4;
	memcpy(&a->w[3], ip, 4);
}

static __always_inline int has_mac(struct port *port, __u64 mac)
{
	return port->macs[0] == mac || is_other_mac(port, mac);
}

/* A link-local address is the host's own choice, and weft does not know it. But the one that is made of another port's MAC is that port's:
 * RFC 4291, appendix A. */
static __always_inline int is_others(struct pkt *p, struct addr *a)
{
	struct fdb_key k = { .vni = p->vni };
	__u8 *iid = (__u8 *)&a->w[2];
	if (iid[3] != 0xff || iid[4] != 0xfe)
		return 0;
	k.mac[0] = iid[0] ^ 2, k.mac[1] = iid[1], k.mac[2] = iid[2];
	k.mac[3] = iid[5], k.mac[4] = iid[6], k.mac[5] = iid[7];
	return !has_mac(p->port, get_mac(k.mac)) && bpf_map_lookup_elem(&fdb, &k);
}

/* Is what the port says of itself, t->claim, so? The address none (a probe) claims only the MAC. */
static __noinline int may_claim(struct pkt *p, struct talk *t)
{
	struct claim_key *k;
	__u8 mac[6] = {};
	if (!p || !p->port || !t)
		return 0;
	k = &t->claim;
	if (!has_mac(p->port, get_mac(k->mac)))
		return 0;
	if (is_zero(&k->ip))
		return 1;
	if (is_link_local(&k->ip))
		return !is_others(p, &k->ip);
	memcpy(mac, k->mac, 6);
	memset(k->mac, 0, 6); /* first what most claim: an address of the port's, at whichever of its MACs */
	if (bpf_map_lookup_elem(&claims, k))
		return 1;
	memcpy(k->mac, mac, 6);
	if (bpf_map_lookup_elem(&claims, k))
		return 1;
	memset(&k->ip, 0, sizeof(k->ip));
	return bpf_map_lookup_elem(&claims, k) != NULL;
}

static __always_inline int is_guarded(struct pkt *p, __u32 flag)
{
	return !unchecked && p->port->flags & flag && !(p->port->flags & PORT_UNGUARDED);
}

/* Does the port itself have the address that it asks for? Then it probes for a duplicate, or announces. */
static __always_inline int is_own(struct pkt *p, struct talk *t)
{
	t->claim.port = p->id;
	t->claim.ip = t->target.ip;
	memset(t->claim.mac, 0, 6);
	return bpf_map_lookup_elem(&claims, &t->claim) != NULL;
}

/* May the port ask all for what is not known? */
static __always_inline int may_ask(struct pkt *p, struct talk *t, struct network *net)
{
	__u64 now = bpf_ktime_get_ns(), *at;
	t->asked.vni = p->vni;
	__u32 closed = p->proto == bpf_htons(ETH_P_ARP) ? NEIGHBOURS_CLOSED4 : NEIGHBOURS_CLOSED6;
	/* Of a link-local address nothing is known: every port asks for itself. */
	t->asked.port = net->neighbours & closed && !is_link_local(&t->target.ip) ? 0 : p->id;
	t->asked.ip = t->target.ip;
	at = bpf_map_lookup_elem(&asked, &t->asked);
	if (at && now - *at < ASKED_INTERVAL)
		return 0;
	bpf_map_update_elem(&asked, &t->asked, &now, BPF_ANY);
	return 1;
}

/* Who has t->target.ip? V_ANSWERED: t->found has. V_NEXT: the frame goes its way. */
static __noinline int find_neighbour(struct pkt *p, struct talk *t)
{
	if (!p || !p->port || !t)
		return -DROP_INTERNAL;
	struct network *net = bpf_map_lookup_elem(&networks, &p->vni);
	if (!net || !(net->neighbours & NEIGHBOURS_ANSWER) || is_own(p, t))
		return V_NEXT;
	t->target.vni = p->vni;
	struct neighbour *n = bpf_map_lookup_elem(&neighbours, &t->target);
	if (n && !(n->flags & NEIGHBOUR_ASK)) {
		/* To the MAC that has it, alone: the sender wants to know whether that lives. */
		if (get_mac(n->mac) == p->dst)
			return V_NEXT;
		t->found = *n;
		return V_ANSWERED;
	}
	if (n || !is_group(p->dst) || may_ask(p, t, net))
		return V_NEXT;
	return -DROP_NEIGHBOUR_ASKED;
}

/* The frame, now the answer, goes back to the port. */
static __always_inline int turn_round(struct __sk_buff *skb, struct pkt *p)
{
	p->out = p->ifindex;
	p->act = bpf_redirect(p->ifindex, 0);
	count_ingress(skb, p->id);
	return V_ANSWERED;
}

static __noinline int answer_arp(struct __sk_buff *skb, struct pkt *p, struct talk *t)
{
	if (!p || !t)
		return -DROP_INTERNAL;
	struct arp *a = &t->frame.arp;
	__u8 target[4];
	put_mac(t->frame.eth.h_dest, p->src);
	memcpy(t->frame.eth.h_source, t->found.mac, 6);
	t->frame.eth.h_proto = p->proto;
	a->op = bpf_htons(ARP_REPLY);
	memcpy(target, a->target, 4);
	memcpy(a->target_mac, a->sender_mac, 6);
	memcpy(a->target, a->sender, 4);
	memcpy(a->sender_mac, t->found.mac, 6);
	memcpy(a->sender, target, 4);
	if (bpf_skb_store_bytes(skb, 0, &t->frame, ETH_LEN + sizeof(*a), BPF_F_RECOMPUTE_CSUM))
		return -DROP_INTERNAL;
	return turn_round(skb, p);
}

static __always_inline int is_ip_arp(struct arp *a)
{
	return (a->hardware == bpf_htons(ARP_ETHERNET) || a->hardware == bpf_htons(ARP_IEEE802)) &&
	       a->protocol == bpf_htons(ETH_P_IP) && a->hardware_len == ETH_ALEN && a->protocol_len == 4;
}

static __noinline int talk_arp(struct __sk_buff *skb, struct pkt *p, struct talk *t)
{
	int guarded, v;
	if (!p || !p->port || !t)
		return -DROP_INTERNAL;
	struct arp *a = &t->frame.arp;
	guarded = is_guarded(p, PORT_CLAIMS4);
	if (bpf_skb_load_bytes(skb, ETH_LEN, a, sizeof(*a)) || !is_ip_arp(a))
		return guarded ? -DROP_NEIGHBOUR_CLAIM : V_NEXT;
	if (guarded) {
		t->claim.port = p->id;
		memcpy(t->claim.mac, a->sender_mac, 6);
		map4(&t->claim.ip, a->sender);
		if (!t->claim.ip.w[3])
			t->claim.ip.w[2] = 0;
		if (!may_claim(p, t))
			return -DROP_NEIGHBOUR_CLAIM;
	}
	if (a->op != bpf_htons(ARP_REQUEST))
		return V_NEXT;
	map4(&t->target.ip, a->target);
	v = find_neighbour(p, t);
	return v == V_ANSWERED ? answer_arp(skb, p, t) : v;
}

/* RFC 4861, section 7.2.4; who asks from no address (duplicate address detection) is told with all others. The answer is not longer than a
 * solicitation with an option, and the checksum is made here. */
static __noinline int answer_nd(struct __sk_buff *skb, struct pkt *p, struct talk *t)
{
	if (!p || !t)
		return -DROP_INTERNAL;
	struct ipv6hdr *ip = &t->frame.ip6;
	struct discovery *nd = &t->frame.nd;
	struct addr *asker = &t->said;
	memcpy(asker, ip->saddr, 16);
	nd->flags = ND_OVERRIDE | (t->found.flags & NEIGHBOUR_ROUTER ? ND_ROUTER : 0);
	if (is_zero(asker)) {
		asker->w[0] = bpf_htonl(0xff020000);
		asker->w[3] = bpf_htonl(1);
		put_mac(t->frame.eth.h_dest, 0x010000003333ULL); /* 33:33:00:00:00:01 */
	} else {
		nd->flags |= ND_SOLICITED;
		put_mac(t->frame.eth.h_dest, p->src);
	}
	memcpy(t->frame.eth.h_source, t->found.mac, 6);
	t->frame.eth.h_proto = p->proto;
	ip->ver_tc_flow = bpf_htonl(6U << 28);
	ip->payload_len = bpf_htons(ND_LEN);
	ip->nexthdr = IPPROTO_ICMPV6;
	ip->hop_limit = ND_HOPS;
	memcpy(ip->saddr, &t->target.ip, 16);
	memcpy(ip->daddr, asker, 16);
	nd->type = ND_ADVERTISE;
	nd->code = 0;
	nd->check = 0;
	memcpy(&nd->target, &t->target.ip, 16);
	nd->option = ND_TARGET_MAC;
	nd->option_len = 1;
	memcpy(nd->option_mac, t->found.mac, 6);
	memcpy(t->sum, ip->saddr, 32);
	t->sum[8] = bpf_htonl(ND_LEN);
	t->sum[9] = bpf_htonl(IPPROTO_ICMPV6);
	memcpy(&t->sum[10], nd, ND_LEN);
	nd->check = fold(bpf_csum_diff(NULL, 0, t->sum, sizeof(t->sum), 0));
	if (bpf_skb_change_tail(skb, ND_AT + ND_LEN, 0) ||
	    bpf_skb_store_bytes(skb, 0, &t->frame, ND_AT + ND_LEN, BPF_F_RECOMPUTE_CSUM))
		return -DROP_INTERNAL;
	return turn_round(skb, p);
}

/* Where is the ICMPv6 header? 0: nowhere that is seen. */
static __noinline __u32 find_icmp6(struct __sk_buff *skb, struct talk *t)
{
	__u8 h[2], fragment[2];
	if (!t)
		return 0;
	__u32 at = ND_AT;
	__u8 next = t->frame.ip6.nexthdr;
	t->fragment = 0;
	for (int i = 0; i <= EXTENSIONS_MAX; i++) {
		if (next == IPPROTO_ICMPV6)
			return at;
		if (at > 4096 || bpf_skb_load_bytes(skb, at, h, sizeof(h)))
			return 0;
		if (next == IPPROTO_FRAGMENT) {
			if (bpf_skb_load_bytes(skb, at + 2, fragment, sizeof(fragment)) ||
			    fragment[0] | (fragment[1] & 0xf8))
				return 0;
			t->fragment = 1;
			at += 8;
		} else if (next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_DSTOPTS) {
			at += 8 + h[1] * 8;
		} else if (next == IPPROTO_AH) {
			at += 8 + h[1] * 4;
		} else {
			return 0;
		}
		next = h[0];
	}
	return 0;
}

/* What the message says of the port: an address at the frame's MAC, and at those of its options. */
static __noinline int check_discovery(struct __sk_buff *skb, struct pkt *p, struct talk *t)
{
	if (!p || !p->port || !t)
		return -DROP_INTERNAL;
	__u32 at = t->at + (t->frame.nd.type == ND_ROUTER_SOLICIT ? 8 : 24);
	memcpy(&t->said, t->frame.nd.type == ND_ADVERTISE ? (void *)&t->frame.nd.target : t->frame.ip6.saddr, 16);
	t->claim.port = p->id;
	put_mac(t->claim.mac, p->src);
	t->claim.ip = t->said;
	if (t->fragment || !may_claim(p, t)) /* RFC 6980: never in fragments */
		return -DROP_NEIGHBOUR_CLAIM;
	for (int i = 0; i < ND_OPTIONS_MAX; i++) {
		if (at > 8192 || bpf_skb_load_bytes(skb, at, &t->option, sizeof(t->option)) || !t->option.len)
			return V_NEXT;
		at += t->option.len * 8;
		if (t->option.kind != ND_SOURCE_MAC && t->option.kind != ND_TARGET_MAC)
			continue;
		if (get_mac(t->option.mac) == p->src)
			continue; /* claimed above */
		memcpy(t->claim.mac, t->option.mac, 6);
		t->claim.ip = t->said;
		if (!may_claim(p, t))
			return -DROP_NEIGHBOUR_CLAIM;
	}
	return -DROP_NEIGHBOUR_CLAIM; /* no host sends so many */
}

static __noinline int talk_nd(struct __sk_buff *skb, struct pkt *p, struct talk *t)
{
	int guarded, v;
	if (!p || !p->port || !t)
		return -DROP_INTERNAL;
	struct discovery *nd = &t->frame.nd;
	if (bpf_skb_load_bytes(skb, ETH_LEN, &t->frame.ip6, IP6_LEN))
		return -DROP_INTERNAL;
	t->at = find_icmp6(skb, t);
	if (!t->at || t->at > 4096 || bpf_skb_load_bytes(skb, t->at, &nd->type, 1))
		return V_NEXT;
	if (nd->type != ND_SOLICIT && nd->type != ND_ADVERTISE && nd->type != ND_ROUTER_SOLICIT)
		return V_NEXT;
	guarded = is_guarded(p, PORT_CLAIMS6);
	if (nd->type != ND_ROUTER_SOLICIT && bpf_skb_load_bytes(skb, t->at, nd, 24))
		return guarded ? -DROP_NEIGHBOUR_CLAIM : V_NEXT;
	if (guarded) {
		v = check_discovery(skb, p, t);
		if (v != V_NEXT)
			return v;
	}
	/* Only what a receiver would take: RFC 4861, section 7.1.1. */
	if (nd->type != ND_SOLICIT || nd->code || t->at != ND_AT || t->frame.ip6.hop_limit != ND_HOPS)
		return V_NEXT;
	memcpy(&t->target.ip, &nd->target, 16);
	v = find_neighbour(p, t);
	return v == V_ANSWERED ? answer_nd(skb, p, t) : v;
}

static __always_inline int talk(struct __sk_buff *skb, struct pkt *p)
{
	__u32 zero = 0;
	struct talk *t = bpf_map_lookup_elem(&talks, &zero);
	if (!t)
		return -DROP_INTERNAL;
	return p->proto == bpf_htons(ETH_P_ARP) ? talk_arp(skb, p, t) : talk_nd(skb, p, t);
}
