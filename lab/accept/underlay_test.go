package accept_test

import (
	"fmt"
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

// TestVTEPOnTheLoopback: tunnels between hosts with two uplinks each end at addresses of their loopbacks, on either IP version.
// Goes red when the lab's agents are given the address of an uplink.
func TestVTEPOnTheLoopback(t *testing.T) {
	for _, underlay := range []int{4, 6} {
		t.Run(fmt.Sprintf("IPv%d", underlay), func(t *testing.T) {
			f := ownLab(t, lab.Config{Name: "acclo", Underlay: underlay, Uplinks: 2})
			a, b := wirePair(t, f, "lo", 0)
			var wires []*capture
			for k := range 2 {
				wires = append(wires, startCapture(t, f.node(t, "h2"), fmt.Sprintf("uplink%d", k)))
			}
			for _, dst := range []netip.Addr{b.v4(), b.v6()} {
				reaches(t, a.ns, dst)
				exchange(t, a.ns, b.ns, dst, 20)
			}
			s, err := f.State()
			if err != nil {
				t.Fatal(err)
			}
			arrived := 0
			for _, w := range wires {
				for _, r := range decode(t, tunnelled(w.stop(), 4789), "eth.dst", outers[underlay].src, outers[underlay].dst) {
					src, dst := r.at(outers[underlay].src, 0), r.at(outers[underlay].dst, 0)
					if src == s.Hosts[0].VTEPAddress && dst == s.Hosts[1].VTEPAddress {
						arrived++
					} else if dst != s.Hosts[0].VTEPAddress && dst != s.Hosts[2].VTEPAddress && dst != s.Hosts[1].VTEPAddress {
						t.Errorf("a tunnel packet goes to %s", dst)
					}
				}
			}
			if arrived == 0 {
				t.Error("no tunnel packet from loopback to loopback arrived")
			}
			streams(t, a.ns, b.ns, b.v4())
			streams(t, b.ns, a.ns, a.v6())
		})
	}
}

// streams wants a TCP stream to carry more than a broken path would.
func streams(t *testing.T, from, to *netdev.Handle, dst netip.Addr) {
	t.Helper()
	r, err := probe.Stream(limited(t), from, to, dst, streamTime)
	if err != nil || r.Octets < 1<<20 {
		t.Errorf("a TCP stream to %s carried %d octets: %v", dst, r.Octets, err)
	}
}
