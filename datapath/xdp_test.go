package datapath

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/datapath/oracle"
	"github.com/weftnet/weft/wire"
)

// xdpHosts are two hosts with the XDP lane on their uplinks.
func xdpHosts(t *testing.T, ip6 bool) (a, b *testHost) {
	t.Helper()
	a, b = twoHosts(t, ip6)
	for _, h := range []*testHost{a, b} {
		must(t, h.ns.FitForXDP("up0")) // or the other end's frames from XDP are lost
		must(t, h.dp.Close())
		h.cfg.XDP = true
	}
	openAll(t, a, b)
	for _, h := range []*testHost{a, b} { // each again, now that the other's end is ready
		must(t, h.dp.CheckXDP())
	}
	return a, b
}

// fast puts a workload's port in the XDP lane.
func (w *workload) fast() Port {
	t := w.host.t
	t.Helper()
	must(t, w.ns.FitForXDP("eth0"))
	p := w.port()
	p.FastPath = true
	must(t, w.host.dp.UpdatePort(p))
	return p
}

func (h *testHost) book(program string) Books {
	h.t.Helper()
	list, err := h.dp.Books()
	must(h.t, err)
	for _, b := range list {
		if b.Program == program {
			return b
		}
	}
	h.t.Fatalf("no program %s", program)
	return Books{}
}

// TestXDPLane turns red when, for instance, xdp_from_port writes the outer headers before there is room, strip leaves the VXLAN
// header on, or a frame is redirected to a port that takes none.
func TestXDPLane(t *testing.T) {
	for _, ip6 := range []bool{false, true} {
		t.Run(map[bool]string{false: "underlay4", true: "underlay6"}[ip6], func(t *testing.T) {
			a, b := xdpHosts(t, ip6)
			join(t, 5001, a, b)
			w1, w2 := a.workload(5001, 1, b), b.workload(5001, 2, a)
			w3, slow := a.workload(5001, 3, b), a.workload(5001, 4, b)
			for _, w := range []*workload{w1, w2, w3} {
				w.fast()
			}
			w2.echo()
			w3.echo()
			slow.echo()
			everywhere := func(t *testing.T) {
				t.Helper()
				for _, to := range []netip.Addr{w2.ip4, w2.ip6, w3.ip4, w3.ip6, slow.ip4, slow.ip6} {
					for _, size := range []int{1, 100, 1472 - 24} {
						if err := w1.ping(to, size); err != nil {
							t.Errorf("%d octets to %s: %v", size, to, err)
						}
					}
				}
				for _, ip := range []netip.Addr{w2.ip4, w2.ip6} {
					if err := w1.stream(w2, ip, 1<<20); err != nil {
						t.Errorf("TCP to %s: %v", ip, err)
					}
				}
			}
			everywhere(t)
			// 1 MB in segments of at most 1448 octets, twice.
			const segments = 2 * (1 << 20) / 1448
			if out := a.book("xdp_from_port"); out.Encapsulated < segments || out.Delivered == 0 {
				t.Errorf("the XDP lane did not carry what w1 sent: %+v", out)
			}
			if in := b.book("xdp_from_uplink"); in.Delivered < segments {
				t.Errorf("the XDP lane did not deliver to w2: %+v", in)
			}
			if n := a.lane(LaneXDPReceiver); n == 0 {
				t.Error("frames for a port outside the lane were not passed on for that")
			}
			var in, out uint64
			for _, c := range []struct {
				h  *testHost
				id PortID
				n  *uint64
			}{{a, w1.id, &out}, {b, w2.id, &in}} {
				counters, err := c.h.dp.PortCounters(c.id)
				must(t, err)
				*c.n = counters.EgressPackets
				if c.n == &in {
					*c.n = counters.IngressPackets
				}
			}
			if out < segments || in < segments {
				t.Errorf("the ports' counters do not know of the XDP lane: %d sent, %d received", out, in)
			}

			// Out of the lane again: everything goes on, by tc.
			for _, w := range []*workload{w1, w2, w3} {
				must(t, w.host.dp.UpdatePort(w.port()))
			}
			before := a.book("xdp_from_port").In
			everywhere(t)
			if now := a.book("xdp_from_port").In; now != before {
				t.Errorf("xdp_from_port saw %d frames of ports that left the lane", now-before)
			}
			a.balanced()
			b.balanced()
		})
	}
}

// TestXDPSurvives: an agent that starts again finds its ports in the lane, and Open without it takes the programs off the uplink. Red
// when Publish does not keep the ports' XDP links.
func TestXDPSurvives(t *testing.T) {
	a, b := xdpHosts(t, false)
	join(t, 5001, a, b)
	w := a.workload(5001, 1, b)
	w.fast()
	must(t, a.dp.Close())
	a.cfg.XDP = false
	a.open()
	ports, err := a.dp.Ports()
	must(t, err)
	if len(ports) != 1 || !ports[0].FastPath {
		t.Errorf("the port is not in the XDP lane any more: %+v", ports)
	}
	if a.dp.attached(linkName("xdp_from_uplink", a.uplink()), a.uplink()) {
		t.Error("the uplink has a program that was not asked for")
	}
	must(t, a.dp.DetachPort(w.ifindex))
	if a.dp.attached(linkName("xdp_from_port", w.ifindex), w.ifindex) {
		t.Error("a detached port kept its XDP program")
	}
}

