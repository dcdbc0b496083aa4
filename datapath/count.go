package datapath

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/wire"
)

// PortCounters reads the counters of a port id.
func (d *Datapath) PortCounters(id PortID) (PortCounters, error) {
	var per []bpf.TCPortCounters
	var c PortCounters
	if err := d.maps["port_counts"].Lookup(uint32(id), &per); err != nil {
		return c, fmt.Errorf("counters of port %d: %w", id, err)
	}
	for _, p := range per {
		c.IngressPackets += p.IngressPackets
		c.IngressOctets += p.IngressOctets
		c.EgressPackets += p.EgressPackets
		c.EgressOctets += p.EgressOctets
	}
	return c, nil
}

// ResetPort zeroes the counters and drops of a port id, before its next user.
func (d *Datapath) ResetPort(id PortID) error {
	if id == 0 || int(id) > d.ports.Limit() {
		return fmt.Errorf("port id %d is outside 1..%d", id, d.ports.Limit())
	}
	zero := make([]bpf.TCPortCounters, possibleCPUs())
	if err := d.maps["port_counts"].Put(uint32(id), zero); err != nil {
		return fmt.Errorf("reset counters of port %d: %w", id, err)
	}
	for r := DropReason(1); r < dropReasons; r++ {
		err := d.maps["drops"].Delete(bpf.TCDropKey{Port: uint32(id), Reason: uint32(r)})
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("reset drops of port %d: %w", id, err)
		}
	}
	return nil
}

// reserveDropKeys makes the keys of port 0, under which is counted what no longer fits, so that they always fit.
func (d *Datapath) reserveDropKeys() error {
	zero := make([]uint64, possibleCPUs())
	for r := DropReason(1); r < dropReasons; r++ {
		err := patiently(func() error {
			return d.maps["drops"].Update(bpf.TCDropKey{Reason: uint32(r)}, zero, ebpf.UpdateNoExist)
		})
		if err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
			return fmt.Errorf("reserve drop counters: %w", err)
		}
	}
	return nil
}

const (
	// memoryTries and memoryPause bound the wait for the kernel to refill the per-CPU cache that entries of a map without
	// preallocation come from: it is filled in the background, and a burst, or several agents that start at once, empties it.
	memoryTries = 500
	memoryPause = 2 * time.Millisecond
)

// patiently repeats an update that the kernel has no memory at hand for.
func patiently(update func() error) error {
	for i := 1; ; i++ {
		err := update()
		if !errors.Is(err, unix.ENOMEM) || i == memoryTries {
			return err
		}
		time.Sleep(memoryPause)
	}
}

// Drops reads all drop counts that are not zero: by port and reason, and once more by outer source and reason for the
// reasons that are about who sent it. Reasons whose name begins with copy_ count copies of floods.
func (d *Datapath) Drops() (list []DropCount, err error) {
	var k bpf.TCDropKey
	var per []uint64
	it := d.maps["drops"].Iterate()
	for it.Next(&k, &per) {
		var n uint64
		for _, v := range per {
			n += v
		}
		if n > 0 {
			list = append(list, DropCount{ID: PortID(k.Port), Reason: DropReason(k.Reason), Packets: n})
		}
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read drops: %w", err)
	}
	err = d.sources.All(func(k bpf.TCDropSourceKey, n uint64) {
		list = append(list, DropCount{Reason: DropReason(k.Reason), Source: netipOf(k.Source), Packets: n})
	})
	return list, err
}

// programNames are those of enum program.
var programNames = []string{bpf.TCProgramFROM_PORT: "from_port", bpf.TCProgramFROM_UPLINK: "from_uplink",
	bpf.TCProgramFROM_VXLAN: "from_vxlan", bpf.TCProgramTO_UPLINK: "to_uplink",
	bpf.TCProgramXDP_FROM_PORT: "xdp_from_port", bpf.TCProgramXDP_FROM_UPLINK: "xdp_from_uplink"}

// Books reads the books of every program.
func (d *Datapath) Books() ([]Books, error) {
	list := make([]Books, len(programNames))
	for i, name := range programNames {
		var per []bpf.TCProgramBooks
		if err := d.maps["books"].Lookup(uint32(i), &per); err != nil {
			return nil, fmt.Errorf("books of %s: %w", name, err)
		}
		b := &list[i]
		b.Program = name
		for _, p := range per {
			b.In += p.In
			b.Delivered += p.Delivered
			b.Encapsulated += p.Encapsulated
			b.Passed += p.Passed
			b.Dropped += p.Dropped
			b.Copies += p.Copies
			b.Answers += p.Answers
			b.Untold += p.Untold
			b.Answered += p.Answered
		}
	}
	return list, nil
}

