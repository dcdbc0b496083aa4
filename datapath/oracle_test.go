package datapath

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/datapath/oracle"
	"github.com/weftnet/weft/internal/testenv"
	"github.com/weftnet/weft/wire"
)

// The differential test: the programs and the oracle on the same plans and packets. `make soak` runs it longer:
//
//	go test ./datapath -run TestOracle -oracle.packets 10000000 -oracle.seed 7
var (
	oraclePackets = flag.Int("oracle.packets", envInt("WEFT_ORACLE_PACKETS", 10_000), "packets to compare with the oracle")
	oracleSeed    = flag.Uint64("oracle.seed", uint64(envInt("WEFT_ORACLE_SEED", 0)), "seed of plans and packets; 0 takes a new one")
)

func envInt(name string, def int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return def
}

// packetsPerPlan is how long a random plan lasts.
const packetsPerPlan = 100

// duel is one host with four ports, and what listens at every place where a packet may come out:
//
//	port 0..3 eth0 --- weftpN [host a] up0 --- up0 [silent namespace]
type duel struct {
	t     testing.TB
	a     *testHost
	ports [4]*workload
	taps  map[uint32]*tap // by interface of a: ports and uplink
	mac   wire.MAC        // of a's up0
	hops  map[netip.Addr]wire.MAC
	flows map[string]uint16
	rng   *rand.Rand
	host  uint32 // the uplink
	// kernel: more packets are for the kernel lane.
	kernel bool
	// copies are the counts of copies dropped when they were last looked at: a packet that drops some unasked shows at the next flood.
	copies map[string]int
	// covered counts the outcomes, so that a test that meets only drops is noticed.
	covered map[string]int
}

// tap reads every frame that comes in on an interface.
type tap struct {
	fd, index int
	buf       []byte
}

func newTap(t *testing.T, ns *netdev.Handle, ifname string) *tap {
	t.Helper()
	l, err := ns.LinkByName(ifname)
	must(t, err)
	s := &tap{index: l.Index, buf: make([]byte, 65536)}
	must(t, ns.Run(func() (err error) {
		if s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
		unix.SetsockoptInt(s.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
		return unix.Bind(s.fd, &unix.SockaddrLinklayer{Protocol: 0x0300 /* ETH_P_ALL */, Ifindex: l.Index})
	}))
	t.Cleanup(func() { unix.Close(s.fd) })
	return s
}

// next is a frame that is there, or nil.
func (s *tap) next() []byte {
	for {
		n, _, err := unix.Recvfrom(s.fd, s.buf, 0)
		if err != nil {
			return nil
		}
		if !isAnswer(s.buf[:n]) {
			return bytes.Clone(s.buf[:n])
		}
	}
}

// isAnswer knows the ICMP messages about what is too big: they are not modelled, and have tests of their own.
func isAnswer(b []byte) bool {
	return len(b) >= 62 && (b[12] == 0x08 && b[13] == 0 && b[23] == 1 && b[34] == 3 && b[35] == 4 || b[12] == 0x86 && b[20] == 58 && b[54] == 2)
}

// waitNext waits for one.
func (s *tap) waitNext() []byte {
	for deadline := time.Now().Add(2 * time.Second); ; {
		if b := s.next(); b != nil || time.Now().After(deadline) {
			return b
		}
		unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}, 100)
	}
}

