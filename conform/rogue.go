package conform

import (
	"fmt"

	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/wire"
)

// rogueCases: who may send, and what a frame may claim.
func rogueCases() []Case {
	f := frame(mac1, macA, 100)
	list := []Case{
		simple("24", "a source that is no VTEP", func(b *bed) trial {
			return refused(b.in(f, func(p *tunnel) { p.src = b.addr.Rogue }), "source_not_accepted")
		}),
		simple("24", "a VTEP of another VNI", func(b *bed) trial {
			return refused(b.in(frame(mac2, macB, 100), func(p *tunnel) { p.src, p.vni = b.addr.B, vni8 }), "source_not_accepted")
		}),
		simple("24", "our own address as the source", func(b *bed) trial { return refused(b.in(f, func(p *tunnel) { p.src = b.addr.Own }), "own_source") }),
		prepared("24", "our own address as the source, listed or not", func(b *bed) error {
			return b.dp.PutAccepts([]datapath.Accept{{VNI: vni7, Addr: b.addr.Own}})
		}, func(b *bed) trial { return refused(b.in(f, func(p *tunnel) { p.src = b.addr.Own }), "own_source") }),
		simple("24", "to an address that is not ours", func(b *bed) trial { return ignored(b.in(f, func(p *tunnel) { p.dst = b.addr.Rogue })) }),
		simple("24", "to an Ethernet address that is not ours", func(b *bed) trial { return ignored(b.in(f, func(p *tunnel) { p.dstMAC[5] ^= 1 })) }),
		prepared("24", "a VTEP that is no longer listed", func(b *bed) error {
			return b.dp.DeleteAccepts([]datapath.Accept{{VNI: vni7, Addr: b.addr.A}})
		}, func(b *bed) trial { return refused(b.in(f), "source_not_accepted") }),
		simple("24", "a workload that sends as another", func(*bed) trial { return held(frame(macA, mac2, 100), "source_mac") }),
	}
	for name, src := range map[string]wire.MAC{"a group's": macGroup, "zero": {}, "the kernel lane's device's": datapath.ReservedMAC} {
		list = append(list, simple("24", "an inner source MAC that is "+name, func(b *bed) trial { return refused(b.in(frame(mac1, src, 100)), "source_invalid") }))
	}
	for i := range 16 {
		dst := wire.MAC{1, 0x80, 0xc2, 0, 0, byte(i)}
		list = append(list,
			simple("link-local", fmt.Sprintf("%s does not leave a workload's link", dst), func(*bed) trial { return held(frame(dst, mac1, 60), "link_local") }),
			simple("link-local", fmt.Sprintf("%s is not taken out of a tunnel", dst), func(b *bed) trial { return refused(b.in(frame(dst, macA, 60)), "link_local") }))
	}
	return append(list, simple("link-local", "01:80:c2:00:00:10 is a group like any other", func(b *bed) trial {
		f := frame(wire.MAC{1, 0x80, 0xc2, 0, 0, 0x10}, macA, 60)
		return trial{fromPeer: [][]byte{b.in(f)}, at: b.members("", f), lanedIn: 1}.passIn("xdp_several")
	}))
}
