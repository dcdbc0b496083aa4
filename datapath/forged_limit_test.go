package datapath

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/netdev"
)

// TestOnlyRawSocketsPassTheGuard documents the limit: whoever holds CAP_NET_RAW in the host's own namespace can put frames on the
// uplink past its queueing discipline and so past every program there, by AF_PACKET and by AF_XDP. Their packets do arrive. (Should it
// turn red because they do not: good, strike the limit from docs/operations.md.)
func TestOnlyRawSocketsPassTheGuard(t *testing.T) {
	s := newForgeScene(t)
	for name, send := range map[string]func(frame []byte) error{
		"AF_PACKET with PACKET_QDISC_BYPASS": func(frame []byte) error { return armFrames(t, s.a.ns, "up0", true, frame).fire(1) },
		"AF_XDP":                             func(frame []byte) error { return sendByXDP(s.a.ns, "up0", frame) },
	} {
		before := s.a.drops(DropForgedTunnel)
		must(t, send(s.outOf(nil)))
		n := 0
		await(t, "a frame by "+name+" arrives at w2", func() bool { n += s.witnesses["w2"].count(t); return n > 0 })
		if n := s.a.drops(DropForgedTunnel) - before; n != 0 {
			t.Errorf("%s: the guard saw %d", name, n)
		}
	}
}

// TestPassingTheGuardNeedsRawSockets: without CAP_NET_RAW in the host's own namespace none of the ways to a raw frame, a foreign source
// address or a mark is open, to a user or to the root of a user namespace of its own.
func TestPassingTheGuardNeedsRawSockets(t *testing.T) {
	if os.Getenv(attemptsVariable) != "" { // this is the process started below
		must(t, forbiddenAttempts())
		return
	}
	s := newForgeScene(t)
	if err := asNobody(s.a.ns, forbiddenAttempts); err != nil {
		t.Errorf("a user: %v", err)
	}
	const nobody = 65534
	cmd := exec.Command("/proc/self/exe", "-test.run", "^"+t.Name()+"$", "-test.count=1")
	cmd.Env = append(os.Environ(), attemptsVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: nobody, Size: 1}}, GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: nobody, Size: 1}},
		Credential: &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: true}}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	must(t, s.a.ns.Start(cmd))
	if err := cmd.Wait(); err != nil {
		t.Errorf("root of a user namespace: %v\n%s", err, out.String())
	}
}

const attemptsVariable = "WEFT_TEST_FORBIDDEN_ATTEMPTS"

// forbiddenAttempts tries what needs a capability, and says what was not refused.
func forbiddenAttempts() (errs error) {
	if os.Getenv(attemptsVariable) != "" && os.Geteuid() != 0 {
		return errors.New("this is not the root of a user namespace")
	}
	for _, s := range []struct{ family, kind, proto int }{
		{unix.AF_PACKET, unix.SOCK_RAW, 0}, {unix.AF_PACKET, unix.SOCK_DGRAM, 0}, {unix.AF_XDP, unix.SOCK_RAW, 0},
		{unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW}, {unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_UDP},
		{unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_RAW}, {unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_UDP},
	} {
		fd, err := unix.Socket(s.family, s.kind, s.proto)
		if err == nil {
			unix.Close(fd)
		}
		if err != unix.EPERM {
			errs = errors.Join(errs, fmt.Errorf("socket(%d, %d, %d): %v, want %v", s.family, s.kind, s.proto, err, unix.EPERM))
		}
	}
	fd4, err4 := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	fd6, err6 := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
	if err := errors.Join(err4, err6); err != nil {
		return err
	}
	defer unix.Close(fd4)
	defer unix.Close(fd6)
	options := []byte{0, 0, 1, 4, 0, 0, 0, 0}
	for name, try := range map[string]func() error{
		"SO_MARK":          func() error { return unix.SetsockoptInt(fd4, unix.SOL_SOCKET, unix.SO_MARK, 1) },
		"IP_TRANSPARENT":   func() error { return unix.SetsockoptInt(fd4, unix.SOL_IP, unix.IP_TRANSPARENT, 1) },
		"IPV6_TRANSPARENT": func() error { return unix.SetsockoptInt(fd6, unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1) },
		"IPV6_HOPOPTS":     func() error { return unix.SetsockoptString(fd6, unix.SOL_IPV6, unix.IPV6_HOPOPTS, string(options)) },
		"IPV6_DSTOPTS":     func() error { return unix.SetsockoptString(fd6, unix.SOL_IPV6, unix.IPV6_DSTOPTS, string(options)) },
	} {
		if err := try(); err != unix.EPERM {
			errs = errors.Join(errs, fmt.Errorf("%s: %v, want %v", name, err, unix.EPERM))
		}
	}
	// A foreign IPv4 address can be bound, and nothing be sent from it.
	if err := errors.Join(unix.SetsockoptInt(fd4, unix.SOL_IP, unix.IP_FREEBIND, 1), unix.Bind(fd4, &unix.SockaddrInet4{Addr: addrB4.As4()})); err != nil {
		return errors.Join(errs, fmt.Errorf("bind a foreign address: %w", err))
	}
	if err := unix.Sendto(fd4, []byte{0}, 0, &unix.SockaddrInet4{Addr: addrA4.As4(), Port: 4789}); err != unix.EINVAL && err != unix.ENETUNREACH {
		errs = errors.Join(errs, fmt.Errorf("send from a foreign address: %v, want %v or %v", err, unix.EINVAL, unix.ENETUNREACH))
	}
	// The tunnel's port is taken.
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return errors.Join(errs, err)
	}
	defer unix.Close(fd)
	err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	if err := errors.Join(err, unix.Bind(fd, &unix.SockaddrInet4{Port: 4789, Addr: addrA4.As4()})); !errors.Is(err, unix.EADDRINUSE) {
		errs = errors.Join(errs, fmt.Errorf("bind the tunnel's port: %v, want %v", err, unix.EADDRINUSE))
	}
	return errs
}

