package netdev

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// XDPFeatures is what an interface's driver says it can do with XDP programs and their packets, as a set of bits
// (linux/netdev.h, enum netdev_xdp_act). What the kernel reports beyond the bits named here is kept.
type XDPFeatures uint64

// What a driver can do.
const (
	// XDPBasic: it runs a program in the driver, which may abort, drop, pass and send back.
	XDPBasic XDPFeatures = 1 << 0
	// XDPRedirect: its programs may redirect to other interfaces.
	XDPRedirect XDPFeatures = 1 << 1
	// XDPTransmit: other interfaces' programs may redirect to it now. Of a veth it depends on the other end: GRO must be on
	// there, or a program attached, or what is redirected here is lost without a trace. Other drivers have it always, or only
	// while a program of their own is attached.
	XDPTransmit XDPFeatures = 1 << 2
	// XDPReceiveFragments: its programs see packets larger than a page, if they are loaded for fragments ("xdp.frags").
	XDPReceiveFragments XDPFeatures = 1 << 5
	// XDPTransmitFragments: XDPTransmit of packets larger than a page too.
	XDPTransmitFragments XDPFeatures = 1 << 6
)

// xdpFeatureNames are the kernel's own words, in lower case (Documentation/netlink/specs/netdev.yaml).
var xdpFeatureNames = [...]string{"basic", "redirect", "ndo-xmit", "xsk-zerocopy", "hw-offload", "rx-sg", "ndo-xmit-sg"}

// Has reports whether all of want are among them.
func (f XDPFeatures) Has(want XDPFeatures) bool { return f&want == want }

// String lists them by the kernel's names: "basic redirect ndo-xmit", or "none".
func (f XDPFeatures) String() string {
	var names []string
	for i, name := range xdpFeatureNames {
		if f.Has(1 << i) {
			names = append(names, name)
			f &^= 1 << i
		}
	}
	if f != 0 {
		names = append(names, fmt.Sprintf("%#x", uint64(f)))
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, " ")
}

// The generic netlink family "netdev" (linux/netdev.h).
const (
	netdevFamily         = "netdev"
	netdevFamilyVersion  = 1
	netdevGet            = 1 // NETDEV_CMD_DEV_GET
	netdevAttrIndex      = 1 // NETDEV_A_DEV_IFINDEX, u32
	netdevAttrXDP        = 3 // NETDEV_A_DEV_XDP_FEATURES, u64
	netdevChanged        = 4 // NETDEV_CMD_DEV_CHANGE_NTF
	netdevEvents         = "mgmt"
	netlinkAttrTypeMask  = 0x3fff
	genericNetlinkHeader = 4 // struct genlmsghdr: command, version, reserved (u16)
)

// genericHeader is a struct genlmsghdr. The library's own leaves its reserved octets to chance, and this family refuses any but 0.
type genericHeader struct{ command, version uint8 }

func (genericHeader) Len() int            { return genericNetlinkHeader }
func (g genericHeader) Serialize() []byte { return []byte{g.command, g.version, 0, 0} }

// FeaturesForXDP is what the other end of a veth must have on and off so that XDP can serve this one: what it sends is whole, with its
// checksums and its tags in it, for XDP sees neither beside the frame; and what XDP redirects to it is not lost.
func FeaturesForXDP() map[Feature]bool {
	return map[Feature]bool{TX: false, TXVLAN: false, TXServiceVLAN: false, GRO: true}
}

// FitForXDP makes a veth's end one whose other end XDP can serve: see FeaturesForXDP.
func (h *Handle) FitForXDP(link string) error {
	var errs []error
	for f, on := range FeaturesForXDP() {
		errs = append(errs, h.SetFeature(link, f, on))
	}
	return errors.Join(errs...)
}

