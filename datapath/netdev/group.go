package netdev

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A Group is a multicast group that an interface is a member of.
type Group struct {
	Index int
	Addr  netip.Addr
}

// The kernel's name for the origin of an address (since 5.18): linux/if_addr.h. weft's groups carry RouteProtocol there, and no other is weft's.
const ifaProto = 11

// JoinGroup makes the interface a member of a group, for every source; IGMP or MLD tells the routers. The membership is the kernel's own (an address
// with autojoin), so that it outlives the process. One that is there already is taken over if it is weft's, and an error if not.
func (h *Handle) JoinGroup(name string, group netip.Addr) error {
	l, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	if err := h.roomForGroups(); err != nil {
		return err
	}
	err = h.groupRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, Group{l.Index, group})
	if !errors.Is(err, unix.EEXIST) {
		return wrapGroup("join", group, name, err)
	}
	have, err := h.Groups()
	if err != nil {
		return err
	}
	for _, g := range have {
		if g == (Group{l.Index, group}) {
			return nil
		}
	}
	return wrapGroup("join", group, name, errors.New("the interface has it as an address that weft did not give it"))
}

// LeaveGroup ends a membership that JoinGroup made; one that is not there, or is somebody else's, is left alone.
func (h *Handle) LeaveGroup(g Group) error {
	have, err := h.Groups()
	if err != nil {
		return err
	}
	for _, one := range have {
		if one == g {
			err := h.groupRequest(unix.RTM_DELADDR, unix.NLM_F_ACK, g)
			return wrapGroup("leave", g.Addr, fmt.Sprintf("interface %d", g.Index), unless(err, unix.EADDRNOTAVAIL))
		}
	}
	return nil
}

func wrapGroup(what string, group netip.Addr, name string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENOMEM) {
		return fmt.Errorf("%s %s on %s: no more memberships fit: raise net.ipv4.igmp_max_memberships, or net.core.optmem_max: %w", what, group, name, err)
	}
	return fmt.Errorf("%s %s on %s: %w", what, group, name, err)
}

// Groups lists the memberships that JoinGroup made, of every interface.
func (h *Handle) Groups() (list []Group, err error) {
	err = h.Run(func() error {
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			req := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
			req.AddData(nl.NewIfAddrmsg(family))
			all, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWADDR)
			if err != nil {
				return err
			}
			for _, b := range all {
				if g, ok := ownGroup(b); ok {
					list = append(list, g)
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list groups: %w", err)
	}
	return list, nil
}

// ownGroup reads an address message; ok if it is a group that weft joined.
func ownGroup(b []byte) (g Group, ok bool) {
	msg := nl.DeserializeIfAddrmsg(b)
	attrs, err := nl.ParseRouteAttr(b[msg.Len():])
	if err != nil {
		return g, false
	}
	ours := false
	g.Index = int(msg.Index)
	for _, a := range attrs {
		switch a.Attr.Type {
		case unix.IFA_LOCAL, unix.IFA_ADDRESS:
			if addr, ok := netip.AddrFromSlice(a.Value); ok {
				g.Addr = addr
			}
		case ifaProto:
			ours = len(a.Value) > 0 && a.Value[0] == RouteProtocol
		}
	}
	return g, ours && g.Addr.IsMulticast()
}

func (h *Handle) groupRequest(kind, flags int, g Group) error {
	family, bits := unix.AF_INET, 32
	if g.Addr.Is6() {
		family, bits = unix.AF_INET6, 128
	}
	return h.Run(func() error {
		req := nl.NewNetlinkRequest(kind, flags)
		msg := nl.NewIfAddrmsg(family)
		// Of this scope the kernel takes no address for the source of what it sends. Of any other it takes the group for its IGMP reports', which
		// routers ignore.
		msg.Index, msg.Prefixlen, msg.Scope = uint32(g.Index), uint8(bits), unix.RT_SCOPE_HOST
		req.AddData(msg)
		req.AddData(nl.NewRtAttr(unix.IFA_LOCAL, g.Addr.AsSlice()))
		req.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, g.Addr.AsSlice()))
		req.AddData(nl.NewRtAttr(unix.IFA_FLAGS, nl.Uint32Attr(unix.IFA_F_MCAUTOJOIN|unix.IFA_F_NOPREFIXROUTE|unix.IFA_F_NODAD)))
		req.AddData(nl.NewRtAttr(ifaProto, []byte{RouteProtocol}))
		_, err := req.Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
}

// mostGroups is how many IPv4 groups the kernel may be a member of: its default of 20 is for a socket of a program.
const mostGroups = 16384

// roomForGroups raises the limit; one that is higher stays.
func (h *Handle) roomForGroups() error {
	const key = "net/ipv4/igmp_max_memberships"
	have, err := h.Sysctl(key)
	if missingSysctl(err) {
		return nil
	}
	if n, bad := strconv.Atoi(strings.TrimSpace(have)); err != nil || bad == nil && n >= mostGroups {
		return err
	}
	return h.SetSysctl(key, strconv.Itoa(mostGroups))
}
