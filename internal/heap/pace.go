package heap

import (
	"context"
	"math"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// least and furthest are how far the heap may grow between two collections, in percent of what lives in it (GOGC).
	least, furthest = 100, 400
	// paceShare of the memory that is available is the most that this garbage takes: one in so many parts.
	paceShare = 8
	// paceEvery is how often that is looked at.
	paceEvery = 20 * time.Second
)

// Pace has a heap that is small beside the memory that is left collected less often, until the context ends. How much of the time the collector runs
// is how fast memory is allocated by how far the heap may grow, however large it is; while it runs, everything that shares its cores is slower. Whoever set
// GOGC or GOMEMLIMIT is left alone.
func Pace(ctx context.Context) { paceBy(ctx, machine) }

func paceBy(ctx context.Context, left func() int64) {
	if chosen() {
		return
	}
	defer debug.SetGCPercent(least)
	tick := time.NewTicker(paceEvery)
	defer tick.Stop()
	for {
		debug.SetGCPercent(pace(live(), left()))
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// pace is how far a heap may grow, by what lives in it and what memory is left, in octets.
func pace(live, left int64) int {
	percent := float64(left/paceShare) / float64(max(live, 1)) * 100
	return int(min(max(percent, least), furthest))
}

// live is what the last collection found in use.
func live() int64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	if metrics.Read(s); s[0].Value.Kind() != metrics.KindUint64 {
		return math.MaxInt64 // a runtime that does not say
	}
	return int64(s[0].Value.Uint64())
}
