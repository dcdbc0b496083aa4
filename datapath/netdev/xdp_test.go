package netdev

import (
	"errors"
	"testing"
)

// Red if dev-get is asked by another attribute number, or in the caller's namespace (Run left out).
func TestXDPFeaturesOfAVethFollowItsPeersGRO(t *testing.T) {
	a, b := pair(t)
	near := try(a.LinkByName("up"))(t)
	must(t, b.SetFeature("eth0", GRO, false))
	f := try(a.XDPFeatures(near.Index))(t)
	if !f.Has(XDPBasic | XDPRedirect | XDPReceiveFragments) {
		t.Errorf("a veth runs programs and redirects from them, but has: %s", f)
	}
	if f.Has(XDPTransmit) {
		t.Errorf("its peer has GRO off and it is a redirect target nevertheless: %s", f)
	}
	must(t, b.SetFeature("eth0", GRO, true))
	if f := try(a.XDPFeatures(near.Index))(t); !f.Has(XDPTransmit | XDPTransmitFragments) {
		t.Errorf("its peer has GRO on and it is no redirect target: %s", f)
	}
}

// Red if a bridge's zero is taken for an answer without the attribute.
func TestXDPFeaturesOfOthers(t *testing.T) {
	h := namespace(t, "x")
	must(t, h.AddBridge("br0", 1500))
	if f := try(h.XDPFeatures(try(h.LinkByName("br0"))(t).Index))(t); f != 0 || f.String() != "none" {
		t.Errorf("a bridge has %s, want none", f)
	}
	if _, err := h.XDPFeatures(4711); !errors.Is(err, ErrNotFound) {
		t.Errorf("of an interface that is not there: %v, want ErrNotFound", err)
	}
}

// Red if an unknown bit is lost, or the list is one name off.
func TestXDPFeatureNames(t *testing.T) {
	for f, want := range map[XDPFeatures]string{
		0:                      "none",
		XDPBasic | XDPTransmit: "basic ndo-xmit",
		XDPRedirect | XDPReceiveFragments | XDPTransmitFragments: "redirect rx-sg ndo-xmit-sg",
		1 << 8: "0x100",
	} {
		if got := f.String(); got != want {
			t.Errorf("%#x is %q, want %q", uint64(f), got, want)
		}
	}
}

// TestFitForXDP: a veth's end leaves nothing beside its frames, and takes redirected ones. Red when a line of FitForXDP is taken out.
func TestFitForXDP(t *testing.T) {
	a, b := pair(t)
	for range 2 { // and again
		must(t, b.FitForXDP("eth0"))
		for f, want := range map[Feature]bool{TX: false, TXVLAN: false, TXServiceVLAN: false, GRO: true} {
			if on := try(b.Feature("eth0", f))(t); on != want {
				t.Errorf("%s is %t", f, on)
			}
		}
	}
	near := try(a.LinkByName("up"))(t)
	if f := try(a.XDPFeatures(near.Index))(t); !f.Has(XDPTransmit) {
		t.Errorf("the other end takes no frames from XDP: %s", f)
	}
}
