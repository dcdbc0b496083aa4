package agent

import (
	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/wire"
)

// Kernel is what the agent asks of the datapath. Every write is idempotent, does not block, and is in force when it
// returns. Batches of FDB entries, neighbours and accepts may come from several goroutines at once. A batch that fails may have been written in part. Order matters and is the caller's: a VTEP before what
// names it, a port before what delivers to it, an FDB entry before the neighbour with its MAC, and the other way round to delete. *datapath.Datapath is the real one.
type Kernel interface {
	SetLocal(datapath.Local) error

	PutVTEPs([]datapath.VTEP) error
	DeleteVTEPs([]datapath.VTEPID) error
	VTEPs() ([]datapath.VTEP, error)

	PutNetwork(datapath.Network) error
	DeleteNetwork(wire.VNI) error
	Networks() ([]datapath.Network, error)

	PutFDB([]datapath.FDBEntry) error
	DeleteFDB([]datapath.FDBKey) error
	FDB() ([]datapath.FDBEntry, error)

	PutNeighbours([]datapath.Neighbour) error
	DeleteNeighbours([]datapath.NeighbourKey) error
	Neighbours() ([]datapath.Neighbour, error)

	// The accept table, with the VTEPs that MACs are learned at.
	PutTeachers([]datapath.Teacher) error
	DeleteAccepts([]datapath.Accept) error
	Teachers() ([]datapath.Teacher, error)

	PutSources([]datapath.Source) error
	DeleteSources([]datapath.Source) error
	Sources() ([]datapath.Source, error)

	PutGroups([]datapath.Group) error
	DeleteGroups([]datapath.Group) error
	Groups() ([]datapath.Group, error)

	AttachPort(datapath.Port) error
	UpdatePort(datapath.Port) error
	DetachPort(ifindex uint32) error
	Ports() ([]datapath.Port, error)
	ResetPort(datapath.PortID) error
	// OpenPort and HoldPort do that alone, in one step with the entries of the port's MACs.
	OpenPort(datapath.PortID, []datapath.FDBEntry) error
	HoldPort(datapath.PortID, []datapath.FDBEntry) error
}

// tables mirrors what the kernel holds: filled by a dump, then kept by every write that succeeded.
type tables struct {
	vteps map[datapath.VTEPID]datapath.VTEP
	nets  map[wire.VNI]datapath.Network
	fdb   byMAC[spot]
	// neighbours are the addresses that are answered for.
	neighbours byIP[answer]
	accepts    map[wire.VNI]map[datapath.Accept]datapath.VTEPID
	groups     map[datapath.Group]bool
	ports      map[uint32]datapath.Port
	sources    map[datapath.Source]bool
}

// dump reads every table.
func dump(k Kernel) (*tables, error) {
	t := &tables{
		vteps:      map[datapath.VTEPID]datapath.VTEP{},
		nets:       map[wire.VNI]datapath.Network{},
		fdb:        byMAC[spot]{},
		neighbours: byIP[answer]{},
		accepts:    map[wire.VNI]map[datapath.Accept]datapath.VTEPID{},
		groups:     map[datapath.Group]bool{},
		ports:      map[uint32]datapath.Port{},
		sources:    map[datapath.Source]bool{},
	}
	vteps, err := k.VTEPs()
	if err != nil {
		return nil, err
	}
	for _, v := range vteps {
		t.vteps[v.ID] = v
	}
	nets, err := k.Networks()
	if err != nil {
		return nil, err
	}
	for _, n := range nets {
		t.nets[n.VNI] = n
	}
	fdb, err := k.FDB()
	if err != nil {
		return nil, err
	}
	for _, e := range fdb {
		t.fdb.put(e.FDBKey, spotOf(e))
	}
	neighbours, err := k.Neighbours()
	if err != nil {
		return nil, err
	}
	for _, n := range neighbours {
		t.neighbours.put(n.NeighbourKey, answerOf(n))
	}
	accepts, err := k.Teachers()
	if err != nil {
		return nil, err
	}
	for _, a := range accepts {
		t.accept(a)
	}
	sources, err := k.Sources()
	if err != nil {
		return nil, err
	}
	for _, s := range sources {
		t.sources[s] = true
	}
	groups, err := k.Groups()
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		t.groups[g] = true
	}
	ports, err := k.Ports()
	if err != nil {
		return nil, err
	}
	for _, p := range ports {
		t.ports[p.Ifindex] = p
	}
	return t, nil
}

func (t *tables) accept(a datapath.Teacher) {
	of := t.accepts[a.VNI]
	if of == nil {
		of = map[datapath.Accept]datapath.VTEPID{}
		t.accepts[a.VNI] = of
	}
	of[a.Accept] = a.VTEP
}

func (t *tables) refuse(a datapath.Accept) {
	delete(t.accepts[a.VNI], a)
	if len(t.accepts[a.VNI]) == 0 {
		delete(t.accepts, a.VNI)
	}
}
