package datapath

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/wire"
)

// testProtocol is an ethertype for local experiments (IEEE 802): nothing else sends it.
const testProtocol = 0x88b5

// capture counts frames that come in on an interface, before any program sees them.
type capture struct{ count atomic.Int64 }

// plain is a test frame, tunnelled one in a VXLAN packet over IPv4.
func plain(b []byte) bool { return len(b) > 14 && binary.BigEndian.Uint16(b[12:]) == testProtocol }
func tunnelled(b []byte) bool {
	return len(b) > 64 && b[23] == 17 && binary.BigEndian.Uint16(b[62:]) == testProtocol
}

// listen counts the frames of which visit is true.
func listen(t *testing.T, ns *netdev.Handle, ifname string, visit func([]byte) bool) *capture {
	t.Helper()
	l, err := ns.LinkByName(ifname)
	must(t, err)
	fd := -1
	must(t, ns.Run(func() (err error) {
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 20000})
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: 0x0300 /* ETH_P_ALL */, Ifindex: l.Index})
	}))
	c := &capture{}
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(func() { cancel(); <-done; unix.Close(fd) })
	go func() {
		defer close(done)
		b := make([]byte, 65536)
		for ctx.Err() == nil {
			n, from, err := unix.Recvfrom(fd, b, 0)
			if err != nil {
				continue
			}
			if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype != unix.PACKET_OUTGOING && visit(b[:n]) {
				c.count.Add(1)
			}
		}
	}()
	return c
}

// TestFloodIsExact: ten broadcasts reach every member once each, and nobody else: not the sender, not another network. Red when
// local_copy forgets the sender, or floods a network's list with another's number.
func TestFloodIsExact(t *testing.T) {
	a, b := twoHosts(t, false)
	join(t, 7, a, b)
	join(t, 8, a, b)
	w1, w2, w3 := a.workload(7, 1, b), b.workload(7, 2, a), a.workload(7, 3, b)
	x1, x2 := a.workload(8, 1, b), b.workload(8, 2, a)
	members := map[string]*capture{"w2": listen(t, w2.ns, "eth0", plain), "w3": listen(t, w3.ns, "eth0", plain)}
	others := map[string]*capture{"w1": listen(t, w1.ns, "eth0", plain), "x1": listen(t, x1.ns, "eth0", plain),
		"x2": listen(t, x2.ns, "eth0", plain)}
	for range 10 {
		send(t, w1.ns, "eth0", raw(macAll, w1.mac, testProtocol, 50))
	}
	// What is sent last arrives last.
	send(t, x2.ns, "eth0", raw(x1.mac, x2.mac, testProtocol, 50))
	await(t, "ten broadcasts at every member", func() bool { return members["w2"].count.Load() >= 10 && members["w3"].count.Load() >= 10 })
	await(t, "the frame after them", func() bool { return others["x1"].count.Load() >= 1 })
	for name, c := range members {
		if n := c.count.Load(); n != 10 {
			t.Errorf("%s got %d of 10 broadcasts", name, n)
		}
	}
	for name, c := range others {
		if n := c.count.Load(); n != map[string]int64{"x1": 1}[name] {
			t.Errorf("%s got %d frames", name, n)
		}
	}
	a.balanced()
	b.balanced()
}

