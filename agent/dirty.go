package agent

import (
	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/wire"
)

// dirty is what must be compared with the kernel.
type dirty struct {
	all     bool
	vteps   map[string]bool
	nets    map[wire.VNI]bool
	accepts map[wire.VNI]bool
	fdb     byMAC[struct{}]
	fdbOf   map[wire.VNI]bool // networks whose every FDB entry is; none of theirs is in fdb. Never the OAM network
	// neighbours, beside those of the ports whose MACs are in fdb and of the networks in fdbOf.
	neighbours   map[datapath.NeighbourKey]bool
	neighboursOf map[wire.VNI]bool // networks whose every address is
	ports        map[string]bool
	portsOf      map[string]bool // networks whose local ports are
	// concerns tells of a port that the plan brings or takes away whether it has to be marked; nil: all have.
	concerns func(uid string) bool
}

func newDirty() *dirty {
	return &dirty{
		vteps: map[string]bool{}, nets: map[wire.VNI]bool{}, accepts: map[wire.VNI]bool{},
		fdb: byMAC[struct{}]{}, fdbOf: map[wire.VNI]bool{}, neighbours: map[datapath.NeighbourKey]bool{}, neighboursOf: map[wire.VNI]bool{}, ports: map[string]bool{}, portsOf: map[string]bool{},
	}
}

// touch marks an entry, and reports whether that had to be done: not where its whole network is marked.
func (d *dirty) touch(key datapath.FDBKey) bool {
	if d.fdbOf[key.VNI] {
		return false
	}
	d.fdb.put(key, struct{}{})
	return true
}

// touchAll marks every entry of a network.
func (d *dirty) touchAll(vni wire.VNI) {
	d.fdbOf[vni] = true
	delete(d.fdb, vni)
}

// touchAddress marks what is answered for one address, where its whole network is not marked.
func (d *dirty) touchAddress(key datapath.NeighbourKey) {
	if !d.fdbOf[key.VNI] && !d.neighboursOf[key.VNI] {
		d.neighbours[key] = true
	}
}

// touchAddresses marks all of a network.
func (d *dirty) touchAddresses(vni wire.VNI) { d.neighboursOf[vni] = true }

// touchPort marks one that the plan brings or takes away.
func (d *dirty) touchPort(uid string) {
	if d.concerns == nil || d.concerns(uid) {
		d.ports[uid] = true
	}
}
