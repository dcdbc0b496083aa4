package agent

import (
	"context"
	"sync"
)

// Prober proves the kernel lane.
type Prober struct{}

func (a *Agent) startProbes(ctx context.Context, tasks *sync.WaitGroup) error { return nil }
func (a *Agent) renewOAM()                                                    {}
