package datapath

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/datapath/table"
	"github.com/weftnet/weft/internal/testenv"
	"github.com/weftnet/weft/wire"
)

func TestOldKernelIsRefused(t *testing.T) {
	for release, ok := range map[string]bool{"6.6.0": true, "6.18.44-x": true, "7.0": true, "6.5.13": false, "5.15.0-91-generic": false, "odd": false} {
		if err := checkRelease(release); (err == nil) != ok {
			t.Errorf("%s: %v", release, err)
		}
	}
}

// TestMarkKeepsOthersBits: no bit that another tool's rules look at, and a different mark each time.
func TestMarkKeepsOthersBits(t *testing.T) {
	seen := map[uint32]bool{}
	for range 100 {
		m, err := newMark()
		must(t, err)
		if m == 0 || m&0xcf00 != 0 || m&0x00ff0000 == 0x00040000 || m&0x00ff0000 == 0x00080000 {
			t.Errorf("mark %#x", m)
		}
		seen[m] = true
	}
	if len(seen) < 99 {
		t.Errorf("%d different marks of 100", len(seen))
	}
}

func TestConstantsAgreeWithC(t *testing.T) {
	spec, err := bpf.LoadTC()
	must(t, err)
	if n := spec.Maps["nexthops"].MaxEntries / spec.Maps["vteps"].MaxEntries; n != nexthopBuckets {
		t.Errorf("%d next hops for each VTEP in C, %d here", n, nexthopBuckets)
	}
	a := layoutHash(spec)
	spec.Maps["fdb"].MaxEntries++
	if layoutHash(spec) == a {
		t.Error("another limit is no other layout")
	}
	for flag, want := range map[FDBFlags]bpf.TCFdbFlags{FDBPeer: bpf.TCFdbFlagsFDB_PEER,
		FDBAggregatesByKernel: bpf.TCFdbFlagsFDB_AGGREGATES_BY_KERNEL, FDBAllByKernel: bpf.TCFdbFlagsFDB_ALL_BY_KERNEL} {
		if bpf.TCFdbFlags(flag) != want {
			t.Errorf("FDB flag %d is %d in C", flag, want)
		}
	}
	for mode, want := range map[UnknownUnicast]bpf.TCUnknownUnicast{UnknownExternal: bpf.TCUnknownUnicastUNKNOWN_EXTERNAL,
		UnknownFlood: bpf.TCUnknownUnicastUNKNOWN_FLOOD, UnknownDrop: bpf.TCUnknownUnicastUNKNOWN_DROP} {
		if bpf.TCUnknownUnicast(mode) != want {
			t.Errorf("unknown unicast %d is %d in C", mode, want)
		}
	}
}

// alone is a host without peers.
func alone(t *testing.T) *testHost {
	testenv.Require(t, "root", "bpf")
	a, b := namespace(t, "a"), namespace(t, "b")
	underlay(t, a, b)
	return newHost(t, a, "a", Local{Addr4: netip.MustParseAddr("10.99.0.1"), UDPPort: 4789, UplinkMTU: 1600})
}

