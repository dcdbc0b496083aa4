package datapath

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/cilium/ebpf/ringbuf"

	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/wire"
)

// strangerBacklog is how many strangers wait to be taken from the channel; when it is full they wait in the ring buffer, and when that is full
// their next packet tells.
const strangerBacklog = 64

// strangerEvent is struct stranger: VNI and address.
const strangerEvent = 4 + 16

// strangers is who is told of them.
type strangers struct {
	mu     sync.Mutex
	cancel context.CancelFunc // nil: nobody
	done   sync.WaitGroup
}

// Strangers tells of addresses that sent packets of a network that takes unlisted VTEPs, and that the accept table does not have: again and again,
// about one a millisecond and CPU in all, until it does. One listener at a time, until ctx or the datapath ends: then the channel is closed.
func (d *Datapath) Strangers(ctx context.Context) (<-chan Accept, error) {
	s := &d.strangers
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancel != nil {
		return nil, errors.New("strangers are told to another already")
	}
	r, err := ringbuf.NewReader(d.maps["strangers"])
	if err != nil {
		return nil, fmt.Errorf("listen for strangers: %w", err)
	}
	ctx, s.cancel = context.WithCancel(ctx)
	told := make(chan Accept, strangerBacklog)
	stop := context.AfterFunc(ctx, func() { r.Close() })
	s.done.Go(func() {
		defer close(told)
		defer s.leave()
		defer r.Close()
		defer stop()
		d.readStrangers(ctx, r, told)
	})
	return told, nil
}

func (d *Datapath) readStrangers(ctx context.Context, r *ringbuf.Reader, told chan<- Accept) {
	var event ringbuf.Record
	for {
		if err := r.ReadInto(&event); err != nil {
			if !errors.Is(err, ringbuf.ErrClosed) {
				d.log.Error("strangers are not told any more", "err", err)
			}
			return
		}
		if len(event.RawSample) < strangerEvent {
			continue
		}
		var w bpf.TCAddr
		for i := range w.W {
			w.W[i] = binary.NativeEndian.Uint32(event.RawSample[4+4*i:])
		}
		select {
		case told <- Accept{VNI: wire.VNI(binary.NativeEndian.Uint32(event.RawSample)), Addr: netipOf(w)}:
		case <-ctx.Done():
			return
		}
	}
}

func (s *strangers) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cancel()
	s.cancel = nil
}

func (s *strangers) stop() {
	s.mu.Lock()
	if s.cancel != nil {
		s.cancel()
	}
	s.mu.Unlock()
	s.done.Wait()
}
