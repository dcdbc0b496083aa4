package conform

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/wire"
)

// byGroup has network 7 flood to its group, which stands in its list as one VTEP, and to those that get a copy of their own. The host is a member.
func (b *bed) byGroup(unknown datapath.UnknownUnicast, external, direct int, others ...datapath.VTEPID) error {
	n := b.network7(unknown)
	n.Remotes, n.External, n.Direct = append([]datapath.VTEPID{vtepGroup}, others...), external, direct
	return errors.Join(b.join(b.addr.Group), b.dp.PutVTEPs([]datapath.VTEP{b.groupVTEP(b.addr.Group)}), b.dp.PutNetwork(n))
}

func (b *bed) groupVTEP(group netip.Addr) datapath.VTEP {
	v := b.vtep(vtepGroup, group)
	v.Uplink = b.hostIndex
	return v
}

// join makes the host a member of a group as an agent does, and takes in what is sent to VNI 7 by it; VNI 8 has the other group.
func (b *bed) join(group netip.Addr) error {
	vni := vni7
	if group == b.addr.OtherGroup {
		vni = vni8
	}
	b.joined = true
	return errors.Join(b.host.JoinGroup(uplink, group), b.dp.PutGroups([]datapath.Group{{VNI: vni, Addr: group}}))
}

// leaveGroups ends what cases have joined.
func (b *bed) leaveGroups() error {
	if !b.joined {
		return nil
	}
	b.joined = false
	have, err := b.host.Groups()
	for _, g := range have {
		err = errors.Join(err, b.host.LeaveGroup(g))
	}
	list, failure := b.dp.Groups()
	return errors.Join(err, failure, b.dp.DeleteGroups(list))
}

// groupMAC is the Ethernet address of a group: RFC 1112, section 6.4; RFC 2464, section 7.
func groupMAC(group netip.Addr) wire.MAC {
	b := group.AsSlice()
	if group.Is6() {
		return wire.MAC{0x33, 0x33, b[12], b[13], b[14], b[15]}
	}
	return wire.MAC{0x01, 0x00, 0x5e, b[1] & 0x7f, b[2], b[3]}
}

// toGroup is what must leave for a group.
func (b *bed) toGroup(group netip.Addr, inner []byte) sent {
	return b.to(group, inner, func(s *sent) { s.via = groupMAC(group) })
}

// byGroupIn is what VTEP A sends for VNI 7 to a group.
func (b *bed) byGroupIn(group netip.Addr, inner []byte, edits ...func(*tunnel)) []byte {
	return b.in(inner, append([]func(*tunnel){func(p *tunnel) { p.dst, p.dstMAC = group, groupMAC(group) }}, edits...)...)
}

// sends is a case in which something leaves for a group. Over IPv6 the kernel lane cannot: the kernel's route for a group that the host is in leads back
// to the host.
func sends(c Case) Case {
	c.Not = []Row{{Kernel, IPv6}}
	return c
}

