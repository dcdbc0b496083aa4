package agent

import (
	"testing"

	"github.com/weftnet/weft/datapath/netdev"
)

// TestUplinkMadeAgain turns red when an uplink that was deleted and made again stays without weft's programs, or that is not
// told while it is so.
func TestUplinkMadeAgain(t *testing.T) {
	r := newRig(t)
	r.base()
	r.until("the next hop is managed", func() bool { return len(r.links.managed) == 1 })
	before := r.kernel.published
	r.links.mu.Lock()
	eth := r.links.links["eth1"]
	delete(r.links.links, "eth1")
	r.links.mu.Unlock()
	r.links.events <- netdev.Event{Kind: netdev.EventLink, Removed: true, Index: 2, Link: eth}
	r.until("the condition", func() bool { return r.agent.conditions["uplink"] != "" })
	r.links.mu.Lock()
	clear(r.links.managed) // neighbours go with their interface
	eth.Index = 42
	r.links.links["eth1"] = eth
	r.links.addrs[0].Index = 42
	r.links.routes[0].Hops[0].Index = 42
	r.links.mu.Unlock()
	r.links.events <- netdev.Event{Kind: netdev.EventLink, Index: 42, Link: eth}
	r.until("the programs are attached again", func() bool {
		return r.kernel.published > before && r.agent.conditions["uplink"] == ""
	})
	r.until("next hops are those of the new interface", func() bool {
		for hop := range r.links.managed {
			if hop.Index != 42 {
				return false
			}
		}
		return len(r.links.managed) > 0
	})
}