var (
	duelOwn4, duelOwn6 = netip.MustParseAddr("10.99.0.1"), netip.MustParseAddr("fd99::1")
	// duelAddrs are of VTEPs; the last two have no route.
	duelAddrs = []netip.Addr{netip.MustParseAddr("10.99.0.2"), netip.MustParseAddr("10.99.0.3"), netip.MustParseAddr("fd99::2"),
		netip.MustParseAddr("fd99::3"), netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8::1")}
	duelHooks = map[string]bpf.TCProgram{"from_port": bpf.TCProgramFROM_PORT, "from_uplink": bpf.TCProgramFROM_UPLINK}
	duelVNIs  = []wire.VNI{0, 7, 8, wire.MaxVNI}
)

func newDuel(t *testing.T, seed uint64) *duel {
	nsA, nsB := namespace(t, "a"), namespace(t, "b")
	underlay(t, nsA, nsB)
	far, err := nsB.LinkByName("up0")
	must(t, err)
	must(t, nsB.SetAddresses("up0", nil))
	must(t, nsB.Quiet("up0"))
	d := &duel{t: t, taps: map[uint32]*tap{}, hops: map[netip.Addr]wire.MAC{}, flows: map[string]uint16{}, covered: map[string]int{},
		rng: rand.New(rand.NewPCG(seed, 1))}
	d.a = newHost(t, nsA, "a", Local{Addr4: duelOwn4, Addr6: duelOwn6, UDPPort: 4789, UplinkMTU: 1600})
	up, err := nsA.LinkByName("up0")
	must(t, err)
	d.mac, d.host = up.MAC, uint32(up.Index)
	for i, addr := range duelAddrs[:4] {
		d.hops[addr] = far.MAC
		if i%2 == 1 {
			d.hops[addr] = wire.MAC{2, 0xbb, 0, 0, 0, byte(i)}
		}
		must(t, nsA.SetNeighbour(up.Index, addr, d.hops[addr]))
	}
	for i := range d.ports {
		w := d.a.workload(7, byte(i+1), nil)
		must(t, w.ns.Quiet("eth0"))
		must(t, w.ns.SetAddresses("eth0", nil)) // copies are really delivered, and nobody must answer
		d.ports[i] = w
		d.taps[w.ifindex] = newTap(t, w.ns, "eth0")
	}
	must(t, nsA.SetFeature("up0", netdev.TX, false)) // or the tap sees checksums that are still to be filled in
	d.taps[d.host] = newTap(t, nsB, "up0")
	return d
}

// plan makes a random one: mostly sensible, sometimes not.
func (d *duel) plan() *oracle.Plan {
	r := d.rng
	p := &oracle.Plan{Addr4: duelOwn4, Addr6: duelOwn6, UDPPort: 4789, UplinkMTU: []int{1600, 1600, 1550, 700, 600}[r.IntN(5)],
		UplinkMAC: d.mac, NextHops: d.hops, VTEPs: map[uint32]oracle.VTEP{}, Networks: map[wire.VNI]oracle.Network{},
		FDB: map[oracle.FDBKey]oracle.FDBEntry{}, Accepts: map[oracle.Accept]bool{}, Ports: map[uint32]oracle.Port{}, Reserved: ReservedMAC}
	switch r.IntN(4) {
	case 0:
		p.Addr4 = netip.Addr{}
	case 1:
		p.Addr6 = netip.Addr{}
	}
	for id := uint32(1); id <= 8; id++ {
		if r.IntN(8) == 0 {
			continue
		}
		v := oracle.VTEP{Addr: duelAddrs[(int(id)-1)%6], UDPPort: 4789, OuterChecksum: r.IntN(6) == 0}
		if r.IntN(6) == 0 {
			v.UDPPort = 8472
		}
		p.VTEPs[id] = v
	}
	for i, w := range d.ports {
		if r.IntN(12) == 0 {
			continue
		}
		o := oracle.Port{VNI: duelVNIs[1+r.IntN(2)*r.IntN(3)%3], Held: r.IntN(10) == 0, Unguarded: r.IntN(8) == 0, MACs: []wire.MAC{w.mac}}
		for range r.IntN(3) {
			o.MACs = append(o.MACs, d.macOf(i+10))
		}
		p.Ports[w.ifindex] = o
	}
	for _, vni := range duelVNIs {
		if r.IntN(6) == 0 {
			continue
		}
		n := oracle.Network{MTU: []int{1500, 1500, 1500, 576, 100}[r.IntN(5)], Unknown: oracle.Unknown(r.IntN(3))}
		for _, w := range d.ports {
			if r.IntN(3) > 0 {
				n.LocalPorts = append(n.LocalPorts, w.ifindex)
			}
		}
		if r.IntN(8) == 0 {
			n.LocalPorts = append(n.LocalPorts, 1)
		}
		for id := uint32(1); id <= 9; id++ {
			if r.IntN(3) == 0 {
				n.Remotes = append(n.Remotes, id)
			}
		}
		if len(n.Remotes) > 0 {
			n.External = r.IntN(len(n.Remotes) + 1)
		}
		p.Networks[vni] = n
		for _, addr := range append(slices.Clone(duelAddrs), duelOwn4, duelOwn6) {
			if r.IntN(3) > 0 {
				p.Accepts[oracle.Accept{VNI: vni, Addr: addr}] = true
			}
		}
		for i := range 16 {
			k := oracle.FDBKey{VNI: vni, MAC: d.macOf(i)}
			e := oracle.FDBEntry{}
			switch r.IntN(5) {
			case 0:
				continue
			case 1, 2:
				e.VTEP = uint32(1 + r.IntN(9))
			default:
				e.Ifindex = d.ports[i%4].ifindex
				if o, ok := p.Ports[e.Ifindex]; ok && o.VNI != vni && r.IntN(4) > 0 {
					continue
				}
				e.ByKernel, e.AggregatesByKernel = r.IntN(6) == 0, r.IntN(3) == 0
				if r.IntN(20) == 0 {
					e.Ifindex = 1
				}
			}
			p.FDB[k] = e
		}
	}
	return p
}

// macOf is one of the MACs that plans and packets use: the ports' own come first.
func (d *duel) macOf(i int) wire.MAC { return wire.MAC{2, 0, 0, 0, 0, byte(i%16 + 1)} }

// apply makes the tables what the plan says, and nothing else.
func (d *duel) apply(p *oracle.Plan) {
	t, dp := d.t, d.a.dp
	t.Helper()
	must(t, dp.SetLocal(Local{Addr4: p.Addr4, Addr6: p.Addr6, UDPPort: p.UDPPort, UplinkMTU: p.UplinkMTU}))
	var vteps []VTEP
	var gone []VTEPID
	for id := uint32(1); id <= 9; id++ {
		if v, ok := p.VTEPs[id]; ok {
			vteps = append(vteps, VTEP{ID: VTEPID(id), Addr: v.Addr, UDPPort: v.UDPPort, OuterChecksum: v.OuterChecksum})
		} else {
			gone = append(gone, VTEPID(id))
		}
	}
	must(t, dp.DeleteVTEPs(gone))
	must(t, dp.PutVTEPs(vteps))
	for _, vni := range duelVNIs {
		n, ok := p.Networks[vni]
		if !ok {
			must(t, dp.DeleteNetwork(vni))
			continue
		}
		e := Network{VNI: vni, MTU: n.MTU, Unknown: UnknownUnicast(n.Unknown), LocalPorts: n.LocalPorts, External: n.External}
		for _, id := range n.Remotes {
			e.Remotes = append(e.Remotes, VTEPID(id))
		}
		must(t, dp.PutNetwork(e))
	}
	for _, w := range d.ports {
		o, ok := p.Ports[w.ifindex]
		if !ok {
			must(t, dp.DetachPort(w.ifindex))
			continue
		}
		must(t, dp.AttachPort(Port{Ifindex: w.ifindex, ID: w.id, UID: "uid", VNI: o.VNI, Held: o.Held, Unguarded: o.Unguarded, MACs: o.MACs}))
	}
	d.applyKeys(p)
}

func (d *duel) applyKeys(p *oracle.Plan) {
	t, dp := d.t, d.a.dp
	t.Helper()
	var deleted []FDBKey
	var entries []FDBEntry
	have, err := dp.FDB()
	must(t, err)
	for _, e := range have {
		if _, ok := p.FDB[oracle.FDBKey(e.FDBKey)]; !ok {
			deleted = append(deleted, e.FDBKey)
		}
	}
	for k, e := range p.FDB {
		f := FDBEntry{FDBKey: FDBKey(k), VTEP: VTEPID(e.VTEP), Ifindex: e.Ifindex}
		if e.Ifindex > 1 {
			f.Flags = FDBPeer
		}
		if e.ByKernel {
			f.Flags |= FDBAllByKernel
		}
		if e.AggregatesByKernel {
			f.Flags |= FDBAggregatesByKernel
		}
		entries = append(entries, f)
	}
	must(t, dp.DeleteFDB(deleted))
	must(t, dp.PutFDB(entries))
	accepts, err := dp.Accepts()
	must(t, err)
	must(t, dp.DeleteAccepts(slices.DeleteFunc(accepts, func(a Accept) bool { return p.Accepts[oracle.Accept(a)] })))
	var wanted []Accept
	for a := range p.Accepts {
		wanted = append(wanted, Accept(a))
	}
	must(t, dp.PutAccepts(wanted))
	d.nextJiffy()
}

// nextJiffy waits until the programs ask the kernel for next hops again, which they do once a jiffy.
func (d *duel) nextJiffy() {
	tick := func() int64 {
		var ts unix.Timespec
		must(d.t, unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &ts))
		return ts.Nano()
	}
	for begin := tick(); tick() == begin; {
		runtime.Gosched()
	}
}

