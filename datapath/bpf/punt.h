/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the agent answers: DHCPv4 and DHCPv6 clients, router solicitations, and ARP for the DHCP server's address. Such frames of a port
 * that has the service are handed over by a ring buffer. And what a workload may not send unless its port may: answers of a DHCP server,
 * and router advertisements and redirects (RFC 6105, RFC 7113, RFC 7610). The fast path pays for one look at the L4 protocol, and for the
 * L4 ports of UDP. */
#pragma once
#include "parse.h"
#include "port.h"

enum { DHCP_SERVER_PORT = 67, DHCP_CLIENT_PORT = 68, DHCP6_CLIENT_PORT = 546, DHCP6_SERVER_PORT = 547 };
enum { ND_ROUTER_SOLICIT = 133, ND_ROUTER_ADVERT = 134, ND_REDIRECT = 137 };
enum { IPPROTO_MOBILITY = 135, IPPROTO_HIP = 139, IPPROTO_SHIM6 = 140 };

/* 169.254.73.48, the DHCP server's address in every network, on every host: see docs/decisions/0014. */
#define DHCP_SERVER_ID bpf_htonl(0xa9fe4930)

/* What a frame is. */
enum service {
	SERVICE_NONE,
	SERVICE_DHCP4,
	SERVICE_DHCP6,
	SERVICE_SOLICIT,
	SERVICE_ARP,
	SERVICE_FROM_SERVER,
	SERVICE_FROM_ROUTER,
};

static __always_inline enum service dhcp4_ports(__be16 source, __be16 destination)
{
	/* Clients take what comes to their port, from whichever port, and nothing that comes elsewhere (of DHCPv6: RFC 7610, section 3). What servers
	 * and relays say to each other, from their port to their port, is theirs. */
	if (destination == bpf_htons(DHCP_CLIENT_PORT))
		return SERVICE_FROM_SERVER;
	if (destination == bpf_htons(DHCP_SERVER_PORT) && source != bpf_htons(DHCP_SERVER_PORT))
		return SERVICE_DHCP4;
	return SERVICE_NONE;
}

static __always_inline enum service dhcp6_ports(__be16 source, __be16 destination)
{
	if (destination == bpf_htons(DHCP6_CLIENT_PORT))
		return SERVICE_FROM_SERVER;
	if (destination == bpf_htons(DHCP6_SERVER_PORT) && source != bpf_htons(DHCP6_SERVER_PORT))
		return SERVICE_DHCP6;
	return SERVICE_NONE;
}

static __always_inline enum service router_message(__u8 type)
{
	if (type == ND_ROUTER_SOLICIT)
		return SERVICE_SOLICIT;
	return type == ND_ROUTER_ADVERT || type == ND_REDIRECT ? SERVICE_FROM_ROUTER : SERVICE_NONE;
}

static __always_inline int is_extension(__u8 next)
{
	return next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_DSTOPTS ||
	       next == IPPROTO_MOBILITY || next == IPPROTO_HIP || next == IPPROTO_SHIM6;
}

struct arp4 {
	__be16 hardware, protocol;
	__u8 hardware_len, protocol_len;
	__be16 operation;
	__u8 sender_mac[6], sender[4], target_mac[6], target[4];
} __attribute__((packed));

static __always_inline int asks_server(struct arp4 *arp)
{
	return arp->operation == bpf_htons(1) && *(__u32 *)arp->target == DHCP_SERVER_ID;
}

/* Is the frame worth a longer look? Never no where find_service says that it is something. */
static __always_inline int may_be_service(ctx_t *ctx, struct pkt *p)
{
	void *data = (void *)(long)ctx->data + ETH_LEN, *end = (void *)(long)ctx->data_end;
	struct ipv6hdr *ip6 = data;
	struct iphdr *ip = data;
	__be16 *l4;
	if (p->proto == bpf_htons(ETH_P_IP)) {
		l4 = (void *)(ip + 1);
		if (unlikely((void *)l4 > end) || likely(ip->protocol != IPPROTO_UDP))
			return 0;
		if (unlikely(ip->ver_ihl != 0x45 || (void *)(l4 + 2) > end))
			return 1;
		return dhcp4_ports(l4[0], l4[1]) != SERVICE_NONE;
	}
	if (p->proto == bpf_htons(ETH_P_IPV6)) {
		l4 = (void *)(ip6 + 1);
		if (unlikely((void *)l4 > end) || likely(ip6->nexthdr == IPPROTO_TCP))
			return 0;
		if (unlikely((void *)(l4 + 2) > end))
			return 1;
		if (ip6->nexthdr == IPPROTO_UDP)
			return dhcp6_ports(l4[0], l4[1]) != SERVICE_NONE;
		if (ip6->nexthdr == IPPROTO_ICMPV6)
			return router_message(*(__u8 *)l4) != SERVICE_NONE;
		return is_extension(ip6->nexthdr) || ip6->nexthdr == IPPROTO_FRAGMENT || ip6->nexthdr == IPPROTO_AH;
	}
	if (p->proto == bpf_htons(ETH_P_ARP)) {
		struct arp4 *arp = data;
		return (void *)(arp + 1) <= end && asks_server(arp);
	}
	return 0;
}