func sorted[T any](list []T) []T {
	slices.SortFunc(list, func(a, b T) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	return list
}

func same[T any](t *testing.T, what string, got, want []T, err error) {
	t.Helper()
	if err != nil || !reflect.DeepEqual(sorted(got), sorted(slices.Clone(want))) {
		t.Errorf("%s: %v\ngot  %+v\nwant %+v", what, err, got, want)
	}
}

// TestTablesKeepWhatIsPut: written twice, read back, read back by another process's Open, deleted twice.
func TestTablesKeepWhatIsPut(t *testing.T) {
	h := alone(t)
	ip := netip.MustParseAddr
	vteps := []VTEP{{1, ip("192.0.2.1"), 0, 4789, false}, {200, ip("2001:db8::1"), 0, 8472, true}, {7, ip("239.1.2.3"), 2, 4789, false}}
	remotes := make([]VTEPID, floodBlock+1) // the one that gets floods by the group is in a block of its own
	for i := range remotes {
		remotes[i] = VTEPID(200 - i)
	}
	nets := []Network{{VNI: 0, MTU: 1400, LocalPorts: []uint32{}, Remotes: []VTEPID{}},
		{VNI: wire.MaxVNI, MTU: 9000, Unknown: UnknownDrop, DSCPUniform: true, LocalPorts: []uint32{5, 4}, Remotes: remotes, External: 2, Direct: 1}}
	groups := []Group{{5, ip("239.1.2.3")}, {6, ip("239.1.2.3")}, {6, ip("ff05::1")}}
	fdb := []FDBEntry{{FDBKey{5, macRemote}, 1, 0, 0}, {FDBKey{6, macRemote}, 0, 17, FDBPeer | FDBAllByKernel}}
	accepts := []Accept{{5, ip("192.0.2.1")}, {5, ip("2001:db8::1")}, {0, ip("192.0.2.1")}}
	lo := Port{Ifindex: 1, ID: 3, UID: strings.Repeat("u", 32), VNI: 5, Held: true, Unguarded: true, MACs: []wire.MAC{macRemote, macNowhere}}
	for range 2 {
		must(t, h.dp.PutVTEPs(vteps))
		for _, n := range nets {
			must(t, h.dp.PutNetwork(n))
		}
		must(t, h.dp.PutFDB(fdb))
		must(t, h.dp.PutAccepts(accepts))
		must(t, h.dp.PutGroups(groups))
		must(t, h.dp.AttachPort(lo))
	}
	check := func() {
		t.Helper()
		v, err := h.dp.VTEPs()
		same(t, "vteps", v, vteps, err)
		n, err := h.dp.Networks()
		same(t, "networks", n, nets, err)
		f, err := h.dp.FDB()
		same(t, "fdb", f, fdb, err)
		a, err := h.dp.Accepts()
		same(t, "accepts", a, accepts, err)
		g, err := h.dp.Groups()
		same(t, "groups", g, groups, err)
		p, err := h.dp.Ports()
		same(t, "ports", p, []Port{lo}, err)
	}
	check()
	h.reopen()
	check()
	if len(h.dp.Programs(10)) != 4 {
		t.Errorf("programs: %q", h.dp.Programs(10))
	}
	for range 2 {
		must(t, h.dp.DeleteVTEPs([]VTEPID{1, 200, 7}))
		must(t, h.dp.DeleteNetwork(0))
		must(t, h.dp.DeleteNetwork(wire.MaxVNI))
		must(t, h.dp.DeleteFDB([]FDBKey{{9, macRemote}, fdb[0].FDBKey, {8, macRemote}, fdb[1].FDBKey}))
		must(t, h.dp.DeleteAccepts(accepts))
		must(t, h.dp.DeleteGroups(groups[:1]))
		must(t, h.dp.DeleteGroups(groups))
		must(t, h.dp.DetachPort(1))
	}
	await(t, "every table is empty, retired flood lists too", func() bool {
		return !slices.ContainsFunc(h.dp.Tables(), func(u TableUse) bool { return u.Entries != 0 && u.Name != "drop counters" })
	})
}

// TestChangedPortLeavesNoTrace: an id at another interface, an interface with another id.
func TestChangedPortLeavesNoTrace(t *testing.T) {
	h := alone(t)
	up := h.uplink()
	must(t, h.dp.AttachPort(Port{Ifindex: 1, ID: 1, UID: "a", VNI: 5}))
	must(t, h.dp.AttachPort(Port{Ifindex: 1, ID: 2, UID: "b", VNI: 5}))
	p, err := h.dp.Ports()
	same(t, "another id", p, []Port{{Ifindex: 1, ID: 2, UID: "b", VNI: 5}}, err)
	must(t, h.dp.AttachPort(Port{Ifindex: up, ID: 2, UID: "c", VNI: 6}))
	p, err = h.dp.Ports()
	same(t, "another interface", p, []Port{{Ifindex: up, ID: 2, UID: "c", VNI: 6}}, err)
	if h.dp.attached(linkName("from_port", 1), 1) {
		t.Error("the program stayed on the old interface")
	}
}

// TestInterfaceGoes: its port can be detached; one that was never there is not attached, and leaves no entry.
func TestInterfaceGoes(t *testing.T) {
	h := alone(t)
	must(t, h.ns.AddTAP("tap7"))
	l, err := h.ns.LinkByName("tap7")
	must(t, err)
	must(t, h.dp.AttachPort(Port{Ifindex: uint32(l.Index), ID: 1, UID: "a", VNI: 5}))
	must(t, h.ns.DeleteLink("tap7"))
	must(t, h.dp.DetachPort(uint32(l.Index)))
	if err := h.dp.AttachPort(Port{Ifindex: 9999, ID: 2, UID: "b", VNI: 5}); err == nil {
		t.Error("a port is attached to nothing")
	}
	p, err := h.dp.Ports()
	same(t, "ports", p, nil, err)
}

// TestMTUFollowsTheNetwork: ports get it whichever is put first.
func TestMTUFollowsTheNetwork(t *testing.T) {
	h := alone(t)
	must(t, h.dp.AttachPort(Port{Ifindex: 1, ID: 1, UID: "a", VNI: 5}))
	for _, mtu := range []int{1400, 9000} {
		must(t, h.dp.PutNetwork(Network{VNI: 5, MTU: mtu}))
		must(t, h.dp.UpdatePort(Port{Ifindex: 1, ID: 1, UID: "a", VNI: 5}))
		if e, _, err := h.dp.ports.Get(1); err != nil || int(e.Mtu) != mtu {
			t.Errorf("MTU %d, want %d: %v", e.Mtu, mtu, err)
		}
	}
	must(t, h.dp.PutNetwork(Network{VNI: 5, MTU: 1300}))
	if e, _, err := h.dp.ports.Get(1); err != nil || e.Mtu != 1300 {
		t.Errorf("MTU %d: %v", e.Mtu, err)
	}
}

// TestFullTables: the error names table and limit, the count shows, and what was there stays. Red when Put stops at the first refusal.
func TestFullTables(t *testing.T) {
	h := alone(t)
	must(t, h.dp.Close())
	h.cfg.Limits = Limits{FDB: 100, Accepts: 10, Networks: 4, VTEPs: 5, Ports: 3, FloodBlocks: 3, DropKeys: 100, DropSources: 16}
	h.open()
	full := func(what string, err error, name string, limit, refused int) {
		t.Helper()
		var f *table.FullError
		if !errors.As(err, &f) || f.Table != name || f.Limit != limit || f.Refused != refused || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, want table %s, limit %d, %d refused", what, err, name, limit, refused)
		}
		for _, u := range h.dp.Tables() {
			if u.Name == name && (u.Refused == 0 || u.Limit != limit || u.Entries > limit) {
				t.Errorf("%s: %+v", what, u)
			}
		}
	}
	entries := func(vni wire.VNI, n int) (list []FDBEntry) {
		for i := range n {
			list = append(list, FDBEntry{FDBKey: FDBKey{vni, wire.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}}, VTEP: 1})
		}
		return list
	}
	must(t, h.dp.PutFDB(entries(5, 100)))
	changed := entries(5, 100)
	for i := range changed {
		changed[i].VTEP = 2
	}
	full("fdb", h.dp.PutFDB(append(entries(6, 10), changed...)), "fdb", 100, 10)
	got, err := h.dp.FDB()
	same(t, "entries that were there are updated", got, changed, err)

	full("vteps", h.dp.PutVTEPs([]VTEP{{ID: 6, Addr: ip1, UDPPort: 1}, {ID: 5, Addr: ip1, UDPPort: 1}}), "vteps", 5, 1)
	v, err := h.dp.VTEPs()
	same(t, "the one that fits", v, []VTEP{{ID: 5, Addr: ip1, UDPPort: 1}}, err)

	old := Network{VNI: 7, LocalPorts: []uint32{1, 2, 3}, Remotes: []VTEPID{1, 2}}
	must(t, h.dp.PutNetwork(old))
	var f *table.FullError
	bigger := Network{VNI: 7, LocalPorts: make([]uint32, 18), Remotes: []VTEPID{}}
	if err := h.dp.PutNetwork(bigger); !errors.As(err, &f) || f.Table != "flood blocks" {
		t.Errorf("a flood list that does not fit: %v", err)
	}
	n, err := h.dp.Networks()
	same(t, "the old list stays", n, []Network{old}, err)
	if err := h.dp.PutNetwork(Network{VNI: 7, Remotes: make([]VTEPID, MaxFlood+1)}); err == nil {
		t.Error("a flood list beyond the replication limit is taken")
	}
	for i := range wire.VNI(3) {
		must(t, h.dp.PutNetwork(Network{VNI: 10 + i}))
	}
	full("networks", h.dp.PutNetwork(Network{VNI: 20}), "networks", 4, 1)
	full("ports", h.dp.AttachPort(Port{Ifindex: 1, ID: 4, UID: "x"}), "ports", 3, 1)
	if err := h.dp.AttachPort(Port{Ifindex: 1, ID: 1, UID: "x", MACs: make([]wire.MAC, MaxPortMACs+1)}); err == nil {
		t.Error("more MACs than a port holds are taken")
	}
}

