package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/wire"
)

// fakeKernel is Kernel in memory. It refuses what would open a hole or leave something dangling, can be told to fail
// at the n-th write, and counts writes.
type fakeKernel struct {
	mu    *sync.Mutex
	local datapath.Local
	vteps map[datapath.VTEPID]datapath.VTEP
	nets  map[wire.VNI]datapath.Network
	fdb   map[datapath.FDBKey]datapath.FDBEntry
	// neighbours are addresses whose MACs are in the FDB.
	neighbours map[datapath.NeighbourKey]datapath.Neighbour
	accepts    map[datapath.Accept]datapath.VTEPID
	groups     map[datapath.Group]bool
	ports      map[uint32]datapath.Port
	links      map[uint32]bool // interfaces that exist; nil: all
	hops       map[datapath.VTEPID][]datapath.Hop
	noXDP      bool // no interface takes an XDP program
	sources    map[datapath.Source]bool
	// learners and learned are what frames have taught; strangers who is told.
	learners  []datapath.Learner
	learned   []datapath.LearnedMAC
	strangers chan datapath.Accept
	// flooded is what ports have flooded.
	flooded map[wire.VNI]datapath.FloodCount
	// frames are the first frames of watched ports.
	frames chan datapath.PortID

	writes   int
	crashAt  int // panics with crashed before this write; 0: never
	fdbLimit int
	// neighbourLimit of the neighbours; 0: none.
	neighbourLimit int
	// keepsNeighbours: deletions of them fail. keepsNetworks: changes of them do.
	keepsNeighbours, keepsNetworks bool
	// published counts calls of Publish.
	published int
	idLimit   int // of VTEPs and ports; 0: none
	// unsafe are orders that must not happen; the test fails if there is one.
	unsafe []string
}

type crashed struct{}

var errFull = errors.New("table is full")

func newFakeKernel() *fakeKernel {
	return &fakeKernel{
		mu: &sync.Mutex{}, frames: make(chan datapath.PortID, 10), strangers: make(chan datapath.Accept, 10),
		vteps: map[datapath.VTEPID]datapath.VTEP{}, nets: map[wire.VNI]datapath.Network{},
		fdb: map[datapath.FDBKey]datapath.FDBEntry{}, accepts: map[datapath.Accept]datapath.VTEPID{}, sources: map[datapath.Source]bool{},
		groups: map[datapath.Group]bool{}, ports: map[uint32]datapath.Port{},
		hops: map[datapath.VTEPID][]datapath.Hop{}, neighbours: map[datapath.NeighbourKey]datapath.Neighbour{},
	}
}

func (f *fakeKernel) write() {
	f.writes++
	if f.writes == f.crashAt {
		panic(crashed{})
	}
}

func (f *fakeKernel) bad(format string, args ...any) error {
	s := fmt.Sprintf(format, args...)
	f.unsafe = append(f.unsafe, s)
	return errors.New(s)
}

func (f *fakeKernel) SetLocal(l datapath.Local) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.local = l
	return nil
}

func (f *fakeKernel) PutVTEPs(list []datapath.VTEP) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, v := range list {
		f.write()
		if v.ID == 0 || !v.Addr.IsValid() || v.UDPPort == 0 {
			return f.bad("VTEP %+v is not whole", v)
		}
		if f.idLimit > 0 && int(v.ID) > f.idLimit {
			return errFull
		}
		f.vteps[v.ID] = v
	}
	return nil
}

func (f *fakeKernel) DeleteVTEPs(list []datapath.VTEPID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range list {
		f.write()
		for _, e := range f.fdb {
			if e.VTEP == id {
				return f.bad("VTEP %d is deleted while FDB entry %v names it", id, e.FDBKey)
			}
		}
		for _, n := range f.nets {
			if slices.Contains(n.Remotes, id) {
				return f.bad("VTEP %d is deleted while network %d floods to it", id, n.VNI)
			}
		}
		delete(f.vteps, id)
	}
	return nil
}

