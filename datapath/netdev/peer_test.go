package netdev

import (
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"syscall"
	"testing"
)

// TestFindPeer: by a hint, by name, and of a namespace that only a process keeps. Red when the namespace's number is not compared (the
// first one that has an interface of that index is taken), or when /proc is not searched.
func TestFindPeer(t *testing.T) {
	a, b := pair(t)
	decoy := namespace(t, "decoy") // has interfaces with the same indexes
	_, _, err := decoy.EnsureVeth(Veth{Name: "d0", Peer: VethPeer{Name: "d1"}})
	must(t, err)
	for _, first := range [][]string{nil, {decoy.String()}, {b.String()}, {"/nowhere"}} {
		p, err := a.FindPeer("up", first...)
		must(t, err)
		if !p.Namespace.Same(b) || p.Link.Name != "eth0" || p.Link.MAC != macB {
			t.Errorf("after %q: found %s in %s, want eth0 in %s", first, p.Link.Name, p.Namespace, b)
		}
		p.Close()
	}
	sleeper := exec.Command("sleep", "1000")
	sleeper.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	must(t, sleeper.Start())
	t.Cleanup(func() { _ = sleeper.Process.Kill(); _ = sleeper.Wait() })
	unnamed := try(OpenPath(fmt.Sprintf("/proc/%d/ns/net", sleeper.Process.Pid)))(t)
	_, _, err = a.EnsureVeth(Veth{Name: "p0", Peer: VethPeer{Namespace: unnamed, Name: "inside"}})
	must(t, err)
	unnamed.Close()
	p := try(a.FindPeer("p0"))(t)
	if want := fmt.Sprintf("/proc/%d/ns/net", sleeper.Process.Pid); p.Link.Name != "inside" || p.Path != want {
		t.Errorf("found %s by %s, want inside by %s", p.Link.Name, p.Path, want)
	}
	p.Close()
}

// Red when an interface without another end, or with both here, is not refused by name.
func TestFindPeerOfNone(t *testing.T) {
	a := namespace(t, "a")
	must(t, a.AddBridge("br0", 1500))
	_, _, err := a.EnsureVeth(Veth{Name: "v0", Peer: VethPeer{Name: "v1"}})
	must(t, err)
	for _, name := range []string{"br0", "v0"} {
		if _, err := a.FindPeer(name); !errors.Is(err, ErrNoPeer) {
			t.Errorf("%s: %v, want ErrNoPeer", name, err)
		}
	}
	if _, err := a.FindPeer("none"); !errors.Is(err, ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of none: %v, want ErrNotFound", err)
	}
}

// TestWatchXDP: the other end's GRO is seen here at once. Red when the group is not joined, or another attribute read for the index.
func TestWatchXDP(t *testing.T) {
	a, b := pair(t)
	must(t, b.SetFeature("eth0", GRO, true))
	events := try(a.WatchXDP(t.Context()))(t)
	if first := <-events; first != 0 {
		t.Errorf("the first event is about %d, want 0: any", first)
	}
	up := try(a.LinkByName("up"))(t)
	must(t, b.SetFeature("eth0", GRO, false))
	await(t, "an event about the interface whose peer changed", func() bool {
		select {
		case index := <-events:
			return index == up.Index
		default:
			return false
		}
	})
}