// groupCases: floods go to the group that management has given the network, and come in by it. That a host joins with its first port of the network and
// leaves with its last is the agent's doing; here is what that is on the wire.
func groupCases() []Case {
	grouped := func(unknown datapath.UnknownUnicast, external, direct int, others ...datapath.VTEPID) func(*bed) error {
		return func(b *bed) error { return b.byGroup(unknown, external, direct, others...) }
	}
	only := grouped(datapath.UnknownFlood, 0, 0)
	once := func(dst wire.MAC) func(*bed) trial {
		return func(b *bed) trial {
			f := frame(dst, mac1, 100)
			return trial{fromW1: [][]byte{f}, at: b.members("w1", f), tunnels: []sent{b.toGroup(b.addr.Group, f)}, lanedOut: 1}.passOut("xdp_several")
		}
	}
	known, in := frame(macA, mac1, 100), frame(wire.BroadcastMAC, macA, 100)
	joined := func(b *bed) error { return errors.Join(b.join(b.addr.Group), b.join(b.addr.OtherGroup)) }
	return []Case{
		sends(prepared("4", "broadcast: one packet to the group, whatever the number of VTEPs", only, once(wire.BroadcastMAC))),
		sends(prepared("4", "multicast: one packet to the group", only, once(macGroup))),
		sends(prepared("4", "unknown unicast, flooding on: one packet to the group", only, once(macNowhere))),
		{Rule: "4", Name: "where only the kernel lane could send to an IPv6 group: dropped by name, and copies leave", Lanes: []Lane{Kernel}, Underlays: []Underlay{IPv6}, do: func(b *bed) error {
			f := frame(wire.BroadcastMAC, mac1, 100)
			return errors.Join(b.byGroup(datapath.UnknownFlood, 1, 0, vtepB), settle(), b.try(trial{fromW1: [][]byte{f}, at: b.members("w1", f),
				tunnels: []sent{b.to(b.addr.B, f)}, lanedOut: 1, drops: map[string]uint64{"copy_kernel_lane_group": 1}}))
		}},
		prepared("4", "known unicast: to its VTEP, and not to the group", only, func(b *bed) trial { return b.leaves(known) }),
		sends(prepared("4", "a VTEP that does not receive the group gets a copy of its own", grouped(datapath.UnknownFlood, 1, 0, vtepB), func(b *bed) trial {
			f := frame(wire.BroadcastMAC, mac1, 100)
			return trial{fromW1: [][]byte{f}, at: b.members("w1", f), tunnels: []sent{b.toGroup(b.addr.Group, f), b.to(b.addr.B, f)}, lanedOut: 2}.passOut("xdp_several")
		})),
		sends(prepared("4", "an external VTEP that does receive it gets no copy; unknown unicast, for external VTEPs only, goes to it alone",
			grouped(datapath.UnknownExternal, 1, 1, vtepB), func(b *bed) trial {
				all, one := frame(wire.BroadcastMAC, mac1, 100), frame(macNowhere, mac1, 101)
				return trial{fromW1: [][]byte{all, one}, at: b.members("w1", all), tunnels: []sent{b.toGroup(b.addr.Group, all), b.to(b.addr.B, one)}, lanedOut: 2}.passOut("xdp_several")
			})),
		sends(Case{Rule: "4", Name: "the group is management's to say: another one from the next frame on", do: func(b *bed) error {
			f := frame(wire.BroadcastMAC, mac1, 100)
			to := func(group netip.Addr) trial {
				return trial{fromW1: [][]byte{f}, at: b.members("w1", f), tunnels: []sent{b.toGroup(group, f)}, lanedOut: 1}.passOut("xdp_several")
			}
			return errors.Join(b.byGroup(datapath.UnknownFlood, 0, 0), settle(), b.try(to(b.addr.Group).keeping()),
				b.dp.PutVTEPs([]datapath.VTEP{b.groupVTEP(b.addr.OtherGroup)}), settle(), b.try(to(b.addr.OtherGroup)))
		}}),
		prepared("4", "in by the group: every port once, and no tunnel", joined, func(b *bed) trial {
			return trial{fromPeer: [][]byte{b.byGroupIn(b.addr.Group, in)}, at: b.members("", in), lanedIn: 1}.passIn("xdp_group")
		}),
		prepared("4", "in by the group, for one port: that port alone", joined, func(b *bed) trial {
			f := frame(mac1, macA, 100)
			return arrives(b.byGroupIn(b.addr.Group, f), f).passIn("xdp_group")
		}),
		prepared("4", "in by another VNI's group", joined, func(b *bed) trial {
			return refused(b.byGroupIn(b.addr.OtherGroup, in), "other_group").passIn("xdp_group")
		}),
		prepared("24", "in by the group, from what is no VTEP of the VNI", joined, func(b *bed) trial {
			return refused(b.byGroupIn(b.addr.Group, in, func(p *tunnel) { p.src = b.addr.Rogue }), "source_not_accepted").passIn("xdp_group")
		}),
		simple("4", "to a group that no network here has", func(b *bed) trial { return ignored(b.byGroupIn(b.addr.Group, in)) }),
		{Rule: "5", Name: "a member joins: a report on the wire, and floods come in by the group; it leaves: a report, and they do not", do: func(b *bed) error {
			arrive := trial{fromPeer: [][]byte{b.byGroupIn(b.addr.Group, in)}, at: b.members("", in), lanedIn: 1}.passIn("xdp_group")
			return errors.Join(b.try(ignored(b.byGroupIn(b.addr.Group, in))),
				b.join(b.addr.Group), b.reported(b.addr.Group, changeToExclude), b.try(arrive.keeping()),
				b.leaveGroups(), b.reported(b.addr.Group, changeToInclude), b.try(ignored(b.byGroupIn(b.addr.Group, in))))
		}},
		{Rule: "5", Name: "the membership is the kernel's: a router's query is answered with no agent there", do: func(b *bed) error {
			return errors.Join(b.join(b.addr.Group), b.reported(b.addr.Group, changeToExclude), b.at["peer"].send(b.query()),
				b.reported(b.addr.Group, modeIsExclude), b.reset())
		}},
	}
}