func (f *fakeKernel) SetHops(id datapath.VTEPID, list []datapath.Hop) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hops[id] = list
	return nil
}

func (f *fakeKernel) VTEPs() ([]datapath.VTEP, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Values(f.vteps)), nil
}

func (f *fakeKernel) PutNetwork(n datapath.Network) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.keepsNetworks {
		return errors.New("the table cannot be written")
	}
	f.write()
	for _, id := range n.Remotes {
		if _, ok := f.vteps[id]; !ok {
			return f.bad("network %d floods to VTEP %d, which is not there", n.VNI, id)
		}
	}
	for _, i := range n.LocalPorts {
		if p, ok := f.ports[i]; !ok || p.VNI != n.VNI {
			return f.bad("network %d floods to interface %d, which is no port of it", n.VNI, i)
		}
	}
	f.nets[n.VNI] = n
	return nil
}

func (f *fakeKernel) DeleteNetwork(vni wire.VNI) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.write()
	for _, p := range f.ports {
		if p.VNI == vni && !p.Held {
			return f.bad("network %d is deleted while port %s is open", vni, p.UID)
		}
	}
	delete(f.nets, vni)
	return nil
}

func (f *fakeKernel) Networks() ([]datapath.Network, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Values(f.nets)), nil
}

func (f *fakeKernel) PutFDB(list []datapath.FDBEntry) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range list {
		f.write()
		if _, ok := f.vteps[e.VTEP]; e.VTEP != 0 && !ok {
			return f.bad("FDB %v names VTEP %d, which is not there", e.FDBKey, e.VTEP)
		}
		if p, ok := f.ports[e.Ifindex]; e.VTEP == 0 && (!ok || p.VNI != e.VNI) {
			return f.bad("FDB %v names interface %d, which is no port of that network", e.FDBKey, e.Ifindex)
		}
		if _, ok := f.nets[e.VNI]; !ok {
			return f.bad("FDB %v is of a network that is not there", e.FDBKey)
		}
		if _, ok := f.fdb[e.FDBKey]; !ok && f.fdbLimit > 0 && len(f.fdb) >= f.fdbLimit {
			return errFull
		}
		f.fdb[e.FDBKey] = e
	}
	return nil
}

func (f *fakeKernel) DeleteFDB(list []datapath.FDBKey) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, k := range list {
		f.write()
		for _, n := range f.neighbours {
			if n.VNI == k.VNI && n.MAC == k.MAC {
				return f.bad("FDB %v is deleted while neighbour %s has that MAC", k, n.IP)
			}
		}
		delete(f.fdb, k)
	}
	return nil
}

func (f *fakeKernel) FDB() ([]datapath.FDBEntry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Values(f.fdb)), nil
}

func (f *fakeKernel) PutNeighbours(list []datapath.Neighbour) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range list {
		f.write()
		if _, ok := f.fdb[datapath.FDBKey{VNI: n.VNI, MAC: n.MAC}]; !ok && !n.Ask {
			return f.bad("neighbour %v has MAC %s, which is not in the FDB", n.NeighbourKey, n.MAC)
		}
		if _, ok := f.neighbours[n.NeighbourKey]; !ok && f.neighbourLimit > 0 && len(f.neighbours) >= f.neighbourLimit {
			return errFull
		}
		f.neighbours[n.NeighbourKey] = n
	}
	return nil
}

func (f *fakeKernel) DeleteNeighbours(list []datapath.NeighbourKey) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.keepsNeighbours {
		return errors.New("the table cannot be written")
	}
	for _, k := range list {
		f.write()
		delete(f.neighbours, k)
	}
	return nil
}

func (f *fakeKernel) Neighbours() ([]datapath.Neighbour, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Values(f.neighbours)), nil
}

