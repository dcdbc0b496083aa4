package datapath

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/wire"
)

// guest is a virtual machine's end of a multi-queue TAP device: what QEMU does with one.
type guest struct {
	*workload
	name   string
	queues []*os.File
}

// struct virtio_net_hdr, and the offloads that QEMU asks for (linux/virtio_net.h, linux/if_tun.h).
const (
	virtioLen           = 10
	virtioNeedsChecksum = 1
	virtioTCP4          = 1
	virtioTCP6          = 4
	virtioUDP           = 5
	allOffloads         = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_USO4 | unix.TUN_F_USO6
)

// guest makes one with so many queues behind a port of h, with FDB flags as the agent gives a TAP device.
func (h *testHost) guest(vni wire.VNI, n byte, other *testHost, queues int) *guest {
	t := h.t
	t.Helper()
	g := &guest{name: fmt.Sprintf("tap%d", n), workload: &workload{host: h, vni: vni, mac: wire.MAC{0x02, 0, 0, 0, 0, n},
		ip4: netip.AddrFrom4([4]byte{10, 0, 0, n}), ip6: netip.MustParseAddr(fmt.Sprintf("fd00::%x", n))}}
	l, err := h.ns.MakeTAP(g.name, queues, -1, -1)
	must(t, err)
	h.nextID++
	g.id, g.ifindex = h.nextID, uint32(l.Index)
	for range queues {
		f, err := h.ns.OpenVirtioQueue(g.name)
		must(t, err)
		t.Cleanup(func() { f.Close() })
		raw, err := f.SyscallConn()
		must(t, err)
		must(t, raw.Control(func(fd uintptr) { err = unix.IoctlSetInt(int(fd), unix.TUNSETOFFLOAD, allOffloads) }))
		must(t, err)
		g.queues = append(g.queues, f)
	}
	must(t, h.ns.Quiet(g.name))
	must(t, h.ns.SetUp(g.name))
	must(t, h.dp.AttachPort(g.port()))
	must(t, h.dp.PutFDB([]FDBEntry{{FDBKey: FDBKey{vni, g.mac}, Ifindex: g.ifindex, Flags: FDBAggregatesByKernel}}))
	if other != nil {
		must(t, other.dp.PutFDB([]FDBEntry{{FDBKey: FDBKey{vni, g.mac}, VTEP: 1}}))
	}
	return g
}

// offered is a frame as a guest gives it to its device, or gets it.
type offered struct {
	flags, kind           byte
	segment, start, field uint16 // octets of a segment's payload; where the checksum begins, and its field behind that
	frame                 []byte
}

func (o offered) octets() []byte {
	b := []byte{o.flags, o.kind}
	for _, v := range []uint16{o.start + o.field, o.segment, o.start, o.field} { // header length: a hint, the kernel looks for itself
		b = binary.NativeEndian.AppendUint16(b, v)
	}
	return append(b, o.frame...)
}

// read is the next frame of a queue.
func (g *guest) read(queue int, wait time.Duration) (o offered, err error) {
	b := make([]byte, 65536+virtioLen)
	if err := g.queues[queue].SetReadDeadline(time.Now().Add(wait)); err != nil {
		return o, err
	}
	n, err := g.queues[queue].Read(b)
	if err != nil || n < virtioLen {
		return o, err
	}
	u := func(at int) uint16 { return binary.NativeEndian.Uint16(b[at:]) }
	return offered{b[0], b[1], u(4), u(6), u(8), b[virtioLen:n]}, nil
}

// aggregate is an unfinished frame of to's: TCP, or datagrams (UDP_SEGMENT), of n octets in segments, whose checksum and cutting are left to others.
func (g *guest) aggregate(to *guest, ip6, tcp bool, segment, n int) offered {
	f := wire.Flow{SrcMAC: g.mac, DstMAC: to.mac, Src: g.ip4, Dst: to.ip4, DF: true}
	o := offered{flags: virtioNeedsChecksum, kind: virtioUDP, segment: uint16(segment), start: 14 + wire.IPv4Len, field: 6}
	if ip6 {
		f.Src, f.Dst, o.start = g.ip6, to.ip6, 14+wire.IPv6Len
	}
	data, proto := bytes.Repeat([]byte("weft"), n/4), wire.ProtoUDP
	if tcp {
		proto, o.field, o.kind = wire.ProtoTCP, 16, map[bool]byte{false: virtioTCP4, true: virtioTCP6}[ip6]
		o.frame = f.TCP(wire.TCP{Src: 1111, Dst: 2222, Seq: 1, Ack: 1, Flags: wire.ACK, Window: 500}, data)
	} else {
		o.frame = f.UDP(1111, 2222, data)
	}
	binary.BigEndian.PutUint16(o.frame[o.start+o.field:], ^wire.TransportChecksum(f.Src, f.Dst, proto, make([]byte, len(o.frame)-int(o.start))))
	return o
}

