package datapath

import (
	"github.com/cilium/ebpf"

	"github.com/weftnet/weft/datapath/bpf"
)

// Limits are the sizes of the tables. A zero field takes its default; see DefaultLimits and LabLimits.
type Limits struct {
	// FDB entries: 112 octets each, taken as they come.
	FDB int
	// Accepts: (VNI, source) pairs, 112 octets each, taken as they come.
	Accepts int
	// Learned MACs of networks that learn: 96 octets each, taken as they come. Those of one VTEP or port take a quarter at the most.
	Learned int
	// Sources: prefixes from which networks take unlisted VTEPs, 128 octets each, taken as they come.
	Sources int
	// Neighbours: addresses that are answered for, 96 octets each, taken as they come.
	Neighbours int
	// Claims: what ports may say of themselves in ARP and neighbour discovery, one for each address of a port here and for each of its
	// allowed pairs, 96 octets each, taken as they come.
	Claims int
	// Asked: addresses that are not known and were asked for of late, 96 octets each, taken at Open. What was not asked for for
	// longest makes room.
	Asked int
	// Groups: (VNI, group) pairs, and two entries more a group; 112 octets each, taken as they come.
	Groups int
	// Networks: 288 octets each, and 16 for each CPU for what they flood, taken as they come.
	Networks int
	// VTEPs: 224 octets each, and 576 for each CPU for their next hops, taken at Open.
	VTEPs int
	// Ports: 200 octets each, and 32 for each CPU for their counters, taken at Open.
	Ports int
	// FloodBlocks: all flood lists together, in blocks of 16 receivers, 128 octets each, taken as they come. A network's ports here
	// begin a block, and so do its VTEPs. A changed list is there twice for a moment.
	FloodBlocks int
	// DropKeys: (port, reason) pairs that are counted, 72 octets each and 8 for each CPU, taken as they come. A pair that does
	// not fit is counted under port 0.
	DropKeys int
	// DropSources: (reason, outer source) pairs that are counted, 96 octets each, taken at Open. The sender not seen for
	// longest makes room.
	DropSources int
}

// MaxFlood is the largest number of remote VTEPs in one network (head-end replication), and of its local ports.
const MaxFlood = 4096

// MaxPortMACs is the largest number of MACs that a port may send from.
const MaxPortMACs = len(bpf.TCPort{}.Macs)

// DefaultLimits are those of a production host: 6 MB, 3 MB for each CPU, and up to 420 MB as the tables fill.
func DefaultLimits() Limits {
	return Limits{FDB: 1 << 20, Accepts: 1 << 18, Neighbours: 1 << 20, Claims: 1 << 17, Asked: 16384, Groups: 30720, Networks: 10240, VTEPs: 4096,
		Ports: 10240, FloodBlocks: 1 << 17, Learned: 1 << 20, Sources: 4096, DropKeys: 1 << 16, DropSources: 4096}
}

// LabLimits are those of a small lab host: 0.3 MB and 0.2 MB for each CPU.
func LabLimits() Limits {
	return Limits{FDB: 65536, Accepts: 16384, Neighbours: 65536, Claims: 16384, Asked: 1024, Groups: 3072, Networks: 1024, VTEPs: 256, Ports: 1024,
		FloodBlocks: 8192, Learned: 65536, Sources: 1024, DropKeys: 8192, DropSources: 256}
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	for _, f := range []struct {
		have *int
		def  int
	}{{&l.FDB, d.FDB}, {&l.Accepts, d.Accepts}, {&l.Groups, d.Groups}, {&l.Neighbours, d.Neighbours}, {&l.Claims, d.Claims}, {&l.Asked, d.Asked},
		{&l.Networks, d.Networks}, {&l.VTEPs, d.VTEPs}, {&l.Ports, d.Ports},
		{&l.FloodBlocks, d.FloodBlocks}, {&l.Learned, d.Learned}, {&l.Sources, d.Sources}, {&l.DropKeys, d.DropKeys}, {&l.DropSources, d.DropSources}} {
		if *f.have == 0 {
			*f.have = f.def
		}
	}
	return l
}

// nexthopBuckets is NEXTHOP_BUCKETS of layout.h; a test compares them.
const nexthopBuckets = 8

// apply sizes the maps. Arrays have an entry 0 that nobody uses: ids begin at 1.
func (l Limits) apply(spec *ebpf.CollectionSpec) {
	for name, n := range map[string]int{
		"fdb": l.FDB, "accepts": l.Accepts, "groups": l.Groups, "neighbours": l.Neighbours, "claims": l.Claims, "asked": l.Asked,
		"networks": l.Networks, "network_budgets": l.Networks, "flood_counts": l.Networks, "port_budgets": l.Ports + 1, "vteps": l.VTEPs + 1, "equal_hops": l.VTEPs + 1,
		"nexthops": (l.VTEPs + 1) * nexthopBuckets, "ports": l.Ports + 1, "port_ids": l.Ports, "port_counts": l.Ports + 1, "answer_times": l.Ports + 1, "punt_times": l.Ports + 1,
		"learned": l.Learned, "learners": l.Accepts + l.Ports, "sources": l.Sources, "floods": l.FloodBlocks, "drops": l.DropKeys, "drop_sources": l.DropSources,
	} {
		spec.Maps[name].MaxEntries = uint32(n)
	}
}