// sendByXDP sends one frame by an AF_XDP socket: linux/Documentation/networking/af_xdp.rst.
func sendByXDP(ns *netdev.Handle, ifname string, frame []byte) error {
	const slots, slotOctets = 2, 4096
	l, err := ns.LinkByName(ifname)
	if err != nil {
		return err
	}
	return ns.Run(func() error {
		fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		umem, err := unix.Mmap(-1, 0, slots*slotOctets, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
		if err != nil {
			return err
		}
		defer unix.Munmap(umem)
		set := func(option int, value unsafe.Pointer, octets uintptr) error {
			if _, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_XDP, uintptr(option), uintptr(value), octets, 0); errno != 0 {
				return fmt.Errorf("socket option %d: %w", option, errno)
			}
			return nil
		}
		reg := unix.XDPUmemReg{Addr: uint64(uintptr(unsafe.Pointer(&umem[0]))), Len: uint64(len(umem)), Size: slotOctets}
		if err := set(unix.XDP_UMEM_REG, unsafe.Pointer(&reg), unsafe.Sizeof(reg)); err != nil {
			return err
		}
		entries := uint32(slots)
		for _, ring := range []int{unix.XDP_UMEM_FILL_RING, unix.XDP_UMEM_COMPLETION_RING, unix.XDP_TX_RING} {
			if err := set(ring, unsafe.Pointer(&entries), 4); err != nil {
				return err
			}
		}
		var offsets unix.XDPMmapOffsets
		size := uint32(unsafe.Sizeof(offsets))
		if _, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_XDP, unix.XDP_MMAP_OFFSETS, uintptr(unsafe.Pointer(&offsets)),
			uintptr(unsafe.Pointer(&size)), 0); errno != 0 {
			return fmt.Errorf("ring offsets: %w", errno)
		}
		ring, err := unix.Mmap(fd, unix.XDP_PGOFF_TX_RING, int(offsets.Tx.Desc)+slots*int(unsafe.Sizeof(unix.XDPDesc{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
		if err != nil {
			return err
		}
		defer unix.Munmap(ring)
		if err := unix.Bind(fd, &unix.SockaddrXDP{Flags: unix.XDP_COPY, Ifindex: uint32(l.Index)}); err != nil {
			return err
		}
		*(*unix.XDPDesc)(unsafe.Pointer(&ring[offsets.Tx.Desc])) = unix.XDPDesc{Len: uint32(copy(umem, frame))}
		*(*uint32)(unsafe.Pointer(&ring[offsets.Tx.Producer])) = 1
		for {
			err := unix.Sendto(fd, nil, unix.MSG_DONTWAIT, nil)
			if err != unix.EAGAIN && err != unix.EBUSY {
				return err
			}
		}
	})
}
