package datapath

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/wire"
)

// dropCase makes one packet be dropped for one reason. Each was seen to fail with its check taken out of the C.
type dropCase struct {
	name   string
	reason DropReason
	prep   func(s *scene) // changes the tables, from what reset makes of them
	// drive returns what the program did; nil when the packet is sent for real and only the count is looked at.
	drive func(s *scene) *outcome
}

func fromPort(build func(s *scene) []byte, edit ...func([]byte)) func(*scene) *outcome {
	return func(s *scene) *outcome {
		var e func([]byte)
		if len(edit) > 0 {
			e = edit[0]
		}
		o := s.fromPort(build(s), e)
		return &o
	}
}

func fromUplink(inner func(s *scene) []byte, edit func(*tunnelOptions), mangle ...func([]byte) []byte) func(*scene) *outcome {
	return func(s *scene) *outcome {
		data := s.a.tunnel(s.b, 7, inner(s), edit)
		for _, m := range mangle {
			data = m(data)
		}
		o := s.fromUplink(data, nil)
		return &o
	}
}

// byTunnel sends a tunnel packet for real, for what only the end of the kernel lane finds.
func byTunnel(inner func(s *scene) []byte, edit func(*tunnelOptions)) func(*scene) *outcome {
	return func(s *scene) *outcome {
		must(s.a.t, s.b.dp.detach(linkName("to_uplink", s.b.uplink()))) // b's own guard would stop it
		send(s.a.t, s.b.ns, "up0", s.a.tunnel(s.b, 7, inner(s), edit))
		return nil
	}
}

// forwardTo lets a MAC be forwarded to.
func forwardTo(mac wire.MAC, vtep VTEPID) func(*scene) {
	return func(s *scene) {
		must(s.a.t, s.a.dp.PutFDB([]FDBEntry{{FDBKey: FDBKey{7, mac}, VTEP: vtep, Flags: FDBForward}}))
	}
}

// out is w1's datagram to a MAC, in is one for w1.
func out(dst wire.MAC) func(*scene) []byte {
	return func(s *scene) []byte { return frame(s.a.t, dst, s.w1.mac, ip1, ip2, 40) }
}

func outFrom(src wire.MAC) func(*scene) []byte {
	return func(s *scene) []byte { return frame(s.a.t, macRemote, src, ip1, ip2, 40) }
}

func in(s *scene) []byte { return frame(s.a.t, s.w1.mac, macRemote, ip2, ip1, 40) }

func inTo(dst wire.MAC) func(*scene) []byte {
	return func(s *scene) []byte { return frame(s.a.t, dst, macRemote, ip2, ip1, 40) }
}

func tagged(build func(*scene) []byte, ethertypes ...uint16) func(*scene) []byte {
	return func(s *scene) []byte { return tag(build(s), ethertypes...) }
}

// tag puts VLAN tags into a frame.
func tag(f []byte, ethertypes ...uint16) []byte {
	b := append([]byte{}, f[:12]...)
	for i, e := range ethertypes {
		b = binary.BigEndian.AppendUint16(b, e)
		b = binary.BigEndian.AppendUint16(b, uint16(100+i))
	}
	return append(b, f[12:]...)
}

func unguard(s *scene) {
	p := s.w1.port()
	p.Unguarded = true
	must(s.a.t, s.a.dp.UpdatePort(p))
}

func hold(s *scene) {
	p := s.w1.port()
	p.Held = true
	must(s.a.t, s.a.dp.UpdatePort(p))
}

func putNetwork(edit func(*Network)) func(*scene) {
	return func(s *scene) {
		n := s.a.networks[7]
		edit(&n)
		must(s.a.t, s.a.dp.PutNetwork(n))
	}
}

// flood is a network whose flood list is just this.
func flood(locals []uint32, remotes ...VTEPID) func(*scene) {
	return putNetwork(func(n *Network) { n.LocalPorts, n.Remotes, n.External = locals, remotes, 0 })
}

func linkLocal(last byte) wire.MAC { return wire.MAC{1, 0x80, 0xc2, 0, 0, last} }

func reserve(mac wire.MAC) func(*scene) []byte {
	return func(s *scene) []byte { return frame(s.a.t, s.w1.mac, mac, ip2, ip1, 40) }
}

