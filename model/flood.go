package model

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"
)

// FloodMethod says how broadcast, multicast and unknown unicast reach the other VTEPs of a network.
type FloodMethod string

// The methods; the empty one is FloodHeadEnd.
const (
	FloodHeadEnd   FloodMethod = "head-end"
	FloodMulticast FloodMethod = "multicast"
)

// VTEPFlood says how floods of a network whose method is multicast reach an external VTEP.
type VTEPFlood string

// The ways; the empty one is VTEPFloodCopy.
const (
	VTEPFloodCopy  VTEPFlood = "copy"
	VTEPFloodGroup VTEPFlood = "group"
)

// Multicast reports whether floods are to go to a group.
func (s NetworkSpec) Multicast() bool { return s.Flood == FloodMulticast }

// FloodAlloc is a network's way through its flood methods. Those who send follow those who receive: a host joins before anybody sends to the group
// alone, and leaves when nobody does any more.
type FloodAlloc struct {
	// Group that the network is to use; none is head-end replication.
	Group netip.Addr `json:"group,omitzero"`
	// Sends is the group that floods are sent to.
	Sends netip.Addr `json:"sends,omitzero"`
	// Joined are the groups that hosts with a member receive floods by, sorted.
	Joined []netip.Addr `json:"joined,omitempty"`
}

// Use makes group what the network is to use, none for head-end replication. Nothing of what floods are sent or received by now goes.
func (f FloodAlloc) Use(group netip.Addr) FloodAlloc {
	f.Group = group
	f.Joined = joined(f.Joined, group)
	return f
}

func joined(groups []netip.Addr, more netip.Addr) []netip.Addr {
	groups = slices.Clone(groups)
	if more.IsValid() && !slices.Contains(groups, more) {
		groups = append(groups, more)
		slices.SortFunc(groups, netip.Addr.Compare)
	}
	return groups
}

// Settled reports whether the network floods as it is to.
func (f FloodAlloc) Settled() bool {
	return f.Sends == f.Group && slices.Equal(f.Joined, joined(nil, f.Group))
}

// Next is the next step on the way, which may be taken once every host with a member has applied the last: senders change when all have joined, and
// what nobody sends to is left when all have changed.
func (f FloodAlloc) Next() FloodAlloc {
	if f.Sends != f.Group {
		f.Sends = f.Group
	} else {
		f.Joined = joined(nil, f.Group)
	}
	return f
}

func (n *Network) validateFlood(r *refusals) {
	s := n.Spec
	switch s.Flood {
	case "", FloodHeadEnd, FloodMulticast:
	default:
		r.add(Errorf(Invalid, "spec.flood", "choose head-end or multicast", "%q is not a method", clip(string(s.Flood))))
		return
	}
	if s.Group.IsValid() {
		r.add(ValidateGroup("spec.group", s.Group))
	}
	if s.GroupPool != "" {
		r.add(ValidateName("spec.group_pool", s.GroupPool))
	}
	switch {
	case s.Group.IsValid() && s.GroupPool != "":
		r.add(Errorf(Invalid, "spec.group_pool", "leave out spec.group or spec.group_pool", "a network with a given group takes none from a pool"))
	case !s.Multicast() && s.GroupPool != "":
		r.add(Errorf(Invalid, "spec.group_pool", "set spec.flood to multicast, or leave the pool out", "head-end replication uses no group"))
	case !s.Multicast() && s.Group.IsValid():
		r.add(Errorf(Invalid, "spec.group", "set spec.flood to multicast, or leave the group out", "head-end replication uses no group"))
	case s.Multicast() && !s.Group.IsValid() && s.GroupPool == "":
		r.add(Errorf(Invalid, "spec.group", "give one, as 239.1.2.3 or ff05::1:3, or a pool to take one from (spec.group_pool)", "multicast needs a group"))
	}
	for i, v := range s.VTEPs {
		field := at("spec.vteps", i) + ".flood"
		switch v.Flood {
		case "", VTEPFloodCopy:
		case VTEPFloodGroup:
			if !s.Multicast() {
				r.add(Errorf(Invalid, field, fmt.Sprintf("let it get copies first: `weft network vtep add %s %s --tenant %s --flood copy`, or set spec.flood to multicast", n.Name, v.VTEP, n.Tenant),
					"VTEP %s is to receive the network's group, and the network uses no group", clip(v.VTEP)))
			}
		default:
			r.add(Errorf(Invalid, field, "choose copy or group", "%q is not a way", clip(string(v.Flood))))
		}
	}
}

