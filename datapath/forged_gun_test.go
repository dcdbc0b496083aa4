package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"unsafe"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/netdev"
)

// gun sends the same few packets in turn, as fast as one thread can.
type gun struct {
	fd     int
	rounds [][]byte
	// to is where a socket that is not connected sends to.
	to unix.RawSockaddrInet6
	// toLen is how much of it the kernel is to read; 0 for a connected socket.
	toLen uintptr
	// halves sends every round in two parts, the first with MSG_MORE; pairs sends two rounds for one.
	halves, pairs bool
	next          int
}

// fire sends n rounds. That the kernel says a program dropped one is no error: it was sent, and that is what is counted.
func (g *gun) fire(n int) error {
	if g.pairs {
		n *= 2
	}
	for range n {
		b := g.rounds[g.next]
		g.next = (g.next + 1) % len(g.rounds)
		if g.halves {
			if err := g.send(b[:len(b)/2], unix.MSG_MORE); err != nil {
				return err
			}
			b = b[len(b)/2:]
		}
		if err := g.send(b, 0); err != nil {
			return err
		}
	}
	return nil
}

func (g *gun) send(b []byte, flags uintptr) error {
	to := unsafe.Pointer(&g.to)
	if g.toLen == 0 {
		to = nil
	}
	for {
		_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(g.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), flags,
			uintptr(to), g.toLen)
		switch errno {
		case unix.EINTR:
			continue
		case 0, unix.ENOBUFS, unix.EPERM:
			return nil
		case unix.ECONNREFUSED: // an ICMP error about a packet before; this one was not sent
			continue
		}
		return fmt.Errorf("send %d octets: %w", len(b), errno)
	}
}

// arm opens a gun in a namespace; it is closed with the test.
func arm(t testing.TB, ns *netdev.Handle, rounds [][]byte, open func() (int, error)) *gun {
	t.Helper()
	g := &gun{rounds: rounds}
	must(t, ns.Run(func() (err error) {
		g.fd, err = open()
		return err
	}))
	t.Cleanup(func() { unix.Close(g.fd) })
	return g
}

// armFrames sends whole frames on an interface. Past the queueing discipline is past the programs on the way out, too.
func armFrames(t testing.TB, ns *netdev.Handle, ifname string, bypass bool, rounds ...[]byte) *gun {
	t.Helper()
	l, err := ns.LinkByName(ifname)
	must(t, err)
	g := arm(t, ns, rounds, func() (int, error) {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err == nil && bypass {
			err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1)
		}
		return fd, err
	})
	to := (*unix.RawSockaddrLinklayer)(unsafe.Pointer(&g.to))
	*to = unix.RawSockaddrLinklayer{Family: unix.AF_PACKET, Ifindex: int32(l.Index), Halen: 6}
	g.toLen = unix.SizeofSockaddrLinklayer
	return g
}

// armPackets sends whole IP packets, their headers included, by the routes of the namespace.
func armPackets(t testing.TB, ns *netdev.Handle, to netip.Addr, options func(fd int) error, rounds ...[]byte) *gun {
	t.Helper()
	family := unix.AF_INET
	if to.Is6() {
		family = unix.AF_INET6
	}
	g := arm(t, ns, rounds, func() (int, error) {
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err == nil && options != nil {
			err = options(fd)
		}
		return fd, err
	})
	if to.Is6() {
		g.to = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: to.As16()}
		g.toLen = unix.SizeofSockaddrInet6
	} else {
		*(*unix.RawSockaddrInet4)(unsafe.Pointer(&g.to)) = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: to.As4()}
		g.toLen = unix.SizeofSockaddrInet4
	}
	return g
}

// armNobody sends datagrams from a socket that a process without any privilege has opened.
func armNobody(t testing.TB, ns *netdev.Handle, to netip.AddrPort, options func(fd int) error, rounds ...[]byte) *gun {
	t.Helper()
	g := &gun{rounds: rounds}
	must(t, asNobody(ns, func() (err error) {
		family, addr := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(to.Port()), Addr: [4]byte(to.Addr().AsSlice())})
		if to.Addr().Is6() {
			family, addr = unix.AF_INET6, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
		}
		if g.fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if options != nil {
			if err := options(g.fd); err != nil {
				return err
			}
		}
		return unix.Connect(g.fd, addr)
	}))
	t.Cleanup(func() { unix.Close(g.fd) })
	return g
}