// The kinds of records in a report: RFC 3376, section 4.2.12; RFC 3810, section 5.2.12. Excluding no source is receiving from all.
const (
	modeIsExclude   = 2
	changeToInclude = 3
	changeToExclude = 4
)

// reported waits for an IGMPv3 or MLDv2 report with such a record of the group.
func (b *bed) reported(group netip.Addr, kind byte) error {
	return await(fmt.Sprintf("a report of %s with a record of kind %d", group, kind), b.patience, func() (bool, error) {
		for {
			f, err := b.at["peer"].next()
			if f == nil || err != nil {
				return false, err
			}
			if hasRecord(f, group, kind) {
				return true, nil
			}
		}
	})
}

// hasRecord reads a report: RFC 3376, section 4.2; RFC 3810, section 5.2.
func hasRecord(f []byte, group netip.Addr, kind byte) bool {
	p, err := wire.ParseFrame(f)
	if err != nil && !p.Has(wire.LayerIPv4) && !p.Has(wire.LayerIPv6) {
		return false
	}
	at, octets := wire.EthernetLen, 4
	if group.Is4() {
		at += int(f[at]&15) * 4
		if !p.Has(wire.LayerIPv4) || p.IPv4.Protocol != 2 || p.IPv4.Dst != netip.MustParseAddr("224.0.0.22") || len(f) < at+8 || f[at] != 0x22 {
			return false
		}
	} else {
		const router = 8 // the hop-by-hop header with the router alert
		at, octets = at+wire.IPv6Len+router, 16
		if !p.Has(wire.LayerIPv6) || p.IPv6.Dst != netip.MustParseAddr("ff02::16") || len(f) < at+8 || f[at] != 143 {
			return false
		}
	}
	records := int(binary.BigEndian.Uint16(f[at+6:]))
	for at += 8; records > 0 && len(f) >= at+4+octets; records-- {
		sources := int(binary.BigEndian.Uint16(f[at+2:]))
		if addr, _ := netip.AddrFromSlice(f[at+4 : at+4+octets]); addr == group && f[at] == kind && sources == 0 {
			return true
		}
		at += 4 + octets*(1+sources) + int(f[at+1])*4
	}
	return false
}

// query is a router's general query, to be answered at once: RFC 3376, section 4.1; RFC 3810, section 5.1.
func (b *bed) query() []byte {
	head := func(dst wire.MAC, kind wire.EtherType) []byte {
		return wire.Ethernet{Dst: dst, Src: macRouter, Type: kind}.Append(nil)
	}
	const atOnce = 1 // tenths of a second for IGMP, milliseconds for MLD
	if b.row.Underlay == IPv4 {
		m := []byte{0x11, atOnce, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0}
		binary.BigEndian.PutUint16(m[2:], wire.Checksum(m))
		all := netip.MustParseAddr("224.0.0.1")
		return wire.IPv4{TTL: 1, Protocol: 2, Src: b.addr.Gateway, Dst: all, Options: []byte{0x94, 4, 0, 0}}.Append(head(groupMAC(all), wire.TypeIPv4), m)
	}
	src, all := netip.MustParseAddr("fe80::fe"), netip.MustParseAddr("ff02::1")
	m := make([]byte, 28)
	m[0], m[5], m[24], m[25] = 130, atOnce, 2, 125
	binary.BigEndian.PutUint16(m[2:], wire.TransportChecksum(src, all, wire.ProtoICMPv6, m))
	alert := append([]byte{byte(wire.ProtoICMPv6), 0, 5, 2, 0, 0, 1, 0}, m...)
	return wire.IPv6{HopLimit: 1, Protocol: 0, Src: src, Dst: all}.Append(head(groupMAC(all), wire.TypeIPv6), alert)
}
