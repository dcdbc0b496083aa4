package netdev

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Handle is a network namespace, held open. All methods may be called from any goroutine, at the same time.
type Handle struct {
	name string
	fd   int
	ctl  int // a datagram socket in the namespace, for ioctls
	nl   *netlink.Handle
}

// Current opens the namespace that the calling thread is in.
func Current() (*Handle, error) { return OpenPath(currentNamespace) }

// OpenName opens a namespace by its name under NamespaceDir.
func OpenName(name string) (*Handle, error) {
	if err := validName(name); err != nil {
		return nil, err
	}
	return OpenPath(NamespacePath(name))
}

// Open opens a namespace by name, or by path if there is a slash in it.
func Open(nameOrPath string) (*Handle, error) { return OpenPath(NamespacePath(nameOrPath)) }

// OpenPath opens a namespace by a file such as /run/netns/NAME or /proc/PID/ns/net.
func OpenPath(path string) (*Handle, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0) // never waits, whatever is there
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	h := &Handle{name: path, fd: fd, ctl: -1}
	if err := h.open(); err != nil {
		h.Close()
		return nil, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	return h, nil
}

func (h *Handle) open() error {
	if kind, err := unix.IoctlRetInt(h.fd, unix.NS_GET_NSTYPE); err != nil || kind != unix.CLONE_NEWNET {
		return errors.New("this is not a network namespace")
	}
	nl, err := netlink.NewHandleAt(netns.NsHandle(h.fd), unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	h.nl = nl
	return h.Run(func() error {
		h.ctl, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
}

// Close lets go of the namespace. It does not delete it.
func (h *Handle) Close() {
	if h.nl != nil {
		h.nl.Close()
	}
	if h.ctl >= 0 {
		unix.Close(h.ctl)
		h.ctl = -1
	}
	if h.fd >= 0 {
		unix.Close(h.fd)
		h.fd = -1
	}
}

// String is the path it was opened by.
func (h *Handle) String() string { return h.name }

// FD is the namespace's file descriptor, open until Close.
func (h *Handle) FD() int { return h.fd }

// Same reports whether both handles are the same namespace.
func (h *Handle) Same(o *Handle) bool {
	var a, b unix.Stat_t
	return unix.Fstat(h.fd, &a) == nil && unix.Fstat(o.fd, &b) == nil && a.Dev == b.Dev && a.Ino == b.Ino
}

// Run runs f on a thread that is in the namespace. Sockets that f opens stay in it; goroutines that f starts do not.
func (h *Handle) Run(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(h.fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", h.name, err)
		}
		return f()
	})
}

// Lock puts the calling goroutine's thread into the namespace for good: the goroutine must not call UnlockOSThread, and its
// thread ends with it. For loops that open sockets again and again.
func (h *Handle) Lock() error {
	runtime.LockOSThread()
	if err := unix.Setns(h.fd, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace %s: %w", h.name, err)
	}
	return nil
}

// Start starts the command in the network namespace, and in nothing else of its own: it sees the same mounts, so that what
// it pins in bpffs outlives it. Do not set SysProcAttr.Pdeathsig: it would follow a thread, not the process.
func (h *Handle) Start(cmd *exec.Cmd) error {
	if err := h.Run(cmd.Start); err != nil {
		return fmt.Errorf("start %s in %s: %w", cmd.Path, h.name, err)
	}
	return nil
}

// Listen opens a stream listener in the namespace; network is tcp, tcp4 or tcp6.
func (h *Handle) Listen(ctx context.Context, network, address string) (l net.Listener, err error) {
	err = h.Run(func() error {
		l, err = new(net.ListenConfig).Listen(ctx, network, address)
		return err
	})
	return l, err
}

// ListenPacket opens a datagram socket in the namespace; network is udp, udp4, udp6, ip4:icmp, ….
func (h *Handle) ListenPacket(ctx context.Context, network, address string) (c net.PacketConn, err error) {
	err = h.Run(func() error {
		c, err = new(net.ListenConfig).ListenPacket(ctx, network, address)
		return err
	})
	return c, err
}

// Dial connects from the namespace to an IP address and L4 port. A nil dialer is the zero one; it dials one address only,
// as goroutines of the dialer's own would leave the namespace.
func (h *Handle) Dial(ctx context.Context, d *net.Dialer, network, address string) (c net.Conn, err error) {
	if d == nil {
		d = new(net.Dialer)
	}
	host, _, err := net.SplitHostPort(address)
	if err == nil && net.ParseIP(host) == nil {
		err = fmt.Errorf("dial %s in a namespace: give an IP address", address)
	}
	if err != nil {
		return nil, err
	}
	err = h.Run(func() error {
		c, err = d.DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// RunIn is Handle.Run in a namespace by name or path.
func RunIn(nameOrPath string, f func() error) error {
	h, err := Open(nameOrPath)
	if err != nil {
		return err
	}
	defer h.Close()
	return h.Run(f)
}

// Start is Handle.Start in a namespace by name or path.
func Start(nameOrPath string, cmd *exec.Cmd) error {
	h, err := Open(nameOrPath)
	if err != nil {
		return err
	}
	defer h.Close()
	return h.Start(cmd)
}

// dumpTries bounds how often an interrupted dump is repeated; each repetition needs a change at just the wrong moment.
const dumpTries = 50

// dump repeats a listing until it was not interrupted by a change.
func dump[T any](f func() (T, error)) (T, error) {
	for i := 0; ; i++ {
		v, err := f()
		if !errors.Is(err, netlink.ErrDumpInterrupted) || i == dumpTries {
			return v, err
		}
	}
}
