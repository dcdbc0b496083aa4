package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/distribute"
	"github.com/weftnet/weft/plan"
)

// planOf is a plan of n FDB entries in 100 networks, behind 100 hosts or, with macs 0, behind one external VTEP a network. macs is
// how many each port has.
func planOf(n, macs int) []*plan.Resource {
	const networks, hosts = 100, 100
	var all []*plan.Resource
	h := &planv1.Host{Uid: "h1", Name: "h1", Vtep: "h1"}
	for i := range hosts {
		uid := fmt.Sprintf("h%d", i+1)
		all = append(all, plan.NewVTEP(1, &planv1.Vtep{Uid: uid, Addresses: [][]byte{{198, 18, byte(i), 1}}, UdpPort: 4789}))
		h.Vteps = append(h.Vteps, uid)
	}
	mac := func(i int) []byte { return binary.BigEndian.AppendUint32([]byte{2, 0}, uint32(i)) }
	for i := range networks {
		uid := fmt.Sprintf("n%020d", i)
		m := &planv1.Network{Uid: uid, Vni: uint32(5000 + i), Mtu: 1450}
		if macs == 0 {
			e := &planv1.ExternalVtep{Vtep: "h2"}
			for j := range n / networks {
				e.Macs = append(e.Macs, mac(i*n/networks+j))
			}
			m.External = append(m.External, e)
		}
		all = append(all, plan.NewNetwork(1, m))
		for i := range hosts {
			if macs == 0 {
				all = append(all, memberOf(uid, fmt.Sprintf("h%d", i+1)))
			}
		}
		h.Networks = append(h.Networks, uid)
	}
	all = append(all, plan.NewHost(1, h))
	if macs == 0 {
		return all
	}
	for i := range n / macs {
		host := fmt.Sprintf("h%d", i%(hosts-1)+2)
		p := &planv1.Port{
			Uid: fmt.Sprintf("p%025d", i), Network: h.Networks[i%networks],
			Epoch: 1, Active: host, Vtep: host, TenantName: "acme", Name: fmt.Sprintf("p%d", i),
		}
		for j := range macs {
			p.Macs = append(p.Macs, mac(i*macs+j))
		}
		all = append(all, plan.NewPort(1, p))
	}
	return all
}

