package datapath

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/internal/testenv"
	"github.com/weftnet/weft/wire"
)

// trio is three hosts on one segment, in network 7: the peer has not heard that w went from the source to the target.
//
//	x [peer] --- [source] --- [target] w      VTEP 1 is the peer, 2 the source, 3 the target
type trio struct {
	peer, source, target *testHost
	x, w                 *workload
}

func newTrio(t *testing.T, ip6 bool) *trio {
	t.Helper()
	testenv.Require(t, "root", "bpf")
	middle := namespace(t, "u")
	must(t, middle.AddBridge("br0", 1600))
	must(t, middle.SetUp("br0"))
	var hosts [3]*testHost
	var vteps []VTEP
	for i, name := range []string{"peer", "source", "target"} {
		ns := namespace(t, name)
		four, six := netip.AddrFrom4([4]byte{10, 99, 0, byte(i + 1)}), netip.MustParseAddr(fmt.Sprintf("fd99::%d", i+1))
		side := "to-" + name
		_, _, err := ns.EnsureVeth(netdev.Veth{Name: "up0", MTU: 1600, Addresses: []netip.Prefix{netip.PrefixFrom(four, 24), netip.PrefixFrom(six, 64)},
			Peer: netdev.VethPeer{Namespace: middle, Name: side}})
		must(t, err)
		must(t, middle.SetMTU(side, 1600))
		must(t, middle.SetMaster(side, "br0"))
		must(t, middle.SetUp(side))
		l := Local{Addr4: four, UDPPort: 4789, UplinkMTU: 1600}
		if ip6 {
			l.Addr4, l.Addr6 = netip.Addr{}, six
		}
		hosts[i] = closedHost(t, ns, name, l)
		vteps = append(vteps, VTEP{ID: VTEPID(i + 1), Addr: l.addr(), UDPPort: 4789})
	}
	openAll(t, hosts[:]...)
	for i, h := range hosts {
		h.closeLater()
		must(t, h.dp.PutVTEPs(vteps))
		n := Network{VNI: 7, MTU: 1500}
		for j, other := range hosts {
			if i != j {
				n.Remotes = append(n.Remotes, VTEPID(j+1))
				must(t, h.dp.PutAccepts([]Accept{{7, other.local.addr()}}))
			}
		}
		h.putNetwork(n)
	}
	s := &trio{peer: hosts[0], source: hosts[1], target: hosts[2]}
	s.x, s.w = s.peer.workload(7, 1, nil), s.target.workload(7, 2, nil)
	s.at(s.peer, s.w, 2, 0)
	s.at(s.source, s.w, 3, FDBForward)
	s.at(s.source, s.x, 1, 0)
	s.at(s.target, s.x, 1, 0)
	return s
}

// at tells a host where a workload is.
func (s *trio) at(h *testHost, w *workload, vtep VTEPID, flags FDBFlags) {
	h.t.Helper()
	must(h.t, h.dp.PutFDB([]FDBEntry{{FDBKey: FDBKey{7, w.mac}, VTEP: vtep, Flags: flags}}))
}

func eachUnderlay(t *testing.T, f func(t *testing.T, ip6 bool)) {
	for _, ip6 := range []bool{false, true} {
		t.Run(map[bool]string{false: "underlay4", true: "underlay6"}[ip6], func(t *testing.T) { f(t, ip6) })
	}
}

// TestForward: a peer that has not heard reaches a port through the host where it was: datagrams, TCP in aggregates, and UDP aggregates, which
// keep their sizes; the checksums of what the sender's kernel left unfinished are right at the end. Red when from_vxlan drops as split_horizon what
// from_uplink let in, or set_tunnel forgets the source address.
func TestForward(t *testing.T) {
	eachUnderlay(t, func(t *testing.T, ip6 bool) {
		s := newTrio(t, ip6)
		s.w.echo()
		for _, to := range []netip.Addr{s.w.ip4, s.w.ip6} {
			for _, size := range []int{1, 100, 1472 - 24} {
				if err := s.x.ping(to, size); err != nil {
					t.Errorf("%d octets to %s: %v", size, to, err)
				}
			}
			if err := s.x.segments(s.w, to, 1200, 40); err != nil {
				t.Errorf("UDP aggregate to %s: %v", to, err)
			}
			before, octets := s.source.book("from_vxlan").Encapsulated, uint64(16<<20)
			if err := s.x.stream(s.w, to, int64(octets)); err != nil {
				t.Errorf("TCP to %s: %v", to, err)
			}
			if n := s.source.book("from_vxlan").Encapsulated - before; n == 0 || n > octets/1448/2 {
				t.Errorf("%d octets of TCP were forwarded in %d packets: the aggregates are lost", octets, n)
			}
		}
		// The last packets of a connection may be between the two programs when its ends are content.
		await(t, "what was left to the kernel lane to be forwarded was forwarded", func() bool {
			forwarded := s.source.book("from_vxlan").Encapsulated // read first: it never runs ahead of the other
			return s.source.lane(LaneForward) == forwarded
		})
		for _, h := range []*testHost{s.peer, s.source, s.target} {
			h.balanced()
		}
	})
}

