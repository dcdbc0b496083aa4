package model

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/weftnet/weft/wire"
)

// in reports membership, as the server's used functions do.
func in[T comparable](taken ...T) func(T) bool {
	return func(v T) bool { return slices.Contains(taken, v) }
}

func TestNextVNI(t *testing.T) {
	pool := VNIPool{Spec: VNIPoolSpec{First: 10, Last: 13}}
	for _, c := range []struct {
		used []wire.VNI
		from wire.VNI
		want wire.VNI
	}{
		{nil, 0, 10}, {[]wire.VNI{10}, 0, 11}, {nil, 12, 12}, {[]wire.VNI{12, 13}, 12, 10}, {nil, 13, 13}, {[]wire.VNI{13}, 13, 10},
		{nil, 14, 10}, {[]wire.VNI{10, 11, 12}, 11, 13}, {[]wire.VNI{10, 11, 12, 13}, 11, 0},
	} {
		if got, ok := NextVNI(pool, in(c.used...), c.from); got != c.want || ok != (c.want != 0) {
			t.Errorf("used %v from %d: %d, %v, want %d", c.used, c.from, got, ok, c.want)
		}
	}
	if _, ok := NextVNI(VNIPool{}, in[wire.VNI](), 0); ok || (VNIPoolSpec{}).Size() != 0 {
		t.Error("an empty pool gives a VNI")
	}
	top := VNIPool{Spec: VNIPoolSpec{First: wire.MaxVNI, Last: wire.MaxVNI}}
	if v, ok := NextVNI(top, in[wire.VNI](), 0); v != wire.MaxVNI || !ok {
		t.Errorf("the largest VNI: %d, %v", v, ok)
	}
}

func TestAllocateVNI(t *testing.T) {
	pool := VNIPool{Name: "p", Spec: VNIPoolSpec{First: 10, Last: 11}}
	for _, c := range []struct {
		name      string
		spec, had wire.VNI
		used      []wire.VNI
		want      wire.VNI
		refusal   string
	}{
		{"from the pool", 0, 0, []wire.VNI{10}, 11, ""},
		{"kept", 0, 500, []wire.VNI{500}, 500, ""},
		{"pinned", 7, 0, nil, 7, ""},
		{"pinned and kept", 7, 7, []wire.VNI{7}, 7, ""},
		{"pinned and taken", 7, 0, []wire.VNI{7}, 0, "spec.vni: VNI 7 is already taken"},
		{"pool full", 0, 0, []wire.VNI{10, 11}, 0, "spec.vni_pool: VNI pool p has no free VNI in 10..11"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := &Network{Spec: NetworkSpec{VNI: c.spec}, Alloc: NetworkAlloc{VNI: c.had}}
			err := AllocateVNI(n, pool, in(c.used...))
			if c.refusal != "" {
				refused(t, err, c.refusal)
			} else {
				refused(t, err)
			}
			if n.Alloc.VNI != c.want {
				t.Errorf("VNI %d, want %d", n.Alloc.VNI, c.want)
			}
		})
	}
}

func TestNextIP(t *testing.T) {
	for _, c := range []struct {
		subnet, used, from, want string
	}{
		{"10.1.0.0/24", "", "", "10.1.0.2"},
		{"10.1.0.0/24", "10.1.0.2 10.1.0.3", "", "10.1.0.4"},
		{"10.1.0.0/24", "", "10.1.0.254", "10.1.0.254"},
		{"10.1.0.0/24", "10.1.0.254", "10.1.0.254", "10.1.0.2"}, // neither the broadcast nor the gateway's address
		{"10.1.0.0/24", "", "10.1.0.255", "10.1.0.2"},
		{"10.1.0.0/24", "", "10.1.0.1", "10.1.0.2"},
		{"10.1.0.0/24", "", "10.2.0.7", "10.1.0.2"},
		{"10.1.0.0/24", "", "fd00::7", "10.1.0.2"},
		{"10.1.0.0/30", "", "", "10.1.0.2"},
		{"10.1.0.0/30", "10.1.0.2", "", ""},
		{"10.1.0.0/31", "", "", ""},
		{"10.1.0.0/32", "", "", ""},
		{"10.1.0.9/24", "", "", "10.1.0.2"},
		{"fd00:1::/64", "", "", "fd00:1::2"},
		{"fd00:1::/64", "fd00:1::2", "", "fd00:1::3"},
		{"fd00:1::/64", "fd00:1::ffff:ffff:ffff:ffff", "fd00:1::ffff:ffff:ffff:ffff", "fd00:1::2"},
		{"fd00:1::/126", "fd00:1::2 fd00:1::3", "", ""},
		{"fd00:1::/127", "", "", ""},
		{"255.255.255.0/24", "", "255.255.255.254", "255.255.255.254"},
	} {
		var from netip.Addr
		if c.from != "" {
			from = netip.MustParseAddr(c.from)
		}
		got, ok := NextIP(netip.MustParsePrefix(c.subnet), in(addrs(strings.Fields(c.used)...)...), from)
		if ok != (c.want != "") || ok && got.String() != c.want {
			t.Errorf("%s without %q from %q: %v, %v, want %q", c.subnet, c.used, c.from, got, ok, c.want)
		}
	}
	if _, ok := NextIP(netip.Prefix{}, in[netip.Addr](), netip.Addr{}); ok {
		t.Error("no subnet gives an address")
	}
}

