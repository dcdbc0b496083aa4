package datapath

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/wire"
)

// TestForgedIsNotAppended: an attacker who knows the numbers of a workload's TCP stream sends a segment that continues it, from another
// interface, into the kernel lane, in the same instant as an honest one goes there. GRO on weft-vxlan must not put it behind the
// honest one, whose seal would let both in. Red when seal_in does not set the hash.
func TestForgedIsNotAppended(t *testing.T) {
	a, b := twoHosts(t, false)
	join(t, 7, a, b)
	w := a.workload(7, 1, b)
	must(t, w.ns.Quiet("eth0"))
	must(t, w.ns.SetAddresses("eth0", nil))
	must(t, a.dp.PutFDB([]FDBEntry{{FDBKey: FDBKey{7, w.mac}, Ifindex: w.ifindex, Flags: FDBPeer | FDBAllByKernel}}))
	up, err := a.ns.LinkByName("up0")
	must(t, err)
	side, _, err := b.ns.EnsureVeth(netdev.Veth{Name: "side0", Peer: netdev.VethPeer{Namespace: a.ns, Name: "cont0", MAC: up.MAC}})
	must(t, err)
	must(t, b.dp.detach(linkName("to_uplink", b.uplink()))) // b plays both

	const honest, forged = "an honest segment of a stream...", "and a forged one behind it......"
	segment := func(seq uint32, data string) []byte {
		ip := &layers.IPv4{Version: 4, TTL: 64, Flags: layers.IPv4DontFragment, Protocol: layers.IPProtocolTCP, SrcIP: ip2.AsSlice(), DstIP: ip1.AsSlice()}
		tcp := &layers.TCP{SrcPort: 5001, DstPort: 5002, Seq: seq, Ack: 1, ACK: true, Window: 100}
		must(t, tcp.SetNetworkLayerForChecksum(ip))
		eth := &layers.Ethernet{DstMAC: hw(w.mac), SrcMAC: hw(macRemote), EthernetType: layers.EthernetTypeIPv4}
		return a.tunnel(b, 7, serialize(t, eth, ip, tcp, gopacket.Payload(data)), nil)
	}
	first, second := segment(1000, honest), segment(1000+uint32(len(honest)), forged)
	tap := newTap(t, w.ns, "eth0")
	b.runBoth(b.uplink(), uint32(side.Index), first, second)
	got := tap.waitNext()
	if !bytes.Contains(got, []byte(honest)) {
		t.Errorf("the honest segment did not arrive: %q", got)
	}
	if bytes.Contains(got, []byte(forged)) {
		t.Fatalf("the forged segment arrived behind it: %q", got)
	}
	await(t, "the forged segment is counted", func() bool { return a.drops(DropUnmarked) == 1 })
	if got := tap.next(); got != nil {
		t.Errorf("there arrived, too: %q", got)
	}
}

// runBoth sends one frame on one interface and another on another, before the kernel goes on with either: from within a program.
func (h *testHost) runBoth(ifindex1, ifindex2 uint32, first, second []byte) {
	h.t.Helper()
	insns := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}
	out := func(ifindex uint32) {
		insns = append(insns, asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Imm(asm.R2, int32(ifindex)), asm.Mov.Imm(asm.R3, 0), asm.FnCloneRedirect.Call())
	}
	out(ifindex1)
	for i := 0; i < len(second); i += 8 { // make the second of the first
		at := min(i, len(second)-8)
		if bytes.Equal(first[at:at+8], second[at:at+8]) {
			continue
		}
		insns = append(insns, asm.LoadImm(asm.R1, int64(binary.NativeEndian.Uint64(second[at:])), asm.DWord), asm.StoreMem(asm.RFP, -8, asm.R1, asm.DWord),
			asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Imm(asm.R2, int32(at)), asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, -8),
			asm.Mov.Imm(asm.R4, 8), asm.Mov.Imm(asm.R5, 0), asm.FnSkbStoreBytes.Call())
	}
	out(ifindex2)
	insns = append(insns, asm.Mov.Imm(asm.R0, 0), asm.Return())
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, Instructions: insns, License: "GPL"})
	must(h.t, err)
	defer prog.Close()
	must(h.t, h.ns.Run(func() error {
		_, err := prog.Run(&ebpf.RunOptions{Data: first})
		return err
	}))
}

// TestNothingLeavesByAnotherInterface: a route to a VTEP that leaves by an interface that is no uplink is none. There is no guard there,
// and nothing that takes the mark off. Red when ask_kernel does not look the interface up.
func TestNothingLeavesByAnotherInterface(t *testing.T) {
	s := newScene(t, false)
	must(t, s.a.ns.AddBridge("side", 1600))
	must(t, s.a.ns.SetUp("side"))
	l, err := s.a.ns.LinkByName("side")
	must(t, err)
	nowhere := netip.MustParseAddr("198.51.100.1") // VTEP 2
	must(t, s.a.ns.ReplaceRoute(netdev.Route{Dst: netip.MustParsePrefix("198.51.100.0/24"), Hops: []netdev.Hop{{Index: l.Index}}}))
	must(t, s.a.ns.SetNeighbour(l.Index, nowhere, wire.MAC{2, 0xbb, 0, 0, 0, 9}))
	for _, summed := range []bool{false, true} { // by tc, and by the kernel lane
		must(t, s.a.dp.PutVTEPs([]VTEP{{ID: 2, Addr: nowhere, UDPPort: 4789, OuterChecksum: summed}}))
		if o := s.fromPort(out(macNoRoute)(s), nil); DropReason(o.verdict.Reason) != DropNoRoute {
			t.Errorf("%s, want drop %s", o, DropNoRoute)
		}
	}
}
