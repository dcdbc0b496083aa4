package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/lab/probe"
	"github.com/weftnet/weft/wire"
)

// Moving is a workload that moves: while it does, its namespace has an interface from the host that it leaves and one from the host that it
// goes to, with the same MAC and addresses, and uses one of them. Its sockets stay, so that its TCP connections can; what is delivered by the
// interface that it does not use is delivered where it is not.
//
//	source - eth0 [ namespace ] eth1 - target          after it: eth1 alone, and the next move makes eth0
type Moving struct {
	probe.Place
	// Peers are who it speaks to.
	Peers []probe.Place
	// Interface that it uses.
	Interface string
	// neighbours are the peers' MACs, which a machine that moves takes along.
	neighbours map[netip.Addr]wire.MAC
}

// Other is the interface that it does not use.
func (m *Moving) Other() string {
	if m.Interface == "eth0" {
		return "eth1"
	}
	return "eth0"
}

// Know reads the peers' MACs. It is the first thing to do.
func (m *Moving) Know() error {
	m.neighbours = map[netip.Addr]wire.MAC{}
	for _, p := range m.Peers {
		eth0, err := p.Netns.LinkByName("eth0")
		if err != nil {
			return err
		}
		m.neighbours[p.Addr] = eth0.MAC
	}
	return nil
}

// Bring has the other interface know what the workload knows.
func (m *Moving) Bring() error {
	l, err := m.Netns.LinkByName(m.Other())
	if err != nil {
		return err
	}
	for ip, mac := range m.neighbours {
		if err := m.Netns.SetNeighbour(l.Index, ip, mac); err != nil {
			return err
		}
	}
	return nil
}

// Turn has the workload use its other interface, for good. The pause is that of a machine which stops in one place and goes on in another, and is
// nothing here.
func (m *Moving) Turn(x *probe.Exchange) error {
	l, err := m.Netns.LinkByName(m.Other())
	if err != nil {
		return err
	}
	if x != nil {
		x.Only(l.Index)
	}
	for ip := range m.neighbours {
		r := netdev.Route{Dst: netip.PrefixFrom(ip, ip.BitLen()), Hops: []netdev.Hop{{Index: l.Index}}, Source: m.Addr}
		if err := m.Netns.ReplaceRoute(r); err != nil {
			return err
		}
	}
	m.Interface = m.Other()
	return nil
}

// Mover moves a workload, in one way or another.
type Mover interface {
	Name() string
	Workload() *Moving
	// Prepare ends what an earlier move left, and does what can be done before the workload stops; Flip says that it goes on in the other place, and
	// returns when whoever was told says that it is done; Finish waits until the last move is over.
	Prepare(context.Context) error
	Flip(context.Context) error
	Finish(context.Context) error
	// Close takes it away.
	Close(context.Context) error
}

// MoveSample is what a move did to the traffic.
type MoveSample struct {
	// InGap and OutGap are the longest between two arrivals, to and from the workload, by the receivers' clocks.
	InGap, OutGap time.Duration
	// InLost and OutLost are the longest between the sendings of the datagrams before and behind a run that did not come, by the senders' clocks.
	InLost, OutLost time.Duration
	// InStill and OutStill are InGap and OutGap of as much traffic without a move, just before it: what the machine does by itself.
	InStill, OutStill time.Duration
	// Flip is how long it took to say it.
	Flip time.Duration
}

// MeasureMove moves a workload once, with traffic before and after of so many datagrams each way. It does not wait until the move is over.
func MeasureMove(ctx context.Context, m Mover, x *probe.Exchange, datagrams uint64) (s MoveSample, err error) {
	w := m.Workload()
	if err := m.Prepare(ctx); err != nil {
		return s, fmt.Errorf("prepare: %w", err)
	}
	if err := w.Bring(); err != nil {
		return s, err
	}
	x.Forget()
	if err := passed(ctx, x, datagrams); err != nil {
		return s, err
	}
	in, out := x.Count()
	s.InStill, s.OutStill = in.LongestGap, out.LongestGap
	x.Forget()
	began := time.Now()
	if err := errors.Join(w.Turn(x), m.Flip(ctx)); err != nil {
		return s, fmt.Errorf("flip: %w", err)
	}
	s.Flip = time.Since(began)
	if err := passed(ctx, x, datagrams); err != nil {
		return s, err
	}
	in, out = x.Count()
	s.InGap, s.OutGap, s.InLost, s.OutLost = in.LongestGap, out.LongestGap, in.LongestSilence, out.LongestSilence
	return s, nil
}

// passed waits until so many datagrams more have arrived at both ends.
func passed(ctx context.Context, x *probe.Exchange, datagrams uint64) error {
	in, out := x.Count()
	in0, out0 := in.Received, out.Received
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		in, out := x.Count()
		if in.Received >= in0+datagrams && out.Received >= out0+datagrams {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %d datagrams each way arrive: %d to the workload and %d from it did: %w", datagrams, in.Received-in0, out.Received-out0, context.Cause(ctx))
		case <-tick.C:
		}
	}
}
