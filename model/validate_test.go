package model

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/weftnet/weft/wire"
)

func addrs(s ...string) (all []netip.Addr) {
	for _, one := range s {
		all = append(all, netip.MustParseAddr(one))
	}
	return all
}

func prefixes(s ...string) (all []netip.Prefix) {
	for _, one := range s {
		all = append(all, netip.MustParsePrefix(one))
	}
	return all
}

func macs(s ...string) (all []wire.MAC) {
	for _, one := range s {
		m, err := wire.ParseMAC(one)
		if err != nil {
			panic(err)
		}
		all = append(all, m)
	}
	return all
}

// refused fails unless err is exactly the refusals wanted, each "field: words of the reason"; none if want is empty. Every
// refusal has to say what to do.
func refused(t *testing.T, err error, want ...string) {
	t.Helper()
	got := Errors(err)
	if err != nil && len(got) == 0 {
		t.Fatalf("not a refusal that names a field: %v", err)
	}
	if len(got) != len(want) {
		t.Fatalf("%d refusals, want %d: %v", len(got), len(want), err)
	}
	for i, e := range got {
		field, reason, _ := strings.Cut(want[i], ": ")
		if e.Field != field || !strings.Contains(e.Reason, reason) {
			t.Errorf("refusal %q: %q, want %q: ...%s...", e.Field, e.Reason, field, reason)
		}
		if e.Fix == "" || e.Kind == "" {
			t.Errorf("%v says not what to do, or is of no kind", e)
		}
	}
}

func TestValidateName(t *testing.T) {
	for _, good := range []string{"a", "0", "web1", "a-b", "a--b", "xn--a", strings.Repeat("a", 63)} {
		if e := ValidateName("name", good); e != nil {
			t.Errorf("%q: %v", good, e)
		}
	}
	for bad, why := range map[string]string{
		"": "a name is needed", strings.Repeat("a", 64): "64 characters", "-a": "hyphen", "a-": "hyphen", "-": "hyphen",
		"Web": "'W'", "a.b": "'.'", "a_b": "'_'", "a b": "' '", "ä": "'ä'", "a/b": "'/'", "a\x00": `'\x00'`, "a\n": `'\n'`, "a\xff": `'�'`,
	} {
		if e := ValidateName("name", bad); e == nil {
			t.Errorf("%q passes", bad)
		} else {
			refused(t, e, "name: "+why)
		}
	}
	if e := ValidateName("name", strings.Repeat("ä", 5000)); e == nil || len(e.Error()) > 400 {
		t.Errorf("a hostile name fills the message: %d octets", len(e.Error()))
	}
}

