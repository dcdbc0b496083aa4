package conform

import "fmt"

// vlanCases: no network configures inner tags, no host an outer one.
func vlanCases() []Case {
	kinds := []struct {
		name string
		tags []uint16
	}{{"802.1Q", []uint16{0x8100}}, {"802.1ad", []uint16{0x88a8}}, {"802.1Q in 802.1Q", []uint16{0x8100, 0x8100}}, {"802.1Q in 802.1ad", []uint16{0x88a8, 0x8100}}}
	var list []Case
	for _, k := range kinds {
		list = append(list,
			simple("22", "inner tag on receipt, "+k.name, func(b *bed) trial {
				return refused(b.in(tag(frame(mac1, macA, 60), k.tags...)), "inner_vlan")
			}),
			// The kernel moves the first tag to the packet's metadata; a second one stays in the frame.
			simple("23", "inner tag on transmit, to a VTEP, "+k.name, func(b *bed) trial { return held(tag(frame(macA, mac1, 60), k.tags...), "inner_vlan") }),
			simple("23", "inner tag on transmit, to a port here, "+k.name, func(b *bed) trial { return held(tag(frame(mac2, mac1, 60), k.tags...), "inner_vlan") }),
			simple("18", "a tagged underlay frame, "+k.name, func(b *bed) trial {
				p := tag(b.in(frame(mac1, macA, 60)), k.tags...)
				if len(k.tags) > 1 {
					return ignored(p) // behind two tags it is not IP to anybody here
				}
				t := refused(p, "outer_vlan")
				t.foreign = 1 // to the XDP lane it is not IP
				return t
			}))
	}
	for _, kind := range []uint16{0x9100} {
		list = append(list, simple("23", fmt.Sprintf("inner tag that the kernel leaves in the frame (%#x)", kind), func(b *bed) trial {
			return held(tag(frame(macA, mac1, 60), kind), "inner_vlan")
		}))
	}
	return append(list, simple("22", "an inner priority tag (VLAN 0)", func(b *bed) trial {
		f := tag(frame(mac1, macA, 60), 0x8100)
		f[14], f[15] = 0xe0, 0
		return refused(b.in(f), "inner_vlan")
	}))
}

// tag puts VLAN tags into a frame, ids from 100.
func tag(f []byte, kinds ...uint16) []byte {
	out := append([]byte{}, f[:12]...)
	for i, k := range kinds {
		out = append(out, byte(k>>8), byte(k), 0, byte(100+i))
	}
	return append(out, f[12:]...)
}
