package model

import (
	"net/netip"

	"github.com/weftnet/weft/wire"
)

// Limits of a port.
const (
	// MaxPortMACs of one port.
	MaxPortMACs = 16
	// MaxPortIPs of one port.
	MaxPortIPs = 64
	// MaxAddressPairs of one port.
	MaxAddressPairs = 64
)

// Validate reports everything that is wrong with the port in itself.
func (p *Port) Validate() error {
	var r refusals
	r.add(ValidateName("name", p.Name))
	r.add(ValidateName("tenant", p.Tenant))
	r.add(ValidateName("spec.network", p.Spec.Network))
	p.validateMACs(&r)
	p.validateIPs(&r)
	p.validatePairs(&r)
	switch p.Spec.FastPath {
	case "", FastPathNone, FastPathXDP:
	default:
		r.add(Errorf(Invalid, "spec.fast_path", "choose xdp or none", "%q is not a setting", clip(string(p.Spec.FastPath))))
	}
	if p.Spec.Hostname != "" {
		r.add(ValidateName("spec.hostname", p.Spec.Hostname))
	}
	r.add(validateBUM(p.Spec.BUMLimit))
	r.add(validateDescription(p.Spec.Description))
	return r.err()
}

func (p *Port) validateMACs(r *refusals) {
	const field = "spec.macs"
	if n := len(p.Spec.MACs); n > MaxPortMACs {
		r.add(Errorf(Invalid, field, "use several ports, or let the port send from any MAC (unguarded)",
			"%d MACs are more than %d", n, MaxPortMACs))
		return
	}
	seen := map[wire.MAC]int{}
	for i, m := range p.Spec.MACs {
		if e := validateMAC(at(field, i), m); e != nil {
			r.add(e)
		} else if j, dup := seen[m]; dup {
			r.add(Errorf(Invalid, at(field, i), "state it once", "%s is already %s", m, at(field, j)))
		} else {
			seen[m] = i
		}
	}
}

func (p *Port) validateIPs(r *refusals) {
	const field = "spec.ips"
	if n := len(p.Spec.IPs); n > MaxPortIPs {
		r.add(Errorf(Invalid, field, "use several ports", "%d addresses are more than %d", n, MaxPortIPs))
		return
	}
	seen := map[netip.Addr]int{}
	for i, a := range p.Spec.IPs {
		if e := validateUnicast(at(field, i), a); e != nil {
			r.add(e)
		} else if j, dup := seen[a]; dup {
			r.add(Errorf(Invalid, at(field, i), "state it once", "%s is already %s", a, at(field, j)))
		} else {
			seen[a] = i
		}
	}
}

func (p *Port) validatePairs(r *refusals) {
	const field = "spec.allowed_address_pairs"
	if n := len(p.Spec.AllowedAddressPairs); n > MaxAddressPairs {
		r.add(Errorf(Invalid, field, "let the port send from any MAC (unguarded)", "%d pairs are more than %d", n, MaxAddressPairs))
		return
	}
	seen := map[AddressPair]int{}
	for i, pair := range p.Spec.AllowedAddressPairs {
		here := at(field, i)
		if e := validateMAC(here+".mac", pair.MAC); e != nil {
			e.Fix = fixStatedMAC
			r.add(e)
		}
		if pair.IP.IsValid() {
			r.add(validateUnicast(here+".ip", pair.IP))
		}
		if j, dup := seen[pair]; dup {
			r.add(Errorf(Invalid, here, "state it once", "it is the same as %s", at(field, j)))
		} else {
			seen[pair] = i
		}
	}
}

// ValidateUpdate is Validate, and refuses a change of name, tenant or network. MACs, IPs, pairs, the guards and the
// description may change.
func (p *Port) ValidateUpdate(old *Port) error {
	var r refusals
	r.add(same("name", p.Name, old.Name, fixRecreate))
	r.add(same("tenant", p.Tenant, old.Tenant, fixRecreate))
	r.add(same("spec.network", p.Spec.Network, old.Spec.Network, fixRecreate))
	if len(r) > 0 {
		return r.err()
	}
	return p.Validate()
}

// ValidateIn reports what of the port's spec does not fit its network.
func (p *Port) ValidateIn(n *Network) error {
	if p.Tenant != n.Tenant || p.Spec.Network != n.Name {
		return Errorf(Invalid, "spec.network", "name a network of the port's own tenant",
			"port %s/%s is not of network %s/%s", p.Tenant, p.Name, n.Tenant, n.Name)
	}
	var r refusals
	behind := n.macsBehindVTEPs()
	for i, m := range p.Spec.MACs {
		if v, ok := behind[m]; ok {
			r.add(Errorf(Taken, at("spec.macs", i), "choose another, or take it away from that VTEP",
				"%s is stated to be behind VTEP %s in network %s", m, v, n.Name))
		}
	}
	for i, a := range p.Spec.IPs {
		r.add(placeIn(n, at("spec.ips", i), a))
	}
	return r.err()
}

// placeIn refuses an address that is in none of the network's subnets, or not one that a port can have.
func placeIn(n *Network, field string, a netip.Addr) *Error {
	if len(n.Spec.Subnets) == 0 {
		return Errorf(Invalid, field, "leave the address out, or add a subnet to the network",
			"%s is in no subnet: network %s has none", a, n.Name)
	}
	if a == wire.DHCPServer4 {
		return Errorf(Invalid, field, "choose another address", "%s is the DHCP server's, in every network", a)
	}
	s, ok := subnetOf(n.Spec.Subnets, a)
	if !ok {
		return Errorf(Invalid, field, "choose one within "+list(n.Spec.Subnets)+", or leave it out to have one allocated",
			"%s is outside the subnets of network %s", a, n.Name)
	}
	if what := unusable(s, a); what != "" {
		return Errorf(Invalid, field, "choose another address of "+s.String(), "%s is %s of %s", a, what, s)
	}
	return nil
}
