package wire_test

import (
	"errors"
	"testing"
	"time"

	"github.com/weftnet/weft/wire"
)

func TestSequence(t *testing.T) {
	s := wire.Sequence{Stream: 7, Number: 1<<40 + 5, Sent: time.Unix(1700000000, 123)}
	b := s.Append(nil)
	if len(b) != wire.SequenceLen {
		t.Errorf("%d octets, want %d", len(b), wire.SequenceLen)
	}
	got, err := wire.ParseSequence(append(b, make([]byte, 10)...))
	if err != nil || got.Stream != s.Stream || got.Number != s.Number || !got.Sent.Equal(s.Sent) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err = wire.ParseSequence(b[:23]); !errors.Is(err, wire.ErrTruncated) {
		t.Errorf("one octet missing: %v", err)
	}
	b[0]++
	if _, err = wire.ParseSequence(b); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("another magic: %v", err)
	}
	if got, err = wire.ParseSequence((wire.Sequence{Number: 1}).Append(nil)); err != nil || !got.Sent.IsZero() {
		t.Errorf("without a time: %+v, %v", got, err)
	}
}

func TestFlowBack(t *testing.T) {
	b := flow4.Back()
	if b.SrcMAC != macB || b.DstMAC != macA || b.Src != flow4.Dst || b.Dst != flow4.Src {
		t.Errorf("%+v", b)
	}
}

func TestMAC(t *testing.T) {
	for s, ok := range map[string]bool{
		"02:00:5e:10:00:01": true, "FF:ff:FF:ff:FF:ff": true, "": false, "02-00-5e-10-00-01": false, "02:00:5e:10:00:1": false,
		"02:00:5e:10:00:0g": false, "2:00:5e:10:00:001": false, "02:00:5e:10:00:01:02": false, "0200.5e10.0001": false,
	} {
		if _, err := wire.ParseMAC(s); (err == nil) != ok {
			t.Errorf("%q: %v", s, err)
		}
	}
	for s, want := range map[string][4]bool{ // multicast, broadcast, reserved, local
		"ff:ff:ff:ff:ff:ff": {true, true, false, true},
		"01:00:5e:00:00:01": {true, false, false, false},
		"02:6f:77:00:00:01": {false, false, true, true},
		"00:00:5e:00:01:01": {false, false, false, false},
	} {
		var m wire.MAC
		if err := m.UnmarshalText([]byte(s)); err != nil {
			t.Fatal(err)
		}
		if got := [4]bool{m.IsMulticast(), m.IsBroadcast(), m.IsReserved(), m.IsLocal()}; got != want {
			t.Errorf("%s: %v, want %v", s, got, want)
		}
		if text, _ := m.MarshalText(); string(text) != s {
			t.Errorf("%s is written as %s", s, text)
		}
	}
}

func TestVNI(t *testing.T) {
	for v, ok := range map[wire.VNI]bool{0: false, 1: true, wire.MaxVNI: true, wire.MaxVNI + 1: false} {
		if (v.Validate() == nil) != ok {
			t.Errorf("VNI %d: %v", v, v.Validate())
		}
	}
}

func TestNumbersHaveNames(t *testing.T) {
	for want, of := range map[string]interface{ String() string }{
		"IPv4": wire.TypeIPv4, "ARP": wire.TypeARP, "802.1Q": wire.TypeVLAN, "IPv6": wire.TypeIPv6, "802.1ad": wire.TypeServiceVLAN, "0x88cc": wire.EtherType(0x88cc),
		"ICMP": wire.ProtoICMP, "TCP": wire.ProtoTCP, "UDP": wire.ProtoUDP, "ICMPv6": wire.ProtoICMPv6, "132": wire.Protocol(132),
		"": wire.TCPFlags(0), "FIN,PSH,CWR": wire.FIN | wire.PSH | wire.CWR,
	} {
		if of.String() != want {
			t.Errorf("%s, want %s", of, want)
		}
	}
}

// What does not fit a 16-bit length is the caller's mistake.
func TestTooLongPanics(t *testing.T) {
	long := make([]byte, 65536)
	for name, build := range map[string]func(){
		"ipv4": func() { wire.IPv4{Src: flow4.Src, Dst: flow4.Dst}.Append(nil, long[:65516]) },
		"ipv6": func() { wire.IPv6{Src: flow6.Src, Dst: flow6.Dst}.Append(nil, long) },
		"udp":  func() { wire.UDP{}.Append(nil, flow4.Src, flow4.Dst, long[:65528]) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: a packet that is too long is built", name)
				}
			}()
			build()
		}()
	}
	if b := flow4.UDP(1, 2, long[:65507]); len(b) != wire.EthernetLen+65535 {
		t.Errorf("the longest datagram has %d octets", len(b))
	}
}