func (f *fakeKernel) PutTeachers(list []datapath.Teacher) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range list {
		f.write()
		if a.VTEP != 0 && !f.vteps[a.VTEP].Addr.IsValid() {
			f.unsafe = append(f.unsafe, fmt.Sprintf("MACs are learned at VTEP %d, which is not there", a.VTEP))
		}
		f.accepts[a.Accept] = a.VTEP
	}
	return nil
}

func (f *fakeKernel) DeleteAccepts(list []datapath.Accept) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range list {
		f.write()
		delete(f.accepts, a)
	}
	return nil
}

func (f *fakeKernel) Teachers() (list []datapath.Teacher, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for a, id := range f.accepts {
		list = append(list, datapath.Teacher{Accept: a, VTEP: id})
	}
	return list, nil
}

func (f *fakeKernel) PutSources(list []datapath.Source) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range list {
		f.write()
		f.sources[s] = true
	}
	return nil
}

func (f *fakeKernel) DeleteSources(list []datapath.Source) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range list {
		f.write()
		if f.nets[s.VNI].Open {
			f.unsafe = append(f.unsafe, fmt.Sprintf("prefix %s of network %d goes while that says it has it", s.Prefix, s.VNI))
		}
		delete(f.sources, s)
	}
	return nil
}

func (f *fakeKernel) Sources() ([]datapath.Source, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Keys(f.sources)), nil
}

func (f *fakeKernel) Learners() ([]datapath.Learner, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.learners), nil
}

func (f *fakeKernel) Learned() ([]datapath.LearnedMAC, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.learned), nil
}

func (f *fakeKernel) Forget(keys []datapath.FDBKey) (n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.learned = slices.DeleteFunc(f.learned, func(m datapath.LearnedMAC) bool {
		if slices.Contains(keys, m.FDBKey) {
			n++
			return true
		}
		return false
	})
	return n, nil
}

// Strangers passes what tests put into strangers on.
func (f *fakeKernel) Strangers(ctx context.Context) (<-chan datapath.Accept, error) {
	return relay(ctx, f.strangers), nil
}

func (f *fakeKernel) PutGroups(list []datapath.Group) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, g := range list {
		f.write()
		f.groups[g] = true
	}
	return nil
}

func (f *fakeKernel) DeleteGroups(list []datapath.Group) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, g := range list {
		f.write()
		delete(f.groups, g)
	}
	return nil
}

func (f *fakeKernel) Groups() ([]datapath.Group, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Keys(f.groups)), nil
}

func (f *fakeKernel) AttachPort(p datapath.Port) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.write()
	if f.links != nil && !f.links[p.Ifindex] {
		return fmt.Errorf("no interface %d", p.Ifindex)
	}
	if !p.Held {
		return f.bad("port %s is attached open", p.UID)
	}
	if p.ID == 0 {
		return f.bad("port %s has no id", p.UID)
	}
	return f.putPort(p)
}

// putPort leaves a port out of the XDP lane where the kernel is to refuse it.
func (f *fakeKernel) putPort(p datapath.Port) error {
	if p.FastPath && f.noXDP {
		p.FastPath = false
		f.ports[p.Ifindex] = p
		return &datapath.FastPathError{UID: p.UID, Err: errors.New("no such operation")}
	}
	f.ports[p.Ifindex] = p
	return nil
}

// UpdatePort checks rule 2: what is opened has everything that it needs.
func (f *fakeKernel) UpdatePort(p datapath.Port) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.write()
	have, ok := f.ports[p.Ifindex]
	if !ok {
		return f.bad("port %s is updated and was not attached", p.UID)
	}
	if have.Held && !p.Held {
		if err := f.mayOpen(p); err != nil {
			return err
		}
	}
	return f.putPort(p)
}

