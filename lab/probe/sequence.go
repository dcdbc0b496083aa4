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

	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/netdev"
)

// SequenceResult is what came of numbered datagrams.
type SequenceResult struct {
	Sent, Received uint64
	// Lost never came, Duplicated came again, Reordered came after one that was sent later.
	Lost, Duplicated, Reordered uint64
	// Elsewhere came by an interface that none is taken from, see Only. They count as lost; but one that came by another too is Duplicated.
	Elsewhere uint64
	// Unsent were refused by the sender's own kernel (no route, no buffer); they are no loss of the network.
	Unsent uint64
	// LongestGap between two arrivals, and First, from the start of sending to the first arrival.
	LongestGap, First time.Duration
	// LongestRun of numbers that had not come when a higher one came, and LongestSilence, the time between the sending of the datagrams
	// before and behind such a run, by the sender's clock: for receivers whose own clock stands still at times.
	LongestRun     uint64
	LongestSilence time.Duration
}

// Sequence sends numbered datagrams from one namespace to an address of another, at a steady rate.
type Sequence struct {
	sender   *SequenceSender
	receiver *SequenceReceiver
}

// SequenceTag tells the datagrams of one sequence from others.
type SequenceTag [8]byte

// NewSequenceTag makes one that no other sequence has.
func NewSequenceTag() (t SequenceTag) {
	rand.Read(t[:])
	return t
}

const (
	sequenceSize = 24 // tag, number, the sender's time in nanoseconds
	// drainTime after the last datagram is sent, for those on the way.
	drainTime = 500 * time.Millisecond
	// lateTime is how long one may be held up by a machine that stands still, and is not lost.
	lateTime = 3 * time.Second
	// burst is how often the sender wakes.
	burst = time.Millisecond
)

// StartSequence begins to send at a rate in packets a second; Stop ends it. The address need not be there yet: the receiver
// takes what comes to the L4 port on any address of its namespace.
func StartSequence(ctx context.Context, from, to *netdev.Handle, dst netip.Addr, l4port, rate int) (*Sequence, error) {
	tag := NewSequenceTag()
	r, err := StartSequenceReceiver(ctx, to, dst.Is6(), l4port, tag)
	if err != nil {
		return nil, err
	}
	s, err := StartSequenceSender(ctx, from, netip.AddrPortFrom(dst, uint16(l4port)), rate, tag)
	if err != nil {
		r.Stop()
		return nil, err
	}
	return &Sequence{sender: s, receiver: r}, nil
}

// Stop ends sending, waits for what is on the way, and reports. Call it once.
func (q *Sequence) Stop() (SequenceResult, error) {
	sent := q.sender.Stop()
	for until := time.Now().Add(lateTime); !q.receiver.cameTo(sent.Sent) && time.Now().Before(until); {
		time.Sleep(10 * time.Millisecond)
	}
	q.receiver.Drain()
	r := q.receiver.Stop()
	r.Sent, r.Unsent, r.Lost = sent.Sent, sent.Unsent, sent.Sent-r.Received
	return r, q.sender.err
}

// SequenceSender is the sending half of a Sequence.
type SequenceSender struct {
	conn  *net.UDPConn
	dst   netip.AddrPort
	tag   SequenceTag
	rate  int
	began time.Time
	stop  chan struct{}
	wg    sync.WaitGroup

	mu           sync.Mutex
	sent, unsent uint64
	// err is the first error that is not about one datagram.
	err error
}

// StartSequenceSender begins to send to an address at a rate in packets a second.
func StartSequenceSender(ctx context.Context, from *netdev.Handle, dst netip.AddrPort, rate int, tag SequenceTag) (*SequenceSender, error) {
	c, err := bound(ctx, from, dst.Addr().Is6(), 0)
	if err != nil {
		return nil, fmt.Errorf("number datagrams to %s: %w", dst, err)
	}
	setBuffers(c, 8<<20)
	s := &SequenceSender{conn: c, dst: dst, tag: tag, rate: rate, began: time.Now(), stop: make(chan struct{})}
	s.wg.Go(s.send)
	return s, nil
}

// send catches up after a late wake-up, so that the rate is kept on average.
func (s *SequenceSender) send() {
	buf := make([]byte, sequenceSize)
	copy(buf, s.tag[:])
	tick := time.NewTicker(burst)
	defer tick.Stop()
	for {
		if s.err = s.catchUp(buf); s.err != nil {
			return
		}
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
	}
}

// catchUp sends what is due. What becomes due meanwhile is the next wake-up's, so that a machine which cannot keep the rate does not stay here.
func (s *SequenceSender) catchUp(buf []byte) error {
	due := uint64(time.Since(s.began).Seconds() * float64(s.rate))
	for now := s.Result(); now.Sent+now.Unsent < due; now = s.Result() {
		binary.BigEndian.PutUint64(buf[8:], now.Sent)
		binary.BigEndian.PutUint64(buf[16:], uint64(time.Now().UnixNano()))
		_, err := s.conn.WriteToUDPAddrPort(buf, s.dst)
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		s.mu.Lock()
		if err != nil {
			s.unsent++
		} else {
			s.sent++
		}
		s.mu.Unlock()
	}
	return nil
}

// Result is what was sent so far: Sent and Unsent.
func (s *SequenceSender) Result() SequenceResult {
	s.mu.Lock()
	defer s.mu.Unlock()
	return SequenceResult{Sent: s.sent, Unsent: s.unsent}
}

// Stop ends sending and reports Sent and Unsent. Call it once.
func (s *SequenceSender) Stop() SequenceResult {
	close(s.stop)
	s.wg.Wait()
	s.conn.Close()
	return s.Result()
}

