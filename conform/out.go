package conform

import (
	"fmt"

	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/wire"
)

// outCases are of what is sent. Every packet that any case sends is held against every rule besides: see sent.verify.
func outCases() []Case {
	list := []Case{
		simple("1", "a MAC behind a VTEP: encapsulated to it (IPv4)", func(b *bed) trial { return b.leaves(frame(macA, mac1, 100)) }),
		simple("1", "a MAC behind a VTEP: encapsulated to it (IPv6)", func(b *bed) trial { return b.leaves(frame(macA, mac1, 100, over6)) }),
		simple("1", "a MAC behind a VTEP: encapsulated to it (ARP)", func(b *bed) trial {
			f := append(append([]byte{}, macA[:]...), mac1[:]...)
			return b.leaves(append(append(f, 8, 6), make([]byte, 28)...)).passOut("xdp_neighbour")
		}),
		simple("1", "a MAC behind another VTEP: encapsulated to that", func(b *bed) trial {
			f := frame(macB, mac1, 100)
			return trial{fromW1: [][]byte{f}, tunnels: []sent{b.to(b.addr.B, f)}, lanedOut: 1}
		}),
		simple("1", "a MAC at a port here: delivered, and no tunnel", func(b *bed) trial {
			f := frame(mac2, mac1, 100)
			return trial{fromW1: [][]byte{f}, at: map[string][][]byte{"w2": {f}}}
		}),
		simple("1", "a virtual machine's frames: to VTEPs, and to a port here", func(b *bed) trial {
			to4, to6, near := frame(macA, mac3, 100), frame(macB, mac3, 100, over6), frame(mac1, mac3, 100)
			return trial{fromT1: [][]byte{to4, to6, near}, tunnels: []sent{b.to(b.addr.A, to4), b.to(b.addr.B, to6)}, lanedOut: 2,
				at: map[string][][]byte{"w1": {near}}}
		}),
		simple("1", "a MAC at a virtual machine here: delivered, and no tunnel", func(b *bed) trial {
			f := frame(mac3, mac1, 100)
			return trial{fromW1: [][]byte{f}, at: map[string][][]byte{"t1": {f}}}.passOut("xdp_receiver")
		}),
		simple("1", "a virtual machine's frame whose checksum is left to the host", func(b *bed) trial {
			head, f, segments := aggregate(mac3, 300, 300)
			head[1], head[4], head[5] = 0, 0, 0 // no aggregate
			return trial{offers: []offer{{at: "t1", head: head, frame: f}}, tunnels: []sent{b.to(b.addr.A, segments[0])}, lanedOut: 1}
		}),
		simple("1", "a virtual machine's aggregate that is shorter than the MTU: still cut", func(b *bed) trial {
			head, f, segments := aggregate(mac3, 900, 300)
			t := trial{offers: []offer{{at: "t1", head: head, frame: f}}, lanedOut: 1}
			for _, s := range segments {
				t.tunnels = append(t.tunnels, b.to(b.addr.A, s))
			}
			return t
		}),
		{Rule: "1", Name: "frames of every length, however short", do: func(b *bed) error {
			var trials []trial
			for n := wire.EthernetLen; n <= 80; n++ {
				f := frame(macA, mac1, 100)[:n]
				f[12], f[13] = 0x88, 0xb5 // the kernel's device takes no IP frame without a whole IP header
				trials = append(trials, b.leaves(f))
			}
			return b.tryAll(trials, func(i int) string { return fmt.Sprintf("%d octets", wire.EthernetLen+i) })
		}},
		simple("6", "the largest packet that fits leaves whole, with DF", func(b *bed) trial { return b.leaves(frame(macA, mac1, networkMTU-28)) }),
		{Rule: "12", Name: "a VTEP's own UDP port", Lanes: []Lane{TC, XDP}, do: func(b *bed) error {
			if err := b.dp.PutVTEPs([]datapath.VTEP{{ID: vtepA, Addr: b.addr.A, UDPPort: 8472}}); err != nil {
				return err
			}
			f := frame(macA, mac1, 100)
			return b.try(trial{fromW1: [][]byte{f}, tunnels: []sent{b.to(b.addr.A, f, func(s *sent) { s.l4dst = 8472 })}, lanedOut: 1})
		}},
		{Rule: "13", Name: "source port and flow label: one a flow, many for many; ports from 49152", do: sourcePorts},
		{Rule: "13", Name: "source port: one for all fragments of a packet", Lanes: []Lane{TC, XDP}, do: fragmentPorts},
		{Rule: "14", Name: "UDP checksum zero from the kernel lane too", Lanes: []Lane{Kernel}, do: zeroChecksum},
		{Rule: "16", Name: "UDP checksum right where a VTEP wants one", do: func(b *bed) error {
			if err := b.dp.PutVTEPs([]datapath.VTEP{{ID: vtepA, Addr: b.addr.A, UDPPort: 4789, OuterChecksum: true}}); err != nil {
				return err
			}
			for n := range 4 {
				f := frame(macA, mac1, 100+n)
				t := b.leaves(f)
				t.tunnels[0].checksum, t.only = true, "checksum"
				if err := b.try(t.passOut("xdp_checksum")); err != nil {
					return err
				}
				if err := b.dp.PutVTEPs([]datapath.VTEP{{ID: vtepA, Addr: b.addr.A, UDPPort: 4789, OuterChecksum: true}}); err != nil {
					return err
				}
			}
			return nil
		}},
		simple("18", "outer MAC of the next hop: a VTEP behind a router", func(b *bed) trial {
			f := frame(macFar, mac1, 100)
			return trial{fromW1: [][]byte{f}, tunnels: []sent{b.to(b.addr.Far, f, func(s *sent) { s.via = macRouter })}, lanedOut: 1}
		}),
		prepared("18", "a VTEP that is re-addressed: the next packet goes there", func(b *bed) error {
			return b.dp.PutVTEPs([]datapath.VTEP{b.vtep(vtepA, b.addr.Far)})
		}, func(b *bed) trial {
			f := frame(macA, mac1, 100)
			return trial{fromW1: [][]byte{f}, tunnels: []sent{b.to(b.addr.Far, f, func(s *sent) { s.via = macRouter })}, lanedOut: 1}
		}),
	}
	for _, vni := range []wire.VNI{0, 1, 0x800000, 0x123456, wire.MaxVNI} {
		list = append(list, prepared("11", fmt.Sprintf("VNI %d on transmit", vni), func(b *bed) error { return b.network(vni) }, func(b *bed) trial {
			f := frame(macA, mac1, 100)
			return trial{fromW1: [][]byte{f}, tunnels: []sent{b.to(b.addr.A, f, func(s *sent) { s.vni = vni })}, lanedOut: 1}
		}))
	}
	return list
}

