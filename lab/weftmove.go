package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"connectrpc.com/connect"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/lab/probe"
)

// weftMover moves by weft's moves.
type weftMover struct {
	lab      *Lab
	name     string
	moving   *Moving
	workload Workload
	hosts    []string
	agents   map[string]localClient
}

type localClient interface {
	Attach(context.Context, *connect.Request[localv1.AttachRequest]) (*connect.Response[localv1.AttachResponse], error)
	Commit(context.Context, *connect.Request[localv1.CommitRequest]) (*connect.Response[localv1.CommitResponse], error)
	Close()
}

// NewMover makes a workload of the lab a Mover that goes round some hosts; the first is where it is. Its commits are events on the target. The
// interface must be eth0.
func (l *Lab) NewMover(workload string, hosts []string, peers ...string) (Mover, error) {
	s, err := l.State()
	if err != nil {
		return nil, err
	}
	place := func(name string) (p probe.Place, w Workload, err error) {
		w, ok := s.Workload(name)
		if !ok {
			return p, w, fmt.Errorf("there is no workload %s", name)
		}
		p.Netns, err = l.Node(name)
		if err == nil {
			p.Addr, err = first4(w.IPs)
		}
		return p, w, err
	}
	m := &weftMover{lab: l, name: "weft", hosts: hosts, agents: map[string]localClient{}, moving: &Moving{Interface: "eth0"}}
	if m.moving.Place, m.workload, err = place(workload); err != nil {
		return nil, err
	}
	for _, name := range peers {
		p, _, err := place(name)
		if err != nil {
			return nil, err
		}
		m.moving.Peers = append(m.moving.Peers, p)
	}
	for _, h := range hosts {
		if m.agents[h], err = l.Agent(h); err != nil {
			return nil, err
		}
	}
	return m, m.moving.Know()
}

func first4(ips []string) (netip.Addr, error) {
	for _, s := range ips {
		if p, err := netip.ParsePrefix(s); err == nil && p.Addr().Is4() {
			return p.Addr(), nil
		}
		if a, err := netip.ParseAddr(s); err == nil && a.Is4() {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no IPv4 address in %v", ips)
}

func (m *weftMover) Name() string      { return m.name }
func (m *weftMover) Workload() *Moving { return m.moving }

// target is the host after the one that the workload is on.
func (m *weftMover) target() string {
	return m.hosts[(slices.Index(m.hosts, m.workload.Host)+1)%len(m.hosts)]
}

// Prepare implements Mover: the port is incoming on the target, attached there, and prepared.
func (m *weftMover) Prepare(ctx context.Context) error {
	w := m.workload
	c, err := m.lab.Client()
	if err != nil {
		return err
	}
	if _, err := c.Ports.PrepareMove(ctx, connect.NewRequest(&weftv1.PrepareMoveRequest{Tenant: w.Tenant, Name: w.Port, Host: m.target()})); err != nil {
		return err
	}
	// It ends the drain of the move before, if that goes on: its source lets go of its interface, which has the name that the target's will have.
	if err := m.waitDetached(ctx); err != nil {
		return err
	}
	_, err = m.agents[m.target()].Attach(ctx, connect.NewRequest(&localv1.AttachRequest{Tenant: w.Tenant, Port: w.Port,
		Interface: &localv1.AttachRequest_Netns{Netns: &localv1.NetnsInterface{Netns: netdev.NamespacePath(w.Namespace), Ifname: m.moving.Other()}}}))
	if err != nil {
		return fmt.Errorf("attach on %s: %w", m.target(), err)
	}
	_, err = m.lab.WaitMove(ctx, w.Tenant, w.Port, weftv1.MovePhase_MOVE_PHASE_PREPARED)
	return err
}

// Flip implements Mover.
func (m *weftMover) Flip(ctx context.Context) error {
	_, err := m.agents[m.target()].Commit(ctx, connect.NewRequest(&localv1.CommitRequest{Tenant: m.workload.Tenant, Port: m.workload.Port}))
	if err == nil {
		m.workload.Host, m.workload.Interface = m.target(), m.moving.Interface
	}
	return err
}

func (m *weftMover) waitDetached(ctx context.Context) error {
	w := m.workload
	w.Interface = m.moving.Other()
	return m.lab.waitDetached(ctx, w)
}

// Finish implements Mover: the drain is over, and the source has taken its interface away.
func (m *weftMover) Finish(ctx context.Context) error {
	w := m.workload
	if _, err := m.lab.WaitMove(ctx, w.Tenant, w.Port, weftv1.MovePhase_MOVE_PHASE_DONE); err != nil {
		return err
	}
	if err := m.waitDetached(ctx); err != nil {
		return err
	}
	return m.lab.PlaceWorkload(w.Name, w.Host, w.Interface)
}

// PlaceWorkload records that a workload's port was moved in another way than by MoveWorkload: on which host it is, and what its interface inside is
// called; empty is as before.
func (l *Lab) PlaceWorkload(name, host, iface string) error {
	return l.update(func(s *State) error {
		w, ok := s.Workload(name)
		if !ok {
			return fmt.Errorf("there is no workload %s", name)
		}
		w.Host = host
		if iface != "" {
			w.Interface = iface
		}
		s.setWorkload(w)
		return nil
	})
}

// Close implements Mover; the workload stays.
func (m *weftMover) Close(context.Context) error {
	for _, a := range m.agents {
		a.Close()
	}
	return nil
}

// WaitMove waits until a port's move is in a phase, or past it, and returns it. A move that is aborted meanwhile is an error.
func (l *Lab) WaitMove(ctx context.Context, tenant, port string, phase weftv1.MovePhase) (*weftv1.Move, error) {
	c, err := l.Client()
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		res, err := c.Ports.GetPort(ctx, connect.NewRequest(&weftv1.GetPortRequest{Tenant: tenant, Name: port}))
		var m *weftv1.Move
		if err == nil {
			m = res.Msg.GetStatus().GetMove()
		}
		if m.GetPhase() == weftv1.MovePhase_MOVE_PHASE_ABORTED && phase != m.GetPhase() {
			return m, fmt.Errorf("the move of port %s to %s was aborted: %s", port, m.GetTo(), m.GetMessage())
		}
		if m.GetPhase() >= phase {
			return m, nil
		}
		select {
		case <-ctx.Done():
			return m, fmt.Errorf("wait until the move of port %s is %s: it is %s, %s: %w", port, phase, m.GetPhase(), m.GetMessage(), errors.Join(context.Cause(ctx), err))
		case <-tick.C:
		}
	}
}
