package datapath

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/datapath/oracle"
	"github.com/weftnet/weft/wire"
)

// packetsPerPlan is how long a random plan lasts. A new one costs a jiffy.
func packetsPerPlan() int {
	if *oraclePackets >= 1_000_000 {
		return 1000
	}
	return 100
}

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
	// copies are how many copies the oracle says went nowhere, by reason: from what settle found.
	copies map[string]int
	// polled are the taps' sockets.
	polled []unix.PollFd
	// xdp: the XDP lane is compared, too. Every port then counts as in it, or out of it, by the plan.
	xdp bool
	// out is where a test run writes to.
	out [4096]byte
	// far is the silent namespace.
	far *netdev.Handle
	// covered counts the outcomes, so that a test that meets only drops is noticed.
	covered map[string]int
}

// tap reads every frame that comes in on an interface.
type tap struct {
	fd, index int
	buf       []byte
	patience  time.Duration // of waitNext
}

func newTap(t *testing.T, ns *netdev.Handle, ifname string) *tap {
	t.Helper()
	l, err := ns.LinkByName(ifname)
	must(t, err)
	s := &tap{index: l.Index, buf: make([]byte, 65536), patience: patience}
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

// isAnswer knows weft's own ICMP messages about what is too big, of which nothing is wrong: they are not modelled, and have tests of their own.
func isAnswer(b []byte) bool {
	if len(b) < 62 {
		return false
	}
	holds := func(b ...byte) bool {
		if len(b)%2 != 0 {
			b = append(b, 0)
		}
		return sum16(b) == 0xffff
	}
	switch binary.BigEndian.Uint16(b[12:]) {
	case 0x0800:
		return bytes.Equal(b[14:16], []byte{0x45, 0xc0}) && b[22] == 64 && b[23] == 1 && b[34] == 3 && b[35] == 4 && holds(b[34:]...)
	case 0x86dd:
		pseudo := slices.Concat(b[22:54], []byte{0, 0, b[18], b[19], 0, 0, 0, 58})
		return b[14] == 0x60 && b[20] == 58 && b[21] == 64 && b[54] == 2 && b[55] == 0 && holds(slices.Concat(pseudo, b[54:])...)
	}
	return false
}

// waitNext waits for one.
func (s *tap) waitNext() []byte {
	for deadline := time.Now().Add(s.patience); ; {
		if b := s.next(); b != nil || time.Now().After(deadline) {
			return b
		}
		unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}, 100)
	}
}

// wait sets how long the taps wait for a frame.
func (d *duel) wait(limit time.Duration) {
	for _, s := range d.taps {
		s.patience = limit
	}
}

