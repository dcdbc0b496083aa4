package netdev

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/wire"
)

// Routers ignore IGMP reports whose source is no host's (RFC 3376, section 4.2.13, wants the interface's). The kernel takes the first address of the
// interface that its scope allows, and groups are addresses here: after the host's own was taken away and given again, they are before it.
// Goes red when groupRequest gives its address the scope of the link, or the universe's.
func TestGroupReportsComeFromTheHost(t *testing.T) {
	a, b := namespace(t, "host"), namespace(t, "router")
	own := netip.MustParsePrefix("198.51.100.1/31")
	_, _, err := a.EnsureVeth(Veth{Name: "up0", MTU: 1500, Addresses: []netip.Prefix{own}, Peer: VethPeer{Namespace: b, Name: "down0"}})
	must(t, err)
	s := igmpSocket(t, b, "down0")
	for i, group := range []string{"239.1.1.1", "239.1.1.2"} {
		addr := netip.MustParseAddr(group)
		must(t, a.JoinGroup("up0", addr))
		if src := reporter(t, s, addr); src != own.Addr() {
			t.Errorf("%s is joined in the name of %s, want %s", group, src, own.Addr())
		}
		if i == 0 {
			must(t, a.DeleteAddress("up0", own))
			must(t, a.AddAddress("up0", own))
		}
	}
	groups, err := a.Groups()
	must(t, err)
	if len(groups) != 2 {
		t.Errorf("it is a member of %v", groups)
	}
	for _, g := range groups {
		must(t, a.LeaveGroup(g))
	}
	if groups, err = a.Groups(); err != nil || len(groups) != 0 {
		t.Errorf("having left all, it is a member of %v (%v)", groups, err)
	}
}

// igmpSocket takes every IPv4 packet that arrives at an interface.
func igmpSocket(t *testing.T, ns *Handle, ifname string) int {
	t.Helper()
	l, err := ns.LinkByName(ifname)
	must(t, err)
	const ipv4 = unix.ETH_P_IP>>8 | unix.ETH_P_IP&0xff<<8
	fd := -1
	must(t, ns.Run(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, ipv4)
		return err
	}))
	t.Cleanup(func() { unix.Close(fd) })
	must(t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: ipv4, Ifindex: l.Index}))
	limit := unix.NsecToTimeval(patience.Nanoseconds())
	must(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit))
	return fd
}

// reporter is the source of the next IGMP report that names a group.
func reporter(t *testing.T, fd int, group netip.Addr) netip.Addr {
	t.Helper()
	const igmp = 2
	buf := make([]byte, 1500)
	for until := time.Now().Add(patience); time.Now().Before(until); {
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EINTR) { // a wait with a limit is not begun again by itself
			continue
		}
		must(t, err)
		if h, payload, err := wire.ParseIPv4(buf[:n]); err == nil && h.Protocol == igmp && bytes.Contains(payload, group.AsSlice()) {
			return h.Src
		}
	}
	t.Fatalf("no IGMP report names %s", group)
	return netip.Addr{}
}
