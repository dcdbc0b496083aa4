package model

import (
	"iter"
	"net/netip"
	"strings"

	"github.com/weftnet/weft/wire"
)

// Limits of a network.
const (
	// MinMTU is what every IPv4 host must be able to take (RFC 791, section 3.1).
	MinMTU = 576
	// MinMTU6 is what every IPv6 link must carry (RFC 8200, section 5).
	MinMTU6 = 1280
	// MaxMTU is what fits into an outer IPv4 packet of 65535 octets after 50 octets of encapsulation.
	MaxMTU = 65535 - 50
	// MaxSubnets of one network.
	MaxSubnets = 64
	// MaxNetworkVTEPs is the external VTEPs that one network may list.
	MaxNetworkVTEPs = 256
	// MaxVTEPMACs is the MACs that may be stated behind the external VTEPs of one network.
	MaxVTEPMACs = 16384
)

// Validate reports everything that is wrong with the network in itself.
func (n *Network) Validate() error {
	var r refusals
	r.add(ValidateName("name", n.Name))
	r.add(ValidateName("tenant", n.Tenant))
	if n.Spec.VNI != 0 {
		r.add(validateVNI("spec.vni", n.Spec.VNI))
	}
	if n.Spec.VNIPool != "" {
		r.add(ValidateName("spec.vni_pool", n.Spec.VNIPool))
		if n.Spec.VNI != 0 {
			r.add(Errorf(Invalid, "spec.vni_pool", "leave out spec.vni or spec.vni_pool",
				"a network with a pinned VNI takes none from a pool"))
		}
	}
	n.validateSubnets(&r)
	r.add(n.validateMTU())
	switch n.Spec.UnknownUnicast {
	case "", UnknownUnicastExternal, UnknownUnicastFlood, UnknownUnicastDrop:
	default:
		r.add(Errorf(Invalid, "spec.unknown_unicast", "choose external, flood or drop", "%q is not a setting",
			clip(string(n.Spec.UnknownUnicast))))
	}
	switch n.Spec.DSCP {
	case "", DSCPPipe, DSCPUniform:
	default:
		r.add(Errorf(Invalid, "spec.dscp", "choose pipe or uniform", "%q is not a setting", clip(string(n.Spec.DSCP))))
	}
	switch n.Spec.Neighbours {
	case "", NeighboursAnswer, NeighboursFlood:
	default:
		r.add(Errorf(Invalid, "spec.neighbours", "choose answer or flood", "%q is not a setting", clip(string(n.Spec.Neighbours))))
	}
	r.add(validateBUM(n.Spec.BUMLimit))
	n.Spec.Learning.validate("spec.learning", &r)
	n.validateVTEPs(&r)
	n.validateDHCP(&r)
	n.validateFlood(&r)
	r.add(validateDescription(n.Spec.Description))
	return r.err()
}

func (n *Network) validateSubnets(r *refusals) {
	const field = "spec.subnets"
	if len(n.Spec.Subnets) > MaxSubnets {
		r.add(Errorf(Invalid, field, "use fewer, larger ones", "%d subnets are more than %d", len(n.Spec.Subnets), MaxSubnets))
		return
	}
	for i, s := range n.Spec.Subnets {
		if e := validateSubnet(at(field, i), s); e != nil {
			r.add(e)
			continue
		}
		for j, t := range n.Spec.Subnets[:i] {
			if t.IsValid() && s.Overlaps(t) {
				r.add(Errorf(Invalid, at(field, i), "leave one of them out, or choose a range outside it",
					"%s overlaps %s, which is %s", s, t, at(field, j)))
				break
			}
		}
	}
}

func (n *Network) validateMTU() *Error {
	const field = "spec.mtu"
	m := n.Spec.MTU
	if m == 0 {
		return nil
	}
	if m < MinMTU || m > MaxMTU {
		return Errorf(Invalid, field, "choose a value within that range, or 0 for whatever fits the underlay",
			"MTU %d is outside %d..%d", m, MinMTU, MaxMTU)
	}
	if m >= MinMTU6 {
		return nil
	}
	for _, s := range n.Spec.Subnets {
		if s.IsValid() && s.Addr().Is6() {
			return Errorf(Invalid, field, "choose 1280 or more, or leave the IPv6 subnet out",
				"MTU %d is below the %d that IPv6 subnet %s needs", m, MinMTU6, s)
		}
	}
	return nil
}

