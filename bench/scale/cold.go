package scale

import (
	"context"
	"fmt"

	"github.com/weftnet/weft/trust"
)

// coldStart is one agent alone: it decodes and checks every resource for itself, as a real one does.
func (r *run) coldStart(ctx context.Context, t *truth, id *trust.HostIdentity) (simulatedState, error) {
	f := newFleet(ctx, r.cfg, r.server, r.fleet.dir)
	defer f.close()
	a := f.newAgent(r.cfg.Hosts, coldName, id)
	a.staging.Decode = nil
	f.agents = []*simulated{a}
	done := f.expect(int64(t.world.Revision), false)
	f.start(a)
	if err := f.await(ctx, done); err != nil {
		return simulatedState{}, err
	}
	s := a.state()
	// Its first words may have brought its VTEP: what the store says of it is read after that.
	now, err := readTruth(ctx, r.server)
	if err != nil {
		return simulatedState{}, err
	}
	if err := f.await(ctx, f.expect(int64(now.world.Revision), false)); err != nil {
		return simulatedState{}, err
	}
	if err := now.check(a); err != nil {
		return simulatedState{}, fmt.Errorf("the cold agent differs from the store: %w", err)
	}
	return s, nil
}
