package netdev

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// OpenTAP makes a TAP device, or attaches to one that is there, and returns its file: a read or write is one Ethernet frame,
// without any header. The device is down, and goes with the file unless it is persistent.
func (h *Handle) OpenTAP(name string, persistent bool) (*os.File, error) {
	return h.openTAP(name, unix.IFF_TAP|unix.IFF_NO_PI, persistent)
}

// OpenVirtioTAP is OpenTAP as a virtual machine monitor does it: every frame, in both directions, begins with the ten octets of
// struct virtio_net_hdr, and what is written may be an aggregate or lack its checksum. It goes with the file.
func (h *Handle) OpenVirtioTAP(name string) (*os.File, error) {
	return h.openTAP(name, tapFlags(false), false)
}

// OpenVirtioQueue opens one more queue of a TAP device that has several, with virtio headers.
func (h *Handle) OpenVirtioQueue(name string) (*os.File, error) {
	return h.openTAP(name, tapFlags(true), false)
}

func (h *Handle) openTAP(name string, flags uint16, persistent bool) (*os.File, error) {
	fd := -1
	err := h.Run(func() (err error) {
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
			return fmt.Errorf("open /dev/net/tun: %w", err)
		}
		req, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		req.SetUint16(flags)
		return unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	})
	if err == nil && persistent {
		err = unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1)
	}
	if err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return nil, fmt.Errorf("open TAP device %s in %s: %w", name, h.name, err)
	}
	return os.NewFile(uintptr(fd), "/dev/net/tun"), nil
}

// AddTAP makes a persistent TAP device, as `ip tuntap add mode tap` does.
func (h *Handle) AddTAP(name string) error {
	f, err := h.OpenTAP(name, true)
	if err != nil {
		return err
	}
	return f.Close()
}

// MaxTAPQueues is how many queues a TAP device may have (MAX_TAP_QUEUES of Linux).
const MaxTAPQueues = 256

// MakeTAP makes a persistent TAP device for a virtual machine, down, with virtio headers. Its offloads are off until the machine's
// monitor, which knows what the machine takes, asks for them (TUNSETOFFLOAD). More than one queue makes it multi-queue, which its opener then has to ask for. Owner and group may
// open it beside root; where both are below 0 everybody who can open /dev/net/tun may.
//
// A TAP device of that name is taken over as it is if somebody has it open, and else given owner and group. One of the other kind (one queue,
// several) is an error, as its kind cannot be changed; so is an interface that is no TAP device.
func (h *Handle) MakeTAP(name string, queues, owner, group int) (Link, error) {
	if queues < 1 || queues > MaxTAPQueues {
		return Link{}, fmt.Errorf("make TAP device %s: %d queues: 1 to %d are possible", name, queues, MaxTAPQueues)
	}
	l, err := h.LinkByName(name)
	switch {
	case errors.Is(err, ErrNotFound):
	case err != nil:
		return Link{}, err
	case !l.TAP:
		return Link{}, fmt.Errorf("make TAP device %s: an interface of that name is there (%s): choose another name, or remove it", name, l.Kind)
	case l.MultiQueue != (queues > 1):
		return Link{}, fmt.Errorf("make TAP device %s: it is there, made for %s: remove it (`ip link delete %s`), or ask for as many", name,
			map[bool]string{false: "one queue", true: "several queues"}[l.MultiQueue], name)
	case l.OpenQueues > 0: // an opener more would get some of its frames
		return l, nil
	}
	f, err := h.openTAP(name, tapFlags(queues > 1), true)
	if errors.Is(err, unix.EBUSY) { // opened since
		return h.LinkByName(name)
	}
	if err != nil {
		return Link{}, err
	}
	for _, who := range []struct{ request, id int }{{unix.TUNSETOWNER, owner}, {unix.TUNSETGROUP, group}} {
		if who.id >= 0 && err == nil {
			err = unix.IoctlSetInt(int(f.Fd()), uint(who.request), who.id)
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return Link{}, fmt.Errorf("make TAP device %s in %s: owner %d, group %d: %w", name, h.name, owner, group, err)
	}
	return h.LinkByName(name)
}

// tapFlags are those of a virtual machine's device.
func tapFlags(multiQueue bool) uint16 {
	if multiQueue {
		return unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE
	}
	return unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR
}

// inUse: somebody has the device open. Of one with one queue the kernel does not say; but it is not opened twice.
func (h *Handle) inUse(l Link) (bool, error) {
	if l.MultiQueue {
		return l.OpenQueues > 0, nil
	}
	f, err := h.openTAP(l.Name, tapFlags(false), false)
	if errors.Is(err, unix.EBUSY) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, f.Close()
}

// RemoveTAP removes a TAP device that nobody has open. One that is not there is fine; what is no TAP device is not touched.
func (h *Handle) RemoveTAP(name string) error {
	l, err := h.LinkByName(name)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil
	case err != nil:
		return err
	case !l.TAP:
		return fmt.Errorf("remove TAP device %s: it is none (%s)", name, l.Kind)
	}
	switch used, err := h.inUse(l); {
	case err != nil:
		return err
	case used:
		return fmt.Errorf("remove TAP device %s: a virtual machine has it open: stop that first", name)
	}
	if err := h.nl.LinkDel(ref(l.Index)); err != nil && !errors.Is(notFound(err), ErrNotFound) {
		return fmt.Errorf("remove TAP device %s: %w", name, err)
	}
	return nil
}
