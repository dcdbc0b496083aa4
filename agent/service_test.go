package agent

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/wire"
)

var (
	clientMAC, secondMAC = wire.MAC{2, 0, 0, 0, 0, 1}, wire.MAC{2, 0, 0, 0, 0, 2}
	clientLL             = netip.MustParseAddr("fe80::ff:fe00:1")
	everybody4           = netip.MustParseAddr("255.255.255.255")
	dhcpServers          = netip.MustParseAddr("ff02::1:2")
)

func testClient() *client {
	addr := netip.MustParseAddr
	return &client{uid: "p1", hostname: "web1", macs: []wire.MAC{clientMAC}, mtu: 1450,
		ips: []netip.Prefix{netip.MustParsePrefix("10.1.0.5/24"), netip.MustParsePrefix("fd00:1::5/64")},
		dhcp: &dhcp{gateways: []netip.Addr{addr("10.1.0.1"), addr("fe80::1")}, dns: []netip.Addr{addr("10.1.0.53"), addr("fd00:1::53")},
			domain: "blue.example.org", lease: time.Hour, routes: []route{{netip.MustParsePrefix("10.9.0.0/16"), addr("10.1.0.9")},
				{netip.MustParsePrefix("10.8.0.0/16"), addr("10.2.0.9")}}},
		services: datapath.ServeDHCP4 | datapath.ServeDHCP6 | datapath.ServeRouter, counts: &serviceCounts{}}
}

// ask4 is a client's message in a frame, and what comes of it.
func ask4(t testing.TB, c *client, mac wire.MAC, kind dhcpv4.MessageType, edit ...dhcpv4.Modifier) (*dhcpv4.DHCPv4, wire.Frame, string) {
	t.Helper()
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithMessageType(kind), dhcpv4.WithHwAddr(mac[:])}, edit...)...)
	if err != nil {
		t.Fatal(err)
	}
	frame := wire.Flow{SrcMAC: mac, DstMAC: wire.BroadcastMAC, Src: netip.IPv4Unspecified(), Dst: everybody4}.UDP(68, 67, m.ToBytes())
	out, why := c.answer(frame, len(frame))
	if out == nil {
		return nil, wire.Frame{}, why
	}
	f, err := wire.ParseFrame(out)
	if err != nil || !f.ChecksumOK(out) || f.UDP.Src != 67 || f.UDP.Dst != 68 || f.Ethernet.Src != wire.ServiceMAC {
		t.Fatalf("the answer is no frame of a DHCP server: %v, %+v", err, f)
	}
	r, err := dhcpv4.FromBytes(f.Payload)
	if err != nil {
		t.Fatal(err)
	}
	if r.TransactionID != m.TransactionID || r.OpCode != dhcpv4.OpcodeBootReply || !r.ServerIdentifier().Equal(wire.DHCPServer4.AsSlice()) {
		t.Errorf("not the answer to that: %s", r.Summary())
	}
	return r, f, why
}