func set(at int, octets ...byte) func([]byte) []byte {
	return func(b []byte) []byte { copy(b[at:], octets); return b }
}

// fixIP makes the outer IPv4 checksum right again.
func fixIP(b []byte) []byte {
	b[24], b[25] = 0, 0
	binary.BigEndian.PutUint16(b[24:], ^sum16(b[14:34]))
	return b
}

var portDrops = []dropCase{
	{"another's address in ARP", DropNeighbourClaim, (*scene).guardClaims, fromPort(arpAsk("10.0.0.3", from4(wire.MAC{2, 0, 0, 0, 0, 1}, "10.0.0.2")))},
	{"an unknown address, again", DropNeighbourAsked, func(s *scene) {
		s.neighbours(closed)
		s.fromPort(arpAsk("10.0.0.77")(s), nil)
	}, fromPort(arpAsk("10.0.0.77"))},
	{"more floods than the port may send", DropBumPortLimit, func(s *scene) {
		p := s.w1.port()
		p.BUMLimit = 1
		must(s.a.t, s.a.dp.UpdatePort(p))
		s.fromPort(out(macAll)(s), nil)
	}, fromPort(out(macAll))},
	{"more floods than the network may send", DropBumNetworkLimit, func(s *scene) {
		putNetwork(func(n *Network) { n.BUMLimit = 1 })(s)
		s.fromPort(out(macAll)(s), nil)
	}, fromPort(out(macAll))},
	{"from a held port", DropPortHeld, hold, fromPort(out(macRemote))},
	{"to a held port", DropPortHeld, nil, fromPort(out(wire.MAC{2, 0, 0, 0, 0, 4}))},
	{"from the tunnel to a held port", DropPortHeld, hold, fromUplink(in, nil)},
	{"from an interface that is no port", DropUnknownPort, nil, func(s *scene) *outcome {
		o := s.a.run("from_port", 1, out(macRemote)(s), nil)
		return &o
	}},
	{"to an interface that is no port", DropUnknownPort, nil, fromPort(out(macNoPort))},
	{"to a port of another network", DropUnknownPort, func(s *scene) {
		p := s.w3.port()
		p.VNI = 8
		must(s.a.t, s.a.dp.UpdatePort(p))
	}, fromPort(out(wire.MAC{2, 0, 0, 0, 0, 3}))},
	{"an IPv4 header cut short", DropTruncated, nil, func(s *scene) *outcome {
		send(s.a.t, s.w1.ns, "eth0", out(macRemote)(s)[:33]) // BPF_PROG_TEST_RUN refuses it
		return nil
	}},
	{"an IPv6 header cut short", DropTruncated, nil, func(s *scene) *outcome {
		send(s.a.t, s.w1.ns, "eth0", raw(macSummed, s.w1.mac, 0x86dd, 39))
		return nil
	}},
	{"tag in the frame", DropInnerVLAN, nil, fromPort(tagged(out(macRemote), 0x8100))},
	{"service tag in the frame", DropInnerVLAN, nil, fromPort(tagged(out(macRemote), 0x88a8, 0x8100))},
	{"tag in the metadata", DropInnerVLAN, nil, func(s *scene) *outcome {
		send(s.a.t, s.w1.ns, "eth0", tag(out(macRemote)(s), 0x8100))
		return nil
	}},
	{"group source", DropSourceInvalid, unguard, fromPort(outFrom(wire.MAC{3, 0, 0, 0, 0, 1}))},
	{"zero source", DropSourceInvalid, unguard, fromPort(outFrom(wire.MAC{}))},
	{"reserved source", DropSourceInvalid, unguard, fromPort(outFrom(ReservedMAC))},
	{"another's MAC", DropSourceMAC, nil, fromPort(outFrom(wire.MAC{2, 0, 0, 0, 0, 3}))},
	{"link-local multicast", DropLinkLocal, nil, fromPort(out(linkLocal(0)))},
	{"link-local multicast, last", DropLinkLocal, nil, fromPort(out(linkLocal(15)))},
	{"past the network's MTU", DropTooBig, putNetwork(func(n *Network) { n.MTU = 67 }), fromPort(func(s *scene) []byte { return s.big(s.w3.mac, false, 68) })},
	{"past the path's MTU", DropTooBig, pathMTU(600), fromPort(func(s *scene) []byte { return s.big(macRemote, false, 628) })},
	{"a segment past the path's MTU", DropTooBig, pathMTU(600), fromPort(func(s *scene) []byte { return s.big(macRemote, false, 1428) }, skbGSO(523))},
	{"may be fragmented", DropTooBigNoDF, putNetwork(func(n *Network) { n.MTU = 67 }), fromPort(out(macRemote))},
	{"to the sender itself", DropSamePort, nil, fromPort(out(wire.MAC{2, 0, 0, 0, 0, 1}))},
	{"broadcast without a network", DropUnknownNetwork, func(s *scene) { must(s.a.t, s.a.dp.DeleteNetwork(7)) }, fromPort(out(macAll))},
	{"unknown unicast, setting drop", DropUnknownUnicast, putNetwork(func(n *Network) { n.Unknown = UnknownDrop }), fromPort(out(macNowhere))},
	{"unknown unicast, no external VTEP", DropUnknownUnicast, putNetwork(func(n *Network) { n.Unknown = UnknownExternal }), fromPort(out(macNowhere))},
	{"broadcast to nobody", DropNoReceiver, flood(nil), fromPort(out(macAll))},
	{"a VTEP that is not there", DropUnknownVTEP, nil, fromPort(out(macNoVTEP))},
	{"a VTEP without route", DropNoRoute, nil, fromPort(out(macNoRoute))},
	{"kernel lane to another UDP port", DropKernelLanePort, nil, fromPort(out(macLanePt))},
	{"a flood to an IPv6 group that only the kernel lane could send", DropCopyKernelLaneGroup, func(s *scene) {
		both := s.a.local
		both.Addr6 = netip.MustParseAddr("fd99::1")
		must(s.a.t, s.a.dp.SetLocal(both))
		must(s.a.t, s.a.dp.PutVTEPs([]VTEP{{ID: 6, Addr: group6, Uplink: s.a.uplink(), UDPPort: 4789, OuterChecksum: true}}))
		flood(nil, 6)(s)
	}, fromPort(out(macAll))},
	{"copy to what is no port", DropCopyNoPort, flood([]uint32{1}), fromPort(out(macAll))},
	{"copy to a held port", DropCopyHeld, nil, fromPort(out(macAll))},
	{"copy to an interface that is down", DropCopyFailed, func(s *scene) {
		must(s.a.t, s.a.ns.SetDown("weftp2"))
	}, fromPort(out(macAll))},
	{"copy to a VTEP that is not there", DropCopyUnknownVTEP, flood(nil, 9), fromPort(out(macAll))},
	{"copy to a VTEP without route", DropCopyNoRoute, flood(nil, 2), fromPort(out(macAll))},
	{"copy past the path's MTU", DropCopyTooBig, pathMTU(600), fromPort(func(s *scene) []byte { return frame(s.a.t, macAll, s.w1.mac, ip1, ip2, 600) })},
	{"copy by the kernel lane to another UDP port", DropCopyKernelLanePort, flood(nil, 4), fromPort(out(macAll))},
}

