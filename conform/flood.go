package conform

import (
	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/wire"
)

// members are the ports of VNI 7 that get the frames of a flood, from one of them or from a tunnel.
func (b *bed) members(sender string, frames ...[]byte) map[string][][]byte {
	at := map[string][][]byte{}
	for _, w := range workloads {
		if w.vni == vni7 && w.name != sender {
			at[w.name] = frames
		}
	}
	return at
}

// floodCases: exactly who gets a copy.
func floodCases() []Case {
	everywhere := func(dst wire.MAC) func(*bed) trial {
		return func(b *bed) trial {
			f := frame(dst, mac1, 100)
			return trial{fromW1: [][]byte{f}, at: b.members("w1", f), tunnels: []sent{b.to(b.addr.A, f), b.to(b.addr.B, f)}, lanedOut: 2}.passOut("xdp_several")
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
			return trial{fromW1: [][]byte{f}, tunnels: []sent{b.to(b.addr.B, f)}, lanedOut: 1}.passOut("xdp_several")
		}),
		prepared("1", "unknown unicast, flooding off", unknown(datapath.UnknownDrop), func(*bed) trial { return held(frame(macNowhere, mac1, 100), "unknown_unicast").passOut("xdp_several") }),
		simple("1", "ten frames to an unknown MAC: ten at every member, none elsewhere", func(b *bed) trial {
			t := trial{lanedOut: 20}
			for i := range 10 {
				f := frame(macNowhere, mac1, 100+i)
				t.fromW1 = append(t.fromW1, f)
				t.tunnels = append(t.tunnels, b.to(b.addr.A, f), b.to(b.addr.B, f))
			}
			t.at = b.members("w1", t.fromW1...)
			return t.passOut("xdp_several")
		}),
		simple("2", "broadcast from a tunnel: every port once, and no tunnel", func(b *bed) trial {
			f := frame(wire.BroadcastMAC, macA, 100)
			return trial{fromPeer: [][]byte{b.in(f)}, at: b.members("", f), lanedIn: 1}.passIn("xdp_several")
		}),
		simple("2", "unknown unicast from a tunnel, flooding on: every port once", func(b *bed) trial {
			f := frame(macNowhere, macA, 100)
			return trial{fromPeer: [][]byte{b.in(f)}, at: b.members("", f), lanedIn: 1}.passIn("xdp_several")
		}),
		simple("2", "broadcast from a tunnel in another VNI: that network's port alone", func(b *bed) trial {
			f := frame(wire.BroadcastMAC, macA, 100)
			return trial{fromPeer: [][]byte{b.in(f, func(p *tunnel) { p.vni = vni8 })}, at: map[string][][]byte{"x1": {f}}, lanedIn: 1}.passIn("xdp_several")
		}),
	}
}
