package compile

import (
	"net/netip"
	"slices"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/plan"
	"github.com/weftnet/weft/wire"
)

// oracle compiles a world the slow and obvious way: no index, no memory, every question asked of every object.
func oracle(w *model.World) *plan.Set {
	s := plan.NewSet()
	for _, h := range w.Hosts {
		s.Put(plan.NewHost(0, oracleHost(w, h)))
		if f := oracleFacts(w, h.UID); f != nil {
			v := &planv1.Vtep{Uid: string(h.UID), Name: h.Name, UdpPort: uint32(f.UDPPort), OuterChecksum: h.Spec.OuterChecksum}
			if f.UDPPort == 0 {
				v.UdpPort = 4789
			}
			for _, four := range []bool{true, false} {
				for _, a := range f.VTEPAddresses {
					if a.Is4() == four {
						v.Addresses = append(v.Addresses, a.AsSlice())
						break
					}
				}
			}
			s.Put(plan.NewVTEP(0, v))
		}
	}
	for _, v := range w.VTEPs {
		p := uint32(v.Spec.UDPPort)
		if p == 0 {
			p = 4789
		}
		s.Put(plan.NewVTEP(0, &planv1.Vtep{Uid: string(v.UID), Name: v.Name, Addresses: [][]byte{v.Spec.Address.AsSlice()},
			UdpPort: p, OuterChecksum: v.Spec.OuterChecksum, External: true}))
	}
	for _, n := range w.Networks {
		s.Put(plan.NewNetwork(0, oracleNetwork(w, n)))
	}
	for _, p := range w.Ports {
		if w.Networks[p.Alloc.NetworkUID] != nil {
			s.Put(plan.NewPort(0, oraclePort(w, p)))
		}
	}
	return s
}

// oracleFacts are the facts of a host that has a VTEP.
func oracleFacts(w *model.World, host model.UID) *model.HostFacts {
	f := w.Facts[host]
	if w.Hosts[host] == nil || f == nil || len(f.VTEPAddresses) == 0 {
		return nil
	}
	return f
}

func oracleHolds(w *model.World, host, network model.UID) bool {
	for _, b := range w.Bindings {
		p := w.Ports[b.Port]
		if p != nil && p.Alloc.NetworkUID == network && host != "" && (b.Active == host || b.Incoming == host || b.Draining == host) {
			return true
		}
	}
	return false
}

func oracleHost(w *model.World, h *model.Host) *planv1.Host {
	m := &planv1.Host{Uid: string(h.UID), Name: h.Name}
	if oracleFacts(w, h.UID) != nil {
		m.Vtep = string(h.UID)
	}
	for _, n := range w.Networks {
		if !oracleHolds(w, h.UID, n.UID) {
			continue
		}
		m.Networks = append(m.Networks, string(n.UID))
		for _, e := range n.Spec.VTEPs {
			if v := w.VTEPs[e.VTEP]; v != nil {
				m.Vteps = append(m.Vteps, string(v.UID))
			}
		}
	}
	slices.Sort(m.Networks)
	slices.Sort(m.Vteps)
	m.Vteps = slices.Compact(m.Vteps)
	return m
}

