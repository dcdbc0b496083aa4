package conform

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/weftnet/weft/wire"
)

// trial is what is sent and everything that must come of it; what it does not name must not come.
type trial struct {
	// fromW1, fromT1 and fromPeer are sent in order, and then the offers.
	fromW1, fromT1, fromPeer [][]byte
	offers                   []offer
	// at is what arrives at the workloads, in order.
	at map[string][][]byte
	// tunnels are what arrives at the peer, in any order.
	tunnels []sent
	// drops by reason, copies' among them.
	drops map[string]uint64
	// answers are the messages about dropped packets that are sent back.
	answers int
	// passedOut and passedIn are packets that the XDP lane, in its row, passes on to tc, by its reason; foreign are those of the peer's that
	// it does not take for weft's. It does all others itself.
	passedOut, passedIn map[string]int
	foreign             int
	// lanedOut and lanedIn are packets, or copies, that take the row's lane out of the host or into it.
	lanedOut, lanedIn int
	// only: whatever the row is, they take the kernel lane, for this reason.
	only string
	// refused are packets that the kernel lane gets and the kernel itself refuses.
	refused int
	// unmarked are packets that reach the kernel's device past the programs on the uplink.
	unmarked int
	// keeps: the tables stay as they are for the next trial of the case, with what was learned.
	keeps bool
}

func (t trial) keeping() trial {
	t.keeps = true
	return t
}

// offer is a frame that a port sends with work left to do.
type offer struct {
	at    string
	head  virtio
	frame []byte
	// pieces are the packets that the sender's own kernel makes of it; 0 is 1.
	pieces int
}

// passOut says for what the XDP lane passes on what containers send; passIn is of the peer's packets.
func (t trial) passOut(reason string) trial {
	if n := t.outgoing() - t.fromMachines(); n > 0 {
		t.passedOut = map[string]int{reason: n}
	}
	return t
}

func (t trial) passIn(reason string) trial {
	t.passedIn = map[string]int{reason: len(t.fromPeer)}
	return t
}

// outgoing is how many packets the ports send.
func (t trial) outgoing() (n int) {
	n = len(t.fromW1) + len(t.fromT1)
	for _, o := range t.offers {
		n += max(1, o.pieces)
	}
	return n
}

// fromMachines is how many of them are a virtual machine's, which the XDP lane does not serve.
func (t trial) fromMachines() (n int) {
	n = len(t.fromT1)
	for _, o := range t.offers {
		if o.at == "t1" {
			n++
		}
	}
	return n
}

// seen is how many packets each program is given. Those that the XDP lane passes on for the age of a next hop are on top of it.
func (b *bed) seen(t trial) map[string]int {
	n := map[string]int{"from_port": t.outgoing(), "from_uplink": len(t.fromPeer), "from_vxlan": b.kernelIn(t)}
	if b.row.Lane == XDP {
		n["xdp_from_port"], n["xdp_from_uplink"] = t.outgoing()-t.fromMachines(), len(t.fromPeer)
		n["from_port"], n["from_uplink"] = sum(t.passedOut)+t.fromMachines(), sum(t.passedIn)+t.foreign
	}
	return n
}

