package conform

import (
	"errors"

	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/datapath/netdev"
)

// laneCases: what a lane cannot do, the next one does, with the same octets. Most reasons have cases of their own under other rules.
// xdp_split and xdp_no_room have none: no interface that is made here splits a frame's headers or lacks room for more (datapath's TestXDPOddBuffers).
func laneCases() []Case {
	f := frame(mac1, macA, 100)
	return []Case{
		prepared("lane", "in, where the FDB asks for the kernel lane", func(b *bed) error {
			return b.dp.PutFDB([]datapath.FDBEntry{{FDBKey: datapath.FDBKey{VNI: vni7, MAC: mac1}, Ifindex: b.index["w1"],
				Flags: datapath.FDBPeer | datapath.FDBAllByKernel}})
		}, func(b *bed) trial {
			t := arrives(b.in(f), f)
			t.only = "asked"
			return t.passIn("xdp_asked")
		}),
		prepared("lane", "in, for a MAC that has moved on: after it, with an outer TTL one less", func(b *bed) error {
			return b.dp.PutFDB([]datapath.FDBEntry{{FDBKey: datapath.FDBKey{VNI: vni7, MAC: macB}, VTEP: vtepB, Flags: datapath.FDBForward}})
		}, func(b *bed) trial {
			t := trial{only: "forward", drops: map[string]uint64{"forward_ttl": 1}}
			f := frame(macB, macA, 100)
			for _, ttl := range []uint8{64, 2, 1} {
				t.fromPeer = append(t.fromPeer, b.in(f, func(p *tunnel) { p.ttl = ttl }))
				t.lanedIn++
				if ttl > 1 {
					t.tunnels = append(t.tunnels, b.to(b.addr.B, f, func(s *sent) { s.ttl = ttl - 1 }))
				}
			}
			return t.passIn("xdp_asked")
		}),
		simple("lane", "out, an aggregate that with its outer headers passes 65535 octets", func(b *bed) trial {
			const mss = networkMTU - 40
			head, f, segments := aggregate(mac3, 65535-40, mss)
			t := trial{offers: []offer{{at: "t1", head: head, frame: f}}, lanedOut: 1, only: "too_long"}
			if b.byKernel() {
				t.only = "" // it was to go there for its checksum
			}
			for _, s := range segments {
				t.tunnels = append(t.tunnels, b.to(b.addr.A, s))
			}
			return t
		}),
		{Rule: "lane", Name: "out by XDP, where the uplink takes no frames from it", Lanes: []Lane{XDP}, do: func(b *bed) error {
			uplinkTakes := func(on bool) error { return errors.Join(b.peer.SetFeature(uplink, netdev.GRO, on), b.dp.CheckXDP()) }
			if err := uplinkTakes(false); err != nil {
				return err
			}
			return errors.Join(b.try(b.leaves(frame(macA, mac1, 100)).passOut("xdp_uplink")), uplinkTakes(true))
		}},
	}
}
