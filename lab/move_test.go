package lab

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/weftnet/weft/lab/probe"
)

// Goes red when a workload that is moved between bridges is not reached any more (the script with another VTEP), when what is
// delivered where it is not counts as received (Turn without Only), or when its TCP connections end.
func TestKernelMoversMove(t *testing.T) {
	l := bare(t, Config{Hosts: 3, Spines: 1})
	told, learns, err := l.AddKernelMovers()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for _, m := range []Mover{told, learns} {
		w := m.Workload()
		for _, p := range w.Peers {
			if err := probe.PingUntil(ctx, p.Netns, w.Addr); err != nil {
				t.Fatal(err)
			}
		}
		x, err := probe.StartExchange(ctx, w.Place, w.Peers, 2000)
		if err != nil {
			t.Fatal(err)
		}
		var all []MoveSample
		for range 4 {
			s, err := MeasureMove(ctx, m, x, 100)
			if err != nil {
				t.Fatalf("%s: %v", m.Name(), err)
			}
			all = append(all, s)
		}
		r, err := x.Stop()
		if err != nil {
			t.Error(err)
		}
		t.Logf("%s: %+v, in %+v, out %+v", m.Name(), all, r.In, r.Out)
		if r.In.Received == 0 || r.Out.Received == 0 || r.Exchanges == 0 || len(r.Broken) > 0 {
			t.Errorf("%s: %+v", m.Name(), r)
		}
		if err := m.Finish(ctx); err != nil {
			t.Error(err)
		}
		if m == Mover(told) && (r.In.Elsewhere == 0) {
			t.Errorf("%s: %d datagrams were lost, and %d came where the workload was not any more", m.Name(), r.In.Lost, r.In.Elsewhere)
		}
		if slices.ContainsFunc(all, func(s MoveSample) bool { return s.InGap == 0 || s.OutGap == 0 || s.Flip == 0 || s.InStill == 0 }) {
			t.Errorf("%s: a sample is empty: %+v", m.Name(), all)
		}
	}
	for _, m := range []Mover{told, learns} {
		if err := m.Close(ctx); err != nil {
			t.Error(err)
		}
	}
}
