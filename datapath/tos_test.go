package datapath

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/wire"
)

// withTOS sets the ToS octet or traffic class of a frame.
func withTOS(f []byte, tos byte) []byte {
	if f[12] == 0x08 {
		return fixIP(set(15, tos)(f))
	}
	return set(14, 0x60|tos>>4, tos<<4|f[15]&15)(f)
}

// tosOf reads it.
func tosOf(f []byte) byte {
	if f[12] == 0x08 {
		return f[15]
	}
	return f[14]<<4 | f[15]>>4
}

// everyTOS has every ECN field with DSCP 0, with expedited forwarding, and with all bits set.
var everyTOS = []byte{0, 1, 2, 3, 0xb8, 0xb9, 0xba, 0xbb, 0xfc, 0xff}

// TestOuterTOS: ECN is copied to the outer header, CE too (RFC 6040, normal mode); DSCP as the network says (RFC 2983). Both lanes, both
// IP versions, floods, and what has neither. Red when the kernel lane's ECT(0) around CE stays.
func TestOuterTOS(t *testing.T) {
	for _, ip6 := range []bool{false, true} {
		t.Run(map[bool]string{false: "underlay4", true: "underlay6"}[ip6], func(t *testing.T) {
			s := newScene(t, ip6)
			s.resolve()
			seen := watch(t, s.b, macSummed)
			for _, uniform := range []bool{false, true} {
				putNetwork(func(n *Network) { n.DSCPUniform = uniform; n.LocalPorts = nil })(s)
				for _, tos := range everyTOS {
					want := tos & 3
					if uniform {
						want = tos
					}
					for _, inner6 := range []bool{false, true} {
						name := fmt.Sprintf("uniform %t, inner IPv6 %t, ToS %#x", uniform, inner6, tos)
						for _, dst := range []wire.MAC{macRemote, macAll} {
							inner := withTOS(s.big(dst, inner6, 100), tos)
							o := s.fromPort(inner, nil)
							if o.verdict.Verdict != bpf.TCVerdictKindV_ENCAPSULATED || tosOf(o.data) != want || !bytes.HasSuffix(o.data, inner) {
								t.Errorf("%s, to %s: %s, outer ToS %#x, want %#x", name, dst, o, tosOf(o.data), want)
							}
							if !ip6 && sum16(o.data[14:34]) != 0xffff {
								t.Errorf("%s, to %s: the outer header's checksum is wrong", name, dst)
							}
						}
						send(t, s.w1.ns, "eth0", withTOS(s.big(macSummed, inner6, 100), tos))
						packet := seen.next()
						if got := tosOf(packet); got != want {
							t.Errorf("%s, kernel lane: outer ToS %#x, want %#x", name, got, want)
						}
						if !ip6 && sum16(packet[14:34]) != 0xffff {
							t.Errorf("%s, kernel lane: the outer header's checksum is wrong", name)
						}
					}
				}
				if o := s.fromPort(raw(macRemote, s.w1.mac, testProtocol, 60), nil); tosOf(o.data) != 0 {
					t.Errorf("no IP: outer ToS %#x", tosOf(o.data))
				}
			}
			s.a.balanced()
		})
	}
}

// arrivals are the packets that a watch has seen.
type arrivals struct {
	t    *testing.T
	mu   sync.Mutex
	list [][]byte
}

func (a *arrivals) next() (b []byte) {
	a.t.Helper()
	await(a.t, "the packet arrives", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		if len(a.list) > 0 {
			b, a.list = a.list[0], a.list[1:]
		}
		return b != nil
	})
	return b
}

func (a *arrivals) add(b []byte) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.list = append(a.list, slices.Clone(b))
	return true
}

