package datapath

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/oracle"
	"github.com/weftnet/weft/internal/testenv"
	"github.com/weftnet/weft/wire"
)

// TestOracleOnTheWire sends a part of the packets for real: VLAN tags are then in the metadata, runts are not refused, and what is
// left to the kernel lane comes out of it. Red when, for instance, from_vxlan forgets the accept table, or the kernel lane loses DF.
func TestOracleOnTheWire(t *testing.T) {
	testenv.Require(t, "root", "bpf")
	seed := *oracleSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d: repeat with -oracle.seed %d or WEFT_ORACLE_SEED", seed, seed)
	d := newDuel(t, seed)
	d.kernel = true
	packets := max(2000, *oraclePackets/10)
	for n := 0; n < packets && !t.Failed(); n += packetsPerPlan() {
		p := d.plan()
		d.apply(p)
		for i := range packetsPerPlan() {
			s := d.packet(p)
			s.SegmentSize = 0
			if why := d.onTheWire(p, s); why != "" {
				t.Errorf("packet %d: %s\n%s\nplan: %s", n+i, why, s, planText(p))
				break
			}
		}
	}
	d.a.balanced()
	lanes := 0
	for k, n := range d.covered {
		if strings.HasSuffix(k, "kernel lane true") {
			lanes += n
		}
	}
	if lanes < 20 {
		t.Errorf("only %d packets took the kernel lane: the generator is broken", lanes)
	}
	for _, k := range slices.Sorted(maps.Keys(d.covered)) {
		t.Logf("%6d %s", d.covered[k], k)
	}
}

// untag is what a hook sees of a frame that a card received.
func untag(b []byte) oracle.Packet {
	if kind := binary.BigEndian.Uint16(b[12:]); kind == 0x8100 || kind == 0x88a8 {
		return oracle.Packet{Data: slices.Concat(b[:12], b[16:]), Tagged: true}
	}
	return oracle.Packet{Data: b}
}

// onTheWire sends one packet and says how what happens differs from what the oracle says.
func (d *duel) onTheWire(p *oracle.Plan, s shot) string {
	longest := 1600 + 14
	if s.hook == "from_port" {
		longest = 1500 + 14
	}
	if len(s.Data) < 20 || len(s.Data) > longest {
		return "" // the sender's own kernel refuses it
	}
	want, byKernel, ok := d.verdict(p, s)
	if !ok {
		return ""
	}
	d.drain()
	d.forgetAsked(s)
	drops, before := d.allDrops(), d.seen()
	if err := unix.Sendto(d.taps[s.ifindex].fd, s.Data, 0, &unix.SockaddrLinklayer{Ifindex: d.taps[s.ifindex].index, Halen: 6}); err != nil {
		return fmt.Sprintf("send: %v", err)
	}
	d.covered[fmt.Sprintf("%s %s %s kernel lane %t", s.hook, want.Verdict, want.Reason, byKernel)]++
	reasons := counted(want.CopyDrops)
	if want.Verdict == oracle.Dropped {
		reasons = counted(append(reasons, want.Reason))
	}
	var got []string
	done := func() bool {
		now := d.seen()
		got = diffCounts(d.allDrops(), drops)
		return now[s.hook] > before[s.hook] && (!byKernel || now["from_vxlan"] > before["from_vxlan"]) && slices.Equal(got, reasons)
	}
	for deadline := time.Now().Add(patience); !done(); {
		if time.Now().After(deadline) {
			return fmt.Sprintf("oracle: %s, drops %v, kernel lane %t; datapath: drops %v, seen %v, before %v", want.Verdict, reasons, byKernel, got, d.seen(), before)
		}
		unix.Poll(nil, 1)
	}
	for _, to := range want.Deliveries {
		if b := d.taps[to.Ifindex].waitNext(); !bytes.Equal(b, to.Frame) {
			return fmt.Sprintf("oracle: for interface %d\n%x\ndatapath:\n%x", to.Ifindex, to.Frame, b)
		}
	}
	if want.Verdict == oracle.Answered {
		if b := d.taps[s.ifindex].waitNext(); !bytes.Equal(b, want.Data) {
			return fmt.Sprintf("oracle: answered\n%x\ndatapath:\n%x", want.Data, b)
		}
	}
	left := slices.Clone(want.Tunnels)
	for len(left) > 0 {
		b, why := d.nextTunnel(), "it did not come"
		i := slices.IndexFunc(left, func(t oracle.Tunnel) bool {
			if b != nil {
				why = d.sameTunnel(t, s.Data, b, true)
			}
			return b != nil && why == ""
		})
		if i < 0 {
			return "a tunnel packet: " + why
		}
		left = slices.Delete(left, i, i+1)
	}
	return d.surplus()
}

// verdict is the oracle's on a packet's whole way. ok is false where the kernel's part is not modelled.
func (d *duel) verdict(p *oracle.Plan, s shot) (want oracle.Result, byKernel, ok bool) {
	in := untag(s.Data)
	if len(in.Data) < 14 {
		return want, false, false
	}
	if s.hook == "from_port" {
		if _, attached := p.Ports[s.ifindex]; !attached {
			return want, false, false // no program is there
		}
		want = p.FromPort(s.ifindex, in, func([]byte) (uint16, uint32) { return 49152, 0 })
		return want, false, true
	}
	want = p.FromUplink(in)
	if want.Verdict != oracle.Passed {
		return want, false, true
	}
	if want.Lane == "" {
		// The rest is the kernel's. Its device gets what is for an address of the host that is no VTEP's, or what it puts together or
		// finds behind extension headers; all of that is unmarked, and has its own tests.
		return want, false, !in.Tagged && in.Data[12] != 0x86 && len(in.Data) > 38 && in.Data[14] == 0x45 && in.Data[20]&0x3f == 0 &&
			in.Data[21] == 0 && binary.BigEndian.Uint16(in.Data[36:]) != 4789
	}
	// Nor does the kernel take what has one of the machine's own addresses as source, which without that VTEP address is nobody's to weft.
	if want.Lane == "options" || !checksumHolds(want) || want.Key.Src == duelOwn4 {
		return want, false, false
	}
	return p.FromVXLAN(oracle.Packet{Data: want.Inner}, want.Key), true, true
}

// checksumHolds: a zero or right outer UDP checksum. The kernel drops what has another.
func checksumHolds(r oracle.Result) bool {
	b, udp := r.Data, 34+int(r.Data[14]&15)*4-20
	dst := netip.AddrFrom4([4]byte(b[30:34]))
	if b[12] == 0x86 {
		udp, dst = 54, netip.AddrFrom16([16]byte(b[38:54]))
	}
	length := int(binary.BigEndian.Uint16(b[udp+4:]))
	return wire.UDPChecksumOK(r.Key.Src, dst, b[udp:udp+length])
}

// seen is how many packets each program was given.
func (d *duel) seen() map[string]uint64 {
	books, err := d.a.dp.Books()
	must(d.t, err)
	n := map[string]uint64{}
	for _, b := range books {
		n[b.Program] = b.In
	}
	return n
}

// allDrops counts every reason.
func (d *duel) allDrops() map[string]int {
	n := map[string]int{}
	list, err := d.a.dp.Drops()
	must(d.t, err)
	for _, c := range list {
		if !c.Source.IsValid() {
			n[c.Reason.String()] += int(c.Packets)
		}
	}
	return n
}
