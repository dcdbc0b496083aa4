package plan

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
)

var mac = []byte{2, 0, 0, 0, 0, 1}

// TestCheck: what is wrong is named, held where it must be, and nothing else is.
func TestCheck(t *testing.T) {
	network := testNetwork("n", 5000)
	for name, c := range map[string]struct {
		want  string
		holds bool
		set   []*Resource
	}{
		"VNI 0":              {"VNI 0 is outside 1..16777215", true, []*Resource{testNetwork("n", 0)}},
		"VNI too large":      {"VNI 16777216", true, []*Resource{testNetwork("n", 1<<24)}},
		"MTU":                {"MTU 0 is outside", true, []*Resource{NewNetwork(1, &planv1.Network{Uid: "n", Vni: 1})}},
		"one VNI twice":      {"VNI 7 is that of 2 networks", true, []*Resource{testNetwork("n", 7), testNetwork("m", 7)}},
		"neighbours":         {"unknown setting 9", true, []*Resource{NewNetwork(1, &planv1.Network{Uid: "n", Vni: 1, Mtu: 1450, Neighbours: 9})}},
		"unknown unicast":    {"unknown answer 9", true, []*Resource{NewNetwork(1, &planv1.Network{Uid: "n", Vni: 1, Mtu: 1450, UnknownUnicast: 9})}},
		"external MAC":       {"behind external VTEP v: a MAC has 5 octets", true, []*Resource{testVTEP("v"), NewNetwork(1, &planv1.Network{Uid: "n", Vni: 1, Mtu: 1450, External: []*planv1.ExternalVtep{{Vtep: "v", Macs: [][]byte{{1, 2, 3, 4, 5}}}}})}},
		"no MAC":             {"it has no MAC, and may not send from any", true, []*Resource{network, NewPort(1, &planv1.Port{Uid: "p", Network: "n"})}},
		"short MAC":          {"a MAC has 3 octets", true, []*Resource{network, NewPort(1, &planv1.Port{Uid: "p", Network: "n", Macs: [][]byte{{1, 2, 3}}})}},
		"multicast MAC":      {"03:00:00:00:00:01 cannot be", true, []*Resource{network, NewPort(1, &planv1.Port{Uid: "p", Network: "n", Macs: [][]byte{{3, 0, 0, 0, 0, 1}}})}},
		"zero MAC":           {"cannot be the MAC", true, []*Resource{network, NewPort(1, &planv1.Port{Uid: "p", Network: "n", Macs: [][]byte{make([]byte, 6)}})}},
		"address":            {`"10.0.0.1" is not an address with the length`, true, []*Resource{network, NewPort(1, &planv1.Port{Uid: "p", Network: "n", Macs: [][]byte{mac}, Ips: []string{"10.0.0.1"}})}},
		"pair":               {`"x" is not an address`, true, []*Resource{network, NewPort(1, &planv1.Port{Uid: "p", Network: "n", Macs: [][]byte{mac}, AllowedAddressPairs: []*planv1.AddressPair{{Mac: mac, Ip: "x"}}})}},
		"VTEP missing":       {"its VTEP v is not in the plan", true, []*Resource{network, NewPort(1, &planv1.Port{Uid: "p", Network: "n", Macs: [][]byte{mac}, Vtep: "v"})}},
		"VTEP no address":    {"it has no address", true, []*Resource{NewVTEP(1, &planv1.Vtep{Uid: "v", UdpPort: 1})}},
		"VTEP odd address":   {"an address has 5 octets", true, []*Resource{NewVTEP(1, &planv1.Vtep{Uid: "v", UdpPort: 1, Addresses: [][]byte{{1, 2, 3, 4, 5}}})}},
		"VTEP zero address":  {"0.0.0.0 cannot be", true, []*Resource{NewVTEP(1, &planv1.Vtep{Uid: "v", UdpPort: 1, Addresses: [][]byte{{0, 0, 0, 0}}})}},
		"VTEP two addresses": {"more than one address of a family", true, []*Resource{NewVTEP(1, &planv1.Vtep{Uid: "v", UdpPort: 1, Addresses: [][]byte{{1, 2, 3, 4}, {1, 2, 3, 5}}})}},
		"UDP port":           {"UDP port 0 is outside", true, []*Resource{NewVTEP(1, &planv1.Vtep{Uid: "v", Addresses: [][]byte{{1, 2, 3, 4}}})}},
		"other host":         {"another host than h", true, []*Resource{NewHost(1, &planv1.Host{Uid: "g"})}},
		"feature":            {`needs the feature "groups"`, true, []*Resource{NewNetwork(1, &planv1.Network{Uid: "n", Vni: 1, Mtu: 1450}, "known", "groups")}},
		"external missing":   {"it names VTEP w", false, []*Resource{NewNetwork(1, &planv1.Network{Uid: "n", Vni: 1, Mtu: 1450, External: []*planv1.ExternalVtep{{Vtep: "w"}}})}},
		"network missing":    {"it names network n", false, []*Resource{NewHost(1, &planv1.Host{Uid: "h", Networks: []string{"n"}})}},
	} {
		t.Run(name, func(t *testing.T) {
			problems := Check(NewSet(c.set...), "h", []string{"known"})
			if len(problems) == 0 || !strings.Contains(problems[0].Message, c.want) || problems[0].Holds != c.holds {
				t.Fatalf("expected %q, got %v", c.want, problems)
			}
		})
	}
	good := NewSet(network, testNetwork("m", 5001), testVTEP("v"), NewHost(1, &planv1.Host{Uid: "h", Networks: []string{"n"}, Vteps: []string{"v"}}),
		NewPort(1, &planv1.Port{Uid: "p", Network: "n", Macs: [][]byte{mac}, Vtep: "v", Ips: []string{"10.0.0.1/24", "fd00::1/64"}}))
	if problems := Check(good, "h", nil); len(problems) != 0 {
		t.Fatalf("a good plan has %v", problems)
	}
}

// TestCheckerFollows: step by step the checker says what one over the whole set says, and tells of everybody whose state
// changed. Red when Checker.neighbours leaves out the old VNI.
func TestCheckerFollows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set := NewSet()
		c := NewChecker("", nil)
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			before := map[Key]string{}
			for r := range set.All() {
				before[r.Key()] = c.Held(r.Key())
			}
			var upserts, removed []*Resource
			named := map[Key]bool{}
			for range rapid.IntRange(0, 4).Draw(t, "changes") {
				r := draw(t)
				if named[r.Key()] {
					continue
				}
				named[r.Key()] = true
				if rapid.IntRange(0, 2).Draw(t, "remove") > 0 {
					if set.Put(r) {
						upserts = append(upserts, r)
					}
				} else if old := set.Remove(r.Key()); old != nil {
					removed = append(removed, old)
				}
			}
			told := c.Apply(upserts, removed)
			if got, want := c.Problems(), Check(set, "", nil); !slices.Equal(got, want) {
				t.Fatalf("problems are %v and should be %v", got, want)
			}
			for r := range set.All() {
				k := r.Key()
				if changed := c.Held(k) != before[k]; !named[k] && changed != slices.Contains(told, k) {
					t.Fatalf("%s: changed %v, told %v", k, changed, told)
				}
			}
		}
	})
}
