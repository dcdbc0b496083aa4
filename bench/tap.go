package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/netdev"
)

// A machine stands for a virtual one: on the host a TAP device with virtio headers, inside the same again in a namespace of its
// own, and a pump that moves frames between the two files, as a hypervisor does between its guest's queues and the TAP device.
//
//	guest's stack -> eth0 (TAP) -> pump -> TAP device of the host -> weft, or the bridge
type machine struct {
	workload Workload
	netns    string
	core     int
	// host and guest are the files.
	host, guest int
	// stop ends the pump, which closes done.
	stop int
	done chan error
}

const (
	virtioHeader = 10 // struct virtio_net_hdr
	// tunOffloads: checksum, TSO for IPv4 and IPv6, TSO with ECN (linux/if_tun.h).
	tunOffloads = 0x1 | 0x2 | 0x4 | 0x8
	pumpBurst   = 64
	pumpOctets  = 1<<16 + 64
)

// newMachine makes machine i with its TAP device in a host, and starts its pump.
func newMachine(h *netdev.Handle, device, netns string, i int) (_ *machine, err error) {
	m := &machine{netns: netns, core: i, host: -1, guest: -1, stop: -1}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("make a machine with TAP device %s: %w", device, err), m.Close())
		}
	}()
	if err := netdev.CreateNamespace(netns); err != nil {
		return nil, err
	}
	guest, err := netdev.OpenName(netns)
	if err != nil {
		return nil, err
	}
	defer guest.Close()
	if m.host, err = openTAP(h, device); err != nil {
		return nil, err
	}
	if m.guest, err = openTAP(guest, "eth0"); err != nil {
		return nil, err
	}
	for _, step := range []func() error{
		func() error { return h.SetMTU(device, innerMTU) },
		func() error { return h.SetUp(device) },
		func() error { return guest.SetMTU("eth0", innerMTU) },
		func() error { return guest.SetMAC("eth0", workloadMACs[i]) },
		func() error { return guest.AddAddress("eth0", netip.PrefixFrom(workloadAddrs[i], 24)) },
		func() error { return guest.SetUp("eth0") },
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	if m.workload, err = openWorkload(netns, "eth0", workloadAddrs[i]); err != nil {
		return nil, err
	}
	if m.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, err
	}
	m.start()
	return m, nil
}

func openTAP(h *netdev.Handle, name string) (fd int, err error) {
	fd = -1
	err = h.Run(func() error {
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
			return err
		}
		req, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		return errors.Join(unix.IoctlIfreq(fd, unix.TUNSETIFF, req), unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tunOffloads))
	})
	if err != nil && fd >= 0 {
		unix.Close(fd)
		fd = -1
	}
	return fd, err
}

// start starts the pump, on one core.
func (m *machine) start() {
	m.done = make(chan error, 1)
	go func() {
		// A thread of its own, which ends with its core set.
		m.done <- m.workload.run(func() error {
			if err := pin(m.core); err != nil {
				return err
			}
			return m.pump()
		})
	}()
}

// pause ends the pump until the next start.
func (m *machine) pause() error {
	if m.done == nil {
		return nil
	}
	if _, err := unix.Write(m.stop, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		return err
	}
	err := <-m.done
	m.done = nil
	var drain [8]byte
	_, rerr := unix.Read(m.stop, drain[:])
	return errors.Join(err, rerr)
}

func (m *machine) pump() error {
	buf := make([]byte, pumpOctets)
	fds := []unix.PollFd{{Fd: int32(m.stop), Events: unix.POLLIN}, {Fd: int32(m.guest), Events: unix.POLLIN}, {Fd: int32(m.host), Events: unix.POLLIN}}
	for {
		out, err := move(m.guest, m.host, buf)
		if err != nil {
			return err
		}
		in, err := move(m.host, m.guest, buf)
		if err != nil {
			return err
		}
		timeout := -1
		if out+in > 0 {
			timeout = 0
		}
		if _, err := unix.Poll(fds, timeout); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for frames: %w", err)
		}
		if fds[0].Revents != 0 {
			return nil
		}
	}
}

