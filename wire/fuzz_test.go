package wire_test

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/weftnet/weft/wire"
)

// Each parser takes whatever comes without a panic and gives nothing that is not in the buffer; what it accepts can be
// written again, and reads the same. Kept inputs are in testdata/fuzz.

// within fails if part is not a part of whole.
func within(t *testing.T, whole, part []byte) {
	t.Helper()
	if len(part) > len(whole) || len(part) > 0 && !bytes.Contains(whole, part) {
		t.Fatalf("a payload of %d octets from a buffer of %d", len(part), len(whole))
	}
}

// equal fails if what was read the second time is not what was read the first time.
func equal(t *testing.T, err error, pairs ...any) {
	t.Helper()
	if err != nil {
		t.Fatalf("what was written cannot be read: %v", err)
	}
	for i := 0; i < len(pairs); i += 2 {
		if !reflect.DeepEqual(pairs[i], pairs[i+1]) {
			t.Fatalf("read again: %+v, first %+v", pairs[i+1], pairs[i])
		}
	}
}

func FuzzParseEthernet(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		h, rest, err := wire.ParseEthernet(b)
		within(t, b, rest)
		if err != nil {
			return
		}
		if again := append(h.Append(nil), rest...); !bytes.Equal(again, b) {
			t.Fatalf("%x is written as %x", b, again)
		}
	})
}

func FuzzParseARP(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := wire.ParseARP(b); err == nil && !bytes.Equal(a.Append(nil), b[:wire.ARPLen]) {
			t.Fatalf("%x is written as %x", b, a.Append(nil))
		}
	})
}

func FuzzParseIPv4(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		h, rest, err := wire.ParseIPv4(b)
		within(t, b, rest)
		ok := wire.IPv4ChecksumOK(b)
		if err != nil || h.TTL == 0 {
			return
		}
		again := h.Append(nil, rest)
		if !wire.IPv4ChecksumOK(again) {
			t.Fatal("a written header has a wrong checksum")
		}
		g, rest2, err := wire.ParseIPv4(again)
		if !ok || b[6]&0x80 != 0 || h.Checksum == 0xffff {
			g.Checksum = h.Checksum // it was wrong, covers the reserved bit, or is the other zero
		}
		equal(t, err, h, g, len(rest), len(rest2))
	})
}

func FuzzParseIPv6(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		h, rest, err := wire.ParseIPv6(b)
		within(t, b, rest)
		if err != nil || h.HopLimit == 0 || len(h.Extensions) > 1 || len(h.Extensions) == 1 && h.Fragment == nil {
			return // Append writes no other extension headers
		}
		g, rest2, err := wire.ParseIPv6(h.Append(nil, rest))
		equal(t, err, h, g, rest, rest2)
	})
}

func FuzzParseUDP(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		h, rest, err := wire.ParseUDP(b)
		within(t, b, rest)
		ok := wire.UDPChecksumOK(flow6.Src, flow6.Dst, b)
		if err != nil {
			if ok {
				t.Fatal("a segment that cannot be read has a right checksum")
			}
			return
		}
		again := h.Append(nil, flow6.Src, flow6.Dst, rest)
		if !wire.UDPChecksumOK(flow6.Src, flow6.Dst, again) {
			t.Fatal("a written checksum is wrong")
		}
		g, rest2, err := wire.ParseUDP(again)
		if !ok {
			g.Checksum = h.Checksum
		}
		equal(t, err, h, g, rest, rest2)
	})
}

func FuzzParseTCP(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		h, rest, err := wire.ParseTCP(b)
		within(t, b, rest)
		if err != nil {
			return
		}
		again := h.Append(nil, flow4.Src, flow4.Dst, rest)
		if !wire.TCPChecksumOK(flow4.Src, flow4.Dst, again) {
			t.Fatal("a written checksum is wrong")
		}
		g, rest2, err := wire.ParseTCP(again)
		g.Checksum = h.Checksum
		equal(t, err, h, g, rest, rest2)
	})
}

func FuzzParseICMP(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		h, rest, err := wire.ParseICMP(b)
		within(t, b, rest)
		if err != nil {
			return
		}
		for _, flow := range []wire.Flow{flow4, flow6} {
			again := h.Append(nil, flow.Src, flow.Dst, rest)
			if !wire.ICMPChecksumOK(flow.Src, flow.Dst, again) {
				t.Fatal("a written checksum is wrong")
			}
			g, rest2, err := wire.ParseICMP(again)
			g.Checksum = h.Checksum
			equal(t, err, h, g, rest, rest2)
		}
		for _, v6 := range []bool{false, true} {
			if e, ok := h.Echo(v6); ok {
				if g := e.ICMP(v6); g.Type != h.Type || g.Rest != h.Rest {
					t.Fatalf("%+v is written as %+v", h, g)
				}
			}
		}
	})
}

func FuzzParseNeighbour(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		h, body, err := wire.ParseICMP(b)
		if err != nil {
			return
		}
		n, err := wire.ParseNeighbour(h, body)
		if err != nil {
			return
		}
		m, err := wire.ParseNeighbour(n.Message())
		equal(t, err, n, m)
	})
}

func FuzzParseVXLAN(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		h, rest, err := wire.ParseVXLAN(b)
		within(t, b, rest)
		if err != nil {
			return
		}
		if h.VNI > wire.MaxVNI {
			t.Fatalf("VNI %d", h.VNI)
		}
		again := h.Append(nil)
		if !h.Reserved && !bytes.Equal(again, b[:wire.VXLANLen]) {
			t.Fatalf("%x is written as %x", b[:wire.VXLANLen], again)
		}
		h.Reserved = false
		g, _, err := wire.ParseVXLAN(again)
		equal(t, err, h, g)
	})
}

func FuzzParseFrame(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := wire.ParseFrame(b)
		within(t, b, h.Payload)
		within(t, b, h.Segment)
		h.ChecksumOK(b)
		if err != nil {
			return
		}
		if n, err := wire.ParseNeighbour(h.ICMP, h.Payload); err == nil && n.Target.Is4() {
			t.Fatal("a neighbour of IPv4")
		}
		// Padding changes nothing for a packet that knows its length.
		if h.Has(wire.LayerIPv4) || h.Has(wire.LayerIPv6) {
			g, err := wire.ParseFrame(append(bytes.Clone(b), 1, 2, 3))
			equal(t, err, h, g)
		}
	})
}

func FuzzParseSequence(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := wire.ParseSequence(b)
		if err != nil {
			return
		}
		if again := s.Append(nil); !bytes.Equal(again, b[:wire.SequenceLen]) {
			t.Fatalf("%x is written as %x", b[:wire.SequenceLen], again)
		}
	})
}

func FuzzParseMAC(f *testing.F) {
	f.Fuzz(func(t *testing.T, s string) {
		m, err := wire.ParseMAC(s)
		if err != nil {
			return
		}
		again, err := wire.ParseMAC(m.String())
		equal(t, err, m, again)
	})
}
