package agent

import (
	"context"
	"sync"
	"testing"
	"time"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/plan"
	"github.com/weftnet/weft/wire"
)

// TestAdvertisesUnasked: every port with an IPv6 address is told again and again, to all nodes, and counted; one without is not. Red when advertise ends after a pause, or advertiseAll does not look at the services.
func TestAdvertisesUnasked(t *testing.T) {
	r := newRig(t)
	r.base()
	n := networkOf()
	n.Dhcp = &planv1.Dhcp{Gateways: []string{"fe80::1"}}
	if err := r.send(plan.NewNetwork(r.revision(), n)); err != nil {
		t.Fatal(err)
	}
	at := map[uint32]string{}
	for _, p := range []struct {
		uid string
		ips []string
	}{{"both", []string{"10.1.0.5/24", "fd00:1::5/64"}}, {"four", []string{"10.1.0.6/24"}}} {
		r.links.add("tap-"+p.uid, "tuntap")
		if _, err := r.attach(tapRequest(p.uid, "tap-"+p.uid)); err != nil {
			t.Fatal(err)
		}
		port := portOf(p.uid, "h1", r.revision()-1)
		port.Ips = p.ips
		if err := r.send(plan.NewPort(r.revision(), port)); err != nil {
			t.Fatal(err)
		}
		link, err := r.links.Link("tap-" + p.uid)
		if err != nil {
			t.Fatal(err)
		}
		at[uint32(link.Index)] = p.uid
	}
	var mu sync.Mutex
	told := map[string][][]byte{}
	s := newServant(r.agent, func(ifindex uint32, frame []byte) error {
		mu.Lock()
		defer mu.Unlock()
		told[at[ifindex]] = append(told[at[ifindex]], frame)
		return nil
	})
	if err := r.agent.do(r.ctx, func() { r.agent.servant = s }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.ctx)
	var done sync.WaitGroup
	t.Cleanup(func() { cancel(); done.Wait() })
	done.Go(func() { s.advertise(ctx, func() time.Duration { return time.Millisecond }) })
	r.until("the port is told three times", func() bool { return s.countsOf("both").GetAdvertisements() >= 3 })

	mu.Lock()
	defer mu.Unlock()
	if len(told["both"]) < 3 || len(told) != 1 {
		t.Errorf("told %d times, and %d ports are", len(told["both"]), len(told))
	}
	f, err := wire.ParseFrame(told["both"][0])
	if err != nil || !f.ChecksumOK(told["both"][0]) || f.ICMP.Type != wire.ICMPv6RouterAdvertisement || f.IPv6.Dst != allNodes || f.IPv6.Src.String() != "fe80::1" {
		t.Errorf("no advertisement to all nodes: %v %+v", err, f)
	}
}
