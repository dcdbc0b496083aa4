package datapath

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/weftnet/weft/wire"
)

// How many VTEPs beside the sender's the largest network has. `make soak` has more:
//
//	go test ./datapath -run '^TestFloods$' -floods.vteps 32
var floodVTEPs = flag.Int("floods.vteps", 8, "VTEPs that TestFloods floods to, 2 of them first")

// floods is how many frames of each kind are flooded by each method.
const floods = 20

// floodMethod is a way to reach a network's VTEPs.
type floodMethod struct {
	name string
	// byGroup reports whether the VTEP of a number receives the group; copied, whether it gets a copy of its own.
	byGroup func(number int) bool
}

func (m floodMethod) copied(number int) bool { return !m.byGroup(number) }

var floodMethods = []floodMethod{
	{"head-end replication", func(int) bool { return false }},
	{"multicast", func(int) bool { return true }},
	{"multicast, and copies for every other VTEP", func(number int) bool { return number%2 == 0 }},
}

// floodKinds are the frames that are flooded.
var floodKinds = map[string]wire.MAC{"broadcast": macAll, "multicast": {1, 0, 0x5e, 9, 9, 9}, "unknown unicast": macNowhere}

// TestFloods: every method, over IPv4 and IPv6, to 2 VTEPs of a network, to 8, and where it is asked for to 32, beside VTEPs without a member: a flooded frame
// arrives exactly once at every member, and not at its sender. On the wire there is exactly one packet for each VTEP that gets a copy, and one for
// the group; to a VTEP without a member there is none, and the underlay brings it nothing; and no VTEP that receives a flood sends anything.
// What the sender counts is what there was.
// Red when remote_copy stops one before the last, when flood_remote does not set itself or flood counts what came from a tunnel, when local_copy does not leave the sender out, when group_hop takes the Ethernet address of
// another group, and, at its end, when check_entry lets what comes from a tunnel into another.
func TestFloods(t *testing.T) {
	sizes := []int{min(2, *floodVTEPs), min(8, *floodVTEPs), *floodVTEPs}
	b := newFloodBed(t, *floodVTEPs+1)
	for _, n := range slices.Compact(sizes) {
		for _, ip6 := range []bool{false, true} {
			for _, m := range floodMethods {
				name := fmt.Sprintf("%d VTEPs, %s, %s", n, m.name, map[bool]string{false: "IPv4", true: "IPv6"}[ip6])
				t.Run(name, func(t *testing.T) { b.flood(t, n, ip6, m) })
			}
		}
	}
	b.splitHorizon(t)
	must(t, b.vteps[0].dp.DeleteNetwork(floodVNI))
	if have := b.counted(t, 0); have != (FloodCount{}) {
		t.Errorf("%+v is counted still of a network that is gone", have)
	}
	for _, v := range b.vteps {
		v.balanced()
		if list, err := v.dp.Drops(); err != nil || len(sumDrops(list)) > 0 && v.number != 1 {
			t.Errorf("VTEP %d dropped something: %v, %v", v.number, list, err)
		}
	}
}

// sumDrops is by reason, without those that are zero.
func sumDrops(list []DropCount) map[string]uint64 {
	n := map[string]uint64{}
	for _, d := range list {
		if d.Packets > 0 && !d.Source.IsValid() {
			n[d.Reason.String()] += d.Packets
		}
	}
	return n
}

// flood floods frames of every kind in one network, and compares all that is seen with what must be.
func (b *floodBed) flood(t *testing.T, n int, ip6 bool, m floodMethod) {
	b.configure(t, n, ip6, m)
	b.settle(t, n, ip6, m)
	packets := 0
	for _, kind := range slices.Sorted(maps.Keys(floodKinds)) {
		b.forget(t)
		before := b.counted(t, 0)
		b.send(t, floodKinds[kind], testProtocol, floods)
		want := b.expect(n, ip6, m, floods)
		await(t, kind+" at every member", func() bool { b.look(t); return b.seen.covers(want) })
		// What is sent last arrives last.
		b.send(t, macAll, fenceProtocol, 1)
		await(t, "the flood after it", func() bool { b.look(t); return b.fenced >= b.members(n) })
		b.look(t)
		if why := b.seen.differs(want); why != "" {
			t.Errorf("%s: %s", kind, why)
		}
		sent := 0
		for _, out := range b.seen.out[0] {
			sent += out
		}
		packets += sent
		counts := FloodCount{before.Floods + floods + 1, before.Copies + uint64(sent+sent/floods)} // with the fence
		if have := b.counted(t, 0); have != counts {
			t.Errorf("%s: the sender counts %+v, and it should be %+v", kind, have, counts)
		}
		for v := range b.vteps[1:] {
			if have := b.counted(t, v+1); have != (FloodCount{}) {
				t.Errorf("%s: VTEP %d counts %+v, and has flooded nothing itself", kind, v+1, have)
			}
		}
	}
	kinds := len(floodKinds)
	t.Logf("%s: %d floods, %d packets on the underlay (%s a flood), each of %d ports got %d; %d VTEPs without a member: nothing; sent by those that received: nothing",
		t.Name(), floods*kinds, packets, ratio(packets, floods*kinds), b.members(n), floods*kinds, len(b.vteps)-1-n)
}

