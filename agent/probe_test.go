package agent

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/internal/testenv"
	"github.com/weftnet/weft/wire"
)

// pipe is a probeSocket to another one. What is sent to a lane that the other's firewall drops does not arrive.
type pipe struct {
	in, out chan []byte
	// drop says what does not reach this end.
	drop  *atomic.Pointer[func(f wire.Frame) bool]
	other *pipe
	once  sync.Once
}

func newPipes() (*pipe, *pipe) {
	a := &pipe{in: make(chan []byte, 1000), drop: new(atomic.Pointer[func(wire.Frame) bool])}
	b := &pipe{in: make(chan []byte, 1000), drop: new(atomic.Pointer[func(wire.Frame) bool])}
	a.out, b.out, a.other, b.other = b.in, a.in, b, a
	return a, b
}

func (p *pipe) Send(frame []byte, _ int) (err error) {
	defer func() { recover() }() // closed by the other end
	f, err := wire.ParseFrame(frame)
	if err != nil {
		return err
	}
	if drop := p.other.drop.Load(); drop == nil || !(*drop)(f) {
		p.out <- frame
	}
	return nil
}

func (p *pipe) Receive() ([]byte, error) {
	b, ok := <-p.in
	if !ok {
		return nil, io.EOF
	}
	return b, nil
}

func (p *pipe) Close() error { p.once.Do(func() { close(p.in) }); return nil }

var addrs = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}

// pair is two hosts' probers; the verdicts of the first come out of the channel.
func pair(t *testing.T, sockets [2]probeSocket) (*Prober, <-chan string) {
	verdicts := make(chan string, 100)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() { cancel(); running.Wait() })
	var first *Prober
	for i, s := range sockets {
		told := func(_ context.Context, v string) {
			if i == 0 {
				verdicts <- v
			}
		}
		p := NewProber(s, time.Hour, func() string { return "rule 3 of chain \"input\"" }, told, slog.New(slog.DiscardHandler))
		o := addrs[1-i]
		p.SetPeers(fmt.Sprintf("h%d", i+1), addrs[i], map[wire.MAC]peer{oamMAC(o, nativeLane): {uid: fmt.Sprintf("h%d", 2-i), name: fmt.Sprintf("h%d", 2-i), addr: o}})
		running.Go(func() { p.Run(ctx) })
		if i == 0 {
			first = p
		}
	}
	return first, verdicts
}

// next is the verdict of the round that was begun. One in which nobody answered tells none, as when this machine stood still for longer than answers are
// waited for, or when an interface has just come up: then there is another.
func next(t *testing.T, p *Prober, verdicts <-chan string) string {
	t.Helper()
	for range 6 {
		select {
		case v := <-verdicts:
			return v
		case <-time.After(5 * time.Second):
			p.Hurry()
		}
	}
	t.Fatal("no verdict")
	return ""
}

// TestProbe turns red when a blocked kernel lane is not seen, not explained, or not forgotten when it is open again.
func TestProbe(t *testing.T) {
	a, b := newPipes()
	p, verdicts := pair(t, [2]probeSocket{a, b})
	if v := next(t, p, verdicts); v != "" {
		t.Errorf("all is well, and the verdict is %q", v)
	}
	all := func(f wire.Frame) bool { return f.Dst[5]&1 == byte(kernelLane) }
	a.drop.Store(&all)
	p.Hurry()
	if v := next(t, p, verdicts); !strings.Contains(v, "kernel lane blocked") || !strings.Contains(v, "h2") || !strings.Contains(v, "rule 3") {
		t.Errorf("blocked, and the verdict is %q", v)
	}
	bursts := func(f wire.Frame) bool { return f.Has(wire.LayerTCP) }
	a.drop.Store(&bursts)
	p.Hurry()
	if v := next(t, p, verdicts); !strings.Contains(v, "GSO burst") {
		t.Errorf("without bursts the verdict is %q", v)
	}
	none := func(wire.Frame) bool { return false }
	a.drop.Store(&none)
	p.Hurry()
	if v := next(t, p, verdicts); v != "" {
		t.Errorf("open again, and the verdict is %q", v)
	}
}