// Every address that a subnet can give is given, once each, and no other.
func TestNextIPExhaustsTheSubnet(t *testing.T) {
	for _, s := range prefixes("10.1.0.0/27", "fd00::/123", "192.168.7.8/29") {
		taken := map[netip.Addr]bool{}
		var from netip.Addr
		for {
			a, ok := NextIP(s, func(a netip.Addr) bool { return taken[a] }, from)
			if !ok {
				break
			}
			if what := unusable(s, a); taken[a] || !s.Contains(a) || what != "" || a == s.Masked().Addr().Next() {
				t.Fatalf("%s gives %s: %s", s, a, what)
			}
			taken[a] = true
			from = a
		}
		want := 1<<(s.Addr().BitLen()-s.Bits()) - 2
		if s.Addr().Is4() {
			want--
		}
		if len(taken) != want {
			t.Errorf("%s gives %d addresses, want %d", s, len(taken), want)
		}
	}
}

// A large subnet whose beginning is full is not walked from its beginning each time.
func TestAllocateInALargeSubnet(t *testing.T) {
	for _, s := range prefixes("10.0.0.0/8", "fd00::/64", "10.0.0.0/20") {
		asked := 0
		last := netip.MustParseAddr("10.0.15.254") // the last one of the /20, the only one free there
		a, ok := freeIP(s, "uid", func(a netip.Addr) bool {
			if asked++; asked > 100_000 {
				t.Fatalf("%s: %d questions", s, asked)
			}
			if s.Bits() == 20 {
				return a != last
			}
			return asked <= inOrder+10
		})
		if !ok || !s.Contains(a) || unusable(s, a) != "" {
			t.Errorf("%s: %v, %v", s, a, ok)
		}
	}
}