// TestDHCP4States: each state of a client (RFC 2131, section 4.3.2) gets its answer; another address is refused, and another server's client left
// alone. Red when request4 takes any address, or forgets who was chosen.
func TestDHCP4States(t *testing.T) {
	c := testClient()
	own, other := dhcpv4.OptRequestedIPAddress(net.IPv4(10, 1, 0, 5)), dhcpv4.OptRequestedIPAddress(net.IPv4(10, 1, 0, 6))
	server := dhcpv4.OptServerIdentifier(wire.DHCPServer4.AsSlice())
	with := dhcpv4.WithOption
	for _, s := range []struct {
		name  string
		kind  dhcpv4.MessageType
		edit  []dhcpv4.Modifier
		want  dhcpv4.MessageType // 0: no answer
		wrong bool
	}{
		{"looks", dhcpv4.MessageTypeDiscover, nil, dhcpv4.MessageTypeOffer, false},
		{"looks, in one step", dhcpv4.MessageTypeDiscover, []dhcpv4.Modifier{with(dhcpv4.OptGeneric(dhcpv4.OptionRapidCommit, nil))}, dhcpv4.MessageTypeAck, false},
		{"selects", dhcpv4.MessageTypeRequest, []dhcpv4.Modifier{with(own), with(server)}, dhcpv4.MessageTypeAck, false},
		{"selects another server", dhcpv4.MessageTypeRequest, []dhcpv4.Modifier{with(own), with(dhcpv4.OptServerIdentifier(net.IPv4(10, 1, 0, 1)))}, 0, true},
		{"selects another address", dhcpv4.MessageTypeRequest, []dhcpv4.Modifier{with(other), with(server)}, dhcpv4.MessageTypeNak, true},
		{"comes back", dhcpv4.MessageTypeRequest, []dhcpv4.Modifier{with(own)}, dhcpv4.MessageTypeAck, false},
		{"comes back from another network", dhcpv4.MessageTypeRequest, []dhcpv4.Modifier{with(other)}, dhcpv4.MessageTypeNak, true},
		{"renews", dhcpv4.MessageTypeRequest, []dhcpv4.Modifier{dhcpv4.WithClientIP(net.IPv4(10, 1, 0, 5))}, dhcpv4.MessageTypeAck, false},
		{"renews another address", dhcpv4.MessageTypeRequest, []dhcpv4.Modifier{dhcpv4.WithClientIP(net.IPv4(10, 1, 0, 6))}, dhcpv4.MessageTypeNak, true},
		{"only asks", dhcpv4.MessageTypeInform, []dhcpv4.Modifier{dhcpv4.WithClientIP(net.IPv4(10, 1, 0, 5))}, dhcpv4.MessageTypeAck, false},
		{"leaves", dhcpv4.MessageTypeRelease, []dhcpv4.Modifier{dhcpv4.WithClientIP(net.IPv4(10, 1, 0, 5))}, 0, false},
		{"declines", dhcpv4.MessageTypeDecline, []dhcpv4.Modifier{with(own)}, 0, true},
		{"comes by a relay", dhcpv4.MessageTypeDiscover, []dhcpv4.Modifier{dhcpv4.WithGatewayIP(net.IPv4(10, 1, 0, 9))}, 0, true},
	} {
		r, _, why := ask4(t, c, clientMAC, s.kind, s.edit...)
		got := dhcpv4.MessageType(0)
		if r != nil {
			got = r.MessageType()
		}
		if got != s.want || (why != "") != s.wrong {
			t.Errorf("a client that %s gets %s (%s)", s.name, got, why)
		}
		if got == dhcpv4.MessageTypeAck && s.kind != dhcpv4.MessageTypeInform && !r.YourIPAddr.Equal(net.IPv4(10, 1, 0, 5)) {
			t.Errorf("a client that %s gets %s", s.name, r.YourIPAddr)
		}
	}
	if r, _, why := ask4(t, c, secondMAC, dhcpv4.MessageTypeDiscover); r != nil || !strings.Contains(why, "no IPv4 address for 02:00:00:00:00:02") {
		t.Errorf("another MAC gets %v (%s)", r, why)
	}
}