func (f *fakeKernel) mayOpen(p datapath.Port) error {
	n, ok := f.nets[p.VNI]
	if !ok {
		return f.bad("port %s is opened without its network", p.UID)
	}
	for _, id := range n.Remotes {
		if group := f.vteps[id].Addr; group.IsMulticast() {
			if !f.groups[datapath.Group{VNI: p.VNI, Addr: group}] {
				return f.bad("port %s is opened while floods by %s are not taken in", p.UID, group)
			}
			continue
		}
		if _, ok := f.accepts[datapath.Accept{VNI: p.VNI, Addr: f.vteps[id].Addr}]; !ok {
			return f.bad("port %s is opened while VTEP %d is not accepted", p.UID, id)
		}
	}
	for _, e := range f.fdb {
		if e.VNI == p.VNI && e.Ifindex == p.Ifindex {
			return nil
		}
	}
	if len(p.MACs) == 0 && p.Unguarded {
		return nil // anything may be behind it
	}
	return f.bad("port %s is opened without an FDB entry", p.UID)
}

func (f *fakeKernel) OpenPort(id datapath.PortID, list []datapath.FDBEntry) error {
	return f.setHeld(id, false, list)
}

func (f *fakeKernel) HoldPort(id datapath.PortID, list []datapath.FDBEntry) error {
	return f.setHeld(id, true, list)
}

// setHeld writes both in one step, so that nothing is missing of what it checks.
func (f *fakeKernel) setHeld(id datapath.PortID, held bool, list []datapath.FDBEntry) error {
	if err := f.PutFDB(list); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.write()
	for ifindex, p := range f.ports {
		if p.ID != id {
			continue
		}
		p.Held, p.Watched = held, false
		if !held {
			if err := f.mayOpen(p); err != nil {
				return err
			}
		}
		f.ports[ifindex] = p
		return nil
	}
	return f.bad("port %d is opened or held and was not attached", id)
}

func (f *fakeKernel) DetachPort(ifindex uint32) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.write()
	if p, ok := f.ports[ifindex]; ok && !p.Held {
		return f.bad("port %s is detached while it is open", p.UID)
	}
	for _, e := range f.fdb {
		if e.VTEP == 0 && e.Ifindex == ifindex {
			return f.bad("interface %d is detached while FDB entry %v names it", ifindex, e.FDBKey)
		}
	}
	for _, n := range f.nets {
		if slices.Contains(n.LocalPorts, ifindex) {
			return f.bad("interface %d is detached while network %d floods to it", ifindex, n.VNI)
		}
	}
	delete(f.ports, ifindex)
	return nil
}

func (f *fakeKernel) Ports() ([]datapath.Port, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Values(f.ports)), nil
}

func (f *fakeKernel) ResetPort(datapath.PortID) error { return nil }

func (f *fakeKernel) PortCounters(id datapath.PortID) (datapath.PortCounters, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return datapath.PortCounters{IngressPackets: uint64(id)}, nil
}
func (f *fakeKernel) Drops() ([]datapath.DropCount, error) { return nil, nil }
func (f *fakeKernel) Books() ([]datapath.Books, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return []datapath.Books{{Program: "from_port", In: 36, Delivered: 1, Encapsulated: 2, Passed: 4, Dropped: 21, Copies: 5, Answers: 20, Answered: 8}}, nil
}
func (f *fakeKernel) Lanes() ([]datapath.LaneCount, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return []datapath.LaneCount{{Reason: datapath.LaneChecksum, Packets: 4}}, nil
}
func (f *fakeKernel) FloodCounts() (map[wire.VNI]datapath.FloodCount, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.flooded), nil
}
func (f *fakeKernel) Tables() []datapath.TableUse { return nil }
func (f *fakeKernel) Programs(int) []string       { return []string{"from_port on veth7, tcx, program 9"} }
func (f *fakeKernel) Capabilities() []datapath.Capability {
	f.mu.Lock()
	defer f.mu.Unlock()
	return []datapath.Capability{{Name: "tcx links", Present: true}, {Name: "GRO", Interface: "eth1", Detail: "gro"}}
}
func (f *fakeKernel) CheckXDP() error { return nil }
func (f *fakeKernel) Publish() error  { f.published++; return nil }

