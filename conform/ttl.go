package conform

import (
	"github.com/weftnet/weft/wire"
)

// ttlCases: the tunnel is one hop of its own, and none of the workload's.
func ttlCases() []Case {
	var list []Case
	for _, family := range families {
		list = append(list,
			simple("TTL", "the inner TTL is the workload's, the outer 64 ("+family.name+")", func(b *bed) trial {
				t := trial{at: map[string][][]byte{}}
				for _, ttl := range []uint8{1, 2, 64, 255} {
					set := func(f *wire.Flow) { f.TTL = ttl }
					b.alsoOut(&t, frame(macA, mac1, 60, family.edit, set), 0)
					in := frame(mac1, macA, 60, family.edit, set)
					b.alsoIn(&t, b.in(in), in)
				}
				return t
			}),
			simple("TTL", "an outer TTL of any value is taken ("+family.name+")", func(b *bed) trial {
				t := trial{at: map[string][][]byte{}}
				for _, ttl := range []uint8{1, 2, 255} {
					f := frame(mac1, macA, 60, family.edit)
					b.alsoIn(&t, b.in(f, func(p *tunnel) { p.ttl = ttl }), f)
				}
				return t
			}))
	}
	return list
}

// alsoOut adds a frame that w1 sends to VTEP A, and the ToS octet of its outer header.
func (b *bed) alsoOut(t *trial, f []byte, tos uint8) {
	t.fromW1 = append(t.fromW1, f)
	t.tunnels = append(t.tunnels, b.to(b.addr.A, f, func(s *sent) { s.tos = tos }))
	t.lanedOut++
}

// alsoIn adds a packet of the peer's and what w1 gets of it.
func (b *bed) alsoIn(t *trial, packet, f []byte) {
	t.fromPeer, t.at["w1"] = append(t.fromPeer, packet), append(t.at["w1"], f)
	t.lanedIn++
}