// TestDHCP4Options: all that the plan says, routes of another subnet left out, and what does not fit the client left out in order.
func TestDHCP4Options(t *testing.T) {
	c := testClient()
	all := dhcpv4.WithRequestedOptions(dhcpv4.OptionClasslessStaticRoute, dhcpv4.OptionDNSDomainSearchList)
	r, f, _ := ask4(t, c, clientMAC, dhcpv4.MessageTypeDiscover, all, dhcpv4.WithOption(dhcpv4.OptClientIdentifier([]byte{1, 2})))
	if f.IPv4.Dst != netip.MustParseAddr("10.1.0.5") || f.Ethernet.Dst != clientMAC {
		t.Errorf("the answer goes to %s, %s", f.IPv4.Dst, f.Ethernet.Dst)
	}
	routes := r.ClasslessStaticRoute()
	if len(routes) != 3 || routes[0].Dest.String() != "169.254.73.48/32" || routes[1].Router.String() != "10.1.0.9" || routes[2].Dest.String() != "0.0.0.0/0" {
		t.Errorf("routes %s", routes)
	}
	if r.HostName() != "web1" || r.DomainName() != "blue.example.org" || !r.Router()[0].Equal(net.IPv4(10, 1, 0, 1)) || len(r.DNS()) != 1 ||
		r.IPAddressLeaseTime(0) != time.Hour || string(r.Options.Get(dhcpv4.OptionInterfaceMTU)) != "\x05\xaa" || string(r.Options.Get(dhcpv4.OptionClientIdentifier)) != "\x01\x02" {
		t.Errorf("options: %s", r.Summary())
	}
	if _, f, _ := ask4(t, c, clientMAC, dhcpv4.MessageTypeDiscover, dhcpv4.WithBroadcast(true)); f.IPv4.Dst != everybody4 || f.Ethernet.Dst != wire.BroadcastMAC {
		t.Errorf("a client that cannot be reached yet is answered to %s", f.IPv4.Dst)
	}
	c.ips[0] = netip.MustParsePrefix("10.1.0.1/24")
	if r, _, _ := ask4(t, c, clientMAC, dhcpv4.MessageTypeDiscover, all); len(r.Router()) != 0 {
		t.Errorf("the router is told of itself: %s", r.Router())
	}
	c = testClient()
	c.dhcp.domain = strings.Repeat("a123456789.", 22) + "org"
	_, f, _ = ask4(t, c, clientMAC, dhcpv4.MessageTypeDiscover, all, dhcpv4.WithOption(dhcpv4.OptMaxMessageSize(576)))
	if n := len(f.Segment) + wire.IPv4Len; n > 576 {
		t.Errorf("a client that takes 576 octets gets %d", n)
	}
}

// TestAddressesByMAC: of a port with several MACs each has the address in its place.
func TestAddressesByMAC(t *testing.T) {
	c := testClient()
	c.macs, c.ips = []wire.MAC{clientMAC, secondMAC}, []netip.Prefix{netip.MustParsePrefix("10.1.0.5/24"), netip.MustParsePrefix("fd00:1::5/64"), netip.MustParsePrefix("10.1.0.6/24")}
	if r, _, _ := ask4(t, c, secondMAC, dhcpv4.MessageTypeDiscover); r == nil || !r.YourIPAddr.Equal(net.IPv4(10, 1, 0, 6)) {
		t.Errorf("the second MAC gets %v", r)
	}
	if list, ok := c.addresses(secondMAC, true); !ok || len(list) != 0 {
		t.Errorf("the second MAC has %v", list)
	}
}

func ask6(t testing.TB, c *client, kind dhcpv6.MessageType, options ...dhcpv6.Option) (*dhcpv6.Message, string) {
	t.Helper()
	m := &dhcpv6.Message{MessageType: kind, TransactionID: dhcpv6.TransactionID{1, 2, 3}}
	m.AddOption(dhcpv6.OptClientID(&dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: clientMAC[:]}))
	for _, o := range options {
		m.AddOption(o)
	}
	frame := wire.Flow{SrcMAC: clientMAC, DstMAC: wire.MAC{0x33, 0x33, 0, 1, 0, 2}, Src: clientLL, Dst: dhcpServers}.UDP(546, 547, m.ToBytes())
	out, why := c.answer(frame, len(frame))
	if out == nil {
		return nil, why
	}
	f, err := wire.ParseFrame(out)
	if err != nil || !f.ChecksumOK(out) || f.UDP.Src != 547 || f.UDP.Dst != 546 || f.IPv6.Dst != clientLL || f.IPv6.Src != wire.ServiceLinkLocal {
		t.Fatalf("the answer is no frame of a DHCPv6 server: %v, %+v", err, f)
	}
	r, err := dhcpv6.MessageFromBytes(f.Payload)
	if err != nil {
		t.Fatal(err)
	}
	return r, why
}