// TestXDPRefusedByPublish: a port that was in the lane in the old layout, and whose interface has another's XDP program when the new one
// is published, is not marked as one that takes frames from XDP. Red when Publish leaves the mark.
func TestXDPRefusedByPublish(t *testing.T) {
	a, b := xdpHosts(t, false)
	join(t, 5001, a, b)
	w := a.workload(5001, 1, b)
	p := w.fast()
	must(t, a.dp.Close())
	a.cfg.Limits.FDB++
	a.open()
	must(t, a.dp.PutNetwork(a.networks[5001]))
	must(t, a.dp.AttachPort(p))
	must(t, a.dp.detach(linkName("xdp_from_port", p.Ifindex)))
	var foreign link.Link
	must(t, a.ns.Run(func() (err error) {
		foreign, err = link.AttachXDP(link.XDPOptions{Interface: int(p.Ifindex), Program: a.dp.progs["xdp_from_port"], Flags: link.XDPDriverMode})
		return err
	}))
	defer foreign.Close()
	must(t, a.dp.Publish())
	e, _, err := a.dp.ports.Get(uint32(p.ID))
	must(t, err)
	if e.Ifindex != p.Ifindex || e.Flags&bpf.TCPortFlagsPORT_XDP != 0 {
		t.Errorf("the entry says that XDP serves it: %+v", e)
	}
}

// TestXDPUplinkKeepsTags: a card that takes VLAN tags out of frames would hide them from XDP. Red when keepTags forgets one of the two kinds.
func TestXDPUplinkKeepsTags(t *testing.T) {
	a, _ := twoHosts(t, false)
	kinds := []netdev.Feature{netdev.RXVLAN, netdev.RXServiceVLAN}
	for _, xdp := range []bool{false, true} {
		must(t, a.dp.Close())
		a.cfg.XDP = xdp
		a.open()
		for _, f := range kinds {
			if on, err := a.ns.Feature("up0", f); err != nil || on == xdp {
				t.Errorf("XDP %t: %s is %t (%v)", xdp, f, on, err)
			}
		}
	}
}

// TestXDPTagsAreLookedAfter: tags that somebody lets the card take out again are left in the frames after the next look. Red when CheckXDP does not call
// keepAllTags.
func TestXDPTagsAreLookedAfter(t *testing.T) {
	a, _ := xdpHosts(t, false)
	must(t, a.ns.SetFeature("up0", netdev.RXVLAN, true))
	must(t, a.dp.CheckXDP())
	if on, err := a.ns.Feature("up0", netdev.RXVLAN); err != nil || on {
		t.Errorf("%s is %t (%v)", netdev.RXVLAN, on, err)
	}
}