var uplinkDrops = []dropCase{
	{"no room for the inner frame", DropTruncated, nil, fromUplink(func(*scene) []byte { return make([]byte, 13) }, nil)},
	{"an inner IPv4 header cut short", DropTruncated, nil, fromUplink(func(s *scene) []byte { return in(s)[:33] }, nil)},
	{"an inner IPv6 header cut short", DropTruncated, nil, fromUplink(func(s *scene) []byte { return raw(s.w1.mac, macRemote, 0x86dd, 39) }, nil)},
	{"an inner IPv4 header cut short, for the kernel lane", DropTruncated, nil, fromUplink(func(s *scene) []byte { return in(s)[:33] },
		func(o *tunnelOptions) { o.checksum = true })},
	{"inner tag", DropInnerVLAN, nil, fromUplink(tagged(in, 0x8100), nil)},
	{"inner service tag", DropInnerVLAN, nil, fromUplink(tagged(in, 0x88a8, 0x8100), nil)},
	{"inner group source", DropSourceInvalid, nil, fromUplink(reserve(wire.MAC{3, 0, 0, 0, 0, 1}), nil)},
	{"inner reserved source", DropSourceInvalid, nil, fromUplink(reserve(ReservedMAC), nil)},
	{"inner link-local multicast", DropLinkLocal, nil, fromUplink(inTo(linkLocal(14)), nil)},
	{"underlay tag", DropOuterVLAN, nil, func(s *scene) *outcome {
		must(s.a.t, s.b.dp.detach(linkName("to_uplink", s.b.uplink()))) // b's own guard would stop it
		send(s.a.t, s.b.ns, "up0", tag(s.a.tunnel(s.b, 7, in(s), nil), 0x8100))
		return nil
	}},
	{"first fragment", DropOuterFragment, nil, fromUplink(in, func(o *tunnelOptions) { o.mf = true })},
	{"IP length past the buffer", DropBadIPHeader, nil, fromUplink(in, nil, set(16, 0x7f, 0xff), fixIP)},
	{"IP checksum", DropBadIPHeader, nil, fromUplink(in, nil, set(24, 0, 0))},
	{"IP version", DropBadIPHeader, nil, fromUplink(in, nil, set(14, 0x55), fixIP)},
	{"UDP length short", DropBadUDPLength, nil, fromUplink(in, nil, set(38, 0, 30))},
	{"UDP length past the packet", DropBadUDPLength, nil, fromUplink(in, nil, set(38, 0xff, 0xff))},
	{"no I flag", DropNoVNIFlag, nil, fromUplink(in, func(o *tunnelOptions) { o.flags = 0xf7 })},
	{"our own address", DropOwnSource, func(s *scene) {
		must(s.a.t, s.a.dp.PutAccepts([]Accept{{7, s.a.local.addr()}})) // even if the plan says so
	}, fromUplink(in, func(o *tunnelOptions) { o.src = netip.MustParseAddr("10.99.0.1") })},
	{"CE around a packet without ECN", DropECNCENotECT, nil, fromUplink(in, func(o *tunnelOptions) { o.tos = 3 })},
	{"CE around a packet without ECN, for the kernel lane", DropECNCENotECT, nil, fromUplink(in, func(o *tunnelOptions) { o.tos, o.checksum = 0xb3, true })},
	{"CE around a flood without ECN", DropECNCENotECT, nil, fromUplink(inTo(macAll), func(o *tunnelOptions) { o.tos = 3 })},
	{"a VNI that is not here", DropUnknownVNI, nil, fromUplink(in, func(o *tunnelOptions) { o.vni = 9 })},
	{"a VTEP of another network", DropSourceNotAccepted, nil, fromUplink(in, func(o *tunnelOptions) { o.src = netip.MustParseAddr("10.99.0.77") })},
	{"an unknown MAC", DropUnknownUnicastFromTunnel, nil, fromUplink(inTo(macNowhere), nil)},
	{"a MAC behind another VTEP", DropSplitHorizon, nil, fromUplink(inTo(macRemote), nil)},
	{"a MAC that went to another VTEP, and the TTL is used up", DropForwardTTL, forwardTo(macRemote, 1), byTunnel(inTo(macRemote), func(o *tunnelOptions) { o.ttl = 1 })},
	{"a MAC that went behind a narrow path", DropForwardTooBig, func(s *scene) { forwardTo(macRemote, 1)(s); pathMTU(600)(s) },
		byTunnel(func(s *scene) []byte { return frame(s.a.t, macRemote, s.w3.mac, ip1, ip2, 523) }, nil)},
	{"a MAC that went to a VTEP that is not there", DropUnknownVTEP, forwardTo(macNoVTEP, 9), byTunnel(inTo(macNoVTEP), nil)},
	{"a MAC that went to a VTEP without route", DropNoRoute, forwardTo(macNoRoute, 2), byTunnel(inTo(macNoRoute), nil)},
	{"a MAC that went to another UDP port", DropKernelLanePort, forwardTo(macLanePt, 4), byTunnel(inTo(macLanePt), nil)},
	{"a flood for a network that went", DropUnknownNetwork, func(s *scene) { must(s.a.t, s.a.dp.DeleteNetwork(7)) }, fromUplink(inTo(macAll), nil)},
	{"a flood that nobody here gets", DropNoReceiver, flood(nil, 1), fromUplink(inTo(macAll), nil)},
	{"by a group, for another network that shares it", DropOtherGroup, func(s *scene) { must(s.a.t, s.a.dp.PutGroups([]Group{{8, group4}})) },
		fromUplink(inTo(macAll), func(o *tunnelOptions) { o.dst = group4 }, set(0, groupMAC4[:]...))},
	{"over loopback into the kernel lane", DropUnmarked, nil, func(s *scene) *outcome {
		datagram(s.a.t, s.a.ns, "10.99.0.1:4789", s.a.tunnel(s.b, 7, in(s), nil)[42:])
		return nil
	}},
	{"a datagram of a process to the tunnel's port", DropForgedTunnel, nil, func(s *scene) *outcome {
		datagram(s.a.t, s.a.ns, "10.99.0.2:4789", []byte("hello"))
		return nil
	}},
	{"a raw frame that hides what it is", DropForgedTunnel, nil, func(s *scene) *outcome {
		send(s.a.t, s.a.ns, "up0", s.b.tunnel(s.a, 7, in(s), nil))
		return nil
	}},
	{"a tagged raw frame", DropForgedTunnel, nil, func(s *scene) *outcome {
		send(s.a.t, s.a.ns, "up0", tag(s.b.tunnel(s.a, 7, in(s), nil), 0x88a8, 0x8100))
		return nil
	}},
	{"behind IPv6 extension headers", DropForgedTunnel, nil, func(s *scene) *outcome {
		b := raw(macRemote, s.w1.mac, 0x86dd, 40)
		b[14], b[20] = 0x60, 60 // destination options
		b = append(b, 43, 0, 0, 0, 0, 0, 0, 0, 44, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 1, 0, 0, 0, 9)
		b = append(b, 0xc0, 0, 0x12, 0xb5, 0, 8, 0, 0)
		o := s.a.run("to_uplink", s.a.uplink(), b, nil)
		return &o
	}},
}

