package netdev

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/wire"
)

// fdbBatch is how many entries go to the kernel in one message; more do not fit a socket's default buffer.
const fdbBatch = 500

// AddFDBs makes static entries in a bridge: those MACs are behind that member. With a VTEP the member is a vxlan device, and
// gets the same entries itself, in the same messages. For tables of many thousands: one call a batch, not one an entry.
func (h *Handle) AddFDBs(member string, macs []wire.MAC, vtep netip.Addr) error {
	l, err := h.LinkByName(member)
	if err != nil {
		return fmt.Errorf("add %d FDB entries: %w", len(macs), err)
	}
	err = h.Run(func() error {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return err
		}
		for len(macs) > 0 {
			n := min(fdbBatch, len(macs))
			if err := addFDBBatch(fd, l.Index, macs[:n], vtep); err != nil {
				return err
			}
			macs = macs[n:]
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("add FDB entries behind %s: %w", member, err)
	}
	return nil
}

func addFDBBatch(fd, index int, macs []wire.MAC, vtep netip.Addr) error {
	ne := binary.NativeEndian
	var b []byte
	for i, mac := range macs {
		start := len(b)
		flags := uint16(unix.NLM_F_REQUEST | unix.NLM_F_CREATE | unix.NLM_F_REPLACE)
		if i == len(macs)-1 {
			flags |= unix.NLM_F_ACK // an error is reported in any case, and comes before
		}
		ndm := byte(unix.NTF_MASTER)
		if vtep.IsValid() {
			ndm |= unix.NTF_SELF
		}
		b = ne.AppendUint32(b, 0) // length, below
		b = ne.AppendUint16(b, unix.RTM_NEWNEIGH)
		b = ne.AppendUint16(b, flags)
		b = ne.AppendUint32(b, uint32(i))
		b = ne.AppendUint32(b, 0)
		b = append(b, unix.AF_BRIDGE, 0, 0, 0)
		b = ne.AppendUint32(b, uint32(index))
		// Static for both: a vxlan device wants REACHABLE or PERMANENT, and PERMANENT is the bridge's own address to a bridge.
		b = ne.AppendUint16(b, unix.NUD_NOARP|unix.NUD_REACHABLE)
		b = append(b, ndm, 0)
		b = ne.AppendUint16(ne.AppendUint16(b, 4+6), unix.NDA_LLADDR)
		b = append(append(b, mac[:]...), 0, 0)
		if vtep.IsValid() {
			addr := vtep.Unmap().AsSlice()
			b = ne.AppendUint16(ne.AppendUint16(b, uint16(4+len(addr))), unix.NDA_DST)
			b = append(b, addr...)
		}
		ne.PutUint32(b[start:], uint32(len(b)-start))
	}
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	return fdbAcknowledged(fd, uint32(len(macs)-1))
}

// fdbAcknowledged reads answers until that of the last message.
func fdbAcknowledged(fd int, last uint32) error {
	buf := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		for b := buf[:n]; len(b) >= unix.NLMSG_HDRLEN+4; {
			length := int(binary.NativeEndian.Uint32(b))
			if length < unix.NLMSG_HDRLEN+4 || length > len(b) {
				return errors.New("the kernel's answer is malformed")
			}
			if binary.NativeEndian.Uint16(b[4:]) == unix.NLMSG_ERROR {
				if errno := -int32(binary.NativeEndian.Uint32(b[16:])); errno != 0 {
					return unix.Errno(errno)
				}
				if binary.NativeEndian.Uint32(b[8:]) == last {
					return nil
				}
			}
			b = b[min(len(b), (length+3)&^3):]
		}
	}
}

// FlushBridgeFDB forgets what a bridge has learned behind a member. What was stated stays.
func (h *Handle) FlushBridgeFDB(member string) error {
	l, err := h.LinkByName(member)
	if err != nil {
		return fmt.Errorf("flush the FDB: %w", err)
	}
	err = h.Run(func() error {
		const bulk, stateMask = 0x200, 16 // NLM_F_BULK, NDA_NDM_STATE_MASK
		req := nl.NewNetlinkRequest(unix.RTM_DELNEIGH, unix.NLM_F_ACK|bulk)
		ndm := netlink.Ndmsg{Family: unix.AF_BRIDGE, Index: uint32(l.Index), Flags: unix.NTF_MASTER}
		req.AddData(&ndm)
		req.AddData(nl.NewRtAttr(stateMask, nl.Uint16Attr(unix.NUD_NOARP|unix.NUD_PERMANENT)))
		_, err := req.Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
	if err != nil {
		return fmt.Errorf("flush the FDB behind %s: %w", member, err)
	}
	return nil
}

// CountFDB is how many entries an interface has in the FDB of its bridge, and in its own if it is a vxlan device.
func (h *Handle) CountFDB(member string) (n int, err error) {
	l, err := h.LinkByName(member)
	if err != nil {
		return 0, fmt.Errorf("count FDB entries: %w", err)
	}
	list, err := h.nl.NeighList(l.Index, unix.AF_BRIDGE)
	if err != nil {
		return 0, fmt.Errorf("count FDB entries of %s: %w", member, err)
	}
	return len(list), nil
}
