package conform

import (
	"net/netip"

	"github.com/weftnet/weft/wire"
)

// frame is a workload's datagram with so many octets of payload.
func frame(dst, src wire.MAC, n int, edits ...func(*wire.Flow)) []byte {
	return flow(dst, src, edits...).UDP(1111, 2222, payload(n))
}

// flow is who it is from and to.
func flow(dst, src wire.MAC, edits ...func(*wire.Flow)) wire.Flow {
	f := wire.Flow{SrcMAC: src, DstMAC: dst, Src: netip.AddrFrom4([4]byte{10, 0, 0, 1}), Dst: netip.AddrFrom4([4]byte{10, 0, 0, 2}), TTL: 9}
	for _, edit := range edits {
		edit(&f)
	}
	return f
}

func payload(n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i)
	}
	return data
}

// dontFragment sets DF, which IPv6 does not need.
func dontFragment(f *wire.Flow) { f.DF = true }

// family is a kind of inner packet that has a ToS octet, a TTL and an MTU of its own.
type family struct {
	name   string
	edit   func(*wire.Flow)
	header int // octets of its IP header
}

var families = []family{{"IPv4", func(*wire.Flow) {}, wire.IPv4Len}, {"IPv6", over6, wire.IPv6Len}}

// over6 makes it IPv6.
func over6(f *wire.Flow) {
	f.Src, f.Dst = netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
}

// tunnel is what VTEP A sends for VNI 7, as the row sends it.
func (b *bed) tunnel(inner []byte) tunnel {
	return tunnel{dstMAC: b.hostMAC, srcMAC: b.peerMAC, src: b.addr.A, dst: b.addr.Own, vni: vni7, flags: 8, l4src: 50000, l4dst: 4789, ttl: 64,
		checksum: b.byKernel(), inner: inner}
}

// in is the same with changes, as octets.
func (b *bed) in(inner []byte, edits ...func(*tunnel)) []byte {
	p := b.tunnel(inner)
	for _, edit := range edits {
		edit(&p)
	}
	return p.octets()
}

// to is what must leave for a VTEP.
func (b *bed) to(vtep netip.Addr, inner []byte, edits ...func(*sent)) sent {
	s := sent{to: vtep, via: b.peerMAC, vni: vni7, checksum: b.byKernel(), inner: inner}
	for _, edit := range edits {
		edit(&s)
	}
	return s
}

// leaves: w1 sends the frame, and it goes to VTEP A alone.
func (b *bed) leaves(f []byte) trial {
	return trial{fromW1: [][]byte{f}, tunnels: []sent{b.to(b.addr.A, f)}, lanedOut: 1}
}

// arrives: the peer sends the packet, and w1 alone gets the frame.
func arrives(packet, f []byte) trial {
	return trial{fromPeer: [][]byte{packet}, at: map[string][][]byte{"w1": {f}}, lanedIn: 1}
}

// refused: the peer sends the packet, and it is dropped for the reason.
func refused(packet []byte, reason string) trial {
	return trial{fromPeer: [][]byte{packet}, drops: map[string]uint64{reason: 1}}
}

// held: w1 sends the frame, and it is dropped for the reason.
func held(f []byte, reason string) trial {
	return trial{fromW1: [][]byte{f}, drops: map[string]uint64{reason: 1}}
}

// ignored: the peer sends the packet, and it is not weft's business.
func ignored(packet []byte) trial { return trial{fromPeer: [][]byte{packet}, foreign: 1} }

// simple is a case of one trial.
func simple(rule, name string, t func(b *bed) trial) Case {
	return Case{Rule: rule, Name: name, do: func(b *bed) error { return b.try(t(b)) }}
}

// prepared is a case of one trial on changed tables.
func prepared(rule, name string, prep func(b *bed) error, t func(b *bed) trial) Case {
	return Case{Rule: rule, Name: name, do: func(b *bed) error {
		if err := prep(b); err != nil {
			return err
		}
		if err := settle(); err != nil {
			return err
		}
		return b.try(t(b))
	}}
}