// shot is one packet at one hook.
type shot struct {
	hook    string // from_port, from_uplink
	ifindex uint32
	oracle.Packet
}

func (s shot) String() string {
	return fmt.Sprintf("%s on interface %d, segment size %d, %d octets:\n%x", s.hook, s.ifindex, s.SegmentSize, len(s.Data), s.Data)
}

// compare runs one packet through both and says how they differ; empty if they do not.
func (d *duel) compare(p *oracle.Plan, s shot) string {
	var o outcome
	for range 100 {
		d.drain()
		var err error
		if o, err = d.shoot(s); err != nil {
			return "" // BPF_PROG_TEST_RUN refuses frames that are shorter than their protocol's header
		}
		if o.verdict.Program == duelHooks[s.hook] {
			break
		}
		// The verdict is of another program, on a packet that the host's own kernel sent meanwhile.
		d.copies = d.copyDrops()
	}
	choose := func([]byte) (uint16, uint32) { return 49152, 0 } // checked apart
	var want oracle.Result
	if s.hook == "from_port" {
		want = p.FromPort(s.ifindex, s.Packet, choose)
	} else {
		want = p.FromUplink(s.Packet)
	}
	if s.SegmentSize > 0 && (want.Verdict == oracle.Flooded || len(want.CopyDrops) > 0 || LaneReason(o.verdict.Lane) == LaneNoRoom ||
		s.hook == "from_port" && want.Verdict == oracle.Encapsulated) {
		d.copies = d.copyDrops()
		return "" // the test run's aggregates have no GSO type, and the kernel sends, lengthens and shortens none such
	}
	d.covered[strings.TrimSpace(want.Verdict.String()+" "+want.Reason+want.Lane)]++
	got := DropReason(o.verdict.Reason).String()
	if o.verdict.Reason == 0 {
		got = ""
	}
	switch {
	case want.Reason != got:
		return fmt.Sprintf("oracle: %s %s; datapath: %s", want.Verdict, want.Reason, o)
	case want.Lane != "" && want.Verdict != oracle.Flooded && want.Lane != LaneReason(o.verdict.Lane).String():
		return fmt.Sprintf("oracle: %s by the kernel lane (%s); datapath: %s", want.Verdict, want.Lane, o)
	case want.Lane == "" && o.verdict.Lane != 0 && want.Verdict != oracle.Dropped:
		return fmt.Sprintf("oracle: %s; datapath: %s", want.Verdict, o)
	}
	if want.Verdict == oracle.Flooded || len(want.CopyDrops) > 0 && want.Verdict == oracle.Dropped {
		before := d.copies
		d.copies = d.copyDrops()
		if n := diffCounts(d.copies, before); !slices.Equal(n, counted(want.CopyDrops)) {
			return fmt.Sprintf("oracle: copies dropped %v; datapath: %v", counted(want.CopyDrops), n)
		}
	}
	return d.compareCopies(s, want, o)
}

