package wire_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/weftnet/weft/wire"
)

var (
	macA, macB = wire.MAC{2, 0, 0, 0, 0, 1}, wire.MAC{2, 0, 0, 0, 0, 2}
	flow4      = wire.Flow{SrcMAC: macA, DstMAC: macB, Src: addr("10.1.0.2"), Dst: addr("10.1.0.3")}
	flow6      = wire.Flow{SrcMAC: macA, DstMAC: macB, Src: addr("fd00:1::2"), Dst: addr("fd00:1::3")}
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// octets reads hexadecimal digits with spaces anywhere.
func octets(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A frame as Linux's ping sends it, octet by octet.
const pingFromLinux = `
	02 00 00 00 00 02  02 00 00 00 00 01  08 00
	45 00 00 20  12 34 40 00  40 01 14 a3  0a 01 00 02  0a 01 00 03
	08 00 f3 f1  00 07 00 01  01 02 03 04`

func TestFrameOctetByOctet(t *testing.T) {
	b := octets(t, pingFromLinux)
	f, err := wire.ParseFrame(b)
	if err != nil {
		t.Fatal(err)
	}
	if !f.Has(wire.LayerIPv4 | wire.LayerICMP) {
		t.Fatalf("layers %b", f.Layers)
	}
	if f.Src != macA || f.Dst != macB || f.IPv4.Src != flow4.Src || f.IPv4.Dst != flow4.Dst || f.IPv4.ID != 0x1234 || !f.IPv4.DF {
		t.Errorf("headers %+v %+v", f.Ethernet, f.IPv4)
	}
	if e, ok := f.ICMP.Echo(false); !ok || e != (wire.Echo{ID: 7, Seq: 1}) {
		t.Errorf("echo %+v, %v", e, ok)
	}
	if !bytes.Equal(f.Payload, []byte{1, 2, 3, 4}) {
		t.Errorf("payload %x", f.Payload)
	}
	if !f.ChecksumOK(b) {
		t.Error("the checksums are right and are said to be wrong")
	}
	flow := flow4
	flow.ID, flow.DF = 0x1234, true
	if got := flow.Echo(wire.Echo{ID: 7, Seq: 1}, []byte{1, 2, 3, 4}); !bytes.Equal(got, b) {
		t.Errorf("built\n%x, want\n%x", got, b)
	}
}

func TestProbesParse(t *testing.T) {
	tagged := flow4
	tagged.VLANs = []wire.VLAN{{TPID: wire.TypeServiceVLAN, ID: 7}, {TPID: wire.TypeVLAN, ID: 4095, Priority: 5, DropEligible: true}}
	for _, c := range []struct {
		name   string
		frame  []byte
		layers wire.Layers
	}{
		{"ping", flow4.Echo(wire.Echo{ID: 1, Seq: 2}, []byte("odd")), wire.LayerIPv4 | wire.LayerICMP},
		{"ping6", flow6.Echo(wire.Echo{ID: 1, Seq: 2, Reply: true}, []byte("odd")), wire.LayerIPv6 | wire.LayerICMPv6},
		{"udp", flow4.UDP(1, 65535, []byte("payload")), wire.LayerIPv4 | wire.LayerUDP},
		{"udp6", flow6.UDP(1, 65535, nil), wire.LayerIPv6 | wire.LayerUDP},
		{"tcp", flow4.TCP(wire.TCP{Src: 1, Dst: 2, Seq: 3, Flags: wire.SYN, Options: []byte{2, 4, 5, 180}}, nil), wire.LayerIPv4 | wire.LayerTCP},
		{"tcp6", flow6.TCP(wire.TCP{Src: 1, Dst: 2, Ack: 3, Flags: wire.ACK}, []byte("x")), wire.LayerIPv6 | wire.LayerTCP},
		{"tagged", tagged.UDP(1, 2, nil), wire.LayerIPv4 | wire.LayerUDP},
		{"arp", wire.ARP{Op: wire.ARPRequest, SenderMAC: macA, SenderIP: flow4.Src, TargetIP: flow4.Dst}.Frame(), wire.LayerARP},
		{"solicitation", wire.Solicitation(macA, flow6.Src, flow6.Dst), wire.LayerIPv6 | wire.LayerICMPv6},
		{"vxlan", wire.Encapsulate(flow4, 50000, wire.VXLANPort, 5001, flow6.UDP(1, 2, nil)), wire.LayerIPv4 | wire.LayerUDP},
		{"vxlan6", wire.Encapsulate(flow6, 50000, wire.VXLANPort, 5001, flow4.UDP(1, 2, nil)), wire.LayerIPv6 | wire.LayerUDP},
	} {
		t.Run(c.name, func(t *testing.T) {
			padded := append(bytes.Clone(c.frame), make([]byte, 60)...)
			f, err := wire.ParseFrame(padded)
			if err != nil {
				t.Fatal(err)
			}
			if f.Layers != c.layers {
				t.Errorf("layers %b, want %b", f.Layers, c.layers)
			}
			if !f.ChecksumOK(padded) {
				t.Error("a built frame has a wrong checksum")
			}
			if f.Segment != nil {
				if tail := len(c.frame) - len(f.Segment); !bytes.Equal(f.Segment, c.frame[tail:]) {
					t.Error("padding is taken for payload")
				}
				// Every octet of the segment is covered: a flipped bit is seen, except where UDP says that there is no checksum.
				for i := len(c.frame) - len(f.Segment); i < len(c.frame) && !f.UDP.NoChecksum; i++ {
					broken := bytes.Clone(c.frame)
					broken[i] ^= 0x10
					if g, err := wire.ParseFrame(broken); err == nil && g.Layers == c.layers && g.ChecksumOK(broken) && !g.UDP.NoChecksum {
						t.Fatalf("a flipped bit in octet %d is not seen", i)
					}
				}
			}
			// Whatever is missing at the end, nothing panics, and no header is seen that is not whole.
			for n := range c.frame {
				if g, err := wire.ParseFrame(c.frame[:n]); err == nil {
					t.Errorf("the first %d of %d octets are taken for a frame: %+v", n, len(c.frame), g)
				} else if !errors.Is(err, wire.ErrTruncated) {
					t.Errorf("the first %d octets: %v", n, err)
				}
			}
		})
	}
}

func TestEthernetTags(t *testing.T) {
	h := wire.Ethernet{Dst: macB, Src: macA, Type: wire.TypeIPv4, VLANs: []wire.VLAN{
		{TPID: wire.TypeServiceVLAN, ID: 7, Priority: 3}, {TPID: wire.TypeVLAN, ID: 4095, DropEligible: true}}}
	b := h.Append(nil)
	if want := octets(t, "020000000002 020000000001 88a8 6007 8100 1fff 0800"); !bytes.Equal(b, want) {
		t.Fatalf("%x, want %x", b, want)
	}
	got, rest, err := wire.ParseEthernet(append(b, 9))
	if err != nil || !reflect.DeepEqual(got, h) || !bytes.Equal(rest, []byte{9}) {
		t.Errorf("%+v, %x, %v", got, rest, err)
	}
	// A third tag stays payload.
	h.VLANs = append(h.VLANs, wire.VLAN{ID: 1})
	if got, _, _ = wire.ParseEthernet(h.Append(nil)); len(got.VLANs) != 2 || got.Type != wire.TypeVLAN {
		t.Errorf("three tags: %+v", got)
	}
}

func TestMulticastMAC(t *testing.T) {
	for ip, want := range map[string]string{
		"224.0.0.1":           "01:00:5e:00:00:01",
		"239.255.1.2":         "01:00:5e:7f:01:02",
		"ff02::1":             "33:33:00:00:00:01",
		"ff02::1:ff12:3456":   "33:33:ff:12:34:56",
		"10.0.0.1":            "00:00:00:00:00:00",
		"fd00::1":             "00:00:00:00:00:00",
		"ff05::2:89ab:cdef:1": "33:33:cd:ef:00:01",
	} {
		if got := wire.MulticastMAC(addr(ip)).String(); got != want {
			t.Errorf("%s: %s, want %s", ip, got, want)
		}
	}
}

func TestARP(t *testing.T) {
	ask := wire.ARP{Op: wire.ARPRequest, SenderMAC: macA, SenderIP: flow4.Src, TargetIP: flow4.Dst}
	f, err := wire.ParseFrame(ask.Frame())
	if err != nil || f.ARP != ask || f.Dst != wire.BroadcastMAC {
		t.Errorf("%+v, %v", f, err)
	}
	answer := ask.Reply(macB)
	f, err = wire.ParseFrame(answer.Frame())
	if err != nil || f.ARP != answer || f.Dst != macA || f.Src != macB || f.ARP.SenderIP != flow4.Dst || f.ARP.TargetIP != flow4.Src {
		t.Errorf("%+v, %v", f, err)
	}
	if a := wire.Announcement(macA, flow4.Src); a.SenderIP != a.TargetIP || a.Op != wire.ARPRequest {
		t.Errorf("%+v", a)
	}
	other := ask.Append(nil)
	other[0] = 6 // IEEE 802 hardware, not Ethernet
	if _, err := wire.ParseARP(other); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("another hardware type: %v", err)
	}
}

func TestIPv4Malformed(t *testing.T) {
	good := wire.IPv4{Protocol: 200, Src: flow4.Src, Dst: flow4.Dst}.Append(nil, []byte("12345678"))
	for _, c := range []struct {
		name  string
		spoil func(b []byte) []byte
		want  error
	}{
		{"version", func(b []byte) []byte { b[0] = 0x65; return b }, wire.ErrMalformed},
		{"header length below 20", func(b []byte) []byte { b[0] = 0x44; return b }, wire.ErrMalformed},
		{"header length beyond the buffer", func(b []byte) []byte { b[0] = 0x4f; b[3] = 60; return b }, wire.ErrTruncated},
		{"total length below the header", func(b []byte) []byte { b[3] = 19; return b }, wire.ErrMalformed},
		{"total length 0", func(b []byte) []byte { b[3] = 0; return b }, wire.ErrMalformed},
		{"total length beyond the buffer", func(b []byte) []byte { b[3]++; return b }, wire.ErrTruncated},
		{"empty", func(b []byte) []byte { return nil }, wire.ErrTruncated},
	} {
		if _, _, err := wire.ParseIPv4(c.spoil(bytes.Clone(good))); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if _, _, err := wire.ParseIPv4(good); err != nil {
		t.Error(err)
	}
}

func TestIPv4Fields(t *testing.T) {
	h := wire.IPv4{TOS: 0xb9, ID: 77, MF: true, FragmentOffset: 1480, TTL: 3, Protocol: wire.ProtoUDP,
		Src: flow4.Src, Dst: flow4.Dst, Options: []byte{7, 3, 4, 0}}
	got, rest, err := wire.ParseIPv4(h.Append(nil, []byte("abc")))
	if err != nil {
		t.Fatal(err)
	}
	h.TotalLen, h.Checksum = 27, got.Checksum
	if !reflect.DeepEqual(got, h) || string(rest) != "abc" || !got.IsFragment() {
		t.Errorf("%+v %q, want %+v", got, rest, h)
	}
	if (wire.IPv4{DF: true}).IsFragment() || !(wire.IPv4{FragmentOffset: 8}).IsFragment() {
		t.Error("fragments are not told")
	}
}

// A later fragment has no transport header, the first one has, and its UDP length is that of the whole.
func TestFragments(t *testing.T) {
	eth := wire.Ethernet{Dst: macB, Src: macA, Type: wire.TypeIPv4}.Append(nil)
	whole := wire.UDP{Src: 5, Dst: 6}.Append(nil, flow4.Src, flow4.Dst, make([]byte, 100))
	first := wire.IPv4{MF: true, Protocol: wire.ProtoUDP, Src: flow4.Src, Dst: flow4.Dst}.Append(bytes.Clone(eth), whole[:48])
	later := wire.IPv4{FragmentOffset: 48, Protocol: wire.ProtoUDP, Src: flow4.Src, Dst: flow4.Dst}.Append(bytes.Clone(eth), whole[48:])
	f, err := wire.ParseFrame(first)
	if err != nil || !f.Has(wire.LayerUDP) || f.UDP.Dst != 6 || len(f.Payload) != 40 || !f.ChecksumOK(first) {
		t.Errorf("first: %+v, %v", f, err)
	}
	f, err = wire.ParseFrame(later)
	if err != nil || f.Layers != wire.LayerIPv4 || len(f.Payload) != 60 || !f.ChecksumOK(later) {
		t.Errorf("later: %+v, %v", f, err)
	}

	eth = wire.Ethernet{Dst: macB, Src: macA, Type: wire.TypeIPv6}.Append(nil)
	h := wire.IPv6{Protocol: wire.ProtoTCP, Src: flow6.Src, Dst: flow6.Dst, Fragment: &wire.Fragment{Offset: 48, ID: 9}}
	f, err = wire.ParseFrame(h.Append(bytes.Clone(eth), []byte("not a TCP header")))
	if err != nil || f.Layers != wire.LayerIPv6 || !f.IPv6.IsFragment() || f.IPv6.Fragment.ID != 9 || f.IPv6.Protocol != wire.ProtoTCP {
		t.Errorf("later of IPv6: %+v, %v", f, err)
	}
	// An atomic fragment is whole (RFC 6946).
	h.Fragment = &wire.Fragment{}
	segment := wire.TCP{Src: 1, Dst: 2}.Append(nil, flow6.Src, flow6.Dst, nil)
	f, err = wire.ParseFrame(h.Append(bytes.Clone(eth), segment))
	if err != nil || !f.Has(wire.LayerTCP) || f.IPv6.IsFragment() {
		t.Errorf("atomic: %+v, %v", f, err)
	}
}

func TestIPv6Extensions(t *testing.T) {
	udp := wire.UDP{Src: 1, Dst: 2}.Append(nil, flow6.Src, flow6.Dst, nil)
	build := func(next wire.Protocol, extensions string) []byte {
		return wire.IPv6{Protocol: next, Src: flow6.Src, Dst: flow6.Dst}.Append(nil, append(octets(t, extensions), udp...))
	}
	for _, c := range []struct {
		name string
		b    []byte
		want []wire.Protocol
		last wire.Protocol
		err  error
	}{
		{"none", build(17, ""), nil, 17, nil},
		{"hop by hop, destination of 16, routing", build(0, "3c00 000000000000  2b01 0000000000000000000000000000  1100 000000000000"),
			[]wire.Protocol{0, 60, 43}, 17, nil},
		{"authentication of 24", build(51, "1104 00000000000000000000000000000000000000000000"), []wire.Protocol{51}, 17, nil},
		{"ESP ends it", build(50, "0000"), nil, 50, nil},
		{"no next header", build(59, ""), nil, 59, nil},
		{"length beyond the buffer", build(0, "11ff 000000000000"), nil, 0, wire.ErrTruncated},
		{"nine of them", build(60, strings.Repeat("3c00000000000000", 9)), nil, 0, wire.ErrMalformed},
	} {
		h, _, err := wire.ParseIPv6(c.b)
		if !errors.Is(err, c.err) || !reflect.DeepEqual(h.Extensions, c.want) || h.Protocol != c.last {
			t.Errorf("%s: %v then %d, %v", c.name, h.Extensions, h.Protocol, err)
		}
	}
}

func TestUDPChecksumRules(t *testing.T) {
	// A payload chosen so that the sum comes out as zero is sent as 0xffff.
	src, dst := addr("0.0.0.1"), addr("0.0.0.2")
	payload := []byte{0, 0}
	sum := wire.TransportChecksum(src, dst, wire.ProtoUDP, append([]byte{0, 0, 0, 0, 0, 10, 0, 0}, payload...))
	payload = []byte{byte(sum >> 8), byte(sum)}
	b := wire.UDP{}.Append(nil, src, dst, payload)
	if b[6] != 0xff || b[7] != 0xff {
		t.Errorf("a sum of zero is sent as %x%x", b[6], b[7])
	}
	if !wire.UDPChecksumOK(src, dst, b) {
		t.Error("0xffff is refused")
	}
	b[6], b[7] = 0, 0
	if !wire.UDPChecksumOK(src, dst, b) {
		t.Error("no checksum is refused")
	}
	b[7] = 1
	if wire.UDPChecksumOK(src, dst, b) {
		t.Error("a wrong checksum passes")
	}
	if b = (wire.UDP{NoChecksum: true}).Append(nil, src, dst, []byte("x")); b[6]|b[7] != 0 {
		t.Error("NoChecksum writes one")
	}
	for _, b := range [][]byte{nil, make([]byte, 8), {0, 0, 0, 0, 0, 9, 0, 0}} {
		if wire.UDPChecksumOK(src, dst, b) {
			t.Errorf("%x passes", b)
		}
	}
}

func TestUDPLength(t *testing.T) {
	for length, want := range map[byte]error{7: wire.ErrMalformed, 0: wire.ErrMalformed, 8: nil, 10: nil, 11: wire.ErrTruncated} {
		_, rest, err := wire.ParseUDP([]byte{0, 1, 0, 2, 0, length, 0, 0, 'a', 'b'})
		if !errors.Is(err, want) || err == nil && len(rest) != int(length)-8 {
			t.Errorf("length %d: %v, %v", length, rest, err)
		}
	}
}

func TestTCPOptions(t *testing.T) {
	b := wire.TCP{Flags: wire.SYN | wire.ACK, Options: []byte{2, 4, 5}}.Append(nil, flow4.Src, flow4.Dst, []byte("x"))
	h, rest, err := wire.ParseTCP(b)
	if err != nil || !bytes.Equal(h.Options, []byte{2, 4, 5, 0}) || string(rest) != "x" || h.Flags.String() != "SYN,ACK" {
		t.Errorf("%+v, %q, %v", h, rest, err)
	}
	b[12] = 4 << 4
	if _, _, err = wire.ParseTCP(b); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("header length 16: %v", err)
	}
	b[12] = 15 << 4
	if _, _, err = wire.ParseTCP(b); !errors.Is(err, wire.ErrTruncated) {
		t.Errorf("header length 60: %v", err)
	}
}

func TestNeighbour(t *testing.T) {
	f, err := wire.ParseFrame(wire.Solicitation(macA, flow6.Src, addr("fd00:1::12:3456")))
	if err != nil {
		t.Fatal(err)
	}
	n, err := wire.ParseNeighbour(f.ICMP, f.Payload)
	if err != nil || n != (wire.Neighbour{Target: addr("fd00:1::12:3456"), MAC: macA}) {
		t.Errorf("%+v, %v", n, err)
	}
	if f.Dst.String() != "33:33:ff:12:34:56" || f.IPv6.Dst != addr("ff02::1:ff12:3456") || f.IPv6.HopLimit != 255 {
		t.Errorf("%+v %+v", f.Ethernet, f.IPv6)
	}
	answer := wire.Neighbour{Advertisement: true, Solicited: true, Override: true, Target: flow6.Src, MAC: macA}
	f, err = wire.ParseFrame(answer.Frame(flow6))
	if err != nil {
		t.Fatal(err)
	}
	if n, err = wire.ParseNeighbour(f.ICMP, f.Payload); err != nil || n != answer {
		t.Errorf("%+v, %v", n, err)
	}
	target := flow6.Src.AsSlice()
	for _, c := range []struct {
		name    string
		icmp    wire.ICMP
		options string
		want    error
		mac     wire.MAC
	}{
		{"no option", wire.ICMP{Type: 135}, "", nil, wire.MAC{}},
		{"other options first", wire.ICMP{Type: 135}, "0e01 010203040506  0101 020000000001", nil, macA},
		{"the other side's option", wire.ICMP{Type: 135}, "0201 020000000001", nil, wire.MAC{}},
		{"an option of length 0", wire.ICMP{Type: 135}, "0100 020000000001", wire.ErrMalformed, wire.MAC{}},
		{"an option beyond the buffer", wire.ICMP{Type: 135}, "0102 020000000001", wire.ErrTruncated, wire.MAC{}},
		{"half an option", wire.ICMP{Type: 135}, "01", wire.ErrTruncated, wire.MAC{}},
		{"a code", wire.ICMP{Type: 135, Code: 1}, "", wire.ErrMalformed, wire.MAC{}},
		{"another type", wire.ICMP{Type: 128}, "", wire.ErrMalformed, wire.MAC{}},
	} {
		n, err := wire.ParseNeighbour(c.icmp, append(bytes.Clone(target), octets(t, c.options)...))
		if !errors.Is(err, c.want) || n.MAC != c.mac {
			t.Errorf("%s: %+v, %v", c.name, n, err)
		}
	}
	if _, err := wire.ParseNeighbour(wire.ICMP{Type: 136}, addr("ff02::1").AsSlice()); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("a multicast target: %v", err)
	}
}

