package scale

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"time"
)

// profileTime is how much of the changes is profiled.
const profileTime = 8 * time.Second

// profiled does something with the processor profiles of both sides taken beside it, and the server's of memory behind it, if a directory for them was
// named. That costs a little of what is measured, so the result says so.
func (r *run) profiled(ctx context.Context, name string, do func(context.Context) error) (err error) {
	if r.cfg.Profiles == "" {
		return do(ctx)
	}
	r.out.Notes = append(r.out.Notes, "processor profiles were taken beside the "+name+", which costs some of what is measured")
	if err := os.MkdirAll(r.cfg.Profiles, 0o755); err != nil {
		return fmt.Errorf("keep profiles: %w", err)
	}
	ours, err := os.Create(filepath.Join(r.cfg.Profiles, name+"-agents.pprof"))
	if err != nil {
		return fmt.Errorf("keep profiles: %w", err)
	}
	if err := pprof.StartCPUProfile(ours); err != nil {
		return errors.Join(fmt.Errorf("profile the agents: %w", err), ours.Close())
	}
	theirs := make(chan error, 1)
	go func() {
		theirs <- r.keep(ctx, fmt.Sprintf("profile?seconds=%d", int(profileTime.Seconds())), name+"-server.pprof")
	}()
	err = do(ctx)
	pprof.StopCPUProfile()
	return errors.Join(err, ours.Close(), <-theirs, r.keep(ctx, "allocs", name+"-server-memory.pprof"))
}

// keep fetches one of the server's profiles into a file.
func (r *run) keep(ctx context.Context, what, file string) error {
	b, err := r.server.profile(ctx, what)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(r.cfg.Profiles, file), b, 0o644); err != nil {
		return fmt.Errorf("keep profiles: %w", err)
	}
	return nil
}