// serviceDrops are about what a workload asks its host for, or answers in its place.
var serviceDrops = []dropCase{
	{"a DHCP server", DropDHCPServer, nil, fromPort(service(67, 68))},
	{"to a DHCP client", DropDHCPServer, nil, fromPort(service(5, 68))},
	{"a DHCP server behind IP options", DropDHCPServer, nil, fromPort(func(s *scene) []byte {
		b := service(67, 68)(s)
		b[14]++
		return slices.Insert(b, 34, 1, 1, 1, 1)
	})},
	{"a DHCPv6 server", DropDHCPServer, nil, fromPort(service6(547, 546))},
	{"to a DHCPv6 client", DropDHCPServer, nil, fromPort(service6(5, 546))},
	{"a DHCPv6 server behind an extension header", DropDHCPServer, nil, fromPort(extend(60, service6(547, 546)))},
	{"a router advertisement", DropRouterAdvertisement, nil, fromPort(icmp6(134))},
	{"a redirect", DropRouterAdvertisement, nil, fromPort(icmp6(137))},
	{"a router advertisement behind extension headers", DropRouterAdvertisement, nil, fromPort(extend(0, extend(43, icmp6(134))))},
	{"a first fragment of a router advertisement", DropRouterAdvertisement, nil, fromPort(extend(44, icmp6(134)), func(b []byte) { b[57] = 1 })},
	{"a first fragment that leaves open what it is", DropRouterAdvertisement, nil, fromPort(func(s *scene) []byte {
		b := extend(44, extend(60, icmp6(134)))(s)
		b[57] = 1
		return b[:62+8]
	})},
	{"nine extension headers", DropRouterAdvertisement, nil, fromPort(func(s *scene) []byte {
		build := service6(1, 2)
		for range 9 {
			build = extend(60, build)
		}
		return build(s)
	})},
	{"too often", DropAgentLimit, func(s *scene) {
		served(s)
		must(s.a.t, s.a.dp.maps["punt_times"].Put(uint32(s.w1.id), ^uint64(0)))
	}, fromPort(service(68, 67))},
	{"the queue is full", DropAgentBusy, func(s *scene) {
		for served(s); ; must(s.a.t, s.a.dp.maps["punt_times"].Put(uint32(s.w1.id), uint64(0))) {
			if o := s.fromPort(longRequest(s), nil); DropReason(o.verdict.Reason) == DropAgentBusy {
				return
			}
		}
	}, fromPort(longRequest)},
}