func sum(counts map[string]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

const fenceType = 0x88b6 // an EtherType for local experiments (IEEE 802)

// try runs a trial. Whatever came before it is done with.
func (b *bed) try(t trial) error {
	for name, s := range b.at {
		if _, err := drain(s, name == "peer"); err != nil {
			return err
		}
	}
	before, err := b.ledger()
	if err != nil {
		return err
	}
	if err := b.send(t); err != nil {
		return err
	}
	after, err := b.counted(t, before)
	if err != nil {
		return err
	}
	if err := b.compareCounts(t, before, after); err != nil {
		return err
	}
	return b.compareFrames(t)
}

// tryAll runs trials of one kind as one, and if that fails each by itself, so that the error has the name of the first that does.
func (b *bed) tryAll(trials []trial, name func(i int) string) error {
	all := trial{at: map[string][][]byte{}, drops: map[string]uint64{}, passedOut: map[string]int{}, passedIn: map[string]int{}}
	for _, t := range trials {
		all.add(t)
	}
	failure := b.try(all)
	if failure == nil || errors.Is(failure, errNextHop) {
		return failure
	}
	for i, t := range trials {
		if err := errors.Join(b.reset(), b.try(t)); err != nil {
			return fmt.Errorf("%s: %w", name(i), err)
		}
	}
	return fmt.Errorf("one after the other, not each by itself: %w", failure)
}

// add is t and then u, which takes the kernel lane for the same reason as all before it.
func (t *trial) add(u trial) {
	t.fromW1, t.fromT1, t.fromPeer = append(t.fromW1, u.fromW1...), append(t.fromT1, u.fromT1...), append(t.fromPeer, u.fromPeer...)
	t.offers, t.tunnels = append(t.offers, u.offers...), append(t.tunnels, u.tunnels...)
	for name, frames := range u.at {
		t.at[name] = append(t.at[name], frames...)
	}
	for reason, n := range u.drops {
		t.drops[reason] += n
	}
	for reason, n := range u.passedOut {
		t.passedOut[reason] += n
	}
	for reason, n := range u.passedIn {
		t.passedIn[reason] += n
	}
	t.answers, t.foreign = t.answers+u.answers, t.foreign+u.foreign
	t.lanedOut, t.lanedIn, t.only = t.lanedOut+u.lanedOut, t.lanedIn+u.lanedIn, u.only
	t.refused, t.unmarked = t.refused+u.refused, t.unmarked+u.unmarked
}

func (b *bed) send(t trial) error {
	for _, s := range []struct {
		at     string
		frames [][]byte
	}{{"w1", t.fromW1}, {"t1", t.fromT1}, {"peer", t.fromPeer}} {
		for _, f := range s.frames {
			if err := b.at[s.at].send(f); err != nil {
				return err
			}
		}
	}
	for _, o := range t.offers {
		if err := b.at[o.at].offer(o.head, o.frame); err != nil {
			return err
		}
	}
	return nil
}

// nextHop is why the XDP lane lets the kernel see a packet now and then, whatever it is. errNextHop says that it did so in a trial.
const nextHop = "xdp_next_hop"

var errNextHop = errors.New("the XDP lane passed a packet on for the age of its next hop")

// counted waits until every program has counted what it was sent.
func (b *bed) counted(t trial, before ledger) (after ledger, err error) {
	want := b.seen(t)
	in := func(program string) int { return int(after.books[program].In - before.books[program].In) }
	err = await("the books say what was sent", b.patience, func() (bool, error) {
		if after, err = b.ledger(); err != nil {
			return false, err
		}
		for program, n := range want {
			if program == "from_port" {
				n += int(after.lanes[nextHop] - before.lanes[nextHop])
			}
			if in(program) < n {
				return false, nil
			}
		}
		return after.balanced() == nil, nil
	})
	if balance := after.balanced(); err == nil || balance != nil {
		err = balance
	}
	if err != nil {
		lanes, drops := after.since(before)
		seen := ""
		for _, program := range slices.Sorted(maps.Keys(want)) {
			seen += fmt.Sprintf("%s %d of %d; ", program, in(program), want[program])
		}
		err = fmt.Errorf("%w: %sdrops %v, lanes %v", err, seen, drops, lanes)
	}
	return after, err
}

// kernelIn is how many packets come out of the kernel's device.
func (b *bed) kernelIn(t trial) int {
	if b.byKernel() || t.only != "" {
		return t.lanedIn + t.unmarked
	}
	return t.unmarked
}

// passed is what the XDP lane passes on, by its reasons.
func (b *bed) passed(t trial) map[string]int {
	want := map[string]int{}
	if b.row.Lane == XDP {
		for _, passed := range []map[string]int{t.passedOut, t.passedIn} {
			for reason, n := range passed {
				want[reason] += n
			}
		}
	}
	return want
}

func (b *bed) compareCounts(t trial, before, after ledger) error {
	lanes, drops := after.since(before)
	if lanes[nextHop] > 0 {
		return errNextHop
	}
	want := t.drops
	if want == nil {
		want = map[string]uint64{}
	}
	if !maps.Equal(drops, want) {
		return fmt.Errorf("drops: %v, want %v", drops, want)
	}
	kernel := uint64(t.refused)
	if b.byKernel() || t.only != "" {
		kernel += uint64(t.lanedIn + t.lanedOut)
	}
	byXDP, byKernel := map[string]int{}, uint64(0)
	for reason, n := range lanes {
		if strings.HasPrefix(reason, "xdp_") {
			byXDP[reason] = int(n)
		} else {
			byKernel += n
		}
	}
	if byKernel != kernel || t.only != "" && !b.byKernel() && lanes[t.only] != kernel {
		return fmt.Errorf("lane: %d packets took the kernel lane (%v), want %d %s", byKernel, lanes, kernel, t.only)
	}
	if want := b.passed(t); !maps.Equal(byXDP, want) {
		return fmt.Errorf("lane: the XDP lane passed on %v, want %v", byXDP, want)
	}
	for program, n := range b.seen(t) {
		if got := after.books[program].In - before.books[program].In; got != uint64(n) {
			return fmt.Errorf("%s saw %d packets, want %d (lanes %v)", program, got, n, lanes)
		}
	}
	if n := after.books["from_port"].Answers - before.books["from_port"].Answers; n != uint64(t.answers) {
		return fmt.Errorf("%d packets were answered, want %d", n, t.answers)
	}
	return nil
}

// compareFrames collects what arrived at every place, up to a fence that is sent after it.
func (b *bed) compareFrames(t trial) error {
	if !t.keeps {
		if err := b.reset(); err != nil {
			return err
		}
	}
	got, err := b.fence()
	if err != nil {
		return err
	}
	for _, w := range workloads {
		name := w.name
		if len(got[name]) != len(t.at[name]) {
			return fmt.Errorf("%s got %d frames, want %d: %x", name, len(got[name]), len(t.at[name]), got[name])
		}
		for i, f := range got[name] {
			if !bytes.Equal(f, t.at[name][i]) {
				return fmt.Errorf("%s got\n%x, want\n%x", name, f, t.at[name][i])
			}
		}
	}
	b.left = nil
	left := slices.Clone(t.tunnels)
	if len(got["peer"]) != len(left) {
		return fmt.Errorf("the underlay got %d packets, want %d: %x", len(got["peer"]), len(left), got["peer"])
	}
	for _, packet := range got["peer"] {
		var errs []error
		i := slices.IndexFunc(left, func(w sent) bool {
			if !w.from.IsValid() {
				w.from = map[bool]netip.Addr{true: IPv4.addresses().Own, false: IPv6.addresses().Own}[w.to.Is4()]
			}
			f, err := w.verify(packet, b.hostMAC)
			if errs = append(errs, err); err == nil {
				b.left = append(b.left, f)
			}
			return err == nil
		})
		if i < 0 {
			return errors.Join(errs...)
		}
		left = slices.Delete(left, i, i+1)
	}
	return nil
}

// fence sends a frame on every way and returns what was there before it. All of it runs on one CPU, in order.
func (b *bed) fence() (got map[string][][]byte, err error) {
	b.fences++
	frame := func(dst, src wire.MAC) []byte {
		f := append(append([]byte{}, dst[:]...), src[:]...)
		f = binary.BigEndian.AppendUint16(f, fenceType)
		f = binary.BigEndian.AppendUint32(f, b.fences)
		return append(f, make([]byte, 42)...)
	}
	waiting := map[string]int{"w1": 1, "w2": 2, "x1": 1, "t1": 1, "peer": 1}
	err = errors.Join(b.at["w1"].send(frame(mac2, mac1)), b.at["w1"].send(frame(macA, mac1)),
		b.at["peer"].send(b.in(frame(mac1, macA))), b.at["peer"].send(b.in(frame(mac2, macA))), b.at["peer"].send(b.in(frame(mac3, macA))),
		b.at["peer"].send(b.in(frame(mac2, macA), func(p *tunnel) { p.vni = vni8 })))
	if err != nil {
		return nil, err
	}
	got = map[string][][]byte{}
	marker := binary.BigEndian.AppendUint32([]byte{fenceType >> 8, fenceType & 0xff}, b.fences)
	err = await("the fence arrives", b.patience, func() (bool, error) {
		for name, s := range b.at {
			frames, err := drain(s, name == "peer")
			if err != nil {
				return false, fmt.Errorf("%s: %w", name, err)
			}
			for _, f := range frames {
				if at := bytes.Index(f, marker); at >= 12 {
					waiting[name]--
				} else {
					got[name] = append(got[name], f)
				}
			}
		}
		for _, n := range waiting {
			if n > 0 {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		err = fmt.Errorf("%w: still waited for %v", err, waiting)
	}
	return got, err
}

// drain takes what is there. On the underlay only what could be a tunnel packet counts: the host's own kernel speaks there too.
func drain(s place, underlay bool) (frames [][]byte, err error) {
	for {
		f, err := s.next()
		if err != nil {
			return frames, fmt.Errorf("%w: %x", err, f)
		}
		if f == nil {
			return frames, nil
		}
		if underlay {
			if p, err := wire.ParseFrame(f); err == nil && !p.Layers.Has(wire.LayerUDP) && !p.IPv4.IsFragment() && !p.IPv6.IsFragment() {
				continue
			}
		}
		frames = append(frames, f)
	}
}
