package model

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/weftnet/weft/wire"
)

// Limits of what a network tells its workloads: together they fit a DHCP message, and the routes fit their option (RFC 3442).
const (
	// MaxDNSServers of one network.
	MaxDNSServers = 8
	// MaxRoutes of one network.
	MaxRoutes = 20
	// MaxDomain is the length of a domain name as it is written (RFC 1035, section 2.3.4).
	MaxDomain = 253
	// MinLease and MaxLease bound the time that an address is leased for.
	MinLease, MaxLease = time.Minute, 365 * 24 * time.Hour
	// DefaultLease is long enough for an agent to be away for half a day before a workload asks in vain.
	DefaultLease = 24 * time.Hour
)

// DHCP is what the hosts tell a network's workloads of it.
type DHCP struct {
	// Disabled: nothing is answered.
	Disabled bool `json:"disabled,omitempty"`
	// Gateways are at most one of each IPv4 subnet and one link-local IPv6 address. None: there is no router.
	Gateways   []netip.Addr  `json:"gateways,omitempty"`
	DNSServers []netip.Addr  `json:"dns_servers,omitempty"`
	Domain     string        `json:"domain,omitempty"`
	Routes     []Route       `json:"routes,omitempty"`
	LeaseTime  time.Duration `json:"lease_time,omitempty"`
}

// Route is a static route that workloads are told of.
type Route struct {
	Prefix  netip.Prefix `json:"prefix"`
	Gateway netip.Addr   `json:"gateway"`
}

// EffectiveDHCP is what the network tells its workloads, or nil if nothing: that of one with subnets, unless it is disabled.
func (s NetworkSpec) EffectiveDHCP() *DHCP {
	if len(s.Subnets) == 0 || s.DHCP != nil && s.DHCP.Disabled {
		return nil
	}
	d := DHCP{}
	if s.DHCP != nil {
		d = *s.DHCP
	}
	if d.LeaseTime == 0 {
		d.LeaseTime = DefaultLease
	}
	return &d
}

// keepsBack reports whether an address is not to be allocated to a port: a gateway's, which a port may have that asks for it.
func (s NetworkSpec) keepsBack(a netip.Addr) bool {
	return a == wire.DHCPServer4 || s.DHCP != nil && slices.Contains(s.DHCP.Gateways, a)
}

func (n *Network) validateDHCP(r *refusals) {
	d := n.Spec.DHCP
	if d == nil {
		return
	}
	n.validateGateways(r, d.Gateways)
	validateDNSServers(r, d.DNSServers)
	r.add(validateDomain("spec.dhcp.domain", d.Domain))
	n.validateRoutes(r, d.Routes)
	if t := d.LeaseTime; t != 0 && (t < MinLease || t > MaxLease || t%time.Second != 0) {
		r.add(Errorf(Invalid, "spec.dhcp.lease_time", "choose whole seconds from 1m to 8760h (a year), or leave it out for a day",
			"%s is no lease time", t))
	}
}

func (n *Network) validateGateways(r *refusals, gateways []netip.Addr) {
	const field = "spec.dhcp.gateways"
	if len(gateways) > MaxSubnets+1 {
		r.add(Errorf(Invalid, field, "state one of each IPv4 subnet, and one link-local IPv6 address", "%d gateways are more than %d",
			len(gateways), MaxSubnets+1))
		return
	}
	of := map[netip.Prefix]int{}
	for i, g := range gateways {
		here := at(field, i)
		if e := validateUnicast(here, g); e != nil {
			r.add(e)
			continue
		}
		s := netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		if g.Is6() {
			if !g.IsLinkLocalUnicast() {
				r.add(Errorf(Invalid, here, "state the router's link-local address, such as fe80::1",
					"%s is not link-local, and IPv6 routers are known by that address alone (RFC 4861, section 4.2)", g))
				continue
			}
		} else if s = n.onSubnet(r, here, g); !s.IsValid() {
			continue
		}
		if j, dup := of[s]; dup {
			r.add(Errorf(Invalid, here, "leave one of them out", "%s is a second gateway beside %s", g, at(field, j)))
			continue
		}
		of[s] = i
	}
}

