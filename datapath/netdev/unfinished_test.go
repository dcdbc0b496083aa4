package netdev

import (
	"errors"
	"testing"
)

// Goes red when a veth whose maker was killed before it could mark it is nobody's, and stays for ever.
func TestUnfinishedVethIsOwned(t *testing.T) {
	host, guest := namespace(t, "host"), namespace(t, "guest")
	v := Veth{Name: PortInterface("x"), Mark: Mark{"default", "x"}, Peer: VethPeer{Namespace: guest, Name: "eth0"}}
	must(t, host.addVeth(v, guest))
	if own := try(host.Owned("other"))(t); len(own) != 0 {
		t.Errorf("another instance owns %v", own)
	}
	if err := host.DeleteOwned(v.Name, "other"); !errors.Is(err, ErrNotOwned) {
		t.Errorf("another instance deletes it: %v", err)
	}
	if own := try(host.Owned("default"))(t); len(own) != 1 || own[0].Name != v.Name || own[0].Alias != "" {
		t.Errorf("own are %v", own)
	}
	must(t, host.DeleteOwned(v.Name, "default"))
	if _, err := guest.LinkByName("eth0"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the far end: %v", err)
	}
	// A veth of somebody else, without the group, is not touched, whatever its name.
	v.Mark = Mark{}
	must(t, host.addVeth(v, guest))
	if own := try(host.Owned("default"))(t); len(own) != 0 {
		t.Errorf("own are %v", own)
	}
}
