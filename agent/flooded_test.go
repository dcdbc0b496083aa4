package agent

import (
	"math"
	"testing"
	"time"

	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/wire"
)

// TestFloodsAreSaid: what ports flooded is in the report with its rates, of networks that the plan has; a look that comes too soon changes nothing, and a
// count that begins anew makes no rate. Red when lookAtFloods leaves out floodLook, or the comparison with what was before.
func TestFloodsAreSaid(t *testing.T) {
	r := newRig(t)
	r.base()
	count := func(floods, copies uint64) {
		r.kernel.mu.Lock()
		defer r.kernel.mu.Unlock()
		r.kernel.flooded = map[wire.VNI]datapath.FloodCount{5001: {Floods: floods, Copies: copies}, 77: {Floods: 1}}
	}
	now := time.Now()
	look := func(after time.Duration, floods uint64, perSecond, copiesPerSecond float64) {
		t.Helper()
		now = now.Add(after)
		r.within(func() {
			r.agent.lookAtFloods(now)
			list := r.agent.flooded.list
			if len(list) != 1 || list[0].Floods != floods || math.Abs(list[0].FloodsPerSecond-perSecond) > 1e-9 || math.Abs(list[0].CopiesPerSecond-copiesPerSecond) > 1e-9 {
				t.Errorf("after %s: said %v, want %d floods, %g and %g a second", after, list, floods, perSecond, copiesPerSecond)
			}
		})
	}
	r.within(func() { r.agent.flooded = flooded{} }) // what a report has looked at meanwhile
	count(100, 300)
	look(0, 100, 0, 0)
	count(120, 360)
	look(4*time.Second, 120, 5, 15)
	count(500, 600)
	look(floodLook/2, 120, 5, 15)
	look(floodLook/2+time.Second, 500, 190, 120)
	count(3, 9)
	look(time.Second, 3, 0, 0)
	look(time.Second, 3, 0, 0)
}