func TestAllocatePort(t *testing.T) {
	n := &Network{Meta: Meta{UID: "n"}, Tenant: "t", Name: "blue", Spec: NetworkSpec{Subnets: prefixes("10.1.0.0/24", "fd00:1::/64")}}
	first := MACFor("p", 0)
	for _, c := range []struct {
		name     string
		spec     PortSpec
		had      PortAlloc
		usedMACs []wire.MAC
		usedIPs  []netip.Addr
		macs     []wire.MAC
		ips      []netip.Prefix
		refusals []string
	}{
		{"all open", PortSpec{}, PortAlloc{}, nil, nil, []wire.MAC{first}, prefixes("10.1.0.2/24", "fd00:1::2/64"), nil},
		{"next ones", PortSpec{}, PortAlloc{}, []wire.MAC{first}, addrs("10.1.0.2", "fd00:1::2"), []wire.MAC{MACFor("p", 1)},
			prefixes("10.1.0.3/24", "fd00:1::3/64"), nil},
		{"all given", PortSpec{MACs: macs("02:00:00:00:00:01", "02:00:00:00:00:02"), IPs: addrs("fd00:1::9", "10.1.0.1")}, PortAlloc{}, nil, nil,
			macs("02:00:00:00:00:01", "02:00:00:00:00:02"), prefixes("fd00:1::9/64", "10.1.0.1/24"), nil},
		{"one family given", PortSpec{IPs: addrs("10.1.0.7")}, PortAlloc{}, nil, nil, []wire.MAC{first}, prefixes("10.1.0.7/24"), nil},
		{"kept", PortSpec{}, PortAlloc{NetworkUID: "n", MACs: macs("02:00:00:00:00:01"), IPs: prefixes("10.1.0.7/24", "fd00:1::7/64")},
			macs("02:00:00:00:00:01"), addrs("10.1.0.7", "fd00:1::7"), macs("02:00:00:00:00:01"), prefixes("10.1.0.7/24", "fd00:1::7/64"), nil},
		{"given before, open now", PortSpec{}, PortAlloc{NetworkUID: "n", MACs: macs("02:00:00:00:00:01", "02:00:00:00:00:02"),
			IPs: prefixes("10.1.0.7/24", "10.1.0.8/24")}, nil, nil, macs("02:00:00:00:00:01"), prefixes("10.1.0.7/24", "fd00:1::2/64"), nil},
		{"given, and its own already", PortSpec{MACs: macs("02:00:00:00:00:01"), IPs: addrs("10.1.0.7")},
			PortAlloc{NetworkUID: "n", MACs: macs("02:00:00:00:00:01"), IPs: prefixes("10.1.0.7/24")}, macs("02:00:00:00:00:01"), addrs("10.1.0.7"),
			macs("02:00:00:00:00:01"), prefixes("10.1.0.7/24"), nil},
		{"the subnet grew", PortSpec{}, PortAlloc{NetworkUID: "n", IPs: prefixes("10.1.0.7/25")}, nil, addrs("10.1.0.7"), []wire.MAC{first},
			prefixes("10.1.0.7/24", "fd00:1::2/64"), nil},
		{"the subnet is another one", PortSpec{}, PortAlloc{NetworkUID: "n", IPs: prefixes("10.9.0.7/24")}, nil, nil, []wire.MAC{first},
			prefixes("10.1.0.2/24", "fd00:1::2/64"), nil},
		{"of an earlier network of that name", PortSpec{}, PortAlloc{NetworkUID: "old", MACs: macs("02:00:00:00:00:01"), IPs: prefixes("10.1.0.7/24")},
			nil, nil, []wire.MAC{first}, prefixes("10.1.0.2/24", "fd00:1::2/64"), nil},
		{"MAC taken", PortSpec{MACs: macs("02:00:00:00:00:01")}, PortAlloc{}, macs("02:00:00:00:00:01"), nil, nil, nil,
			[]string{"spec.macs[0]: 02:00:00:00:00:01 is already taken in network blue"}},
		{"IP taken", PortSpec{IPs: addrs("10.1.0.7", "10.1.0.8")}, PortAlloc{}, nil, addrs("10.1.0.8"), nil, nil,
			[]string{"spec.ips[1]: 10.1.0.8 is already taken in network blue"}},
		{"IP outside", PortSpec{IPs: addrs("10.2.0.7")}, PortAlloc{}, nil, nil, nil, nil, []string{"spec.ips[0]: outside"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.spec.Network = "blue"
			p := &Port{Meta: Meta{UID: "p"}, Tenant: "t", Name: "web1", Spec: c.spec, Alloc: c.had}
			err := AllocatePort(p, n, in(c.usedMACs...), in(c.usedIPs...))
			refused(t, err, c.refusals...)
			want := PortAlloc{NetworkUID: "n", MACs: c.macs, IPs: c.ips}
			if err != nil {
				want = c.had
			}
			if !reflect.DeepEqual(p.Alloc, want) {
				t.Errorf("%+v, want %+v", p.Alloc, want)
			}
		})
	}
}

func TestAllocatePortExhausted(t *testing.T) {
	n := &Network{Meta: Meta{UID: "n"}, Tenant: "t", Name: "blue", Spec: NetworkSpec{Subnets: prefixes("10.1.0.0/30")}}
	p := &Port{Meta: Meta{UID: "p"}, Tenant: "t", Name: "web1", Spec: PortSpec{Network: "blue"}}
	err := AllocatePort(p, n, in[wire.MAC](), in(addrs("10.1.0.2")...))
	refused(t, err, "spec.ips: subnet 10.1.0.0/30 of network blue has no free address")
	if Errors(err)[0].Kind != Exhausted {
		t.Error("it is not of the kind exhausted")
	}
	refused(t, AllocatePort(p, n, func(wire.MAC) bool { return true }, in[netip.Addr]()), "spec.macs: no free MAC")
	// A network without subnets is one of layer 2 only.
	n.Spec.Subnets = nil
	refused(t, AllocatePort(p, n, in[wire.MAC](), in[netip.Addr]()))
	if len(p.Alloc.IPs) != 0 || len(p.Alloc.MACs) != 1 {
		t.Errorf("%+v", p.Alloc)
	}
	// A MAC that is stated to be behind an external VTEP is nobody else's.
	n.Spec.VTEPs = []NetworkVTEP{{VTEP: "ext1", MACs: []wire.MAC{MACFor("p", 0)}}}
	refused(t, AllocatePort(p, n, in[wire.MAC](), in[netip.Addr]()))
	if !slices.Equal(p.Alloc.MACs, []wire.MAC{MACFor("p", 1)}) {
		t.Errorf("%+v", p.Alloc)
	}
}

