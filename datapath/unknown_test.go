package datapath

import (
	"testing"

	"github.com/weftnet/weft/datapath/bpf"
)

// TestUnknownUnicastFromTunnelIsFlooded: under the setting flood a member's frame to a MAC that nobody stated reaches the local ports,
// as it would reach those of the sender's own host. Red when from_uplink drops it whatever the setting is.
func TestUnknownUnicastFromTunnelIsFlooded(t *testing.T) {
	s := newScene(t, false)
	s.resolve()
	for _, c := range []struct {
		setting UnknownUnicast
		flooded bool
		drops   uint64
	}{{UnknownFlood, true, 0}, {UnknownExternal, false, 1}, {UnknownDrop, false, 1}} {
		s.reset()
		putNetwork(func(n *Network) { n.Unknown = c.setting })(s)
		before := s.a.drops(DropUnknownUnicastFromTunnel)
		o := s.fromUplink(s.a.tunnel(s.b, 7, inTo(macNowhere)(s), nil), nil)
		if flooded := o.verdict.Verdict == bpf.TCVerdictKindV_DELIVERED; flooded != c.flooded {
			t.Errorf("setting %d: %s, want flooded %t", c.setting, o, c.flooded)
		}
		if n := s.a.drops(DropUnknownUnicastFromTunnel) - before; n != c.drops {
			t.Errorf("setting %d: counted %d times, want %d", c.setting, n, c.drops)
		}
		s.a.balanced()
	}
}