func (d *duel) compareCopies(s shot, want oracle.Result, o outcome) string {
	kind := o.verdict.Verdict
	switch want.Verdict {
	case oracle.Dropped:
		return d.surplus()
	case oracle.Passed:
		if kind != bpf.TCVerdictKindV_PASSED || !bytes.Equal(o.data, want.Data) {
			return fmt.Sprintf("oracle: passed as %x\ndatapath: %s as %x", want.Data, o, o.data)
		}
		if marked := o.mark == d.a.dp.local.Mark; marked != (want.Lane != "") {
			return fmt.Sprintf("oracle: passed, lane %q; datapath: mark %#x", want.Lane, o.mark)
		}
		return d.surplus()
	case oracle.Delivered:
		if to := want.Deliveries[0]; kind != bpf.TCVerdictKindV_DELIVERED || o.verdict.Ifindex != to.Ifindex || !bytes.Equal(o.data, to.Frame) {
			return fmt.Sprintf("oracle: delivered to %d as %x\ndatapath: %s as %x", to.Ifindex, to.Frame, o, o.data)
		}
		return d.surplus()
	case oracle.Encapsulated:
		tunnel := want.Tunnels[0]
		if kind != bpf.TCVerdictKindV_ENCAPSULATED {
			return fmt.Sprintf("oracle: encapsulated; datapath: %s", o)
		}
		if tunnel.Kernel {
			if !bytes.Equal(o.data, s.Data) {
				return fmt.Sprintf("the frame for the kernel lane is changed: %x", o.data)
			}
			return d.surplus()
		}
		if why := d.sameTunnel(tunnel, s.Data, o.data, s.SegmentSize == 0); why != "" {
			return why
		}
		return d.surplus()
	}
	return d.compareFlood(s, want, o)
}

// compareFlood finds every copy: all but the last are really sent.
func (d *duel) compareFlood(s shot, want oracle.Result, o outcome) string {
	kind := o.verdict.Verdict
	if tunnelled := len(want.Tunnels) > 0; tunnelled != (kind == bpf.TCVerdictKindV_ENCAPSULATED) || tunnelled == (kind == bpf.TCVerdictKindV_DELIVERED) {
		return fmt.Sprintf("oracle: flooded to %d local ports and %d VTEPs; datapath: %s", len(want.Deliveries), len(want.Tunnels), o)
	}
	for _, to := range want.Deliveries {
		if got := d.taps[to.Ifindex].waitNext(); !bytes.Equal(got, to.Frame) {
			return fmt.Sprintf("oracle: a copy for interface %d as %x\ndatapath: %x", to.Ifindex, to.Frame, got)
		}
	}
	left := slices.Clone(want.Tunnels)
	match := func(packet []byte) string {
		why := "nobody expected it"
		for i, t := range left {
			if why = d.sameTunnel(t, s.Data, packet, true); why == "" {
				left = slices.Delete(left, i, i+1)
				return ""
			}
		}
		return why
	}
	if o.verdict.Ifindex == d.host && len(o.data) > len(s.Data) {
		if why := match(o.data); why != "" {
			return "the last copy: " + why
		}
	}
	for len(left) > 0 {
		got := d.nextTunnel()
		if got == nil {
			return fmt.Sprintf("%d copies for VTEPs did not come, the first to %x", len(left), left[0].Packet)
		}
		if why := match(got); why != "" {
			return "a copy on the uplink: " + why
		}
	}
	return d.surplus()
}

