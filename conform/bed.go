package conform

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/wire"
)

const (
	prefix  = "weft-conform-"
	pinRoot = "/sys/fs/bpf/weft-conform"
	lock    = "/run/weft-conform.lock"
	uplink  = "up0"

	underlayMTU = 1600
	networkMTU  = 1500

	vni7, vni8 = wire.VNI(7), wire.VNI(8)
)

// The VTEPs: a host's, an external one, and one behind a router.
const (
	vtepA = datapath.VTEPID(iota + 1)
	vtepB
	vtepFar
	vtepGroup // the group of VNI 7
)

// The MACs. x1 has the same as w2, and every remote one is in both networks.
var (
	mac1       = wire.MAC{2, 0, 0, 0, 0, 1}
	mac2       = wire.MAC{2, 0, 0, 0, 0, 2}
	mac3       = wire.MAC{2, 0, 0, 0, 0, 3}    // t1's
	macA       = wire.MAC{2, 0, 0, 0, 0, 0x11} // behind VTEP A
	macB       = wire.MAC{2, 0, 0, 0, 0, 0x12} // behind VTEP B
	macFar     = wire.MAC{2, 0, 0, 0, 0, 0x13} // behind the routed VTEP, in VNI 7 only
	macNowhere = wire.MAC{2, 0, 0, 0, 0, 0x99}
	macGroup   = wire.MAC{1, 0, 0x5e, 1, 2, 3}
	macRouter  = wire.MAC{2, 0xbb, 0, 0, 0, 0xfe}
)

// bed is one host with a datapath, its workloads, and the peer.
type bed struct {
	row  Row
	addr addresses
	dp   *datapath.Datapath

	host, peer       *netdev.Handle
	handles          []*netdev.Handle
	hostMAC, peerMAC wire.MAC
	hostIndex        uint32            // of the uplink
	joined           bool              // a case has joined groups
	index            map[string]uint32 // of a workload's interface on the host
	inside           map[string]*netdev.Handle
	at               map[string]place
	fences           uint32
	left             []wire.Frame // the packets of the last trial that left by a tunnel, in their order
	scratch          []wire.VNI   // networks that a case made
	patience         time.Duration
}

var workloads = []struct {
	name string
	mac  wire.MAC
	vni  wire.VNI
	tap  bool // a virtual machine; else a container
}{{"w1", mac1, vni7, false}, {"w2", mac2, vni7, false}, {"x1", mac2, vni8, false}, {"t1", mac3, vni7, true}}

// newBed builds a row's. On an error nothing is left.
func newBed(row Row) (b *bed, err error) {
	b = &bed{row: row, addr: row.Underlay.addresses(), patience: patience, index: map[string]uint32{}, inside: map[string]*netdev.Handle{}, at: map[string]place{}}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("build the test bed of %s: %w", row, err), b.close())
		}
	}()
	if err := b.underlay(); err != nil {
		return b, err
	}
	local := b.local(4789)
	err = b.host.Run(func() error {
		b.dp, err = datapath.Open(datapath.Config{PinRoot: pinRoot, Uplink: uplink, Local: local, Limits: datapath.LabLimits(), XDP: row.Lane == XDP})
		return err
	})
	if err != nil {
		return b, err
	}
	if err := b.listen("peer", b.peer, uplink); err != nil {
		return b, err
	}
	for i, w := range workloads {
		add := b.container
		if w.tap {
			add = b.machine
		}
		if err := add(w.name, w.mac); err != nil {
			return b, err
		}
		if err := b.dp.AttachPort(b.port(uint32(i+1), w.name, w.mac, w.vni)); err != nil {
			return b, err
		}
	}
	if err := b.reset(); err != nil {
		return b, err
	}
	return b, b.warm()
}

func (b *bed) local(l4port uint16) datapath.Local {
	l := datapath.Local{UDPPort: l4port, UplinkMTU: underlayMTU, Addr4: IPv4.addresses().Own, Addr6: IPv6.addresses().Own}
	return l
}

func (b *bed) namespace(name string) (*netdev.Handle, error) {
	if err := netdev.CreateNamespace(prefix + name); err != nil {
		return nil, err
	}
	h, err := netdev.OpenName(prefix + name)
	if err == nil {
		b.handles = append(b.handles, h)
	}
	return h, err
}

