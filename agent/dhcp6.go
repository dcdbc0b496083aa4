package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/insomniacslk/dhcp/rfc1035label"

	"github.com/weftnet/weft/wire"
)

const dhcp6Client, dhcp6Server = 546, 547

// serverDUID is the same on every host: a client that moved finds its server again.
func serverDUID() dhcpv6.DUID {
	return &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: wire.ServiceMAC[:]}
}

// answerDHCP6 is RFC 8415 with a fixed set of addresses for each client, known by its MAC.
func (c *client) answerDHCP6(f *wire.Frame) ([]byte, string) {
	m, err := dhcpv6.MessageFromBytes(f.Payload)
	if err != nil {
		return nil, "malformed DHCPv6: " + err.Error()
	}
	if !f.IPv6.Src.IsLinkLocalUnicast() {
		return nil, fmt.Sprintf("DHCPv6 from %s, which is not link-local", f.IPv6.Src)
	}
	list, ok := c.addresses(f.Ethernet.Src, true)
	if !ok || len(list) == 0 {
		return nil, fmt.Sprintf("the plan has no IPv6 address for %s", f.Ethernet.Src)
	}
	if why := wrongServer(m); why != "" {
		return nil, why
	}
	r := &dhcpv6.Message{MessageType: dhcpv6.MessageTypeReply, TransactionID: m.TransactionID}
	if id := m.GetOneOption(dhcpv6.OptionClientID); id != nil {
		r.AddOption(id)
	} else if m.MessageType != dhcpv6.MessageTypeInformationRequest {
		return nil, "DHCPv6 without a client identifier"
	}
	r.AddOption(dhcpv6.OptServerID(serverDUID()))
	why := ""
	switch m.MessageType {
	case dhcpv6.MessageTypeSolicit:
		if m.GetOneOption(dhcpv6.OptionRapidCommit) != nil {
			r.AddOption(&dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionRapidCommit})
		} else {
			r.MessageType = dhcpv6.MessageTypeAdvertise
		}
		c.lease6(m, r, list)
	case dhcpv6.MessageTypeRequest, dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeRebind:
		c.lease6(m, r, list)
	case dhcpv6.MessageTypeConfirm:
		if why = confirm6(m, r, list); r.GetOneOption(dhcpv6.OptionStatusCode) == nil {
			return nil, why
		}
	case dhcpv6.MessageTypeInformationRequest:
	case dhcpv6.MessageTypeRelease:
		status6(r, iana.StatusSuccess, "")
	case dhcpv6.MessageTypeDecline:
		status6(r, iana.StatusSuccess, "")
		why = "an address is in use by another, the workload says"
	default:
		return nil, fmt.Sprintf("DHCPv6 message %s", m.MessageType)
	}
	c.options6(r)
	flow := wire.Flow{SrcMAC: wire.ServiceMAC, DstMAC: f.Ethernet.Src, Src: wire.ServiceLinkLocal, Dst: f.IPv6.Src}
	return flow.UDP(dhcp6Server, dhcp6Client, r.ToBytes()), why
}

// wrongServer: whom a client must name, and whom it must not (RFC 8415, section 16).
func wrongServer(m *dhcpv6.Message) string {
	id := m.Options.ServerID()
	switch m.MessageType {
	case dhcpv6.MessageTypeSolicit, dhcpv6.MessageTypeConfirm, dhcpv6.MessageTypeRebind:
		if id != nil {
			return fmt.Sprintf("%s names a server", m.MessageType)
		}
	case dhcpv6.MessageTypeRequest, dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeDecline, dhcpv6.MessageTypeRelease:
		if id == nil || !id.Equal(serverDUID()) {
			return fmt.Sprintf("%s to another server", m.MessageType)
		}
	}
	return ""
}

// lease6 gives the first association all addresses. What else one holds has ended; others, temporary addresses and prefixes there are not.
func (c *client) lease6(m, r *dhcpv6.Message, list []netip.Prefix) {
	for i, ia := range m.Options.IANA() {
		out := &dhcpv6.OptIANA{IaId: ia.IaId}
		if i > 0 {
			out.Options.Add(&dhcpv6.OptStatusCode{StatusCode: iana.StatusNoAddrsAvail, StatusMessage: "one association has them all"})
			r.AddOption(out)
			continue
		}
		out.T1, out.T2 = c.dhcp.lease/2, c.dhcp.lease/5*4
		for _, ip := range list {
			out.Options.Add(address6(ip.Addr(), c.dhcp.lease))
		}
		for _, old := range ia.Options.Addresses() {
			if a, ok := netip.AddrFromSlice(old.IPv6Addr); ok && m.MessageType != dhcpv6.MessageTypeSolicit && m.MessageType != dhcpv6.MessageTypeRequest && !holds(list, a) {
				out.Options.Add(address6(a, 0))
			}
		}
		r.AddOption(out)
	}
	for _, ia := range m.Options.IATA() {
		out := &dhcpv6.OptIATA{IaId: ia.IaId}
		out.Options.Add(&dhcpv6.OptStatusCode{StatusCode: iana.StatusNoAddrsAvail})
		r.AddOption(out)
	}
	for _, ia := range m.Options.IAPD() {
		out := &dhcpv6.OptIAPD{IaId: ia.IaId}
		out.Options.Add(&dhcpv6.OptStatusCode{StatusCode: iana.StatusNoPrefixAvail})
		r.AddOption(out)
	}
}

func address6(a netip.Addr, life time.Duration) *dhcpv6.OptIAAddress {
	return &dhcpv6.OptIAAddress{IPv6Addr: a.AsSlice(), PreferredLifetime: life, ValidLifetime: life}
}

func holds(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Addr() == a })
}

// confirm6 says whether a client that comes back is where its addresses are. One that names none gets no answer (RFC 8415, section 18.3.3).
func confirm6(m, r *dhcpv6.Message, list []netip.Prefix) (why string) {
	asked := 0
	for _, ia := range m.Options.IANA() {
		for _, old := range ia.Options.Addresses() {
			asked++
			if a, ok := netip.AddrFromSlice(old.IPv6Addr); !ok || !holds(list, a) {
				why = fmt.Sprintf("it asks for %s, which it has not", old.IPv6Addr)
			}
		}
	}
	switch {
	case asked == 0:
		return "it confirms nothing"
	case why != "":
		status6(r, iana.StatusNotOnLink, "")
	default:
		status6(r, iana.StatusSuccess, "")
	}
	return why
}

func status6(r *dhcpv6.Message, code iana.StatusCode, text string) {
	r.AddOption(&dhcpv6.OptStatusCode{StatusCode: code, StatusMessage: text})
}

// options6 are what stands beside the addresses.
func (c *client) options6(r *dhcpv6.Message) {
	if dns := addresses(c.dhcp.dns, true); len(dns) > 0 {
		r.AddOption(dhcpv6.OptDNS(dns...))
	}
	if c.dhcp.domain != "" {
		r.AddOption(dhcpv6.OptDomainSearchList(&rfc1035label.Labels{Labels: []string{c.dhcp.domain}}))
	}
}
