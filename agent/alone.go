package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"connectrpc.com/connect"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/plan"
)

// Whole is a plan that does not come from a server: all that this host must hold, and what interfaces its ports have.
type Whole struct {
	Resources  []*plan.Resource
	Interfaces []Interface
}

// Interface is an existing interface of the host that is a port's.
type Interface struct {
	// Port is the uid, Network and Name are for messages.
	Port, Network, Name string
	// Interface is its name on the host; it may come and go.
	Interface string
}

// Planner makes the plan for this host's end of the underlay, which may change. It is called in the loop: it asks nobody and waits for nothing.
type Planner func(*planv1.Facts) (Whole, error)

// NewAlone is an agent without a server: the plan is the planner's, and Replan brings another. uid is the host's.
func NewAlone(cfg Config, uid string, p Planner) *Agent {
	cfg.AcceptLoss = true // who changes the file means it
	cfg = cfg.withDefaults()
	return newAgent(cfg, &alone{uid: uid, planner: p, facts: make(chan struct{}, 1)})
}

// alone is the source of a host without a server.
type alone struct {
	uid     string
	planner Planner
	agent   *Agent
	// facts is rung when this host's end changed: what follows from it is made anew.
	facts chan struct{}
}

// aloneStore names where such a plan comes from, in the snapshot and in the status.
const aloneStore = "file"

func (s *alone) open(context.Context, listener) (string, error) { return s.uid, nil }

// begin takes the plan in at once: what an earlier agent held is compared with what is to be, and never put in force again.
func (s *alone) begin(_ context.Context, a *Agent, _ *sync.WaitGroup) error {
	s.agent = a
	return a.takeWhole(s.planner)
}

func (s *alone) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.facts:
		}
		// The context ends with the agent.
		_ = s.agent.do(ctx, func() {
			why := ""
			if err := s.agent.takeWhole(s.planner); err != nil {
				why = fmt.Sprintf("what is in force does not fit the uplink any more: %v", err)
			}
			s.agent.setCondition("underlay", why)
		})
	}
}

// Replan puts another plan in the place of the one that is held. An error changes nothing, and is shown until a plan is taken.
func (a *Agent) Replan(ctx context.Context, load func() (Planner, error)) error {
	s, ok := a.source.(*alone)
	if !ok {
		return errors.New("the plan is a server's")
	}
	p, err := load()
	derr := a.do(ctx, func() {
		if err == nil {
			err = a.takeWhole(p)
		}
		if err != nil {
			a.setCondition("plan refused", "the last good one stays: "+err.Error())
			return
		}
		s.planner = p
		a.setCondition("plan refused", "")
		a.setCondition("underlay", "")
	})
	return errors.Join(derr, err)
}

// takeWhole makes the plan and takes it in as one update. In the loop, or before there is one.
func (a *Agent) takeWhole(p Planner) error {
	w, err := p(a.uplink.facts(a.cfg))
	if err != nil {
		return err
	}
	if err := a.checkWhole(w); err != nil {
		return err
	}
	u := a.updateOf(w)
	if u == nil && a.sameInterfaces(w.Interfaces) {
		a.log.Info("the plan is as it was")
		return nil
	}
	if err := a.assign(w.Interfaces); err != nil {
		return err
	}
	if u == nil {
		a.reconcile()
		return nil
	}
	writes := a.rec.writes
	if err := a.take(u); err != nil {
		return err
	}
	a.log.Info("the plan is taken", "revision", u.Revision, "resources", len(w.Resources), "writes", a.rec.writes-writes)
	return nil
}

// checkWhole refuses a plan as a whole that could be done in part only.
func (a *Agent) checkWhole(w Whole) error {
	set := plan.NewSet()
	for _, r := range w.Resources {
		set.Put(r)
	}
	var wrong []error
	for _, problem := range plan.Check(set, a.rec.self, plan.Features()) {
		wrong = append(wrong, fmt.Errorf("%s: %s", problem.Key, problem.Message))
	}
	for _, i := range w.Interfaces {
		err := a.usable(attachment{Kind: kindDevice, Interface: i.Interface})
		if err != nil && connect.CodeOf(err) != connect.CodeNotFound { // it may come later
			wrong = append(wrong, fmt.Errorf("network %s, port %s: %w", i.Network, i.Name, streamError(err, nil)))
		}
	}
	return errors.Join(wrong...)
}

