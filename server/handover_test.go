package server

import (
	"testing"
	"time"

	peerv1 "github.com/weftnet/weft/api/gen/peer/v1"
)

// TestBetterOff: hosts are sent away to a server that has the store, and to no other. Break it: let betterOff look at the hosts alone.
func TestBetterOff(t *testing.T) {
	r := newRealisation()
	s := &session{host: "h1", opened: 1, cancel: func(error) {}}
	r.open(s, time.Now())
	away := func(want int, when string) {
		t.Helper()
		if n := len(r.betterOff()); n != want {
			t.Errorf("%s: %d hosts are better off elsewhere, want %d", when, n, want)
		}
	}
	away(0, "alone")
	r.relayed("b", &peerv1.HearResponse{})
	away(0, "the other one has no store")
	r.relayed("c", &peerv1.HearResponse{HasStore: true})
	away(1, "a third has it")
	r.unheard("c", time.Now())
	away(0, "the third is not heard")
}
