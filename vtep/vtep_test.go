package vtep

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/plan"
)

const good = `
name: edge1
underlay:
  uplink: eth1
networks:
- name: blue
  vni: 7
  remotes:
  - 192.0.2.2
  - address: 192.0.2.3
    udp_port: 8472
    outer_checksum: true
    macs: [02:00:00:00:00:33]
  ports:
  - tap0
  - name: web1
    interface: web1-eth
    macs: [02:00:00:00:00:01]
- name: green
  vni: 8
  mtu: 1400
  unknown_unicast: drop
  dscp: uniform
  remotes: [192.0.2.2]
`

var end4 = End{Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, UplinkMTU: 1500}

func parsed(t *testing.T, text string) *File {
	t.Helper()
	f, err := Parse("f", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func planned(t *testing.T, text string, e End) map[plan.Key]*plan.Resource {
	t.Helper()
	list, err := parsed(t, text).Plan(e)
	if err != nil {
		t.Fatal(err)
	}
	set := plan.NewSet(list...)
	if problems := plan.Check(set, HostUID(), plan.Features()); len(problems) > 0 {
		t.Fatalf("an agent would refuse it: %v", problems)
	}
	all := map[plan.Key]*plan.Resource{}
	for r := range set.All() {
		all[r.Key()] = r
	}
	return all
}

// TestPlan turns red when a remote of two networks is made twice, or a port without MACs is guarded.
func TestPlan(t *testing.T) {
	all := planned(t, good, end4)
	kinds := map[string]int{}
	for k := range all {
		kinds[plan.KindName(k.Kind)]++
	}
	if want := map[string]int{"host": 1, "network": 2, "port": 2, "vtep": 2}; !maps.Equal(kinds, want) {
		t.Errorf("resources %v, want %v", kinds, want)
	}
	for _, r := range all {
		if p := r.Port(); p != nil && p.GetUnguarded() != (len(p.GetMacs()) == 0) {
			t.Errorf("port %s has MACs %v, and unguarded is %t", p.GetName(), p.GetMacs(), p.GetUnguarded())
		}
		if n := r.Network(); n != nil && n.GetDisplay() == "blue" && n.GetMtu() != 1450 {
			t.Errorf("blue's MTU is %d: 1500 less 50 are 1450", n.GetMtu())
		}
	}
	six := strings.ReplaceAll(good, "192.0.2.", "2001:db8::")
	for _, r := range planned(t, six, End{Addresses: []netip.Addr{netip.MustParseAddr("2001:db8::1")}, UplinkMTU: 1500}) {
		if n := r.Network(); n != nil && n.GetDisplay() == "blue" && n.GetMtu() != 1430 {
			t.Errorf("blue's MTU over IPv6 is %d: 1500 less 70 are 1430", n.GetMtu())
		}
	}
}

// TestChangesTouchTheirOwn turns red when a uid depends on an object's place in the file.
func TestChangesTouchTheirOwn(t *testing.T) {
	was := planned(t, good, end4)
	differ := func(text string) (changed []string) {
		now := planned(t, text, end4)
		for k, r := range now {
			if o := was[k]; o == nil || o.Hash != r.Hash {
				changed = append(changed, plan.KindName(k.Kind))
			}
		}
		for k := range was {
			if now[k] == nil {
				changed = append(changed, "no "+plan.KindName(k.Kind))
			}
		}
		slices.Sort(changed)
		return changed
	}
	edit := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("the file has no %q", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	cases := map[string]struct {
		text string
		want []string
	}{
		"nothing":      {good + "\n# a comment\n", nil},
		"an MTU":       {edit("mtu: 1400", "mtu: 1300"), []string{"network"}},
		"a static MAC": {edit("00:33", "00:34"), []string{"network"}},
		"a port's MAC": {edit("00:01", "00:02"), []string{"port"}},
		"a port more":  {edit("  - tap0\n", "  - tap0\n  - tap1\n"), []string{"port"}},
		"a port less":  {edit("  - tap0\n", ""), []string{"no port"}},
		"an interface": {edit("interface: web1-eth", "interface: other"), nil}, // the attachment differs
		"a remote":     {edit("  - 192.0.2.2\n", ""), []string{"network"}},     // green has it still
	}
	for name, c := range cases {
		if got := differ(c.text); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v changed, want %v", name, got, c.want)
		}
	}
}

func TestMistakesNameLineAndFix(t *testing.T) {
	cases := map[string]struct {
		text string
		want []string // beginnings
	}{
		"empty":       {"", []string{"f: the file says nothing"}},
		"no YAML":     {"networks: [", []string{"f: line"}},
		"unknown key": {"netwroks: []", []string{"f:1 netwroks: there is no such key; use name, underlay, networks"}},
		"twice":       {"name: a\nname: b", []string{"f:2 name: it is there twice"}},
		"two at once": {"networks:\n- name: Blue\n  vni: 0\n", []string{"f:2 networks[0].name: \"Blue\" contains 'B'", "f:3 networks[0].vni: \"0\" is not a whole number from 1 to 16777215"}},
		"no VNI":      {"networks:\n- name: blue\n", []string{"f:2 networks[0].vni: it is missing"}},
		"one VNI":     {"networks:\n- {name: a, vni: 7}\n- {name: b, vni: 7}\n", []string{"f:3 networks[1].vni: 7 is on line 2 already"}},
		"group":       {"networks:\n- name: a\n  vni: 7\n  remotes: [239.1.1.1]\n", []string{"f:4 networks[0].remotes[0]: 239.1.1.1 is a multicast address"}},
		"no address":  {"networks:\n- name: a\n  vni: 7\n  remotes:\n  - macs: []\n", []string{"f:5 networks[0].remotes[0].address: it is missing"}},
		"remotes":     {"networks:\n- name: a\n  vni: 7\n  remotes: [192.0.2.2, 192.0.2.2]\n", []string{"f:4 networks[0].remotes[1]: 192.0.2.2 is on line 4 already"}},
		"MAC":         {"networks:\n- name: a\n  vni: 7\n  ports:\n  - interface: p\n    macs: [01:00:5e:00:00:01]\n", []string{"f:6 networks[0].ports[0].macs[0]: 01:00:5e:00:00:01 is a multicast address"}},
		"MAC twice":   {"networks:\n- name: a\n  vni: 7\n  remotes:\n  - address: 192.0.2.2\n    macs: [02:00:00:00:00:01]\n  ports:\n  - interface: p\n    macs: [02:00:00:00:00:01]\n", []string{"f:9 networks[0].ports[0].macs[0]: 02:00:00:00:00:01 is on line 6 already"}},
		"interface":   {"networks:\n- name: a\n  vni: 7\n  ports: [p, p, weft-vxlan]\n", []string{"f:4 networks[0].ports[1]: p is on line 4 already", "f:4 networks[0].ports[1]: p is on line 4", "f:4 networks[0].ports[2]: names that begin with weft-"}},
		"uplink":      {"networks:\n- name: a\n  vni: 7\n  ports: [eth1]\nunderlay:\n  uplink: eth0,eth1\n", []string{"f:4 networks[0].ports[0]: eth1 is on line 6 already; an interface is in one network, and an uplink in none"}},
		"uplinks":     {"underlay: {uplink: 'eth0,eth0'}\n", []string{"f:1 underlay.uplink: eth0 is on line 1 already; name each interface once"}},
		"choice":      {"networks:\n- {name: a, vni: 7, unknown_unicast: external}\n", []string{`f:2 networks[0].unknown_unicast: "external" is not a setting; choose flood or drop`}},
		"truth":       {"underlay: {xdp: yes}", []string{`f:1 underlay.xdp: it is "yes"; write true or false`}},
		"no group":    {"networks:\n- name: a\n  vni: 7\n  group: 192.0.2.9\n  remotes: [192.0.2.2]\n", []string{"f:4 networks[0].group: 192.0.2.9 is not a multicast address"}},
		"one link":    {"networks:\n- name: a\n  vni: 7\n  group: ff02::9\n  remotes: ['2001:db8::2']\n", []string{"f:4 networks[0].group: ff02::9 is of the scope of one link"}},
		"nobody":      {"networks:\n- name: a\n  vni: 7\n  group: 239.1.2.3\n  learning: {}\n", []string{"f:2 networks[0].group: nobody could send into it"}},
		"no such way": {"networks:\n- name: a\n  vni: 7\n  remotes:\n  - {address: 192.0.2.2, flood: group}\n", []string{"f:2 networks[0].remotes[0].flood: the network has no group"}},
		"wrong group": {"networks:\n- name: a\n  vni: 7\n  group: 239.1.2.3\n  remotes:\n  - {address: '2001:db8::2', flood: group}\n", []string{"f:2 networks[0].remotes[0].flood: remote 2001:db8::2 cannot receive the group 239.1.2.3"}},
		"ageing":      {"networks:\n- name: a\n  vni: 7\n  learning: {ageing: soon}\n", []string{`f:4 networks[0].learning.ageing: "soon" is no time`}},
		"short":       {"networks:\n- name: a\n  vni: 7\n  learning:\n    ageing: 1s\n", []string{"f:5 networks[0].learning.ageing: 1s is outside 10s..24h"}},
		"everybody":   {"networks:\n- name: a\n  vni: 7\n  learning: {sources: [0.0.0.0/0]}\n", []string{"f:4 networks[0].learning.sources[0]: 0.0.0.0/0 is too much"}},
		"list":        {"networks: 7", []string{"f:1 networks: it is not a list"}},
		"documents":   {"name: a\n---\nname: b\n", []string{"f:3 ---: a second document begins here"}},
	}
	for name, c := range cases {
		_, err := Parse("f", []byte(c.text))
		said := model.Errors(err)
		for i, want := range c.want {
			if i >= len(said) || !strings.HasPrefix(said[i].Error(), want) {
				t.Errorf("%s: said %v, want as number %d %q", name, said, i, want)
			}
		}
		if len(said) != len(c.want) {
			t.Errorf("%s: %d mistakes, want %d: %v", name, len(said), len(c.want), said)
		}
		for _, e := range said {
			if e.Fix == "" || e.Field == "" {
				t.Errorf("%s: %v has no field or no fix", name, e)
			}
		}
	}
}

// TestGroupAndLearning turns red when a remote that receives the group gets a copy as well, or one that does not gets none.
func TestGroupAndLearning(t *testing.T) {
	const text = `
networks:
- name: blue
  vni: 7
  group: 239.1.2.3
  learning: {ageing: 60s, sources: [192.0.2.0/24]}
  remotes:
  - 198.51.100.2
  - {address: 198.51.100.3, flood: group}
`
	for _, r := range planned(t, text, end4) {
		n := r.Network()
		if n == nil {
			continue
		}
		group := netip.MustParseAddr("239.1.2.3").AsSlice()
		if !slices.Equal(n.GetGroup(), group) || len(n.GetJoinedGroups()) != 1 || !slices.Equal(n.GetJoinedGroups()[0], group) {
			t.Errorf("floods go to % x, and % x are joined", n.GetGroup(), n.GetJoinedGroups())
		}
		if copied := remoteUID(Remote{Address: netip.MustParseAddr("198.51.100.2"), UDPPort: 4789}); !slices.Equal(n.GetCopies(), []string{copied}) {
			t.Errorf("copies go to %v, want %s alone", n.GetCopies(), copied)
		}
		if l := n.GetLearning(); l.GetAgeingSeconds() != 60 || l.GetVtepLimit() != model.DefaultVTEPLimit || !slices.Equal(l.GetSources(), []string{"192.0.2.0/24"}) {
			t.Errorf("it learns by %v", l)
		}
	}
	_, err := parsed(t, text).Plan(End{[]netip.Addr{netip.MustParseAddr("2001:db8::1")}, 1500})
	if said := model.Errors(err); len(said) != 1 || !strings.HasPrefix(said[0].Error(), "f:3 network blue, group: 239.1.2.3 is a group of IPv4") {
		t.Errorf("on an IPv6 underlay: said %v", said)
	}
}

func TestWhatDoesNotFitTheUnderlay(t *testing.T) {
	cases := map[string]struct {
		end  End
		want string
	}{
		"MTU":    {End{end4.Addresses, 1440}, "f:19 network green, mtu: the uplink's MTU of 1440 leaves 1390"},
		"family": {End{[]netip.Addr{netip.MustParseAddr("2001:db8::1")}, 1500}, "f:6 network blue, remotes: remote 192.0.2.2 is reached by IPv4"},
		"own":    {End{[]netip.Addr{netip.MustParseAddr("192.0.2.2")}, 1500}, "f:6 network blue, remotes: 192.0.2.2 is this machine's own address"},
		"small":  {End{end4.Addresses, 600}, "f:6 network blue, mtu: the uplink's MTU of 600 leaves 550"},
	}
	for name, c := range cases {
		_, err := parsed(t, good).Plan(c.end)
		said := model.Errors(err)
		if len(said) == 0 || !strings.HasPrefix(said[0].Error(), c.want) {
			t.Errorf("%s: said %v, want %q", name, said, c.want)
		}
	}
}

// FuzzParse turns red when some octets make the parser panic, or give a plan that an agent would refuse.
func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("networks:\n- {name: a, vni: 7, remotes: [::ffff:192.0.2.1, fe80::1%eth0]}\n"))
	f.Fuzz(func(t *testing.T, octets []byte) {
		file, err := Parse("f", octets)
		if err != nil {
			return
		}
		list, err := file.Plan(End{Addresses: []netip.Addr{netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2001:db8:77::7")}, UplinkMTU: 9000})
		if err != nil {
			return
		}
		if problems := plan.Check(plan.NewSet(list...), HostUID(), plan.Features()); len(problems) > 0 {
			t.Errorf("an agent would refuse it: %v", problems)
		}
	})
}
