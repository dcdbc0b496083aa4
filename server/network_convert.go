package server

import (
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/wire"
)

func networkSpecIn(s *weftv1.NetworkSpec) (model.NetworkSpec, error) {
	out := model.NetworkSpec{
		VNI: wire.VNI(s.GetVni()), VNIPool: s.GetVniPool(), MTU: int(s.GetMtu()), Description: s.GetDescription(), BUMLimit: s.GetBumLimit(),
	}
	for i, text := range s.GetSubnets() {
		p, bad := model.ParseSubnet(item("spec.subnets", i), text)
		if bad != nil {
			return out, bad
		}
		out.Subnets = append(out.Subnets, p)
	}
	unknown, err := unknownUnicastIn(s.GetUnknownUnicast())
	if err != nil {
		return out, err
	}
	out.UnknownUnicast = unknown
	if out.DSCP, err = dscpIn(s.GetDscp()); err != nil {
		return out, err
	}
	if out.DHCP, err = dhcpIn(s.GetDhcp()); err != nil {
		return out, err
	}
	if out.Neighbours, err = neighboursIn(s.GetNeighbours()); err != nil {
		return out, err
	}
	if out.Learning, err = learningIn(s.GetLearning()); err != nil {
		return out, err
	}
	if out.Flood, err = floodIn(s.GetFlood()); err != nil {
		return out, err
	}
	group, bad := model.ParseGroup("spec.group", s.GetGroup())
	if bad != nil {
		return out, bad
	}
	out.Group, out.GroupPool = group, s.GetGroupPool()
	for i, v := range s.GetVteps() {
		part, err := networkVTEPIn(item("spec.vteps", i), v)
		if err != nil {
			return out, err
		}
		out.VTEPs = append(out.VTEPs, part)
	}
	return out, nil
}

func networkSpecOut(s model.NetworkSpec) *weftv1.NetworkSpec {
	out := &weftv1.NetworkSpec{
		Vni: uint32(s.VNI), VniPool: s.VNIPool, Mtu: uint32(s.MTU), Description: s.Description,
		UnknownUnicast: unknownUnicastOut(s.UnknownUnicast), Dscp: dscpOut(s.DSCP), Dhcp: dhcpOut(s.DHCP), Learning: learningOut(s.Learning),
		Neighbours: neighboursOut(s.Neighbours), BumLimit: s.BUMLimit,
		Flood: floodOut(s.Multicast()), Group: groupOut(s.Group), GroupPool: s.GroupPool,
	}
	for _, p := range s.Subnets {
		out.Subnets = append(out.Subnets, p.String())
	}
	for _, v := range s.VTEPs {
		out.Vteps = append(out.Vteps, &weftv1.NetworkVTEP{Vtep: v.VTEP, Macs: macsOut(v.MACs), Flood: vtepFloodOut(v.Flood)})
	}
	return out
}

func networkOut(n *model.Network, status *weftv1.NetworkStatus) *weftv1.Network {
	return &weftv1.Network{
		Tenant: n.Tenant, Name: n.Name, Meta: metaOut(n.Meta), Spec: networkSpecOut(n.Spec), Status: status,
	}
}

func networkVTEPIn(field string, v *weftv1.NetworkVTEP) (model.NetworkVTEP, error) {
	macs, err := macsIn(field+".macs", v.GetMacs())
	if err != nil {
		return model.NetworkVTEP{}, err
	}
	flood, err := vtepFloodIn(field+".flood", v.GetFlood())
	return model.NetworkVTEP{VTEP: v.GetVtep(), MACs: macs, Flood: flood}, err
}

// unknownUnicastIn leaves the default empty, as a spec is stored as it was written.
func unknownUnicastIn(u weftv1.UnknownUnicast) (model.UnknownUnicast, error) {
	switch u {
	case weftv1.UnknownUnicast_UNKNOWN_UNICAST_EXTERNAL:
		return "", nil
	case weftv1.UnknownUnicast_UNKNOWN_UNICAST_FLOOD:
		return model.UnknownUnicastFlood, nil
	case weftv1.UnknownUnicast_UNKNOWN_UNICAST_DROP:
		return model.UnknownUnicastDrop, nil
	}
	return "", model.Errorf(model.Invalid, "spec.unknown_unicast", "use external, flood or drop", "%d is not a known value", u)
}

func unknownUnicastOut(u model.UnknownUnicast) weftv1.UnknownUnicast {
	switch u {
	case model.UnknownUnicastFlood:
		return weftv1.UnknownUnicast_UNKNOWN_UNICAST_FLOOD
	case model.UnknownUnicastDrop:
		return weftv1.UnknownUnicast_UNKNOWN_UNICAST_DROP
	}
	return weftv1.UnknownUnicast_UNKNOWN_UNICAST_EXTERNAL
}

// dscpIn leaves the default empty, too.
func dscpIn(d weftv1.DSCP) (model.DSCP, error) {
	switch d {
	case weftv1.DSCP_DSCP_PIPE:
		return "", nil
	case weftv1.DSCP_DSCP_UNIFORM:
		return model.DSCPUniform, nil
	}
	return "", model.Errorf(model.Invalid, "spec.dscp", "use pipe or uniform", "%d is not a known value", d)
}

// neighboursIn leaves the default empty, too.
func neighboursIn(n weftv1.Neighbours) (model.Neighbours, error) {
	switch n {
	case weftv1.Neighbours_NEIGHBOURS_ANSWER:
		return "", nil
	case weftv1.Neighbours_NEIGHBOURS_FLOOD:
		return model.NeighboursFlood, nil
	}
	return "", model.Errorf(model.Invalid, "spec.neighbours", "use answer or flood", "%d is not a known value", n)
}

func neighboursOut(n model.Neighbours) weftv1.Neighbours {
	if n == model.NeighboursFlood {
		return weftv1.Neighbours_NEIGHBOURS_FLOOD
	}
	return weftv1.Neighbours_NEIGHBOURS_ANSWER
}

func dscpOut(d model.DSCP) weftv1.DSCP {
	if d == model.DSCPUniform {
		return weftv1.DSCP_DSCP_UNIFORM
	}
	return weftv1.DSCP_DSCP_PIPE
}