// sameTunnel compares octets where the standard leaves no choice, and checks the choices.
func (d *duel) sameTunnel(want oracle.Tunnel, inner, got []byte, portToo bool) string {
	if len(got) != len(want.Packet) {
		return fmt.Sprintf("oracle: %x\ndatapath: %x", want.Packet, got)
	}
	w, g := bytes.Clone(want.Packet), bytes.Clone(got)
	udp := 34
	if g[12] == 0x86 {
		udp = 54
		label := binary.BigEndian.Uint32(g[14:]) & 0xfffff
		if label == 0 {
			return fmt.Sprintf("no flow label (RFC 6438): %x", got)
		}
		w[15], w[16], w[17] = w[15]&0xf0|g[15]&0x0f, g[16], g[17]
	} else if want.Kernel { // the identification is the kernel's choice, and the checksum follows
		copy(w[18:20], g[18:20])
		w[24], w[25] = 0, 0
		binary.BigEndian.PutUint16(w[24:], ^sum16(w[14:34]))
	}
	port := binary.BigEndian.Uint16(g[udp:])
	if port < 49152 {
		return fmt.Sprintf("outer source port %d is below 49152: %x", port, got)
	}
	copy(w[udp:udp+2], g[udp:udp+2])
	if want.Checksum {
		pseudo := append(bytes.Clone(g[26:34]), 0, 17, g[udp+4], g[udp+5])
		if udp == 54 {
			pseudo = append(bytes.Clone(g[22:54]), 0, 17, g[udp+4], g[udp+5])
		}
		pseudo = append(pseudo, g[udp:]...)
		if len(pseudo)%2 == 1 {
			pseudo = append(pseudo, 0)
		}
		if sum16(pseudo) != 0xffff || g[udp+6]|g[udp+7] == 0 {
			return fmt.Sprintf("wrong UDP checksum: %x", got)
		}
		copy(w[udp+6:udp+8], g[udp+6:udp+8])
	}
	if !bytes.Equal(w, g) {
		return fmt.Sprintf("oracle: %x\ndatapath: %x", w, g)
	}
	if flow, ok := oracle.FlowOf(inner); ok && portToo && !want.Kernel {
		if old, ok := d.flows[flow]; ok && old != port {
			return fmt.Sprintf("one flow with the source ports %d and %d: %x", old, port, got)
		}
		if d.flows[flow] = port; len(d.flows) > 100_000 {
			clear(d.flows)
		}
	}
	return ""
}

// nextTunnel is the next tunnel packet at the far end of the uplink.
func (d *duel) nextTunnel() []byte {
	for {
		b := d.taps[d.host].waitNext()
		if b == nil || isTunnel(b) {
			return b
		}
	}
}

func isTunnel(b []byte) bool {
	at := 36
	if len(b) > 56 && b[12] == 0x86 {
		at = 56
	}
	if len(b) < at+2 || b[12] == 0x86 && b[20] != 17 || b[12] == 8 && (b[13] != 0 || b[23] != 17) {
		return false
	}
	port := binary.BigEndian.Uint16(b[at:])
	return port == 4789 || port == 8472
}

// surplus reports a frame that nobody should have got. What a packet sends is sent before the program ends; what is not there
// now is found by the next call, and shown there.
func (d *duel) surplus() string {
	for ifindex, s := range d.taps {
		for b := s.next(); b != nil; b = s.next() {
			if ifindex != d.host || isTunnel(b) {
				return fmt.Sprintf("a frame too many on interface %d: %x", ifindex, b)
			}
		}
	}
	return ""
}

func (d *duel) drain() {
	for _, s := range d.taps {
		for s.next() != nil {
		}
	}
}

// shoot is testHost.run, of packets that the kernel may refuse to run.
func (d *duel) shoot(s shot) (o outcome, err error) {
	skb := skbFrom(s.ifindex)
	skbGSO(uint32(s.SegmentSize))(skb)
	o.data = make([]byte, len(s.Data)+256)
	opts := &ebpf.RunOptions{Data: s.Data, DataOut: o.data, Context: skb, ContextOut: make([]byte, 192)}
	must(d.t, d.a.dp.maps["verdicts"].Put(uint32(0), bpf.TCVerdict{Program: 99}))
	if _, err := d.a.dp.progs[s.hook].Run(opts); err != nil {
		return o, err
	}
	o.data = opts.DataOut
	o.mark = binary.NativeEndian.Uint32(opts.ContextOut.([]byte)[8:])
	return o, d.a.dp.maps["verdicts"].Lookup(uint32(0), &o.verdict)
}

// copyDrops are the counts of the reasons for copies.
func (d *duel) copyDrops() map[string]int {
	n := map[string]int{}
	list, err := d.a.dp.Drops()
	must(d.t, err)
	for _, c := range list {
		if c.Reason.IsCopy() {
			n[c.Reason.String()] += int(c.Packets)
		}
	}
	return n
}