// updateOf is what takes this host from what it holds to the whole; nil when nothing differs.
func (a *Agent) updateOf(w Whole) *planv1.Update {
	held := a.staging.Set()
	u := &planv1.Update{StoreId: aloneStore, Revision: a.staging.Revision() + 1, Last: true}
	if a.staging.StoreID() != aloneStore {
		u.Revision = 1
	}
	scopes := map[string]bool{}
	differs := !a.known || a.staging.StoreID() != aloneStore || held.Len() != len(w.Resources)
	for _, r := range w.Resources {
		if !scopes[r.Scope] {
			scopes[r.Scope] = true
			u.ResetScopes = append(u.ResetScopes, r.Scope)
		}
		if have := held.Get(r.Key()); have == nil || have.Hash != r.Hash {
			differs = true
		}
		u.Upserts = append(u.Upserts, r.Proto())
	}
	for _, scope := range held.Scopes() {
		if !scopes[scope] {
			u.DropScopes = append(u.DropScopes, scope)
		}
	}
	if !differs {
		return nil
	}
	return u
}

func (a *Agent) sameInterfaces(list []Interface) bool {
	for _, i := range list {
		if at, ok := a.atts.byUID[i.Port]; !ok || at.Interface != i.Interface {
			return false
		}
	}
	return len(list) == len(a.atts.byUID)
}

// assign makes these the attachments, and no others. What changes is not compared with the kernel yet.
func (a *Agent) assign(list []Interface) error {
	next := make(map[string]attachment, len(list))
	for _, i := range list {
		next[i.Port] = attachment{UID: i.Port, Tenant: i.Network, Port: i.Name, Kind: kindDevice, Interface: i.Interface}
	}
	was := a.atts.byUID
	if err := a.atts.save(next); err != nil {
		return fmt.Errorf("write the attachments: %w", err)
	}
	for uid, at := range was {
		if next[uid].Interface == at.Interface {
			continue
		}
		if err := a.unmake(at); err != nil { // one that is left of an agent with a server
			a.log.Error("an interface could not be removed", "interface", at.Interface, "err", err)
		}
		delete(a.veths, uid)
		delete(a.raised, uid)
		delete(a.mtus, uid)
		a.rec.SetAttached(uid, nil)
		a.unfit = append(a.unfit, at)
	}
	for uid, at := range next {
		if was[uid].Interface != at.Interface {
			a.checkLink(at)
		}
	}
	return nil
}

// Say is heard by nobody but for facts, from which the plan is made.
func (s *alone) Say(_ *planv1.Applied, facts *planv1.Facts, _ *planv1.Report) {
	if facts == nil {
		return
	}
	select {
	case s.facts <- struct{}{}:
	default: // it is rung, and asks for what is then
	}
}

// refuseAlone is the answer to all that moves ports: where they are is the file's word.
func refuseAlone() error {
	return refuse(connect.CodeFailedPrecondition, "this VTEP has no server: change its file, and `systemctl reload weft-vtep` (SIGHUP)")
}

func (s *alone) Bind(context.Context, string, string) (*planv1.BindResponse, error) {
	return nil, refuseAlone()
}

func (s *alone) Unbind(context.Context, string, string, string) (*planv1.UnbindResponse, error) {
	return nil, refuseAlone()
}

func (s *alone) Prepare(context.Context, string, string) (*planv1.PrepareResponse, error) {
	return nil, refuseAlone()
}

func (s *alone) Commit(context.Context, *planv1.CommitRequest) (*planv1.CommitResponse, error) {
	return nil, refuseAlone()
}

func (s *alone) Abort(context.Context, string, int64, string) (*planv1.AbortResponse, error) {
	return nil, refuseAlone()
}

// Settle takes what a port counted that is in the file no more.
func (s *alone) Settle(context.Context, *planv1.SettleRequest) error { return nil }

// mayAttach refuses attachments by the socket where interfaces are the file's.
func (a *Agent) mayAttach() error {
	if _, ok := a.source.(*alone); ok {
		return refuseAlone()
	}
	return nil
}
