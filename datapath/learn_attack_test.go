package datapath

import (
	"flag"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/weftnet/weft/wire"
)

// A port or a VTEP that sends from ever new source MACs. `make soak` sends more:
//
//	go test ./datapath -run TestMACFlood -flood.macs 1000000
var floodMACs = flag.Int("flood.macs", envInt("WEFT_FLOOD_MACS", 100_000), "source MACs that an attacker sends from")

// macFlood is a lesson at the sizes of the product, with w2 on host b, which w3 talks with, and w8, which is in a network that does not learn.
type macFlood struct {
	*lesson
	w2, w8 *workload
	// others are MACs that the second VTEP and w4's port had taught before.
	others []FDBKey
}

const (
	productVTEPLimit = 8192
	productPortLimit = 1024
	othersMACs       = 100
)

func newMACFlood(t *testing.T) *macFlood {
	f := &macFlood{lesson: newLesson(t, false, func(n *Network) {
		n.Learning = Learning{Ageing: time.Hour, VTEPLimit: productVTEPLimit, PortLimit: productPortLimit}
	})}
	f.w2 = f.b.workload(7, 2, f.a)
	join(t, 8, f.a, f.b)
	f.w8 = f.a.workload(8, 8, nil)
	for _, w := range []*workload{f.w2, f.w8} {
		must(t, w.ns.SetSysctl("net/ipv6/conf/eth0/disable_ipv6", "1"))
	}
	for _, way := range [][2]*testHost{{f.a, f.b}, {f.b, f.a}} { // the kernel is to ask nobody meanwhile
		far, err := way[1].ns.LinkByName("up0")
		must(t, err)
		must(t, way[0].ns.SetNeighbour(int(way[0].uplink()), way[1].local.addr(), far.MAC))
	}
	p := f.w4.port() // opened, and may send from any
	p.Unguarded = true
	must(t, f.a.dp.UpdatePort(p))
	for i := range othersMACs {
		f.arrive(foreign(1_000_000_000+i), f.w3.mac, f.second)
		f.a.run("from_port", f.w4.ifindex, frame(t, f.w3.mac, foreign(1_100_000_000+i), ip1, ip2, 40), nil)
	}
	f.others = f.taught(5, f.w4.id)
	if len(f.others) != 2*othersMACs {
		t.Fatalf("%d MACs were taught before the attack", len(f.others))
	}
	return f
}

// taught are the MACs at a VTEP and at a port.
func (f *macFlood) taught(vtep VTEPID, port PortID) (keys []FDBKey) {
	f.a.t.Helper()
	list, err := f.a.dp.Learned()
	must(f.a.t, err)
	for _, m := range list {
		if m.VTEP == vtep && m.Port == 0 || m.Port == port && m.VTEP == 0 {
			keys = append(keys, m.FDBKey)
		}
	}
	slices.SortFunc(keys, func(a, b FDBKey) int { return slices.Compare(a.MAC[:], b.MAC[:]) })
	return keys
}

// unanswered is a frame that no workload's own stack takes, and says anything about.
func unanswered(t *testing.T, dst, src wire.MAC) []byte {
	return frame(t, dst, src, netip.MustParseAddr("10.0.0.98"), netip.MustParseAddr("10.0.0.99"), 40)
}

// macVolley is how many frames of the attacker are under way at once: less than the kernel's queues hold.
const macVolley = 500

// knownEach is how many known frames go each way between w3 and w2 while a volley of the attacker's is under way.
const knownEach = 25