func counted(reasons []string) []string {
	list := slices.Clone(reasons)
	slices.Sort(list)
	return list
}

func diffCounts(now, before map[string]int) (list []string) {
	for _, r := range slices.Sorted(maps.Keys(now)) {
		for range now[r] - before[r] {
			list = append(list, r)
		}
	}
	return list
}

// packet makes one for a plan: something sensible, then with luck something else.
func (d *duel) packet(p *oracle.Plan) shot {
	r := d.rng
	w := d.ports[r.IntN(4)]
	if r.IntN(2) == 0 {
		src := w.mac
		if r.IntN(10) == 0 {
			src = d.someMAC()
		}
		return shot{"from_port", w.ifindex, d.segments(d.mutate(d.inner(src), 14), 0)}
	}
	at := 0
	outer := d.outer(p, &at)
	b := d.twist(d.mutate(append(outer, d.mutate(d.inner(d.someMAC()), 0)...), at), at)
	return shot{"from_uplink", d.host, d.segments(b, at+16)}
}

func (d *duel) someMAC() wire.MAC {
	r := d.rng
	switch r.IntN(24) {
	case 0:
		return wire.BroadcastMAC
	case 1:
		return wire.MAC{1, 0, 0x5e, 0, 0, byte(r.IntN(256))}
	case 2:
		return wire.MAC{1, 0x80, 0xc2, 0, 0, byte(r.IntN(20))}
	case 3:
		return wire.MAC{}
	case 4:
		return ReservedMAC
	case 5:
		return wire.MAC{2, 0, 0, 0, byte(r.IntN(3)), byte(r.IntN(256))}
	}
	return d.macOf(r.IntN(16))
}

// inner is a workload's frame.
func (d *duel) inner(src wire.MAC) []byte {
	r := d.rng
	dst := d.someMAC()
	if r.IntN(6) == 0 {
		dst = wire.BroadcastMAC
	}
	payload := make([]byte, []int{0, 1, 18, 100, 522, 523, 1400}[r.IntN(7)])
	for i := range payload {
		payload[i] = byte(r.Uint32())
	}
	addr4 := func() netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(8))}) }
	addr6 := func() netip.Addr { return netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(r.IntN(8))}) }
	f := wire.Flow{SrcMAC: src, DstMAC: dst, Src: addr4(), Dst: addr4(), TOS: uint8(r.IntN(2) * r.IntN(256)), TTL: uint8(r.IntN(256)), DF: r.IntN(2) == 0}
	if r.IntN(2) == 0 {
		f.Src, f.Dst = addr6(), addr6()
	}
	switch r.IntN(8) {
	case 0, 1:
		return raw(dst, src, []uint16{0x0806, 46, 0x88b5, 0x8847, 0x8100, 0x88a8, 0x9100}[r.IntN(5+2*r.IntN(2))], len(payload)+28)
	case 2:
		if r.IntN(3) > 0 {
			break
		}
		f.VLANs = []wire.VLAN{{ID: uint16(r.IntN(4096))}}
		if r.IntN(2) == 0 {
			f.VLANs = append(f.VLANs, wire.VLAN{ID: 7})
		}
		return f.UDP(uint16(r.IntN(4)), 53, payload)
	case 3, 4:
		return f.TCP(wire.TCP{Src: uint16(r.IntN(4)), Dst: 80}, payload)
	}
	return f.UDP(uint16(r.IntN(4)), 53, payload)
}

// outer is what stands before an inner frame; mutate puts the lengths in.
func (d *duel) outer(p *oracle.Plan, at *int) []byte {
	r := d.rng
	src, dst := duelAddrs[r.IntN(len(duelAddrs))], p.Addr4
	if src.Is6() != p.Addr6.IsValid() && src.Is4() != p.Addr4.IsValid() {
		src = duelAddrs[r.IntN(len(duelAddrs))]
	}
	if r.IntN(12) == 0 {
		src = []netip.Addr{duelOwn4, duelOwn6}[r.IntN(2)]
	}
	if src.Is6() {
		dst = p.Addr6
	}
	if !dst.IsValid() || r.IntN(20) == 0 {
		dst = map[bool]netip.Addr{false: duelOwn4, true: duelOwn6}[src.Is6()]
	}
	port := uint16(4789)
	if r.IntN(30) == 0 {
		port = uint16(4788 + r.IntN(3))
	}
	mac := d.mac
	if r.IntN(30) == 0 {
		mac = wire.BroadcastMAC
	}
	vxlan := []byte{8, 0, 0, 0, 0, 0, 0, 0}
	if r.IntN(3) == 0 {
		binary.BigEndian.PutUint64(vxlan, r.Uint64())
		vxlan[0] |= byte(8 * (1 - r.IntN(8)/7))
	}
	vni := duelVNIs[[]int{0, 1, 1, 1, 2, 3}[r.IntN(6)]]
	vxlan[4], vxlan[5], vxlan[6] = byte(vni>>16), byte(vni>>8), byte(vni)
	b := wire.Flow{SrcMAC: wire.MAC{2, 0xbb}, DstMAC: mac, Src: src, Dst: dst, TOS: uint8(r.IntN(2) * r.IntN(256))}.UDP(uint16(r.IntN(65536)), port, vxlan)
	*at = len(b) - 16
	if keep := r.IntN(8); keep > 0 && !d.kernel || keep > 5 {
		b[*at+6], b[*at+7] = 0, 0
	}
	if d.kernel {
		b = clearTOS(b)
	}
	return b
}

