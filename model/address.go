package model

import (
	"net/netip"

	"github.com/weftnet/weft/wire"
)

const (
	fixMAC = "choose a unicast MAC such as 02:00:00:00:00:01, or leave it out to have one allocated"
	// fixStatedMAC is for the places where none is ever allocated.
	fixStatedMAC = "choose a unicast MAC such as 00:00:5e:00:01:01"
)

// ParseMAC reads a MAC that a user wrote in a field, and refuses those that nothing may own.
func ParseMAC(field, s string) (wire.MAC, *Error) {
	m, err := wire.ParseMAC(s)
	if err != nil {
		return wire.MAC{}, Errorf(Invalid, field, fixMAC, "%q is not a MAC address", clip(s))
	}
	return m, validateMAC(field, m)
}

// ParseAddr reads an IP address that a user wrote in a field.
func ParseAddr(field, s string) (netip.Addr, *Error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, Errorf(Invalid, field, "write it as 10.1.0.5 or fd00:1::5, without a prefix length",
			"%q is not an IP address", clip(s))
	}
	return a, validatePlain(field, a)
}

// ParseSubnet reads a subnet that a user wrote in a field.
func ParseSubnet(field, s string) (netip.Prefix, *Error) {
	p, err := netip.ParsePrefix(s)
	if err == nil {
		return p, validateSubnet(field, p)
	}
	if a, err := netip.ParseAddr(s); err == nil {
		if a.Zone() != "" {
			return netip.Prefix{}, validatePlain(field, a)
		}
		return netip.Prefix{}, Errorf(Invalid, field, "add the prefix length, as in 10.1.0.0/24 or fd00:1::/64",
			"%s is an address without a prefix length", a)
	}
	return netip.Prefix{}, Errorf(Invalid, field, "write it as 10.1.0.0/24 or fd00:1::/64", "%q is not an IP prefix", clip(s))
}

// ParseUDPPort narrows an API number to a UDP port; 0 stays 0, which is the default.
func ParseUDPPort(field string, v uint32) (uint16, *Error) {
	if v > 65535 {
		return 0, Errorf(Invalid, field, "choose 1 to 65535, or leave it out for 4789", "UDP port %d is above 65535", v)
	}
	return uint16(v), nil
}

func validateMAC(field string, m wire.MAC) *Error {
	switch {
	case m.IsZero():
		return Errorf(Invalid, field, fixMAC, "%s is not an address", m)
	case m.IsBroadcast():
		return Errorf(Invalid, field, fixMAC, "%s is the broadcast address", m)
	case m.IsMulticast():
		return Errorf(Invalid, field, fixMAC, "%s is a multicast address", m)
	case m.IsReserved():
		return Errorf(Invalid, field, fixMAC, "%s is reserved: MACs that begin with 02:6f:77 belong to weft's own devices", m)
	}
	return nil
}

// validatePlain refuses an address that has two ways to be written, or that means something else on each machine.
func validatePlain(field string, a netip.Addr) *Error {
	switch {
	case !a.IsValid():
		return Errorf(Invalid, field, "write it as 10.1.0.5 or fd00:1::5", "an address is needed")
	case a.Zone() != "":
		return Errorf(Invalid, field, "leave out everything from the % sign", "%s has a zone, which is only known to one machine",
			clip(a.String()))
	case a.Is4In6():
		return Errorf(Invalid, field, "write "+a.Unmap().String(), "%s is an IPv4 address in IPv6 form", a)
	}
	return nil
}

// validateUnicast refuses an address that no workload can own.
func validateUnicast(field string, a netip.Addr) *Error {
	if e := validatePlain(field, a); e != nil {
		return e
	}
	const fix = "choose a unicast address"
	switch {
	case a.IsUnspecified():
		return Errorf(Invalid, field, fix, "%s is the unspecified address", a)
	case a.IsMulticast():
		return Errorf(Invalid, field, fix, "%s is a multicast address", a)
	case a.IsLoopback():
		return Errorf(Invalid, field, fix, "%s is a loopback address", a)
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return Errorf(Invalid, field, fix, "%s is the broadcast address", a)
	}
	return nil
}

// validateUnderlay refuses an address that no VTEP can be reached at from another machine.
func validateUnderlay(field string, a netip.Addr) *Error {
	if e := validateUnicast(field, a); e != nil {
		return e
	}
	if a.Is6() && a.IsLinkLocalUnicast() {
		return Errorf(Invalid, field, "choose an address that is routed in the underlay",
			"%s is link-local: it means another machine on each link", a)
	}
	return nil
}

// noSubnet are the ranges that no subnet may touch.
var noSubnet = [...]struct {
	prefix netip.Prefix
	what   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "0.0.0.0/8, which means this network (RFC 1122)"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback, 127.0.0.0/8"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast, 224.0.0.0/4"},
	{netip.MustParsePrefix("255.255.255.255/32"), "the broadcast address 255.255.255.255"},
	{netip.MustParsePrefix("::/127"), "the unspecified and loopback addresses ::/127"},
	{netip.MustParsePrefix("::ffff:0:0/96"), "IPv4 addresses in IPv6 form, ::ffff:0:0/96"},
	{netip.MustParsePrefix("fe80::/10"), "link-local addresses, fe80::/10, which every interface has by itself"},
	{netip.MustParsePrefix("ff00::/8"), "multicast, ff00::/8"},
}

// validateSubnet refuses a prefix that is not a subnet: an address, a single host, or a range that workloads cannot use.
func validateSubnet(field string, p netip.Prefix) *Error {
	if !p.IsValid() {
		return Errorf(Invalid, field, "write it as 10.1.0.0/24 or fd00:1::/64", "a prefix is needed")
	}
	if p.Addr().Is4In6() {
		return Errorf(Invalid, field, "write IPv4 subnets as 10.1.0.0/24", "%s is an IPv4 prefix in IPv6 form", p)
	}
	longest := p.Addr().BitLen() - 2
	if p.Bits() > longest {
		what := "has no room for ports"
		if p.IsSingleIP() {
			what = "is a single address, not a subnet"
		}
		return Errorf(Invalid, field, "choose a prefix length of at most "+shown(longest), "%s %s", p, what)
	}
	if m := p.Masked(); m != p {
		return Errorf(Invalid, field, "write "+m.String(), "%s is an address within %s: its host bits are set", p, m)
	}
	for _, no := range noSubnet {
		if p.Overlaps(no.prefix) {
			return Errorf(Invalid, field, "choose a unicast range, such as one from 10.0.0.0/8 or fd00::/8",
				"%s contains or lies in %s", p, no.what)
		}
	}
	return nil
}

// subnetOf finds the subnet that contains an address.
func subnetOf(subnets []netip.Prefix, a netip.Addr) (netip.Prefix, bool) {
	for _, s := range subnets {
		if s.Contains(a) {
			return s, true
		}
	}
	return netip.Prefix{}, false
}

// unusable says what an address is in its subnet, if not one that a port can have.
func unusable(subnet netip.Prefix, a netip.Addr) string {
	switch {
	case a == subnet.Masked().Addr() && a.Is4():
		return "the network address"
	case a == subnet.Masked().Addr():
		return "the subnet-router anycast address (RFC 4291, section 2.6.1)"
	case a.Is4() && a == lastAddr(subnet):
		return "the broadcast address"
	}
	return ""
}

// lastAddr is the highest address of a prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
