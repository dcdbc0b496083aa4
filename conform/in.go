package conform

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/wire"
)

// innerAddr is 10.0.0.N.
func (b *bed) innerAddr(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, n}) }

// inCases are of what is received.
func inCases() []Case {
	f := frame(mac1, macA, 100)
	list := []Case{
		simple("2", "a MAC of the VNI: delivered to its port alone (IPv4)", func(b *bed) trial { return arrives(b.in(f), f) }),
		simple("2", "a MAC of the VNI: delivered to its port alone (IPv6)", func(b *bed) trial {
			f := frame(mac1, macA, 100, over6)
			return arrives(b.in(f), f)
		}),
		simple("2", "a MAC of the VNI: delivered to its port alone (ARP)", func(b *bed) trial {
			f := append(append(append([]byte{}, mac1[:]...), macA[:]...), 8, 6)
			f = append(f, make([]byte, 46)...)
			return arrives(b.in(f), f)
		}),
		simple("2", "unknown VNI", func(b *bed) trial { return refused(b.in(f, func(p *tunnel) { p.vni = 9 }), "unknown_vni") }),
		prepared("2", "a MAC that no port has: dropped unless the network floods", func(b *bed) error {
			return b.dp.PutNetwork(b.network7(datapath.UnknownExternal))
		}, func(b *bed) trial {
			return refused(b.in(frame(macNowhere, macA, 100)), "unknown_unicast_from_tunnel").passIn("xdp_several")
		}),
		simple("2", "a MAC behind another VTEP: never back into a tunnel", func(b *bed) trial { return refused(b.in(frame(macB, macA, 100)), "split_horizon") }),
		simple("2", "a MAC that only another VNI has", func(b *bed) trial {
			return refused(b.in(frame(mac1, macA, 100), func(p *tunnel) { p.vni = vni8 }), "unknown_unicast_from_tunnel").passIn("xdp_several")
		}),
		{Rule: "3", Name: "a network that does not learn: where a frame came from says nothing about where to send", do: func(b *bed) error {
			in := frame(mac1, macNowhere, 100)
			if err := b.try(arrives(b.in(in), in)); err != nil {
				return err
			}
			f := frame(macNowhere, mac1, 100)
			return b.try(trial{fromW1: [][]byte{f}, at: b.members("w1", f), tunnels: []sent{b.to(b.addr.A, f), b.to(b.addr.B, f)}, lanedOut: 2}.passOut("xdp_several"))
		}},
		simple("2", "a virtual machine's MAC: delivered to it alone", func(b *bed) trial {
			f, g := frame(mac3, macA, 100), frame(mac3, macA, 100, over6)
			return trial{fromPeer: [][]byte{b.in(f), b.in(g)}, at: map[string][][]byte{"t1": {f, g}}, lanedIn: 2}.passIn("xdp_receiver")
		}),
		simple("11", "one MAC in two VNIs: each gets its own", func(b *bed) trial {
			f := frame(mac2, macA, 100)
			g := frame(mac2, macA, 200)
			return trial{fromPeer: [][]byte{b.in(f), b.in(g, func(p *tunnel) { p.vni = vni8 })}, at: map[string][][]byte{"w2": {f}, "x1": {g}}, lanedIn: 2}
		}),
		simple("11", "ports in different VNIs cannot talk", func(b *bed) trial {
			f := frame(mac2, mac1, 100) // w2 and x1 have this MAC
			return trial{fromW1: [][]byte{f}, at: map[string][][]byte{"w2": {f}}}
		}),
		{Rule: "12", Name: "the host's UDP port is configurable, and 4789 is then not its own", do: otherPort},
		simple("12", "another UDP port is not weft's", func(b *bed) trial { return ignored(b.in(f, func(p *tunnel) { p.l4dst = 4790 })) }),
		simple("13", "any source port is taken", func(b *bed) trial {
			t := trial{at: map[string][][]byte{}}
			for _, port := range []uint16{0, 1, 53, 4789, 49151, 49152, 65535} {
				t.fromPeer = append(t.fromPeer, b.in(f, func(p *tunnel) { p.l4src = port }))
				t.at["w1"] = append(t.at["w1"], f)
				t.lanedIn++
			}
			return t
		}),
		simple("15", "UDP checksum zero: accepted", func(b *bed) trial { return arrives(b.in(f, func(p *tunnel) { p.checksum = false }), f) }),
		simple("17", "UDP checksum right: accepted", func(b *bed) trial {
			t := arrives(b.in(f, func(p *tunnel) { p.checksum = true }), f)
			t.only = "checksum"
			return t.passIn("xdp_checksum")
		}),
		{Rule: "17", Name: "UDP checksum wrong: dropped", do: wrongChecksum},
		simple("19", "padding after the IP packet is not the frame's", func(b *bed) trial {
			t := trial{at: map[string][][]byte{}}
			for n := range 32 {
				t.fromPeer, t.at["w1"] = append(t.fromPeer, append(b.in(f), make([]byte, n)...)), append(t.at["w1"], f)
				t.lanedIn++
			}
			return t
		}),
	}
	for _, vni := range []wire.VNI{0, 1, 0x800000, 0x123456, wire.MaxVNI} {
		list = append(list, prepared("11", fmt.Sprintf("VNI %d on receipt", vni), func(b *bed) error { return b.network(vni) }, func(b *bed) trial {
			return arrives(b.in(f, func(p *tunnel) { p.vni = vni }), f)
		}))
	}
	return list
}