func oracleNetwork(w *model.World, n *model.Network) *planv1.Network {
	m := &planv1.Network{Uid: string(n.UID), Vni: uint32(n.Alloc.VNI), Display: n.Tenant + "/" + n.Name}
	switch n.Spec.UnknownUnicast {
	case model.UnknownUnicastFlood:
		m.UnknownUnicast = planv1.UnknownUnicast_UNKNOWN_UNICAST_FLOOD
	case model.UnknownUnicastDrop:
		m.UnknownUnicast = planv1.UnknownUnicast_UNKNOWN_UNICAST_DROP
	}
	if g := n.Alloc.Flood.Sends; g.IsValid() {
		m.Group = g.AsSlice()
	}
	for _, g := range n.Alloc.Flood.Joined {
		m.JoinedGroups = append(m.JoinedGroups, g.AsSlice())
	}
	if n.Spec.DSCP == "uniform" {
		m.DscpUniform = true
	}
	if d := n.Spec.DHCP; len(n.Spec.Subnets) > 0 && (d == nil || !d.Disabled) {
		m.Dhcp = &planv1.Dhcp{LeaseSeconds: 86400}
		if d != nil {
			m.Dhcp.Domain, m.Dhcp.DnsServers = d.Domain, []string{d.DNSServers[0].String()}
			m.Dhcp.Gateways = []string{d.Gateways[0].String()}
			m.Dhcp.Routes = []*planv1.Route{{Prefix: d.Routes[0].Prefix.String(), Gateway: d.Routes[0].Gateway.String()}}
			m.Dhcp.LeaseSeconds = uint32(d.LeaseTime.Seconds())
		}
	}
	m.BumLimit = 10_000
	if l := n.Spec.BUMLimit; l != 0 {
		m.BumLimit = l
	}
	if m.BumLimit == 1<<32-1 {
		m.BumLimit = 0
	}
	if n.Spec.Neighbours == "flood" {
		m.Neighbours = planv1.Neighbours_NEIGHBOURS_FLOOD
	}
	var members, all []*model.HostFacts
	anyMember := false
	for h := range w.Hosts {
		if f := oracleFacts(w, h); f != nil {
			all = append(all, f)
			if oracleHolds(w, h, n.UID) {
				members = append(members, f)
			}
		}
	}
	for _, b := range w.Bindings {
		for h := range b.Hosts() {
			anyMember = anyMember || oracleHolds(w, h, n.UID)
		}
	}
	if !anyMember {
		members = all
	}
	least, overhead := 0, 50
	for _, f := range members {
		if f.UplinkMTU > 0 && (least == 0 || f.UplinkMTU < least) {
			least = f.UplinkMTU
		}
		if !slices.ContainsFunc(f.VTEPAddresses, netip.Addr.Is4) {
			overhead = 70
		}
	}
	for _, e := range n.Spec.VTEPs {
		v := w.VTEPs[e.VTEP]
		if v == nil {
			continue
		}
		if v.Spec.Address.Is6() {
			overhead = 70
		}
		m.External = append(m.External, &planv1.ExternalVtep{Vtep: string(v.UID), Macs: oracleMACs(e.MACs)})
		if g := n.Alloc.Flood.Sends; g.IsValid() && (e.Flood != "group" || v.Spec.Address.Is4() != g.Is4()) {
			m.Copies = append(m.Copies, string(v.UID))
		}
	}
	switch {
	case n.Spec.MTU != 0:
		m.Mtu = uint32(n.Spec.MTU)
	case least == 0:
		m.Mtu = 1450
	default:
		m.Mtu = uint32(least - overhead)
	}
	return m
}

func oraclePort(w *model.World, p *model.Port) *planv1.Port {
	m := &planv1.Port{Uid: string(p.UID), Network: string(p.Alloc.NetworkUID), Macs: oracleMACs(p.Alloc.MACs),
		TenantName: p.Tenant, Name: p.Name, Unguarded: p.Spec.Unguarded, Forwarding: p.Spec.Forwarding, FastPath: p.Spec.FastPath == "xdp",
		DhcpServer: p.Spec.DHCPServer, Router: p.Spec.Router, Hostname: p.Spec.Hostname,
		BumLimit: map[uint32]uint32{0: 1000, 7: 7, 1<<32 - 1: 0}[p.Spec.BUMLimit]}
	for _, ip := range p.Alloc.IPs {
		m.Ips = append(m.Ips, ip.String())
	}
	for _, a := range p.Spec.AllowedAddressPairs {
		m.AllowedAddressPairs = append(m.AllowedAddressPairs, &planv1.AddressPair{Mac: a.MAC[:], Ip: a.IP.String()})
	}
	if b := w.Bindings[p.UID]; b != nil {
		m.Epoch, m.Active, m.Incoming, m.Draining = int64(b.Epoch), string(b.Active), string(b.Incoming), string(b.Draining)
		if oracleFacts(w, b.Active) != nil {
			m.Vtep = string(b.Active)
		}
	}
	return m
}

func oracleMACs(in []wire.MAC) [][]byte {
	var out [][]byte
	for _, m := range in {
		out = append(out, m[:])
	}
	return out
}