// RFC 7348, section 5: the I flag is set and everything reserved is zero on transmit; the reserved bits are ignored on
// receipt.
func TestVXLAN(t *testing.T) {
	if b := (wire.VXLAN{Valid: true, VNI: 0xabcdef}).Append(nil); !bytes.Equal(b, octets(t, "08000000 abcdef00")) {
		t.Errorf("%x", b)
	}
	for s, want := range map[string]wire.VXLAN{
		"08000000 abcdef00": {Valid: true, VNI: 0xabcdef},
		"00000000 00000100": {VNI: 1},
		"ff000000 00000100": {Valid: true, VNI: 1, Reserved: true},
		"08000001 00000100": {Valid: true, VNI: 1, Reserved: true},
		"08000000 00000101": {Valid: true, VNI: 1, Reserved: true},
	} {
		if h, rest, err := wire.ParseVXLAN(octets(t, s+"ff")); err != nil || h != want || len(rest) != 1 {
			t.Errorf("%s: %+v, %v", s, h, err)
		}
	}
	inner := flow6.UDP(1, 2, []byte("inner"))
	outer := wire.Encapsulate(flow4, 50000, wire.VXLANPort, 77, inner)
	if ip := len(inner) - wire.EthernetLen; len(outer)-wire.EthernetLen != ip+wire.Overhead4 {
		t.Errorf("%d octets of IP become %d, which is not %d more", ip, len(outer)-wire.EthernetLen, wire.Overhead4)
	}
	f, err := wire.ParseFrame(outer)
	if err != nil || !f.IPv4.DF || f.UDP.Checksum != 0 || f.UDP.Dst != 4789 {
		t.Fatalf("%+v, %v", f, err)
	}
	h, got, err := wire.ParseVXLAN(f.Payload)
	if err != nil || h.VNI != 77 || !bytes.Equal(got, inner) {
		t.Errorf("%+v, %x, %v", h, got, err)
	}
	outer = wire.Encapsulate(flow6, 50000, wire.VXLANPort, 77, inner)
	if ip := len(inner) - wire.EthernetLen; len(outer)-wire.EthernetLen != ip+wire.Overhead6 {
		t.Error("the overhead over IPv6 is another one")
	}
}

func TestChecksumExamples(t *testing.T) {
	// RFC 1071, section 3.
	if got := wire.Checksum(octets(t, "0001 f203 f4f5 f6f7")); got != ^uint16(0xddf2) {
		t.Errorf("%04x", got)
	}
	// Against the definition, for every length and alignment of the carry.
	b := bytes.Repeat([]byte{0xff, 0xfe, 0xff, 0xff, 0x80}, 40)
	for n := range b {
		s := uint32(0)
		for i, o := range b[:n] {
			if i%2 == 0 {
				s += uint32(o) << 8
			} else {
				s += uint32(o)
			}
		}
		for s>>16 != 0 {
			s = s>>16 + s&0xffff
		}
		if got := wire.Checksum(b[:n]); got != ^uint16(s) {
			t.Fatalf("%d octets: %04x, want %04x", n, got, ^uint16(s))
		}
	}
}
