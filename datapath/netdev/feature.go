package netdev

import (
	"bytes"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Feature is an offload of an interface, by ethtool's short name or, for all others, by the kernel's own
// ("rx-udp-gro-forwarding", "tx-udp_tnl-segmentation": `ethtool -k`).
type Feature string

// The offloads that matter to a virtual switch.
const (
	// TSO: the interface takes TCP segments of up to 64 kB.
	TSO Feature = "tso"
	// GSO: the kernel cuts large segments as late as possible.
	GSO Feature = "gso"
	// GRO: received packets are put together (of a veth: by NAPI).
	GRO Feature = "gro"
	// TX: checksums are left to the interface to fill in.
	TX Feature = "tx"
	// RX: checksums are verified by the interface.
	RX Feature = "rx"
	// SG: scatter-gather; TSO needs it.
	SG Feature = "sg"
	// TXVLAN and TXServiceVLAN: VLAN tags (802.1Q, 802.1ad) travel beside the frame and are left to the interface to insert.
	TXVLAN        Feature = "tx-vlan-hw-insert"
	TXServiceVLAN Feature = "tx-vlan-stag-hw-insert"
	// RXVLAN and RXServiceVLAN: the interface takes tags out of what it receives, and hands them over beside the frame.
	RXVLAN        Feature = "rx-vlan-hw-parse"
	RXServiceVLAN Feature = "rx-vlan-stag-hw-parse"
)

// commands get and set of the features with a command of their own (linux/ethtool.h).
var commands = map[Feature]struct{ get, set uint32 }{
	RX: {0x14, 0x15}, TX: {0x16, 0x17}, SG: {0x18, 0x19}, TSO: {0x1e, 0x1f}, GSO: {0x23, 0x24}, GRO: {0x2b, 0x2c},
}

const (
	ethtoolGStrings  = 0x1b
	ethtoolGSSetInfo = 0x37
	ethtoolGFeatures = 0x3a
	ethtoolSFeatures = 0x3b
	ethSSFeatures    = 4
	ethGStringLen    = 32
)

// SetFeature switches an offload. One that the interface cannot change is an error.
func (h *Handle) SetFeature(link string, f Feature, on bool) error {
	if err := h.setFeature(link, f, on); err != nil {
		return fmt.Errorf("switch %s of interface %s to %t: %w", f, link, on, err)
	}
	return nil
}

func (h *Handle) setFeature(link string, f Feature, on bool) error {
	value := [2]uint32{}
	if on {
		value[1] = 1
	}
	if c, ok := commands[f]; ok {
		value[0] = c.set
		if err := h.ethtool(link, unsafe.Pointer(&value)); err != nil {
			return err
		}
	} else {
		index, blocks, err := h.featureIndex(link, f)
		if err != nil {
			return err
		}
		// struct ethtool_sfeatures: cmd, size, then per block of 32 features: valid, requested.
		req := make([]uint32, 2+2*blocks)
		req[0], req[1] = ethtoolSFeatures, uint32(blocks)
		req[2+2*(index/32)] = 1 << (index % 32)
		req[3+2*(index/32)] = value[1] << (index % 32)
		if err := h.ethtool(link, unsafe.Pointer(&req[0])); err != nil {
			return err
		}
		runtime.KeepAlive(req)
	}
	now, err := h.feature(link, f)
	if err == nil && now != on {
		err = fmt.Errorf("the interface does not let it be changed")
	}
	return err
}

// Feature reads an offload's state.
func (h *Handle) Feature(link string, f Feature) (bool, error) {
	on, err := h.feature(link, f)
	if err != nil {
		return false, fmt.Errorf("read %s of interface %s: %w", f, link, err)
	}
	return on, nil
}

func (h *Handle) feature(link string, f Feature) (bool, error) {
	if c, ok := commands[f]; ok {
		value := [2]uint32{c.get}
		err := h.ethtool(link, unsafe.Pointer(&value))
		return value[1] != 0, err
	}
	index, blocks, err := h.featureIndex(link, f)
	if err != nil {
		return false, err
	}
	// struct ethtool_gfeatures: cmd, size, then per block: available, requested, active, never_changed.
	req := make([]uint32, 2+4*blocks)
	req[0], req[1] = ethtoolGFeatures, uint32(blocks)
	err = h.ethtool(link, unsafe.Pointer(&req[0]))
	runtime.KeepAlive(req)
	return req[2+4*(index/32)+2]&(1<<(index%32)) != 0, err
}

// featureIndex finds a feature's bit by its name in the kernel's list, and how many blocks of 32 there are.
func (h *Handle) featureIndex(link string, f Feature) (index, blocks int, err error) {
	// struct ethtool_sset_info: cmd, reserved, sset_mask (u64), data.
	info := [5]uint32{ethtoolGSSetInfo, 0, 1 << ethSSFeatures}
	if err := h.ethtool(link, unsafe.Pointer(&info)); err != nil {
		return 0, 0, err
	}
	n := int(info[4])
	// struct ethtool_gstrings: cmd, string_set, len, data.
	buf := make([]uint32, 3+n*ethGStringLen/4)
	buf[0], buf[1], buf[2] = ethtoolGStrings, ethSSFeatures, uint32(n)
	if err := h.ethtool(link, unsafe.Pointer(&buf[0])); err != nil {
		return 0, 0, err
	}
	names := unsafe.Slice((*byte)(unsafe.Pointer(&buf[3])), n*ethGStringLen)
	for i := range n {
		name, _, _ := bytes.Cut(names[i*ethGStringLen:(i+1)*ethGStringLen], []byte{0})
		if string(name) == string(f) {
			return i, (n + 31) / 32, nil
		}
	}
	return 0, 0, fmt.Errorf("the kernel knows no such feature")
}

// ethtool passes a request structure to the SIOCETHTOOL ioctl.
func (h *Handle) ethtool(link string, data unsafe.Pointer) error {
	var req struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte // struct ifreq is 40 octets on 64-bit machines
	}
	if len(link) >= len(req.name) {
		return ErrNotFound
	}
	copy(req.name[:], link)
	req.data = data
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(h.ctl), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req)))
	if errno != 0 {
		return notFound(errno)
	}
	return nil
}
