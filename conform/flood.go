package conform

import (
	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/wire"
)

// floodCases: exactly who gets a copy.
func floodCases() []Case {
	everywhere := func(dst wire.MAC) func(*bed) trial {
		return func(b *bed) trial {
			f := frame(dst, mac1, 100)
			return trial{fromW1: [][]byte{f}, at: map[string][][]byte{"w2": {f}}, tunnels: []sent{b.to(b.addr.A, f), b.to(b.addr.B, f)}, lanedOut: 2}
		}
	}
	unknown := func(setting datapath.UnknownUnicast) func(*bed) error {
		return func(b *bed) error { return b.dp.PutNetwork(b.network7(setting)) }
	}
	return []Case{
		simple("1", "broadcast: every member once", everywhere(wire.BroadcastMAC)),
		simple("1", "a group: every member once", everywhere(macGroup)),
		simple("1", "unknown unicast, flooding on: every member once", everywhere(macNowhere)),
		prepared("1", "unknown unicast, external VTEPs only", unknown(datapath.UnknownExternal), func(b *bed) trial {
			f := frame(macNowhere, mac1, 100)
			return trial{fromW1: [][]byte{f}, tunnels: []sent{b.to(b.addr.B, f)}, lanedOut: 1}
		}),
		prepared("1", "unknown unicast, flooding off", unknown(datapath.UnknownDrop), func(*bed) trial { return held(frame(macNowhere, mac1, 100), "unknown_unicast") }),
		simple("1", "ten frames to an unknown MAC: ten at every member, none elsewhere", func(b *bed) trial {
			t := trial{at: map[string][][]byte{}, lanedOut: 20}
			for i := range 10 {
				f := frame(macNowhere, mac1, 100+i)
				t.fromW1, t.at["w2"] = append(t.fromW1, f), append(t.at["w2"], f)
				t.tunnels = append(t.tunnels, b.to(b.addr.A, f), b.to(b.addr.B, f))
			}
			return t
		}),
		simple("2", "broadcast from a tunnel: every port once, and no tunnel", func(b *bed) trial {
			f := frame(wire.BroadcastMAC, macA, 100)
			return trial{fromPeer: [][]byte{b.in(f)}, at: map[string][][]byte{"w1": {f}, "w2": {f}}, lanedIn: 1}
		}),
		simple("2", "unknown unicast from a tunnel, flooding on: every port once", func(b *bed) trial {
			f := frame(macNowhere, macA, 100)
			return trial{fromPeer: [][]byte{b.in(f)}, at: map[string][][]byte{"w1": {f}, "w2": {f}}, lanedIn: 1}
		}),
		simple("2", "broadcast from a tunnel in another VNI: that network's port alone", func(b *bed) trial {
			f := frame(wire.BroadcastMAC, macA, 100)
			return trial{fromPeer: [][]byte{b.in(f, func(p *tunnel) { p.vni = vni8 })}, at: map[string][][]byte{"x1": {f}}, lanedIn: 1}
		}),
	}
}
