package server

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/weftnet/weft/api/gen/peer/v1/peerv1connect"
	"github.com/weftnet/weft/api/gen/plan/v1/planv1connect"
	"github.com/weftnet/weft/api/gen/weft/v1/weftv1connect"
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/store"
)

// A request is answered from memory, and never from an old one: before it is looked at, the server asks the store for the revision of the
// last write of all servers, and waits until its own view has reached it. One question serves all who came before it was asked
// (decision 8).

// fresher asks the store for its head, one question at a time.
type fresher struct {
	head func(context.Context) (model.Revision, error)

	mu sync.Mutex
	// next is what those who come now wait for; nil when nobody does. asking is set while a question is under way.
	next   *question
	asking bool
}

// question is one question about the head: done is closed when it is answered.
type question struct {
	done chan struct{}
	rev  model.Revision
	err  error
}

// ask is the head of the store at some time after the call. limit bounds a question that others wait for, too.
func (f *fresher) ask(ctx context.Context, limit time.Duration) (model.Revision, error) {
	f.mu.Lock()
	if f.next == nil {
		f.next = &question{done: make(chan struct{})}
	}
	q := f.next
	if !f.asking {
		f.asking = true
		go f.answer(limit)
	}
	f.mu.Unlock()
	select {
	case <-q.done:
		return q.rev, q.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// answer answers questions until nobody waits.
func (f *fresher) answer(limit time.Duration) {
	for {
		f.mu.Lock()
		q := f.next
		f.next = nil
		f.asking = q != nil
		f.mu.Unlock()
		if q == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		q.rev, q.err = f.head(ctx)
		cancel()
		close(q.done)
	}
}

// fresh waits until the view has everything that was acknowledged before the call.
func (a *api) fresh(ctx context.Context) error {
	began := a.now()
	limit := a.cfg.Limits.Fresh
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errLate)
	defer cancel()
	rev, err := a.fresher.ask(ctx, limit)
	if err == nil {
		if err = a.view.reach(ctx, rev, a.cfg.Limits.Fresh/hurryParts, a.nudge); err == nil {
			return nil
		}
	}
	var away *store.UnavailableError
	if errors.As(err, &away) || context.Cause(ctx) == errLate { // the store's limit or ours, whichever came first, and not the caller's
		return &store.UnavailableError{Endpoints: a.cfg.EtcdEndpoints, Tried: a.now().Sub(began), Err: fmt.Errorf("%w: %w", errLate, err)}
	}
	return err
}

// errLate says what a request waited for in vain.
var errLate = fmt.Errorf("what this server knows may be old, and the store does not tell what is new")

// nudge tells the loop that its watch of the store seems to hang.
func (a *api) nudge() {
	select {
	case a.hangs <- struct{}{}:
	default: // it was told
	}
}

// answersOld reports whether a procedure does not need to know the newest: it reads nothing that changes, or has to work when the store is
// away (a host's certificate is renewed by what is known of the host).
func answersOld(procedure string) bool {
	switch procedure {
	case weftv1connect.SystemServiceGetVersionProcedure, weftv1connect.SystemServiceRestoreProcedure,
		planv1connect.AgentServiceRenewProcedure, planv1connect.AgentServiceStreamProcedure,
		peerv1connect.PeerServiceHearProcedure:
		return true
	}
	return false
}
