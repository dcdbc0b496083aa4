package datapath

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/datapath/oracle"
)

// shot is one packet at one hook.
type shot struct {
	hook    string // from_port, from_uplink
	ifindex uint32
	oracle.Packet
}

func (s shot) String() string {
	return fmt.Sprintf("%s on interface %d, segment size %d, %d octets:\n%x", s.hook, s.ifindex, s.SegmentSize, len(s.Data), s.Data)
}

// compare runs one packet through both and says how they differ; empty if they do not. Copies that went nowhere are counted, and compared
// by settle.
func (d *duel) compare(p *oracle.Plan, s shot) string {
	choose := func([]byte) (uint16, uint32) { return 49152, 0 } // checked apart
	var want oracle.Result
	before := maps.Clone(p.Learned)
	if s.hook == "from_port" {
		want = p.FromPort(s.ifindex, s.Packet, choose)
	} else {
		want = p.FromUplink(s.Packet)
	}
	if s.SegmentSize > 0 && (want.Verdict == oracle.Flooded || len(want.CopyDrops) > 0 || s.hook == "from_port" && want.Verdict == oracle.Encapsulated) {
		p.Learned = before
		return "" // the test run's aggregates have no GSO type, and the kernel sends, lengthens and shortens none such
	}
	var o outcome
	for range 100 {
		d.drain()
		d.forgetAsked(s)
		var err error
		if o, err = d.shoot(s); err != nil {
			p.Learned = before
			return "" // BPF_PROG_TEST_RUN refuses frames that are shorter than their protocol's header
		}
		for _, reason := range want.CopyDrops {
			d.copies[reason]++
		}
		if o.verdict.Program == duelHooks[s.hook] {
			break
		}
		// The verdict is of another program, on a packet that the host's own kernel sent meanwhile.
	}
	if s.SegmentSize > 0 && LaneReason(o.verdict.Lane) == LaneNoRoom {
		return ""
	}
	d.covered[strings.TrimSpace(want.Verdict.String()+" "+want.Reason+want.Lane)]++
	d.coverGroups(s, want)
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
	if why := d.compareCopies(s, want, o); why != "" || !d.xdp {
		return why
	}
	return d.compareXDP(p, s, want, o)
}

// coverGroups counts what went to a group, or came by one.
func (d *duel) coverGroups(s shot, want oracle.Result) {
	for _, t := range want.Tunnels {
		if slices.Contains(duelGroupIDs[:], t.VTEP) {
			d.covered["went to a group"]++
		}
	}
	if len(want.Deliveries) > 0 && s.hook == "from_uplink" && s.Data[0]&1 == 1 {
		d.covered["came by a group"]++
	}
}

// forgetAsked lets an address be asked for: how often it may is not modelled.
func (d *duel) forgetAsked(s shot) {
	if s.hook != "from_port" || len(s.Data) < 14 || s.Data[12] != 0x86 && !(s.Data[12] == 8 && s.Data[13] == 6) {
		return
	}
	var keys []bpf.TCAskedKey
	var k bpf.TCAskedKey
	var at uint64
	for it := d.a.dp.maps["asked"].Iterate(); it.Next(&k, &at); {
		keys = append(keys, k)
	}
	for _, k := range keys {
		must(d.t, d.a.dp.maps["asked"].Delete(k))
	}
}

// settle compares the copies that went nowhere since the last time with what the oracle said of them.
func (d *duel) settle() string {
	now := d.copyDrops()
	defer func() { d.copies = now }()
	if !maps.Equal(now, d.copies) {
		return fmt.Sprintf("oracle: copies dropped are %v; datapath: %v", d.copies, now)
	}
	return ""
}

// sameLearned compares what the packets since the last apply have taught.
func (d *duel) sameLearned(p *oracle.Plan) string {
	list, err := d.a.dp.Learned()
	must(d.t, err)
	have := map[oracle.FDBKey]oracle.Place{}
	for _, m := range list {
		at := oracle.Place{VTEP: uint32(m.VTEP), Moves: m.Moves}
		for _, w := range d.ports {
			if w.id == m.Port {
				at.Ifindex = w.ifindex
			}
		}
		have[oracle.FDBKey(m.FDBKey)] = at
		switch {
		case m.Moves > 0:
			d.covered["learned and moved"]++
		case m.Port != 0:
			d.covered["learned at a port"]++
		default:
			d.covered["learned at a VTEP"]++
		}
	}
	if !maps.Equal(have, p.Learned) {
		return fmt.Sprintf("oracle: learned %v; datapath: %v", p.Learned, have)
	}
	return ""
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
	case oracle.Handed:
		if kind != bpf.TCVerdictKindV_PUNTED || !bytes.Equal(o.data, s.Data) {
			return fmt.Sprintf("oracle: handed to the agent; datapath: %s as %x", o, o.data)
		}
		return d.surplus()
	case oracle.Answered:
		if kind != bpf.TCVerdictKindV_ANSWERED || o.verdict.Ifindex != s.ifindex || !bytes.Equal(o.data, want.Data) {
			return fmt.Sprintf("oracle: answered as %x\ndatapath: %s as %x", want.Data, o, o.data)
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
	if !d.something() {
		return ""
	}
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
	if !d.something() {
		return
	}
	for _, s := range d.taps {
		for s.next() != nil {
		}
	}
}

// something: a tap has a frame. One call asks them all.
func (d *duel) something() bool {
	if d.polled == nil {
		for _, s := range d.taps {
			d.polled = append(d.polled, unix.PollFd{Fd: int32(s.fd), Events: unix.POLLIN})
		}
	}
	n, err := unix.Poll(d.polled, 0)
	return n != 0 || err != nil
}

// shoot is testHost.run, of packets that the kernel may refuse to run.
func (d *duel) shoot(s shot) (o outcome, err error) {
	skb := skbFrom(s.ifindex)
	skbGSO(uint32(s.SegmentSize))(skb)
	opts := &ebpf.RunOptions{Data: s.Data, DataOut: make([]byte, len(s.Data)+256), Context: skb, ContextOut: make([]byte, 192)}
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
