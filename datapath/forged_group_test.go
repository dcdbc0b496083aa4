package datapath

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/wire"
)

// groupsOfForgery are groups of one IP version that host a is a member of: those of VNIs 7 and 8, and one that no network has.
type groupsOfForgery struct{ seven, eight, nobodys netip.Addr }

func forgeGroups(ip6 bool) groupsOfForgery {
	p := netip.MustParseAddr
	if ip6 {
		return groupsOfForgery{group6, p("ff05::8:8"), p("ff05::9:9")}
	}
	return groupsOfForgery{group4, p("239.8.8.8"), p("239.9.9.9")}
}

// joinGroups has host a take floods by groups. The last one is somebody else's: weft's own kernel device would get what is sent to it.
func (s *forgeScene) joinGroups() {
	s.t.Helper()
	for _, ip6 := range []bool{false, true} {
		g := forgeGroups(ip6)
		for _, addr := range []netip.Addr{g.seven, g.eight, g.nobodys} {
			must(s.t, s.a.ns.JoinGroup("up0", addr))
		}
		must(s.t, s.a.dp.PutGroups([]Group{{7, g.seven}, {8, g.eight}}))
	}
}

// groupMAC is the Ethernet address of a group: RFC 1112, section 6.4; RFC 2464, section 7.
func groupMAC(group netip.Addr) wire.MAC {
	if b := group.AsSlice(); group.Is6() {
		return wire.MAC{0x33, 0x33, b[12], b[13], b[14], b[15]}
	} else {
		return wire.MAC{0x01, 0x00, 0x5e, b[1] & 0x7f, b[2], b[3]}
	}
}

// toGroup is a tunnel packet for w1, of VNI 7, that host b seems to have sent to a group.
func (s *forgeScene) toGroup(group netip.Addr, edit func(*tunnelOptions)) []byte {
	src := addrB4
	if group.Is6() {
		src = addrB6
	}
	f := s.into(between(src, group, edit))
	return readdress(f, groupMAC(group), wire.MAC(f[6:12]))
}

const (
	breakGroup    = "check_group returns V_NEXT without a look at the groups"
	breakGroupMAC = "is_for_group does not compare the Ethernet address"
)

// toGroups: a machine on the underlay that sends to groups which host a is in.
func (s *forgeScene) toGroups() (list []forgery) {
	kind := func(name, red string, reason DropReason, source netip.Addr, rounds ...[]byte) {
		list = append(list, forgery{name: "group: " + name, red: red, gun: armFrames(s.t, s.b.ns, "up0", true, rounds...), at: s.a, reason: reason, source: source})
	}
	for _, ip6 := range []bool{false, true} {
		g, vtep, rogue, own, version := forgeGroups(ip6), addrB4, addrRogue4, addrA4, ""
		if ip6 {
			vtep, rogue, own, version = addrB6, addrRogue6, addrA6, ", IPv6"
		}
		kind("another VNI's"+version, breakGroup, DropOtherGroup, netip.Addr{}, flows(s.toGroup(g.eight, nil))...)
		kind("no network's"+version, breakMark, DropUnmarked, vtep, flows(s.toGroup(g.nobodys, nil))...)
		kind("the right one, from what is no VTEP"+version, breakSource, DropSourceNotAccepted, rogue, flows(s.toGroup(g.seven, from(rogue)))...)
		if ip6 {
			continue
		}
		kind("the right one, with our own address as the source", breakOwn, DropOwnSource, own, s.toGroup(g.seven, from(own)))
		l, err := s.a.ns.LinkByName("up0")
		must(s.t, err)
		right := s.toGroup(g.seven, nil)
		kind("by an Ethernet address that is not its own", breakGroupMAC, DropUnmarked, vtep, readdress(right, l.MAC, wire.MAC{2, 0xbb}),
			readdress(right, groupMAC(g.eight), wire.MAC{2, 0xbb}), readdress(s.into(nil), groupMAC(g.seven), wire.MAC{2, 0xbb}))
	}
	return list
}

// ofGroups: who is on a host, or in a container on it, and sends to the group of a network. A host that is a member itself takes its own processes'
// datagrams to the group for itself: they go to lo and no further, unless somebody joins the group there.
func (s *forgeScene) ofGroups() []forgery {
	data := payload(s.into(nil))
	by := func(h *testHost, ifname string, ip6, joins bool) func(int) error {
		l, err := h.ns.LinkByName(ifname)
		must(s.t, err)
		group := forgeGroups(ip6).seven
		return func(fd int) error {
			if ip6 {
				err := unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_MULTICAST_IF, l.Index)
				if err == nil && joins {
					err = unix.SetsockoptIPv6Mreq(fd, unix.SOL_IPV6, unix.IPV6_ADD_MEMBERSHIP, &unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(l.Index)})
				}
				return err
			}
			r := unix.IPMreqn{Multiaddr: group.As4(), Ifindex: int32(l.Index)}
			err := unix.SetsockoptIPMreqn(fd, unix.SOL_IP, unix.IP_MULTICAST_IF, &r)
			if err == nil && joins {
				err = unix.SetsockoptIPMreqn(fd, unix.SOL_IP, unix.IP_ADD_MEMBERSHIP, &r)
			}
			return err
		}
	}
	to := func(ip6 bool) netip.AddrPort { return netip.AddrPortFrom(forgeGroups(ip6).seven, 4789) }
	user := func(name string, at *testHost, reason DropReason, source netip.Addr, ifname string, joins bool) forgery {
		red := map[DropReason]string{DropUnmarked: breakMark, DropForgedTunnel: breakGuard}[reason]
		return forgery{name: "group: " + name, red: red, at: at, reason: reason, source: source,
			gun: armNobody(s.t, at.ns, to(source.Is6()), by(at, ifname, source.Is6(), joins), data)}
	}
	mac0, err := s.container.LinkByName("mac0")
	must(s.t, err)
	out := s.toGroup(group4, from(addrA4))
	marked := armFrames(s.t, s.container, "mac0", true, readdress(out, groupMAC(group4), mac0.MAC))
	must(s.t, s.marked(0)(marked.fd))
	return []forgery{
		user("a user of a host that is no member", s.b, DropForgedTunnel, addrB4, "up0", false),
		user("a user of a host that is no member, IPv6", s.b, DropForgedTunnel, addrB6, "up0", false),
		user("over loopback, by a user who joins it there", s.a, DropUnmarked, addrA4, "lo", true),
		{name: "group: a container's, by a macvlan on the uplink, with the mark itself", red: breakGuard, at: s.a, reason: DropForgedTunnel, source: addrA4, gun: marked},
		{name: "group: root's frames", red: breakGuard, at: s.a, reason: DropForgedTunnel, source: addrA4, gun: armFrames(s.t, s.a.ns, "up0", false, flows(out)...)},
		{name: "group: root's frames, IPv6", red: breakGuard, at: s.a, reason: DropForgedTunnel, source: addrA6,
			gun: armFrames(s.t, s.a.ns, "up0", false, flows(s.toGroup(group6, from(addrA6)))...)},
	}
}