// move moves what is there, a burst at most.
func move(from, to int, buf []byte) (frames int, err error) {
	for ; frames < pumpBurst; frames++ {
		n, err := retry(func() (int, error) { return unix.Read(from, buf) })
		if errors.Is(err, unix.EAGAIN) {
			return frames, nil
		}
		if err != nil {
			return frames, fmt.Errorf("read a frame: %w", err)
		}
		if _, err := retry(func() (int, error) { return unix.Write(to, buf[:n]) }); err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ENOBUFS) {
			return frames, fmt.Errorf("write a frame of %d octets: %w", n, err)
		}
	}
	return frames, nil
}

// Close ends the pump and takes everything away.
func (m *machine) Close() error {
	errs := []error{m.pause()}
	if m.workload.Netns != nil {
		m.workload.Netns.Close()
	}
	for _, fd := range []int{m.host, m.guest, m.stop} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	return errors.Join(append(errs, netdev.DeleteNamespace(m.netns))...)
}

// tapped is a Contender of machines.
type tapped interface {
	Contender
	ends() []*machine
}

// tapCost is packetCost without a guest: one thread writes frames to the first machine's TAP device and reads them from the
// second's, a burst at a time, as a hypervisor does that has work for both.
func tapCost(c tapped, length, n int) (ns float64, err error) {
	a, b := c.ends()[0], c.ends()[1]
	for _, m := range c.ends() {
		if err := m.pause(); err != nil {
			return 0, err
		}
		defer m.start()
	}
	err = a.workload.run(func() error {
		if err := pin(packetCore); err != nil {
			return err
		}
		frame := append(make([]byte, virtioHeader), udpFrame(a.workload, b.workload, length)...)
		buf := make([]byte, pumpOctets)
		if err := tapFrames(a.host, b.host, frame, buf, min(n, warmupFrames)); err != nil {
			return err
		}
		start := time.Now()
		err := tapFrames(a.host, b.host, frame, buf, n)
		ns = float64(time.Since(start).Nanoseconds()) / float64(n)
		return err
	})
	return ns, err
}

func tapFrames(from, to int, frame, buf []byte, n int) error {
	for sent := 0; sent < n; sent += pumpBurst {
		for range pumpBurst {
			if _, err := retry(func() (int, error) { return unix.Write(from, frame) }); err != nil {
				return fmt.Errorf("write a frame: %w", err)
			}
		}
		start := time.Now()
		for got := 0; got < pumpBurst; {
			octets, err := retry(func() (int, error) { return unix.Read(to, buf) })
			switch {
			case errors.Is(err, unix.EAGAIN) && time.Since(start) < 2*time.Second:
			case err != nil:
				return fmt.Errorf("%w: sent %d frames, the last burst delivered %d of %d: %w", errLost, sent+pumpBurst, got, pumpBurst, err)
			case octets == len(frame):
				got++
			}
		}
	}
	return nil
}

const (
	tapPackets     = "TAP with virtio headers, 64-byte frames"
	tapStreamWhole = "TAP with virtio headers, one TCP stream, offloads on"
	tapStreamWire  = "TAP with virtio headers, one TCP stream, underlay as a wire"
)

// taps measures machines, which are there only meanwhile.
func (f *field) taps(ctx context.Context) (_ []Series, err error) {
	var all []Contender
	defer func() { err = errors.Join(err, closeAll(all)) }()
	for _, build := range []func() (Contender, error){
		func() (Contender, error) {
			return newWeft(ctx, weftConfig{lab: "bench-tap", binary: f.cfg.Binary, tap: true})
		},
		func() (Contender, error) {
			return (&bridgeVXLAN{name: tunedName, prefix: "weft-bench-tapk-", tuned: true, tap: true}).build()
		},
	} {
		c, err := build()
		if err != nil {
			return nil, err
		}
		all = append(all, c)
		if err := parity(c); err != nil {
			return nil, err
		}
		f.say("built: " + c.Name() + ", TAP")
	}
	s, err := f.compare(ctx, Series{Measure: tapPackets, Unit: "ns/packet"}, all, func(c Contender) (float64, error) {
		return tapCost(c.(tapped), frameOctets, f.cfg.Frames)
	})
	if err != nil {
		return nil, err
	}
	out := []Series{s}
	for _, wire := range []bool{false, true} {
		name := tapStreamWhole
		if wire {
			name = tapStreamWire
		}
		// weft as it is, and with aggregates that it strips itself.
		ways := lanes(all[0].(*weftContender), nil)
		ways = []Contender{named{ways[1], weftName}, ways[0], all[1]}
		s, err := f.stream(ctx, name, ways, wire, 1)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}