// TestUnknownUnicastGoesWhereTheNetworkSays: everywhere, to external VTEPs only, or nowhere.
func TestUnknownUnicastGoesWhereTheNetworkSays(t *testing.T) {
	a, b := twoHosts(t, false)
	join(t, 7, a, b)
	w1, w3 := a.workload(7, 1, b), a.workload(7, 3, b)
	at := map[string]*capture{"w3": listen(t, w3.ns, "eth0", plain), "b": listen(t, b.ns, "up0", tunnelled)}
	for i, c := range []struct {
		mode     UnknownUnicast
		external int
		w3, b    int64
		drop     DropReason
	}{{UnknownFlood, 0, 1, 1, 0}, {UnknownExternal, 1, 0, 1, 0}, {UnknownExternal, 0, 0, 0, DropUnknownUnicast}, {UnknownDrop, 1, 0, 0, DropUnknownUnicast}} {
		n := a.networks[7]
		n.Unknown, n.External = c.mode, c.external
		must(t, a.dp.PutNetwork(n))
		before := map[string]int64{"w3": at["w3"].count.Load(), "b": at["b"].count.Load()}
		drops := a.drops(DropUnknownUnicast)
		send(t, w1.ns, "eth0", raw(macNowhere, w1.mac, testProtocol, 50))
		await(t, fmt.Sprintf("case %d: the frame arrived where it should", i), func() bool {
			return at["w3"].count.Load()-before["w3"] >= c.w3 && at["b"].count.Load()-before["b"] >= c.b &&
				(c.drop == 0 || a.drops(c.drop) == drops+1)
		})
		if w3, b := at["w3"].count.Load()-before["w3"], at["b"].count.Load()-before["b"]; w3 != c.w3 || b != c.b {
			t.Errorf("case %d: w3 got %d, b got %d; want %d and %d", i, w3, b, c.w3, c.b)
		}
	}
	a.balanced()
}

// TestNetworksNeverMeet: two networks with the same MACs and addresses on the same hosts. Red when the FDB's key loses its VNI.
func TestNetworksNeverMeet(t *testing.T) {
	a, b := twoHosts(t, false)
	join(t, 7, a, b)
	join(t, 8, a, b)
	w1, w2 := a.workload(7, 1, b), b.workload(7, 2, a)
	x1, x2 := a.workload(8, 1, b), b.workload(8, 2, a)
	w2.echo()
	must(t, w1.ping(w2.ip4, 64))
	x2.echo()
	must(t, x1.ping(x2.ip6, 64))
	seen := listen(t, x2.ns, "eth0", plain)
	got := listen(t, w2.ns, "eth0", plain)
	for range 100 {
		send(t, w1.ns, "eth0", raw(w2.mac, w1.mac, testProtocol, 50))
	}
	await(t, "the frames arrived", func() bool { return got.count.Load() == 100 })
	if n := seen.count.Load(); n != 0 {
		t.Errorf("%d frames of VNI 7 in VNI 8", n)
	}
}

// sequence sends numbered datagrams from w to port 9 of the other at a pace, until stopped; it returns sent and received.
func (w *workload) sequence(to *workload, every time.Duration) (stop func() (sent, received, repeated int)) {
	t := w.host.t
	t.Helper()
	in, err := to.ns.ListenPacket(t.Context(), "udp", netip.AddrPortFrom(to.ip4, 9).String())
	must(t, err)
	raw, err := in.(*net.UDPConn).SyscallConn()
	must(t, err)
	// More than the system's limit, which is a tenth of a second's: the reader may stand still while the sender goes on.
	must(t, raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20) }))
	must(t, err)
	var d net.Dialer
	out, err := w.ns.Dial(t.Context(), &d, "udp", netip.AddrPortFrom(to.ip4, 9).String())
	must(t, err)
	quit, sentAll, gotAll := make(chan struct{}), make(chan int, 1), make(chan [2]int, 1)
	go func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		var b [8]byte
		for n := uint64(0); ; {
			select {
			case <-quit:
				sentAll <- int(n)
				return
			case <-tick.C:
				n++
				binary.BigEndian.PutUint64(b[:], n)
				out.Write(b[:])
			}
		}
	}()
	var received atomic.Int64
	go func() {
		seen := map[uint64]bool{}
		again := 0
		b := make([]byte, 64)
		for {
			n, _, err := in.ReadFrom(b)
			if err != nil {
				gotAll <- [2]int{len(seen), again}
				return
			}
			if n == 8 && seen[binary.BigEndian.Uint64(b)] {
				again++
			}
			seen[binary.BigEndian.Uint64(b)] = true
			received.Store(int64(len(seen)))
		}
	}()
	await(t, "numbered datagrams flow", func() bool { return received.Load() > 10 })
	return func() (int, int, int) {
		close(quit)
		sent := <-sentAll
		deadline := time.Now().Add(patience)
		for time.Now().Before(deadline) && int(received.Load()) < sent {
			time.Sleep(time.Millisecond)
		}
		in.Close()
		out.Close()
		got := <-gotAll
		return sent, got[0], got[1]
	}
}