// any is the next frame of any queue, and which.
func (g *guest) any(t *testing.T) (o offered, queue int) {
	t.Helper()
	await(t, "a frame for the guest", func() bool {
		for i := range g.queues {
			got, err := g.read(i, time.Millisecond)
			if err == nil {
				o, queue = got, i
				return true
			}
		}
		return false
	})
	return o, queue
}

// TestGuestAggregates: what a virtual machine leaves to its device, cutting and checksums of TCP and of datagrams, reaches another as it was offered, by
// the tunnel and on one host: one frame, its segments' size and its unfinished checksum kept. Nothing of ours turned an offload off. Red when the FDB entry
// of a TAP device lacks FDBAggregatesByKernel.
func TestGuestAggregates(t *testing.T) {
	eachUnderlay(t, func(t *testing.T, underlay6 bool) {
		a, b := twoHosts(t, underlay6)
		join(t, 7, a, b)
		g1, g2, g3 := a.guest(7, 1, b, 4), b.guest(7, 2, a, 4), a.guest(7, 3, b, 4)
		p := g2.port()
		p.FastPath = true
		if err := b.dp.UpdatePort(p); err == nil {
			t.Error("the XDP lane took a device with virtio headers")
		}
		for _, to := range []*guest{g2, g3} {
			for _, ip6 := range []bool{false, true} {
				for _, tcp := range []bool{true, false} {
					want := g1.aggregate(to, ip6, tcp, 1200, 24_000)
					_, err := g1.queues[1].Write(want.octets())
					must(t, err)
					got, _ := to.any(t)
					if got.kind != want.kind || got.segment != want.segment || got.flags&virtioNeedsChecksum == 0 || got.start != want.start || got.field != want.field ||
						!bytes.Equal(got.frame, want.frame) {
						t.Errorf("to %s, IPv6 %t, TCP %t: %d octets arrived, flags %d, kind %d, segments of %d, checksum at %d + %d; want %d, %d, %d, %d, %d + %d", to.name, ip6, tcp,
							len(got.frame), got.flags, got.kind, got.segment, got.start, got.field, len(want.frame), want.flags, want.kind, want.segment, want.start, want.field)
					}
				}
			}
		}
		for _, f := range []netdev.Feature{netdev.TX, netdev.TSO, "tx-tcp6-segmentation", "tx-udp-segmentation"} {
			on, err := b.ns.Feature(g2.name, f)
			must(t, err)
			if !on {
				t.Errorf("%s is off", f)
			}
		}
		a.balanced()
		b.balanced()
	})
}

// TestGuestQueues: frames of a machine leave by whatever queue it writes to; those for it are spread over its queues by flow, and a flow stays in its
// queue, by the tunnel and on one host. Red when MakeTAP makes a device with one queue: its second cannot be opened.
func TestGuestQueues(t *testing.T) {
	const queues, flows, rounds = 4, 64, 3
	a, b := twoHosts(t, false)
	join(t, 7, a, b)
	g1, g2, g3 := a.guest(7, 1, b, queues), b.guest(7, 2, a, queues), a.guest(7, 3, b, queues)
	for _, to := range []*guest{g2, g3} {
		at, used := map[uint16]int{}, map[int]int{}
		for i := range flows * rounds {
			f := wire.Flow{SrcMAC: g1.mac, DstMAC: to.mac, Src: g1.ip4, Dst: to.ip4, DF: true}.UDP(uint16(1000+i%flows), 53, []byte("query"))
			_, err := g1.queues[i%queues].Write(offered{frame: f}.octets())
			must(t, err)
			got, queue := to.any(t)
			if !bytes.Equal(got.frame, f) {
				t.Fatalf("to %s: got %x, want %x", to.name, got.frame, f)
			}
			port := binary.BigEndian.Uint16(f[34:])
			if old, ok := at[port]; ok && old != queue {
				t.Errorf("to %s: one flow in the queues %d and %d", to.name, old, queue)
			}
			at[port] = queue
			used[queue]++
		}
		if len(used) != queues {
			t.Errorf("to %s: %d flows are in %d of %d queues: %v", to.name, flows, len(used), queues, used)
		}
	}
	a.balanced()
	b.balanced()
}