// TestProbeLosesAnswers turns red when a peer that says no more, after it has shown that the lane is blocked, proves it open.
func TestProbeLosesAnswers(t *testing.T) {
	a, b := newPipes()
	p, verdicts := pair(t, [2]probeSocket{a, b})
	next(t, p, verdicts)
	var answers atomic.Int32
	drop := func(f wire.Frame) bool { // what the watch sends and gets does not count
		h, _ := parseHead(f.Payload)
		return f.Dst[5]&1 == byte(kernelLane) || h.kind == probeAnswer && answers.Add(1) > 1
	}
	a.drop.Store(&drop)
	p.Hurry()
	if v := next(t, p, verdicts); !strings.Contains(v, "kernel lane blocked") {
		t.Errorf("blocked, and the verdict is %q", v)
	}
}

// TestProbeSocket turns red when a GSO burst does not leave as one or does not arrive whole.
func TestProbeSocket(t *testing.T) {
	testenv.Require(t, testenv.Root)
	ns := namespace(t, "oam")
	var sockets [2]probeSocket
	err := ns.Run(func() error {
		if _, _, err := ns.EnsureVeth(netdev.Veth{Name: "p0", Peer: netdev.VethPeer{Name: "p1"}}); err != nil {
			return err
		}
		for i, name := range []string{"p0", "p1"} {
			l, err := ns.LinkByName(name)
			if err != nil {
				return err
			}
			s, err := openProbeSocket(l.Index)
			if err != nil {
				return err
			}
			sockets[i] = s
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	p, verdicts := pair(t, sockets)
	if v := next(t, p, verdicts); v != "" {
		t.Errorf("the verdict is %q", v)
	}
}

// namespace makes one for a test.
func namespace(t *testing.T, name string) *netdev.Handle {
	t.Helper()
	name = "wefttest-agent-" + name
	_ = netdev.DeleteNamespace(name) // of a run that was killed
	if err := netdev.CreateNamespace(name); err != nil {
		t.Fatal(err)
	}
	h, err := netdev.OpenName(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.Close()
		if err := netdev.DeleteNamespace(name); err != nil {
			t.Error(err)
		}
	})
	return h
}

// TestOAMMACs turns red when probes' MACs leave the reserved prefix, or two hosts on one MAC are both probed.
func TestOAMMACs(t *testing.T) {
	w := newWorld(t)
	w.tell("host")
	w.tell("vtep h1 192.0.2.1")
	w.tell("vtep h2 192.0.2.2")
	w.tell("vtep h3 192.0.2.2") // the same address: the same MACs
	w.tell("vtep h4 192.0.2.4")
	w.rec.SetOAM(5)
	w.flush()
	for _, e := range w.kernel.fdb {
		if !e.MAC.IsReserved() {
			t.Errorf("OAM MAC %s", e.MAC)
		}
	}
	var vteps []datapath.VTEPID
	for mac := range w.rec.oam.peers {
		vteps = append(vteps, w.kernel.fdb[datapath.FDBKey{MAC: mac}].VTEP)
	}
	if len(vteps) != 2 || vteps[0] != vteps[1] || w.kernel.vteps[vteps[0]].Addr != netip.MustParseAddr("192.0.2.4") {
		t.Errorf("probed VTEPs: %v", vteps)
	}
	if got := w.kernel.fdb[datapath.FDBKey{MAC: oamMAC(addrs[0], kernelLane)}]; got.Flags != datapath.FDBAllByKernel || got.Ifindex != 5 {
		t.Errorf("own kernel lane entry: %+v", got)
	}
	if _, ok := w.kernel.accepts[datapath.Accept{Addr: addrs[1]}]; !ok || len(w.kernel.accepts) != 2 {
		t.Errorf("accepted: %v", w.kernel.accepts)
	}
	w.check()
}
