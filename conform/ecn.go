package conform

import (
	"fmt"

	"github.com/weftnet/weft/wire"
)

// The ECN field, the two low bits of the ToS octet or traffic class (RFC 3168, section 5).
const (
	notECT = iota
	ect1
	ect0
	ce
)

var ecnNames = [4]string{notECT: "not-ECT", ect1: "ECT(1)", ect0: "ECT(0)", ce: "CE"}

// dropped stands in the matrix for a packet that must be dropped.
const dropped = 4

// decapsulation is figure 4 of RFC 6040: what the receiver gets, by the inner field and the outer one.
var decapsulation = [4][4]int{
	notECT: {notECT: notECT, ect0: notECT, ect1: notECT, ce: dropped},
	ect0:   {notECT: ect0, ect0: ect0, ect1: ect1, ce: ce},
	ect1:   {notECT: ect1, ect0: ect1, ect1: ect1, ce: ce},
	ce:     {notECT: ce, ect0: ce, ect1: ce, ce: ce},
}

// ecnCases are RFC 6040: congestion that the underlay met reaches the workload, and nothing else does.
func ecnCases() []Case {
	var list []Case
	for _, family := range families {
		with := func(ecn int) func(*wire.Flow) { return tos(family.edit, uint8(ecn)) }
		for inner := range 4 {
			list = append(list, simple("ECN", fmt.Sprintf("out, %s: %s is copied to the outer header", family.name, ecnNames[inner]), func(b *bed) trial {
				t := trial{}
				b.alsoOut(&t, frame(macA, mac1, 60, with(inner)), uint8(inner))
				return t
			}))
		}
		for inner := range 4 {
			for outer := range 4 {
				list = append(list, simple("ECN", fmt.Sprintf("in, %s: %s around %s", family.name, ecnNames[outer], ecnNames[inner]), func(b *bed) trial {
					packet := b.in(frame(mac1, macA, 60, with(inner)), func(p *tunnel) { p.tos = uint8(outer) })
					if decapsulation[inner][outer] == dropped {
						return refused(packet, "ecn_ce_not_ect")
					}
					return arrives(packet, frame(mac1, macA, 60, with(decapsulation[inner][outer])))
				}))
			}
		}
		list = append(list,
			simple("ECN", "out, "+family.name+": every field, to a group", func(b *bed) trial {
				t := trial{}
				for ecn := range 4 {
					f := frame(macGroup, mac1, 60, with(ecn))
					t.fromW1 = append(t.fromW1, f)
					for _, vtep := range []int{0, 1} {
						to := b.to(b.addr.A, f, func(s *sent) { s.tos = uint8(ecn) })
						if vtep == 1 {
							to.to = b.addr.B
						}
						t.tunnels = append(t.tunnels, to)
						t.lanedOut++
					}
				}
				t.at = b.members("w1", t.fromW1...)
				return t.passOut("xdp_several")
			}),
			simple("ECN", "out, "+family.name+": every field, to every segment of an aggregate", func(b *bed) trial {
				t := trial{}
				for ecn := range 4 {
					head, f, segments := aggregate(mac3, 4000, 1400, with(ecn))
					t.offers, t.lanedOut = append(t.offers, offer{at: "t1", head: head, frame: f}), t.lanedOut+1
					for _, s := range segments {
						t.tunnels = append(t.tunnels, b.to(b.addr.A, s, func(s *sent) { s.tos = uint8(ecn) }))
					}
				}
				return t
			}),
			simple("ECN", "in, "+family.name+": every pair of fields, to a group", func(b *bed) trial {
				t := trial{drops: map[string]uint64{"ecn_ce_not_ect": 1}}
				var frames [][]byte
				for inner := range 4 {
					for outer := range 4 {
						t.fromPeer = append(t.fromPeer, b.in(frame(macGroup, macA, 60, with(inner)), func(p *tunnel) { p.tos = uint8(outer) }))
						if got := decapsulation[inner][outer]; got != dropped {
							frames = append(frames, frame(macGroup, macA, 60, with(got)))
							t.lanedIn++
						}
					}
				}
				t.at = b.members("", frames...)
				return t.passIn("xdp_several")
			}))
	}
	return append(list,
		simple("ECN", "out: what is not IP leaves with not-ECT", func(b *bed) trial {
			t := trial{}
			b.alsoOut(&t, arp(macA, mac1), 0)
			return t.passOut("xdp_neighbour")
		}),
		simple("ECN", "in: what is not IP is delivered as it is, in whatever it came", func(b *bed) trial {
			t := trial{at: map[string][][]byte{}}
			for outer := range 4 {
				b.alsoIn(&t, b.in(arp(mac1, macA), func(p *tunnel) { p.tos = uint8(outer) }), arp(mac1, macA))
			}
			return t
		}))
}

// arp is a frame that is not IP; its octets would be a ToS octet.
func arp(dst, src wire.MAC) []byte {
	f := append(append(append([]byte{}, dst[:]...), src[:]...), 8, 6)
	return append(f, []byte("\x45\x03 this must stay as it is, whatever the underlay met")...)
}

// tos makes it a packet of the family with that ToS octet or traffic class.
func tos(family func(*wire.Flow), v uint8) func(*wire.Flow) {
	return func(f *wire.Flow) {
		family(f)
		f.TOS = v
	}
}
