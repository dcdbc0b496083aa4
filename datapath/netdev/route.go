package netdev

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Route is a unicast route of the main table.
type Route struct {
	Dst netip.Prefix
	// Hops are its next hops: several for multipath.
	Hops []Hop
	// Source address to prefer, if valid.
	Source netip.Addr
	// MTU locked on the route, or 0.
	MTU int
	// Protocol says who made it; RouteProtocol for ours. Set by the kernel's listing, ignored when writing.
	Protocol int
	// Priority is the metric: lower wins.
	Priority int
}

// Hop is a next hop.
type Hop struct {
	// Gateway; invalid if the destination is on the link itself.
	Gateway netip.Addr
	Index   int
}

// ReplaceRoute makes a route of ours, or replaces the one to the same prefix.
func (h *Handle) ReplaceRoute(r Route) error {
	n := netlink.Route{Dst: ipNet(r.Dst.Masked()), Protocol: RouteProtocol, Src: ipOf(r.Source), MTU: r.MTU, Priority: r.Priority,
		Family: netlink.FAMILY_V4}
	if r.Dst.Addr().Is6() {
		n.Family = netlink.FAMILY_V6
	}
	switch len(r.Hops) {
	case 0:
		return fmt.Errorf("route to %s: it has no next hop", r.Dst)
	case 1:
		n.LinkIndex, n.Gw = r.Hops[0].Index, ipOf(r.Hops[0].Gateway)
		if n.Gw == nil {
			n.Scope = netlink.SCOPE_LINK
		}
	default:
		for _, hop := range r.Hops {
			n.MultiPath = append(n.MultiPath, &netlink.NexthopInfo{LinkIndex: hop.Index, Gw: ipOf(hop.Gateway)})
		}
	}
	if err := h.nl.RouteReplace(&n); err != nil {
		return fmt.Errorf("route to %s in %s: %w", r.Dst, h.name, err)
	}
	return nil
}

// DeleteRoute removes our route to a prefix. One that is not ours stays; one that is not there is no error.
func (h *Handle) DeleteRoute(dst netip.Prefix) error {
	err := h.nl.RouteDel(&netlink.Route{Dst: ipNet(dst.Masked()), Protocol: RouteProtocol, Scope: netlink.SCOPE_NOWHERE})
	if err := unless(err, unix.ESRCH); err != nil {
		return fmt.Errorf("delete route to %s: %w", dst, err)
	}
	return nil
}

// Routes lists the unicast routes of the main table, longest prefix first, then by metric.
func (h *Handle) Routes() ([]Route, error) {
	filter := &netlink.Route{Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST}
	var list []Route
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		all, err := dump(func() ([]netlink.Route, error) {
			return h.nl.RouteListFiltered(family, filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
		})
		if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
			return nil, fmt.Errorf("list routes of %s: %w", h.name, err)
		}
		for _, n := range all {
			list = append(list, routeOf(n, family))
		}
	}
	slices.SortStableFunc(list, func(a, b Route) int {
		if a.Dst.Bits() != b.Dst.Bits() {
			return b.Dst.Bits() - a.Dst.Bits()
		}
		return a.Priority - b.Priority
	})
	return list, nil
}

func routeOf(n netlink.Route, family int) Route {
	r := Route{Source: addrOf(n.Src), MTU: n.MTU, Protocol: int(n.Protocol), Priority: n.Priority}
	var ok bool
	if r.Dst, ok = prefixOf(n.Dst); !ok {
		r.Dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if family == netlink.FAMILY_V6 {
			r.Dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
	}
	if len(n.MultiPath) == 0 {
		r.Hops = []Hop{{Gateway: addrOf(n.Gw), Index: n.LinkIndex}}
	}
	for _, m := range n.MultiPath {
		r.Hops = append(r.Hops, Hop{Gateway: addrOf(m.Gw), Index: m.LinkIndex})
	}
	return r
}

// NextHops is where packets to an address leave: for each path an interface and the neighbour on it, which is the address
// itself where it is on the link. Longest prefix, then lowest metric, all of its paths. No route is an error.
func (h *Handle) NextHops(dst netip.Addr) ([]Hop, error) {
	routes, err := h.Routes()
	if err != nil {
		return nil, err
	}
	if hops := NextHops(routes, dst); hops != nil {
		return hops, nil
	}
	return nil, fmt.Errorf("next hop to %s in %s: no route", dst, h.name)
}

// NextHops looks an address up in what Routes listed; nil if there is no route.
func NextHops(routes []Route, dst netip.Addr) []Hop {
	for _, r := range routes {
		if !r.Dst.Contains(dst) {
			continue
		}
		hops := slices.Clone(r.Hops)
		for i := range hops {
			if !hops[i].Gateway.IsValid() {
				hops[i].Gateway = dst
			}
		}
		return hops
	}
	return nil
}
