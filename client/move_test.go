package client_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"

	"connectrpc.com/connect"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/api/gen/weft/v1/weftv1connect"
	"github.com/weftnet/weft/client"
)

// breaker ends each watch of a move after one message: the next of its list, and the last one again and again.
type breaker struct {
	weftv1connect.UnimplementedPortServiceHandler
	mu      sync.Mutex
	moves   []*weftv1.Move
	watches int
}

func (b *breaker) WatchMove(_ context.Context, _ *connect.Request[weftv1.WatchMoveRequest], out *connect.ServerStream[weftv1.Move]) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.moves[min(b.watches, len(b.moves)-1)]
	b.watches++
	if err := out.Send(m); err != nil {
		return err
	}
	return connect.NewError(connect.CodeUnavailable, errors.New("the server is stopping"))
}

// TestFollowingEnds: a server that ends each watch, having said what is known already, is not asked for ever; and what it says anew counts,
// once. Let whatever comes be news, and it goes red by its deadline.
func TestFollowingEnds(t *testing.T) {
	d := newDeployment(t)
	preparing, prepared := &weftv1.Move{Phase: weftv1.MovePhase_MOVE_PHASE_PREPARING}, &weftv1.Move{Phase: weftv1.MovePhase_MOVE_PHASE_PREPARED}
	b := &breaker{moves: []*weftv1.Move{preparing, preparing, prepared}}
	mux := http.NewServeMux()
	mux.Handle(weftv1connect.NewPortServiceHandler(b))
	c := newClient(t, client.Config{Servers: []string{d.serveMux(t, mux)}, Token: d.token})
	var seen []weftv1.MovePhase
	err := c.FollowMove(t.Context(), "acme", "web1", func(m *weftv1.Move) bool {
		seen = append(seen, m.GetPhase())
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.watches < 50 // a bound for the test alone
	})
	var e *client.Error
	if !errors.As(err, &e) || e.Code != connect.CodeUnavailable {
		t.Fatalf("it ended with %v", err)
	}
	if len(seen) != 2 || seen[1] != prepared.GetPhase() {
		t.Errorf("told of %v, want each phase once", seen)
	}
	if b.watches != 8 { // two that brought something, the one between them, and five that did not
		t.Errorf("watched %d times", b.watches)
	}
}
