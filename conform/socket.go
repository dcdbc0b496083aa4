package conform

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/netdev"
)

// socket sends and receives whole frames on an interface of a namespace.
type socket struct {
	fd, index int
	offers    int // another one, which sends with a virtio header
	buf       []byte
}

func openSocket(ns *netdev.Handle, ifname string) (*socket, error) {
	l, err := ns.LinkByName(ifname)
	if err != nil {
		return nil, err
	}
	s := &socket{fd: -1, offers: -1, index: l.Index, buf: make([]byte, 65536)}
	err = ns.Run(func() (err error) {
		if s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		const all = 0x0300 // ETH_P_ALL in network order
		return errors.Join(unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20),
			unix.SetsockoptInt(s.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
			unix.SetsockoptInt(s.fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
			unix.Bind(s.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: l.Index}))
	})
	if err == nil {
		err = ns.Run(func() (err error) {
			if s.offers, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
				return err
			}
			return unix.SetsockoptInt(s.offers, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1)
		})
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("raw socket on %s in %s: %w", ifname, ns, err)
	}
	return s, nil
}

func (s *socket) close() {
	for _, fd := range []int{s.fd, s.offers} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

func (s *socket) send(frame []byte) error { return s.sendBy(s.fd, frame) }

func (s *socket) offer(head virtio, frame []byte) error {
	return s.sendBy(s.offers, append(head[:], frame...))
}

func (s *socket) sendBy(fd int, frame []byte) error {
	err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: s.index, Halen: 6})
	if err != nil {
		return fmt.Errorf("send a frame of %d octets: %w", len(frame), err)
	}
	return nil
}

// next is a frame that is there, or nil. A VLAN tag that the kernel has moved to its metadata is an error.
func (s *socket) next() ([]byte, error) {
	oob := make([]byte, 128)
	n, o, _, _, err := unix.Recvmsg(s.fd, s.buf, oob, 0)
	if err == unix.EAGAIN || err == unix.EINTR {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	b := append([]byte{}, s.buf[:n]...)
	messages, err := unix.ParseSocketControlMessage(oob[:o])
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		const status, tagged = 0, 0x10 // struct tpacket_auxdata: tp_status; TP_STATUS_VLAN_VALID
		if m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA && m.Data[status]&tagged != 0 {
			return b, errors.New("it carries a VLAN tag")
		}
	}
	return b, nil
}

// patience is how long anything may take on a busy machine, which may stand still for seconds.
const patience = 15 * time.Second

// await waits until cond holds; what names it.
func await(what string, patience time.Duration, cond func() (bool, error)) error {
	deadline := time.Now().Add(patience)
	for {
		ok, err := cond()
		if ok || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %s: %s", patience, what)
		}
		unix.Poll(nil, 1)
	}
}