// messagesOf are the octets of a whole plan, as a server sends them.
func messagesOf(t testing.TB, all []*plan.Resource) (messages [][]byte) {
	t.Helper()
	d := distribute.New(distribute.Config{})
	d.Reset("store", 1, all)
	ctx, cancel := context.WithCancel(t.Context())
	err := d.Serve(ctx, "h1", &planv1.Hello{}, func(m *planv1.ServerMessage) error {
		b, err := proto.Marshal(m)
		messages = append(messages, b)
		if m.GetUpdate().GetLast() {
			cancel()
		}
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	return messages
}

// TestAVTEPConcernsItsOwnMACs: a VTEP that comes concerns the MACs behind it, and not those behind others of its networks, or a plan
// costs its entries times its VTEPs. Leave the comparison of VTEPs out of touchUsers and it goes red.
func TestAVTEPConcernsItsOwnMACs(t *testing.T) {
	const n = 1000
	w := newWorld(t)
	for _, r := range planOf(n, 0) {
		w.put(r)
	}
	w.flush()
	w.check()
	for vtep, want := range map[string]int{"h2": n, "h3": 0} {
		d := newDirty()
		w.rec.view.touchUsers(vtep, d)
		marked := 0
		for _, macs := range d.fdb {
			marked += len(macs)
		}
		for vni := range d.fdbOf {
			marked += len(w.rec.view.claims[vni])
		}
		if marked != want {
			t.Errorf("VTEP %s concerns %d entries, want %d", vtep, marked, want)
		}
	}
}

// blackHole is a kernel that takes FDB entries and neighbours without keeping them.
type blackHole struct {
	*fakeKernel
	entries, neighbours atomic.Int64
}

func (k *blackHole) PutFDB(list []datapath.FDBEntry) error {
	k.entries.Add(int64(len(list)))
	return nil
}

func (k *blackHole) PutTeachers([]datapath.Teacher) error { return nil }

func (k *blackHole) PutNeighbours(list []datapath.Neighbour) error {
	k.neighbours.Add(int64(len(list)))
	return nil
}

// fleetPlan is the plan of a host that has a port in each of 1,000 networks of 100 ports, on 1,000 hosts: every one has an IPv4 address.
func fleetPlan() (all []*plan.Resource) {
	const networks, hosts, ports = 1000, 1000, 100
	h := &planv1.Host{Uid: "h1", Name: "h1", Vtep: "h1"}
	for i := range hosts {
		uid := fmt.Sprintf("h%d", i+1)
		all = append(all, plan.NewVTEP(1, &planv1.Vtep{Uid: uid, Name: uid, Addresses: [][]byte{{198, 18, byte(i >> 8), byte(i)}}, UdpPort: 4789}))
		h.Vteps = append(h.Vteps, uid)
	}
	for i := range networks {
		n := &planv1.Network{Uid: fmt.Sprintf("n%020d", i), Vni: uint32(5000 + i), Mtu: 1450}
		all = append(all, plan.NewNetwork(1, n))
		h.Networks = append(h.Networks, n.Uid)
		for j := range ports {
			host := fmt.Sprintf("h%d", (i*37+j*11)%(hosts-1)+2)
			all = append(all, plan.NewPort(1, &planv1.Port{Uid: fmt.Sprintf("p%025d", i*ports+j), Network: n.Uid, Epoch: 1, Active: host, Vtep: host,
				TenantName: "acme", Name: fmt.Sprintf("port-%d", i*ports+j), Macs: [][]byte{{2, 0, 0, 0, byte(i), byte(j)}}, Ips: []string{fmt.Sprintf("10.0.0.%d/24", j+1)}}))
		}
	}
	return append(all, plan.NewHost(1, h))
}

// BenchmarkColdStart is the agent's part in a plan of 100,000 ports, from the octets to the system calls.
func BenchmarkColdStart(b *testing.B) {
	messages := messagesOf(b, fleetPlan())
	for b.Loop() {
		k := takeIn(b, messages)
		if k.entries.Load() != 100_000 || k.neighbours.Load() != 100_000 {
			b.Fatalf("%d entries and %d neighbours, want 100,000 of each", k.entries.Load(), k.neighbours.Load())
		}
	}
}

// BenchmarkPlan is the agent's part in a plan of 1,000,000 FDB entries, from the octets to the system calls.
func BenchmarkPlan(b *testing.B) {
	const n = 1_000_000
	for _, shape := range []struct {
		name string
		macs int
	}{{"external", 0}, {"16 a port", 16}, {"1 a port", 1}} {
		b.Run(shape.name, func(b *testing.B) {
			messages := messagesOf(b, planOf(n, shape.macs))
			for b.Loop() {
				k := takeIn(b, messages)
				if k.entries.Load() != n {
					b.Fatalf("%d entries, want %d", k.entries.Load(), n)
				}
			}
		})
	}
}

// takeIn has a new agent take these octets in, as they come.
func takeIn(b *testing.B, messages [][]byte) *blackHole {
	k := &blackHole{fakeKernel: newFakeKernel()}
	r := NewReconciler(k, "h1", thisEnd, slog.New(slog.DiscardHandler))
	if err := r.Load(); err != nil {
		b.Fatal(err)
	}
	r.Flush()
	staging := plan.NewStaging("h1", plan.NewSet(), "", 0)
	staging.Spread = onAllCores
	start := time.Now()
	for _, octets := range messages {
		var m planv1.ServerMessage
		if err := proto.Unmarshal(octets, &m); err != nil {
			b.Fatal(err)
		}
		step, err := staging.Receive(m.GetUpdate())
		if err != nil {
			b.Fatal(err)
		}
		if step != nil {
			b.ReportMetric(time.Since(start).Seconds(), "s-staged")
			r.Take(step.Upserts, step.Removed)
			b.ReportMetric(time.Since(start).Seconds(), "s-applied")
			r.Flush()
			b.ReportMetric(time.Since(start).Seconds(), "s-flushed")
		}
	}
	return k
}
