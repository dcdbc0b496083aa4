package accept_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/weftnet/weft/wire"
)

// TestForgedIsShown: `weft drops` names what forged tunnel packets were dropped for on a host with a real agent, how many, and whose they
// claimed to be: from the wire, over loopback, and from a process. (Every kind, and many of each: datapath's TestForged.)
// Goes red when drop.h does not count forged_tunnel by source, when the agent reports no sources, or when the command leaves them out.
func TestForgedIsShown(t *testing.T) {
	const each, vni = 7, 5066
	f := sharedLab(t)
	pair := externalLab(t, f, "forged", vni)
	reaches(t, pair[0].ns, pair[1].v4())
	s, err := f.State()
	if err != nil {
		t.Fatal(err)
	}
	h1, _ := s.Host("h1")
	h2, _ := s.Host("h2")
	vtep1, vtep2, rogue := netip.MustParseAddr(h1.VTEPAddress), netip.MustParseAddr(h2.VTEPAddress), netip.MustParseAddr("198.51.100.66")
	seen := startInbox(t, pair[0].ns, "eth0")
	secret := []byte("weft forged tunnel packet")
	inner := wire.Flow{SrcMAC: mac(t, pair[1].MACs[0]), DstMAC: mac(t, pair[0].MACs[0]), Src: pair[1].v4(), Dst: pair[0].v4()}.UDP(9, 9, secret)
	tunnel := append([]byte{8, 0, 0, 0, 0, vni >> 8, vni & 0xff, 0}, inner...)

	leaf := f.node(t, "leaf1")
	near, err := leaf.LinkByName("to-h1")
	if err != nil {
		t.Fatal(err)
	}
	far, err := f.node(t, "h1").LinkByName("uplink0")
	if err != nil {
		t.Fatal(err)
	}
	kinds := []struct {
		reason, source string
		send           func()
	}{
		{"source_not_accepted", rogue.String(), func() {
			inject(t, leaf, "to-h1", wire.Flow{SrcMAC: near.MAC, DstMAC: far.MAC, Src: rogue, Dst: vtep1}.UDP(50000, 4789, tunnel))
		}},
		{"own_source", vtep1.String(), func() {
			inject(t, leaf, "to-h1", wire.Flow{SrcMAC: near.MAC, DstMAC: far.MAC, Src: vtep1, Dst: vtep1}.UDP(50000, 4789, tunnel))
		}},
		{"unmarked", "127.0.0.1", func() { f.datagram(t, "h1", "127.0.0.1", tunnel) }},
		{"forged_tunnel", vtep1.String(), func() { f.datagram(t, "h1", vtep2.String(), tunnel) }},
	}
	// All of them, and then all counts: a report takes a while.
	before := make([]uint64, len(kinds))
	for i, c := range kinds {
		before[i] = f.drops(t, "h1", c.reason, c.source)
	}
	for _, c := range kinds {
		for range each {
			c.send()
		}
	}
	for i, c := range kinds {
		eventually(t, fmt.Sprintf("weft drops counts %s of %s on h1", c.reason, c.source), func() (bool, string) {
			n := f.drops(t, "h1", c.reason, c.source) - before[i]
			return n == each, fmt.Sprintf("%d of %d", n, each)
		})
	}
	reaches(t, pair[1].ns, pair[0].v4())
	if n := seen.count(secret); n != 0 {
		t.Errorf("%d forged packets arrived", n)
	}
	if out := f.must(t, "drops", "-A", "--host", "h1"); !strings.Contains(out, rogue.String()) || !strings.Contains(out, "forged_tunnel") {
		t.Errorf("weft drops does not show who sent what:\n%s", out)
	}
}

// datagram sends one from a host's own namespace to the tunnel's port of an address.
func (f *fixture) datagram(t testing.TB, host, to string, payload []byte) {
	t.Helper()
	c, err := f.node(t, host).Dial(limited(t), nil, "udp", net.JoinHostPort(to, "4789"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(payload); err != nil && !strings.Contains(err.Error(), "operation not permitted") {
		t.Fatal(err)
	}
}