// onSubnet is the IPv4 subnet of a router, or invalid, and then a refusal is added.
func (n *Network) onSubnet(r *refusals, field string, g netip.Addr) netip.Prefix {
	s, ok := subnetOf(n.Spec.Subnets, g)
	if !ok {
		fix := "add an IPv4 subnet to the network first"
		if len(n.Spec.Subnets) > 0 {
			fix = "choose an address within " + list(n.Spec.Subnets)
		}
		r.add(Errorf(Invalid, field, fix, "%s is outside the subnets of the network", g))
		return netip.Prefix{}
	}
	if what := unusable(s, g); what != "" {
		r.add(Errorf(Invalid, field, "choose another address of "+s.String(), "%s is %s of %s", g, what, s))
		return netip.Prefix{}
	}
	return s
}

func validateDNSServers(r *refusals, servers []netip.Addr) {
	const field = "spec.dhcp.dns_servers"
	if len(servers) > MaxDNSServers {
		r.add(Errorf(Invalid, field, "keep the best of them: most systems ask three at most", "%d DNS servers are more than %d",
			len(servers), MaxDNSServers))
		return
	}
	for i, a := range servers {
		if e := validateUnicast(at(field, i), a); e != nil {
			r.add(e)
		} else if j := slices.Index(servers[:i], a); j >= 0 {
			r.add(Errorf(Invalid, at(field, i), "state it once", "%s is already %s", a, at(field, j)))
		}
	}
}

func validateDomain(field, d string) *Error {
	const fix = "write it as corp.example.org: labels of lower-case letters, digits and hyphens"
	if d == "" {
		return nil
	}
	if len(d) > MaxDomain {
		return Errorf(Invalid, field, fix, "%q has %d characters, more than %d", clip(d), len(d), MaxDomain)
	}
	for label := range strings.SplitSeq(d, ".") {
		if e := ValidateName(field, label); e != nil {
			return Errorf(Invalid, field, fix, "%q is not a domain name: %s", clip(d), e.Reason)
		}
	}
	return nil
}

func (n *Network) validateRoutes(r *refusals, routes []Route) {
	const field = "spec.dhcp.routes"
	if len(routes) > MaxRoutes {
		r.add(Errorf(Invalid, field, "join them, or let the gateway have them", "%d routes are more than %d", len(routes), MaxRoutes))
		return
	}
	for i, t := range routes {
		here := at(field, i)
		if !n.validateRoute(r, here, t) {
			continue
		}
		if j := slices.IndexFunc(routes[:i], func(o Route) bool { return o.Prefix == t.Prefix }); j >= 0 {
			r.add(Errorf(Invalid, here+".prefix", "leave one of them out", "%s is already %s", t.Prefix, at(field, j)))
		}
	}
}

func (n *Network) validateRoute(r *refusals, here string, t Route) bool {
	const fix = "write it as 10.9.0.0/16"
	switch p := t.Prefix; {
	case !p.IsValid():
		r.add(Errorf(Invalid, here+".prefix", fix, "a prefix is needed"))
	case !p.Addr().Is4():
		r.add(Errorf(Invalid, here+".prefix", "let the IPv6 router advertise it", "%s is an IPv6 prefix, and DHCPv6 has no routes", p))
	case p.Masked() != p:
		r.add(Errorf(Invalid, here+".prefix", "write "+p.Masked().String(), "%s has host bits set", p))
	case p.Bits() == 0:
		r.add(Errorf(Invalid, here+".prefix", "state its router in spec.dhcp.gateways", "%s is the default route", p))
	case !t.Gateway.IsValid() || !t.Gateway.Is4():
		r.add(Errorf(Invalid, here+".gateway", "state an IPv4 address in one of the network's subnets", "the route needs a router"))
	default:
		return n.onSubnet(r, here+".gateway", t.Gateway).IsValid()
	}
	return false
}