// TestXDPRefusesMembers: a bond's frames come to XDP from its members. Red when refuseMembers knows no bonds: all frames pass the lane by.
func TestXDPRefusesMembers(t *testing.T) {
	for kind, refused := range map[string]bool{"bond": true, "team": true, "veth": false, "device": false, "vlan": false} {
		if err := refuseMembers(netdev.Link{Name: "uplink0", Kind: kind}); (err != nil) != refused {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// TestXDPOddBuffers: a driver that leaves no room before the frame (here it is full of another program's notes) has the tc lane write the headers, and one
// that splits the headers has it read them. The interfaces that tests make do neither. Red when send_to_vtep does not look at what adjust_head says, or
// check_whole at where the first buffer ends.
func TestXDPOddBuffers(t *testing.T) {
	d := newDuel(t, 1)
	d.readyXDP(t, d.far)
	must(t, d.a.ns.Lock())
	must(t, d.a.dp.PutVTEPs([]VTEP{{ID: 1, Addr: duelAddrs[0], UDPPort: 4789}}))
	must(t, d.a.dp.PutFDB([]FDBEntry{{FDBKey: FDBKey{7, macRemote}, VTEP: 1}}))
	d.a.putNetwork(Network{VNI: 7, MTU: 1500})
	w := d.ports[0]
	data := frame(t, macRemote, w.mac, ip1, ip2, 400)
	shoot := func(notes, first int) (o outcome, err error) {
		t.Helper()
		md := make([]byte, 24) // data_meta is 0, data behind the notes
		binary.NativeEndian.PutUint32(md, uint32(notes))
		binary.NativeEndian.PutUint32(md[4:], uint32(notes+first))
		binary.NativeEndian.PutUint32(md[12:], w.ifindex)
		opts := &ebpf.RunOptions{Data: append(make([]byte, notes), data...), DataOut: make([]byte, 4096), Context: md, ContextOut: make([]byte, 24)}
		must(t, d.a.dp.maps["verdicts"].Put(uint32(0), bpf.TCVerdict{Program: 99}))
		if _, err = d.a.dp.progs["xdp_from_port"].Run(opts); err == nil {
			err = d.a.dp.maps["verdicts"].Lookup(uint32(0), &o.verdict)
		}
		o.data = opts.DataOut
		return o, err
	}
	await(t, "the next hop needs no look", func() bool { // the first of a bucket is passed on to be confirmed
		d.shoot(shot{"from_port", w.ifindex, oracle.Packet{Data: data}})
		o, err := shoot(0, len(data))
		must(t, err)
		return o.verdict.Verdict == bpf.TCVerdictKindV_ENCAPSULATED
	})
	o, err := shoot(180, len(data)) // 256 octets of room, 40 of them the kernel's own
	must(t, err)
	if o.verdict.Verdict != bpf.TCVerdictKindV_PASSED || LaneReason(o.verdict.Lane) != LaneXDPNoRoom || !bytes.HasSuffix(o.data, data) {
		t.Errorf("no room: %s\n%x", o, o.data)
	}
	for _, first := range []int{14, 60, 127} {
		if o, err = shoot(0, first); errors.Is(err, unix.EINVAL) {
			t.Log("this kernel's test runs split no frames (before 6.18)")
			break
		}
		must(t, err)
		if o.verdict.Verdict != bpf.TCVerdictKindV_PASSED || LaneReason(o.verdict.Lane) != LaneXDPSplit {
			t.Errorf("%d octets in the first buffer: %s", first, o)
		}
	}
	if o, err = shoot(0, 128); err == nil && o.verdict.Verdict != bpf.TCVerdictKindV_ENCAPSULATED {
		t.Errorf("all headers in the first buffer: %s", o)
	}
}

// TestXDPRefused: an interface without native XDP stays in the tc lane and says so.
func TestXDPRefused(t *testing.T) {
	a, b := twoHosts(t, false)
	join(t, 5001, a, b)
	w := a.workload(5001, 1, b)
	must(t, a.ns.AddBridge("weftbr", 1500))
	l, err := a.ns.LinkByName("weftbr")
	must(t, err)
	p := w.port()
	p.Ifindex, p.ID, p.FastPath = uint32(l.Index), w.id+1, true
	var refused *FastPathError
	if err := a.dp.AttachPort(p); !errors.As(err, &refused) {
		t.Fatalf("a bridge as a port of the XDP lane: %v", err)
	}
	ports, err := a.dp.Ports()
	must(t, err)
	for _, have := range ports {
		if have.Ifindex == p.Ifindex && have.FastPath {
			t.Error("the table says that the bridge takes frames from XDP")
		}
	}
	if len(ports) != 2 {
		t.Errorf("%d ports, want 2: the refused one too, in the tc lane", len(ports))
	}
}

// TestXDPRefusesUnfinishedFrames: what a virtual machine writes behind a virtio header may lack its checksum; XDP would send it on so. Red
// when checkWhole lets everything through, or Ports does not ask it.
func TestXDPRefusesUnfinishedFrames(t *testing.T) {
	a, b := twoHosts(t, false)
	join(t, 5001, a, b)
	plain, err := a.ns.OpenTAP("wefttap0", true)
	must(t, err)
	l, err := a.ns.LinkByName("wefttap0")
	must(t, err)
	p := Port{Ifindex: uint32(l.Index), ID: 70, UID: "vm", VNI: 5001, MACs: []wire.MAC{{2, 0, 0, 0, 0, 0x70}}, FastPath: true}
	fast := func() bool {
		ports, err := a.dp.Ports()
		must(t, err)
		return len(ports) == 1 && ports[0].FastPath
	}
	must(t, a.dp.AttachPort(p))
	if !fast() {
		t.Error("a TAP device without virtio headers is not in the XDP lane")
	}
	// Now the monitor takes it over.
	must(t, plain.Close())
	virtio, err := a.ns.OpenVirtioTAP("wefttap0")
	must(t, err)
	defer virtio.Close()
	if fast() {
		t.Error("a TAP device with virtio headers counts as in the XDP lane")
	}
	var refused *FastPathError
	if err := a.dp.UpdatePort(p); !errors.As(err, &refused) {
		t.Errorf("a TAP device with virtio headers: %v", err)
	}
	if fast() || a.dp.attached(linkName("xdp_from_port", p.Ifindex), p.Ifindex) {
		t.Error("it is in the XDP lane all the same")
	}
	if !a.dp.attached(linkName("from_port", p.Ifindex), p.Ifindex) {
		t.Error("it is not in the tc lane")
	}
}