func (h *testHost) reopen() {
	h.t.Helper()
	must(h.t, h.dp.Close())
	h.open()
}

// TestRestartLosesNothing opens the datapath again and again under numbered datagrams. Red when Open detaches before it attaches.
func TestRestartLosesNothing(t *testing.T) {
	a, b := twoHosts(t, false)
	join(t, 7, a, b)
	w1, w2 := a.workload(7, 1, b), b.workload(7, 2, a)
	w2.echo()
	must(t, w1.ping(w2.ip4, 10))
	stop := w1.sequence(w2, 200*time.Microsecond)
	for range 3 {
		a.reopen()
		b.reopen()
	}
	sent, received, repeated := stop()
	if sent != received || repeated != 0 {
		t.Errorf("sent %d, received %d, %d of them twice", sent, received, repeated)
	}
	ports, err := a.dp.Ports()
	must(t, err)
	if len(ports) != 1 || ports[0].UID != "uid-1" || ports[0].MACs[0] != w1.mac {
		t.Errorf("ports after the restart: %+v", ports)
	}
	a.balanced()
	b.balanced()
}

// TestNewLayoutIsBuiltAside: other limits are another layout. The old one forwards until Publish, and no packet is lost.
func TestNewLayoutIsBuiltAside(t *testing.T) {
	a, b := twoHosts(t, false)
	join(t, 7, a, b)
	w1, w2 := a.workload(7, 1, b), b.workload(7, 2, a)
	w2.echo()
	must(t, w1.ping(w2.ip4, 10))
	stop := w1.sequence(w2, 200*time.Microsecond)
	must(t, a.dp.Close())
	a.cfg.Limits.FDB++
	a.open()
	if list, err := a.dp.FDB(); err != nil || len(list) != 0 || !a.dp.pending {
		t.Errorf("a new layout begins with %v, pending %v, %v", list, a.dp.pending, err)
	}
	must(t, a.dp.PutVTEPs([]VTEP{{ID: 1, Addr: b.local.addr(), UDPPort: 4789}}))
	must(t, a.dp.PutNetwork(a.networks[7]))
	must(t, a.dp.PutAccepts([]Accept{{7, b.local.addr()}}))
	must(t, a.dp.PutFDB([]FDBEntry{{FDBKey: FDBKey{7, w1.mac}, Ifindex: w1.ifindex, Flags: FDBPeer}, {FDBKey: FDBKey{7, w2.mac}, VTEP: 1}}))
	must(t, a.dp.AttachPort(w1.port()))
	must(t, a.dp.Publish())
	must(t, a.dp.Publish())
	must(t, w1.ping(w2.ip4, 10))
	sent, received, repeated := stop()
	if sent != received || repeated != 0 {
		t.Errorf("sent %d, received %d, %d of them twice", sent, received, repeated)
	}
	if old, err := a.dp.otherLayouts(); err != nil || len(old) != 0 {
		t.Errorf("old layouts are left: %v %v", old, err)
	}
	counters, err := a.dp.PortCounters(w1.id)
	must(t, err)
	if counters.EgressPackets == 0 {
		t.Error("the new layout sees no packets")
	}
}

// markProbe attaches a program that keeps the bits of every mark it sees on an interface.
func markProbe(t *testing.T, ns *netdev.Handle, ifname string) (marks func() uint32) {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	must(t, err)
	const markOffset = 8
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.Mov.Imm(asm.R1, 0), asm.StoreMem(asm.RFP, -4, asm.R1, asm.Word),
		asm.LoadMapPtr(asm.R1, m.FD()), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(), asm.JEq.Imm(asm.R0, 0, "out"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.Word), asm.LoadMem(asm.R2, asm.R6, markOffset, asm.Word),
		asm.Or.Reg(asm.R1, asm.R2), asm.StoreMem(asm.R0, 0, asm.R1, asm.Word),
		asm.Mov.Imm(asm.R0, -1).WithSymbol("out"), asm.Return()}})
	must(t, err)
	l, err := ns.LinkByName(ifname)
	must(t, err)
	must(t, ns.Run(func() error {
		k, err := link.AttachTCX(link.TCXOptions{Interface: l.Index, Program: p, Attach: ebpf.AttachTCXIngress})
		if err == nil {
			t.Cleanup(func() { k.Close() })
		}
		return err
	}))
	t.Cleanup(func() { p.Close(); m.Close() })
	return func() (v uint32) {
		must(t, m.Lookup(uint32(0), &v))
		return v
	}
}

