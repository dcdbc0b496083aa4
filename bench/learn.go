package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"connectrpc.com/connect"
	"github.com/cilium/ebpf"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/wire"
)

// The learn measure: so many frames, each from another MAC, to a workload that is known, from a VTEP that somebody else runs or from a workload that may
// send from any. Each frame must arrive, and afterwards the host must know every MAC. Meanwhile a steady flow between two known workloads comes out of
// the same tunnel, and each of its frames is counted.
//
//	teacher: generator -> uplink of host 2 ==> host 1: learns -> eth0 of l1 -> counter, drop
//	l3:      generator -> eth0             ==> host 1: learns -> eth0 of l1 -> counter, drop
//	l2 on host 2: steady flow                                -> eth0 of l1 -> counter, drop
//
// In the kernel the vxlan device learns what is behind tunnels (the bridge need not), and the bridge what is behind its other ports.

const (
	// learnLimit of MACs for a VTEP and a port: more than are learned, and less than a quarter of the host's table.
	learnLimit = 200_000
	// learnBurst of frames are on their way at most: with the known traffic they fit the ring of a veth, so that what is lost is the host's doing.
	learnBurst = 128
	// knownRate of the known traffic, and its frames' length, by which they are counted.
	knownRate   = 20_000
	knownLength = 96
	tunnelled   = 14 + wire.IPv4Len + wire.UDPLen + wire.VXLANLen
)

var learnSegment = segment{name: "learn", number: 3, teacher: netip.MustParseAddr("198.19.255.99")}

func learnMember(i, host int, anyMAC bool) member {
	return member{segment: learnSegment, name: fmt.Sprintf("l%d", i), host: host, mac: wire.MAC{0x02, 0x77, 0x65, 2, 0, byte(i)}, anyMAC: anyMAC,
		addr: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 100, 0, byte(10 + i)}), 24)}}
}

// pupil is a Contender that learns.
type pupil interface {
	joiner
	// ends of the underlay's link, of host 1 and host 2.
	uplinkOf(host int) uplink
	// forget takes away what was learned in the segment; learned is how many MACs there are beyond a few that were stated, from the tunnel or at a
	// workload's port.
	forget(ctx context.Context, s segment) error
	learned(ctx context.Context, s segment, at string) (int, error)
}

func (c *bridgeVXLAN) uplinkOf(host int) uplink   { return c.uplinks[host] }
func (c *weftContender) uplinkOf(host int) uplink { return c.uplinks[host] }

func (c *bridgeVXLAN) forget(_ context.Context, s segment) error {
	h := c.uplinks[0].netns
	_, vx := s.devices()
	// A vxlan device forgets when it goes down; kernels before 6.7 have no other way.
	return errors.Join(h.SetDown(vx), h.SetUp(vx), h.FlushBridgeFDB("port-l3"))
}

func (c *bridgeVXLAN) learned(_ context.Context, s segment, at string) (int, error) {
	_, device := s.devices()
	if at != "" {
		device = "port-" + at
	}
	return c.uplinks[0].netns.CountFDB(device)
}

func (c *weftContender) forget(ctx context.Context, s segment) error {
	state, err := c.lab.State()
	if err != nil {
		return err
	}
	agent, err := c.lab.Agent(state.Hosts[0].Name)
	if err != nil {
		return err
	}
	defer agent.Close()
	_, err = agent.ForgetLearned(ctx, connect.NewRequest(&localv1.ForgetLearnedRequest{Tenant: "bench", Network: s.name}))
	return err
}

// learned reads the kernel path's own count.
func (c *weftContender) learned(_ context.Context, s segment, at string) (n int, err error) {
	state, err := c.lab.State()
	if err != nil {
		return 0, err
	}
	m, err := openPinned(state.Hosts[0].PinRoot, "learners")
	if err != nil {
		return 0, err
	}
	defer m.Close()
	var k bpf.TCLearnerKey
	var v bpf.TCLearner
	it := m.Iterate()
	for it.Next(&k, &v) {
		if k.Vni == uint32(s.vni()) && (k.Place>>31 == 1) == (at != "") {
			n += int(v.Macs)
		}
	}
	return n, it.Err()
}

// class is a contender's learning, ready to be taught.
type class struct {
	pupil  pupil
	l      [3]Workload
	known  flow
	lesson map[string]lesson
	// sent and lost frames of the known traffic, of all samples.
	sent, lost int
}

// lesson is one way to be taught: who sends what, into which interface.
type lesson struct {
	at   string // the workload whose port learns; none: the tunnel
	netn *netdev.Handle
	ifx  int
	t    traffic
}

const (
	fromTunnel = "from a VTEP"
	fromPort   = "at a port"
)

