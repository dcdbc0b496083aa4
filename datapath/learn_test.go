package datapath

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/wire"
)

// lesson is a scene whose network 7 learns, from b (VTEP 1), from another VTEP (5) and from the ports of a.
type lesson struct {
	*scene
	second netip.Addr
}

var macForeign = wire.MAC{2, 0xee, 0, 0, 0, 1} // of nobody that the plan knows

func newLesson(t *testing.T, ip6 bool, edit func(*Network)) *lesson {
	l := &lesson{scene: newScene(t, ip6), second: netip.MustParseAddr("10.99.0.77")}
	if ip6 {
		l.second = netip.MustParseAddr("fd99::77")
	}
	must(t, l.a.dp.PutVTEPs([]VTEP{{ID: 5, Addr: l.second, UDPPort: 4789}}))
	must(t, l.a.dp.PutTeachers([]Teacher{{Accept{7, l.b.local.addr()}, 1}, {Accept{7, l.second}, 5}}))
	n := l.a.networks[7]
	n.Learning = Learning{Ageing: time.Minute, VTEPLimit: 100, PortLimit: 10}
	if edit != nil {
		edit(&n)
	}
	l.a.networks[7] = n
	must(t, l.a.dp.PutNetwork(n))
	l.resolve()
	return l
}

// arrive brings a frame of a MAC out of the tunnel, from b or from another address.
func (l *lesson) arrive(src, dst wire.MAC, from netip.Addr) outcome {
	l.a.t.Helper()
	return l.fromUplink(l.a.tunnel(l.b, 7, frame(l.a.t, dst, src, ip2, ip1, 40), func(o *tunnelOptions) { o.src = from }), nil)
}

// send sends a frame of a MAC from w1, which may.
func (l *lesson) send(src, dst wire.MAC) outcome {
	l.a.t.Helper()
	return l.fromPort(frame(l.a.t, dst, src, ip1, ip2, 40), nil)
}

// at is where a MAC was learned; nowhere is zero.
func (l *lesson) at(mac wire.MAC) LearnedMAC {
	l.a.t.Helper()
	list, err := l.a.dp.Learned()
	must(l.a.t, err)
	for _, m := range list {
		if m.MAC == mac && m.VNI == 7 {
			return m
		}
	}
	return LearnedMAC{}
}

func (l *lesson) learner(vtep VTEPID, port PortID) Learner {
	l.a.t.Helper()
	list, err := l.a.dp.Learners()
	must(l.a.t, err)
	for _, have := range list {
		if have.VNI == 7 && have.VTEP == vtep && have.Port == port {
			return have
		}
	}
	return Learner{}
}

// counted checks that the count of every place is that of its entries.
func (l *lesson) counted() {
	l.a.t.Helper()
	list, err := l.a.dp.Learned()
	must(l.a.t, err)
	learners, err := l.a.dp.Learners()
	must(l.a.t, err)
	for _, have := range learners {
		n := 0
		for _, m := range list {
			if m.VNI == have.VNI && m.VTEP == have.VTEP && m.Port == have.Port {
				n++
			}
		}
		if n != have.MACs {
			l.a.t.Errorf("%d entries at VTEP %d, port %d, and %d counted", n, have.VTEP, have.Port, have.MACs)
		}
	}
}

