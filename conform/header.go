package conform

import "fmt"

// headerCases are of the VXLAN header's bits, each singly.
func headerCases() []Case {
	f := frame(mac1, macA, 100)
	var list []Case
	for bit := 7; bit >= 0; bit-- {
		if bit == 3 {
			continue
		}
		list = append(list, simple("9", fmt.Sprintf("flag bit %d set on receipt: ignored", 7-bit), func(b *bed) trial {
			return arrives(b.in(f, func(p *tunnel) { p.flags |= 1 << bit }), f)
		}))
	}
	for bit := range 32 {
		list = append(list, simple("10", fmt.Sprintf("reserved bit %d set on receipt: ignored", bit), func(b *bed) trial {
			return arrives(b.in(f, func(p *tunnel) { p.reserved[bit/8] |= 0x80 >> (bit % 8) }), f)
		}))
	}
	all := func(p *tunnel) { p.flags, p.reserved = 0xff, [4]byte{0xff, 0xff, 0xff, 0xff} }
	return append(list,
		simple("9", "I flag not set: dropped", func(b *bed) trial { return refused(b.in(f, func(p *tunnel) { p.flags = 0 }), "no_vni_flag") }),
		simple("9", "I flag alone not set: dropped", func(b *bed) trial { return refused(b.in(f, func(p *tunnel) { p.flags = 0xf7 }), "no_vni_flag") }),
		simple("10", "every other bit set on receipt, checksum zero: ignored", func(b *bed) trial {
			return arrives(b.in(f, all, func(p *tunnel) { p.checksum = false }), f)
		}),
		simple("10", "every other bit set on receipt, checksum right: ignored", func(b *bed) trial {
			t := arrives(b.in(f, all, func(p *tunnel) { p.checksum = true }), f)
			t.only = "checksum"
			return t.passIn("xdp_checksum")
		}))
}
