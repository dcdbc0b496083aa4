package conform

import (
	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/wire"
)

// dscpCases are RFC 2983, in the two models that a network can have, with every code point; and ECN keeps to RFC 6040 beside them.
func dscpCases() []Case {
	uniform := func(b *bed) error {
		n := b.network7(datapath.UnknownFlood)
		n.DSCPUniform = true
		return b.dp.PutNetwork(n)
	}
	pipe := func(*bed) error { return nil }
	var list []Case
	for _, family := range families {
		list = append(list,
			prepared("DSCP", "pipe, out: the inner one stays, the outer one is 0 ("+family.name+")", pipe, func(b *bed) trial {
				t := trial{}
				for dscp := range uint8(64) {
					b.alsoOut(&t, frame(macA, mac1, 60, tos(family.edit, dscp<<2|ect0)), ect0)
				}
				return t
			}),
			prepared("DSCP", "pipe, in: the inner one stays, whatever the outer one is ("+family.name+")", pipe, func(b *bed) trial {
				return b.dscpIn(family.edit, func(inner, _ uint8) uint8 { return inner })
			}),
			prepared("DSCP", "uniform, out: the outer one is the inner one ("+family.name+")", uniform, func(b *bed) trial {
				t := trial{}
				for dscp := range uint8(64) {
					b.alsoOut(&t, frame(macA, mac1, 60, tos(family.edit, dscp<<2|ect1)), dscp<<2|ect1)
				}
				return t
			}),
			prepared("DSCP", "uniform, in: the inner one becomes the outer one ("+family.name+")", uniform, func(b *bed) trial {
				return b.dscpIn(family.edit, func(_, outer uint8) uint8 { return outer })
			}),
			prepared("DSCP", "uniform, in, CE around not-ECT: dropped all the same ("+family.name+")", uniform, func(b *bed) trial {
				f := frame(mac1, macA, 60, tos(family.edit, 46<<2))
				return refused(b.in(f, func(p *tunnel) { p.tos = 46<<2 | ce }), "ecn_ce_not_ect")
			}),
			prepared("DSCP", "uniform, to and from a group ("+family.name+")", uniform, func(b *bed) trial {
				out, in := frame(macGroup, mac1, 60, tos(family.edit, 46<<2)), frame(macGroup, macA, 60, tos(family.edit, 8<<2))
				marked := func(s *sent) { s.tos = 46 << 2 }
				t := trial{fromW1: [][]byte{out}, tunnels: []sent{b.to(b.addr.A, out, marked), b.to(b.addr.B, out, marked)}, lanedOut: 2,
					fromPeer: [][]byte{b.in(in, func(p *tunnel) { p.tos = 26 << 2 })}, lanedIn: 1}
				t.at = b.members("w1", out, frame(macGroup, macA, 60, tos(family.edit, 26<<2)))
				t.at["w1"] = [][]byte{frame(macGroup, macA, 60, tos(family.edit, 26<<2))}
				return t.passOut("xdp_several").passIn("xdp_several")
			}))
	}
	return append(list,
		prepared("DSCP", "uniform, out: what is not IP leaves with 0", uniform, func(b *bed) trial {
			t := trial{}
			b.alsoOut(&t, arp(macA, mac1), 0)
			return t.passOut("xdp_neighbour")
		}),
		prepared("DSCP", "uniform, in: what is not IP is delivered as it is", uniform, func(b *bed) trial {
			t := trial{at: map[string][][]byte{}}
			b.alsoIn(&t, b.in(arp(mac1, macA), func(p *tunnel) { p.tos = 46 << 2 }), arp(mac1, macA))
			return t
		}),
		prepared("DSCP", "uniform is one network's: another's stays pipe", uniform, func(b *bed) trial {
			f := frame(mac2, macA, 60, tos(func(*wire.Flow) {}, 10<<2))
			return trial{fromPeer: [][]byte{b.in(f, func(p *tunnel) { p.tos, p.vni = 46<<2, vni8 })}, at: map[string][][]byte{"x1": {f}}, lanedIn: 1}
		}))
}

// dscpIn sends every inner code point in another outer one, both marked ECT(0), to w1.
func (b *bed) dscpIn(family func(*wire.Flow), merged func(inner, outer uint8) uint8) trial {
	t := trial{at: map[string][][]byte{}}
	for inner := range uint8(64) {
		outer := (inner + 17) % 64
		packet := b.in(frame(mac1, macA, 60, tos(family, inner<<2|ect0)), func(p *tunnel) { p.tos = outer<<2 | ect0 })
		b.alsoIn(&t, packet, frame(mac1, macA, 60, tos(family, merged(inner, outer)<<2|ect0)))
	}
	return t
}
