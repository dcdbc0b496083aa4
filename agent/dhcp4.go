package agent

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/insomniacslk/dhcp/rfc1035label"

	"github.com/weftnet/weft/wire"
)

const (
	dhcp4Server, dhcp4Client = 67, 68
	// optionMicrosoftRoutes is the classless routes' option (RFC 3442) under the number by which Windows asks for it.
	optionMicrosoftRoutes = dhcpv4.GenericOptionCode(249)
	optionMTU             = dhcpv4.OptionInterfaceMTU
	// dhcp4Least is what every client takes (RFC 2131, section 2).
	dhcp4Least = 576
)

// answerDHCP4 is RFC 2131 with one address for each client, for ever.
func (c *client) answerDHCP4(f *wire.Frame) ([]byte, string) {
	m, err := dhcpv4.FromBytes(f.Payload)
	if err != nil {
		return nil, "malformed DHCP: " + err.Error()
	}
	mac := f.Ethernet.Src
	switch {
	case m.OpCode != dhcpv4.OpcodeBootRequest:
		return nil, "no DHCP request"
	case m.HWType != iana.HWTypeEthernet || !bytes.Equal(m.ClientHWAddr, mac[:]):
		return nil, fmt.Sprintf("it asks for %s, and comes from %s", m.ClientHWAddr, mac)
	case !m.GatewayIPAddr.IsUnspecified():
		return nil, "it comes by a relay"
	}
	list, ok := c.addresses(mac, false)
	if !ok || len(list) == 0 {
		return nil, fmt.Sprintf("the plan has no IPv4 address for %s", mac)
	}
	ip := list[0]
	switch m.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		if m.Options.Has(dhcpv4.OptionRapidCommit) {
			return c.lease4(f, m, ip, dhcpv4.MessageTypeAck), ""
		}
		return c.lease4(f, m, ip, dhcpv4.MessageTypeOffer), ""
	case dhcpv4.MessageTypeRequest:
		return c.request4(f, m, ip)
	case dhcpv4.MessageTypeInform:
		return c.lease4(f, m, ip, dhcpv4.MessageTypeAck), ""
	case dhcpv4.MessageTypeRelease:
		return nil, "" // the address stays the port's
	case dhcpv4.MessageTypeDecline:
		return nil, fmt.Sprintf("%s is in use by another, the workload says", ip.Addr())
	}
	return nil, fmt.Sprintf("DHCP message %s", m.MessageType())
}

// request4 is a client that selects an offer, comes back, or renews: RFC 2131, section 4.3.2.
func (c *client) request4(f *wire.Frame, m *dhcpv4.DHCPv4, ip netip.Prefix) ([]byte, string) {
	if id := m.ServerIdentifier(); id != nil && !id.Equal(wire.DHCPServer4.AsSlice()) {
		return nil, fmt.Sprintf("it chose the server %s", id)
	}
	asked := m.ClientIPAddr
	if asked.IsUnspecified() {
		asked = m.RequestedIPAddress()
	}
	if !asked.Equal(ip.Addr().AsSlice()) {
		return c.refuse4(f, m), fmt.Sprintf("it asks for %s and has %s", asked, ip.Addr())
	}
	return c.lease4(f, m, ip, dhcpv4.MessageTypeAck), ""
}

func (c *client) refuse4(f *wire.Frame, m *dhcpv4.DHCPv4) []byte {
	r := reply4(m, dhcpv4.MessageTypeNak)
	r.SetBroadcast()
	return frame4(f, r, netip.Addr{})
}

// reply4 is the start of every answer.
func reply4(m *dhcpv4.DHCPv4, kind dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	r := &dhcpv4.DHCPv4{OpCode: dhcpv4.OpcodeBootReply, HWType: m.HWType, TransactionID: m.TransactionID, Flags: m.Flags,
		ClientIPAddr: net.IPv4zero, YourIPAddr: net.IPv4zero, ServerIPAddr: net.IPv4zero, GatewayIPAddr: net.IPv4zero,
		ClientHWAddr: m.ClientHWAddr, Options: dhcpv4.Options{}}
	r.UpdateOption(dhcpv4.OptMessageType(kind))
	r.UpdateOption(dhcpv4.OptServerIdentifier(wire.DHCPServer4.AsSlice()))
	if id := m.Options.Get(dhcpv4.OptionClientIdentifier); id != nil {
		r.UpdateOption(dhcpv4.OptClientIdentifier(id)) // RFC 6842
	}
	return r
}