// mutate changes octets, cuts and pads. at is where the outer UDP header is, if there is one.
func (d *duel) mutate(b []byte, at int) []byte {
	r := d.rng
	padding := 0
	if r.IntN(3) == 0 {
		for range 1 + r.IntN(2) {
			switch i := r.IntN(max(1, min(len(b), 90))); r.IntN(6) {
			case 0, 1, 2:
				if len(b) > 0 {
					b[i] ^= 1 << r.IntN(8)
				}
			case 3:
				if len(b) > 0 {
					b[i] = byte(r.Uint32())
				}
			case 4:
				b = b[:r.IntN(len(b)+1)]
			case 5:
				padding = r.IntN(10)
			}
		}
	}
	// The outer lengths are right again, most of the time.
	if at > 14 && len(b) >= at+8 && r.IntN(12) > 0 {
		binary.BigEndian.PutUint16(b[at+4:], uint16(len(b)-at))
		if at == 34 {
			binary.BigEndian.PutUint16(b[16:], uint16(len(b)-14))
			b[24], b[25] = 0, 0
			binary.BigEndian.PutUint16(b[24:], ^sum16(b[14:34]))
		} else {
			binary.BigEndian.PutUint16(b[18:], uint16(len(b)-at))
		}
	}
	if at > 14 && len(b) >= at+16 && b[at+6]|b[at+7] != 0 && r.IntN(4) > 0 {
		b[at+6], b[at+7] = 0, 0
		src, dst := netip.AddrFrom4([4]byte(b[26:30])), netip.AddrFrom4([4]byte(b[30:34]))
		if at == 54 {
			src, dst = netip.AddrFrom16([16]byte(b[22:38])), netip.AddrFrom16([16]byte(b[38:54]))
		}
		binary.BigEndian.PutUint16(b[at+6:], wire.TransportChecksum(src, dst, wire.ProtoUDP, b[at:]))
	}
	return append(b, make([]byte, padding)...)
}

// clearTOS: the kernel's device does what RFC 6040 says with the outer ECN, and the other lanes do not yet.
func clearTOS(b []byte) []byte {
	if b[12] == 0x86 {
		b[14], b[15] = 0x60, b[15]&0x0f
		return b
	}
	b[15] = 0
	return b
}

// twist breaks or bends the outer headers in one way that random octets seldom find, and leaves the rest right.
func (d *duel) twist(b []byte, at int) []byte {
	r := d.rng
	if len(b) < at+8 || r.IntN(5) > 0 {
		return b
	}
	off := []int{-1, 1, -8, 8, -14, 100, r.IntN(65536)}[r.IntN(7)]
	if r.IntN(3) == 0 {
		binary.BigEndian.PutUint16(b[at+4:], binary.BigEndian.Uint16(b[at+4:])+uint16(off))
		return b
	}
	if at == 54 {
		switch r.IntN(3) {
		case 0:
			binary.BigEndian.PutUint16(b[18:], binary.BigEndian.Uint16(b[18:])+uint16(off))
		default: // a fragment header: first, atomic or later
			header := []byte{17, 0, 0, byte(r.IntN(2)) | byte(r.IntN(4)/3*8), 0, 0, 0, 1}
			b[20] = 44
			b = slices.Insert(b, 54, header...)
			binary.BigEndian.PutUint16(b[18:], uint16(len(b)-54))
		}
		return b
	}
	switch r.IntN(6) {
	case 0:
		b[20] |= 0x20 // more fragments
	case 1:
		b[21] = byte(r.IntN(3))
	case 2:
		binary.BigEndian.PutUint16(b[16:], binary.BigEndian.Uint16(b[16:])+uint16(off))
	case 3:
		b[14] = byte(r.Uint32())
	default: // options
		n := 1 + r.IntN(10)
		b[14] = 0x45 + byte(n)
		b = slices.Insert(b, 34, bytes.Repeat([]byte{1}, 4*n)...)
		binary.BigEndian.PutUint16(b[16:], uint16(len(b)-14))
	}
	if end := 14 + int(b[14]&15)*4; end >= 34 && end <= len(b) {
		b[24], b[25] = 0, 0
		binary.BigEndian.PutUint16(b[24:], ^sum16(b[14:end]))
	}
	return b
}

