package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/lab"
	"github.com/weftnet/weft/lab/probe"
)

// The move measure: a workload that speaks with two peers, all the time and both ways, goes from one host to another and stops for no longer than it
// takes to use another interface. What is measured is how long it was dark, by the senders' clocks: the longest time between the sendings of two
// datagrams that arrived, with none in between that did. Where none was lost that is the time between two datagrams. A receiver's clock would measure
// when it was let run. The underlay is leaves and a spine, the same for all, as three hosts are needed: one that has to hear of it.
//
//	weft                             prepared; at the move the target's agent is told
//	bridge + vxlan, FDB by script    prepared; at the move a script changes the FDB of every host (lab/move.sh), the target's first
//	bridge + vxlan, flood and learn  prepared; at the move the workload announces itself by ARP, and goes on speaking
const (
	moveLab  = benchLab + "-move"
	moveRate = 10_000
	// moveSpan is the datagrams each way before a move and around it: a quarter of a second of them.
	moveSpan = moveRate / 4
)

// moveMeasures are what a sample consists of: each of so many moves.
func moveMeasures(moves int) []Series {
	var all []Series
	for _, way := range []string{"to the workload", "from the workload"} {
		for _, which := range []string{"median", "longest"} {
			all = append(all, Series{Measure: fmt.Sprintf("dark %s, %s of %d moves at %s packets/s", way, which, moves, grouped(moveRate)), Unit: "ms"})
		}
	}
	for i := range all {
		all[i].Reference = (&lab.KernelMover{}).Name()
	}
	return all
}

// moved is what the datagrams and connections of a contender came to.
type moved struct {
	moves int
	probe.ExchangeResult
}

func (f *field) moves(ctx context.Context) (_ []Series, err error) {
	l, err := lab.Up(ctx, lab.Config{Name: moveLab, Spines: 1, Binary: f.cfg.Binary})
	if err != nil {
		return nil, fmt.Errorf("build the moves: %w", err)
	}
	defer func() { err = errors.Join(err, l.Down(context.Background())) }()
	weft, err := weftMoves(ctx, l)
	if err != nil {
		return nil, fmt.Errorf("build the moves: %w", err)
	}
	told, learns, err := l.AddKernelMovers()
	if err != nil {
		return nil, fmt.Errorf("build the moves: %w", err)
	}
	by := map[string]lab.Mover{}
	sums := map[string]*moved{}
	var names []string
	for _, m := range []lab.Mover{weft, told, learns} {
		by[m.Name()], sums[m.Name()], names = m, &moved{}, append(names, m.Name())
		defer func() { err = errors.Join(err, m.Close(context.Background())) }()
	}
	all := moveMeasures(f.cfg.Moves)
	all, err = CompareAll(all, names, f.cfg.Rounds, func(name string) ([]float64, error) {
		return moveSample(ctx, by[name], f.cfg.Moves, sums[name])
	}, f.sampled(&all[0]))
	for _, name := range names {
		f.notes = append(f.notes, sums[name].String(name))
	}
	return all, err
}

func (m *moved) String(name string) string {
	return fmt.Sprintf("%s: %d moves; to the workload %d datagrams sent, %d lost, %d twice, %d reordered; from it %d sent, %d lost, %d twice, %d reordered; %d of %d TCP connections ended",
		name, m.moves, m.In.Sent, m.In.Lost, m.In.Duplicated, m.In.Reordered, m.Out.Sent, m.Out.Lost, m.Out.Duplicated, m.Out.Reordered, len(m.Broken), m.Sessions)
}

// weftMoves are a workload that goes round the lab's three hosts, and its peers.
func weftMoves(ctx context.Context, l *lab.Lab) (lab.Mover, error) {
	api, err := l.Client()
	if err != nil {
		return nil, err
	}
	if _, err := api.Tenants.CreateTenant(ctx, connect.NewRequest(&weftv1.CreateTenantRequest{Name: "bench"})); err != nil {
		return nil, err
	}
	if _, err := api.Networks.CreateNetwork(ctx, connect.NewRequest(&weftv1.CreateNetworkRequest{Tenant: "bench", Name: "path",
		Spec: &weftv1.NetworkSpec{Subnets: []string{"10.99.0.0/24"}}})); err != nil {
		return nil, err
	}
	for _, w := range []struct{ name, host string }{{"mover", "h1"}, {"beside", "h1"}, {"far", "h3"}} {
		if _, err := l.AddWorkload(ctx, lab.WorkloadSpec{Name: w.name, Host: w.host, Tenant: "bench", Network: "path"}); err != nil {
			return nil, err
		}
	}
	return l.NewMover("mover", []string{"h1", "h2", "h3"}, "beside", "far")
}

// movePatience is for one move with everything around it.
const movePatience = 30 * time.Second

// moveSample moves a workload so often under traffic, and adds up what that came to.
func moveSample(ctx context.Context, m lab.Mover, moves int, all *moved) ([]float64, error) {
	w := m.Workload()
	for _, p := range w.Peers {
		if err := probe.PingUntil(ctx, p.Netns, w.Addr); err != nil {
			return nil, err
		}
	}
	x, err := probe.StartExchange(ctx, w.Place, w.Peers, moveRate)
	if err != nil {
		return nil, err
	}
	least := time.Second * time.Duration(len(w.Peers)) / moveRate
	var in, out []time.Duration
	for range moves {
		one, cancel := context.WithTimeout(ctx, movePatience)
		s, merr := lab.MeasureMove(one, m, x, moveSpan)
		cancel()
		if merr != nil {
			err = merr
			break
		}
		in, out = append(in, max(s.InLost, least)), append(out, max(s.OutLost, least))
	}
	r, serr := x.Stop()
	if err := errors.Join(err, serr); err != nil {
		return nil, err
	}
	all.add(len(in), r)
	ms := func(list []time.Duration, p float64) float64 {
		return float64(lab.Percentile(list, p)) / float64(time.Millisecond)
	}
	return []float64{ms(in, 0.5), ms(in, 1), ms(out, 0.5), ms(out, 1)}, nil
}

func (m *moved) add(moves int, r probe.ExchangeResult) {
	m.moves += moves
	m.In.Add(r.In)
	m.Out.Add(r.Out)
	m.Sessions += r.Sessions
	m.Broken = append(m.Broken, r.Broken...)
}