// TestAggregatesTakeTheKernelLane: a port that asks for it gets its aggregates, or everything, through weft-vxlan; the secret mark
// stays on the host. Red when from_vxlan keeps the mark, or refuses what from_uplink let in.
func TestAggregatesTakeTheKernelLane(t *testing.T) {
	for _, ip6 := range []bool{false, true} {
		t.Run(map[bool]string{false: "underlay4", true: "underlay6"}[ip6], func(t *testing.T) {
			a, b := twoHosts(t, ip6)
			join(t, 7, a, b)
			w1, w2 := a.workload(7, 1, b), b.workload(7, 2, a)
			w2.echo()
			marks := markProbe(t, w2.ns, "eth0")
			must(t, w1.stream(w2, w2.ip4, 4<<20))
			if n := b.lane(LaneAggregate) + b.lane(LaneNoRoom); n != 0 {
				t.Errorf("%d packets took the kernel lane unasked", n)
			}
			put := func(flags FDBFlags) {
				must(t, b.dp.PutFDB([]FDBEntry{{FDBKey: FDBKey{7, w2.mac}, Ifindex: w2.ifindex, Flags: flags}}))
			}
			put(FDBPeer | FDBAggregatesByKernel)
			must(t, w1.stream(w2, w2.ip4, 4<<20))
			must(t, w1.stream(w2, w2.ip6, 4<<20))
			if b.lane(LaneAggregate) == 0 {
				t.Error("no aggregate took the kernel lane")
			}
			put(FDBAllByKernel)
			must(t, w1.ping(w2.ip4, 64))
			must(t, w1.ping(w2.ip6, 64))
			if b.lane(LaneAsked) == 0 {
				t.Error("nothing took the kernel lane when everything should")
			}
			if m := marks(); m != 0 {
				t.Errorf("the workload sees marks %#x", m)
			}
			a.balanced()
			b.balanced()
		})
	}
}

// TestOuterChecksum: a VTEP that wants checksums gets right ones, from the kernel lane, and b verifies them.
func TestOuterChecksum(t *testing.T) {
	for _, ip6 := range []bool{false, true} {
		t.Run(map[bool]string{false: "underlay4", true: "underlay6"}[ip6], func(t *testing.T) {
			a, b := twoHosts(t, ip6)
			join(t, 7, a, b)
			must(t, a.dp.PutVTEPs([]VTEP{{ID: 1, Addr: b.local.addr(), UDPPort: 4789, OuterChecksum: true}}))
			w1, w2 := a.workload(7, 1, b), b.workload(7, 2, a)
			w2.echo()
			must(t, w1.ping(w2.ip4, 64))
			must(t, w1.ping(w2.ip6, 1000))
			must(t, w1.stream(w2, w2.ip4, 4<<20))
			if a.lane(LaneChecksum) == 0 {
				t.Error("nothing left by the kernel lane")
			}
			a.balanced()
			b.balanced()
		})
	}
}