// TestDropCountersNeverVanish: what no longer fits under its port is counted under port 0.
func TestDropCountersNeverVanish(t *testing.T) {
	s := newScene(t, false)
	var keys int
	for i := 1; ; i++ { // fill the map with other ports' keys
		if s.a.dp.maps["drops"].Put(bpf.TCDropKey{Port: uint32(100000 + i), Reason: 1}, make([]uint64, possibleCPUs())) != nil {
			break
		}
		keys++
	}
	s.fromPort(outFrom(wire.MAC{2, 0, 0, 0, 0, 9})(s), nil)
	if n := s.a.drops(DropSourceMAC); n != 1 || keys == 0 {
		t.Errorf("counted %d times with a full map of %d keys", n, keys)
	}
	s.a.balanced()
}

// TestResetPort counts on a port that nobody else uses: lo.
func TestResetPort(t *testing.T) {
	s := newScene(t, false)
	s.resolve()
	mac := wire.MAC{2, 0, 0, 0, 0, 0x55}
	must(t, s.a.dp.AttachPort(Port{Ifindex: 1, ID: 9, UID: "lo", VNI: 7, MACs: []wire.MAC{mac}}))
	must(t, s.a.dp.PutFDB([]FDBEntry{{FDBKey: FDBKey{7, mac}, Ifindex: 1}}))
	for _, src := range []wire.MAC{mac, {2, 0, 0, 0, 0, 9}} {
		s.a.run("from_port", 1, frame(t, macRemote, src, ip1, ip2, 40), nil)
	}
	s.fromUplink(s.a.tunnel(s.b, 7, inTo(mac)(s), nil), nil)
	c, err := s.a.dp.PortCounters(9)
	if want := (PortCounters{IngressPackets: 1, IngressOctets: 82, EgressPackets: 2, EgressOctets: 164}); err != nil || c != want {
		t.Errorf("counters %+v, want %+v", c, want)
	}
	if n := s.a.drops(DropSourceMAC); n != 1 {
		t.Errorf("%d drops", n)
	}
	must(t, s.a.dp.ResetPort(9))
	if c, err = s.a.dp.PortCounters(9); err != nil || c != (PortCounters{}) || s.a.drops(DropSourceMAC) != 0 {
		t.Errorf("after the reset: %+v %v", c, err)
	}
}

