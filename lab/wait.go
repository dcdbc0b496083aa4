package lab

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// settled is how long a process must have run to be worth another start.
const settled = 5 * time.Second

// Wait keeps the lab as a service manager would: a process that was started here and ends is started again, unless it ends at
// once every time. It returns when ctx ends, or when the lab was taken away by somebody else; both are no error.
func (l *Lab) Wait(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-l.ended:
			if err := l.revive(ctx, e); err != nil && ctx.Err() == nil {
				return err
			}
		case <-tick.C:
			if _, err := l.State(); errors.Is(err, errNoLab) {
				return nil
			}
		}
	}
}

// revive starts a process again that nobody wanted to end.
func (l *Lab) revive(ctx context.Context, e endedProcess) error {
	s, err := l.State()
	if errors.Is(err, errNoLab) || err == nil && s.Leaving {
		return nil
	}
	if err != nil {
		return err
	}
	if p, err := l.process(e.name); err != nil || p.PID != e.p.PID {
		return err
	}
	if e.lived < settled {
		return fmt.Errorf("the process of %s ended (%v) after %s; the end of %s:\n  %s", e.name, e.err, e.lived.Round(time.Millisecond), l.cfg.log(e.name), tail(l.cfg.log(e.name)))
	}
	l.cfg.Step(fmt.Sprintf("the process of %s ended (%v): starting it again", e.name, e.err))
	if e.name == "server" {
		return l.StartServer(ctx)
	}
	if strings.Contains(e.name, "/") {
		return l.startDaemon(e.name)
	}
	return l.StartAgent(e.name)
}