func (n *Network) validateVTEPs(r *refusals) {
	const field = "spec.vteps"
	total := 0
	for _, v := range n.Spec.VTEPs {
		total += len(v.MACs)
	}
	if len(n.Spec.VTEPs) > MaxNetworkVTEPs || total > MaxVTEPMACs {
		r.add(Errorf(Invalid, field, "spread them over several networks", "%d VTEPs with %d MACs are more than %d with %d",
			len(n.Spec.VTEPs), total, MaxNetworkVTEPs, MaxVTEPMACs))
		return
	}
	names, macs := map[string]int{}, map[wire.MAC]string{}
	for i, v := range n.Spec.VTEPs {
		here := at(field, i)
		r.add(ValidateName(here+".vtep", v.VTEP))
		if j, dup := names[v.VTEP]; dup {
			r.add(Errorf(Invalid, here+".vtep", "list it once, with all its MACs", "VTEP %s is already %s", clip(v.VTEP), at(field, j)))
		} else {
			names[v.VTEP] = i
		}
		for j, m := range v.MACs {
			there := at(here+".macs", j)
			if e := validateMAC(there, m); e != nil {
				e.Fix = fixStatedMAC
				r.add(e)
			} else if was, dup := macs[m]; dup {
				r.add(Errorf(Invalid, there, "state it behind one VTEP only, once", "%s is already %s", m, was))
			} else {
				macs[m] = there
			}
		}
	}
}

// ValidateUpdate is Validate, and refuses a change of name, tenant, VNI or pool. Subnets, MTU, unknown unicast, DSCP, neighbours, BUM limit, learning, VTEPs and
// description may change; ValidateWith says whether the network's ports allow it.
func (n *Network) ValidateUpdate(old *Network) error {
	var r refusals
	r.add(same("name", n.Name, old.Name, fixRecreate))
	r.add(same("tenant", n.Tenant, old.Tenant, fixRecreate))
	// Pinning the VNI that was allocated, or no longer pinning it, changes nothing.
	if v := n.Spec.VNI; v != 0 && v != old.Alloc.VNI {
		r.add(same("spec.vni", v, max(old.Spec.VNI, old.Alloc.VNI), fixRecreate))
	}
	if n.Spec.VNI == 0 {
		r.add(same("spec.vni_pool", PoolOf(n), PoolOf(old), fixRecreate))
	}
	if len(r) > 0 {
		return r.err()
	}
	return n.Validate()
}

// ValidateWith reports which of the network's ports the network as it is now would leave without a subnet, or with a MAC
// that is stated to be behind an external VTEP. It goes with ValidateUpdate.
func (n *Network) ValidateWith(ports iter.Seq[*Port]) error {
	behind := n.macsBehindVTEPs()
	for p := range ports {
		for _, ip := range p.Alloc.IPs {
			s, ok := subnetOf(n.Spec.Subnets, ip.Addr())
			if !ok {
				return Errorf(Conflict, "spec.subnets", "keep the subnet, or change or delete the port first",
					"port %s has the address %s, which would be in no subnet", p.Name, ip.Addr())
			}
			if what := unusable(s, ip.Addr()); what != "" {
				return Errorf(Conflict, "spec.subnets", "choose another prefix length, or change or delete the port first",
					"port %s has the address %s, which would be %s of %s", p.Name, ip.Addr(), what, s)
			}
			if s.Bits() != ip.Bits() {
				return Errorf(Conflict, "spec.subnets", "keep the prefix length and add a further subnet, or delete the port first",
					"port %s holds %s, which would no longer be the length of its subnet %s", p.Name, ip, s)
			}
		}
		for _, m := range p.Alloc.MACs {
			if v, ok := behind[m]; ok {
				return Errorf(Conflict, "spec.vteps", "leave that MAC out, or change or delete the port first",
					"%s is stated to be behind VTEP %s and belongs to port %s", m, v, p.Name)
			}
		}
	}
	return nil
}

// macsBehindVTEPs says which external VTEP each stated MAC is behind.
func (n *Network) macsBehindVTEPs() map[wire.MAC]string {
	macs := map[wire.MAC]string{}
	for _, v := range n.Spec.VTEPs {
		for _, m := range v.MACs {
			macs[m] = v.VTEP
		}
	}
	return macs
}

// EffectiveUnknownUnicast is the setting, or else the default.
func (s NetworkSpec) EffectiveUnknownUnicast() UnknownUnicast {
	if s.UnknownUnicast == "" {
		return UnknownUnicastExternal
	}
	return s.UnknownUnicast
}

func list(subnets []netip.Prefix) string {
	var b strings.Builder
	for i, s := range subnets {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(s.String())
	}
	return b.String()
}