// countFloods makes a network's count; one that is there goes on.
func (d *Datapath) countFloods(vni wire.VNI) error {
	zero := make([]bpf.TCFloodCount, possibleCPUs())
	err := patiently(func() error { return d.maps["flood_counts"].Update(uint32(vni), zero, ebpf.UpdateNoExist) })
	if err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
		return fmt.Errorf("count floods of VNI %d: %w", vni, err)
	}
	return nil
}

func (d *Datapath) forgetFloods(vni wire.VNI) error {
	if err := d.maps["flood_counts"].Delete(uint32(vni)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("forget the floods of VNI %d: %w", vni, err)
	}
	return nil
}

// FloodCounts reads what was flooded, by network; those that flooded nothing are left out.
func (d *Datapath) FloodCounts() (map[wire.VNI]FloodCount, error) {
	all := map[wire.VNI]FloodCount{}
	var vni uint32
	var per []bpf.TCFloodCount
	it := d.maps["flood_counts"].Iterate()
	for it.Next(&vni, &per) {
		var c FloodCount
		for _, p := range per {
			c.Floods += p.Floods
			c.Copies += p.Copies
		}
		if c.Floods > 0 {
			all[wire.VNI(vni)] = c
		}
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read flood counts: %w", err)
	}
	return all, nil
}

// TableUse says how full a table is.
type TableUse struct {
	Name           string
	Entries, Limit int
	// Refused counts entries that did not fit since Open.
	Refused uint64
}

// Tables says how full every table is. It counts by reading: up to 0.3 s for a million entries.
func (d *Datapath) Tables() []TableUse {
	return []TableUse{
		use(d.fdb, func(bpf.TCFdbEntry) bool { return true }),
		use(d.learned, func(m bpf.TCLearnedMac) bool { return m.Place != 0 }),
		use(d.accepts, func(uint32) bool { return true }),
		use(d.neighbours, func(bpf.TCNeighbour) bool { return true }),
		use(d.claims, func(uint32) bool { return true }),
		use(d.groups, func(uint32) bool { return true }),
		use(d.networks, func(bpf.TCNetwork) bool { return true }),
		use(d.floods, func(bpf.TCFloodBlock) bool { return true }),
		use(d.vteps, func(v bpf.TCVtep) bool { return v.Flags != 0 }),
		use(d.ports, func(p bpf.TCPort) bool { return p.Ifindex != 0 }),
		d.dropKeyUse(),
		use(d.sources, func(uint64) bool { return true }),
	}
}

func use[K comparable, V any](t interface {
	Name() string
	Limit() int
	Refused() uint64
	All(func(K, V)) error
}, there func(V) bool) TableUse {
	u := TableUse{Name: t.Name(), Limit: t.Limit(), Refused: t.Refused()}
	if err := t.All(func(_ K, v V) {
		if there(v) {
			u.Entries++
		}
	}); err != nil {
		u.Entries = -1
	}
	return u
}

// dropKeyUse counts apart: the values are per CPU.
func (d *Datapath) dropKeyUse() TableUse {
	u := TableUse{Name: d.dropCounts.Name(), Limit: d.dropCounts.Limit()}
	var k bpf.TCDropKey
	var per []uint64
	for it := d.maps["drops"].Iterate(); it.Next(&k, &per); {
		u.Entries++
	}
	return u
}

// LaneCount is packets that were left to another lane, and why.
type LaneCount struct {
	Reason  LaneReason
	Packets uint64
}

// Lanes reads why packets were left to another lane; reasons that never came are left out.
func (d *Datapath) Lanes() (list []LaneCount, err error) {
	for r := LaneReason(1); r < laneReasons; r++ {
		var per []uint64
		if err := d.maps["lanes"].Lookup(uint32(r), &per); err != nil {
			return nil, fmt.Errorf("lane counts: %w", err)
		}
		c := LaneCount{Reason: r}
		for _, n := range per {
			c.Packets += n
		}
		if c.Packets > 0 {
			list = append(list, c)
		}
	}
	return list, nil
}

// possibleCPUs is how many values a per-CPU entry has.
func possibleCPUs() int { return ebpf.MustPossibleCPU() }
