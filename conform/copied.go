package conform

import (
	"fmt"

	"github.com/weftnet/weft/wire"
)

// copiedCases: what crosses a tunnel unchanged, and what is the tunnel's own. (ECN has rules of its own.)
func copiedCases() []Case {
	var list []Case
	for _, v6 := range []bool{false, true} {
		name, family := "IPv4", func(*wire.Flow) {}
		if v6 {
			name, family = "IPv6", over6
		}
		list = append(list,
			Case{Rule: "TTL", Name: "the inner TTL is the workload's, the outer 64 (" + name + ")", do: func(b *bed) error {
				for _, ttl := range []uint8{1, 2, 64, 255} {
					set := func(f *wire.Flow) { f.TTL = ttl }
					if err := b.bothWays(frame(macA, mac1, 60, family, set), frame(mac1, macA, 60, family, set), nil); err != nil {
						return fmt.Errorf("TTL %d: %w", ttl, err)
					}
				}
				return nil
			}},
			Case{Rule: "TTL", Name: "an outer TTL of any value is taken (" + name + ")", do: func(b *bed) error {
				for _, ttl := range []uint8{1, 2, 255} {
					f := frame(mac1, macA, 60, family)
					if err := b.try(arrives(b.in(f, func(p *tunnel) { p.ttl = ttl }), f)); err != nil {
						return fmt.Errorf("TTL %d: %w", ttl, err)
					}
				}
				return nil
			}},
			Case{Rule: "ToS", Name: "every DSCP crosses unchanged, and none leaks out (" + name + ")", do: func(b *bed) error {
				for dscp := range 64 {
					set := func(f *wire.Flow) { f.TOS = uint8(dscp << 2) }
					if err := b.bothWays(frame(macA, mac1, 60, family, set), frame(mac1, macA, 60, family, set), nil); err != nil {
						return fmt.Errorf("DSCP %d: %w", dscp, err)
					}
				}
				return nil
			}},
			Case{Rule: "ToS", Name: "an outer DSCP does not get in (" + name + ")", do: func(b *bed) error {
				f := frame(mac1, macA, 60, family)
				return b.try(arrives(b.in(f, func(p *tunnel) { p.tos = 46 << 2 }), f))
			}})
	}
	return list
}

// bothWays sends one frame out and one in.
func (b *bed) bothWays(out, in []byte, edit func(*tunnel)) error {
	t := b.leaves(out)
	if edit == nil {
		edit = func(*tunnel) {}
	}
	t.fromPeer, t.at, t.lanedIn = [][]byte{b.in(in, edit)}, map[string][][]byte{"w1": {in}}, 1
	return b.try(t)
}