// TestDHCP6States: RFC 8415, section 18.3. Red when lease6 leaves an old address alive, or wrongServer says nothing.
func TestDHCP6States(t *testing.T) {
	c := testClient()
	ia := func(addrs ...string) *dhcpv6.OptIANA {
		o := &dhcpv6.OptIANA{IaId: [4]byte{9}}
		for _, a := range addrs {
			o.Options.Add(address6(netip.MustParseAddr(a), time.Minute))
		}
		return o
	}
	server := dhcpv6.OptServerID(serverDUID())
	for _, s := range []struct {
		name    string
		kind    dhcpv6.MessageType
		options []dhcpv6.Option
		want    dhcpv6.MessageType
		wrong   bool
		leases  string
	}{
		{"solicits", dhcpv6.MessageTypeSolicit, []dhcpv6.Option{ia()}, dhcpv6.MessageTypeAdvertise, false, "fd00:1::5 1h0m0s"},
		{"solicits in one step", dhcpv6.MessageTypeSolicit, []dhcpv6.Option{ia(), &dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionRapidCommit}}, dhcpv6.MessageTypeReply, false, "fd00:1::5 1h0m0s"},
		{"requests", dhcpv6.MessageTypeRequest, []dhcpv6.Option{ia("fd00:1::5"), server}, dhcpv6.MessageTypeReply, false, "fd00:1::5 1h0m0s"},
		{"requests of another", dhcpv6.MessageTypeRequest, []dhcpv6.Option{ia("fd00:1::5")}, 0, true, ""},
		{"renews what it had before", dhcpv6.MessageTypeRenew, []dhcpv6.Option{ia("fd00:1::6"), server}, dhcpv6.MessageTypeReply, false, "fd00:1::5 1h0m0s fd00:1::6 0s"},
		{"rebinds", dhcpv6.MessageTypeRebind, []dhcpv6.Option{ia("fd00:1::5")}, dhcpv6.MessageTypeReply, false, "fd00:1::5 1h0m0s"},
		{"confirms", dhcpv6.MessageTypeConfirm, []dhcpv6.Option{ia("fd00:1::5")}, dhcpv6.MessageTypeReply, false, ""},
		{"confirms another address", dhcpv6.MessageTypeConfirm, []dhcpv6.Option{ia("fd00:2::5")}, dhcpv6.MessageTypeReply, true, ""},
		{"confirms nothing", dhcpv6.MessageTypeConfirm, []dhcpv6.Option{ia()}, 0, true, ""},
		{"releases", dhcpv6.MessageTypeRelease, []dhcpv6.Option{ia("fd00:1::5"), server}, dhcpv6.MessageTypeReply, false, ""},
		{"only asks", dhcpv6.MessageTypeInformationRequest, nil, dhcpv6.MessageTypeReply, false, ""},
		{"advertises", dhcpv6.MessageTypeAdvertise, nil, 0, true, ""},
	} {
		r, why := ask6(t, c, s.kind, s.options...)
		got, leases := dhcpv6.MessageType(0), ""
		if r != nil {
			got = r.MessageType
			for _, i := range r.Options.IANA() {
				for _, a := range i.Options.Addresses() {
					leases += " " + a.IPv6Addr.String() + " " + a.ValidLifetime.String()
				}
			}
			if len(r.Options.DNS()) != 1 || r.Options.DomainSearchList().Labels[0] != "blue.example.org" {
				t.Errorf("a client that %s is told of %v", s.name, r.Options.DNS())
			}
		}
		if got != s.want || (why != "") != s.wrong || strings.TrimSpace(leases) != s.leases {
			t.Errorf("a client that %s gets %s with %q (%s)", s.name, got, leases, why)
		}
	}
}

// solicitation is a router solicitation in a frame.
func solicitation(mac wire.MAC) []byte {
	routers := netip.MustParseAddr("ff02::2")
	seg := wire.ICMP{Type: wire.ICMPv6RouterSolicitation}.Append(nil, clientLL, routers, nil)
	return wire.IPv6{HopLimit: 255, Protocol: wire.ProtoICMPv6, Src: clientLL, Dst: routers}.
		Append(wire.Ethernet{Dst: wire.MulticastMAC(routers), Src: mac, Type: wire.TypeIPv6}.Append(nil), seg)
}