// Punts tells of nothing: no workload asks.
func (f *fakeKernel) Punts(context.Context, func(datapath.Punt)) error { return nil }

// FirstFrames passes what tests put into frames on.
func (f *fakeKernel) FirstFrames(ctx context.Context) (<-chan datapath.PortID, error) {
	return relay(ctx, f.frames), nil
}

func relay[T any](ctx context.Context, in <-chan T) <-chan T {
	out := make(chan T)
	go func() {
		defer close(out)
		for {
			select {
			case <-ctx.Done():
				return
			case v := <-in:
				out <- v
			}
		}
	}()
	return out
}

// word is a setting that differs from the usual, at the end of a line.
func word(on bool, w string) string {
	if !on {
		return ""
	}
	return " " + w
}

// settings are those of a network that differ from what is said of nothing.
func settings(n datapath.Network) string {
	s := word(n.DSCPUniform, "uniform") + word(n.BUMLimit > 0, fmt.Sprint("bum ", n.BUMLimit)) + word(n.Neighbours == 0, "floods")
	s += word(n.Learning.Ageing != 0, fmt.Sprintf("learns %s %d %d", n.Learning.Ageing, n.Learning.VTEPLimit, n.Learning.PortLimit)) + word(n.Open, "open") + word(n.Direct > 0, fmt.Sprint("direct ", n.Direct))
	return s + word(n.Neighbours&datapath.NeighboursClosed4 != 0, "closed4") + word(n.Neighbours&datapath.NeighboursClosed6 != 0, "closed6")
}

func claimText(claims []datapath.Claim) string {
	var list []string
	for _, c := range claims {
		s := "any"
		if c.IP.IsValid() {
			s = c.IP.String()
		}
		if !c.MAC.IsZero() {
			s += "=" + c.MAC.String()
		}
		list = append(list, s)
	}
	slices.Sort(list)
	return strings.Join(list, ",")
}

// String is every table, one line an entry, sorted: what stories expect.
func (f *fakeKernel) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for _, v := range f.vteps {
		add("vtep %d %s%s", v.ID, v.Addr, word(v.OuterChecksum, "checksum"))
	}
	for _, n := range f.nets {
		add("net %d mtu %d local %v remotes %v external %d%s", n.VNI, n.MTU, n.LocalPorts, n.Remotes, n.External, settings(n))
	}
	for _, e := range f.fdb {
		if e.VTEP != 0 {
			add("fdb %d %s vtep %d%s", e.VNI, e.MAC, e.VTEP, word(e.Flags&datapath.FDBForward != 0, "forward"))
		} else {
			add("fdb %d %s if %d", e.VNI, e.MAC, e.Ifindex)
		}
	}
	for _, n := range f.neighbours {
		add("neighbour %d %s %s%s", n.VNI, n.IP, n.MAC, word(n.Ask, "ask")+word(n.Router, "router"))
	}
	for a, id := range f.accepts {
		add("accept %d %s%s", a.VNI, a.Addr, word(id != 0, fmt.Sprintf("vtep %d", id)))
	}
	for g := range f.groups {
		add("group %d %s", g.VNI, g.Addr)
	}
	for s := range f.sources {
		add("source %d %s", s.VNI, s.Prefix)
	}
	for _, p := range f.ports {
		state := "open"
		if p.Held {
			state = "held"
		}
		add("port %s id %d if %d vni %d %s%s", p.UID, p.ID, p.Ifindex, p.VNI, state, word(p.FastPath, "xdp")+word(p.Watched, "watched")+
			word(p.BUMLimit > 0, fmt.Sprint("bum ", p.BUMLimit)))
		if len(p.Claims) > 0 {
			add("claims %s %s", p.UID, claimText(p.Claims))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}
