package lab

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Wait returns when ctx ends, when the lab was taken away by somebody else (both are no error), or when one of its processes,
// started here and not ended through the lab, has ended.
func (l *Lab) Wait(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-l.ended:
			s, err := l.State()
			if errors.Is(err, errNoLab) {
				return nil
			}
			if p, perr := l.process(e.name); err == nil && perr == nil && p.PID == e.p.PID && !s.Leaving {
				return fmt.Errorf("the process of %s ended (%v); the end of %s:\n  %s", e.name, e.err, l.cfg.log(e.name), tail(l.cfg.log(e.name)))
			}
		case <-tick.C:
			if _, err := l.State(); errors.Is(err, errNoLab) {
				return nil
			}
		}
	}
}
