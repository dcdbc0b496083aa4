package scale

import (
	"context"
	"fmt"
	"time"

	"github.com/weftnet/weft/trust"
)

// coldStart is one agent alone: it decodes and checks every resource for itself, as a real one does.
func (r *run) coldStart(ctx context.Context, t *truth, id *trust.HostIdentity, resources *int) (time.Duration, error) {
	f := newFleet(ctx, r.cfg, r.server, r.fleet.dir)
	defer f.close()
	a := f.newAgent(r.cfg.Hosts, coldName, id)
	a.staging.Decode = nil
	f.agents = []*simulated{a}
	done := f.expect(int64(t.world.Revision), false)
	f.start(a)
	if err := f.await(ctx, done); err != nil {
		return 0, err
	}
	s := a.state()
	*resources = s.resources
	// Its first words may have brought its VTEP: what the store says of it is read after that.
	now, err := readTruth(ctx, r.server)
	if err != nil {
		return 0, err
	}
	if err := f.await(ctx, f.expect(int64(now.world.Revision), false)); err != nil {
		return 0, err
	}
	if err := now.check(a); err != nil {
		return 0, fmt.Errorf("the cold agent differs from the store: %w", err)
	}
	return max(s.took.Sub(s.saidHello), time.Microsecond), nil
}
