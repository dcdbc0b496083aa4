package datapath

import (
	"testing"

	"github.com/weftnet/weft/datapath/bpf"
)

// TestServersAmongThemselves: what comes from the L4 port of a DHCP server is an answer to a client only if it goes to a client's, and no request: what
// relays and servers say to each other goes its way, and so does anything else that begins at that L4 port. Red when dhcp4_ports or dhcp6_ports looks
// at the source alone, or takes a relay's message for a client's.
func TestServersAmongThemselves(t *testing.T) {
	s := newScene(t, false)
	s.resolve()
	served(s)
	for _, c := range []struct {
		name  string
		frame func(*scene) []byte
		kind  bpf.TCVerdictKind // 0: it goes its way
	}{
		{"from a DHCP server's L4 port to any", service(67, 5), 0},
		{"a DHCP relay and its server", service(67, 67), 0},
		{"from a DHCPv6 server's L4 port to any", service6(547, 5), 0},
		{"a DHCPv6 relay and its server", service6(547, 547), 0},
		{"a DHCP client", service(68, 67), bpf.TCVerdictKindV_PUNTED},
		{"a DHCPv6 client", service6(546, 547), bpf.TCVerdictKindV_PUNTED},
	} {
		o := s.fromPort(c.frame(s), nil)
		if o.verdict.Reason != 0 || c.kind != 0 && o.verdict.Verdict != c.kind || c.kind == 0 && o.verdict.Verdict == bpf.TCVerdictKindV_PUNTED {
			t.Errorf("%s: %s", c.name, o)
		}
	}
	s.a.balanced()
}