func newClass(ctx context.Context, p pupil) (c *class, err error) {
	c = &class{pupil: p, lesson: map[string]lesson{}}
	for i, m := range []member{learnMember(1, 0, false), learnMember(2, 1, false), learnMember(3, 0, true)} {
		if c.l[i], err = p.member(ctx, m); err != nil {
			return nil, err
		}
	}
	near, far := p.uplinkOf(0), p.uplinkOf(1)
	// The generator sends tunnel packets straight to the uplink, which must have NAPI.
	if err := near.netns.SetFeature(near.ifname, netdev.GRO, true); err != nil {
		return nil, err
	}
	nl, err := near.netns.LinkByName(near.ifname)
	if err != nil {
		return nil, err
	}
	fl, err := far.netns.LinkByName(far.ifname)
	if err != nil {
		return nil, err
	}
	vtep, err := firstAddress4(near)
	if err != nil {
		return nil, err
	}
	inner := udpFrame(c.l[2], c.l[0], frameOctets)
	outer := wire.Encapsulate(wire.Flow{SrcMAC: fl.MAC, DstMAC: nl.MAC, Src: learnSegment.teacher, Dst: vtep}, 50_000, wire.VXLANPort, learnSegment.vni(), inner)
	c.lesson[fromTunnel] = lesson{"", far.netns, fl.Index, traffic{Length: frameOctets, Frame: outer, Sources: true, SourceAt: tunnelled + 6, Burst: learnBurst}}
	c.lesson[fromPort] = lesson{"l3", c.l[2].Netns, c.l[2].Ifindex, traffic{Length: frameOctets, Frame: inner, Sources: true, SourceAt: 6, Burst: learnBurst}}
	c.known = flow{from: c.l[1], frame: udpFrame(c.l[1], c.l[0], knownLength), length: knownLength, at: c.sink(), rate: knownRate, core: senderCore}
	return c, nil
}

func firstAddress4(u uplink) (netip.Addr, error) {
	all, err := u.netns.Addresses(u.ifname)
	for _, a := range all {
		if a.Prefix.Addr().Is4() {
			return a.Prefix.Addr(), err
		}
	}
	return netip.Addr{}, errors.Join(err, fmt.Errorf("%s has no IPv4 address", u.ifname))
}

func (c *class) sink() end { return end{c.l[0].Netns, c.l[0].Ifindex, ebpf.AttachTCXIngress} }

// teach teaches n MACs and says how many a second, and what part of the known traffic arrived meanwhile, in percent.
func (c *class) teach(ctx context.Context, how string, n int) (rate, known float64, err error) {
	l := c.lesson[how]
	if err := c.pupil.forget(ctx, learnSegment); err != nil {
		return 0, 0, err
	}
	stated, err := c.pupil.learned(ctx, learnSegment, l.at)
	if err != nil {
		return 0, 0, err
	}
	st, err := c.known.start()
	if err != nil {
		return 0, 0, err
	}
	elapsed, err := c.send(l, n)
	_, sent, arrived, serr := st.stop()
	if err := errors.Join(err, serr); err != nil {
		return 0, 0, err
	}
	have, err := c.pupil.learned(ctx, learnSegment, l.at)
	// The hosts' own devices send a frame now and then, and are learned too.
	if err == nil && have-stated < n {
		err = fmt.Errorf("%d MACs were taught, each by a frame that arrived, and %d are known", n, have-stated)
	}
	c.sent, c.lost = c.sent+sent, c.lost+sent-arrived
	return float64(n) / elapsed.Seconds(), 100 * float64(arrived) / float64(sent), err
}

// send sends the frames of a lesson, and waits until all have arrived.
func (c *class) send(l lesson, n int) (elapsed time.Duration, err error) {
	var sink *counter
	at := c.sink()
	if err := at.netns.Run(func() (err error) {
		sink, err = newCounter(at.ifindex, l.t.Length, at.where)
		return err
	}); err != nil {
		return 0, err
	}
	defer sink.Close()
	err = l.netn.Run(func() error {
		g, err := newGenerator(l.ifx, l.t)
		if err != nil {
			return err
		}
		defer g.Close()
		if err := errors.Join(pin(packetCore), undisturbed()); err != nil {
			return err
		}
		s := sending{generator: g, sink: sink, frame: l.t.Frame, traffic: l.t}
		start := time.Now()
		err = s.send(n)
		elapsed = time.Since(start)
		return err
	})
	return elapsed, err
}

const (
	learnUnit = "entries/s"
	knownUnit = "% of what was sent"
)

func learnMeasure(how string, n int) string {
	return fmt.Sprintf("%s MACs learned %s", grouped(n), how)
}

func knownMeasure(how string, n int) string {
	return fmt.Sprintf("known traffic while %s MACs are learned %s", grouped(n), how)
}

// learning measures how fast MACs are learned.
func (f *field) learning(ctx context.Context) ([]Series, error) {
	contenders, err := f.need(ctx, weftName, tunedName)
	if err != nil {
		return nil, err
	}
	n := f.cfg.MACs
	classes := map[string]*class{}
	for _, c := range contenders {
		k, err := newClass(ctx, c.(pupil))
		if err != nil {
			return nil, fmt.Errorf("build learning for %s: %w", c.Name(), err)
		}
		classes[c.Name()] = k
		for how := range k.lesson {
			// The first frames may come before the agents know every member.
			if werr := waitFor(ctx, carryPatience, c.Name()+" to learn "+how, func() bool { _, _, err = k.teach(ctx, how, learnBurst); return err == nil }); werr != nil {
				return nil, errors.Join(werr, err)
			}
		}
		k.sent, k.lost = 0, 0
	}
	var out []Series
	for _, how := range []string{fromTunnel, fromPort} {
		all, err := f.compareAll(ctx, []Series{{Measure: learnMeasure(how, n), Unit: learnUnit, Higher: true}, {Measure: knownMeasure(how, n), Unit: knownUnit, Higher: true}},
			contenders, func(c Contender) ([]float64, error) {
				rate, known, err := classes[c.Name()].teach(ctx, how, n)
				return []float64{rate, known}, err
			})
		if err != nil {
			return nil, err
		}
		out = append(out, all...)
	}
	for _, c := range contenders {
		k := classes[c.Name()]
		f.notes = append(f.notes, fmt.Sprintf("known traffic of %s while MACs were learned: %d frames sent, %d lost", c.Name(), k.sent, k.lost))
	}
	return out, nil
}