func longRequest(s *scene) []byte {
	return wire.Flow{SrcMAC: s.w1.mac, DstMAC: macAll, Src: ip1, Dst: ip2}.UDP(68, 67, make([]byte, 1400))
}

func served(s *scene) {
	p := s.w1.port()
	p.Services = ServeDHCP4 | ServeDHCP6 | ServeRouter
	must(s.a.t, s.a.dp.UpdatePort(p))
	must(s.a.t, s.a.dp.maps["punt_times"].Put(uint32(s.w1.id), uint64(0)))
}

func service(src, dst uint16) func(*scene) []byte {
	return func(s *scene) []byte {
		return wire.Flow{SrcMAC: s.w1.mac, DstMAC: macAll, Src: netip.MustParseAddr("0.0.0.0"), Dst: netip.MustParseAddr("255.255.255.255")}.UDP(src, dst, make([]byte, 300))
	}
}

func service6(src, dst uint16) func(*scene) []byte {
	return func(s *scene) []byte {
		return wire.Flow{SrcMAC: s.w1.mac, DstMAC: macRemote, Src: netip.MustParseAddr("fe80::1"), Dst: netip.MustParseAddr("fe80::2")}.UDP(src, dst, make([]byte, 60))
	}
}

func icmp6(kind byte) func(*scene) []byte {
	return func(s *scene) []byte {
		b := service6(0, 0)(s)
		b[20], b[54] = 58, kind
		return b
	}
}

