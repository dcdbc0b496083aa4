package datapath

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/bpf"
)

// Services are what the agent answers a port, and what its workload may answer others.
type Services uint8

// The services; bpf/punt.h says which frames they are about.
const (
	ServeDHCP4    = Services(bpf.TCPortServicesPORT_DHCP4)
	ServeDHCP6    = Services(bpf.TCPortServicesPORT_DHCP6)
	ServeRouter   = Services(bpf.TCPortServicesPORT_ADVERTISED)
	MayServeDHCP  = Services(bpf.TCPortServicesPORT_MAY_SERVE_DHCP)
	MayAdvertise  = Services(bpf.TCPortServicesPORT_MAY_ADVERTISE)
	puntHead      = 24
	puntOldest    = 10 * time.Second
	mostPuntOctet = len(bpf.TCPunt{}.Frame)
)

// Punt is a frame that a workload sent and the agent is to answer.
type Punt struct {
	ID      PortID
	Ifindex uint32
	// At is when, since boot.
	At time.Duration
	// Frame is what was kept of it, at most 1514 octets, of Length. It is the receiver's for as long as the call lasts.
	Frame  []byte
	Length int
}

// punts is who answers.
type punts struct {
	mu     sync.Mutex
	cancel context.CancelFunc // nil: nobody
	done   sync.WaitGroup
}

// Punts gives the frames for the agent to answer, one after the other, until ctx or the datapath ends. What came while nobody listened is left
// out where its sender has asked again by now. One listener at a time.
func (d *Datapath) Punts(ctx context.Context, answer func(Punt)) error {
	p := &d.punts
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cancel != nil {
		return errors.New("another answers the workloads already")
	}
	r, err := ringbuf.NewReader(d.maps["punts"])
	if err != nil {
		return fmt.Errorf("listen for what workloads ask: %w", err)
	}
	ctx, p.cancel = context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { r.Close() })
	p.done.Go(func() {
		defer p.leave()
		defer r.Close()
		defer stop()
		d.readPunts(r, answer)
	})
	return nil
}

func (d *Datapath) readPunts(r *ringbuf.Reader, answer func(Punt)) {
	var event ringbuf.Record
	for {
		if err := r.ReadInto(&event); err != nil {
			if !errors.Is(err, ringbuf.ErrClosed) {
				d.log.Error("workloads get no answers any more", "err", err)
			}
			return
		}
		if p, ok := readPunt(event.RawSample); ok && sinceBoot()-p.At < puntOldest {
			answer(p)
		}
	}
}

// readPunt reads struct punt; the ring buffer's records are whole words, so that what is behind the frame is cut off.
func readPunt(b []byte) (Punt, bool) {
	if len(b) < puntHead {
		return Punt{}, false
	}
	p := Punt{At: time.Duration(binary.NativeEndian.Uint64(b)), ID: PortID(binary.NativeEndian.Uint32(b[8:])),
		Ifindex: binary.NativeEndian.Uint32(b[12:]), Length: int(binary.NativeEndian.Uint32(b[16:]))}
	p.Frame = b[puntHead:min(len(b), puntHead+mostPuntOctet, puntHead+p.Length)]
	return p, true
}

// sinceBoot is the clock of bpf_ktime_get_ns.
func sinceBoot() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

func (p *punts) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cancel()
	p.cancel = nil
}

func (p *punts) stop() {
	p.mu.Lock()
	if p.cancel != nil {
		p.cancel()
	}
	p.mu.Unlock()
	p.done.Wait()
}
