package datapath

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/datapath/oracle"
)

// duelXDPHooks are the XDP lane's programs at the same hooks.
var duelXDPHooks = map[string]struct {
	name    string
	program bpf.TCProgram
}{"from_port": {"xdp_from_port", bpf.TCProgramXDP_FROM_PORT}, "from_uplink": {"xdp_from_uplink", bpf.TCProgramXDP_FROM_UPLINK}}

// readyXDP makes the interfaces such that the kernel runs an XDP program as if on them: one must be attached. It passes everything; the
// lane's own run by BPF_PROG_TEST_RUN alone.
func (d *duel) readyXDP(t *testing.T, far *netdev.Handle) {
	t.Helper()
	pass, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()}, License: "GPL"})
	must(t, err)
	t.Cleanup(func() { pass.Close() })
	must(t, far.SetFeature("up0", netdev.GRO, true)) // or the uplink takes no frames from XDP
	for ifindex := range d.taps {
		must(t, d.a.ns.Run(func() error {
			l, err := link.AttachXDP(link.XDPOptions{Program: pass, Interface: int(ifindex), Flags: link.XDPDriverMode})
			if err == nil {
				t.Cleanup(func() { l.Close() })
			}
			return err
		}))
	}
	must(t, d.a.dp.CheckXDP())
	d.xdp = true
}

const xdpDrop, xdpPass, xdpRedirect = 1, 2, 4

// shootXDP runs the XDP program of a hook on one packet.
func (d *duel) shootXDP(s shot) (o outcome, action uint32, err error) {
	md := make([]byte, 24) // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
	binary.NativeEndian.PutUint32(md[4:], uint32(len(s.Data)))
	binary.NativeEndian.PutUint32(md[12:], s.ifindex)
	opts := &ebpf.RunOptions{Data: s.Data, DataOut: d.out[:], Context: md}
	must(d.t, d.a.dp.maps["verdicts"].Put(uint32(0), bpf.TCVerdict{Program: 99}))
	if action, err = d.a.dp.progs[duelXDPHooks[s.hook].name].Run(opts); err != nil {
		return o, action, err
	}
	o.data = opts.DataOut
	return o, action, d.a.dp.maps["verdicts"].Lookup(uint32(0), &o.verdict)
}

// compareXDP compares the XDP lane with the oracle, and where both lanes wrote octets with the tc lane's: what it passes on must be as it
// came, and all else exactly what the oracle says.
func (d *duel) compareXDP(p *oracle.Plan, s shot, want oracle.Result, tc outcome) string {
	if s.SegmentSize > 0 || s.Tagged {
		return "" // before XDP there are no aggregates, and no tag is moved
	}
	var o outcome
	var action uint32
	for range 100 {
		var err error
		if o, action, err = d.shootXDP(s); errors.Is(err, unix.EINVAL) && len(s.Data) < 14 {
			return "" // shorter than an Ethernet header
		} else if err != nil {
			return fmt.Sprintf("run the XDP program: %v", err)
		}
		if o.verdict.Program == duelXDPHooks[s.hook].program {
			break
		}
	}
	differ := func(why string) string {
		return fmt.Sprintf("oracle: %s %s%s; XDP lane: %s, action %d: %s\n%x", want.Verdict, want.Reason, want.Lane, o, action, why, o.data)
	}
	drop := DropReason(o.verdict.Reason)
	if want.Lane == "no_room" && o.verdict.Verdict == bpf.TCVerdictKindV_DELIVERED {
		want = p.FromVXLAN(oracle.Packet{Data: want.Inner}, want.Key) // XDP strips what tc cannot, and comes to the same
	}
	switch {
	case drop != 0:
		d.covered["XDP "+s.hook+" dropped"]++
		if want.Verdict != oracle.Dropped || want.Reason != drop.String() || action != xdpDrop || len(want.CopyDrops) > 0 {
			return differ("another verdict")
		}
	case o.verdict.Verdict == bpf.TCVerdictKindV_PASSED:
		if s.hook == "from_uplink" && s.Data[0]&1 == 1 {
			d.covered["XDP from_uplink passed on, to several"]++
		} else {
			d.covered["XDP "+s.hook+" passed on "+want.Verdict.String()]++
		}
		if action != xdpPass || !bytes.Equal(o.data, s.Data) {
			return differ("changed and passed on")
		}
	case o.verdict.Verdict == bpf.TCVerdictKindV_DELIVERED:
		d.covered["XDP "+s.hook+" delivered"]++
		if want.Verdict != oracle.Delivered || action != xdpRedirect || o.verdict.Ifindex != want.Deliveries[0].Ifindex {
			return differ("another verdict")
		}
		if !bytes.Equal(o.data, want.Deliveries[0].Frame) {
			return differ(fmt.Sprintf("other octets than\n%x", want.Deliveries[0].Frame))
		}
	case o.verdict.Verdict == bpf.TCVerdictKindV_ENCAPSULATED:
		d.covered["XDP "+s.hook+" encapsulated"]++
		if want.Verdict != oracle.Encapsulated || want.Tunnels[0].Kernel || action != xdpRedirect || o.verdict.Ifindex != d.host {
			return differ("another verdict")
		}
		if why := d.sameTunnel(want.Tunnels[0], s.Data, o.data, true); why != "" {
			return "XDP lane: " + why
		}
		if !bytes.Equal(o.data, tc.data) {
			return differ(fmt.Sprintf("other octets than the tc lane's\n%x", tc.data))
		}
	default:
		return differ("no verdict")
	}
	return ""
}

// fairXDP: the lane does what it can. What is delivered or encapsulated to one receiver is passed on only for named reasons.
func (d *duel) fairXDP(t *testing.T) {
	t.Helper()
	for _, k := range [][2]string{{"from_port", "delivered"}, {"from_port", "encapsulated"}, {"from_port", "dropped"}, {"from_uplink", "delivered"}, {"from_uplink", "dropped"}} {
		own, on := d.covered["XDP "+k[0]+" "+k[1]], d.covered["XDP "+k[0]+" passed on "+k[1]]
		if own == 0 || own*3 < on {
			t.Errorf("the XDP lane passed on %d of %d packets at %s that were to be %s", on, on+own, k[0], k[1])
		}
	}
}
