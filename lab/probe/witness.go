package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/netdev"
)

// Witness sits in a workload and knows it by an identity. It sees every frame that arrives on the interface, whatever its
// addresses and type, and counts by sender those that carry a Shout. To a shout that is for an address of its own it answers,
// with its own identity.
type Witness struct {
	identity string
	raw      *os.File
	index    int
	udp      [2]*net.UDPConn // IPv4 and IPv6
	wg       sync.WaitGroup

	mu      sync.Mutex
	seen    map[string]int
	answers map[string]int
}

const (
	// ShoutPort is the UDP port of shouts and answers.
	ShoutPort  = 7349
	shoutMark  = "weft-shout:"
	answerMark = "weft-answer:"
	markEnd    = ";"
)

// StartWitness begins to watch an interface of a namespace. Close ends it.
func StartWitness(ctx context.Context, ns *netdev.Handle, iface, identity string) (*Witness, error) {
	w := &Witness{identity: identity, seen: map[string]int{}, answers: map[string]int{}}
	if err := w.open(ctx, ns, iface); err != nil {
		w.Close()
		return nil, fmt.Errorf("witness in %s: %w", ns, err)
	}
	w.wg.Add(1 + len(w.udp))
	go w.watch()
	for _, c := range w.udp {
		go w.answer(c)
	}
	return w, nil
}

func (w *Witness) open(ctx context.Context, ns *netdev.Handle, iface string) error {
	l, err := ns.LinkByName(iface)
	if err != nil {
		return err
	}
	w.index = l.Index
	if w.raw, err = packetSocket(ns, l.Index); err != nil {
		return err
	}
	for i := range w.udp {
		if w.udp[i], err = bound(ctx, ns, i == 1, ShoutPort); err != nil {
			return err
		}
	}
	return allowBroadcast(w.udp[0])
}

// packetSocket receives every frame of an interface.
func packetSocket(ns *netdev.Handle, index int) (*os.File, error) {
	all := htons(unix.ETH_P_ALL)
	fd := -1
	err := ns.Run(func() (err error) {
		// Without a protocol it receives nothing until it is bound, and so nothing of other interfaces.
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	// A witness that stood still for a while has seen everything: what does not fit would be missing.
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index})
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "packet socket"), nil
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

func allowBroadcast(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return control(raw, func(fd uintptr) error { return unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1) })
}

func (w *Witness) watch() {
	defer w.wg.Done()
	buf := make([]byte, 65536)
	for {
		n, err := w.raw.Read(buf)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if errors.Is(err, unix.ENETDOWN) {
			continue // reported once when the interface goes
		}
		if err != nil {
			return
		}
		// Frames that this workload sends are seen too: they carry its own identity.
		if who, ok := marked(buf[:n], shoutMark); ok && who != w.identity {
			w.mu.Lock()
			w.seen[who]++
			w.mu.Unlock()
		}
	}
}

func (w *Witness) answer(c *net.UDPConn) {
	defer w.wg.Done()
	buf := make([]byte, 2048)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		if who, ok := marked(buf[:n], answerMark); ok {
			w.mu.Lock()
			w.answers[who]++
			w.mu.Unlock()
			continue
		}
		if who, ok := marked(buf[:n], shoutMark); ok && who != w.identity {
			_, _ = c.WriteToUDPAddrPort([]byte(answerMark+w.identity+markEnd), from) // whoever waits for it counts
		}
	}
}

// marked finds an identity in a frame.
func marked(frame []byte, mark string) (string, bool) {
	_, rest, ok := bytes.Cut(frame, []byte(mark))
	if !ok {
		return "", false
	}
	who, _, ok := bytes.Cut(rest, []byte(markEnd))
	return strings.Clone(string(who)), ok
}

// Shout sends datagrams with the witness's identity to an address, which may be a broadcast or a link-local multicast address.
func (w *Witness) Shout(dst netip.Addr, times int) error {
	c := w.udp[0]
	if dst.Is6() {
		c = w.udp[1]
	}
	target := dst
	if dst.IsLinkLocalMulticast() {
		target = dst.WithZone(strconv.Itoa(w.index)) // by number: a name would be looked up in the caller's namespace
	}
	for range times {
		if _, err := c.WriteToUDPAddrPort([]byte(shoutMark+w.identity+markEnd), netip.AddrPortFrom(target, ShoutPort)); err != nil {
			return fmt.Errorf("shout from %s to %s: %w", w.identity, dst, err)
		}
	}
	return nil
}

// Seen counts, by sender, the shouts whose frames arrived.
func (w *Witness) Seen() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.seen)
}

// Answers counts, by sender, the answers to this witness's shouts.
func (w *Witness) Answers() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.answers)
}

// Await waits until the condition about this witness's counts holds.
func (w *Witness) Await(ctx context.Context, cond func(seen, answers map[string]int) bool) bool {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if cond(w.Seen(), w.Answers()) {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}

// Close ends the witness.
func (w *Witness) Close() {
	if w.raw != nil {
		w.raw.Close()
	}
	for _, c := range w.udp {
		if c != nil {
			c.Close()
		}
	}
	w.wg.Wait()
}