// TestReplicationReachesEveryVTEP: 300 VTEPs, of them some that the kernel lane must serve. Red when the bitmap's words are mixed up.
func TestReplicationReachesEveryVTEP(t *testing.T) {
	s := newScene(t, false)
	s.resolve()
	l, err := s.b.ns.LinkByName("up0")
	must(t, err)
	must(t, s.a.ns.ReplaceRoute(netdev.Route{Dst: netip.MustParsePrefix("10.99.0.0/16"), Hops: []netdev.Hop{{Index: int(s.a.uplink())}}}))
	var vteps []VTEP
	var ids []VTEPID
	for i := range 200 {
		v := VTEP{ID: VTEPID(i + 10), Addr: netip.AddrFrom4([4]byte{10, 99, 1, byte(i + 1)}), UDPPort: 4789}
		v.OuterChecksum = i%7 == 3
		must(t, s.a.ns.SetNeighbour(int(s.a.uplink()), v.Addr, l.MAC))
		vteps, ids = append(vteps, v), append(ids, v.ID)
	}
	must(t, s.a.dp.PutVTEPs(vteps))
	must(t, s.a.dp.PutNetwork(Network{VNI: 7, MTU: 1500, Remotes: ids}))
	var seen [256]atomic.Int64
	listen(t, s.b.ns, "up0", func(b []byte) bool {
		if tunnelled(b) && b[30] == 10 && b[31] == 99 && b[32] == 1 {
			seen[b[33]].Add(1)
		}
		return false
	})
	const rounds = 3
	for range rounds {
		send(t, s.w1.ns, "eth0", raw(macAll, s.w1.mac, testProtocol, 50))
	}
	missing := func() (list []int) {
		for i := range 200 {
			if seen[i+1].Load() != rounds {
				list = append(list, i)
			}
		}
		return list
	}
	await(t, "three copies at every VTEP", func() bool { return len(missing()) == 0 })
	s.a.balanced()
}

// TestTAPPort: frames from and to a TAP device.
func TestTAPPort(t *testing.T) {
	a, b := twoHosts(t, false)
	join(t, 7, a, b)
	w2 := b.workload(7, 2, a)
	f, err := a.ns.OpenTAP("tap0", false)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	must(t, a.ns.SetUp("tap0"))
	l, err := a.ns.LinkByName("tap0")
	must(t, err)
	mac := wire.MAC{2, 0, 0, 0, 0, 0x77}
	must(t, a.dp.AttachPort(Port{Ifindex: uint32(l.Index), ID: 9, UID: "tap", VNI: 7, MACs: []wire.MAC{mac}}))
	must(t, a.dp.PutFDB([]FDBEntry{{FDBKey: FDBKey{7, mac}, Ifindex: uint32(l.Index), Flags: FDBAggregatesByKernel}}))
	must(t, b.dp.PutFDB([]FDBEntry{{FDBKey: FDBKey{7, mac}, VTEP: 1}}))
	got := listen(t, w2.ns, "eth0", plain)
	_, err = f.Write(raw(w2.mac, mac, testProtocol, 50))
	must(t, err)
	await(t, "a frame of the TAP at w2", func() bool { return got.count.Load() == 1 })
	send(t, w2.ns, "eth0", raw(mac, w2.mac, testProtocol, 50))
	buf := make([]byte, 2000)
	f.SetReadDeadline(time.Now().Add(patience))
	for {
		n, err := f.Read(buf)
		if err != nil {
			t.Fatalf("no frame of w2 at the TAP: %v", err)
		}
		if n >= 14 && binary.BigEndian.Uint16(buf[12:]) == testProtocol && wire.MAC(buf[:6]) == mac {
			break
		}
	}
	a.balanced()
}

// TestRemoveLeavesNothing.
func TestRemoveLeavesNothing(t *testing.T) {
	a, b := twoHosts(t, false)
	join(t, 7, a, b)
	a.workload(7, 1, b)
	must(t, a.ns.Run(func() error { return Remove(a.cfg.PinRoot) }))
	must(t, a.ns.Run(func() error { return Remove(a.cfg.PinRoot) }))
	if _, err := os.Stat(a.cfg.PinRoot); !os.IsNotExist(err) {
		t.Errorf("pins are left: %v", err)
	}
	if _, err := a.ns.LinkByName(VXLANDevice); err == nil {
		t.Error("the device is left")
	}
	for _, where := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
		must(t, a.ns.Run(func() error {
			r, err := link.QueryPrograms(link.QueryOptions{Target: int(a.uplink()), Attach: where})
			if err == nil && len(r.Programs) > 0 {
				t.Errorf("programs are left on the uplink: %+v", r.Programs)
			}
			return err
		}))
	}
}