// underlay makes the host, the peer and the link between them. The peer's kernel is mute; what is behind it is stated.
func (b *bed) underlay() (err error) {
	if b.host, err = b.namespace("host"); err != nil {
		return err
	}
	if b.peer, err = b.namespace("peer"); err != nil {
		return err
	}
	var own []netip.Prefix
	for _, u := range []Underlay{IPv4, IPv6} {
		a := u.addresses()
		own = append(own, netip.PrefixFrom(a.Own, a.bits), netip.PrefixFrom(a.Second, a.bits))
		if err := b.host.AddAddress("lo", netip.PrefixFrom(a.Loopback, a.farBits)); err != nil {
			return err
		}
	}
	near, far, err := b.host.EnsureVeth(netdev.Veth{Name: uplink, MTU: underlayMTU, Addresses: own, Peer: netdev.VethPeer{Namespace: b.peer, Name: uplink}})
	if err != nil {
		return err
	}
	b.hostMAC, b.peerMAC, b.hostIndex = near.MAC, far.MAC, uint32(near.Index)
	// Or what the kernel lane sends is seen before its checksum is filled in.
	if err := errors.Join(b.peer.Quiet(uplink), b.host.SetFeature(uplink, netdev.TX, false), b.fit(b.peer, uplink)); err != nil {
		return err
	}
	for _, u := range []Underlay{IPv4, IPv6} {
		a := u.addresses()
		err := errors.Join(b.host.SetNeighbour(near.Index, a.A, b.peerMAC), b.host.SetNeighbour(near.Index, a.B, b.peerMAC),
			b.host.SetNeighbour(near.Index, a.Rogue, b.peerMAC), b.host.SetNeighbour(near.Index, a.Gateway, macRouter),
			b.host.ReplaceRoute(netdev.Route{Dst: netip.PrefixFrom(a.Far, a.farBits), Hops: []netdev.Hop{{Gateway: a.Gateway, Index: near.Index}}}))
		if err != nil {
			return err
		}
	}
	return nil
}

// container is a workload in a namespace.
func (b *bed) container(name string, mac wire.MAC) error {
	ns, err := b.namespace(name)
	if err != nil {
		return err
	}
	near, _, err := b.host.EnsureVeth(netdev.Veth{Name: "weft" + name, MTU: underlayMTU, Quiet: true, Peer: netdev.VethPeer{Namespace: ns, Name: "eth0", MAC: mac}})
	if err != nil {
		return err
	}
	if err := errors.Join(ns.Quiet("eth0"), b.fit(ns, "eth0")); err != nil {
		return err
	}
	b.index[name], b.inside[name] = uint32(near.Index), ns
	return b.listen(name, ns, "eth0")
}

func (b *bed) listen(at string, ns *netdev.Handle, ifname string) error {
	s, err := openSocket(ns, ifname)
	if err == nil {
		b.at[at] = s
	}
	return err
}

// fit makes the far end of a veth what the XDP lane needs.
func (b *bed) fit(ns *netdev.Handle, ifname string) error {
	if b.row.Lane != XDP {
		return nil
	}
	return ns.FitForXDP(ifname)
}

// machine is a virtual machine, which is nothing but the file of a TAP device.
func (b *bed) machine(name string, _ wire.MAC) error {
	t, err := openTAP(b.host, "weft"+name, underlayMTU)
	if err != nil {
		return err
	}
	b.at[name] = t
	l, err := b.host.LinkByName("weft" + name)
	b.index[name] = uint32(l.Index)
	return err
}

func (b *bed) port(id uint32, name string, mac wire.MAC, vni wire.VNI) datapath.Port {
	return datapath.Port{Ifindex: b.index[name], ID: datapath.PortID(id), UID: name, VNI: vni, MACs: []wire.MAC{mac},
		FastPath: b.row.Lane == XDP && b.inside[name] != nil}
}

// byKernel reports whether the row sends everything through the kernel's device.
func (b *bed) byKernel() bool { return b.row.Lane == Kernel }