func foreign(n int) wire.MAC {
	return wire.MAC{2, 0xee, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
}

// TestLearnFromTunnel: RFC 7348, section 4.1: the answer to a frame out of a tunnel needs no flood. Red when from_uplink does not learn, or
// from_port does not look.
func TestLearnFromTunnel(t *testing.T) {
	for _, ip6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("ip6=%t", ip6), func(t *testing.T) {
			l := newLesson(t, ip6, nil)
			if o := l.send(l.w1.mac, macForeign); o.verdict.Reason != bpf.TCDropReason(DropUnknownUnicast) {
				t.Errorf("before anything is learned: %s", o)
			}
			if o := l.arrive(macForeign, l.w1.mac, l.b.local.addr()); o.verdict.Ifindex != l.w1.ifindex {
				t.Errorf("the frame that teaches: %s", o)
			}
			if m := l.at(macForeign); m.VTEP != 1 {
				t.Fatalf("learned: %+v", m)
			}
			if o := l.send(l.w1.mac, macForeign); o.verdict.Verdict != bpf.TCVerdictKindV_ENCAPSULATED || o.verdict.Copies != 0 {
				t.Errorf("the answer: %s", o)
			}
			if o := l.arrive(macRemote, macForeign, l.b.local.addr()); o.verdict.Reason != bpf.TCDropReason(DropSplitHorizon) {
				t.Errorf("from a tunnel to a MAC learned behind one: %s", o)
			}
			if m := l.at(macRemote); m != (LearnedMAC{}) {
				t.Errorf("a static MAC was learned: %+v", m)
			}
			// A frame that finds nobody teaches as well, and so does a broadcast.
			l.arrive(foreign(2), macNowhere, l.b.local.addr())
			l.arrive(foreign(3), macAll, l.second)
			if l.at(foreign(2)).VTEP != 1 || l.at(foreign(3)).VTEP != 5 {
				t.Errorf("learned: %+v, %+v", l.at(foreign(2)), l.at(foreign(3)))
			}
			l.counted()
			l.a.balanced()
		})
	}
}

// TestLearnFromPort: what is behind an unguarded port is found there, by its own network and out of the tunnel; a guarded one teaches nothing.
// Red when learn_at_port is left out, or find_learned names the port's interface without looking whose it is.
func TestLearnFromPort(t *testing.T) {
	l := newLesson(t, false, nil)
	if o := l.send(macForeign, l.w3.mac); o.verdict.Reason != bpf.TCDropReason(DropSourceMAC) || l.at(macForeign) != (LearnedMAC{}) {
		t.Errorf("from a guarded port: %s, learned %+v", o, l.at(macForeign))
	}
	p := l.w1.port()
	p.Unguarded = true
	must(t, l.a.dp.UpdatePort(p))
	l.send(macForeign, l.w3.mac)
	if m := l.at(macForeign); m.Port != l.w1.id || m.VTEP != 0 {
		t.Fatalf("learned: %+v", m)
	}
	if o := l.arrive(macRemote, macForeign, l.b.local.addr()); o.verdict.Verdict != bpf.TCVerdictKindV_DELIVERED || o.verdict.Ifindex != l.w1.ifindex {
		t.Errorf("from the tunnel to what is behind the port: %s", o)
	}
	if o := l.a.run("from_port", l.w3.ifindex, frame(t, macForeign, l.w3.mac, ip1, ip2, 40), nil); o.verdict.Ifindex != l.w1.ifindex {
		t.Errorf("from another port: %s", o)
	}
	if o := l.send(l.w1.mac, macForeign); o.verdict.Reason != bpf.TCDropReason(DropSamePort) {
		t.Errorf("from the port itself: %s", o)
	}
	l.counted()
	must(t, l.a.dp.DetachPort(l.w1.ifindex))
	if m := l.at(macForeign); m != (LearnedMAC{}) || l.learner(0, l.w1.id) != (Learner{}) {
		t.Errorf("after the port is gone: %+v, %+v", m, l.learner(0, l.w1.id))
	}
}

