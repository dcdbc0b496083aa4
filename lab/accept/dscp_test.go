package accept_test

import (
	"fmt"
	"net/netip"
	"testing"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/lab"
	"github.com/weftnet/weft/lab/probe"
	"github.com/weftnet/weft/wire"
)

// TestDSCPAcrossTheUnderlay: marked pings cross a network that is pipe, uniform and pipe again while it is in use. Outside they carry
// 0 or their own mark; inside the mark is never touched.
// Goes red when sameNetwork in the agent leaves DSCPUniform out (a change of nothing else is then never written), or when the datapath's
// table says the one for the other.
func TestDSCPAcrossTheUnderlay(t *testing.T) {
	f := sharedLab(t)
	f.tenant(t, "dscp")
	n := f.network(t, "dscp", "blue", &weftv1.NetworkSpec{Subnets: []string{"10.1.0.0/24", "fd00:1::/64"}})
	a := f.workload(t, lab.WorkloadSpec{Name: "dscp-1", Host: "h1", Tenant: "dscp", Network: "blue"})
	b := f.workload(t, lab.WorkloadSpec{Name: "dscp-2", Host: "h2", Tenant: "dscp", Network: "blue"})
	reaches(t, a.ns, b.v4())
	reaches(t, a.ns, b.v6())
	const marked = 46 << 2 // expedited forwarding (RFC 3246), not ECN-capable
	for _, c := range []struct {
		model string
		outer uint8
	}{{"pipe", 0}, {"uniform", marked}, {"pipe", 0}} {
		f.must(t, "network", "set", "blue", "--tenant", "dscp", "--dscp", c.model, "--wait")
		for _, dst := range []netip.Addr{b.v4(), b.v6()} {
			underlay, inbox := startCapture(t, f.node(t, "leaf1"), "to-h1"), startInbox(t, b.ns, "eth0")
			r, err := probe.Ping(limited(t), a.ns, dst, probe.PingConfig{Count: 5, TOS: marked})
			if err != nil || !r.Complete() {
				t.Fatalf("%s: ping %s: %+v, %v", c.model, dst, r, err)
			}
			what := fmt.Sprintf("%s, to %s", c.model, dst)
			vni := wire.VNI(n.GetStatus().GetVni())
			eventually(t, what+": five requests and five replies are seen in the tunnel, and five of them at the end", func() (bool, string) {
				outside, inside := echoMarks(t, vni, underlay.frames()), marksOf(inbox.frames())
				return len(outside) == 10 && len(inside) == 5, fmt.Sprintf("in the tunnel %#x, at the end %#x", outside, inside)
			})
			for _, tos := range echoMarks(t, vni, underlay.stop()) {
				if tos != c.outer {
					t.Errorf("%s: the outer ToS is %#02x, want %#02x", what, tos, c.outer)
				}
			}
			for _, tos := range marksOf(inbox.stop()) {
				if tos != marked {
					t.Errorf("%s: an echo request arrived with ToS %#02x, want %#02x", what, tos, marked)
				}
			}
		}
	}
}

// echoMarks are the outer ToS octets of the tunnel packets that hold an echo request or reply.
func echoMarks(t *testing.T, vni wire.VNI, frames [][]byte) (marks []uint8) {
	t.Helper()
	for _, fr := range tunnelled(frames, wire.VXLANPort) {
		outer, err := wire.ParseFrame(fr)
		if err != nil {
			t.Fatal(err)
		}
		h, inner, err := wire.ParseVXLAN(outer.Payload)
		if err != nil {
			t.Fatal(err)
		}
		if h.VNI == vni && len(marksOf([][]byte{inner})) == 1 {
			marks = append(marks, outer.IPv4.TOS|outer.IPv6.TrafficClass) // one of them is there
		}
	}
	return marks
}

// marksOf are the ToS octets of the echo requests and replies among frames.
func marksOf(frames [][]byte) (marks []uint8) {
	for _, fr := range frames {
		f, err := wire.ParseFrame(fr)
		switch {
		case err != nil:
		case f.Has(wire.LayerICMP) && (f.ICMP.Type == 0 || f.ICMP.Type == 8):
			marks = append(marks, f.IPv4.TOS)
		case f.Has(wire.LayerICMPv6) && (f.ICMP.Type == 128 || f.ICMP.Type == 129):
			marks = append(marks, f.IPv6.TrafficClass)
		}
	}
	return marks
}