// reset makes every table what a case expects.
func (b *bed) reset() error {
	a, dp := b.addr, b.dp
	var fdb []datapath.FDBEntry
	for _, w := range workloads {
		fdb = append(fdb, datapath.FDBEntry{FDBKey: datapath.FDBKey{VNI: w.vni, MAC: w.mac}, Ifindex: b.index[w.name], Flags: b.flags(w.tap)})
	}
	for _, vni := range []wire.VNI{vni7, vni8} {
		for mac, vtep := range map[wire.MAC]datapath.VTEPID{macA: vtepA, macB: vtepB} {
			fdb = append(fdb, datapath.FDBEntry{FDBKey: datapath.FDBKey{VNI: vni, MAC: mac}, VTEP: vtep})
		}
	}
	fdb = append(fdb, datapath.FDBEntry{FDBKey: datapath.FDBKey{VNI: vni7, MAC: macFar}, VTEP: vtepFar})
	var errs []error
	for _, vni := range b.scratch {
		errs = append(errs, dp.DeleteFDB([]datapath.FDBKey{{VNI: vni, MAC: mac1}, {VNI: vni, MAC: macA}}),
			dp.DeleteAccepts([]datapath.Accept{{VNI: vni, Addr: a.A}}), dp.DeleteNetwork(vni))
	}
	b.scratch = nil
	errs = append(errs, b.leaveGroups(),
		dp.SetLocal(b.local(4789)),
		dp.PutVTEPs([]datapath.VTEP{b.vtep(vtepA, a.A), b.vtep(vtepB, a.B), b.vtep(vtepFar, a.Far)}),
		dp.PutNetwork(b.network7(datapath.UnknownFlood)),
		dp.PutNetwork(datapath.Network{VNI: vni8, MTU: networkMTU, LocalPorts: []uint32{b.index["x1"]}, Remotes: []datapath.VTEPID{vtepA}}))
	for i, w := range workloads {
		errs = append(errs, dp.UpdatePort(b.port(uint32(i+1), w.name, w.mac, w.vni)))
	}
	errs = append(errs, dp.PutFDB(fdb),
		dp.DeleteAccepts([]datapath.Accept{{VNI: vni7, Addr: a.Own}, {VNI: vni8, Addr: a.B}, {VNI: vni8, Addr: a.Own}}),
		dp.PutAccepts([]datapath.Accept{{VNI: vni7, Addr: a.A}, {VNI: vni7, Addr: a.B}, {VNI: vni8, Addr: a.A}}))
	return errors.Join(append(errs, settle())...)
}

// flags are those of a local port's FDB entry.
func (b *bed) flags(tap bool) (flags datapath.FDBFlags) {
	if !tap {
		flags |= datapath.FDBPeer
	}
	if b.byKernel() {
		flags |= datapath.FDBAllByKernel
	}
	return flags
}

// warm lets the kernel see a packet of many flows to every VTEP: the XDP lane leaves to it those whose next hop it has not seen for long.
func (b *bed) warm() error {
	if b.row.Lane != XDP {
		return nil
	}
	const flows = 256 // 8 buckets of them, for each VTEP
	for _, dst := range []wire.MAC{macA, macB, macFar} {
		for i := range uint16(flows) {
			if err := b.at["w1"].send(flow(dst, mac1).UDP(i, i, nil)); err != nil {
				return err
			}
		}
	}
	_, err := b.fence()
	return err
}

// settle waits for the next clock tick: next hops are kept for one.
func settle() error {
	var begin, now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &begin); err != nil {
		return err
	}
	return await("the clock ticks", patience, func() (bool, error) {
		err := unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &now)
		return now != begin, err
	})
}

// network7 is the network of most cases: w1, w2 and t1 here, VTEP A a host's, VTEP B external.
func (b *bed) network7(unknown datapath.UnknownUnicast) datapath.Network {
	return datapath.Network{VNI: vni7, MTU: networkMTU, Unknown: unknown, LocalPorts: []uint32{b.index["w1"], b.index["w2"], b.index["t1"]},
		Remotes: []datapath.VTEPID{vtepA, vtepB}, External: 1}
}

// vtep is one as the row sends to it: a checksum is what only the kernel lane computes.
func (b *bed) vtep(id datapath.VTEPID, addr netip.Addr) datapath.VTEP {
	return datapath.VTEP{ID: id, Addr: addr, UDPPort: 4789, OuterChecksum: b.byKernel()}
}

func (b *bed) close() error {
	for _, s := range b.at {
		s.close()
	}
	var errs []error
	if b.dp != nil {
		errs = append(errs, b.dp.Close())
	}
	for _, h := range b.handles {
		h.Close()
	}
	return errors.Join(append(errs, clean())...)
}

// clean takes away whatever a run has left, its own or one that was killed.
func clean() error {
	var errs []error
	if netdev.NamespaceExists(prefix + "host") {
		errs = append(errs, netdev.RunIn(prefix+"host", func() error { return datapath.Remove(pinRoot) }))
	}
	if _, err := os.Stat(pinRoot); err == nil {
		errs = append(errs, datapath.Remove(pinRoot))
	}
	names, err := netdev.Namespaces(prefix)
	for _, name := range names {
		errs = append(errs, netdev.DeleteNamespace(name))
	}
	return errors.Join(append(errs, err)...)
}

// own makes sure that no other run is there: they would share names.
func own() (release func(), err error) {
	if err := os.MkdirAll(filepath.Dir(lock), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(lock, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, errors.New("another weft conform is running on this machine: wait until it ends")
	}
	return func() { f.Close() }, nil
}
