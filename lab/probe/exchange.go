package probe

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/weftnet/weft/datapath/netdev"
)

// Place is a namespace and the address that it is reached at.
type Place struct {
	Netns *netdev.Handle
	Addr  netip.Addr
}

// Exchange is what a workload and its peers say to each other all the time: numbered datagrams at a steady rate both ways, and TCP
// connections that either end has opened. The workload may have several interfaces, and change from one to another.
type Exchange struct {
	in, out  []*SequenceReceiver
	senders  []*SequenceSender // of in and out, in turns
	echoes   []*Echo
	sessions []*Session
}

const (
	exchangeEcho     = 7100
	exchangeSequence = 7101
	sessionInterval  = 10 * time.Millisecond
)

// StartExchange begins with a rate in packets a second for each way, shared by the peers, and two connections with each peer.
func StartExchange(ctx context.Context, at Place, peers []Place, rate int) (_ *Exchange, err error) {
	x := &Exchange{}
	defer func() {
		if err != nil {
			x.Stop()
		}
	}()
	if err := x.echo(ctx, at.Netns); err != nil {
		return nil, err
	}
	each := (rate + len(peers) - 1) / len(peers)
	for i, p := range peers {
		if err := x.echo(ctx, p.Netns); err != nil {
			return nil, err
		}
		for _, way := range []struct {
			from, to Place
			list     *[]*SequenceReceiver
		}{{p, at, &x.in}, {at, p, &x.out}} {
			if err := x.session(ctx, way.from, way.to); err != nil {
				return nil, err
			}
			if err := x.number(ctx, way.from, way.to, exchangeSequence+i, each, way.list); err != nil {
				return nil, err
			}
		}
	}
	return x, nil
}

func (x *Exchange) echo(ctx context.Context, ns *netdev.Handle) error {
	e, err := StartEcho(ctx, ns, exchangeEcho)
	if err == nil {
		x.echoes = append(x.echoes, e)
	}
	return err
}

func (x *Exchange) session(ctx context.Context, from, to Place) error {
	s, err := StartSession(ctx, from.Netns, to.Addr, exchangeEcho, sessionInterval)
	if err == nil {
		x.sessions = append(x.sessions, s)
	}
	return err
}

func (x *Exchange) number(ctx context.Context, from, to Place, l4port, rate int, list *[]*SequenceReceiver) error {
	tag := NewSequenceTag()
	r, err := StartSequenceReceiver(ctx, to.Netns, to.Addr.Is6(), l4port, tag)
	if err != nil {
		return err
	}
	*list = append(*list, r)
	s, err := StartSequenceSender(ctx, from.Netns, netip.AddrPortFrom(to.Addr, uint16(l4port)), rate, tag)
	if err == nil {
		x.senders = append(x.senders, s)
	}
	return err
}

// Only has the workload take datagrams from one of its interfaces alone, by its index: what comes by another was delivered where the workload is
// not any more, or not yet.
func (x *Exchange) Only(index int) {
	for _, r := range x.in {
		r.Only(index)
	}
}

// Forget begins anew with what is the longest.
func (x *Exchange) Forget() {
	for _, list := range [][]*SequenceReceiver{x.in, x.out} {
		for _, r := range list {
			r.Forget()
		}
	}
}

// Count sums up what was received so far: to the workload, and from it. Of the senders' side it knows nothing.
func (x *Exchange) Count() (in, out SequenceResult) { return sum(x.in), sum(x.out) }

func sum(list []*SequenceReceiver) (all SequenceResult) {
	for _, r := range list {
		all.Add(r.Result())
	}
	return all
}

// Add adds another's counts, and takes the longer of what is longest.
func (all *SequenceResult) Add(r SequenceResult) {
	all.Sent += r.Sent
	all.Received += r.Received
	all.Lost += r.Lost
	all.Duplicated += r.Duplicated
	all.Reordered += r.Reordered
	all.Elsewhere += r.Elsewhere
	all.Unsent += r.Unsent
	all.LongestGap = max(all.LongestGap, r.LongestGap)
	all.LongestRun = max(all.LongestRun, r.LongestRun)
	all.LongestSilence = max(all.LongestSilence, r.LongestSilence)
}

// ExchangeResult is what came of it.
type ExchangeResult struct {
	// In is to the workload, Out from it.
	In, Out SequenceResult
	// Sessions are TCP connections, Exchanges their questions with an answer, Broken why some ended.
	Sessions    int
	Exchanges   uint64
	LongestWait time.Duration
	Broken      []error
}

// Stop ends it and reports. Call it once.
func (x *Exchange) Stop() (ExchangeResult, error) {
	var r ExchangeResult
	var errs []error
	var sent []SequenceResult
	for _, s := range x.senders {
		sent = append(sent, s.Stop())
		errs = append(errs, s.err)
	}
	var draining sync.WaitGroup
	for _, list := range [][]*SequenceReceiver{x.in, x.out} {
		for _, r := range list {
			draining.Go(r.Drain)
		}
	}
	draining.Wait()
	all := 0
	for i := range max(len(x.in), len(x.out)) {
		for _, way := range []struct {
			list []*SequenceReceiver
			to   *SequenceResult
		}{{x.in, &r.In}, {x.out, &r.Out}} {
			if i >= len(way.list) {
				continue
			}
			got := way.list[i].Stop()
			if all < len(sent) {
				got.Sent, got.Unsent, got.Lost = sent[all].Sent, sent[all].Unsent, sent[all].Sent-got.Received
			}
			all++
			way.to.Add(got)
		}
	}
	for _, s := range x.sessions {
		got := s.Stop()
		r.Sessions++
		r.Exchanges += got.Exchanges
		r.LongestWait = max(r.LongestWait, got.LongestWait)
		if got.Err != nil {
			r.Broken = append(r.Broken, got.Err)
		}
	}
	for _, e := range x.echoes {
		e.Close()
	}
	return r, errors.Join(errs...)
}
