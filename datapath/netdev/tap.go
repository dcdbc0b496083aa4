package netdev

import (
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
	return h.openTAP(name, unix.IFF_TAP|unix.IFF_NO_PI|unix.IFF_VNET_HDR, false)
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
