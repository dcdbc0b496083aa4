// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//go:build ignore

/* tcx ingress on weft-vxlan: what the kernel lane stripped. The device's socket is open to every process and namespace that can
 * reach an address of the host, so nothing gets through without from_uplink's seal, and VNI and source are checked again. */
#include "deliver.h"
#include "flood.h"
#include "forward.h"
#include "strip.h"

static __always_inline int check_seal(struct __sk_buff *skb, struct pkt *p)
{
	struct bpf_tunnel_key k = {};
	if (!bpf_skb_get_tunnel_key(skb, &k, sizeof(k), 0)) {
		p->source.w[2] = MAPPED4;
		p->source.w[3] = bpf_htonl(k.remote_ipv4);
	} else if (!bpf_skb_get_tunnel_key(skb, &k, sizeof(k), BPF_F_TUNINFO_IPV6)) {
		p->ip6 = 1;
		memcpy(&p->source, k.remote_ipv6, 16);
	} else {
		return -DROP_UNMARKED;
	}
	p->vni = k.tunnel_id;
	p->tos = k.tunnel_tos & ~ECN_MASK; /* the kernel has merged ECN */
	p->ttl = k.tunnel_ttl;
	return unseal_in(skb, p->local) ? V_NEXT : -DROP_UNMARKED;
}

SEC("tcx/ingress")
int from_vxlan(struct __sk_buff *skb)
{
	struct pkt p = {};
	struct fdb_entry *e;
	__u32 id = 0;
	int v;

	STAGE(enter(skb, &p, FROM_VXLAN));
	STAGE(check_seal(skb, &p));
	STAGE(check_source(&p));
	STAGE(parse_frame(skb, &p));
	learn_at_vtep(&p, 0);
	e = is_group(p.dst) ? NULL : find_fdb(&p);
	if (!e && unlikely(p.vtep) && !is_group(p.dst))
		e = find_learned(&p);
	if (!e) {
		STAGE(check_unknown(&p));
		v = flood_from_tunnel(skb, &p);
		goto out;
	}
	STAGE(check_entry(&p, e, &id));
	if (!e->ifindex) {
		v = forward(skb, &p, e->vtep);
		goto out;
	}
	if (unlikely(must_merge_tos(&p)))
		merge_tos(skb, &p);
	v = deliver(skb, &p, e, id, is_ip(p.proto));
out:
	return leave(skb, &p, v);
}