func TestValidateNetwork(t *testing.T) {
	for _, c := range []struct {
		name string
		spec NetworkSpec
		want []string
	}{
		{"nothing stated", NetworkSpec{}, nil},
		{"everything stated", NetworkSpec{VNI: 5001, Subnets: prefixes("10.1.0.0/24", "fd00:1::/64", "10.1.1.0/30", "fd00:2::/126"),
			MTU: 1400, UnknownUnicast: UnknownUnicastFlood, DSCP: DSCPUniform, VTEPs: []NetworkVTEP{{VTEP: "ext1", MACs: macs("02:00:00:00:00:01")}, {VTEP: "ext2"}},
			Description: "für alle"}, nil},
		{"largest VNI", NetworkSpec{VNI: 16777215}, nil},
		{"VNI too large", NetworkSpec{VNI: 16777216}, []string{"spec.vni: VNI 16777216 is outside 1..16777215"}},
		{"pinned VNI and a pool", NetworkSpec{VNI: 7, VNIPool: "p"}, []string{"spec.vni_pool: pinned"}},
		{"name of the pool", NetworkSpec{VNIPool: "P"}, []string{"spec.vni_pool: 'P'"}},

		{"host bits", NetworkSpec{Subnets: prefixes("10.1.0.0/24", "10.2.0.5/24")}, []string{"spec.subnets[1]: 10.2.0.5/24 is an address within 10.2.0.0/24"}},
		{"host bits of IPv6", NetworkSpec{Subnets: prefixes("fd00::1/64")}, []string{"spec.subnets[0]: host bits"}},
		{"one host", NetworkSpec{Subnets: prefixes("10.1.0.5/32")}, []string{"spec.subnets[0]: single address"}},
		{"one host of IPv6", NetworkSpec{Subnets: prefixes("fd00::5/128")}, []string{"spec.subnets[0]: single address"}},
		{"no room", NetworkSpec{Subnets: prefixes("10.1.0.4/31", "fd00::4/127")},
			[]string{"spec.subnets[0]: no room", "spec.subnets[1]: no room"}},
		{"not there", NetworkSpec{Subnets: make([]netip.Prefix, 1)}, []string{"spec.subnets[0]: needed"}},
		{"IPv4 in IPv6", NetworkSpec{Subnets: []netip.Prefix{netip.PrefixFrom(netip.MustParseAddr("::ffff:10.0.0.0"), 120)}},
			[]string{"spec.subnets[0]: IPv4 prefix in IPv6 form"}},
		{"multicast", NetworkSpec{Subnets: prefixes("224.0.0.0/24", "ff05::/64")}, []string{"spec.subnets[0]: multicast", "spec.subnets[1]: multicast"}},
		{"everything there is", NetworkSpec{Subnets: prefixes("0.0.0.0/0", "::/0")}, []string{"spec.subnets[0]: 0.0.0.0/8", "spec.subnets[1]: ::/127"}},
		{"loopback", NetworkSpec{Subnets: prefixes("127.1.0.0/16")}, []string{"spec.subnets[0]: loopback"}},
		{"link-local", NetworkSpec{Subnets: prefixes("fe80::/64")}, []string{"spec.subnets[0]: link-local"}},
		{"overlapping", NetworkSpec{Subnets: prefixes("10.1.0.0/16", "fd00::/64", "10.1.7.0/24")},
			[]string{"spec.subnets[2]: 10.1.7.0/24 overlaps 10.1.0.0/16, which is spec.subnets[0]"}},
		{"the same twice", NetworkSpec{Subnets: prefixes("fd00::/64", "fd00::/64")}, []string{"spec.subnets[1]: overlaps"}},
		{"too many", NetworkSpec{Subnets: make([]netip.Prefix, 65)}, []string{"spec.subnets: 65 subnets"}},

		{"MTU bounds", NetworkSpec{MTU: 576}, nil},
		{"MTU bounds", NetworkSpec{MTU: 65485}, nil},
		{"MTU too small", NetworkSpec{MTU: 575}, []string{"spec.mtu: MTU 575 is outside 576..65485"}},
		{"MTU too large", NetworkSpec{MTU: 65486}, []string{"spec.mtu: outside"}},
		{"MTU negative", NetworkSpec{MTU: -1}, []string{"spec.mtu: outside"}},
		{"MTU below IPv6", NetworkSpec{MTU: 1279, Subnets: prefixes("10.0.0.0/24", "fd00::/64")}, []string{"spec.mtu: 1280 that IPv6 subnet fd00::/64"}},
		{"MTU of IPv6", NetworkSpec{MTU: 1280, Subnets: prefixes("fd00::/64")}, nil},

		{"unknown unicast", NetworkSpec{UnknownUnicast: "maybe"}, []string{`spec.unknown_unicast: "maybe"`}},
		{"DSCP", NetworkSpec{DSCP: "Uniform"}, []string{`spec.dscp: "Uniform"`}},
		{"DSCP in words", NetworkSpec{DSCP: DSCPPipe}, nil},
		{"VTEP twice", NetworkSpec{VTEPs: []NetworkVTEP{{VTEP: "a"}, {VTEP: "b"}, {VTEP: "a"}}}, []string{"spec.vteps[2].vtep: already spec.vteps[0]"}},
		{"VTEP without a name", NetworkSpec{VTEPs: []NetworkVTEP{{}}}, []string{"spec.vteps[0].vtep: needed"}},
		{"MAC behind two", NetworkSpec{VTEPs: []NetworkVTEP{{VTEP: "a", MACs: macs("02:00:00:00:00:01")}, {VTEP: "b", MACs: macs("02:00:00:00:00:01")}}},
			[]string{"spec.vteps[1].macs[0]: already spec.vteps[0].macs[0]"}},
		{"MACs that are none", NetworkSpec{VTEPs: []NetworkVTEP{{VTEP: "a",
			MACs: macs("00:00:00:00:00:00", "01:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "02:6f:77:00:00:00")}}},
			[]string{"spec.vteps[0].macs[0]: not an address", "spec.vteps[0].macs[1]: multicast", "spec.vteps[0].macs[2]: broadcast",
				"spec.vteps[0].macs[3]: reserved"}},
		{"too many VTEPs", NetworkSpec{VTEPs: make([]NetworkVTEP, 257)}, []string{"spec.vteps: 257 VTEPs"}},
		{"too many MACs", NetworkSpec{VTEPs: []NetworkVTEP{{VTEP: "a", MACs: make([]wire.MAC, 16385)}}}, []string{"spec.vteps: 16385 MACs"}},

		{"control character", NetworkSpec{Description: "a\x1b[2J"}, []string{"spec.description: control"}},
		{"not UTF-8", NetworkSpec{Description: "\xff"}, []string{"spec.description: UTF-8"}},
		{"long description", NetworkSpec{Description: strings.Repeat("a", 1025)}, []string{"spec.description: 1025"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			refused(t, (&Network{Tenant: "t", Name: "n", Spec: c.spec}).Validate(), c.want...)
		})
	}
	refused(t, (&Network{Name: "N"}).Validate(), "name: 'N'", "tenant: needed")
}

func TestValidatePort(t *testing.T) {
	for _, c := range []struct {
		name string
		spec PortSpec
		want []string
	}{
		{"nothing stated", PortSpec{}, nil},
		{"everything stated", PortSpec{MACs: macs("02:00:00:00:00:01", "00:00:5e:00:01:01"), IPs: addrs("10.1.0.5", "fd00:1::5"), Unguarded: true,
			AllowedAddressPairs: []AddressPair{{MAC: macs("02:00:00:00:00:09")[0]}, {MAC: macs("02:00:00:00:00:09")[0], IP: addrs("10.1.0.9")[0]}}}, nil},
		{"MACs that are none", PortSpec{MACs: macs("00:00:00:00:00:00", "01:00:5e:00:00:01", "33:33:00:00:00:01", "ff:ff:ff:ff:ff:ff", "02:6f:77:ff:ff:ff")},
			[]string{"spec.macs[0]: not an address", "spec.macs[1]: multicast", "spec.macs[2]: multicast", "spec.macs[3]: broadcast", "spec.macs[4]: reserved"}},
		{"the same MAC twice", PortSpec{MACs: macs("02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:01")},
			[]string{"spec.macs[2]: already spec.macs[0]"}},
		{"too many MACs", PortSpec{MACs: make([]wire.MAC, 17)}, []string{"spec.macs: 17 MACs"}},
		{"the same IP twice", PortSpec{IPs: addrs("fd00:1::5", "fd00:1:0::0005")}, []string{"spec.ips[1]: already spec.ips[0]"}},
		{"IPs that are none", PortSpec{IPs: addrs("0.0.0.0", "::", "224.0.0.1", "ff02::1", "127.0.0.1", "::1", "255.255.255.255")},
			[]string{"spec.ips[0]: unspecified", "spec.ips[1]: unspecified", "spec.ips[2]: multicast", "spec.ips[3]: multicast", "spec.ips[4]: loopback",
				"spec.ips[5]: loopback", "spec.ips[6]: broadcast"}},
		{"IPv4 in IPv6", PortSpec{IPs: addrs("::ffff:10.1.0.5")}, []string{"spec.ips[0]: IPv4 address in IPv6 form"}},
		{"zone", PortSpec{IPs: addrs("fe80::1%eth0")}, []string{"spec.ips[0]: zone"}},
		{"not there", PortSpec{IPs: make([]netip.Addr, 1)}, []string{"spec.ips[0]: needed"}},
		{"too many IPs", PortSpec{IPs: make([]netip.Addr, 65)}, []string{"spec.ips: 65 addresses"}},
		{"pairs", PortSpec{AllowedAddressPairs: []AddressPair{{}, {MAC: macs("01:00:00:00:00:01")[0], IP: addrs("ff02::1")[0]}}},
			[]string{"spec.allowed_address_pairs[0].mac: not an address", "spec.allowed_address_pairs[1].mac: multicast",
				"spec.allowed_address_pairs[1].ip: multicast"}},
		{"the same pair twice", PortSpec{AllowedAddressPairs: slices.Repeat([]AddressPair{{MAC: macs("02:00:00:00:00:01")[0]}}, 2)},
			[]string{"spec.allowed_address_pairs[1]: same as spec.allowed_address_pairs[0]"}},
		{"too many pairs", PortSpec{AllowedAddressPairs: make([]AddressPair, 65)}, []string{"spec.allowed_address_pairs: 65 pairs"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.spec.Network = "blue"
			refused(t, (&Port{Tenant: "t", Name: "p", Spec: c.spec}).Validate(), c.want...)
		})
	}
	refused(t, (&Port{}).Validate(), "name: needed", "tenant: needed", "spec.network: needed")
}

func TestValidatePortIn(t *testing.T) {
	n := &Network{Meta: Meta{UID: "n"}, Tenant: "t", Name: "blue", Spec: NetworkSpec{Subnets: prefixes("10.1.0.0/24", "fd00:1::/64"),
		VTEPs: []NetworkVTEP{{VTEP: "ext1", MACs: macs("02:00:00:00:00:09")}}}}
	for _, c := range []struct {
		name string
		spec PortSpec
		want []string
	}{
		{"inside", PortSpec{IPs: addrs("10.1.0.1", "10.1.0.254", "fd00:1::1", "fd00:1::ffff:ffff:ffff:ffff")}, nil},
		{"outside", PortSpec{IPs: addrs("10.1.1.1", "fd00:2::1")}, []string{"spec.ips[0]: 10.1.1.1 is outside the subnets of network blue", "spec.ips[1]: outside"}},
		{"network address", PortSpec{IPs: addrs("10.1.0.0")}, []string{"spec.ips[0]: network address of 10.1.0.0/24"}},
		{"broadcast address", PortSpec{IPs: addrs("10.1.0.255")}, []string{"spec.ips[0]: broadcast address of 10.1.0.0/24"}},
		{"anycast address", PortSpec{IPs: addrs("fd00:1::")}, []string{"spec.ips[0]: anycast"}},
		{"MAC behind a VTEP", PortSpec{MACs: macs("02:00:00:00:00:09")}, []string{"spec.macs[0]: behind VTEP ext1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.spec.Network = "blue"
			refused(t, (&Port{Tenant: "t", Name: "p", Spec: c.spec}).ValidateIn(n), c.want...)
		})
	}
	bare := &Network{Tenant: "t", Name: "blue"}
	refused(t, (&Port{Tenant: "t", Spec: PortSpec{Network: "blue", IPs: addrs("10.1.0.5")}}).ValidateIn(bare), "spec.ips[0]: has none")
	refused(t, (&Port{Tenant: "u", Spec: PortSpec{Network: "blue"}}).ValidateIn(n), "spec.network: not of network")
	refused(t, (&Port{Tenant: "t", Spec: PortSpec{Network: "red"}}).ValidateIn(n), "spec.network: not of network")
}

func TestValidateVTEP(t *testing.T) {
	for address, why := range map[string]string{
		"192.0.2.9": "", "2001:db8::9": "", "169.254.1.1": "", "224.0.0.1": "multicast", "ff05::1": "multicast", "0.0.0.0": "unspecified",
		"::": "unspecified", "127.0.0.1": "loopback", "::1": "loopback", "255.255.255.255": "broadcast", "fe80::1": "link-local",
		"fe80::1%eth0": "zone", "::ffff:192.0.2.9": "IPv6 form",
	} {
		v := &VTEP{Name: "ext1", Spec: VTEPSpec{Address: netip.MustParseAddr(address)}}
		var want []string
		if why != "" {
			want = []string{"spec.address: " + why}
		}
		refused(t, v.Validate(), want...)
	}
	refused(t, (&VTEP{}).Validate(), "name: needed", "spec.address: needed")
	if got := (VTEPSpec{}).EffectiveUDPPort(); got != 4789 {
		t.Errorf("the default UDP port is %d", got)
	}
	if got := (VTEPSpec{UDPPort: 8472}).EffectiveUDPPort(); got != 8472 {
		t.Errorf("a stated UDP port becomes %d", got)
	}
}

func TestValidatePool(t *testing.T) {
	for _, c := range []struct {
		first, last wire.VNI
		want        []string
	}{
		{1, wire.MaxVNI, nil}, {7, 7, nil},
		{0, 5, []string{"spec.first: VNI 0"}}, {5, wire.MaxVNI + 1, []string{"spec.last: outside"}},
		{9, 8, []string{"spec.last: 9..8 is empty"}}, {0, 0, []string{"spec.first: VNI 0", "spec.last: VNI 0"}},
	} {
		refused(t, (&VNIPool{Name: "p", Spec: VNIPoolSpec{First: c.first, Last: c.last}}).Validate(), c.want...)
	}
	refused(t, (&VNIPool{Name: DefaultPool, Spec: DefaultPoolSpec}).Validate())
}

func TestValidateOthers(t *testing.T) {
	refused(t, (&Tenant{Name: "acme"}).Validate())
	refused(t, (&Tenant{Name: "ACME", Spec: TenantSpec{Description: "\n"}}).Validate(), "name: 'A'", "spec.description: control")
	refused(t, (&Host{Name: "h1"}).Validate())
	refused(t, (&Host{Name: "h1.example.org"}).Validate(), "name: '.'")
	refused(t, (&APIToken{Name: "a", Scope: ScopeAdmin}).Validate())
	refused(t, (&APIToken{Name: "a", Scope: ScopeTenant, Tenant: "t"}).Validate())
	refused(t, (&APIToken{Name: "a", Scope: ScopeReadOnly}).Validate())
	refused(t, (&APIToken{Name: "a", Scope: ScopeAdmin, Tenant: "t"}).Validate(), "tenant: not of one tenant")
	refused(t, (&APIToken{Name: "a", Scope: ScopeTenant}).Validate(), "tenant: needed")
	refused(t, (&APIToken{Name: "a", Scope: "root"}).Validate(), `scope: "root"`)
	refused(t, (&APIToken{Scope: ScopeReadOnly, Tenant: "T"}).Validate(), "name: needed", "tenant: 'T'")
	refused(t, (&JoinToken{}).Validate(), "host: needed", "expires: has to expire")
}

func TestValidateHostFacts(t *testing.T) {
	good := HostFacts{Host: "h", VTEPAddresses: addrs("192.0.2.1", "2001:db8::1"), UDPPort: 4789, UplinkMTU: 1500, Uplink: "eth0"}
	refused(t, good.Validate())
	refused(t, (&HostFacts{}).Validate(), "host: needed", "vtep_addresses: needed", "udp_port: needed", "uplink_mtu: 0 is outside")
	bad := good
	bad.VTEPAddresses = addrs("192.0.2.1", "127.0.0.1", "192.0.2.2")
	bad.Uplink = "eth\x00"
	refused(t, bad.Validate(), "vtep_addresses[1]: loopback", "vtep_addresses[2]: second one beside 192.0.2.1", "uplink: control")
}

func TestValidateUpdateNamesWhatIsImmutable(t *testing.T) {
	n := &Network{Tenant: "t", Name: "n", Spec: NetworkSpec{MTU: 1400}, Alloc: NetworkAlloc{VNI: 5000}}
	with := func(change func(*Network)) *Network {
		m := *n
		change(&m)
		return &m
	}
	refused(t, with(func(m *Network) {
		m.Spec = NetworkSpec{MTU: 1500, Subnets: prefixes("10.0.0.0/24"), UnknownUnicast: UnknownUnicastDrop, DSCP: DSCPUniform,
			VTEPs: []NetworkVTEP{{VTEP: "a"}}}
	}).ValidateUpdate(n))
	refused(t, with(func(m *Network) { m.Spec.VNI = 5000 }).ValidateUpdate(n))
	refused(t, with(func(m *Network) { m.Spec.VNIPool = DefaultPool }).ValidateUpdate(n))
	refused(t, with(func(m *Network) { m.Spec.VNI = 5001 }).ValidateUpdate(n), "spec.vni: from 5000 to 5001")
	refused(t, with(func(m *Network) { m.Spec.VNIPool = "other" }).ValidateUpdate(n), "spec.vni_pool: from default to other")
	refused(t, with(func(m *Network) { m.Name, m.Tenant = "m", "u" }).ValidateUpdate(n), "name: from n to m", "tenant: from t to u")
	refused(t, with(func(m *Network) { m.Spec.MTU = 1 }).ValidateUpdate(n), "spec.mtu: outside")

	p := &Port{Tenant: "t", Name: "p", Spec: PortSpec{Network: "n"}}
	q := *p
	q.Spec = PortSpec{Network: "n", MACs: macs("02:00:00:00:00:01"), IPs: addrs("10.0.0.5"), Unguarded: true, Forwarding: true, FastPath: FastPathXDP}
	refused(t, q.ValidateUpdate(p))
	q.Spec.FastPath = "XDP"
	refused(t, q.ValidateUpdate(p), `spec.fast_path: "XDP"`)
	q.Spec.FastPath, q.Spec.Network = "", "m"
	refused(t, q.ValidateUpdate(p), "spec.network: from n to m")
	q = *p
	q.Name, q.Tenant = "", "u"
	refused(t, q.ValidateUpdate(p), "name: from p to nothing", "tenant: from t to u")
	q = *p
	q.Spec.MACs = make([]wire.MAC, 1)
	refused(t, q.ValidateUpdate(p), "spec.macs[0]: not an address")

	refused(t, (&Tenant{Name: "a"}).ValidateUpdate(&Tenant{Name: "b"}), "name: from b to a")
	refused(t, (&Host{Name: "a"}).ValidateUpdate(&Host{Name: "b"}), "name: from b to a")
	refused(t, (&Host{Name: "a"}).ValidateUpdate(&Host{Name: "a"}))
	refused(t, (&Tenant{Name: "a"}).ValidateUpdate(&Tenant{Name: "a"}))
	refused(t, (&VNIPool{Name: "a", Spec: DefaultPoolSpec}).ValidateUpdate(&VNIPool{Name: "a"}))
	refused(t, (&VNIPool{Name: "a", Spec: DefaultPoolSpec}).ValidateUpdate(&VNIPool{Name: "b"}), "name: from b to a")
	refused(t, (&VTEP{Name: "a"}).ValidateUpdate(&VTEP{Name: "b"}), "name: from b to a")
	v := &VTEP{Name: "a", Spec: VTEPSpec{Address: netip.MustParseAddr("192.0.2.1")}}
	refused(t, v.ValidateUpdate(&VTEP{Name: "a", Spec: VTEPSpec{Address: netip.MustParseAddr("192.0.2.2"), UDPPort: 9}}))
}

func TestValidateNetworkWithItsPorts(t *testing.T) {
	p := &Port{Name: "web1", Alloc: PortAlloc{MACs: macs("02:00:00:00:00:01"), IPs: prefixes("10.1.0.255/16", "fd00::5/64")}}
	for _, c := range []struct {
		name string
		spec NetworkSpec
		want []string
	}{
		{"as it was", NetworkSpec{Subnets: prefixes("10.1.0.0/16", "fd00::/64", "10.7.0.0/16")}, nil},
		{"a subnet gone", NetworkSpec{Subnets: prefixes("10.1.0.0/16")}, []string{"spec.subnets: port web1 has the address fd00::5"}},
		{"a subnet cut", NetworkSpec{Subnets: prefixes("10.1.0.0/24", "fd00::/64")}, []string{"spec.subnets: the broadcast address of 10.1.0.0/24"}},
		{"a subnet grown", NetworkSpec{Subnets: prefixes("10.0.0.0/15", "fd00::/64")},
			[]string{"spec.subnets: port web1 holds 10.1.0.255/16, which would no longer be the length of its subnet 10.0.0.0/15"}},
		{"its MAC behind a VTEP", NetworkSpec{Subnets: prefixes("10.1.0.0/16", "fd00::/64"), VTEPs: []NetworkVTEP{{VTEP: "e", MACs: p.Alloc.MACs}}},
			[]string{"spec.vteps: belongs to port web1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			refused(t, (&Network{Spec: c.spec}).ValidateWith(slices.Values([]*Port{p})), c.want...)
		})
	}
}

func TestKinds(t *testing.T) {
	for want, of := range map[string]interface{ Kind() string }{
		"tenant": &Tenant{}, "network": &Network{}, "port": &Port{}, "binding": &Binding{}, "host": &Host{}, "vtep": &VTEP{}, "pool": &VNIPool{},
		"group pool": &GroupPool{},
		"token":      &APIToken{},
	} {
		if of.Kind() != want {
			t.Errorf("%T is of kind %s, want %s", of, of.Kind(), want)
		}
	}
	if (NetworkSpec{}).EffectiveUnknownUnicast() != UnknownUnicastExternal ||
		(NetworkSpec{UnknownUnicast: UnknownUnicastDrop}).EffectiveUnknownUnicast() != UnknownUnicastDrop {
		t.Error("unknown unicast has another default, or its setting is lost")
	}
}

func TestParse(t *testing.T) {
	for s, want := range map[string]string{
		"10.1.0.0/24": "", "fd00::/64": "", "10.1.0.5": "without a prefix length", "10.1.0.5/32": "single address", "10.1.0.0/33": "not an IP prefix",
		"blue": "not an IP prefix", "": "not an IP prefix", "fe80::%eth0/64": "zone", "10.1.0.1/24": "host bits",
	} {
		if _, e := ParseSubnet("spec.subnets[3]", s); want == "" && e != nil {
			t.Errorf("%q: %v", s, e)
		} else if want != "" {
			refused(t, e, "spec.subnets[3]: "+want)
		}
	}
	for s, want := range map[string]string{
		"10.1.0.5": "", "fd00::5": "", "10.1.0.5/24": "not an IP address", "010.1.0.5": "not an IP address", "10.1": "not an IP address",
		"fe80::1%lo": "zone", "::ffff:1.2.3.4": "IPv6 form",
	} {
		if _, e := ParseAddr("ip", s); want == "" && e != nil {
			t.Errorf("%q: %v", s, e)
		} else if want != "" {
			refused(t, e, "ip: "+want)
		}
	}
	for s, want := range map[string]string{
		"02:00:00:00:00:01": "", "02-00-00-00-00-01": "not a MAC", "": "not a MAC", "00:00:00:00:00:00": "not an address", "03:00:00:00:00:00": "multicast",
	} {
		if _, e := ParseMAC("mac", s); want == "" && e != nil {
			t.Errorf("%q: %v", s, e)
		} else if want != "" {
			refused(t, e, "mac: "+want)
		}
	}
	if v, e := ParseUDPPort("p", 65535); v != 65535 || e != nil {
		t.Error(v, e)
	}
	if _, e := ParseUDPPort("p", 65536); e == nil {
		t.Error("UDP port 65536 passes")
	}
}

func TestErrors(t *testing.T) {
	a, b := Errorf(Invalid, "a", "mend it", "wrong"), Errorf(Taken, "b", "", "gone")
	if got := a.Error() + "|" + b.Error(); got != "a: wrong; mend it|b: gone" {
		t.Error(got)
	}
	if got := Errors(fmt.Errorf("create: %w", errors.Join(a, fmt.Errorf("then: %w", b)))); !slices.Equal(got, []*Error{a, b}) {
		t.Error(got)
	}
	if got := Errors(errors.New("disk full")); got != nil {
		t.Error(got)
	}
	if (refusals{}).err() != nil || Errors(nil) != nil {
		t.Error("no refusal is an error")
	}
	var r refusals
	r.add(nil)
	r.add(a)
	if r.err() != error(a) {
		t.Error("one refusal is not itself")
	}
	r.add(b)
	var first *Error
	if !errors.As(r.err(), &first) || first != a {
		t.Error("of two, the first is not found")
	}
}
