package accept_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/lab"
	"github.com/weftnet/weft/lab/probe"
)

// TestIPv6Underlay: a lab whose underlay has no IPv4 at all carries what one on IPv4 carries, by tshark's reading: UDP checksum
// zero (RFC 6935), a flow label that is the flow's and never zero (RFC 6438). Streams of whole aggregates and full packets pass.
// Goes red when encap.h leaves the flow label out, or when the lab's agents are given another VTEP address than the IPv6 one.
func TestIPv6Underlay(t *testing.T) {
	f := ownLab(t, lab.Config{Name: "acc6", Underlay: 6, Hosts: 2})
	out := f.must(t, "host", "list")
	if !strings.Contains(out, "fd18:0:0:1::1") || strings.Contains(out, "198.18.") {
		t.Errorf("weft host list does not show the IPv6 VTEP addresses alone:\n%s", out)
	}
	leaf := startCapture(t, f.node(t, "leaf1"), "to-h1")
	readTheWire(t, f, 6)
	for _, frame := range leaf.stop() {
		if frame[12] == 8 {
			t.Fatalf("there is IPv4 on the underlay: % x", frame[:34])
		}
	}
	streams(t, f.node(t, "wire-1"), f.node(t, "wire-2"), netip.MustParseAddr("10.1.0.12"))
	streams(t, f.node(t, "wire-2"), f.node(t, "wire-1"), netip.MustParseAddr("fd00:1::11"))
}

// streams wants a TCP stream to carry more than a broken path would.
func streams(t *testing.T, from, to *netdev.Handle, dst netip.Addr) {
	t.Helper()
	r, err := probe.Stream(limited(t), from, to, dst, streamTime)
	if err != nil || r.Octets < 1<<20 {
		t.Errorf("a TCP stream to %s carried %d octets: %v", dst, r.Octets, err)
	}
}
