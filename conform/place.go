package conform

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/netdev"
)

// place is where whole frames are sent and received.
type place interface {
	send(frame []byte) error
	// offer sends a frame with what is left to whoever carries it: see virtio.
	offer(head virtio, frame []byte) error
	// next is a frame that is there, or nil.
	next() ([]byte, error)
	close()
}

// virtio is struct virtio_net_hdr: which checksum is still to be computed, and how an aggregate is to be cut. Zero leaves nothing to do.
type virtio [virtioLen]byte

const (
	virtioLen = 10
	// Of the flags: the checksum is to be computed; it is known to be right.
	virtioNeedsChecksum, virtioChecksumOK = 1, 2
	virtioTCP4, virtioTCP6                = 1, 4
)

// tap is a virtual machine's end of a TAP device.
type tap struct {
	file *os.File
	raw  syscall.RawConn
	buf  []byte
}

// openTAP makes the device in the host's namespace; its MTU is the network's users' to exceed.
func openTAP(host *netdev.Handle, name string, mtu int) (t *tap, err error) {
	t = &tap{buf: make([]byte, 65536+virtioLen)}
	if t.file, err = host.OpenVirtioTAP(name); err != nil {
		return nil, err
	}
	if t.raw, err = t.file.SyscallConn(); err == nil {
		err = errors.Join(host.Quiet(name), host.SetMTU(name, mtu), host.SetUp(name))
	}
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func (t *tap) close() { t.file.Close() }

func (t *tap) send(frame []byte) error { return t.offer(virtio{}, frame) }

func (t *tap) offer(head virtio, frame []byte) error {
	var err error
	control := t.raw.Write(func(fd uintptr) bool {
		_, err = unix.Write(int(fd), append(head[:], frame...))
		return true
	})
	if err = errors.Join(control, err); err != nil {
		return fmt.Errorf("send a frame of %d octets by the TAP device: %w", len(frame), err)
	}
	return nil
}

// next checks that the virtual machine gets frames that are whole: it has not said that it can do anything else.
func (t *tap) next() ([]byte, error) {
	var n int
	var err error
	control := t.raw.Read(func(fd uintptr) bool {
		n, err = unix.Read(int(fd), t.buf)
		return true
	})
	if err == unix.EAGAIN || err == unix.EINTR {
		return nil, control
	}
	if err = errors.Join(control, err); err != nil {
		return nil, err
	}
	if n < virtioLen {
		return nil, fmt.Errorf("the TAP device gave %d octets", n)
	}
	b := append([]byte{}, t.buf[virtioLen:n]...)
	if flags, kind := t.buf[0], t.buf[1]; flags&^virtioChecksumOK != 0 || kind != 0 {
		return b, fmt.Errorf("the TAP device leaves work to the virtual machine: virtio header %x", t.buf[:virtioLen])
	}
	return b, nil
}
