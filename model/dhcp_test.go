package model

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestValidateDHCP: each mistake is named by its field, with what to do. Red when validateDHCP leaves a check out.
func TestValidateDHCP(t *testing.T) {
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	good := func() *Network {
		return &Network{Tenant: "acme", Name: "blue", Spec: NetworkSpec{Subnets: []netip.Prefix{prefix("10.1.0.0/24"), prefix("10.2.0.0/24"), prefix("fd00:1::/64")},
			DHCP: &DHCP{Gateways: []netip.Addr{addr("10.1.0.1"), addr("10.2.0.1"), addr("fe80::1")}, DNSServers: []netip.Addr{addr("10.1.0.53"), addr("2001:db8::53")},
				Domain: "corp.example.org", Routes: []Route{{prefix("10.9.0.0/16"), addr("10.1.0.9")}}, LeaseTime: time.Hour}}}
	}
	if err := good().Validate(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		field, reason string
		edit          func(*DHCP)
	}{
		{"spec.dhcp.gateways[0]", "outside the subnets", func(d *DHCP) { d.Gateways[0] = addr("10.3.0.1") }},
		{"spec.dhcp.gateways[0]", "the network address", func(d *DHCP) { d.Gateways[0] = addr("10.1.0.0") }},
		{"spec.dhcp.gateways[0]", "the broadcast address", func(d *DHCP) { d.Gateways[0] = addr("10.1.0.255") }},
		{"spec.dhcp.gateways[1]", "a second gateway", func(d *DHCP) { d.Gateways[1] = addr("10.1.0.2") }},
		{"spec.dhcp.gateways[2]", "not link-local", func(d *DHCP) { d.Gateways[2] = addr("fd00:1::1") }},
		{"spec.dhcp.gateways[3]", "a second gateway", func(d *DHCP) { d.Gateways = append(d.Gateways, addr("fe80::2")) }},
		{"spec.dhcp.dns_servers[1]", "multicast", func(d *DHCP) { d.DNSServers[1] = addr("ff02::1") }},
		{"spec.dhcp.dns_servers[1]", "already", func(d *DHCP) { d.DNSServers[1] = d.DNSServers[0] }},
		{"spec.dhcp.dns_servers", "more than 8", func(d *DHCP) { d.DNSServers = make([]netip.Addr, 9) }},
		{"spec.dhcp.domain", "not a domain name", func(d *DHCP) { d.Domain = "corp..org" }},
		{"spec.dhcp.domain", "not a domain name", func(d *DHCP) { d.Domain = "Corp.org" }},
		{"spec.dhcp.domain", "more than 253", func(d *DHCP) { d.Domain = strings.Repeat("a.", 130) + "b" }},
		{"spec.dhcp.routes[0].prefix", "host bits", func(d *DHCP) { d.Routes[0].Prefix = prefix("10.9.0.1/16") }},
		{"spec.dhcp.routes[0].prefix", "the default route", func(d *DHCP) { d.Routes[0].Prefix = prefix("0.0.0.0/0") }},
		{"spec.dhcp.routes[0].prefix", "an IPv6 prefix", func(d *DHCP) { d.Routes[0].Prefix = prefix("2001:db8::/32") }},
		{"spec.dhcp.routes[0].gateway", "outside the subnets", func(d *DHCP) { d.Routes[0].Gateway = addr("10.3.0.1") }},
		{"spec.dhcp.routes[1].prefix", "already", func(d *DHCP) { d.Routes = append(d.Routes, d.Routes[0]) }},
		{"spec.dhcp.routes", "more than 20", func(d *DHCP) { d.Routes = make([]Route, 21) }},
		{"spec.dhcp.lease_time", "no lease time", func(d *DHCP) { d.LeaseTime = time.Second }},
		{"spec.dhcp.lease_time", "no lease time", func(d *DHCP) { d.LeaseTime = time.Hour + time.Millisecond }},
	} {
		n := good()
		c.edit(n.Spec.DHCP)
		found := false
		for _, e := range Errors(n.Validate()) {
			found = found || e.Field == c.field && strings.Contains(e.Reason, c.reason) && e.Fix != ""
		}
		if !found {
			t.Errorf("want %s: ...%s...; got %v", c.field, c.reason, n.Validate())
		}
	}
}

// TestGatewayIsKeptBack: no port is given a gateway's address, one that asks for it gets it, and nobody gets the DHCP server's.
func TestGatewayIsKeptBack(t *testing.T) {
	n := &Network{Meta: Meta{UID: "n1"}, Tenant: "acme", Name: "blue", Spec: NetworkSpec{Subnets: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")},
		DHCP: &DHCP{Gateways: []netip.Addr{netip.MustParseAddr("10.1.0.2")}}}}
	none := func(netip.Addr) bool { return false }
	p := &Port{Meta: Meta{UID: "p1"}, Tenant: "acme", Name: "web1", Spec: PortSpec{Network: "blue"}}
	ips, err := allocateIPs(p, n, nil, none)
	if err != nil || ips[0].String() != "10.1.0.3/24" {
		t.Errorf("the port gets %v, %v", ips, err)
	}
	p.Spec.IPs = []netip.Addr{netip.MustParseAddr("10.1.0.2")}
	if ips, err = allocateIPs(p, n, nil, none); err != nil || ips[0].String() != "10.1.0.2/24" {
		t.Errorf("the router gets %v, %v", ips, err)
	}
	n.Spec.Subnets, n.Spec.DHCP = []netip.Prefix{netip.MustParsePrefix("169.254.73.0/24")}, nil
	p.Spec.IPs = []netip.Addr{netip.MustParseAddr("169.254.73.48")}
	if err := p.ValidateIn(n); err == nil {
		t.Error("a port may have the DHCP server's address")
	}
}

// TestEffectiveDHCP: on where there are addresses, unless it is disabled.
func TestEffectiveDHCP(t *testing.T) {
	with := NetworkSpec{Subnets: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}}
	if d := with.EffectiveDHCP(); d == nil || d.LeaseTime != DefaultLease || len(d.Gateways) > 0 {
		t.Errorf("the default is %+v", d)
	}
	with.DHCP = &DHCP{Disabled: true}
	if with.EffectiveDHCP() != nil || (NetworkSpec{DHCP: &DHCP{}}).EffectiveDHCP() != nil {
		t.Error("it is on where it cannot be, or is disabled")
	}
}