// asNobody runs f on a thread of its own in the namespace, as user 65534 without groups and capabilities. The thread ends with it.
func asNobody(ns *netdev.Handle, f func() error) error {
	done := make(chan error, 1)
	go func() {
		const nobody = 65534
		if err := ns.Lock(); err != nil {
			done <- err
			return
		}
		// The raw calls change the calling thread alone. Leaving uid 0 empties its capabilities: man 7 capabilities.
		for _, call := range [][4]uintptr{{unix.SYS_SETGROUPS}, {unix.SYS_SETRESGID, nobody, nobody, nobody}, {unix.SYS_SETRESUID, nobody, nobody, nobody}} {
			if _, _, errno := unix.RawSyscall(call[0], call[1], call[2], call[3]); errno != 0 {
				done <- fmt.Errorf("become nobody: %w", errno)
				return
			}
		}
		done <- f()
		runtime.Goexit() // locked: the thread goes, too
	}()
	return <-done
}

// witness counts the frames from one source MAC that come in on an interface, without reading them.
type witness struct{ fd int }

func newWitness(t testing.TB, ns *netdev.Handle, ifname string, first uint32) *witness {
	t.Helper()
	l, err := ns.LinkByName(ifname)
	must(t, err)
	w := &witness{}
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 6}, // the first four octets of the source MAC
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: first},
		{Code: unix.BPF_RET | unix.BPF_K, K: 64},
		{Code: unix.BPF_RET | unix.BPF_K},
	}
	must(t, ns.Run(func() (err error) {
		if w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		return errors.Join(unix.SetsockoptSockFprog(w.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}),
			unix.SetsockoptInt(w.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
			unix.Bind(w.fd, &unix.SockaddrLinklayer{Protocol: 0x0300 /* ETH_P_ALL */, Ifindex: l.Index}))
	}))
	t.Cleanup(func() { unix.Close(w.fd) })
	return w
}

// count is how many came since it was last asked; those for which the socket had no room are among them.
func (w *witness) count(t testing.TB) int {
	t.Helper()
	st, err := unix.GetsockoptTpacketStats(w.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	must(t, err)
	for buf := [64]byte{}; err == nil; { // make room
		_, _, err = unix.Recvfrom(w.fd, buf[:], 0)
	}
	return int(st.Packets)
}

// quote is the number of a MAC's first four octets, as a witness looks for it.
func quote(mac [6]byte) uint32 { return binary.BigEndian.Uint32(mac[:4]) }

// linkCount is a counter of an interface: of struct rtnl_link_stats64, which the netlink package does not know to its end.
func (h *testHost) linkCount(ifname, counter string) (n uint64) {
	h.t.Helper()
	at, ok := map[string]int{"rx_otherhost_dropped": 24}[counter]
	if !ok {
		h.t.Fatalf("no counter %s", counter)
	}
	l, err := h.ns.LinkByName(ifname)
	must(h.t, err)
	must(h.t, h.ns.Run(func() error {
		req := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
		msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
		msg.Index = int32(l.Index)
		req.AddData(msg)
		answers, err := req.Execute(unix.NETLINK_ROUTE, 0)
		if err != nil {
			return err
		}
		for _, b := range answers {
			attrs, err := nl.ParseRouteAttr(b[unix.SizeofIfInfomsg:])
			if err != nil {
				return err
			}
			for _, a := range attrs {
				if a.Attr.Type == unix.IFLA_STATS64 && len(a.Value) >= 8*(at+1) {
					n = binary.NativeEndian.Uint64(a.Value[8*at:])
					return nil
				}
			}
		}
		return fmt.Errorf("the kernel has no counter %s of %s", counter, ifname)
	}))
	return n
}