// TestLearnNothing: what is forged, doubtful, static or of a network that does not ask for it teaches nothing. Red when from_uplink learns
// before its checks, or before a checksum is verified.
func TestLearnNothing(t *testing.T) {
	l := newLesson(t, false, nil)
	stranger := netip.MustParseAddr("10.99.0.99")
	tunnel := func(src wire.MAC, edit func(*tunnelOptions)) {
		l.fromUplink(l.a.tunnel(l.b, 7, frame(t, l.w1.mac, src, ip2, ip1, 40), edit), nil)
	}
	for name, teach := range map[string]func(){
		"an address that is no VTEP of the network": func() { tunnel(macForeign, func(o *tunnelOptions) { o.src = stranger }) },
		"another network's VNI":                     func() { tunnel(macForeign, func(o *tunnelOptions) { o.vni = 8 }) },
		"a checksum that nobody has verified":       func() { tunnel(macForeign, func(o *tunnelOptions) { o.checksum = true }) },
		"options in the outer header":               func() { tunnel(macForeign, func(o *tunnelOptions) { o.options = true }) },
		"a group address as source":                 func() { tunnel(macAll, nil) },
		"the kernel lane's own MAC":                 func() { tunnel(ReservedMAC, nil) },
		"a port's MAC":                              func() { tunnel(l.w3.mac, nil) },
		"a held port": func() {
			p := l.w1.port()
			p.Held, p.Unguarded = true, true
			must(t, l.a.dp.UpdatePort(p))
			l.send(macForeign, l.w3.mac)
			must(t, l.a.dp.UpdatePort(l.w1.port()))
		},
		"a network that does not learn": func() {
			n := l.a.networks[7]
			n.Learning = Learning{}
			must(t, l.a.dp.PutNetwork(n))
			tunnel(macForeign, nil)
			p := l.w1.port()
			p.Unguarded = true
			must(t, l.a.dp.UpdatePort(p))
			l.send(macForeign, l.w3.mac)
			must(t, l.a.dp.UpdatePort(l.w1.port()))
			must(t, l.a.dp.PutNetwork(l.a.networks[7]))
		},
	} {
		teach()
		if list, err := l.a.dp.Learned(); err != nil || len(list) > 0 {
			t.Errorf("%s taught %+v (%v)", name, list, err)
		}
	}
	// What is static becomes so under what was learned, too, and ends it as a destination.
	l.arrive(macForeign, l.w1.mac, l.second)
	must(t, l.a.dp.PutFDB([]FDBEntry{{FDBKey: FDBKey{7, macForeign}, Ifindex: l.w3.ifindex}}))
	if o := l.send(l.w1.mac, macForeign); o.verdict.Ifindex != l.w3.ifindex {
		t.Errorf("a static entry does not win: %s", o)
	}
	l.a.balanced()
}

// TestLearnedMoves: a MAC follows its frames at once, between VTEPs and to a port, and stays where it is after five moves in 180 s. Red when
// learn keeps the first place, or when is_frozen says no.
func TestLearnedMoves(t *testing.T) {
	l := newLesson(t, false, nil)
	first, second := l.b.local.addr(), l.second
	l.arrive(macForeign, l.w1.mac, first)
	for i := range 5 {
		from, want := second, VTEPID(5)
		if i%2 == 1 {
			from, want = first, 1
		}
		l.arrive(macForeign, l.w1.mac, from)
		m := l.at(macForeign)
		if m.VTEP != want || m.Moves != i+1 || m.Frozen != (i == 4) {
			t.Fatalf("after move %d: %+v", i+1, m)
		}
		l.counted()
	}
	l.arrive(macForeign, l.w1.mac, first)
	if m := l.at(macForeign); m.VTEP != 5 || !m.Frozen {
		t.Errorf("a frozen MAC: %+v", m)
	}
	if a := l.learner(5, 0); a.Freezes != 1 || a.Frozen != 1 || a.Moves != 3 {
		t.Errorf("its learner: %+v", a)
	}
	if n, err := l.a.dp.Forget([]FDBKey{{7, macForeign}}); n != 1 || err != nil {
		t.Errorf("forgotten: %d, %v", n, err)
	}
	l.arrive(macForeign, l.w1.mac, first)
	if m := l.at(macForeign); m.VTEP != 1 || m.Frozen || m.Moves != 0 {
		t.Errorf("after it was forgotten: %+v", m)
	}
	p := l.w1.port()
	p.Unguarded = true
	must(t, l.a.dp.UpdatePort(p))
	l.send(macForeign, l.w3.mac)
	if m := l.at(macForeign); m.Port != l.w1.id || m.Moves != 1 {
		t.Errorf("moved to a port: %+v", m)
	}
	l.counted()
}