// network makes one of a VNI for the trial at hand, with w1 in it.
func (b *bed) network(vni wire.VNI) error {
	if vni != vni7 && vni != vni8 {
		b.scratch = append(b.scratch, vni)
	}
	p := b.port(1, "w1", mac1, vni)
	if err := b.dp.PutNetwork(datapath.Network{VNI: vni, MTU: networkMTU, LocalPorts: []uint32{p.Ifindex}, Remotes: []datapath.VTEPID{vtepA}}); err != nil {
		return err
	}
	if err := b.dp.UpdatePort(p); err != nil {
		return err
	}
	if err := b.dp.PutAccepts([]datapath.Accept{{VNI: vni, Addr: b.addr.A}}); err != nil {
		return err
	}
	return b.dp.PutFDB([]datapath.FDBEntry{{FDBKey: datapath.FDBKey{VNI: vni, MAC: mac1}, Ifindex: p.Ifindex, Flags: b.flags(false)},
		{FDBKey: datapath.FDBKey{VNI: vni, MAC: macA}, VTEP: vtepA}})
}

// sourcePorts: 400 flows of two packets each.
func sourcePorts(b *bed) error {
	t := trial{}
	const flows = 400
	for range 2 {
		for i := range flows {
			f := wire.Flow{SrcMAC: mac1, DstMAC: macA, Src: b.innerAddr(1), Dst: b.innerAddr(2)}.UDP(uint16(1000+i), 2222, []byte("flow"))
			t.fromW1, t.tunnels = append(t.fromW1, f), append(t.tunnels, b.to(b.addr.A, f))
			t.lanedOut++
		}
	}
	if err := b.try(t); err != nil {
		return err
	}
	seen := map[uint16]bool{}
	labels := map[uint32]bool{}
	for i, f := range b.left[:flows] {
		again := b.left[i+flows]
		if seen[f.UDP.Src] = true; again.UDP.Src != f.UDP.Src {
			return fmt.Errorf("flow %d has the source ports %d and %d", i, f.UDP.Src, again.UDP.Src)
		}
		if labels[f.IPv6.FlowLabel] = true; again.IPv6.FlowLabel != f.IPv6.FlowLabel {
			return fmt.Errorf("flow %d has the flow labels %#x and %#x", i, f.IPv6.FlowLabel, again.IPv6.FlowLabel)
		}
	}
	if len(seen) < flows*9/10 { // of 16384: 395 expected
		return fmt.Errorf("%d flows have only %d source ports", flows, len(seen))
	}
	if b.row.Underlay == IPv6 && len(labels) < flows*9/10 { // of a million
		return fmt.Errorf("%d flows have only %d flow labels", flows, len(labels))
	}
	return nil
}

// fragmentPorts: a router that hashes L4 ports must not part the fragments of one inner packet.
func fragmentPorts(b *bed) error {
	first, later := frame(macA, mac1, 100), frame(macA, mac1, 100)
	first[20], later[21] = 0x20, 2 // more fragments; offset 16
	later[34], later[35] = 99, 99
	t := trial{lanedOut: 2}
	for _, f := range [][]byte{first, later} {
		t.fromW1, t.tunnels = append(t.fromW1, f), append(t.tunnels, b.to(b.addr.A, f))
	}
	if err := b.try(t); err != nil {
		return err
	}
	if b.left[0].UDP.Src != b.left[1].UDP.Src {
		return fmt.Errorf("two fragments have the source ports %d and %d", b.left[0].UDP.Src, b.left[1].UDP.Src)
	}
	return nil
}

// zeroChecksum: in a flood to VTEPs of both IP versions the kernel serves those of the second version, without checksum.
func zeroChecksum(b *bed) error {
	other := IPv4.addresses()
	if b.row.Underlay == IPv4 {
		other = IPv6.addresses()
	}
	n := b.network7(datapath.UnknownFlood)
	n.LocalPorts, n.External = nil, 0
	n.Remotes = []datapath.VTEPID{vtepB, vtepA} // B, of the other version, is the programs', and A the kernel's
	for _, v := range []datapath.VTEP{{ID: vtepA, Addr: b.addr.A, UDPPort: 4789}, {ID: vtepB, Addr: other.A, UDPPort: 4789}} {
		if err := b.dp.PutVTEPs([]datapath.VTEP{v}); err != nil {
			return err
		}
	}
	if err := b.dp.PutNetwork(n); err != nil {
		return err
	}
	if err := settle(); err != nil {
		return err
	}
	f := frame(wire.BroadcastMAC, mac1, 100)
	plain := func(s *sent) { s.checksum = false }
	return b.try(trial{fromW1: [][]byte{f}, tunnels: []sent{b.to(b.addr.A, f, plain), b.to(other.A, f, plain)}, lanedOut: 1})
}