// ValidateReceivers refuses external VTEPs that are said to receive a group which they cannot: their address is of the other IP version. vteps are all there
// are, by name.
func (n *Network) ValidateReceivers(group netip.Addr, vteps map[string]*VTEP) error {
	var r refusals
	for i, part := range n.Spec.VTEPs {
		if v := vteps[part.VTEP]; v != nil && part.Flood == VTEPFloodGroup && group.IsValid() {
			r.add(validateReceiver(at("spec.vteps", i)+".flood", n, group, v))
		}
	}
	return r.err()
}

func validateReceiver(field string, n *Network, group netip.Addr, v *VTEP) *Error {
	if v.Spec.Address.Unmap().Is4() == group.Is4() {
		return nil
	}
	return Errorf(Invalid, field, fmt.Sprintf("let it get copies: `weft network vtep add %s %s --tenant %s --flood copy`, or give the network a group of its IP version",
		n.Name, v.Name, n.Tenant), "VTEP %s has the address %s, which cannot receive the %s group %s", v.Name, v.Spec.Address, ipVersion(group), group)
}

// ValidateWith refuses an address by which the VTEP would no longer receive the group of a network that says that it does. It goes with ValidateUpdate.
func (v *VTEP) ValidateWith(networks iter.Seq[*Network]) error {
	for n := range networks {
		group := n.Alloc.Flood.Group
		for _, part := range n.Spec.VTEPs {
			if part.VTEP != v.Name || part.Flood != VTEPFloodGroup || !group.IsValid() {
				continue
			}
			if e := validateReceiver("spec.address", n, group, v); e != nil {
				e.Kind = Conflict
				e.Reason = fmt.Sprintf("network %s/%s says that it receives the %s group %s, which %s cannot", n.Tenant, n.Name, ipVersion(group), group, v.Spec.Address)
				return e
			}
		}
	}
	return nil
}

func ipVersion(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// noGroup are the ranges of multicast addresses that no router forwards, or that others own.
var noGroup = append([]groupRange{
	{netip.MustParsePrefix("224.0.0.0/24"), "224.0.0.0/24, which no router forwards (RFC 5771)"},
	{netip.MustParsePrefix("232.0.0.0/8"), "for one source only, 232.0.0.0/8 (RFC 4607): weft joins groups for any source"},
	{netip.MustParsePrefix("ff30::/12"), "for one source only, ff3x::/32 (RFC 4607): weft joins groups for any source"},
}, narrowScopes()...)

type groupRange struct {
	prefix netip.Prefix
	what   string
}

// narrowScopes are the scopes of IPv6 groups that no router forwards, with whatever flags: RFC 4291, section 2.7.
func narrowScopes() (list []groupRange) {
	const reserved = "reserved (RFC 4291, section 2.7)"
	for flags := range byte(16) {
		for _, narrow := range []struct {
			scope byte
			what  string
		}{{0, reserved}, {1, "of the scope of one interface"}, {2, "of the scope of one link"}, {0xf, reserved}} {
			list = append(list, groupRange{netip.PrefixFrom(netip.AddrFrom16([16]byte{0xff, flags<<4 | narrow.scope}), 16), narrow.what})
		}
	}
	return list
}

// ValidateGroup refuses an address that floods cannot be sent to.
func ValidateGroup(field string, a netip.Addr) *Error {
	const fix = "choose one of 239.0.0.0/8 (RFC 2365) or of ff05::/16 or ff08::/16 (RFC 7346)"
	switch {
	case a.Is4In6():
		return Errorf(Invalid, field, "write IPv4 groups as 239.1.2.3", "%s is an IPv4 address in IPv6 form", a)
	case a.Zone() != "":
		return Errorf(Invalid, field, "leave the zone out: each host has its uplink", "%s has a zone", a)
	case !a.IsMulticast():
		return Errorf(Invalid, field, fix, "%s is not a multicast address", a)
	}
	for _, no := range noGroup {
		if no.prefix.Contains(a) {
			return Errorf(Invalid, field, fix, "%s is %s", a, no.what)
		}
	}
	return nil
}

// ParseGroup reads a group; the empty text is none.
func ParseGroup(field, text string) (netip.Addr, *Error) {
	if text == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return a, Errorf(Invalid, field, "write it as 239.1.2.3 or ff05::1:3", "%q is not an IP address", clip(text))
	}
	return a, nil
}
