package interop

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/wire"
)

// tenantGroups are groups of tenants: any, and the very one that the underlay uses for their network.
var tenantGroups = []netip.AddrPort{netip.MustParseAddrPort("239.5.5.5:5555"), netip.MustParseAddrPort("239.9.9.9:5556")}

// TestTenantMulticast: a multicast sender and receivers inside a network whose floods go to a group of the underlay. Of two uplinks the first that has a carrier
// joins and sends: each datagram arrives exactly once, by whichever link is in use, when the first one's carrier is lost, and when it is back.
// Red when groupUplink takes the first uplink whatever its carrier is, when join is called for every uplink (each arrives twice), or when
// local_copy redirects as if frames were for the workload's own MAC alone.
func TestTenantMulticast(t *testing.T) {
	b := newBed(t)
	f := floods[2]
	one := b.vteps[0]
	second := netip.MustParsePrefix("10.9.0.101/24")
	_, _, err := b.net.EnsureVeth(netdev.Veth{Name: "to-v1b", MTU: 1600, Peer: netdev.VethPeer{Namespace: one.ns, Name: "up1", Addresses: []netip.Prefix{second}}})
	must(t, err)
	must(t, b.net.SetMaster("to-v1b", "br0"))
	wireLike(t, one.ns, "up1")
	one.uplinks = "\"up0,up1\", address: " + one.underlay(false).String()
	for _, v := range b.vteps {
		buildWeft(t, b, v, f)
	}
	var inboxes []*inbox
	for _, v := range b.vteps {
		inboxes = append(inboxes, newInbox(t, v.stays))
	}
	wires := map[string]*watch{"up0": newWatch(t, b.net, "to-v1", f.group), "up1": newWatch(t, b.net, "to-v1b", f.group)}
	exact := func(t *testing.T, by string) {
		member(t, one, by, f.group)
		for from := range b.vteps[:2] {
			say := newSpeaker(t, b.vteps[from].stays)
			await(t, fmt.Sprintf("what VTEP %d sends to arrive everywhere, by %s", from+1, by), func(context.Context) error {
				wires["up0"].count(t)
				wires["up1"].count(t)
				mark := say.send(t, 1)
				for range 20 {
					if gotAll(inboxes, from, mark, 1) == nil && (from > 0 || wires[by].count(t) > 0) {
						unix.Poll(nil, 20) // where a link is only about to be left, the second copy is right behind
						return gotAll(inboxes, from, mark, 1)
					}
					unix.Poll(nil, 5)
				}
				return fmt.Errorf("datagram %d: %w", mark, gotAll(inboxes, from, mark, 1))
			})
			wires["up0"].count(t)
			wires["up1"].count(t)
			const datagrams = 50
			first := say.send(t, datagrams)
			await(t, "every datagram", func(context.Context) error { return gotAll(inboxes, from, first, datagrams) })
			sent := map[string]int{"up0": wires["up0"].count(t), "up1": wires["up1"].count(t)}
			want := map[string]int{by: 0}
			if from == 0 {
				want[by] = datagrams * len(tenantGroups)
			}
			if sent["up0"] != want["up0"] || sent["up1"] != want["up1"] {
				t.Errorf("VTEP 1 sent %v to the group, want %v", sent, want)
			}
		}
	}
	t.Run("by the first uplink", func(t *testing.T) { exact(t, "up0") })
	must(t, b.net.SetDown("to-v1"))
	t.Run("by the second, when the first has no carrier", func(t *testing.T) { exact(t, "up1") })
	must(t, b.net.SetUp("to-v1"))
	t.Run("by the first again", func(t *testing.T) { exact(t, "up0") })
}

// member waits until a host is in the group on one uplink, and on no other.
func member(t *testing.T, v *vtep, uplink string, group netip.Addr) {
	t.Helper()
	l, err := v.ns.LinkByName(uplink)
	must(t, err)
	await(t, "the host to be a member by "+uplink, func(context.Context) error {
		have, err := v.ns.Groups()
		if err == nil && (len(have) != 1 || have[0] != netdev.Group{Index: l.Index, Addr: group}) {
			err = fmt.Errorf("it is a member of %v", have)
		}
		return err
	})
}

// speaker sends numbered datagrams to the tenants' groups.
type speaker struct{ conns []net.Conn }

var spoken uint32 // the last number

