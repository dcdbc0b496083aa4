package accept_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/lab/probe"
	"github.com/weftnet/weft/wire"
)

// TestOuterChecksumOfAHost: a host that asks for outer UDP checksums is sent right ones, from the moment it asks until it asks no more,
// and its peers, which did not ask, go on being sent zero.
// Goes red when buildVTEP leaves the checksum of a host's own VTEP out, or when the kernel lane is not told to compute it (encap.h,
// the tunnel key's BPF_F_ZERO_CSUM_TX).
func TestOuterChecksumOfAHost(t *testing.T) {
	f := sharedLab(t)
	const vni = 70031
	a, b := wirePair(t, f, "sum", vni)
	// Whoever captures on a veth sees no checksum that was left to the interface.
	h1 := f.node(t, "h1")
	if err := h1.SetFeature("uplink0", netdev.TX, false); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h1.SetFeature("uplink0", netdev.TX, true) })
	t.Cleanup(func() { f.weft(t, "host", "set", "h2", "--outer-checksum=false") })
	for _, summed := range []bool{false, true, false} {
		f.must(t, "host", "set", "h2", fmt.Sprintf("--outer-checksum=%t", summed))
		for _, dst := range []netip.Addr{b.v4(), b.v6()} {
			eventually(t, fmt.Sprintf("packets to h2 for %s have an outer checksum: %t", dst, summed), func() (bool, string) {
				sums := f.outerSums(t, a, dst, vni)
				return sums.all("to h2", summed) && sums.all("to h1", false), fmt.Sprint(sums)
			})
			reaches(t, a.ns, dst)
			exchange(t, a.ns, b.ns, dst, 20)
			if r, err := probe.Stream(limited(t), a.ns, b.ns, dst, streamTime); err != nil || r.Octets < 1<<20 {
				t.Errorf("outer checksum %t: a TCP stream to %s carried %d octets: %v", summed, dst, r.Octets, err)
			}
		}
	}
}

// outerSums counts the tunnel packets each way by their outer checksum: "zero", "right" or "wrong".
type outerSums map[string]map[string]int

// all reports whether every packet that way has a right checksum, or else none.
func (s outerSums) all(way string, right bool) bool {
	want := map[bool]string{true: "right", false: "zero"}[right]
	return len(s[way]) == 1 && s[way][want] > 0
}

// outerSums pings three times and reads the tunnel below h1.
func (f *fixture) outerSums(t *testing.T, from *workload, dst netip.Addr, vni wire.VNI) outerSums {
	t.Helper()
	s, err := f.State()
	if err != nil {
		t.Fatal(err)
	}
	sums := outerSums{}
	ways := map[string]map[string]int{}
	for i, way := range []string{"to h1", "to h2"} {
		sums[way] = map[string]int{}
		ways[s.Hosts[i].VTEPAddress] = sums[way]
	}
	c := startCapture(t, f.node(t, "leaf1"), "to-h1")
	if _, err := probe.Ping(limited(t), from.ns, dst, probe.PingConfig{Count: 3}); err != nil {
		t.Fatal(err)
	}
	for _, raw := range tunnelled(c.stop(), wire.VXLANPort) {
		outer, err := wire.ParseFrame(raw)
		if err != nil {
			t.Fatal(err)
		}
		if h, _, err := wire.ParseVXLAN(outer.Payload); err != nil || h.VNI != vni {
			continue
		}
		word := "right"
		switch {
		case outer.UDP.Checksum == 0:
			word = "zero"
		case !outer.ChecksumOK(raw):
			word = "wrong"
		}
		ways[outer.IPv4.Dst.String()][word]++
	}
	return sums
}