// otherPort moves the host to 8472.
func otherPort(b *bed) error {
	f := frame(mac1, macA, 100)
	for _, port := range []uint16{8472, 4789} {
		if err := b.dp.SetLocal(b.local(8472)); err != nil {
			return err
		}
		if err := settle(); err != nil {
			return err
		}
		packet := b.in(f, func(p *tunnel) { p.l4dst = port })
		t := arrives(packet, f)
		if port != 8472 {
			t = ignored(packet)
		}
		if err := b.try(t); err != nil {
			return fmt.Errorf("UDP port %d: %w", port, err)
		}
	}
	return nil
}

// wrongChecksum: the kernel lane verifies, and the kernel counts it as its own drop.
func wrongChecksum(b *bed) error {
	before, err := b.checksumErrors()
	if err != nil {
		return err
	}
	f := frame(mac1, macA, 100)
	packet := b.in(f, func(p *tunnel) { p.checksum = true })
	packet[len(packet)-1] ^= 1
	if err := b.try(trial{fromPeer: [][]byte{packet}, refused: 1, only: "checksum"}.passIn("xdp_checksum")); err != nil {
		return err
	}
	after, err := b.checksumErrors()
	if err == nil && after != before+1 {
		err = fmt.Errorf("the host's kernel counted %d wrong UDP checksums, want 1", after-before)
	}
	return err
}

// checksumErrors are the UDP checksum errors that the host's kernel counted.
func (b *bed) checksumErrors() (n int, err error) {
	err = b.host.Run(func() error {
		if b.row.Underlay == IPv6 {
			text, err := os.ReadFile("/proc/thread-self/net/snmp6")
			for line := range strings.Lines(string(text)) {
				if f := strings.Fields(line); len(f) == 2 && f[0] == "Udp6InCsumErrors" {
					n, err = strconv.Atoi(f[1])
				}
			}
			return err
		}
		text, err := os.ReadFile("/proc/thread-self/net/snmp")
		if err != nil {
			return err
		}
		var names []string
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if f[0] != "Udp:" {
				continue
			}
			if names == nil {
				names = f
				continue
			}
			for i, name := range names {
				if name == "InCsumErrors" {
					n, err = strconv.Atoi(f[i])
				}
			}
		}
		return err
	})
	return n, err
}