// TestForwardEnds: two hosts that forward to each other end a frame by its outer TTL: it is sent on 63 times, then dropped once by name. Red when
// forward writes a TTL of its own.
func TestForwardEnds(t *testing.T) {
	eachUnderlay(t, func(t *testing.T, ip6 bool) {
		s := newTrio(t, ip6)
		lost := wire.MAC{2, 0, 0, 0, 0, 9}
		for h, vtep := range map[*testHost]VTEPID{s.source: 3, s.target: 2} {
			must(t, h.dp.PutFDB([]FDBEntry{{FDBKey: FDBKey{7, lost}, VTEP: vtep, Flags: FDBForward}}))
		}
		must(t, s.peer.dp.PutFDB([]FDBEntry{{FDBKey: FDBKey{7, lost}, VTEP: 2}}))
		send(t, s.x.ns, "eth0", raw(lost, s.x.mac, testProtocol, 60))
		await(t, "the frame's end", func() bool { return s.source.drops(DropForwardTTL)+s.target.drops(DropForwardTTL) > 0 })
		if n := s.source.book("from_vxlan").Encapsulated + s.target.book("from_vxlan").Encapsulated; n != 63 {
			t.Errorf("forwarded %d times, want 63", n)
		}
		if n := s.source.lane(LaneForward) + s.target.lane(LaneForward); n != 64 {
			t.Errorf("%d times left to the kernel lane, want 64", n)
		}
		s.source.balanced()
		s.target.balanced()
	})
}

// TestForwardTOS: ECN and DSCP of a forwarded packet are those of one that leaves a tunnel and enters another: what the first underlay met is in the
// inner header, and the outer one follows it. Red when forward leaves out merge_tos, or keeps the outer octet that it came with.
func TestForwardTOS(t *testing.T) {
	s := newTrio(t, false)
	must(t, s.peer.dp.detach(linkName("to_uplink", s.peer.uplink()))) // the test sends its packets itself
	must(t, s.w.ns.SetAddresses("eth0", nil))                         // and nobody answers
	seen := watch(t, s.target, s.w.mac)
	for _, uniform := range []bool{false, true} {
		n := s.source.networks[7]
		n.DSCPUniform = uniform
		s.source.putNetwork(n)
		for _, outer := range everyTOS[:8] {
			for _, in := range everyTOS[:8] {
				ecn, dscp, outside := mergedECN[in&3][outer&3], in&^3, byte(0)
				if ecn == 4 {
					continue // dropped before: TestInnerTOS
				}
				if uniform {
					dscp = outer &^ 3
					outside = dscp
				}
				inner := withTOS(frame(t, s.w.mac, s.x.mac, ip1, ip2, 60), in)
				send(t, s.peer.ns, "up0", s.source.tunnel(s.peer, 7, inner, func(o *tunnelOptions) { o.tos = outer }))
				got := seen.next()
				if want := withTOS(slices.Clone(inner), dscp|ecn); !bytes.HasSuffix(got, want) || tosOf(got) != outside|ecn {
					t.Errorf("uniform %t, outer %#x, inner %#x: outer %#x, want %#x, and\n%x, want\n%x", uniform, outer, in, tosOf(got), outside|ecn, got[50:], want)
				}
				if sum16(got[14:34]) != 0xffff {
					t.Errorf("outer %#x, inner %#x: the outer header's checksum is wrong", outer, in)
				}
			}
		}
	}
}

// TestForwardNeverFloods: a group frame stays where it is, whatever the FDB says of its address, and so does an unknown one; without the flag
// split horizon is as it was, and a frame of the host's own port goes the normal way. Red when from_vxlan looks group addresses up, or PutFDB
// takes anything.
func TestForwardNeverFloods(t *testing.T) {
	s := newTrio(t, false)
	for _, w := range []*workload{s.x, s.w} { // nobody sends but the test
		must(t, w.ns.SetSysctl("net/ipv6/conf/eth0/disable_ipv6", "1"))
	}
	n := s.source.networks[7]
	n.Unknown = UnknownFlood
	s.source.putNetwork(n)
	must(t, s.source.dp.PutFDB([]FDBEntry{{FDBKey: FDBKey{7, macAll}, VTEP: 3, Flags: FDBForward}, {FDBKey: FDBKey{7, macRemote}, VTEP: 3}}))
	must(t, s.peer.dp.detach(linkName("to_uplink", s.peer.uplink()))) // its own guard would stop what follows
	for _, summed := range []bool{false, true} {                      // through tc, and through the kernel lane
		for dst, reason := range map[wire.MAC]DropReason{macAll: DropNoReceiver, macNowhere: DropNoReceiver, macRemote: DropSplitHorizon} {
			before := s.source.drops(reason)
			inner := frame(t, dst, s.x.mac, ip1, ip2, 40)
			send(t, s.peer.ns, "up0", s.source.tunnel(s.peer, 7, inner, func(o *tunnelOptions) { o.checksum = summed }))
			await(t, fmt.Sprintf("a frame for %s is dropped as %s", dst, reason), func() bool { return s.source.drops(reason) == before+1 })
		}
	}
	if got := s.source.book("from_vxlan").Encapsulated; got != 0 {
		t.Errorf("%d packets were forwarded", got)
	}
	own := s.source.workload(7, 3, nil)
	must(t, own.ns.SetSysctl("net/ipv6/conf/eth0/disable_ipv6", "1"))
	came := listen(t, s.w.ns, "eth0", plain)
	send(t, own.ns, "eth0", raw(s.w.mac, own.mac, testProtocol, 60))
	await(t, "a frame of the host's own port arrives", func() bool { return came.count.Load() == 1 })
	if got := s.source.book("from_vxlan").Encapsulated; got != 0 {
		t.Errorf("%d packets of the host's own port were forwarded", got)
	}
	if err := s.source.dp.PutFDB([]FDBEntry{{FDBKey: FDBKey{7, macRemote}, Ifindex: 1, Flags: FDBForward}}); err == nil {
		t.Error("an entry that is to be forwarded to no VTEP was taken")
	}
}
