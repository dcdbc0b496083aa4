package agent

import (
	"errors"
	"runtime/debug"
	"testing"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/plan"
)

// TestRoom: for a large plan room is made, and whatever becomes of it, the collector runs as before in the end. Break it: leave Close out of take,
// or of Connection.
func TestRoom(t *testing.T) {
	collector := func() int {
		now := debug.SetGCPercent(100)
		debug.SetGCPercent(now)
		return now
	}
	was := collector()
	many := func(r *rig, last bool, upserts ...*plan.Resource) error {
		u := &planv1.Update{StoreId: "s1", Revision: r.rev + 1, Resources: 20_000, Last: last}
		for _, res := range upserts {
			u.Upserts = append(u.Upserts, res.Proto())
		}
		return r.agent.Receive(r.ctx, u)
	}
	for name, end := range map[string]func(r *rig) error{
		"taken":   func(r *rig) error { return many(r, true, vtepOf("h1", 1)) },
		"cut off": func(r *rig) error { r.agent.Connection(r.ctx, "", errors.New("gone")); return nil },
		"refused": func(r *rig) error {
			if err := many(r, true, vtepOf("h1", 1), vtepOf("h1", 2)); err == nil {
				return errors.New("a resource was taken twice")
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			if err := many(r, false, hostOf()); err != nil {
				t.Fatal(err)
			}
			if collector() == was {
				t.Errorf("no room was made: the collector runs at %d", was)
			}
			if err := end(r); err != nil {
				t.Fatal(err)
			}
			if collector() != was {
				t.Errorf("the collector runs at %d, before %d", collector(), was)
			}
		})
	}
}
