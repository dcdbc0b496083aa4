package probe

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/internal/testenv"
)

var (
	addrA, addrB = netip.MustParseAddr("10.8.0.1"), netip.MustParseAddr("10.8.0.2")
	addrA6       = netip.MustParseAddr("fd08::1")
	addrB6       = netip.MustParseAddr("fd08::2")
)

func two(t *testing.T) (a, b *netdev.Handle) {
	t.Helper()
	testenv.Require(t, "root")
	open := func(suffix string) *netdev.Handle {
		name := fmt.Sprintf("wefttest-lab-probe-%d-%s", os.Getpid(), suffix)
		if err := netdev.CreateNamespace(name); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { netdev.DeleteNamespace(name) })
		h, err := netdev.OpenName(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(h.Close)
		return h
	}
	a, b = open("a"), open("b")
	_, _, err := a.EnsureVeth(netdev.Veth{Name: "eth0", Addresses: []netip.Prefix{netip.PrefixFrom(addrA, 24), netip.MustParsePrefix("fd08::1/64")},
		Peer: netdev.VethPeer{Namespace: b, Name: "eth0", Addresses: []netip.Prefix{netip.PrefixFrom(addrB, 24), netip.PrefixFrom(addrB6, 64)}}})
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestPingCountsAnswers(t *testing.T) {
	a, _ := two(t)
	for _, dst := range []netip.Addr{addrB, addrB6} {
		if err := PingUntil(limited(t), a, dst); err != nil {
			t.Fatal(err)
		}
		r, err := Ping(limited(t), a, dst, PingConfig{Count: 5, Interval: time.Millisecond})
		if err != nil || !r.Complete() || len(r.RTT) != 5 || r.RTT[0] <= 0 {
			t.Errorf("%s: %+v, %v", dst, r, err)
		}
	}
	r, _ := Ping(limited(t), a, netip.MustParseAddr("10.8.0.99"), PingConfig{Timeout: 50 * time.Millisecond})
	if r.Received != 0 || r.Complete() {
		t.Errorf("an answer from nobody: %+v", r)
	}
}

func TestStreamMeasuresAndSessionSurvivesAnAddressThatGoesAndComes(t *testing.T) {
	a, b := two(t)
	for try := 1; ; try++ { // a machine that stands still meanwhile measures little
		r, err := Stream(limited(t), a, b, addrB, 200*time.Millisecond)
		if err == nil && r.Gbps() >= 0.05 && r.Duration <= 250*time.Millisecond {
			break
		}
		if err != nil || try == 5 {
			t.Errorf("%+v = %f Gb/s, %v", r, r.Gbps(), err)
			break
		}
	}
	e, err := StartEcho(t.Context(), b, 7000)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	s, err := StartSession(limited(t), a, addrB, 7000, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	wait(t, "exchanges", func() bool { return s.Result().Exchanges > 5 })
	if err := b.DeleteAddress("eth0", netip.PrefixFrom(addrB, 24)); err != nil {
		t.Fatal(err)
	}
	n := s.Result().Exchanges
	if err := b.AddAddress("eth0", netip.PrefixFrom(addrB, 24)); err != nil {
		t.Fatal(err)
	}
	wait(t, "exchanges afterwards", func() bool { return s.Result().Exchanges > n+5 })
	if r := s.Stop(); r.Err != nil || r.LongestWait <= 0 {
		t.Errorf("%+v", r)
	}
	s, err = StartSession(limited(t), a, addrB, 7000, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	e.Close()
	wait(t, "the end is noticed", func() bool { return s.Result().Err != nil })
	if r := s.Stop(); r.Err == nil {
		t.Error("a broken connection is no error")
	}
}

// TestEchoClosesWhatJustCame turns red, or never ends, when Close leaves out a connection that was accepted and not yet kept.
func TestEchoClosesWhatJustCame(t *testing.T) {
	a, b := two(t)
	if err := PingUntil(limited(t), a, addrB); err != nil {
		t.Fatal(err)
	}
	for range 200 {
		e, err := StartEcho(t.Context(), b, 7000)
		if err != nil {
			t.Fatal(err)
		}
		s, err := StartSession(limited(t), a, addrB, 7000, time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		e.Close()
		wait(t, "the end is noticed", func() bool { return s.Result().Err != nil })
		s.Stop()
	}
}

func wait(t *testing.T, what string, cond func() bool) {
	t.Helper()
	ctx := limited(t)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-ctx.Done():
			t.Fatalf("not in time: %s", what)
		case <-tick.C:
		}
	}
}

// Goes red when loss, a second arrival or a late one is counted as an arrival, or when the receiver's highest number is not kept and a run of
// lost ones with it.
func TestSequenceCountsLoss(t *testing.T) {
	a, b := two(t)
	if err := PingUntil(limited(t), a, addrB); err != nil {
		t.Fatal(err)
	}
	q, err := StartSequence(t.Context(), a, b, addrB, 7001, 10000)
	if err != nil {
		t.Fatal(err)
	}
	wait(t, "2,000 are sent", func() bool { s, _ := b.Stats("eth0"); return s.RxPackets > 2000 })
	r, err := q.Stop()
	if err != nil || r.Sent < 1900 || r.Lost != 0 || r.Duplicated != 0 || r.Reordered != 0 || r.Received != r.Sent {
		t.Errorf("on a good link: %+v, %v", r, err)
	}
	q, err = StartSequence(t.Context(), a, b, addrB, 7001, 10000)
	if err != nil {
		t.Fatal(err)
	}
	// From when it is called: what was due while the sender stood still goes out at once, and is not to make up for what comes later.
	passed := func(n uint64) func() bool {
		before, _ := a.Stats("eth0")
		began := time.Now()
		return func() bool {
			s, _ := a.Stats("eth0")
			return s.TxPackets+s.TxDropped > before.TxPackets+before.TxDropped+n && time.Since(began) > 20*time.Millisecond
		}
	}
	wait(t, "some are sent", passed(200))
	if err := b.DeleteAddress("eth0", netip.PrefixFrom(addrB, 24)); err != nil {
		t.Fatal(err)
	}
	wait(t, "some are lost", passed(300))
	if err := b.AddAddress("eth0", netip.PrefixFrom(addrB, 24)); err != nil {
		t.Fatal(err)
	}
	wait(t, "some arrive again", passed(300))
	r, err = q.Stop()
	if err != nil || r.Lost < 100 || r.Received < 200 || r.Lost+r.Received != r.Sent || r.LongestGap < 10*time.Millisecond ||
		r.LongestRun < 100 || r.LongestRun > r.Lost || r.LongestSilence < 10*time.Millisecond {
		t.Errorf("with an outage: %+v, %v", r, err)
	}
}

// Goes red when what comes by another interface is taken, or when a number that came by both is not told.
func TestSequenceTakesFromOneInterfaceOnly(t *testing.T) {
	r := &SequenceReceiver{}
	r.Only(7)
	for _, d := range []struct{ index, number int }{{7, 1}, {6, 2}, {7, 2}, {7, 3}, {6, 3}, {6, 4}} {
		r.take(time.Now(), d.index, uint64(d.number), 0)
	}
	if got := r.Result(); got.Received != 2 || got.Elsewhere != 3 || got.Duplicated != 2 {
		t.Errorf("%+v", got)
	}
	a, b := two(t)
	eth0, err := b.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	for _, dst := range []netip.Addr{addrB, addrB6} {
		if err := PingUntil(limited(t), a, dst); err != nil {
			t.Fatal(err)
		}
		for _, index := range []int{eth0.Index, eth0.Index + 1} {
			x, err := StartExchange(limited(t), Place{b, dst}, []Place{{a, map[netip.Addr]netip.Addr{addrB: addrA, addrB6: addrA6}[dst]}}, 1000)
			if err != nil {
				t.Fatal(err)
			}
			x.Only(index)
			wait(t, "some come", func() bool { in, out := x.Count(); return in.Received+in.Elsewhere > 20 && out.Received > 20 })
			res, err := x.Stop()
			if own := index == eth0.Index; err != nil || own != (res.In.Elsewhere == 0) || own != (res.In.Lost == 0) || res.Exchanges == 0 || res.Sessions != 2 || len(res.Broken) > 0 {
				t.Errorf("%s, only interface %d of %d: %+v, %v", dst, index, eth0.Index, res, err)
			}
		}
	}
}

func TestWitnessTellsWhoseFramesArrive(t *testing.T) {
	a, b := two(t)
	wa, err := StartWitness(t.Context(), a, "eth0", "acme/a")
	if err != nil {
		t.Fatal(err)
	}
	defer wa.Close()
	wb, err := StartWitness(t.Context(), b, "eth0", "acme/b")
	if err != nil {
		t.Fatal(err)
	}
	defer wb.Close()
	for _, dst := range []netip.Addr{addrB, netip.MustParseAddr("10.8.0.255"), addrB6, netip.MustParseAddr("ff02::1")} {
		if err := wa.Shout(dst, 3); err != nil {
			t.Fatal(err)
		}
	}
	if !wb.Await(limited(t), func(seen, _ map[string]int) bool { return seen["acme/a"] == 12 }) {
		t.Errorf("b saw %v", wb.Seen())
	}
	if !wa.Await(limited(t), func(_, answers map[string]int) bool { return answers["acme/b"] == 12 }) {
		t.Errorf("a was answered by %v", wa.Answers())
	}
	if len(wa.Seen()) != 0 {
		t.Errorf("a saw %v", wa.Seen())
	}
	if who, ok := marked([]byte(strings.Repeat("x", 50)+shoutMark+"nobody"), shoutMark); ok {
		t.Errorf("a cut mark was read as %q", who)
	}
}

func TestArrivalsWaitForEveryKnocker(t *testing.T) {
	a, b := two(t)
	l, err := ListenArrivals(t.Context(), b, false)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for i := range uint32(2) {
		k, err := StartKnock(t.Context(), a, addrB, i)
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
	}
	if _, err := l.Wait(limited(t), 2); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := l.Wait(ctx, 3); err == nil {
		t.Error("a third knocker was heard")
	}
}

func TestSpreadSendsEveryFlow(t *testing.T) {
	a, b := two(t)
	if err := PingUntil(limited(t), a, addrB); err != nil {
		t.Fatal(err)
	}
	before, _ := b.Stats("eth0")
	if n, err := Spread(t.Context(), a, addrB, 100, 3); err != nil || n != 300 {
		t.Fatalf("%d, %v", n, err)
	}
	wait(t, "300 datagrams arrive", func() bool { s, _ := b.Stats("eth0"); return s.RxPackets >= before.RxPackets+300 })
}
