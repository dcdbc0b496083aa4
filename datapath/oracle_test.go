package datapath

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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
	d.readyXDP(t, d.far)
	must(t, d.a.ns.Lock()) // BPF_PROG_TEST_RUN looks for interfaces in the caller's namespace
	const most = 8
	failures, n := 0, 0
	begin := time.Now()
	for ; failures < most && (n < *oraclePackets || n < *oraclePackets+rareWithin && d.uncovered() != ""); n += packetsPerPlan() {
		p := d.plan()
		d.apply(p)
		var shots []shot
		for i := range packetsPerPlan() {
			s := d.packet(p)
			shots = append(shots, s)
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
		if why := d.sameLearned(p); why != "" {
			failures++
			t.Errorf("packets %d to %d: %s\nplan: %s", n, n+len(shots), why, planText(p))
		}
		if why := d.settle(); why != "" {
			failures++
			t.Errorf("packets %d to %d: %s", n, n+len(shots), d.explain(p, d.culprit(p, shots), why))
		}
	}
	took := time.Since(begin)
	t.Logf("%d packets in %s: %.0f a second", n, took.Round(time.Second), float64(n)/took.Seconds())
	d.a.balanced()
	if *oraclePackets >= 10_000 {
		d.fairXDP(t)
	}
	if k := d.uncovered(); k != "" {
		t.Errorf("no packet was %s: the generator is broken", k)
	}
	for _, k := range slices.Sorted(maps.Keys(d.covered)) {
		t.Logf("%6d %s", d.covered[k], k)
	}
}

// rareWithin is how many packets more there may be until every outcome was met: of a hundred plans none may have a port that teaches.
const rareWithin = 100_000

// uncovered is an outcome that none of many packets had, or nothing.
func (d *duel) uncovered() string {
	for _, k := range []string{"delivered", "encapsulated", "flooded", "passed checksum", "handed", "dropped dhcp_server", "dropped router_advertisement", "went to a group", "came by a group",
		"dropped other_group", "learned at a port", "learned at a VTEP", "learned and moved"} {
		if *oraclePackets >= 10_000 && d.covered[k] == 0 {
			return k
		}
	}
	return ""
}

// differ is compare and settle at once.
func (d *duel) differ(p *oracle.Plan, s shot) string {
	why := d.compare(p, s)
	return cmp.Or(why, d.settle())
}

// culprit finds the packet whose copies differ.
func (d *duel) culprit(p *oracle.Plan, shots []shot) shot {
	for _, s := range shots {
		if d.differ(p, s) != "" {
			return s
		}
	}
	return shots[0]
}

// explain makes a difference as small as it gets, and shows it.
func (d *duel) explain(p *oracle.Plan, s shot, why string) string {
	d.wait(time.Second) // a frame that is missing is missing again and again
	defer d.wait(patience)
	differs := func(p *oracle.Plan, s shot) bool {
		d.apply(p)
		d.settle()
		return d.differ(p, s) != ""
	}
	if differs(p, s) {
		p = shrinkPlan(p, func(q *oracle.Plan) bool { return differs(q, s) })
		s = shrinkPacket(s, func(q shot) bool { return differs(p, q) })
		d.apply(p)
		d.settle()
		if now := d.differ(p, s); now != "" {
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
	q.Sources, q.Groups = maps.Clone(p.Sources), maps.Clone(p.Groups)
	q.Accepts, q.Ports = maps.Clone(p.Accepts), maps.Clone(p.Ports)
	shrinkMap(q.FDB, func() bool { return differs(&q) })
	shrinkMap(q.Accepts, func() bool { return differs(&q) })
	shrinkMap(q.Groups, func() bool { return differs(&q) })
	shrinkMap(q.Sources, func() bool { return differs(&q) })
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
	return fmt.Sprintf("local %s %s mtu %d\n vteps %v\n networks %+v\n fdb %v\n accepts %v\n sources %v, teachers %v\n groups %v\n ports %+v", p.Addr4, p.Addr6, p.UplinkMTU, p.VTEPs,
		p.Networks, p.FDB, p.Accepts, p.Sources, p.Teachers, p.Groups, p.Ports)
}

// TestOracleFound: what ten million packets found once. An aggregate with extension headers is measured with room for all that may be there, and what
// is no IP packet by its whole length. Red when headers (oracle) takes either for UDP.
func TestOracleFound(t *testing.T) {
	testenv.Require(t, "root", "bpf")
	d := newDuel(t, 1)
	must(t, d.a.ns.Lock())
	w := d.ports[1]
	p := d.plan()
	p.Ports = map[uint32]oracle.Port{w.ifindex: {MTU: 1500, VNI: 8, MACs: []wire.MAC{w.mac}, Unguarded: true}}
	p.Networks = map[wire.VNI]oracle.Network{8: {MTU: 576}}
	p.FDB = map[oracle.FDBKey]oracle.FDBEntry{{VNI: 8, MAC: wire.MAC{2, 0, 0, 0, 0, 7}}: {VTEP: 9}} // no such VTEP: what fits is dropped as unknown_vtep
	p.VTEPs, p.Neighbours, p.Accepts, p.Teachers = map[uint32]oracle.VTEP{}, map[oracle.NeighbourKey]oracle.Neighbour{}, map[oracle.Accept]bool{}, map[oracle.Accept]uint32{}
	p.Sources, p.Groups = map[oracle.Source]bool{}, map[oracle.Group]bool{}
	d.apply(p)
	ethernet := append([]byte{2, 0, 0, 0, 0, 7}, w.mac[:]...)
	options := slices.Concat(ethernet, []byte{0x86, 0xdd, 0x60, 0, 0, 0, 4, 0xb8, 60, 64}, make([]byte, 32), []byte{unix.IPPROTO_TCP, 0, 1, 4, 0, 0, 0, 0}, make([]byte, 1200))
	options[14+40+8+12] = 5 << 4 // the TCP header's length
	for name, data := range map[string][]byte{"behind destination options": options, "no IP packet": slices.Concat(ethernet, make([]byte, 579))} {
		for size := 400; size < 600; size++ {
			if why := d.differ(p, shot{"from_port", w.ifindex, oracle.Packet{Data: data, SegmentSize: size}}); why != "" {
				t.Errorf("%s, segments of %d octets: %s", name, size, why)
				break
			}
		}
	}
}