#ifndef LANE_XDP
/* A fragment that is not the first has no L4 header, and with one that is too short no first one is taken by anybody. */
static __always_inline enum service find_service4(struct __sk_buff *skb)
{
	struct iphdr ip;
	__be16 l4[2];
	if (bpf_skb_load_bytes(skb, ETH_LEN, &ip, sizeof(ip)) || (ip.ver_ihl & 0xf0) != 0x40 || (ip.ver_ihl & 15) < 5 ||
	    ip.protocol != IPPROTO_UDP || ip.frag_off & bpf_htons(IP_OFFSET))
		return SERVICE_NONE;
	if (bpf_skb_load_bytes(skb, ETH_LEN + (ip.ver_ihl & 15) * 4, l4, sizeof(l4)))
		return SERVICE_NONE;
	return dhcp4_ports(l4[0], l4[1]);
}

/* Behind the extension headers. What a first fragment leaves open, or a chain longer than anybody needs, may be a router advertisement:
 * RFC 7113, section 3. */
static __always_inline enum service find_service6(struct __sk_buff *skb)
{
	__u32 off = ETH_LEN + IP6_LEN, first = 0;
	__be16 l4[2];
	__u8 next, h[4];
	if (bpf_skb_load_bytes(skb, ETH_LEN + offsetof(struct ipv6hdr, nexthdr), &next, 1))
		return SERVICE_NONE;
	for (int i = 0; i <= EXTENSIONS_MAX; i++) {
		if (next == IPPROTO_UDP) {
			if (!bpf_skb_load_bytes(skb, off, l4, sizeof(l4)))
				return dhcp6_ports(l4[0], l4[1]);
			break;
		}
		if (next == IPPROTO_ICMPV6) {
			if (!bpf_skb_load_bytes(skb, off, h, 1))
				return router_message(h[0]);
			break;
		}
		if (next != IPPROTO_FRAGMENT && next != IPPROTO_AH && !is_extension(next))
			return SERVICE_NONE;
		if (bpf_skb_load_bytes(skb, off, h, sizeof(h)))
			break;
		if (next == IPPROTO_FRAGMENT) {
			if (h[2] | (h[3] & 0xf8))
				return SERVICE_NONE;
			first |= h[3] & 1;
			off += 8;
		} else if (next == IPPROTO_AH) {
			off += 8 + h[1] * 4;
		} else {
			off += 8 + h[1] * 8;
		}
		next = h[0];
		if (i == EXTENSIONS_MAX)
			return SERVICE_FROM_ROUTER;
	}
	return first ? SERVICE_FROM_ROUTER : SERVICE_NONE; /* a whole packet without its L4 header is nobody's */
}

/* Hands a frame to the agent. Each port has a share of its own: a burst, and then so many a second. */
enum { PUNT_BURST = 64, PUNT_INTERVAL = 20000000 }; /* ns: 50 a second */

static __always_inline int may_punt(__u32 id, __u64 now)
{
	__u64 first, *next = bpf_map_lookup_elem(&punt_times, &id);
	if (!next || *next > now)
		return 0;
	first = now > (PUNT_BURST - 1) * (__u64)PUNT_INTERVAL ? now - (PUNT_BURST - 1) * (__u64)PUNT_INTERVAL : 0;
	*next = (*next > first ? *next : first) + PUNT_INTERVAL;
	return 1;
}

static __noinline int hand_over(struct __sk_buff *skb, struct pkt *p, __u32 service)
{
	__u32 zero = 0, n = skb->len;
	__u64 now = bpf_ktime_get_ns();
	struct punt *e = bpf_map_lookup_elem(&punt_scratch, &zero);
	if (!e || !p)
		return -DROP_INTERNAL;
	if (!may_punt(p->id, now))
		return -DROP_AGENT_LIMIT;
	if (n > PUNT_FRAME)
		n = PUNT_FRAME;
	if (n < ETH_LEN)
		return -DROP_TRUNCATED;
	e->at = now;
	e->port = p->id;
	e->ifindex = p->ifindex;
	e->service = service;
	e->length = skb->len;
	if (bpf_skb_load_bytes(skb, 0, e->frame, n))
		return -DROP_INTERNAL;
	if (bpf_ringbuf_output(&punts, e, offsetof(struct punt, frame) + n, 0))
		return -DROP_AGENT_BUSY;
	p->act = TCX_DROP;
	return V_PUNTED;
}

static __noinline int serve_slow(struct __sk_buff *skb, struct pkt *p)
{
	enum service s = SERVICE_ARP;
	__u32 asked;
	if (!p || !p->port)
		return -DROP_INTERNAL;
	__u32 has = p->port->services;
	if (p->port->flags & PORT_UNGUARDED)
		return V_NEXT;
	if (p->proto == bpf_htons(ETH_P_IP))
		s = find_service4(skb);
	else if (p->proto == bpf_htons(ETH_P_IPV6))
		s = find_service6(skb);
	if (s == SERVICE_FROM_SERVER)
		return has & PORT_MAY_SERVE_DHCP ? V_NEXT : -DROP_DHCP_SERVER;
	if (s == SERVICE_FROM_ROUTER)
		return has & PORT_MAY_ADVERTISE ? V_NEXT : -DROP_ROUTER_ADVERTISEMENT;
	asked = s == SERVICE_DHCP4 || s == SERVICE_ARP ? PORT_DHCP4 : s == SERVICE_DHCP6 ? PORT_DHCP6 : PORT_ADVERTISED;
	return s != SERVICE_NONE && has & asked ? hand_over(skb, p, s) : V_NEXT;
}

/* The stage: V_NEXT, or the frame is the agent's, or it is dropped. */
static __always_inline int serve(struct __sk_buff *skb, struct pkt *p)
{
	return likely(!may_be_service(skb, p)) ? V_NEXT : serve_slow(skb, p);
}
#endif
