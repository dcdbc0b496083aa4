package datapath

import (
	"testing"
	"time"

	"github.com/weftnet/weft/datapath/bpf"
)

// TestBUMLimits: a port, and the ports of a network here together, send so many floods and no more; what is for one receiver, what is answered, and
// other ports' floods are not counted. Red when check_budget is left out of flood_from_port, or one of the two takes is.
func TestBUMLimits(t *testing.T) {
	s := newScene(t, false)
	s.resolve()
	broadcast := out(macAll)
	theirs := frame(t, macAll, s.w3.mac, ip1, ip2, 40)
	few := uint32(2) // half a second apart: the frames of a case come at once
	const atOnce = 400 * time.Millisecond
	for _, c := range []struct {
		name          string
		port, network uint32
		passes        int // of 5, at once
		reason        DropReason
		others        bool // another port may still send
	}{
		{"the port's", few, 0, 2, DropBumPortLimit, true},
		{"the network's", 0, few, 2, DropBumNetworkLimit, false},
		{"the port's, which is the lower", few, 3, 2, DropBumPortLimit, true},
		{"none", 0, 0, 5, 0, true},
		{"changed back", few, 0, 2, DropBumPortLimit, true},
	} {
		var passed int
		var dropped map[DropReason]int
		var another outcome
		await(t, c.name+": the frames come at once", func() bool {
			p := s.w1.port() // without a limit, so that the next has its whole reserve
			must(t, s.a.dp.UpdatePort(p))
			putNetwork(func(n *Network) { n.BUMLimit = 0 })(s)
			p.BUMLimit = c.port
			must(t, s.a.dp.UpdatePort(p))
			putNetwork(func(n *Network) { n.BUMLimit = c.network })(s)
			passed, dropped = 0, map[DropReason]int{}
			begin := time.Now()
			for range 5 {
				if o := s.fromPort(broadcast(s), nil); o.verdict.Reason == 0 {
					passed++
				} else {
					dropped[DropReason(o.verdict.Reason)]++
				}
			}
			another = s.a.run("from_port", s.w3.ifindex, theirs, nil)
			return time.Since(begin) < atOnce
		})
		if passed != c.passes || dropped[c.reason] != 5-c.passes {
			t.Errorf("%s: %d pass, drops %v; want %d, and %s", c.name, passed, dropped, c.passes, c.reason)
		}
		if o := s.fromPort(out(macRemote)(s), nil); o.verdict.Verdict != bpf.TCVerdictKindV_ENCAPSULATED {
			t.Errorf("%s: a frame for one receiver: %s", c.name, o)
		}
		if (another.verdict.Reason == 0) != c.others {
			t.Errorf("%s: another port's: %s", c.name, another)
		}
		putNetwork(func(n *Network) { n.BUMLimit = 0 })(s)
	}
	p := s.w1.port()
	p.BUMLimit = few
	must(t, s.a.dp.UpdatePort(p))
	list, err := s.a.dp.Ports()
	must(t, err)
	for _, have := range list {
		if want := map[PortID]uint32{p.ID: few}[have.ID]; have.BUMLimit != want {
			t.Errorf("port %d has limit %d, want %d", have.ID, have.BUMLimit, want)
		}
	}
	var o outcome
	await(t, "the port's entry is written again, and its frames come at once", func() bool {
		begin := time.Now()
		for range 5 { // applying it again gives no second reserve
			must(t, s.a.dp.UpdatePort(p))
			s.fromPort(broadcast(s), nil)
		}
		o = s.fromPort(broadcast(s), nil)
		return time.Since(begin) < atOnce
	})
	if DropReason(o.verdict.Reason) != DropBumPortLimit {
		t.Errorf("the port's entry was written again: %s", o)
	}
	await(t, "a second brings new frames", func() bool { return s.fromPort(broadcast(s), nil).verdict.Reason == 0 })
	s.a.balanced()
}