// TestLearnedLimits: a VTEP and a port teach as many MACs as the network lets them, and no more takes anything from others. Red when take_room
// lets every one pass.
func TestLearnedLimits(t *testing.T) {
	l := newLesson(t, false, nil)
	const flood = 1000
	l.arrive(macForeign, l.w1.mac, l.second)
	for i := range flood {
		l.arrive(foreign(100+i), l.w1.mac, l.b.local.addr())
	}
	p := l.w1.port()
	p.Unguarded = true
	must(t, l.a.dp.UpdatePort(p))
	for i := range flood {
		if o := l.send(foreign(10_000+i), l.w3.mac); o.verdict.Ifindex != l.w3.ifindex {
			t.Fatalf("a frame beyond the limit: %s", o)
		}
	}
	if have := l.learner(1, 0); have.MACs != 100 || have.Refused != flood-100 {
		t.Errorf("the VTEP: %+v", have)
	}
	if have := l.learner(0, l.w1.id); have.MACs != 10 || have.Refused != flood-10 {
		t.Errorf("the port: %+v", have)
	}
	// The others: what was learned is there, and more is.
	l.arrive(foreign(50), l.w1.mac, l.second)
	if l.at(macForeign).VTEP != 5 || l.at(foreign(50)).VTEP != 5 {
		t.Errorf("what another VTEP taught: %+v, %+v", l.at(macForeign), l.at(foreign(50)))
	}
	// A MAC does not move to where there is no room.
	l.arrive(macForeign, l.w1.mac, l.b.local.addr())
	if m := l.at(macForeign); m.VTEP != 5 || m.Moves != 0 {
		t.Errorf("moved to a full place: %+v", m)
	}
	l.counted()
	must(t, l.a.dp.DeleteAccepts([]Accept{{7, l.b.local.addr()}}))
	if have := l.learner(1, 0); have != (Learner{}) || l.at(foreign(100)) != (LearnedMAC{}) || l.at(macForeign).VTEP != 5 {
		t.Errorf("after the VTEP left: %+v, %+v", have, l.at(foreign(100)))
	}
	l.counted()
}

// TestLearnedAges: what is silent for too long is no destination, with nobody to take it out; the sweep does that, and a frame from
// elsewhere is no move. Red when find_learned does not look at the time.
func TestLearnedAges(t *testing.T) {
	l := newLesson(t, false, func(n *Network) { n.Learning.Ageing = 100 * time.Millisecond })
	l.arrive(macForeign, l.w1.mac, l.b.local.addr())
	l.arrive(foreign(2), l.w1.mac, l.b.local.addr())
	await(t, "the MACs are too old", func() bool { return l.at(macForeign) == LearnedMAC{} && l.at(foreign(2)) == LearnedMAC{} })
	if o := l.send(l.w1.mac, macForeign); o.verdict.Reason != bpf.TCDropReason(DropUnknownUnicast) {
		t.Errorf("to a MAC that is too old: %s", o)
	}
	must(t, l.a.dp.PutNetwork(func() Network { n := l.a.networks[7]; n.Learning.Ageing = time.Hour; return n }()))
	l.arrive(macForeign, l.w1.mac, l.second)
	if m := l.at(macForeign); m.VTEP != 5 || m.Moves != 0 {
		t.Errorf("a stale MAC from elsewhere: %+v", m)
	}
	if have := l.learner(1, 0); have.MACs != 1 {
		t.Errorf("its old place: %+v", have)
	}
	if n, err := l.a.dp.sweepLearned(); n != 1 || err != nil {
		t.Errorf("swept %d (%v), want 1", n, err)
	}
	if have := l.learner(1, 0); have.MACs != 0 || l.at(macForeign).VTEP != 5 {
		t.Errorf("after the sweep: %+v, %+v", have, l.at(macForeign))
	}
	// A frame of the same place keeps it: its time is written again.
	l.arrive(macForeign, l.w1.mac, l.second)
	if m := l.at(macForeign); m.Left < 59*time.Minute {
		t.Errorf("kept: %+v", m)
	}
	l.counted()
}

// TestLearnedEnds: a network that does not learn any more has learned nothing, and one that is gone neither.
func TestLearnedEnds(t *testing.T) {
	l := newLesson(t, false, nil)
	teach := func() {
		l.arrive(macForeign, l.w1.mac, l.b.local.addr())
		if l.at(macForeign).VTEP != 1 {
			t.Fatal("nothing learned")
		}
	}
	nothing := func(what string) {
		if list, err := l.a.dp.Learned(); err != nil || len(list) > 0 {
			t.Errorf("%s: %+v (%v)", what, list, err)
		}
		if list, err := l.a.dp.Learners(); err != nil || len(list) > 0 {
			t.Errorf("%s: %+v (%v)", what, list, err)
		}
	}
	teach()
	n := l.a.networks[7]
	n.Learning = Learning{}
	must(t, l.a.dp.PutNetwork(n))
	nothing("learning is off")
	must(t, l.a.dp.PutNetwork(l.a.networks[7]))
	teach()
	must(t, l.a.dp.DeleteVTEPs([]VTEPID{1}))
	nothing("its VTEP is gone")
	must(t, l.a.dp.PutVTEPs([]VTEP{{ID: 1, Addr: l.b.local.addr(), UDPPort: 4789}}))
	teach()
	must(t, l.a.dp.DeleteNetwork(7))
	nothing("the network is gone")
}