// segments makes an aggregate of some long TCP and UDP packets; inner is where the workload's frame begins. The kernel has no others.
func (d *duel) segments(b []byte, inner int) oracle.Packet {
	p := oracle.Packet{Data: b}
	if len(b) < inner+1200 || d.rng.IntN(3) > 0 {
		return p
	}
	f, err := wire.ParseFrame(b[inner:])
	if err == nil && (f.Layers.Has(wire.LayerTCP) || f.Layers.Has(wire.LayerUDP)) && len(f.VLANs) == 0 {
		p.SegmentSize = 400 + d.rng.IntN(200)
	}
	return p
}

// TestOracle: any packet, any plan, the same verdict and the same octets. Red when, for instance, from_uplink forgets the accept
// table, or an outer header misses DF.
func TestOracle(t *testing.T) {
	testenv.Require(t, "root", "bpf")
	seed := *oracleSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d: repeat with -oracle.seed %d or WEFT_ORACLE_SEED", seed, seed)
	d := newDuel(t, seed)
	must(t, d.a.ns.Lock()) // BPF_PROG_TEST_RUN looks for interfaces in the caller's namespace
	const most = 8
	failures := 0
	for n := 0; n < *oraclePackets && failures < most; n += packetsPerPlan {
		p := d.plan()
		d.apply(p)
		for i := range packetsPerPlan {
			s := d.packet(p)
			why := d.compare(p, s)
			if why == "" {
				continue
			}
			failures++
			t.Errorf("packet %d: %s", n+i, d.explain(p, s, why))
			d.apply(p)
			if failures >= most {
				break
			}
		}
	}
	d.a.balanced()
	for _, k := range []string{"delivered", "encapsulated", "flooded", "passed checksum"} {
		if *oraclePackets >= 10_000 && d.covered[k] == 0 {
			t.Errorf("no packet was %s: the generator is broken", k)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(d.covered)) {
		t.Logf("%6d %s", d.covered[k], k)
	}
}

// explain makes a difference as small as it gets, and shows it.
func (d *duel) explain(p *oracle.Plan, s shot, why string) string {
	differs := func(p *oracle.Plan, s shot) bool {
		d.apply(p)
		d.copies = d.copyDrops()
		return d.compare(p, s) != ""
	}
	if differs(p, s) {
		p = shrinkPlan(p, func(q *oracle.Plan) bool { return differs(q, s) })
		s = shrinkPacket(s, func(q shot) bool { return differs(p, q) })
		d.apply(p)
		d.copies = d.copyDrops()
		if now := d.compare(p, s); now != "" {
			why = now
		}
	} else {
		why += "\n(it does not happen again)"
	}
	return fmt.Sprintf("%s\n%s\nplan: %s", why, s, planText(p))
}

// shrinkPlan leaves out every entry without which the difference stays.
func shrinkPlan(p *oracle.Plan, differs func(*oracle.Plan) bool) *oracle.Plan {
	q := *p
	q.VTEPs, q.FDB, q.Networks = maps.Clone(p.VTEPs), maps.Clone(p.FDB), maps.Clone(p.Networks)
	q.Accepts, q.Ports = maps.Clone(p.Accepts), maps.Clone(p.Ports)
	shrinkMap(q.FDB, func() bool { return differs(&q) })
	shrinkMap(q.Accepts, func() bool { return differs(&q) })
	shrinkMap(q.Networks, func() bool {
		for k := range q.FDB {
			if _, ok := q.Networks[k.VNI]; !ok {
				return false
			}
		}
		for k := range q.Accepts {
			if _, ok := q.Networks[k.VNI]; !ok {
				return false
			}
		}
		return differs(&q)
	})
	shrinkMap(q.VTEPs, func() bool { return differs(&q) })
	shrinkMap(q.Ports, func() bool { return differs(&q) })
	return &q
}

func shrinkMap[K comparable, V any](m map[K]V, differs func() bool) {
	for k, v := range maps.Clone(m) {
		delete(m, k)
		if !differs() {
			m[k] = v
		}
	}
}

// shrinkPacket cuts from the end and zeroes octets.
func shrinkPacket(s shot, differs func(shot) bool) shot {
	for step := len(s.Data) / 2; step > 0; step /= 2 {
		for len(s.Data) > step {
			q := s
			q.Data = s.Data[:len(s.Data)-step]
			if !differs(q) {
				break
			}
			s = q
		}
	}
	for i := range min(len(s.Data), 120) {
		q := s
		q.Data = bytes.Clone(s.Data)
		if q.Data[i] = 0; s.Data[i] != 0 && differs(q) {
			s = q
		}
	}
	return s
}

func planText(p *oracle.Plan) string {
	return fmt.Sprintf("local %s %s mtu %d\n vteps %v\n networks %+v\n fdb %v\n accepts %v\n ports %+v", p.Addr4, p.Addr6, p.UplinkMTU, p.VTEPs,
		p.Networks, p.FDB, p.Accepts, p.Ports)
}
