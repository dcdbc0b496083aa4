package datapath

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/cilium/ebpf/ringbuf"
)

// listener is who reads one of the programs' ring buffers: one at a time.
type listener struct {
	mu     sync.Mutex
	cancel context.CancelFunc // nil: nobody
	done   sync.WaitGroup
}

// listen gives the records of a ring buffer to take, one after the other and each for as long as the call lasts, until ctx or the datapath ends;
// then comes end. what names the records in errors: "first frames".
func (d *Datapath) listen(ctx context.Context, l *listener, ring, what string, take func(ctx context.Context, record []byte), end func()) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cancel != nil {
		return fmt.Errorf("%s are told to another already", what)
	}
	r, err := ringbuf.NewReader(d.maps[ring])
	if err != nil {
		return fmt.Errorf("listen for %s: %w", what, err)
	}
	ctx, l.cancel = context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { r.Close() })
	l.done.Go(func() {
		defer end()
		defer l.leave()
		defer r.Close()
		defer stop()
		for event := (ringbuf.Record{}); ; {
			if err := r.ReadInto(&event); err != nil {
				if !errors.Is(err, ringbuf.ErrClosed) {
					d.log.Error(what+" are not told any more", "err", err)
				}
				return
			}
			take(ctx, event.RawSample)
		}
	})
	return nil
}

func (l *listener) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cancel()
	l.cancel = nil
}

func (l *listener) stop() {
	l.mu.Lock()
	if l.cancel != nil {
		l.cancel()
	}
	l.mu.Unlock()
	l.done.Wait()
}