// counted is what a VTEP counts of the network's floods.
func (b *floodBed) counted(t *testing.T, number int) FloodCount {
	t.Helper()
	all, err := b.vteps[number].dp.FloodCounts()
	must(t, err)
	return all[floodVNI]
}

func ratio(a, b int) string {
	if a%b == 0 {
		return fmt.Sprint(a / b)
	}
	return fmt.Sprintf("%.3f", float64(a)/float64(b))
}

// splitHorizon: what a VTEP gets by the tunnel for a MAC that is behind another one it drops, one by one, and sends nothing.
func (b *floodBed) splitHorizon(t *testing.T) {
	t.Run("what comes from the tunnel for another VTEP", func(t *testing.T) {
		b.configure(t, 2, false, floodMethods[0])
		elsewhere := FDBKey{VNI: floodVNI, MAC: wire.MAC{2, 0, 0, 0, 9, 9}}
		must(t, b.vteps[0].dp.PutFDB([]FDBEntry{{FDBKey: elsewhere, VTEP: 1}}))
		must(t, b.vteps[1].dp.PutFDB([]FDBEntry{{FDBKey: elsewhere, VTEP: 2}}))
		b.settle(t, 2, false, floodMethods[0])
		b.forget(t)
		before := b.vteps[1].drops(DropSplitHorizon)
		b.send(t, elsewhere.MAC, testProtocol, floods)
		await(t, "split_horizon is counted", func() bool { return b.vteps[1].drops(DropSplitHorizon) >= before+floods })
		b.send(t, macAll, fenceProtocol, 1)
		await(t, "the flood after it", func() bool { b.look(t); return b.fenced >= b.members(2) })
		want := b.nothing()
		want.out[0][b.addr(1, false)], want.in[1][b.addr(1, false)] = floods, floods
		if why := b.seen.differs(want); why != "" {
			t.Error(why)
		}
		if n := b.vteps[1].drops(DropSplitHorizon) - before; n != floods {
			t.Errorf("%d of %d were dropped as split_horizon", n, floods)
		}
		must(t, b.vteps[0].dp.DeleteFDB([]FDBKey{elsewhere}))
		must(t, b.vteps[1].dp.DeleteFDB([]FDBKey{elsewhere}))
	})
}

// floodCount is what was seen, by VTEP: on the wire out of it and into it by outer destination, and at each of its ports.
type floodCount struct {
	out, in []map[string]int
	ports   [][]int
}

// covers reports whether there is as much as is wanted, or more, of everything.
func (c floodCount) covers(want floodCount) bool {
	for i := range want.out {
		for k, n := range want.out[i] {
			if c.out[i][k] < n {
				return false
			}
		}
		for k, n := range want.in[i] {
			if c.in[i][k] < n {
				return false
			}
		}
		for k, n := range want.ports[i] {
			if c.ports[i][k] < n {
				return false
			}
		}
	}
	return true
}

// differs says what is not exactly as it must be.
func (c floodCount) differs(want floodCount) (why string) {
	for i := range want.out {
		switch {
		case !maps.Equal(c.out[i], want.out[i]):
			why = cmp.Or(why, fmt.Sprintf("VTEP %d sent %v, want %v", i, c.out[i], want.out[i]))
		case !maps.Equal(c.in[i], want.in[i]):
			why = cmp.Or(why, fmt.Sprintf("the underlay brought VTEP %d %v, want %v", i, c.in[i], want.in[i]))
		case !slices.Equal(c.ports[i], want.ports[i]):
			why = cmp.Or(why, fmt.Sprintf("the ports of VTEP %d got %v frames, want %v", i, c.ports[i], want.ports[i]))
		}
	}
	return why
}