// TestPortOfAnotherDeviceIsTaken: the error names the device.
func TestPortOfAnotherDeviceIsTaken(t *testing.T) {
	testenv.Require(t, "root", "bpf")
	a, b := namespace(t, "a"), namespace(t, "b")
	underlay(t, a, b)
	must(t, a.Run(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "vx42"
		return netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: attrs, VxlanId: 42, Port: 4789})
	}))
	cfg := Config{PinRoot: fmt.Sprintf("/sys/fs/bpf/wefttest-datapath-%d-taken", os.Getpid()), Uplink: "up0", Limits: LabLimits(),
		Local: Local{Addr4: netip.MustParseAddr("10.99.0.1"), UDPPort: 4789, UplinkMTU: 1500}}
	t.Cleanup(func() { must(t, a.Run(func() error { return Remove(cfg.PinRoot) })) })
	err := a.Run(func() error {
		d, err := Open(cfg)
		if err == nil {
			d.Close()
		}
		return err
	})
	var taken *PortTakenError
	if !errors.As(err, &taken) || taken.Device != "vx42" {
		t.Errorf("Open: %v", err)
	}
	cfg.Local.UDPPort = 8472
	must(t, a.Run(func() error {
		d, err := Open(cfg)
		if err == nil {
			err = d.Close()
		}
		return err
	}))
}

// TestUDPPortChanges: SetLocal replaces the device, and the kernel lane works on the new one.
func TestUDPPortChanges(t *testing.T) {
	a, b := twoHosts(t, false)
	join(t, 7, a, b)
	for _, h := range []*testHost{a, b} {
		h.local.UDPPort = 8472
		must(t, h.dp.SetLocal(h.local))
	}
	must(t, a.dp.PutVTEPs([]VTEP{{ID: 1, Addr: b.local.addr(), UDPPort: 8472}}))
	must(t, b.dp.PutVTEPs([]VTEP{{ID: 1, Addr: a.local.addr(), UDPPort: 8472}}))
	w1, w2 := a.workload(7, 1, b), b.workload(7, 2, a)
	must(t, b.dp.PutFDB([]FDBEntry{{FDBKey: FDBKey{7, w2.mac}, Ifindex: w2.ifindex, Flags: FDBAllByKernel}}))
	w2.echo()
	must(t, w1.ping(w2.ip4, 64))
	if b.lane(LaneAsked) == 0 {
		t.Error("nothing took the kernel lane")
	}
}
