package probe

import (
	"context"
	"crypto/rand"
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

// SequenceResult is what came of numbered datagrams.
type SequenceResult struct {
	Sent, Received uint64
	// Lost never came, Duplicated came again, Reordered came after one that was sent later.
	Lost, Duplicated, Reordered uint64
	// Unsent were refused by the sender's own kernel (no route, no buffer); they are no loss of the network.
	Unsent uint64
	// LongestGap between two arrivals, and First, from the start of sending to the first arrival.
	LongestGap, First time.Duration
}

// Sequence sends numbered datagrams from one namespace to an address of another, at a steady rate.
type Sequence struct {
	sender, receiver *net.UDPConn
	dst              netip.AddrPort
	tag              [8]byte
	rate             int

	wg     sync.WaitGroup
	stop   chan struct{}
	began  time.Time
	result SequenceResult
	seen   map[uint64]struct{}
	sent   uint64
	// sendErr is the first error of the sender that is not about one datagram.
	sendErr error
}

const (
	sequenceSize = 24 // tag, number, padding
	// drainTime after the last datagram is sent, for those on the way.
	drainTime = 500 * time.Millisecond
	// burst is how often the sender wakes.
	burst = time.Millisecond
)

// StartSequence begins to send at a rate in packets a second; Stop ends it. The address need not be there yet: the receiver
// takes what comes to the L4 port on any address of its namespace.
func StartSequence(ctx context.Context, from, to *netdev.Handle, dst netip.Addr, l4port, rate int) (*Sequence, error) {
	r, err := bound(ctx, to, dst.Is6(), l4port)
	if err != nil {
		return nil, fmt.Errorf("number datagrams to %s: %w", dst, err)
	}
	s, err := bound(ctx, from, dst.Is6(), 0)
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("number datagrams to %s: %w", dst, err)
	}
	setBuffers(r, 8<<20)
	setBuffers(s, 8<<20)
	q := &Sequence{sender: s, receiver: r, dst: netip.AddrPortFrom(dst, uint16(l4port)), rate: rate,
		stop: make(chan struct{}), began: time.Now(), seen: map[uint64]struct{}{}}
	rand.Read(q.tag[:])
	q.wg.Add(2)
	go q.send()
	go q.receive()
	return q, nil
}

// send catches up after a late wake-up, so that the rate is kept on average.
func (q *Sequence) send() {
	defer q.wg.Done()
	buf := make([]byte, sequenceSize)
	copy(buf, q.tag[:])
	tick := time.NewTicker(burst)
	defer tick.Stop()
	for {
		due := uint64(time.Since(q.began).Seconds() * float64(q.rate))
		for q.sent+q.result.Unsent < due {
			binary.BigEndian.PutUint64(buf[8:], q.sent)
			if _, err := q.sender.WriteToUDPAddrPort(buf, q.dst); errors.Is(err, net.ErrClosed) {
				q.sendErr = err
				return
			} else if err != nil {
				q.result.Unsent++
				continue
			}
			q.sent++
		}
		select {
		case <-q.stop:
			return
		case <-tick.C:
		}
	}
}

func (q *Sequence) receive() {
	defer q.wg.Done()
	buf := make([]byte, 2048)
	var last time.Time
	var highest uint64
	for {
		n, _, err := q.receiver.ReadFromUDPAddrPort(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n != sequenceSize || [8]byte(buf[:8]) != q.tag {
			continue
		}
		now, number := time.Now(), binary.BigEndian.Uint64(buf[8:])
		if last.IsZero() {
			q.result.First = now.Sub(q.began)
		} else {
			q.result.LongestGap = max(q.result.LongestGap, now.Sub(last))
		}
		last = now
		if _, dup := q.seen[number]; dup {
			q.result.Duplicated++
			continue
		}
		q.seen[number] = struct{}{}
		q.result.Received++
		if number < highest {
			q.result.Reordered++
		}
		highest = max(highest, number)
	}
}

// Stop ends sending, waits for what is on the way, and reports. Call it once.
func (q *Sequence) Stop() (SequenceResult, error) {
	close(q.stop)
	q.receiver.SetReadDeadline(time.Now().Add(drainTime))
	q.wg.Wait()
	q.sender.Close()
	q.receiver.Close()
	q.result.Sent = q.sent
	q.result.Lost = q.result.Sent - q.result.Received
	return q.result, q.sendErr
}
