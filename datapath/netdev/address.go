package netdev

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Address is an IP address on an interface.
type Address struct {
	Prefix netip.Prefix // the address itself, with the length of its subnet
	Index  int
	// LinkLocal, Tentative: as the kernel flags them.
	LinkLocal, Tentative bool
}

// AddAddress adds an address; one that is there already is no error. IPv6 addresses skip duplicate address detection, since
// whoever gives them out knows that they are unique.
func (h *Handle) AddAddress(name string, p netip.Prefix) error {
	return h.change(name, "add address "+p.String(), func(l netlink.Link) error {
		a := &netlink.Addr{IPNet: ipNet(p)}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD
		}
		return unless(h.nl.AddrAdd(l, a), unix.EEXIST)
	})
}

// DeleteAddress removes an address; one that is not there is no error. The other addresses of its subnet stay: without
// promote_secondaries the kernel takes all of them away with the oldest.
func (h *Handle) DeleteAddress(name string, p netip.Prefix) error {
	if p.Addr().Is4() {
		if err := h.SetSysctl("net/ipv4/conf/"+name+"/promote_secondaries", "1"); err != nil && !missingSysctl(err) {
			return err
		}
	}
	return h.change(name, "delete address "+p.String(), func(l netlink.Link) error {
		return unless(h.nl.AddrDel(l, &netlink.Addr{IPNet: ipNet(p)}), unix.EADDRNOTAVAIL)
	})
}

// Addresses lists the addresses of an interface, or of all interfaces if the name is empty.
func (h *Handle) Addresses(name string) ([]Address, error) {
	var link netlink.Link
	if name != "" {
		l, err := h.LinkByName(name)
		if err != nil {
			return nil, fmt.Errorf("list addresses: %w", err)
		}
		link = ref(l.Index)
	}
	all, err := dump(func() ([]netlink.Addr, error) { return h.nl.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var list []Address
	for _, a := range all {
		if p, ok := prefixOf(a.IPNet); ok && !p.Addr().IsMulticast() { // those are groups: see JoinGroup
			list = append(list, Address{Prefix: p, Index: a.LinkIndex, LinkLocal: a.Scope == unix.RT_SCOPE_LINK,
				Tentative: a.Flags&unix.IFA_F_TENTATIVE != 0})
		}
	}
	return list, nil
}

// SetAddresses makes the interface have exactly these addresses, link-local ones apart: adds first, deletes last.
func (h *Handle) SetAddresses(name string, want []netip.Prefix) error {
	have, err := h.Addresses(name)
	if err != nil {
		return err
	}
	keep := map[netip.Prefix]bool{}
	for _, p := range want {
		keep[p] = true
		if err := h.AddAddress(name, p); err != nil {
			return err
		}
	}
	for _, a := range have {
		if !keep[a.Prefix] && !a.LinkLocal {
			if err := h.DeleteAddress(name, a.Prefix); err != nil {
				return err
			}
		}
	}
	return nil
}

func unless(err error, ok error) error {
	if errors.Is(err, ok) {
		return nil
	}
	return err
}

func ipNet(p netip.Prefix) *net.IPNet {
	if !p.IsValid() {
		return nil
	}
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	bits, size := n.Mask.Size()
	if size == 32 {
		addr = addr.Unmap()
	}
	return netip.PrefixFrom(addr, bits), ok
}

func ipOf(a netip.Addr) net.IP {
	if !a.IsValid() {
		return nil
	}
	return a.AsSlice()
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
