package heap

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
)

// TestPace: the collector gives way to what memory there is, and no further; it is itself again in the end. Break it: take all that is available, or
// forget a bound.
func TestPace(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		live, left int64
		want       int
	}{
		{0, 0, least}, {10 * mib, 0, least}, {500 * mib, 1000 * mib, least}, {500 * mib, 8000 * mib, 200}, {500 * mib, 20_000 * mib, furthest}, {0, 1000 * mib, furthest},
		{1 << 62, 1 << 62, least}, {1, 1<<63 - 1, furthest},
	} {
		if got := pace(c.live, c.left); got != c.want {
			t.Errorf("with %d octets alive and %d left the heap may grow by %d %%, want %d", c.live, c.left, got, c.want)
		}
	}
	t.Setenv("GOGC", "")
	runtime.GC()
	if n := live(); n < 1<<10 || n > 1<<32 {
		t.Errorf("%d octets live", n)
	}
	synctest.Test(t, func(t *testing.T) {
		was := collector()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { paceBy(ctx, func() int64 { return 1 << 40 }); close(ended) }()
		synctest.Wait()
		if collector() <= least {
			t.Errorf("a small heap on this machine is collected at %d %%", collector())
		}
		cancel()
		<-ended
		if collector() != was {
			t.Errorf("the collector runs at %d, before %d", collector(), was)
		}
	})
	t.Setenv("GOGC", "150")
	Pace(t.Context()) // leaves it alone, and returns
}