// TestAdvertisement: managed, no addresses of one's own, the router's name and its lifetime, or none.
func TestAdvertisement(t *testing.T) {
	c := testClient()
	ask := func() (wire.Frame, string) {
		frame := solicitation(clientMAC)
		out, why := c.answer(frame, len(frame))
		if out == nil {
			return wire.Frame{}, why
		}
		f, err := wire.ParseFrame(out)
		if err != nil || !f.ChecksumOK(out) || f.IPv6.HopLimit != 255 || f.ICMP.Type != wire.ICMPv6RouterAdvertisement || f.IPv6.Dst != clientLL {
			t.Fatalf("no advertisement: %v %+v", err, f)
		}
		return f, why
	}
	f, _ := ask()
	if f.IPv6.Src.String() != "fe80::1" || f.ICMP.Rest != [4]byte{64, 0xc0, 0xff, 0xff} {
		t.Errorf("from %s: % x", f.IPv6.Src, f.ICMP.Rest)
	}
	c.dhcp.gateways = nil
	if f, _ = ask(); f.IPv6.Src != wire.ServiceLinkLocal || f.ICMP.Rest != [4]byte{64, 0xc0, 0, 0} {
		t.Errorf("without a router, from %s: % x", f.IPv6.Src, f.ICMP.Rest)
	}
	c.macs[0] = secondMAC
	if _, why := ask(); why == "" {
		t.Error("another's MAC is answered")
	}
}

// FuzzAnswer: whatever a workload sends, the agent stands, and an answer is a frame of the service's with right checksums to that workload.
func FuzzAnswer(f *testing.F) {
	t4, _ := dhcpv4.New(dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover), dhcpv4.WithHwAddr(clientMAC[:]), dhcpv4.WithRequestedOptions(dhcpv4.OptionClasslessStaticRoute))
	t6 := &dhcpv6.Message{MessageType: dhcpv6.MessageTypeSolicit}
	t6.AddOption(dhcpv6.OptClientID(&dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: clientMAC[:]}))
	t6.AddOption(&dhcpv6.OptIANA{})
	t6.AddOption(&dhcpv6.OptIAPD{})
	f.Add(uint8(4), t4.ToBytes())
	f.Add(uint8(4), t4.ToBytes()[:245])
	f.Add(uint8(6), t6.ToBytes())
	f.Add(uint8(0), wire.ARP{Op: wire.ARPRequest, SenderMAC: clientMAC, TargetIP: wire.DHCPServer4}.Frame())
	f.Add(uint8(4), append(t4.ToBytes()[:240], 53, 200, 1))
	ask, _ := dhcpv4.New(dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithHwAddr(clientMAC[:]), dhcpv4.WithClientIP(net.IPv4(10, 1, 0, 5)),
		dhcpv4.WithOption(dhcpv4.OptClientIdentifier([]byte{1, 2})), dhcpv4.WithOption(dhcpv4.OptMaxMessageSize(576)))
	f.Add(uint8(4), ask.ToBytes())
	renew := &dhcpv6.Message{MessageType: dhcpv6.MessageTypeRenew}
	renew.AddOption(dhcpv6.OptClientID(&dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: clientMAC[:]}))
	renew.AddOption(dhcpv6.OptServerID(serverDUID()))
	renew.AddOption(&dhcpv6.OptIANA{Options: dhcpv6.IdentityOptions{Options: dhcpv6.Options{address6(netip.MustParseAddr("fd00:1::6"), time.Minute)}}})
	renew.AddOption(&dhcpv6.OptIATA{})
	f.Add(uint8(6), renew.ToBytes())
	f.Add(uint8(0), solicitation(clientMAC))
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		if len(b) > 1400 {
			return
		}
		frame := b
		switch kind {
		case 4:
			frame = wire.Flow{SrcMAC: clientMAC, DstMAC: wire.BroadcastMAC, Src: netip.IPv4Unspecified(), Dst: everybody4}.UDP(68, 67, b)
		case 6:
			frame = wire.Flow{SrcMAC: clientMAC, DstMAC: wire.MAC{0x33, 0x33, 0, 1, 0, 2}, Src: clientLL, Dst: dhcpServers}.UDP(546, 547, b)
		}
		out, _ := testClient().answer(frame, len(frame))
		if out == nil {
			return
		}
		p, err := wire.ParseFrame(out)
		if err != nil || p.Ethernet.Src != wire.ServiceMAC || len(out) > 1450+wire.EthernetLen || !p.Has(wire.LayerARP) && !p.ChecksumOK(out) {
			t.Errorf("the answer % x: %v", out, err)
		}
	})
}