// lease4 says all that the plan has for the client.
func (c *client) lease4(f *wire.Frame, m *dhcpv4.DHCPv4, ip netip.Prefix, kind dhcpv4.MessageType) []byte {
	r := reply4(m, kind)
	r.ClientIPAddr = m.ClientIPAddr
	if m.MessageType() != dhcpv4.MessageTypeInform {
		r.YourIPAddr = ip.Addr().AsSlice()
		r.UpdateOption(dhcpv4.OptIPAddressLeaseTime(c.dhcp.lease))
		r.UpdateOption(dhcpv4.OptRenewTimeValue(c.dhcp.lease / 2))
		r.UpdateOption(dhcpv4.OptRebindingTimeValue(c.dhcp.lease / 8 * 7))
	}
	if m.Options.Has(dhcpv4.OptionRapidCommit) && m.MessageType() == dhcpv4.MessageTypeDiscover {
		r.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionRapidCommit, nil))
	}
	mask := net.CIDRMask(ip.Bits(), 32)
	r.UpdateOption(dhcpv4.OptSubnetMask(mask))
	r.UpdateOption(dhcpv4.OptGeneric(optionMTU, []byte{byte(c.mtu >> 8), byte(c.mtu)}))
	r.UpdateOption(dhcpv4.OptHostName(c.hostname))
	if c.dhcp.domain != "" {
		r.UpdateOption(dhcpv4.OptDomainName(c.dhcp.domain))
	}
	if m.IsOptionRequested(dhcpv4.OptionDNSDomainSearchList) && c.dhcp.domain != "" {
		r.UpdateOption(dhcpv4.OptDomainSearch(&rfc1035label.Labels{Labels: []string{c.dhcp.domain}}))
	}
	if dns := addresses(c.dhcp.dns, false); len(dns) > 0 {
		r.UpdateOption(dhcpv4.OptDNS(dns...))
	}
	c.routes4(m, r, ip)
	fit4(r, limit4(m, c.mtu))
	return frame4(f, r, ip.Addr())
}

// routes4 puts the gateway in, and for a client that asks for routes all of them, among them the one to the DHCP server: with it the client
// reaches the server to renew although it is in no subnet. A client takes no gateway beside routes (RFC 3442).
func (c *client) routes4(m, r *dhcpv4.DHCPv4, ip netip.Prefix) {
	gateway := c.gateway(ip)
	if gateway.IsValid() {
		r.UpdateOption(dhcpv4.OptRouter(gateway.AsSlice()))
	}
	list := dhcpv4.Routes{{Dest: &net.IPNet{IP: wire.DHCPServer4.AsSlice(), Mask: net.CIDRMask(32, 32)}, Router: net.IPv4zero}}
	for _, t := range c.dhcp.routes {
		if ip.Contains(t.gateway) && !c.owns(t.gateway) {
			list = append(list, &dhcpv4.Route{Dest: &net.IPNet{IP: t.prefix.Addr().AsSlice(), Mask: net.CIDRMask(t.prefix.Bits(), 32)},
				Router: t.gateway.AsSlice()})
		}
	}
	if gateway.IsValid() {
		list = append(list, &dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, Router: gateway.AsSlice()})
	}
	for _, code := range []dhcpv4.OptionCode{dhcpv4.OptionClasslessStaticRoute, optionMicrosoftRoutes} {
		if m.IsOptionRequested(code) {
			r.UpdateOption(dhcpv4.OptGeneric(code, list.ToBytes()))
		}
	}
}

// gateway of the subnet that an address is in; the port that has it is told of none.
func (c *client) gateway(ip netip.Prefix) netip.Addr {
	for _, g := range c.dhcp.gateways {
		if ip.Contains(g) && !c.owns(g) {
			return g
		}
	}
	return netip.Addr{}
}

func addresses(list []netip.Addr, six bool) (ips []net.IP) {
	for _, a := range list {
		if a.Is6() == six {
			ips = append(ips, a.AsSlice())
		}
	}
	return ips
}

// limit4 is how long a message may be: what the client says that it takes, or else what its interface does.
func limit4(m *dhcpv4.DHCPv4, mtu int) int {
	if n, err := m.MaxMessageSize(); err == nil {
		mtu = min(mtu, max(dhcp4Least, int(n)))
	}
	return mtu - wire.IPv4Len - wire.UDPLen
}

// fit4 leaves out what a client can do without, the least needed first.
func fit4(r *dhcpv4.DHCPv4, limit int) {
	for _, code := range []dhcpv4.OptionCode{dhcpv4.OptionDNSDomainSearchList, optionMicrosoftRoutes, dhcpv4.OptionHostName,
		dhcpv4.OptionDomainName, dhcpv4.OptionClasslessStaticRoute} {
		if len(r.ToBytes()) <= limit {
			return
		}
		delete(r.Options, code.Code())
	}
}

// frame4 is the answer on its way: to all who hear it where the client says that it cannot be reached otherwise, or has no address.
func frame4(f *wire.Frame, r *dhcpv4.DHCPv4, to netip.Addr) []byte {
	flow := wire.Flow{SrcMAC: wire.ServiceMAC, DstMAC: f.Ethernet.Src, Src: wire.DHCPServer4, Dst: to}
	if r.IsBroadcast() && r.ClientIPAddr.IsUnspecified() || !to.IsValid() {
		flow.DstMAC, flow.Dst = wire.BroadcastMAC, netip.AddrFrom4([4]byte{255, 255, 255, 255})
	}
	return flow.UDP(dhcp4Server, dhcp4Client, r.ToBytes())
}