// attack sends n frames, each from the next MAC, whose place in the frame is at an offset, and known frames between others all the while. taken says
// how many of the attacker's the host has taken in.
func (f *macFlood) attack(t *testing.T, n int, g *gun, at int, taken func() uint64) {
	t.Helper()
	there := armFrames(t, f.w3.ns, "eth0", false, unanswered(t, f.w2.mac, f.w3.mac))
	back := armFrames(t, f.w2.ns, "eth0", false, unanswered(t, f.w3.mac, f.w2.mac))
	known := quote(f.w3.mac) // and of w2
	at2, at3 := newWitness(t, f.w2.ns, "eth0", known), newWitness(t, f.w3.ns, "eth0", known)
	base, begin := taken(), time.Now()
	sent, knownSent, got2, got3 := 0, 0, 0, 0
	for sent < n {
		k := min(macVolley, n-sent)
		for range k {
			mac := foreign(sent)
			copy(g.rounds[0][at:], mac[:])
			must(t, g.fire(1))
			sent++
		}
		must(t, there.fire(knownEach))
		must(t, back.fire(knownEach))
		knownSent += knownEach
		await(t, fmt.Sprintf("%d of the attacker's frames are taken in", sent), func() bool { return taken()-base >= uint64(sent) })
		await(t, "the known frames arrive", func() bool {
			got2, got3 = got2+at2.count(t), got3+at3.count(t)
			return got2 >= knownSent && got3 >= knownSent
		})
	}
	if got := taken() - base; got != uint64(n) {
		t.Errorf("%d frames were sent, and %d taken in", n, got)
	}
	if got2 != knownSent || got3 != knownSent {
		t.Errorf("of %d known frames each way %d and %d arrived", knownSent, got2, got3)
	}
	t.Logf("%d MACs sent in %s; of known frames between others %d were sent, %d arrived", n, time.Since(begin).Round(time.Millisecond), 2*knownSent, got2+got3)
}

// unharmed: what others taught is where it was, and they teach on.
func (f *macFlood) unharmed(t *testing.T) {
	t.Helper()
	if now := f.taught(5, f.w4.id); !slices.Equal(now, f.others) {
		t.Errorf("of %d MACs that others had taught %d are left", len(f.others), len(now))
	}
	late := foreign(1_200_000_000)
	f.arrive(late, f.w3.mac, f.second)
	if m := f.at(late); m.VTEP != 5 {
		t.Errorf("another VTEP teaches nothing any more: %+v, %+v", m, f.learner(5, 0))
	}
	if _, err := f.a.dp.Forget([]FDBKey{{7, late}}); err != nil {
		t.Error(err)
	}
	if full := f.learner(5, 0).Full + f.learner(0, f.w4.id).Full; full != 0 {
		t.Errorf("the table was full for others %d times", full)
	}
	f.counted()
	f.a.balanced()
	f.b.balanced()
}

// TestMACFlood: whoever sends from a hundred thousand MACs (a million in `make soak`) changes nothing for others: what they had taught stays, they teach
// on, and each of their frames arrives. Each kind of attacker ends at its own limit, by a count with a name.
//
// Red when check_identity lets every MAC pass, when take_room lets every one pass or does not count whom it refuses, or when the limits are those of
// the table.
func TestMACFlood(t *testing.T) {
	f := newMACFlood(t)
	n := *floodMACs
	t.Run("a port of a network that does not learn", func(t *testing.T) {
		g := armFrames(t, f.w8.ns, "eth0", false, unanswered(t, macRemote, macForeign))
		f.attack(t, n, g, 6, func() uint64 { return f.a.drops(DropSourceMAC) })
		if have := f.learner(0, f.w8.id); have != (Learner{}) {
			t.Errorf("it taught %+v", have)
		}
		f.unharmed(t)
	})
	t.Run("a port that may send from any MAC", func(t *testing.T) {
		p := f.w1.port()
		p.Unguarded = true
		must(t, f.a.dp.UpdatePort(p))
		g := armFrames(t, f.w1.ns, "eth0", false, unanswered(t, f.w3.mac, macForeign))
		f.attack(t, n, g, 6, func() uint64 { l := f.learner(0, f.w1.id); return uint64(l.MACs) + l.Refused })
		if have := f.learner(0, f.w1.id); have.MACs != productPortLimit || have.Refused != uint64(n-productPortLimit) {
			t.Errorf("the port's limit is %d: %+v", productPortLimit, have)
		}
		f.unharmed(t)
	})
	t.Run("a VTEP", func(t *testing.T) {
		inner := unanswered(t, f.w3.mac, macForeign)
		packet := f.a.tunnel(f.b, 7, inner, nil)
		g := armFrames(t, f.b.ns, "up0", true, packet)
		f.attack(t, n, g, len(packet)-len(inner)+6, func() uint64 { l := f.learner(1, 0); return uint64(l.MACs) + l.Refused })
		if have := f.learner(1, 0); have.MACs != productVTEPLimit || have.Refused != uint64(n-productVTEPLimit) {
			t.Errorf("the VTEP's limit is %d: %+v", productVTEPLimit, have)
		}
		f.unharmed(t)
	})
}