// XDPFeatures asks the kernel what the interface with that index can do with XDP now (dev-get of the generic netlink family
// netdev, Linux 6.3). The error of a missing interface is ErrNotFound. It changes with an interface's features and programs, of a veth with
// those of its other end: see WatchXDP.
func (h *Handle) XDPFeatures(index int) (f XDPFeatures, err error) {
	err = h.Run(func() error {
		f, err = askXDPFeatures(index)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("read XDP features of interface %d: %w", index, err)
	}
	return f, nil
}

// askXDPFeatures asks in the calling thread's namespace.
func askXDPFeatures(index int) (XDPFeatures, error) {
	family, err := netlink.GenlFamilyGet(netdevFamily)
	if err != nil {
		return 0, fmt.Errorf("look up generic netlink family %s (Linux 6.3 has it): %w", netdevFamily, err)
	}
	req := nl.NewNetlinkRequest(int(family.ID), 0)
	req.AddData(genericHeader{command: netdevGet, version: netdevFamilyVersion})
	req.AddData(nl.NewRtAttr(netdevAttrIndex, nl.Uint32Attr(uint32(index))))
	answers, err := req.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil {
		return 0, notFound(err)
	}
	for _, answer := range answers {
		if f, ok, err := parseXDPFeatures(answer); ok || err != nil {
			return f, err
		}
	}
	return 0, errors.New("the kernel's answer has none")
}

func parseXDPFeatures(answer []byte) (f XDPFeatures, ok bool, err error) {
	if len(answer) < genericNetlinkHeader {
		return 0, false, errors.New("the kernel's answer is cut short")
	}
	attrs, err := nl.ParseRouteAttr(answer[genericNetlinkHeader:])
	if err != nil {
		return 0, false, err
	}
	for _, a := range attrs {
		if a.Attr.Type&netlinkAttrTypeMask == netdevAttrXDP && len(a.Value) >= 8 {
			return XDPFeatures(binary.NativeEndian.Uint64(a.Value)), true, nil
		}
	}
	return 0, false, nil
}

// WatchXDP tells the index of every interface of the namespace whose XDP features changed, and 0 first and whenever events were lost: then
// any may have. The channel is closed when ctx ends.
func (h *Handle) WatchXDP(ctx context.Context) (<-chan int, error) {
	f, err := h.xdpEventSocket()
	if err != nil {
		return nil, fmt.Errorf("subscribe to XDP features in %s: %w", h.name, err)
	}
	events := make(chan int, EventBacklog)
	events <- 0
	stop := context.AfterFunc(ctx, func() { f.Close() })
	go func() {
		defer close(events)
		defer f.Close()
		defer stop()
		readXDPEvents(ctx, f, events)
	}()
	return events, nil
}

func (h *Handle) xdpEventSocket() (f *os.File, err error) {
	err = h.Run(func() error {
		family, err := netlink.GenlFamilyGet(netdevFamily)
		if err != nil {
			return fmt.Errorf("look up generic netlink family %s: %w", netdevFamily, err)
		}
		i := slices.IndexFunc(family.Groups, func(g netlink.GenlMulticastGroup) bool { return g.Name == netdevEvents })
		if i < 0 {
			return fmt.Errorf("generic netlink family %s has no group %s", netdevFamily, netdevEvents)
		}
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_GENERIC)
		if err != nil {
			return err
		}
		f = os.NewFile(uintptr(fd), "netlink XDP events")
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, int(family.Groups[i].ID))
		}
		if err != nil {
			f.Close()
		}
		return err
	})
	return f, err
}

func readXDPEvents(ctx context.Context, f *os.File, events chan<- int) {
	buf := make([]byte, 64<<10)
	for {
		n, err := f.Read(buf)
		var changed []int
		switch {
		case errors.Is(err, unix.ENOBUFS):
			changed = []int{0}
		case err != nil || n == 0:
			return // closed
		default:
			changed = parseXDPEvents(buf[:n])
		}
		for _, index := range changed {
			select {
			case events <- index:
			case <-ctx.Done():
				return
			}
		}
	}
}

// parseXDPEvents reads what one datagram holds. What it cannot read may be about any interface.
func parseXDPEvents(b []byte) (changed []int) {
	msgs, err := parseMessages(b)
	if err != nil {
		return []int{0}
	}
	for _, m := range msgs {
		if len(m.body) < genericNetlinkHeader || m.body[0] != netdevChanged {
			continue
		}
		attrs, err := nl.ParseRouteAttr(m.body[genericNetlinkHeader:])
		if err != nil {
			return []int{0}
		}
		for _, a := range attrs {
			if a.Attr.Type&netlinkAttrTypeMask == netdevAttrIndex && len(a.Value) >= 4 {
				changed = append(changed, int(binary.NativeEndian.Uint32(a.Value)))
			}
		}
	}
	return changed
}