// watch keeps the tunnel packets that come to h with a frame for the MAC.
func watch(t *testing.T, h *testHost, dst wire.MAC) *arrivals {
	a := &arrivals{t: t}
	listen(t, h.ns, "up0", func(b []byte) bool {
		for _, at := range []int{50, 70} {
			if len(b) > at+14 && bytes.Equal(b[at:at+6], dst[:]) {
				return a.add(b)
			}
		}
		return false
	})
	return a
}

// mergedECN is figure 4 of RFC 6040, inner by outer; 4 is the drop.
var mergedECN = [4][4]byte{
	0: {0, 0, 0, 4},
	1: {1, 1, 1, 3},
	2: {2, 1, 2, 3},
	3: {3, 3, 3, 3},
}

// TestInnerTOS: every pair of ECN fields, with and without DSCP, in both lanes. Red when merge_ecn forgets ECT(1), or the IPv4 checksum
// is not kept right.
func TestInnerTOS(t *testing.T) {
	for _, ip6 := range []bool{false, true} {
		t.Run(map[bool]string{false: "underlay4", true: "underlay6"}[ip6], func(t *testing.T) {
			s := newScene(t, ip6)
			must(t, s.b.dp.detach(linkName("to_uplink", s.b.uplink()))) // the test sends b's packets itself
			seen := &arrivals{t: t}
			listen(t, s.w1.ns, "eth0", func(b []byte) bool { return len(b) > 60 && seen.add(b) })
			for _, uniform := range []bool{false, true} {
				putNetwork(func(n *Network) { n.DSCPUniform = uniform; n.LocalPorts = []uint32{s.w1.ifindex} })(s)
				for _, inner6 := range []bool{false, true} {
					for _, outer := range everyTOS[:8] {
						for _, in := range everyTOS[:8] {
							s.mergeCase(seen, uniform, inner6, outer, in)
						}
					}
				}
			}
			s.a.balanced()
		})
	}
}

func (s *scene) mergeCase(seen *arrivals, uniform, inner6 bool, outer, in byte) {
	t := s.a.t
	t.Helper()
	name := fmt.Sprintf("uniform %t, inner IPv6 %t, outer %#x, inner %#x", uniform, inner6, outer, in)
	from, to := ip2, ip1
	if inner6 {
		from, to = ip62, ip61
	}
	ecn, dscp := mergedECN[in&3][outer&3], in&^3
	if uniform {
		dscp = outer &^ 3
	}
	for _, dst := range []wire.MAC{s.w1.mac, macAll} {
		inner := withTOS(frame(t, dst, macRemote, from, to, 60), in)
		must(t, s.a.dp.PutFDB([]FDBEntry{{FDBKey: FDBKey{7, s.w1.mac}, Ifindex: s.w1.ifindex, Flags: FDBPeer}}))
		packet := s.a.tunnel(s.b, 7, inner, func(o *tunnelOptions) { o.tos = outer })
		o := s.fromUplink(packet, nil)
		if ecn == 4 {
			if DropReason(o.verdict.Reason) != DropECNCENotECT {
				t.Errorf("%s, to %s: %s", name, dst, o)
			}
			continue
		}
		want := withTOS(slices.Clone(inner), dscp|ecn)
		if dst == macAll {
			if got := seen.next(); !bytes.Equal(got, want) {
				t.Errorf("%s, flood:\n %x\n %x", name, got, want)
			}
			continue
		}
		if o.verdict.Verdict != bpf.TCVerdictKindV_DELIVERED || !bytes.Equal(o.data, want) {
			t.Errorf("%s: %s\n %x\n %x", name, o, o.data, want)
		}
		must(t, s.a.dp.PutFDB([]FDBEntry{{FDBKey: FDBKey{7, s.w1.mac}, Ifindex: s.w1.ifindex, Flags: FDBPeer | FDBAllByKernel}}))
		send(t, s.b.ns, "up0", packet)
		if got := seen.next(); !bytes.Equal(got, want) {
			t.Errorf("%s, kernel lane:\n %x\n %x", name, got, want)
		}
	}
}