// SequenceReceiver is the receiving half of a Sequence.
type SequenceReceiver struct {
	conn  *net.UDPConn
	tag   SequenceTag
	began time.Time
	wg    sync.WaitGroup

	mu     sync.Mutex
	result SequenceResult
	seen   []uint64 // a bit for each number
	last   time.Time
	// highest number that came, and when it was sent.
	highest     uint64
	highestSent int64
	// only is the index of the interface that datagrams are taken from; 0: any.
	only int
}

// maxSequence bounds the numbers that are taken, and with them the memory: 128 MiB.
const maxSequence = 1 << 30

// StartSequenceReceiver begins to take datagrams of a tag at an L4 port, on every address that the namespace has and will have.
func StartSequenceReceiver(ctx context.Context, to *netdev.Handle, v6 bool, l4port int, tag SequenceTag) (*SequenceReceiver, error) {
	c, err := bound(ctx, to, v6, l4port)
	if err != nil {
		return nil, fmt.Errorf("take numbered datagrams at port %d: %w", l4port, err)
	}
	setBuffers(c, 32<<20) // for seconds in which nobody reads
	if err := tellInterface(c, v6); err != nil {
		c.Close()
		return nil, fmt.Errorf("take numbered datagrams at port %d: %w", l4port, err)
	}
	r := &SequenceReceiver{conn: c, tag: tag, began: time.Now()}
	r.wg.Go(r.receive)
	return r, nil
}

// tellInterface has the kernel say with each datagram by which interface it came.
func tellInterface(c *net.UDPConn, v6 bool) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	level, option := unix.IPPROTO_IP, unix.IP_PKTINFO
	if v6 {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
	}
	cerr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, 1) })
	return errors.Join(cerr, err)
}

// interfaceOf reads the index from a struct in_pktinfo or in6_pktinfo, the only message that is asked for.
func interfaceOf(oob []byte) int {
	at := unix.CmsgLen(0)
	if len(oob) >= unix.CmsgLen(unix.SizeofInet6Pktinfo) {
		at += unix.SizeofInet6Pktinfo - 4
	}
	if len(oob) < at+4 {
		return 0
	}
	return int(binary.NativeEndian.Uint32(oob[at:]))
}

func (r *SequenceReceiver) receive() {
	buf, oob := make([]byte, 2048), make([]byte, unix.CmsgSpace(unix.SizeofInet6Pktinfo))
	for {
		n, m, _, _, err := r.conn.ReadMsgUDPAddrPort(buf, oob)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			r.rest(buf, oob)
			return
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			r.datagram(buf[:n], oob[:m])
		}
	}
}

// rest takes what has come before the deadline and was not read by then: this process may have stood still.
func (r *SequenceReceiver) rest(buf, oob []byte) {
	raw, err := r.conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { // Control does not look at the deadline, as Read does
		for {
			n, m, _, _, err := unix.Recvmsg(int(fd), buf, oob, unix.MSG_DONTWAIT)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return
			}
			r.datagram(buf[:n], oob[:m])
		}
	})
}

func (r *SequenceReceiver) datagram(b, oob []byte) {
	if len(b) != sequenceSize || SequenceTag(b[:8]) != r.tag {
		return
	}
	r.take(time.Now(), interfaceOf(oob), binary.BigEndian.Uint64(b[8:]), int64(binary.BigEndian.Uint64(b[16:])))
}

func (r *SequenceReceiver) take(now time.Time, index int, number uint64, sent int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if number >= maxSequence {
		return
	}
	if r.only != 0 && index != r.only {
		if r.result.Elsewhere++; r.mark(number) {
			r.result.Duplicated++
		}
		return
	}
	if r.last.IsZero() {
		r.result.First = now.Sub(r.began)
	} else {
		r.result.LongestGap = max(r.result.LongestGap, now.Sub(r.last))
	}
	first := r.last.IsZero()
	r.last = now
	if r.mark(number) {
		r.result.Duplicated++
		return
	}
	r.result.Received++
	if number < r.highest {
		r.result.Reordered++
		return
	}
	if !first && number > r.highest+1 {
		r.result.LongestRun = max(r.result.LongestRun, number-r.highest-1)
		r.result.LongestSilence = max(r.result.LongestSilence, time.Duration(sent-r.highestSent))
	}
	r.highest, r.highestSent = number, sent
}

// mark notes a number, and reports whether it was noted before.
func (r *SequenceReceiver) mark(number uint64) bool {
	word, bit := number/64, uint64(1)<<(number%64)
	for uint64(len(r.seen)) <= word {
		r.seen = append(r.seen, 0)
	}
	was := r.seen[word]&bit != 0
	r.seen[word] |= bit
	return was
}

// Result is what came so far; of the sender's side it knows nothing.
func (r *SequenceReceiver) Result() SequenceResult {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.result
}

// cameTo reports whether the last of so many has come: what was sent before it and is not there is lost, or was overtaken.
func (r *SequenceReceiver) cameTo(sent uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return sent == 0 || r.result.Received > 0 && r.highest+1 >= sent
}

// Forget begins anew with what is the longest: LongestGap, LongestRun and LongestSilence from now on.
func (r *SequenceReceiver) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result.LongestGap, r.result.LongestRun, r.result.LongestSilence = 0, 0, 0
}

// Only takes datagrams from one interface of the namespace alone from now on, by its index; 0 is any.
func (r *SequenceReceiver) Only(index int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.only = index
}

// Drain takes what is on the way still, and then no more.
func (r *SequenceReceiver) Drain() {
	r.conn.SetReadDeadline(time.Now().Add(drainTime))
	r.wg.Wait()
}

// Stop ends receiving and reports.
func (r *SequenceReceiver) Stop() SequenceResult {
	r.conn.Close()
	r.wg.Wait()
	return r.Result()
}
