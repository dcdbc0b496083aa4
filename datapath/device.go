package datapath

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/wire"
)

const (
	// VXLANDevice is the interface of the kernel lane. It must exist and be up in any case: its UDP socket is what makes
	// the kernel aggregate VXLAN packets on receipt (11.6 against 16.5 Gb/s without).
	VXLANDevice = "weft-vxlan"
	// vxlanMTU is as large as an outer IPv6 header allows: aggregates pass whole.
	vxlanMTU = 65535 - 70
)

// ReservedMAC is the MAC of VXLANDevice. No port may own it: the kernel drops frames from it without a word.
var ReservedMAC = wire.MAC{0x02, 0x6f, 0x77, 0x00, 0x00, 0x01}

// vxlanAlias marks the device as this instance's own.
func vxlanAlias(pinRoot string) string { return "weft datapath " + pinRoot }

// PortTakenError says that another vxlan device of the namespace has the tunnel's UDP port.
type PortTakenError struct {
	Device  string
	UDPPort uint16
}

// Error names the device and the way out.
func (e *PortTakenError) Error() string {
	return fmt.Sprintf("vxlan device %s already uses UDP port %d: remove it, or give weft another port", e.Device, e.UDPPort)
}

// ensureVXLAN makes the device, or takes over our own, and returns its index.
func (d *Datapath) ensureVXLAN(port uint16) (uint32, error) {
	var index int
	err := d.ns.Run(func() error {
		nl, err := netlink.NewHandle()
		if err != nil {
			return err
		}
		defer nl.Close()
		links, err := retryDump(nl.LinkList)
		if err != nil {
			return err
		}
		found := false
		for _, l := range links {
			v, ok := l.(*netlink.Vxlan)
			if !ok {
				continue
			}
			own := v.Name == VXLANDevice && v.Alias == vxlanAlias(d.cfg.PinRoot)
			switch {
			case own && v.Port == int(port) && v.FlowBased:
				found = true
			case own: // the UDP port of a vxlan device cannot be changed
				if err := nl.LinkDel(v); err != nil {
					return fmt.Errorf("replace %s: %w", v.Name, err)
				}
			case v.Name == VXLANDevice:
				return fmt.Errorf("interface %s belongs to another instance (%q)", v.Name, v.Alias)
			case v.Port == int(port):
				return &PortTakenError{Device: v.Name, UDPPort: port}
			}
		}
		if !found {
			if err := addVXLAN(nl, port, vxlanAlias(d.cfg.PinRoot)); err != nil {
				return err
			}
		}
		index, err = settleVXLAN(nl)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("kernel lane: %w", err)
	}
	return uint32(index), nil
}

// addVXLAN: metadata mode and nothing else of what the device can do: no learning, proxy, rsc, MDB, next hops. Source
// ports by RFC 7348, section 5; zero UDP checksums over IPv6 by RFC 6935.
func addVXLAN(nl *netlink.Handle, port uint16, alias string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = VXLANDevice, vxlanMTU, net.HardwareAddr(ReservedMAC[:])
	v := &netlink.Vxlan{LinkAttrs: attrs, FlowBased: true, Port: int(port), PortLow: 49152, PortHigh: 65535,
		UDP6ZeroCSumTx: true, UDP6ZeroCSumRx: true, Learning: false}
	if err := nl.LinkAdd(v); err != nil {
		return fmt.Errorf("make %s on UDP port %d: %w", VXLANDevice, port, err)
	}
	l, err := nl.LinkByName(VXLANDevice)
	if err != nil {
		return err
	}
	return nl.LinkSetAlias(l, alias)
}

// settleVXLAN makes the device silent, and able to look up next hops: bpf_fib_lookup wants forwarding on where the
// lookup starts. No packet is ever forwarded there: from_vxlan takes all, and until it is attached the device is down.
func settleVXLAN(nl *netlink.Handle) (int, error) {
	for _, s := range []struct {
		key, value string
		optional   bool
	}{
		{"net/ipv4/conf/" + VXLANDevice + "/forwarding", "1", false},
		{"net/ipv6/conf/" + VXLANDevice + "/forwarding", "1", true},
		{"net/ipv6/conf/" + VXLANDevice + "/addr_gen_mode", "1", true}, // no link-local address, no router solicitations
		{"net/ipv6/conf/" + VXLANDevice + "/accept_ra", "0", true},
	} {
		err := os.WriteFile("/proc/sys/"+s.key, []byte(s.value), 0)
		if err != nil && !(s.optional && errors.Is(err, os.ErrNotExist)) {
			return 0, fmt.Errorf("set sysctl %s: %w", s.key, err)
		}
	}
	l, err := nl.LinkByName(VXLANDevice)
	if err != nil {
		return 0, err
	}
	return l.Attrs().Index, nil
}

// openVXLAN brings the device up, once from_vxlan is there: without it everybody who reaches the UDP port would have his frames in the
// host's own stack, past all checks. d.mu is held.
func (d *Datapath) openVXLAN() error {
	if !d.attached(linkName("from_vxlan", 0), d.local.VxlanIfindex) {
		return nil
	}
	if err := d.ns.SetUp(VXLANDevice); err != nil {
		return fmt.Errorf("kernel lane: bring %s up (is its UDP port taken by another program?): %w", VXLANDevice, err)
	}
	return nil
}

// shutVXLAN takes the device down if it is this instance's: nobody reaches its UDP port any more.
func shutVXLAN(pinRoot string) error { return ownVXLAN(pinRoot, (*netlink.Handle).LinkSetDown) }

// removeVXLAN deletes the device if it is this instance's.
func removeVXLAN(pinRoot string) error { return ownVXLAN(pinRoot, (*netlink.Handle).LinkDel) }

// ownVXLAN does something with the device, if it is there and this instance's.
func ownVXLAN(pinRoot string, do func(*netlink.Handle, netlink.Link) error) error {
	nl, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	defer nl.Close()
	l, err := nl.LinkByName(VXLANDevice)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil
	}
	if err != nil {
		return err
	}
	if l.Attrs().Alias != vxlanAlias(pinRoot) {
		return nil
	}
	return do(nl, l)
}

// uplinks resolves the comma-separated names of Config.Uplink.
func uplinks(ns *netdev.Handle, names string) ([]uint32, error) {
	var list []uint32
	if n := strings.Count(names, ",") + 1; n > len(bpf.TCLocal{}.Uplinks) {
		return nil, fmt.Errorf("%d uplinks (%s): at most %d are possible", n, names, len(bpf.TCLocal{}.Uplinks))
	}
	err := ns.Run(func() error {
		for name := range strings.SplitSeq(names, ",") {
			l, err := netlink.LinkByName(name)
			if err != nil {
				return fmt.Errorf("uplink %s: %w", name, err)
			}
			if t := l.Attrs().EncapType; t != "ether" {
				return fmt.Errorf("uplink %s is not an Ethernet interface (%s)", name, t)
			}
			list = append(list, uint32(l.Attrs().Index))
		}
		return nil
	})
	return list, err
}

// retryDump repeats a dump that changed under the reader.
func retryDump[T any](dump func() ([]T, error)) ([]T, error) {
	for try := 0; ; try++ {
		list, err := dump()
		if !errors.Is(err, netlink.ErrDumpInterrupted) || try == 10 {
			return list, err
		}
	}
}
