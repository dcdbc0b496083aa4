package conform

import (
	"errors"
	"fmt"

	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/wire"
)

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
			simple("23", "inner tag on transmit, by a virtual machine, "+k.name, func(b *bed) trial {
				return trial{fromT1: [][]byte{tag(frame(macA, mac3, 60), k.tags...)}, drops: map[string]uint64{"inner_vlan": 1}}
			}),
			Case{Rule: "23", Name: "inner tag on transmit, beside the frame, as a container's VLAN device leaves it, " + k.name, do: func(b *bed) error {
				return b.bridged(tag(frame(macA, mac1, 60), k.tags...))
			}},
			simple("20", "a tag that names another network's VNI, on receipt, "+k.name, func(b *bed) trial {
				f := tag(frame(mac2, macA, 60), k.tags...) // w2 has this MAC, and x1 of VNI 8
				f[15] = byte(vni8)
				return refused(b.in(f), "inner_vlan")
			}),
			simple("21", "a tag that names another network's VNI selects no network, "+k.name, func(b *bed) trial {
				f := tag(frame(mac2, mac1, 60), k.tags...)
				f[15] = byte(vni8)
				return held(f, "inner_vlan")
			}),
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

// bridged: a bridge in w1's namespace forwards the frame to eth0. The kernel has moved the tag out of it by then, and leaves it beside the
// frame on the way out.
func (b *bed) bridged(f []byte) (err error) {
	ns := b.inside["w1"]
	defer func() {
		delete(b.at, "bridged")
		err = errors.Join(err, ns.SetMaster("eth0", ""), ns.DeleteLink("in0"), ns.DeleteLink("br0"))
	}()
	veth := netdev.Veth{Name: "in0", MTU: underlayMTU, Quiet: true, Down: true, Peer: netdev.VethPeer{Name: "in1", MAC: wire.MAC{2, 0, 0, 0, 0, 0x71}}}
	if _, _, err := ns.EnsureVeth(veth); err != nil {
		return err
	}
	err = errors.Join(ns.AddBridge("br0", underlayMTU), ns.Quiet("br0"), ns.Quiet("in1"), ns.SetMaster("in1", "br0"), ns.SetMaster("eth0", "br0"),
		ns.SetUp("br0"), ns.SetUp("in0"))
	if err != nil {
		return err
	}
	if err := b.listen("bridged", ns, "in0"); err != nil {
		return err
	}
	defer b.at["bridged"].close()
	if err := b.forwards(); err != nil {
		return err
	}
	return b.try(trial{offers: []offer{{at: "bridged", frame: f}}, drops: map[string]uint64{"inner_vlan": 1}})
}

// forwards waits until the new bridge does: it waits for its members' carriers.
func (b *bed) forwards() error {
	before, err := b.ledger()
	if err != nil {
		return err
	}
	return await("the bridge forwards", b.patience, func() (bool, error) {
		if err := b.at["bridged"].send(frame(mac2, mac1, 60)); err != nil {
			return false, err
		}
		now, err := b.ledger()
		seen := func(program string) bool { return now.books[program].In > before.books[program].In }
		return seen("from_port") || seen("xdp_from_port"), err
	})
}