func newSpeaker(t *testing.T, ns *netdev.Handle) *speaker {
	t.Helper()
	s := &speaker{}
	for _, group := range tenantGroups {
		// The workload has no route to groups: the interface says where to.
		d := net.Dialer{Control: onSocket(t, ns, unix.IP_MULTICAST_IF, group.Addr())}
		c, err := ns.Dial(t.Context(), &d, "udp4", group.String())
		must(t, err)
		t.Cleanup(func() { c.Close() })
		s.conns = append(s.conns, c)
	}
	return s
}

// onSocket sets an option of an IPv4 socket that is about a group and the workload's interface.
func onSocket(t *testing.T, ns *netdev.Handle, option int, group netip.Addr) func(network, address string, c syscall.RawConn) error {
	t.Helper()
	l, err := ns.LinkByName("eth0")
	must(t, err)
	return func(_, _ string, c syscall.RawConn) error {
		var refused error
		err := c.Control(func(fd uintptr) {
			refused = unix.SetsockoptIPMreqn(int(fd), unix.SOL_IP, option, &unix.IPMreqn{Multiaddr: group.As4(), Ifindex: int32(l.Index)})
		})
		return errors.Join(err, refused)
	}
}

// send returns the number of the first.
func (s *speaker) send(t *testing.T, n int) (first uint32) {
	t.Helper()
	first = spoken + 1
	for range n {
		spoken++
		for _, c := range s.conns {
			_, err := c.Write(binary.BigEndian.AppendUint32(nil, spoken))
			must(t, err)
		}
	}
	return first
}

// inbox counts the datagrams that a workload gets, by group and number.
type inbox struct {
	mu  sync.Mutex
	got []map[uint32]int
}

func newInbox(t *testing.T, ns *netdev.Handle) *inbox {
	t.Helper()
	in := &inbox{}
	for i, group := range tenantGroups {
		in.got = append(in.got, map[uint32]int{})
		c, err := ns.ListenPacket(t.Context(), "udp4", group.String())
		must(t, err)
		raw, err := c.(*net.UDPConn).SyscallConn()
		must(t, err)
		must(t, onSocket(t, ns, unix.IP_ADD_MEMBERSHIP, group.Addr())("", "", raw))
		done := make(chan struct{})
		t.Cleanup(func() { c.Close(); <-done })
		go func() {
			defer close(done)
			b := make([]byte, 64)
			for {
				n, _, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				if n == 4 {
					in.mu.Lock()
					in.got[i][binary.BigEndian.Uint32(b)]++
					in.mu.Unlock()
				}
			}
		}()
	}
	return in
}

// gotAll is an error until every workload but the sender's has each datagram of every group, once; and one for ever if it has one twice.
func gotAll(list []*inbox, from int, first uint32, n int) error {
	for i, in := range list {
		if i == from {
			continue
		}
		in.mu.Lock()
		defer in.mu.Unlock()
		for g, got := range in.got {
			for k := range n {
				if times := got[first+uint32(k)]; times != 1 {
					return fmt.Errorf("workload %d got datagram %d to %s %d times", i+1, k, tenantGroups[g], times)
				}
			}
		}
	}
	return nil
}

// watch counts the tunnel packets to a group that a machine sends on a link, at the bridge's end of it.
type watch struct {
	fd    int
	group netip.Addr
}

func newWatch(t *testing.T, ns *netdev.Handle, ifname string, group netip.Addr) *watch {
	t.Helper()
	l, err := ns.LinkByName(ifname)
	must(t, err)
	w := &watch{group: group}
	must(t, ns.Run(func() (err error) {
		if w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(w.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
			return err
		}
		return unix.Bind(w.fd, &unix.SockaddrLinklayer{Protocol: 0x0300 /* ETH_P_ALL */, Ifindex: l.Index})
	}))
	t.Cleanup(func() { unix.Close(w.fd) })
	return w
}

// count is how many came since it was last asked, of datagrams to the tenants' groups.
func (w *watch) count(t *testing.T) (n int) {
	t.Helper()
	b := make([]byte, 2048)
	for {
		k, _, err := unix.Recvfrom(w.fd, b, 0)
		if err == unix.EAGAIN || err == unix.EINTR || err == unix.ENETDOWN {
			return n
		}
		must(t, err)
		p, err := wire.ParseFrame(b[:k])
		if err != nil || !p.Has(wire.LayerUDP) || p.UDP.Dst != 4789 || p.IPv4.Dst != w.group {
			continue
		}
		inner, err := wire.ParseFrame(b[14+20+8+8 : k])
		for _, group := range tenantGroups {
			if err == nil && inner.Has(wire.LayerUDP) && inner.IPv4.Dst == group.Addr() {
				n++
			}
		}
	}
}
