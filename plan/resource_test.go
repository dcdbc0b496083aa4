package plan

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
)

func testNetwork(uid string, vni uint32) *Resource {
	return NewNetwork(1, &planv1.Network{Uid: uid, Vni: vni, Mtu: 1450})
}

func testPort(uid, network, name string) *Resource {
	return NewPort(1, &planv1.Port{Uid: uid, Network: network, Name: name, Macs: [][]byte{{2, 0, 0, 0, 0, 1}}})
}

func testVTEP(uid string) *Resource {
	return NewVTEP(1, &planv1.Vtep{Uid: uid, Addresses: [][]byte{{192, 0, 2, 1}}, UdpPort: 4789})
}

// draw is one of a small universe of resources, of few different contents.
func draw(t *rapid.T) *Resource {
	n := fmt.Sprint("n", rapid.IntRange(0, 2).Draw(t, "network"))
	switch rapid.IntRange(0, 3).Draw(t, "kind") {
	case 0:
		return testNetwork(n, uint32(rapid.IntRange(0, 2).Draw(t, "vni")))
	case 1, 2:
		// The same port may be seen in another network.
		p := &planv1.Port{Uid: fmt.Sprint("p", rapid.IntRange(0, 4).Draw(t, "port")), Network: n, Macs: [][]byte{{2, 0, 0, 0, 0, 1}}}
		p.Vtep = rapid.SampledFrom([]string{"", "v0", "v1"}).Draw(t, "vtep")
		p.Name = rapid.SampledFrom([]string{"a", "b"}).Draw(t, "name")
		return NewPort(1, p)
	default:
		n := rapid.IntRange(0, 1).Draw(t, "vtep")
		v := &planv1.Vtep{Uid: fmt.Sprint("v", n), Addresses: [][]byte{{192, 0, 2, 1}}, External: n == 1}
		v.UdpPort = uint32(rapid.SampledFrom([]int{0, 4789, 8472}).Draw(t, "udp"))
		return NewVTEP(1, v)
	}
}

// TestDigest: whatever was put and removed on the way, a scope's digest is that of what is in it, by the definition in
// plan.proto. Red when Set.Put does not take the old resource out.
func TestDigest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := NewSet()
		for range rapid.IntRange(0, 40).Draw(t, "steps") {
			r := draw(t)
			if rapid.IntRange(0, 2).Draw(t, "remove") == 0 {
				s.Remove(r.Key())
			} else {
				s.Put(r)
			}
		}
		total := 0
		for _, scope := range []string{"network/n0", "network/n1", "network/n2", "vtep/v1", UnderlayScope} {
			var want Digest
			for r := range s.All() {
				if r.Scope != scope {
					continue
				}
				total++
				want.Resources++
				hash := sha256.Sum256(r.Body)
				text := append([]byte{0, 0, 0, byte(r.Kind)}, "/"+r.UID+"/"+string(hash[:])...)
				for i, x := range sha256.Sum256(text) {
					want.Sum[i] ^= x
				}
			}
			if got := s.Digest(scope); got != want || !got.Matches(want.Proto(scope)) {
				t.Fatalf("digest of %s is %x, by definition %x", scope, got, want)
			}
			if (want.Resources > 0) != slices.Contains(s.Scopes(), scope) {
				t.Fatalf("scopes are %v, and %s has %d resources", s.Scopes(), scope, want.Resources)
			}
		}
		if total != s.Len() || len(s.Digests()) != len(s.Scopes()) || !s.Equal(s.Clone()) {
			t.Fatalf("%d in scopes, %d in all", total, s.Len())
		}
	})
}

// TestFromProtoRefuses what is not what it says.
func TestFromProtoRefuses(t *testing.T) {
	good := testPort("p", "n", "web1")
	if r, err := FromProto(good.Proto()); err != nil || r.Port().GetName() != "web1" || r.Key() != good.Key() {
		t.Fatalf("a good one gave %v, %v", r, err)
	}
	for want, spoil := range map[string]func(*planv1.Resource){
		"sha256":       func(m *planv1.Resource) { m.Body = append(slices.Clone(m.Body), 0) },
		"unknown kind": func(m *planv1.Resource) { m.Kind = 99 },
		"decode": func(m *planv1.Resource) {
			m.Body = []byte{0xff}
			sum := sha256.Sum256(m.Body)
			m.Sha256 = sum[:]
		},
		"belongs in":         func(m *planv1.Resource) { m.Scope = "network/other" },
		"says uid":           func(m *planv1.Resource) { m.Uid = "q" },
		"without uid":        func(m *planv1.Resource) { m.Uid = "" },
		"its body says uid ": func(m *planv1.Resource) { m.Kind = planv1.Kind_KIND_VTEP; m.Uid = "x" },
	} {
		m := proto.Clone(good.Proto()).(*planv1.Resource)
		spoil(m)
		if _, err := FromProto(m); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("expected an error with %q, got %v", want, err)
		}
	}
}

func TestSubscription(t *testing.T) {
	got := Subscription(&planv1.Host{Uid: "h", Vtep: "h", Networks: []string{"n"}, Vteps: []string{"i"}})
	if want := []string{"host/h", "underlay", "network/n", "vtep/i"}; !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	for _, bad := range []string{"", "host/", "router/x", "network"} {
		if _, _, ok := SplitScope(bad); ok {
			t.Errorf("%q was taken for a scope", bad)
		}
	}
}
