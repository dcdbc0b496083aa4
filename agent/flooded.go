package agent

import (
	"cmp"
	"slices"
	"time"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/wire"
)

// flooded is what was flooded up to the last look, from which the next makes rates.
type flooded struct {
	at     time.Time
	counts map[wire.VNI]datapath.FloodCount
	list   []*planv1.Floods
}

// floodLook is the shortest time that a rate is made of: reports on change come faster, and say the rates of before.
const floodLook = time.Second

// lookAtFloods reads what the networks' ports here have flooded, and how fast.
func (a *Agent) lookAtFloods(now time.Time) {
	past := now.Sub(a.flooded.at)
	if past < floodLook {
		return
	}
	counts, err := a.kernel.FloodCounts()
	if err != nil {
		a.log.Error("what was flooded cannot be read", "err", err)
		return
	}
	next := flooded{at: now, counts: counts}
	for vni, c := range counts {
		uid := a.rec.view.byVNI[vni]
		if uid == "" {
			continue
		}
		m := &planv1.Floods{Network: uid, Floods: c.Floods, Copies: c.Copies}
		before := a.flooded.counts[vni]
		if a.flooded.counts != nil && c.Floods >= before.Floods && c.Copies >= before.Copies { // else the network came again
			m.FloodsPerSecond = float64(c.Floods-before.Floods) / past.Seconds()
			m.CopiesPerSecond = float64(c.Copies-before.Copies) / past.Seconds()
		}
		next.list = append(next.list, m)
	}
	slices.SortFunc(next.list, func(x, y *planv1.Floods) int { return cmp.Compare(x.Network, y.Network) })
	a.flooded = next
}