// extend puts an extension header of 8 octets before what is behind the IPv6 header.
func extend(header byte, build func(*scene) []byte) func(*scene) []byte {
	return func(s *scene) []byte {
		b := build(s)
		next := b[20]
		b[20] = header
		return slices.Insert(b, 54, next, 0, 0, 0, 0, 0, 0, 0)
	}
}

// send puts a frame on an interface as it is, with no protocol named.
func send(t testing.TB, ns *netdev.Handle, ifname string, data []byte) {
	t.Helper()
	l, err := ns.LinkByName(ifname)
	must(t, err)
	must(t, ns.Run(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		err = unix.Sendto(fd, data, 0, &unix.SockaddrLinklayer{Ifindex: l.Index, Halen: 6})
		if err == unix.ENOBUFS { // how the kernel tells a raw sender that a program dropped its frame
			return nil
		}
		return err
	}))
}

func datagram(t testing.TB, ns *netdev.Handle, to string, payload []byte) {
	t.Helper()
	var d net.Dialer
	c, err := ns.Dial(t.Context(), &d, "udp", to)
	must(t, err)
	defer c.Close()
	if _, err := c.Write(payload); err != nil && !strings.Contains(err.Error(), "operation not permitted") {
		must(t, err)
	}
}

// uplinkDrops6 are the checks that an IPv6 outer header has of its own.
var uplinkDrops6 = []dropCase{
	{"no room for the inner frame", DropTruncated, nil, fromUplink(func(*scene) []byte { return make([]byte, 13) }, nil)},
	{"first fragment", DropOuterFragment, nil, fromUplink(in, func(o *tunnelOptions) { o.fragment = true })},
	{"underlay tag", DropOuterVLAN, nil, func(s *scene) *outcome {
		must(s.a.t, s.b.dp.detach(linkName("to_uplink", s.b.uplink())))
		send(s.a.t, s.b.ns, "up0", tag(s.a.tunnel(s.b, 7, in(s), nil), 0x8100))
		return nil
	}},
	{"IP length past the buffer", DropBadIPHeader, nil, fromUplink(in, nil, set(18, 0x7f, 0xff))},
	{"IP version", DropBadIPHeader, nil, fromUplink(in, nil, set(14, 0x50))},
	{"UDP length short", DropBadUDPLength, nil, fromUplink(in, nil, set(58, 0, 30))},
	{"CE around a packet without ECN", DropECNCENotECT, nil, fromUplink(in, func(o *tunnelOptions) { o.tos = 3 })},
	{"our own address", DropOwnSource, nil, fromUplink(in, func(o *tunnelOptions) { o.src = netip.MustParseAddr("fd99::1") })},
	{"a VTEP of another network", DropSourceNotAccepted, nil, fromUplink(in, func(o *tunnelOptions) { o.src = netip.MustParseAddr("fd99::77") })},
	{"over loopback into the kernel lane", DropUnmarked, nil, func(s *scene) *outcome {
		datagram(s.a.t, s.a.ns, "[fd99::1]:4789", s.a.tunnel(s.b, 7, in(s), nil)[62:])
		return nil
	}},
	{"a datagram of a process to the tunnel's port", DropForgedTunnel, nil, func(s *scene) *outcome {
		datagram(s.a.t, s.a.ns, "[fd99::2]:4789", []byte("hello"))
		return nil
	}},
}

