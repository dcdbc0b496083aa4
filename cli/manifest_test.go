package cli

import (
	"strings"
	"testing"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
)

// Every field of every spec can be written in a manifest, by both of its names.
func TestManifestKnowsEveryField(t *testing.T) {
	const all = `
kind: Network
tenant: acme
name: blue
spec:
  vni: 5001
  %s: lab
  subnets: [10.1.0.0/24]
  mtu: 1400
  %s: UNKNOWN_UNICAST_DROP
  dscp: uniform
  neighbours: flood
  flood: multicast
  group: 239.1.1.1
  %s: groups
  %s: 500
  learning: {ageing: 90s, vtep_limit: 100, port_limit: 10, sources: [198.51.100.0/24]}
  vteps: [{vtep: ext1, macs: ["02:00:00:00:00:01"]}]
  dhcp:
    disabled: true
    gateways: [10.1.0.1]
    dns_servers: [10.1.0.53]
    domain: example.org
    routes: [{prefix: 10.9.0.0/16, gateway: 10.1.0.9}]
    lease_time: 12h
  description: first
---
kind: Port
tenant: acme
name: web1
spec:
  network: blue
  macs: ["02:00:00:00:00:01"]
  ips: [10.1.0.5]
  unguarded: true
  forwarding: true
  dhcp_server: true
  router: true
  hostname: www
  %s: xdp
  %s: [{mac: "02:00:00:00:00:02", ip: 10.1.0.6}]
  description: x
  %s: 50
---
kind: VTEP
name: ext1
spec: {address: 192.0.2.9, %s: 8472, %s: true, description: x}
---
kind: VNIPool
name: lab
spec: {first: 1, last: 9, description: x}
---
kind: GroupPool
name: groups
spec: {first: 239.1.0.0, last: 239.1.0.255, %s: 4, description: x}
---
kind: Tenant
name: acme
spec: {description: x}
`
	for _, names := range [][]string{
		{"vni_pool", "unknown_unicast", "group_pool", "bum_limit", "fast_path", "allowed_address_pairs", "bum_limit", "udp_port", "outer_checksum", "networks_per_group"},
		{"vniPool", "unknownUnicast", "groupPool", "bumLimit", "fastPath", "allowedAddressPairs", "bumLimit", "udpPort", "outerChecksum", "networksPerGroup"},
	} {
		text := all
		for _, n := range names {
			text = strings.Replace(text, "%s", n, 1)
		}
		docs, wrong := readManifest("all.yaml", strings.NewReader(text), "")
		if len(wrong) > 0 || len(docs) != len(kinds) {
			t.Fatalf("%d documents, %v", len(docs), wrong)
		}
		for _, d := range docs {
			m := d.spec.ProtoReflect()
			for i := range m.Descriptor().Fields().Len() {
				if fd := m.Descriptor().Fields().Get(i); !m.Has(fd) {
					t.Errorf("%s: %s is not set: say it in this test", d, fd.Name())
				}
			}
		}
	}
}

// TestManifestFloodMethod: each method is called what the flag calls it. Red when shortName takes one word of a value for all of it.
func TestManifestFloodMethod(t *testing.T) {
	for text, want := range map[string]weftv1.FloodMethod{
		"head-end": weftv1.FloodMethod_FLOOD_METHOD_HEAD_END, "head_end": weftv1.FloodMethod_FLOOD_METHOD_HEAD_END,
		"multicast": weftv1.FloodMethod_FLOOD_METHOD_MULTICAST, "FLOOD_METHOD_MULTICAST": weftv1.FloodMethod_FLOOD_METHOD_MULTICAST,
	} {
		docs, wrong := readManifest("f.yaml", strings.NewReader("kind: Network\nname: a\ntenant: t\nspec: {flood: "+text+"}"), "")
		if len(wrong) > 0 || len(docs) != 1 {
			t.Errorf("%s: %d documents, %v", text, len(docs), wrong)
			continue
		}
		if have := docs[0].spec.(*weftv1.NetworkSpec).GetFlood(); have != want {
			t.Errorf("%s is %s", text, have)
		}
	}
}

func TestSameSpec(t *testing.T) {
	written := &weftv1.PortSpec{Network: "blue", Macs: []string{"02:00:00:00:00:0A"}, Ips: []string{"FD00:1:0::5"},
		AllowedAddressPairs: []*weftv1.AddressPair{{Mac: "02:00:00:00:00:0B", Ip: "fd00::0:1"}}}
	kept := &weftv1.PortSpec{Network: "blue", Macs: []string{"02:00:00:00:00:0a"}, Ips: []string{"fd00:1::5"},
		AllowedAddressPairs: []*weftv1.AddressPair{{Mac: "02:00:00:00:00:0b", Ip: "fd00::1"}}}
	if !sameSpec(written, kept) {
		t.Error("the same addresses, written in another way, differ")
	}
	if written.GetMacs()[0] != "02:00:00:00:00:0A" {
		t.Error("comparing changed what was written")
	}
	if !sameSpec(&weftv1.NetworkSpec{Group: "FF05::0:1"}, &weftv1.NetworkSpec{Group: "ff05::1"}) {
		t.Error("the same group, written in another way, differs")
	}
	kept.Ips = []string{"fd00:1::6"}
	if sameSpec(written, kept) {
		t.Error("another address is the same")
	}
}

func FuzzManifest(f *testing.F) {
	f.Add("kind: Tenant\nname: a\nspec: {description: x}\n---\n[1, {a: *b}]")
	f.Add("kind: Network\nname: a\ntenant: t\nspec: &a\n  vteps: [*a, {vtep: x, macs: [1, [2]]}]\n  ? [x]\n  : y")
	f.Add("a: &a [*a]")
	f.Fuzz(func(t *testing.T, text string) {
		docs, wrong := readManifest("f", strings.NewReader(text), "")
		for _, d := range docs {
			if d.kind == nil || d.name == "" || d.spec == nil || d.kind.owned != (d.tenant != "") {
				t.Errorf("half a document: %+v", d)
			}
		}
		for _, w := range wrong {
			if w.reason == "" || w.fix == "" {
				t.Errorf("a mistake without reason or fix: %+v", w)
			}
		}
	})
}
