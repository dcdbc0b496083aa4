package server

import (
	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
)

func portSpecIn(s *weftv1.PortSpec) (model.PortSpec, error) {
	out := model.PortSpec{
		Network: s.GetNetwork(), Unguarded: s.GetUnguarded(), Forwarding: s.GetForwarding(), Description: s.GetDescription(),
		DHCPServer: s.GetDhcpServer(), Router: s.GetRouter(), Hostname: s.GetHostname(),
		BUMLimit: s.GetBumLimit(),
	}
	var err error
	if out.FastPath, err = fastPathIn(s.GetFastPath()); err != nil {
		return out, err
	}
	if out.MACs, err = macsIn("spec.macs", s.GetMacs()); err != nil {
		return out, err
	}
	for i, text := range s.GetIps() {
		a, bad := model.ParseAddr(item("spec.ips", i), text)
		if bad != nil {
			return out, bad
		}
		out.IPs = append(out.IPs, a)
	}
	for i, p := range s.GetAllowedAddressPairs() {
		pair, err := addressPairIn(item("spec.allowed_address_pairs", i), p)
		if err != nil {
			return out, err
		}
		out.AllowedAddressPairs = append(out.AllowedAddressPairs, pair)
	}
	return out, nil
}

// addressPairIn reads a pair; either half may be left out, and model says which halves it wants.
func addressPairIn(field string, p *weftv1.AddressPair) (model.AddressPair, error) {
	var out model.AddressPair
	if p.GetMac() != "" {
		mac, bad := model.ParseMAC(field+".mac", p.GetMac())
		if bad != nil {
			return out, bad
		}
		out.MAC = mac
	}
	if p.GetIp() != "" {
		a, bad := model.ParseAddr(field+".ip", p.GetIp())
		if bad != nil {
			return out, bad
		}
		out.IP = a
	}
	return out, nil
}

func addressPairOut(p model.AddressPair) *weftv1.AddressPair {
	out := &weftv1.AddressPair{}
	if !p.MAC.IsZero() {
		out.Mac = p.MAC.String()
	}
	if p.IP.IsValid() {
		out.Ip = p.IP.String()
	}
	return out
}

func portSpecOut(s model.PortSpec) *weftv1.PortSpec {
	out := &weftv1.PortSpec{
		Network: s.Network, Macs: macsOut(s.MACs), Ips: addrsOut(s.IPs),
		Unguarded: s.Unguarded, Forwarding: s.Forwarding, FastPath: fastPathOut(s.FastPath == model.FastPathXDP), Description: s.Description,
		DhcpServer: s.DHCPServer, Router: s.Router, Hostname: s.Hostname,
		BumLimit: s.BUMLimit,
	}
	for _, p := range s.AllowedAddressPairs {
		out.AllowedAddressPairs = append(out.AllowedAddressPairs, addressPairOut(p))
	}
	return out
}

func portOut(p *model.Port, status *weftv1.PortStatus) *weftv1.Port {
	return &weftv1.Port{
		Tenant: p.Tenant, Name: p.Name, Meta: metaOut(p.Meta), Spec: portSpecOut(p.Spec), Status: status,
	}
}

// bindingOut names hosts instead of their uids. No binding is all empty.
func bindingOut(b *model.Binding, hostName func(model.UID) string) *weftv1.Binding {
	if b == nil {
		return &weftv1.Binding{}
	}
	name := func(uid model.UID) string {
		if uid == "" {
			return ""
		}
		return hostName(uid)
	}
	return &weftv1.Binding{
		Epoch: int64(b.Epoch), Active: name(b.Active), Incoming: name(b.Incoming), Draining: name(b.Draining),
	}
}

// fastPathIn leaves the default empty, as a spec is stored as it was written.
func fastPathIn(f weftv1.FastPath) (model.FastPath, error) {
	switch f {
	case weftv1.FastPath_FAST_PATH_NONE:
		return "", nil
	case weftv1.FastPath_FAST_PATH_XDP:
		return model.FastPathXDP, nil
	}
	return "", model.Errorf(model.Invalid, "spec.fast_path", "use xdp or none", "%d is not a known value", f)
}

func fastPathOut(xdp bool) weftv1.FastPath {
	if xdp {
		return weftv1.FastPath_FAST_PATH_XDP
	}
	return weftv1.FastPath_FAST_PATH_NONE
}

// countsIn reads what an agent counted by the end of its part.
func countsIn(c *planv1.SettleRequest) model.PortCounts {
	return model.PortCounts{
		IngressPackets: c.GetIngressPackets(), IngressOctets: c.GetIngressOctets(),
		EgressPackets: c.GetEgressPackets(), EgressOctets: c.GetEgressOctets(),
	}
}

func countsOut(c model.PortCounts) *weftv1.PortCounters {
	return &weftv1.PortCounters{
		IngressPackets: c.IngressPackets, IngressOctets: c.IngressOctets, EgressPackets: c.EgressPackets, EgressOctets: c.EgressOctets,
	}
}
