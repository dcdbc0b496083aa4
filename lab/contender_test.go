package lab

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/weftnet/weft/lab/probe"
)

// Goes red when the contender is not on the spines' path, or does not carry full packets: then it would be no comparison.
func TestContenderCarriesFullPacketsOverTheSpines(t *testing.T) {
	for _, underlay := range []int{4, 6} {
		t.Run(fmt.Sprintf("IPv%d", underlay), func(t *testing.T) {
			contenderCarries(t, bare(t, Config{Hosts: 2, Spines: 2, Underlay: underlay}))
		})
	}
}

func contenderCarries(t *testing.T, l *Lab) {
	c, err := l.AddContender()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if err := probe.PingUntil(ctx, c.From, c.Address); err != nil {
		t.Fatal(err)
	}
	whole := probe.PingConfig{Count: 20, Size: l.cfg.MTU - l.cfg.overhead() - 28, DontFragment: true}
	before := spineCounts(t, l)
	if r, err := probe.Ping(ctx, c.From, c.Address, whole); err != nil || !r.Complete() {
		t.Errorf("full packets: %+v, %v", r, err)
	}
	after := spineCounts(t, l)
	if n := after[0] + after[1] - before[0] - before[1]; n < 20 {
		t.Errorf("the spines carried %d of 20", n)
	}
	p := Path{c.From, c.To, c.Address}
	got, err := CompareStreams(ctx, p, p, 2, 50*time.Millisecond)
	if m, _, _ := got.Ratio(); err != nil || len(got.A) != 2 || m <= 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if err := c.Remove(); err != nil {
		t.Error(err)
	}
	if _, err := l.Node(contenderWorkload(1)); err == nil {
		t.Error("it is still there")
	}
}

func TestCutTakesTheManagementLinkAlone(t *testing.T) {
	l := bare(t, Config{Hosts: 2, Spines: 1})
	once := probe.PingConfig{Timeout: 100 * time.Millisecond}
	if err := l.Cut("h1"); err != nil {
		t.Fatal(err)
	}
	if r, _ := probe.Ping(t.Context(), node(t, l, "h1"), serverAddr, once); r.Received != 0 {
		t.Error("a host that is cut off reaches the server")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if err := probe.PingUntil(ctx, node(t, l, "h1"), l.cfg.vtepAddr(2)); err != nil {
		t.Errorf("a host that is cut off does not reach its peer: %v", err)
	}
	if err := l.Heal("h1"); err != nil {
		t.Fatal(err)
	}
	if err := probe.PingUntil(ctx, node(t, l, "h1"), serverAddr); err != nil {
		t.Error(err)
	}
}
