package netdev

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// EventKind says what an Event is about.
type EventKind uint8

// What may change.
const (
	// EventResync: events were lost (or these are the first): list everything again.
	EventResync EventKind = iota
	EventLink
	EventAddress
	EventNeighbour
	EventRoute
)

func (k EventKind) String() string {
	return [...]string{"resync", "link", "address", "neighbour", "route"}[k]
}

// Event is a change in a namespace.
type Event struct {
	Kind EventKind
	// Removed: it is gone; what the fields say is what it was.
	Removed bool
	// Index of the interface, where there is one.
	Index int
	// Link is set for EventLink, Address for EventAddress, Neighbour for EventNeighbour, Dst for EventRoute.
	Link      Link
	Address   Address
	Neighbour Neighbour
	Dst       netip.Prefix
}

const (
	// EventBacklog is how many events wait in the channel; what comes after waits in the socket.
	EventBacklog = 256
	// eventSocketOctets is the socket's receive buffer, about 4,000 messages; the kernel drops what does not fit, and a
	// resync event says so.
	eventSocketOctets = 4 << 20
)

// Subscribe tells changes of links, addresses, neighbours and routes, in the kernel's order. Its channel holds EventBacklog
// events; a reader that falls behind by more than the channel and the socket hold gets an EventResync in place of what was
// lost. The first event is an EventResync, sent when nothing can be missed any more. The channel is closed when ctx ends,
// and then nothing of the subscription is left.
func (h *Handle) Subscribe(ctx context.Context) (<-chan Event, error) {
	f, err := h.eventSocket()
	if err != nil {
		return nil, fmt.Errorf("subscribe to changes in %s: %w", h.name, err)
	}
	events := make(chan Event, EventBacklog)
	events <- Event{Kind: EventResync}
	stop := context.AfterFunc(ctx, func() { f.Close() })
	go func() {
		defer close(events)
		defer f.Close()
		defer stop()
		readEvents(ctx, f, events)
	}()
	return events, nil
}

func (h *Handle) eventSocket() (*os.File, error) {
	fd := -1
	err := h.Run(func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "netlink events")
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, eventSocketOctets); err != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, eventSocketOctets) // as much as we may
	}
	groups := uint32(unix.RTMGRP_LINK | unix.RTMGRP_NEIGH | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR |
		unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func readEvents(ctx context.Context, f *os.File, events chan<- Event) {
	buf := make([]byte, 64<<10)
	for {
		n, err := f.Read(buf)
		var batch []Event
		switch {
		case errors.Is(err, unix.ENOBUFS):
			batch = []Event{{Kind: EventResync}}
		case err != nil || n == 0:
			return // closed
		default:
			batch = parseEvents(buf[:n])
		}
		for _, e := range batch {
			select {
			case events <- e:
			case <-ctx.Done():
				return
			}
		}
	}
}

// parseEvents reads what one datagram holds. What it cannot read may be anything, so it becomes a resync.
func parseEvents(b []byte) []Event {
	msgs, err := parseMessages(b)
	if err != nil {
		return []Event{{Kind: EventResync}}
	}
	var out []Event
	for _, m := range msgs {
		e, ok, err := parseEvent(m)
		if err != nil {
			e, ok = Event{Kind: EventResync}, true
		}
		if ok {
			out = append(out, e)
		}
	}
	return out
}

type message struct {
	kind uint16
	body []byte
}

func parseMessages(b []byte) (out []message, err error) {
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return nil, errors.New("netlink message with a wrong length")
		}
		out = append(out, message{kind: binary.NativeEndian.Uint16(b[4:]), body: b[unix.NLMSG_HDRLEN:size]})
		b = b[min((size+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1), len(b)):]
	}
	return out, nil
}

func parseEvent(m message) (e Event, ok bool, err error) {
	switch m.kind {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		// Bridges tell their members' changes in messages of their own family.
		if len(m.body) < unix.SizeofIfInfomsg || m.body[0] != unix.AF_UNSPEC {
			return e, false, nil
		}
		link, err := netlink.LinkDeserialize(nil, m.body)
		if err != nil {
			return e, false, err
		}
		l := linkOf(link)
		return Event{Kind: EventLink, Removed: m.kind == unix.RTM_DELLINK, Index: l.Index, Link: l}, true, nil
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		a, err := parseAddress(m.body)
		return Event{Kind: EventAddress, Removed: m.kind == unix.RTM_DELADDR, Index: a.Index, Address: a}, true, err
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		if len(m.body) < 12 || m.body[0] != unix.AF_INET && m.body[0] != unix.AF_INET6 {
			return e, false, nil // an FDB entry of a bridge or vxlan device
		}
		n, err := netlink.NeighDeserialize(m.body)
		if err != nil {
			return e, false, err
		}
		nb := neighbourOf(*n)
		return Event{Kind: EventNeighbour, Removed: m.kind == unix.RTM_DELNEIGH, Index: nb.Index, Neighbour: nb}, true, nil
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		dst, index, err := parseRoute(m.body)
		return Event{Kind: EventRoute, Removed: m.kind == unix.RTM_DELROUTE, Dst: dst, Index: index}, true, err
	}
	return e, false, nil
}

func parseAddress(b []byte) (a Address, err error) {
	if len(b) < unix.SizeofIfAddrmsg {
		return a, errors.New("short address message")
	}
	bits, flags, scope := int(b[1]), uint32(b[2]), b[3]
	a.Index = int(binary.NativeEndian.Uint32(b[4:]))
	attrs, err := nl.ParseRouteAttr(b[unix.SizeofIfAddrmsg:])
	if err != nil {
		return a, err
	}
	var addr, local netip.Addr
	for _, attr := range attrs {
		switch attr.Attr.Type {
		case unix.IFA_ADDRESS:
			addr, _ = netip.AddrFromSlice(attr.Value)
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(attr.Value)
		case unix.IFA_FLAGS:
			if len(attr.Value) >= 4 {
				flags = binary.NativeEndian.Uint32(attr.Value)
			}
		}
	}
	if local.IsValid() {
		addr = local
	}
	a.Prefix = netip.PrefixFrom(addr, bits)
	a.LinkLocal, a.Tentative = scope == unix.RT_SCOPE_LINK, flags&unix.IFA_F_TENTATIVE != 0
	return a, nil
}

func parseRoute(b []byte) (dst netip.Prefix, index int, err error) {
	if len(b) < unix.SizeofRtMsg {
		return dst, 0, errors.New("short route message")
	}
	addr := netip.IPv4Unspecified()
	if b[0] == unix.AF_INET6 {
		addr = netip.IPv6Unspecified()
	}
	attrs, err := nl.ParseRouteAttr(b[unix.SizeofRtMsg:])
	for _, attr := range attrs {
		switch attr.Attr.Type {
		case unix.RTA_DST:
			if a, ok := netip.AddrFromSlice(attr.Value); ok {
				addr = a
			}
		case unix.RTA_OIF:
			if len(attr.Value) >= 4 {
				index = int(binary.NativeEndian.Uint32(attr.Value))
			}
		}
	}
	return netip.PrefixFrom(addr, int(b[1])), index, err
}
