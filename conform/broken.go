package conform

import (
	"encoding/binary"
	"fmt"

	"github.com/weftnet/weft/wire"
)

// brokenCases are of packets whose lengths and headers are wrong.
func brokenCases() []Case {
	f := frame(mac1, macA, 60)
	put := func(at int, v uint16) func(*bed) []byte {
		return func(b *bed) []byte {
			p := b.in(f)
			binary.BigEndian.PutUint16(p[at:], v)
			return p
		}
	}
	list := []Case{
		{Rule: "lengths", Name: "cut at every octet, lengths as they were: nothing arrives", do: cut},
		{Rule: "lengths", Name: "cut at every octet, lengths made right: what is left arrives", do: cutRight},
		{Rule: "lengths", Name: "too long by every number of octets to 64: the rest is padding", do: func(b *bed) error {
			t := trial{at: map[string][][]byte{}}
			for n := 1; n <= 64; n++ {
				t.fromPeer, t.at["w1"] = append(t.fromPeer, append(b.in(f), make([]byte, n)...)), append(t.at["w1"], f)
				t.lanedIn++
			}
			return b.try(t)
		}},
		simple("header", "outer IP length past the buffer", func(b *bed) trial {
			at, n := lengthAt(b)
			p := put(at, n+1)(b)
			if b.row.Underlay == IPv4 {
				p = fixIPv4(p)
			}
			return refused(p, "bad_ip_header")
		}),
		simple("header", "outer IP version", func(b *bed) trial {
			p := b.in(f)
			p[14] ^= 0x30
			if b.row.Underlay == IPv4 {
				p = fixIPv4(p)
			}
			return refused(p, "bad_ip_header")
		}),
		{Rule: "header", Name: "outer IPv4 header checksum wrong", Underlays: []Underlay{IPv4}, do: func(b *bed) error {
			p := b.in(f)
			p[24] ^= 1
			return b.try(refused(p, "bad_ip_header"))
		}},
		{Rule: "header", Name: "outer IPv4 options, of 4 to 40 octets: delivered by the kernel lane", Underlays: []Underlay{IPv4}, do: options},
		{Rule: "header", Name: "an outer IPv6 extension header: the kernel lane is shut to it", Underlays: []Underlay{IPv6}, do: extension},
	}
	for _, d := range []int{-1, 1, -8, 8, -76, 1000} {
		list = append(list, simple("lengths", fmt.Sprintf("UDP length wrong by %d", d), func(b *bed) trial {
			p := b.in(f)
			u := udpAt(p)
			binary.BigEndian.PutUint16(p[u+4:], uint16(int(binary.BigEndian.Uint16(p[u+4:]))+d))
			return refused(p, "bad_udp_length")
		}))
	}
	return append(list, simple("lengths", "UDP length 0", func(b *bed) trial {
		p := b.in(f)
		return refused(put(udpAt(p)+4, 0)(b), "bad_udp_length")
	}))
}

// lengthAt is where the outer IP header's length stands, and what it is for the packet of brokenCases.
func lengthAt(b *bed) (at int, n uint16) {
	p := b.in(frame(mac1, macA, 60))
	if b.row.Underlay == IPv6 {
		return 18, binary.BigEndian.Uint16(p[18:])
	}
	return 16, binary.BigEndian.Uint16(p[16:])
}

// cut: a card that lost the end of a packet. Where the UDP header is gone the packet is not even weft's.
func cut(b *bed) error {
	whole := b.in(frame(mac1, macA, 60))
	var trials []trial
	for n := wire.EthernetLen; n < len(whole); n++ {
		t := ignored(whole[:n])
		if n >= udpAt(whole)+wire.UDPLen {
			t = refused(whole[:n], "bad_ip_header")
		}
		trials = append(trials, t)
	}
	return b.tryAll(trials, func(i int) string { return fmt.Sprintf("cut to %d octets", wire.EthernetLen+i) })
}

// cutRight: a packet that is short in earnest.
func cutRight(b *bed) error {
	for _, kind := range []uint16{0x0800, 0x88b5} { // IPv4, and something that the kernel does not know
		inner := frame(mac1, macA, 60)
		binary.BigEndian.PutUint16(inner[12:], kind)
		begin := 0
		for begin < len(inner) { // trials of one kind after the other
			var trials []trial
			for n := begin; n < len(inner); n++ {
				t := b.shortened(inner[:n])
				if n > begin && t.only != trials[0].only {
					break
				}
				trials = append(trials, t)
			}
			if err := b.tryAll(trials, func(i int) string { return fmt.Sprintf("an inner frame of %d octets", begin+i) }); err != nil {
				return err
			}
			begin += len(trials)
		}
	}
	return nil
}

// shortened: a frame that says it is IP has a whole IP header, in every lane. Of others the tc lane strips what is as long as one, and
// the kernel's device the rest.
func (b *bed) shortened(inner []byte) trial {
	t := arrives(b.in(inner), inner)
	switch {
	case len(inner) < wire.EthernetLen || len(inner) < wire.EthernetLen+wire.IPv4Len && inner[12] == 0x08:
		t = refused(b.in(inner), "truncated")
	case len(inner) < wire.EthernetLen+wire.IPv4Len && b.row.Lane != XDP:
		t.only = "no_room"
	}
	return t
}

func options(b *bed) error {
	f := frame(mac1, macA, 60)
	var trials []trial
	for n := 4; n <= 40; n += 4 {
		t := arrives(b.in(f, func(p *tunnel) {
			p.options = make([]byte, n)
			for i := range p.options {
				p.options[i] = 1 // no operation
			}
		}), f)
		if !b.byKernel() {
			t.only = "options"
		}
		trials = append(trials, t.passIn("xdp_options"))
	}
	return b.tryAll(trials, func(i int) string { return fmt.Sprintf("%d octets", 4+4*i) })
}

// extension: the programs do not look behind extension headers. The kernel does, and hands the packet to its device: without the
// mark, which from_vxlan refuses.
func extension(b *bed) error {
	f := frame(mac1, macA, 60)
	return b.try(b.shut(b.in(f, func(p *tunnel) { p.extension = true })))
}
