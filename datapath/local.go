package datapath

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"net/netip"
	"path/filepath"

	"github.com/cilium/ebpf"

	"github.com/weftnet/weft/datapath/bpf"
)

func (l Local) validate() error {
	switch {
	case !l.Addr4.IsValid() && !l.Addr6.IsValid():
		return errors.New("local: no underlay address")
	case l.Addr4.IsValid() && !l.Addr4.Is4():
		return fmt.Errorf("local: %s is not an IPv4 address", l.Addr4)
	case l.Addr6.IsValid() && (!l.Addr6.Is6() || l.Addr6.Is4In6()):
		return fmt.Errorf("local: %s is not an IPv6 address", l.Addr6)
	case l.UDPPort == 0:
		return errors.New("local: no UDP port")
	case l.UplinkMTU < 576 || l.UplinkMTU > math.MaxUint16:
		return fmt.Errorf("local: uplink MTU %d is outside 576..65535", l.UplinkMTU)
	}
	return nil
}

// SetLocal changes this host's own end. Another UDP port replaces VXLANDevice: the kernel lane is away for that moment.
func (d *Datapath) SetLocal(l Local) error {
	if err := l.validate(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	index, err := d.ensureVXLAN(l.UDPPort)
	if err != nil {
		return err
	}
	moved := d.local.VxlanIfindex != 0 && d.local.VxlanIfindex != index
	d.local = bpf.TCLocal{Addr4: addrOf(l.Addr4), Addr6: addrOf(l.Addr6), VxlanIfindex: index, Mark: d.local.Mark,
		Seal:    d.local.Seal,
		UdpPort: swap16(l.UDPPort), UplinkMtu: uint16(l.UplinkMTU), Uplinks: d.describeUplinks()}
	if err := d.locals.PutOne(0, d.local); err != nil {
		return err
	}
	if moved && !d.pending {
		if err := d.attachTo(linkName("from_vxlan", 0), "from_vxlan", ebpf.AttachTCXIngress, index); err != nil {
			return err
		}
	}
	return d.openVXLAN()
}

// addrOf is an address as the maps hold it: 16 octets, IPv4 as ::ffff:a.b.c.d, none as zero.
func addrOf(a netip.Addr) (w bpf.TCAddr) {
	if !a.IsValid() {
		return w
	}
	b := a.As16()
	for i := range w.W {
		w.W[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return w
}

func netipOf(w bpf.TCAddr) netip.Addr {
	var b [16]byte
	for i, v := range w.W {
		binary.NativeEndian.PutUint32(b[4*i:], v)
	}
	if b == [16]byte{} {
		return netip.Addr{}
	}
	return netip.AddrFrom16(b).Unmap()
}

// swap16 is a number in network byte order, as the maps hold UDP ports; the objects are little-endian.
func swap16(v uint16) uint16 { return bits.ReverseBytes16(v) }

// The secrets: bpf/seal.h says what for. The mark is compared whole, but other tools' rules look at single bits of any mark they meet, so
// those with a meaning elsewhere stay zero: 0x4000 and 0x8000 (kube-proxy: masquerade, drop), 0x0f00 (Cilium), and the third octet is
// never one of Tailscale's (0x00040000, 0x00080000 under 0x00ff0000). 26 random bits are left.
const markBits = 0xffff30ff

func newMark() (uint32, error) {
	for {
		m, err := newSeal()
		if err != nil {
			return 0, err
		}
		m &= markBits
		if third := m >> 16 & 0xff; m&0xff != 0 && third != 0 && third != 0x04 && third != 0x08 && third != 0x40 && third != 0x80 {
			return m, nil
		}
	}
}

// newSeal has no half that is zero, which is what those fields are where nobody has written to them.
func newSeal() (uint32, error) {
	for {
		var b [4]byte
		if _, err := rand.Read(b[:]); err != nil {
			return 0, err
		}
		if m := binary.NativeEndian.Uint32(b[:]); m>>16 != 0 && m&0xffff != 0 {
			return m, nil
		}
	}
}

// secret is one of the instance's: made once, pinned apart from every layout.
func (d *Datapath) secret(name string, generate func() (uint32, error)) (uint32, error) {
	m, err := openMap(filepath.Join(d.cfg.PinRoot, name), &ebpf.MapSpec{Name: name, Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return 0, err
	}
	defer m.Close()
	var v uint32
	if err := m.Lookup(uint32(0), &v); err != nil {
		return 0, fmt.Errorf("read the %s: %w", name, err)
	}
	if v != 0 {
		return v, nil
	}
	if v, err = generate(); err != nil {
		return 0, err
	}
	return v, m.Put(uint32(0), v)
}
