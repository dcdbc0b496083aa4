package probe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/weftnet/weft/datapath/netdev"
)

// Knock sends a small datagram to an address a thousand times a second until it is closed.
type Knock struct {
	conn *net.UDPConn
	stop chan struct{}
	wg   sync.WaitGroup
}

const (
	arrivalPort   = 7350
	knockInterval = time.Millisecond
)

// StartKnock begins. The number tells the receiver who knocks.
func StartKnock(ctx context.Context, from *netdev.Handle, dst netip.Addr, number uint32) (*Knock, error) {
	c, err := bound(ctx, from, dst.Is6(), 0)
	if err != nil {
		return nil, fmt.Errorf("knock at %s: %w", dst, err)
	}
	k := &Knock{conn: c, stop: make(chan struct{})}
	k.wg.Add(1)
	go func() {
		defer k.wg.Done()
		tick := time.NewTicker(knockInterval)
		defer tick.Stop()
		b := binary.BigEndian.AppendUint32(nil, number)
		for {
			_, _ = c.WriteToUDPAddrPort(b, netip.AddrPortFrom(dst, arrivalPort)) // what does not arrive is not counted
			select {
			case <-k.stop:
				return
			case <-tick.C:
			}
		}
	}()
	return k, nil
}

// Close ends it.
func (k *Knock) Close() {
	close(k.stop)
	k.wg.Wait()
	k.conn.Close()
}

// Arrivals waits in a namespace for the first knock of each number below n, and returns when the last of them came. The
// namespace need not have an interface yet.
type Arrivals struct{ conn *net.UDPConn }

// ListenArrivals opens the receiver.
func ListenArrivals(ctx context.Context, ns *netdev.Handle, v6 bool) (*Arrivals, error) {
	c, err := bound(ctx, ns, v6, arrivalPort)
	if err != nil {
		return nil, fmt.Errorf("listen for knocks: %w", err)
	}
	return &Arrivals{conn: c}, nil
}

// Wait returns the time at which the last of n knockers was heard for the first time since the call before.
func (a *Arrivals) Wait(ctx context.Context, n int) (time.Time, error) {
	stop := context.AfterFunc(ctx, func() { a.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	heard := map[uint32]bool{}
	buf := make([]byte, 64)
	for {
		size, _, err := a.conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
			return time.Time{}, fmt.Errorf("heard %d of %d knockers: %w", len(heard), n, context.Cause(ctx))
		}
		if err != nil || size != 4 {
			continue
		}
		if heard[binary.BigEndian.Uint32(buf)] = true; len(heard) == n {
			return time.Now(), nil
		}
	}
}

// Close ends it.
func (a *Arrivals) Close() { a.conn.Close() }