// TestDrops has every drop reason once or more: verdict, name, count, books.
func TestDrops(t *testing.T) {
	testDrops(t, newScene(t, false), slices.Concat(portDrops, uplinkDrops, serviceDrops))
	covered := map[DropReason]bool{DropInternal: true} // by its nature: only a bug of ours gets there
	for _, c := range slices.Concat(portDrops, uplinkDrops, serviceDrops) {
		covered[c.reason] = true
	}
	for r := DropReason(1); r < dropReasons; r++ {
		if !covered[r] {
			t.Errorf("drop reason %s has no case", r)
		}
	}
}

// TestDrops6 is TestDrops for an IPv6 underlay.
func TestDrops6(t *testing.T) { testDrops(t, newScene(t, true), uplinkDrops6) }

func testDrops(t *testing.T, s *scene, cases []dropCase) {
	s.resolve()
	for _, c := range cases {
		t.Run(strings.ReplaceAll(c.reason.String()+"/"+c.name, " ", "-"), func(t *testing.T) {
			var before uint64
			var o *outcome
			await(t, "the frames come at once", func() bool {
				s.reset()
				begin := time.Now()
				if c.prep != nil {
					c.prep(s)
				}
				before = s.a.drops(c.reason)
				o = c.drive(s)
				return !c.soon() || time.Since(begin) < 800*time.Millisecond
			})
			if o == nil {
				await(t, "the drop is counted", func() bool { return s.a.drops(c.reason) > before })
			} else if !c.reason.IsCopy() && DropReason(o.verdict.Reason) != c.reason {
				t.Errorf("%s, want drop %s", o, c.reason)
			}
			if n := s.a.drops(c.reason) - before; n != 1 {
				t.Errorf("%s counted %d times", c.reason, n)
			}
			if c.reason.BySource() && c.fromTunnel() { // a program counts by reason first, and then by source
				await(t, "it is counted by outer source", func() bool { return len(s.a.sources(c.reason)) > 0 })
			}
			s.a.balanced()
		})
	}
}

// soon: the frame is dropped because it comes within a second of the one in prep.
func (c dropCase) soon() bool {
	return c.reason == DropNeighbourAsked || c.reason == DropBumPortLimit || c.reason == DropBumNetworkLimit
}

func (c dropCase) fromTunnel() bool {
	for _, u := range uplinkDrops {
		if u.name == c.name {
			return true
		}
	}
	return false
}

func (h *testHost) sources(reason DropReason) (list []netip.Addr) {
	h.t.Helper()
	drops, err := h.dp.Drops()
	must(h.t, err)
	for _, d := range drops {
		if d.Reason == reason && d.Source.IsValid() {
			list = append(list, d.Source)
		}
	}
	return list
}

// TestDropsAreDocumented compares docs/drops.md with the enum: run go generate ./datapath/bpf.
func TestDropsAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../docs/drops.md")
	must(t, err)
	for r := DropReason(1); r < dropReasons; r++ {
		if !strings.Contains(string(doc), "| `"+r.String()+"` |") || !strings.Contains(string(doc), r.Text()) {
			t.Errorf("docs/drops.md does not have %s: %s", r, r.Text())
		}
	}
}
