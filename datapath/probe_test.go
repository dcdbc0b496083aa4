package datapath

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/internal/testenv"
)

// capabilities by interface and name.
func byName(list []Capability) map[string]Capability {
	m := map[string]Capability{}
	for _, c := range list {
		m[strings.TrimPrefix(c.Interface+": ", ": ")+c.Name] = c
	}
	return m
}

// TestProbeKernel: this kernel runs weft, so it can do what weft needs; and what no kernel can do is not found.
// Red when a probe's error is not looked at, or when the program's answer is lost (the flag that does not exist is then accepted).
func TestProbeKernel(t *testing.T) {
	testenv.Require(t, "root")
	got := byName(ProbeKernel())
	for _, name := range []string{CapabilityKernelRelease, CapabilityTCX, CapabilityRedirectPeer, CapabilityBatchUpdates, CapabilityNativeXDP,
		"BPF encapsulation over IPv4", "BPF encapsulation over IPv6", "BPF decapsulation to another IP version"} {
		if c, ok := got[name]; !ok || !c.Present {
			t.Errorf("%q: %+v, %t", name, c, ok)
		}
	}
	if c, ok := got[CapabilityClearGSO]; !ok || c.Present == (c.Detail != "") {
		t.Errorf("%q: %+v, %t: it is there, or there is a reason", CapabilityClearGSO, c, ok)
	}
	for _, c := range got {
		t.Log(c)
	}
	const nobodys = 1 << 40
	if err := tryRoom(-50, roomFixedGSO|roomNoCsumReset); err != nil {
		t.Errorf("taking 50 octets off a tunnel packet: %v", err)
	}
	if err := tryRoom(-50, roomFixedGSO|roomNoCsumReset|nobodys); !errors.Is(err, unix.EINVAL) {
		t.Errorf("with a flag that there is not: %v, want EINVAL", err)
	}
	if err := tryTCX(1 << 30); err == nil {
		t.Error("a tcx link on an interface that is not there")
	}
	if err := tryXDP(1); err == nil { // lo has no native XDP
		t.Error("native XDP on lo")
	}
}

// TestProbeUplink: a veth is a redirect target while its other end has GRO on; a bridge can do nothing with XDP; what is not there says so.
// Red when a capability is taken from another bit, or from the other end.
func TestProbeUplink(t *testing.T) {
	testenv.Require(t, "root")
	spaces := [2]*netdev.Handle{}
	for i := range spaces {
		name := fmt.Sprintf("wefttest-probe-%d-%d", os.Getpid(), i)
		must(t, netdev.CreateNamespace(name))
		t.Cleanup(func() { _ = netdev.DeleteNamespace(name) })
		h, err := netdev.OpenName(name)
		must(t, err)
		t.Cleanup(h.Close)
		spaces[i] = h
	}
	_, _, err := spaces[0].EnsureVeth(netdev.Veth{Name: "up0", Peer: netdev.VethPeer{Namespace: spaces[1], Name: "far0"}})
	must(t, err)
	for _, on := range []bool{false, true} {
		must(t, spaces[1].SetFeature("far0", netdev.GRO, on))
		must(t, spaces[0].SetFeature("up0", netdev.TX, on))
		got := byName(ProbeUplink(spaces[0], "up0"))
		for name, want := range map[string]bool{CapabilityNativeXDP: true, CapabilityXDPTarget: on, "checksum offload": on, "GRO": false} {
			if c, ok := got["up0: "+name]; !ok || c.Present != want {
				t.Errorf("GRO of the other end and TX of this one %t: %s is %+v, want %t", on, name, c, want)
			}
		}
	}
	must(t, spaces[0].AddBridge("br0", 1500))
	if got := byName(ProbeUplink(spaces[0], "br0")); got["br0: "+CapabilityNativeXDP].Present || got["br0: "+CapabilityXDPTarget].Present {
		t.Errorf("a bridge: %v", got)
	}
	if got := ProbeUplink(spaces[0], "none"); len(got) != 1 || got[0].Present || got[0].String() != "none: uplink: no (interface none: no such interface)" {
		t.Errorf("none: %v", got)
	}
}