// TestLearnByKernelLane: a packet whose checksum the kernel verifies teaches behind it, when it was right, and not when it was wrong. Red when
// from_vxlan does not learn.
func TestLearnByKernelLane(t *testing.T) {
	l := newLesson(t, false, nil)
	must(t, l.b.dp.detach(linkName("to_uplink", l.b.uplink()))) // b's own guard would stop it
	wrong := l.a.tunnel(l.b, 7, frame(t, l.w1.mac, foreign(1), ip2, ip1, 40), func(o *tunnelOptions) { o.checksum = true })
	wrong[len(wrong)-1] ^= 1
	right := l.a.tunnel(l.b, 7, frame(t, l.w1.mac, foreign(2), ip2, ip1, 40), func(o *tunnelOptions) { o.checksum = true })
	send(t, l.b.ns, "up0", wrong)
	send(t, l.b.ns, "up0", right)
	await(t, "the right one is learned", func() bool { return l.at(foreign(2)).VTEP == 1 })
	if m := l.at(foreign(1)); m != (LearnedMAC{}) {
		t.Errorf("learned from a packet that is broken: %+v", m)
	}
}

// TestSources: a network takes tunnel packets from unlisted addresses within its prefixes, and from no other; they are told, and the network
// of the same prefix that did not ask takes none. Red when admit does not look at the prefixes.
func TestSources(t *testing.T) {
	for _, ip6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("ip6=%t", ip6), func(t *testing.T) {
			l := newLesson(t, ip6, func(n *Network) { n.Open = true })
			inside, outside, prefix := netip.MustParseAddr("10.98.7.9"), netip.MustParseAddr("10.97.7.9"), netip.MustParsePrefix("10.98.0.0/16")
			if ip6 {
				inside, outside, prefix = netip.MustParseAddr("fd98::9"), netip.MustParseAddr("fd97::9"), netip.MustParsePrefix("fd98::/32")
			}
			must(t, l.a.dp.PutNetwork(Network{VNI: 8, MTU: 1500, Learning: Learning{Ageing: time.Minute}}))
			must(t, l.a.dp.PutSources([]Source{{7, prefix}}))
			if list, err := l.a.dp.Sources(); err != nil || len(list) != 1 || list[0] != (Source{7, prefix}) {
				t.Errorf("sources: %v (%v)", list, err)
			}
			told, err := l.a.dp.Strangers(t.Context())
			must(t, err)
			if o := l.arrive(macForeign, l.w1.mac, inside); o.verdict.Ifindex != l.w1.ifindex {
				t.Errorf("from within: %s", o)
			}
			select {
			case s := <-told:
				if s != (Accept{7, inside}) {
					t.Errorf("told of %v", s)
				}
			case <-time.After(patience):
				t.Error("nobody was told")
			}
			if m := l.at(macForeign); m != (LearnedMAC{}) {
				t.Errorf("learned behind a VTEP without a number: %+v", m)
			}
			if o := l.arrive(macForeign, l.w1.mac, outside); o.verdict.Reason != bpf.TCDropReason(DropSourceNotAccepted) {
				t.Errorf("from outside: %s", o)
			}
			other := l.a.tunnel(l.b, 8, frame(t, l.w1.mac, macForeign, ip2, ip1, 40), func(o *tunnelOptions) { o.src = inside })
			if o := l.fromUplink(other, nil); o.verdict.Reason != bpf.TCDropReason(DropSourceNotAccepted) {
				t.Errorf("in another network: %s", o)
			}
			must(t, l.a.dp.DeleteSources([]Source{{7, prefix}}))
			if o := l.arrive(macForeign, l.w1.mac, inside); o.verdict.Reason != bpf.TCDropReason(DropSourceNotAccepted) {
				t.Errorf("after the prefix is gone: %s", o)
			}
			l.a.balanced()
		})
	}
}