// Whatever ports come, change and go, what is allocated is valid, nobody else's, and stays when allocated again.
func TestAllocatePortRandomly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := &Network{Meta: Meta{UID: "n"}, Tenant: "t", Name: "blue", Spec: NetworkSpec{Subnets: prefixes("10.1.0.0/28", "fd00::/124")}}
		ports := map[string]*Port{}
		ofOthers := func(name string) (func(wire.MAC) bool, func(netip.Addr) bool) {
			var m []wire.MAC
			var ips []netip.Addr
			for other, p := range ports {
				if other != name {
					m = append(m, p.Alloc.MACs...)
					for _, ip := range p.Alloc.IPs {
						ips = append(ips, ip.Addr())
					}
				}
			}
			return in(m...), in(ips...)
		}
		for i := range rapid.IntRange(1, 40).Draw(t, "steps") {
			name := pick(t, "name", "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n")
			if ports[name] != nil && rapid.Bool().Draw(t, "delete") {
				delete(ports, name)
				continue
			}
			p := &Port{Meta: Meta{UID: NewUID([16]byte{byte(i)})}, Tenant: "t", Name: name, Spec: PortSpec{Network: "blue"}}
			if old := ports[name]; old != nil {
				*p = *old
				p.Spec.IPs = nil
			}
			if rapid.Bool().Draw(t, "given") {
				p.Spec.IPs = []netip.Addr{netip.AddrFrom4([4]byte{10, 1, 0, byte(rapid.IntRange(1, 14).Draw(t, "ip"))})}
			}
			macUsed, ipUsed := ofOthers(name)
			if err := AllocatePort(p, n, macUsed, ipUsed); err != nil {
				if len(Errors(err)) == 0 {
					t.Fatalf("not a refusal: %v", err)
				}
				continue
			}
			for _, m := range p.Alloc.MACs {
				if macUsed(m) || validateMAC("", m) != nil || m.IsReserved() {
					t.Fatalf("MAC %s is not free or not valid", m)
				}
			}
			for _, ip := range p.Alloc.IPs {
				if ipUsed(ip.Addr()) || placeIn(n, "", ip.Addr()) != nil || !slices.Contains(n.Spec.Subnets, ip.Masked()) {
					t.Fatalf("IP %s is not free or not valid", ip)
				}
			}
			ports[name] = p
			again := *p
			// Now used may know the port's own addresses too.
			all, allIPs := ofOthers("")
			if err := AllocatePort(&again, n, all, allIPs); err != nil || !reflect.DeepEqual(again.Alloc, p.Alloc) {
				t.Fatalf("allocated again: %+v, %v, first %+v", again.Alloc, err, p.Alloc)
			}
		}
	})
}

func TestUID(t *testing.T) {
	a := NewUID([16]byte{1, 2, 3})
	if len(a) != 26 || strings.ToLower(string(a)) != string(a) || !a.Valid() || a == NewUID([16]byte{1, 2, 4}) {
		t.Errorf("%q", a)
	}
	if got := NewUID([16]byte{}); got != "aaaaaaaaaaaaaaaaaaaaaaaaaa" {
		t.Errorf("%q", got)
	}
	for _, bad := range []UID{"", "a", UID(strings.ToUpper(string(a))), a + "a", "../aaaaaaaaaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaaaaaaaaaaa\n"} {
		if bad.Valid() {
			t.Errorf("%q is valid", bad)
		}
	}
}

func TestMACFor(t *testing.T) {
	seen := map[wire.MAC]bool{}
	for i := range 100 {
		m := MACFor("uid", i)
		if m.IsMulticast() || !m.IsLocal() || m.IsReserved() || m != MACFor("uid", i) || !strings.HasPrefix(m.String(), "02:77:65:") {
			t.Errorf("%s", m)
		}
		seen[m] = true
	}
	if len(seen) != 100 || seen[MACFor("other", 0)] {
		t.Errorf("%d different MACs of 100", len(seen))
	}
}