var (
	duelOwn4, duelOwn6 = netip.MustParseAddr("10.99.0.1"), netip.MustParseAddr("fd99::1")
	// duelAddrs are of VTEPs; the last two have no route.
	duelAddrs = []netip.Addr{netip.MustParseAddr("10.99.0.2"), netip.MustParseAddr("10.99.0.3"), netip.MustParseAddr("fd99::2"),
		netip.MustParseAddr("fd99::3"), netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8::1")}
	// duelGroups share an Ethernet address in each IP version.
	duelGroups = []netip.Addr{group4, group4Other, group6, group6Other}
	duelHooks  = map[string]bpf.TCProgram{"from_port": bpf.TCProgramFROM_PORT, "from_uplink": bpf.TCProgramFROM_UPLINK}
	// duelGroupIDs are VTEPs that are groups; only flood lists name them.
	duelGroupIDs = [2]uint32{10, 11}
	duelVNIs     = []wire.VNI{0, 7, 8, wire.MaxVNI}
)

func newDuel(t *testing.T, seed uint64) *duel {
	nsA, nsB := namespace(t, "a"), namespace(t, "b")
	underlay(t, nsA, nsB)
	far, err := nsB.LinkByName("up0")
	must(t, err)
	must(t, nsB.SetAddresses("up0", nil))
	must(t, nsB.Quiet("up0"))
	d := &duel{t: t, taps: map[uint32]*tap{}, hops: map[netip.Addr]wire.MAC{}, flows: map[string]uint16{}, copies: map[string]int{}, covered: map[string]int{},
		rng: rand.New(rand.NewPCG(seed, 1))}
	d.a = newHost(t, nsA, "a", Local{Addr4: duelOwn4, Addr6: duelOwn6, UDPPort: 4789, UplinkMTU: 1600})
	up, err := nsA.LinkByName("up0")
	must(t, err)
	d.far = nsB
	d.mac, d.host = up.MAC, uint32(up.Index)
	must(t, d.a.dp.Punts(t.Context(), func(Punt) {})) // the agent, which takes what is handed to it
	for _, group := range duelGroups {                // or the kernel does not take what is for the kernel lane
		must(t, nsA.JoinGroup("up0", group))
	}
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
		FDB: map[oracle.FDBKey]oracle.FDBEntry{}, Neighbours: map[oracle.NeighbourKey]oracle.Neighbour{}, Accepts: map[oracle.Accept]bool{}, Sources: map[oracle.Source]bool{},
		Groups: map[oracle.Group]bool{}, Teachers: map[oracle.Accept]uint32{}, Ports: map[uint32]oracle.Port{}, Reserved: ReservedMAC}
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
	for _, id := range duelGroupIDs {
		v := oracle.VTEP{Addr: duelGroups[r.IntN(4)], UDPPort: 4789, OuterChecksum: r.IntN(8) == 0}
		if r.IntN(8) == 0 {
			v.UDPPort = 8472
		}
		if r.IntN(8) > 0 {
			p.VTEPs[id] = v
		}
	}
	for i, w := range d.ports {
		if r.IntN(12) == 0 {
			continue
		}
		o := oracle.Port{MTU: 1500, VNI: duelVNIs[1+r.IntN(2)*r.IntN(3)%3], Held: r.IntN(10) == 0, Unguarded: r.IntN(8) == 0, MACs: []wire.MAC{w.mac}}
		o.Services = oracle.Services{DHCP4: r.IntN(2) == 0, DHCP6: r.IntN(2) == 0, Router: r.IntN(2) == 0, MayServeDHCP: r.IntN(3) == 0, MayBeTheRouter: r.IntN(3) == 0}
		for range r.IntN(3) {
			o.MACs = append(o.MACs, d.macOf(i+10))
		}
		for _, ip6 := range []bool{false, true} {
			if r.IntN(4) > 0 {
				o.Claims = append(o.Claims, oracle.Claim{IP: talkAddr(i+1, ip6)}, oracle.Claim{IP: talkAddr(6, ip6), MAC: d.macOf(i + 10)})
			}
		}
		if r.IntN(4) == 0 {
			o.Claims = append(o.Claims, oracle.Claim{MAC: d.macOf(i + 10)})
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
		if r.IntN(2) == 0 { // first, as the agent has it, or anywhere
			n.Remotes = slices.Insert(n.Remotes, r.IntN(2)*r.IntN(len(n.Remotes)+1), duelGroupIDs[r.IntN(2)])
		}
		for _, group := range duelGroups {
			if r.IntN(3) > 0 {
				p.Groups[oracle.Group{VNI: vni, Addr: group}] = true
			}
		}
		n.Uniform = r.IntN(3) == 0
		n.Answers = r.IntN(4) > 0
		for i := range 16 {
			if r.IntN(3) > 0 {
				p.Neighbours[oracle.NeighbourKey{VNI: vni, IP: talkAddr(i%8, i >= 8)}] = oracle.Neighbour{MAC: d.macOf(r.IntN(8)), Router: r.IntN(2) == 0, Ask: r.IntN(5) == 0}
			}
		}
		if len(n.Remotes) > 0 {
			n.External = r.IntN(len(n.Remotes) + 1)
			n.Direct = r.IntN(n.External+1) * r.IntN(2)
		}
		if n.Learns = r.IntN(2) == 0; n.Learns {
			n.VTEPLimit, n.PortLimit = []int{1, 3, 100}[r.IntN(3)], []int{0, 2, 100}[r.IntN(3)]
		}
		p.Networks[vni] = n
		if r.IntN(4) == 0 {
			addr := duelAddrs[r.IntN(len(duelAddrs))]
			p.Sources[oracle.Source{VNI: vni, Prefix: netip.PrefixFrom(addr, addr.BitLen()-r.IntN(2)).Masked()}] = true
		}
		for _, addr := range append(slices.Clone(duelAddrs), duelOwn4, duelOwn6) {
			if r.IntN(3) > 0 {
				p.Accepts[oracle.Accept{VNI: vni, Addr: addr}] = true
				if n.Learns {
					p.Teachers[oracle.Accept{VNI: vni, Addr: addr}] = uint32(1 + r.IntN(9))
				}
			}
		}
		for i := range 16 {
			k := oracle.FDBKey{VNI: vni, MAC: d.macOf(i)}
			e := oracle.FDBEntry{}
			if n.Learns && r.IntN(2) == 0 {
				continue // for frames to teach
			}
			switch r.IntN(5) {
			case 0:
				continue
			case 1, 2:
				e.VTEP, e.Forward = uint32(1+r.IntN(9)), r.IntN(2) == 0
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

// servicesOf is the datapath's form of them.
func servicesOf(o oracle.Services) (s Services) {
	for _, f := range []struct {
		set bool
		bit Services
	}{{o.DHCP4, ServeDHCP4}, {o.DHCP6, ServeDHCP6}, {o.Router, ServeRouter}, {o.MayServeDHCP, MayServeDHCP}, {o.MayBeTheRouter, MayAdvertise}} {
		if f.set {
			s |= f.bit
		}
	}
	return s
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
	for id := uint32(1); id <= duelGroupIDs[1]; id++ {
		if v, ok := p.VTEPs[id]; ok {
			e := VTEP{ID: VTEPID(id), Addr: v.Addr, UDPPort: v.UDPPort, OuterChecksum: v.OuterChecksum}
			if v.Addr.IsMulticast() {
				e.Uplink = d.host
			}
			vteps = append(vteps, e)
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
		e := Network{VNI: vni, MTU: n.MTU, Unknown: UnknownUnicast(n.Unknown), LocalPorts: n.LocalPorts, External: n.External, Direct: n.Direct, DSCPUniform: n.Uniform}
		if n.Answers {
			e.Neighbours = NeighboursAnswer
		}
		if n.Learns {
			e.Learning = Learning{Ageing: time.Hour, VTEPLimit: n.VTEPLimit, PortLimit: n.PortLimit}
		}
		for s := range p.Sources {
			e.Open = e.Open || s.VNI == vni
		}
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
		port := Port{Ifindex: w.ifindex, ID: w.id, UID: "uid", VNI: o.VNI, Held: o.Held, Unguarded: o.Unguarded, MACs: o.MACs, Services: servicesOf(o.Services)}
		for _, c := range o.Claims {
			port.Claims = append(port.Claims, Claim(c))
		}
		must(t, dp.maps["punt_times"].Put(uint32(w.id), uint64(0)))
		must(t, dp.AttachPort(port))
		if port.FastPath = d.xdp && w != d.ports[3]; port.FastPath { // the entry alone: nothing is attached
			must(t, dp.putPort(port))
		}
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
		if e.Forward {
			f.Flags |= FDBForward
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
	var lost []NeighbourKey
	var found []Neighbour
	neighbours, err := dp.Neighbours()
	must(t, err)
	for _, n := range neighbours {
		lost = append(lost, n.NeighbourKey)
	}
	for k, n := range p.Neighbours {
		found = append(found, Neighbour{NeighbourKey: NeighbourKey(k), MAC: n.MAC, Router: n.Router, Ask: n.Ask})
	}
	must(t, dp.DeleteNeighbours(lost))
	must(t, dp.PutNeighbours(found))
	accepts, err := dp.Accepts()
	must(t, err)
	must(t, dp.DeleteAccepts(slices.DeleteFunc(accepts, func(a Accept) bool { return p.Accepts[oracle.Accept(a)] })))
	var wanted []Teacher
	for a := range p.Accepts {
		wanted = append(wanted, Teacher{Accept(a), VTEPID(p.Teachers[a])})
	}
	must(t, dp.PutTeachers(wanted))
	groups, err := dp.Groups()
	must(t, err)
	must(t, dp.DeleteGroups(slices.DeleteFunc(groups, func(g Group) bool { return p.Groups[oracle.Group(g)] })))
	for g := range p.Groups {
		must(t, dp.PutGroups([]Group{Group(g)}))
	}
	sources, err := dp.Sources()
	must(t, err)
	must(t, dp.DeleteSources(slices.DeleteFunc(sources, func(s Source) bool { return p.Sources[oracle.Source(s)] })))
	for s := range p.Sources {
		must(t, dp.PutSources([]Source{Source(s)}))
	}
	must(t, dp.forgetPlaces(func(bpf.TCLearnerKey) bool { return true }))
	p.Learned = map[oracle.FDBKey]oracle.Place{}
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
