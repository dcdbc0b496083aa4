package accept_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/lab"
	"github.com/weftnet/weft/lab/probe"
)

// whilePinging does something while pings go from one workload to the other, and wants every answer.
func whilePinging(t *testing.T, what string, a, b *workload, do func()) {
	t.Helper()
	type outcome struct {
		r   probe.PingResult
		err error
	}
	done := make(chan outcome, 1)
	ctx, cancel := context.WithTimeout(context.Background(), inTime)
	defer cancel()
	go func() {
		r, err := probe.Ping(ctx, a.ns, b.v4(), probe.PingConfig{Count: 100, Interval: 10 * time.Millisecond})
		done <- outcome{r, err}
	}()
	do()
	if o := <-done; o.err != nil || !o.r.Complete() {
		t.Errorf("ping while %s: %d of %d answers, %d twice, %v", what, o.r.Received, o.r.Sent, o.r.Duplicates, o.err)
	}
}

// lane waits until `weft port show` says of a port's fast path what is wanted.
func (f *fixture) lane(t *testing.T, tenant, port, want string) {
	t.Helper()
	eventually(t, fmt.Sprintf("weft port show %s says %q of its fast path", port, want), func() (bool, string) {
		out := f.must(t, "port", "show", port, "--tenant", tenant)
		for line := range strings.Lines(out) {
			if rest, ok := strings.CutPrefix(line, "Fast path"); ok {
				return strings.TrimSpace(rest) == want || strings.HasSuffix(want, "…") && strings.HasPrefix(strings.TrimSpace(rest), strings.TrimSuffix(want, "…")), out
			}
		}
		return want == "", out
	})
}

// TestFastPath: ports enter the XDP lane and leave it, asked for and by themselves, under pings and TCP; both directions of a packet go
// through XDP, and what was changed at the workloads' ends is put back.
// Goes red when the agent does not make the workload's end fit (pings and TCP die in the XDP lane), when it does not look again (the
// port stays in a lane that delivers nothing), when buildPort leaves the lane out, or when lab or agent lose --xdp uplink.
func TestFastPath(t *testing.T) {
	f := ownLab(t, lab.Config{Name: "fast", Hosts: 2, Spines: 1, XDP: true})
	f.tenant(t, "fast")
	f.network(t, "fast", "blue", &weftv1.NetworkSpec{Subnets: []string{"10.1.0.0/24", "fd00:1::/64"}})
	a := f.workload(t, lab.WorkloadSpec{Name: "fast-1", Host: "h1", Tenant: "fast", Network: "blue"})
	b := f.workload(t, lab.WorkloadSpec{Name: "fast-2", Host: "h2", Tenant: "fast", Network: "blue"})
	reaches(t, a.ns, b.v4())
	tx, err := a.ns.Feature("eth0", netdev.TX)
	if err != nil || !tx {
		t.Fatalf("tx of the workload's end is %t before, %v", tx, err)
	}
	set := func(lane string) {
		for _, w := range []*workload{a, b} {
			f.must(t, "port", "set", w.Port, "--tenant", "fast", "--fast-path", lane, "--wait")
		}
	}
	traffic := func(what string) {
		t.Helper()
		exchange(t, a.ns, b.ns, b.v4(), 20)
		exchange(t, b.ns, a.ns, a.v6(), 20)
		for _, dst := range []*workload{a, b} {
			src := map[*workload]*workload{a: b, b: a}[dst]
			if r, err := probe.Stream(limited(t), src.ns, dst.ns, dst.v4(), streamTime); err != nil || r.Octets < 1<<20 {
				t.Errorf("%s: a TCP stream to %s carried %d octets: %v", what, dst.v4(), r.Octets, err)
			}
		}
	}

	whilePinging(t, "both ports enter the XDP lane", a, b, func() { set("xdp") })
	for _, w := range []*workload{a, b} {
		f.lane(t, "fast", w.Port, "xdp")
	}
	out, in := f.books(t, "h1", "xdp_from_port"), f.books(t, "h2", "xdp_from_uplink")
	whilePinging(t, "both ports are in the XDP lane", a, b, func() {})
	traffic("in the XDP lane") // not while pinging: a stream fills the queues that pings wait in, and takes the whole CPU
	const least = 200          // pings and TCP; a port in the tc lane counts none
	eventually(t, "the books of the XDP programs have what crossed", func() (bool, string) {
		o, i := f.books(t, "h1", "xdp_from_port"), f.books(t, "h2", "xdp_from_uplink")
		return o.Encapsulated-out.Encapsulated > least && i.Delivered-in.Delivered > least, fmt.Sprintf("h1 %+v, was %+v; h2 %+v, was %+v", o, out, i, in)
	})

	host := f.must(t, "host", "show", "h1")
	for _, line := range []string{"uplink0: XDP redirect target: yes", "uplink0: native XDP: yes", "tcx links: yes", "xdp_from_uplink on uplink0, XDP", "xdp_from_port on "} {
		if !strings.Contains(host, line) {
			t.Errorf("weft host show h1 does not say %q:\n%s", line, host)
		}
	}

	// A workload may change its interface: redirected frames would be lost without a trace.
	if err := b.ns.SetFeature("eth0", netdev.GRO, false); err != nil {
		t.Fatal(err)
	}
	f.lane(t, "fast", b.Port, "xdp (not in force: the workload changed its interface: `ethtool -K IFNAME gro on`…")
	eventually(t, "weft host show says what keeps the port out", func() (bool, string) {
		out := f.must(t, "host", "show", "h2")
		return strings.Contains(out, "fast path: port fast/"+b.Port+" stays in the tc lane"), out
	})
	whilePinging(t, "one port is back in the tc lane", a, b, func() {})
	traffic("with one port in the tc lane")
	if err := b.ns.SetFeature("eth0", netdev.GRO, true); err != nil {
		t.Fatal(err)
	}
	f.lane(t, "fast", b.Port, "xdp")
	reaches(t, a.ns, b.v6())

	whilePinging(t, "both ports leave the XDP lane", a, b, func() { set("none") })
	for _, w := range []*workload{a, b} {
		f.lane(t, "fast", w.Port, "")
		eventually(t, "tx of the workload's end is on again", func() (bool, string) {
			on, err := w.ns.Feature("eth0", netdev.TX)
			return on && err == nil, fmt.Sprintf("tx %t, %v", on, err)
		})
	}
	before := f.taken(t, "h1", bpf.TCProgramXDP_FROM_PORT)
	traffic("back in the tc lane")
	if now := f.taken(t, "h1", bpf.TCProgramXDP_FROM_PORT); now != before {
		t.Errorf("xdp_from_port still counts: %d, was %d", now, before)
	}
}

// taken is how many packets a program has taken in by now, from the kernel itself: what `weft drops --books` says is as old as the last report.
func (f *fixture) taken(t testing.TB, host string, program bpf.TCProgram) (n uint64) {
	t.Helper()
	m := f.pinned(t, host, "books")
	defer m.Close()
	var per []bpf.TCProgramBooks
	if err := m.Lookup(uint32(program), &per); err != nil {
		t.Fatal(err)
	}
	for _, b := range per {
		n += b.In
	}
	return n
}
