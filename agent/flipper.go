package agent

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/wire"
)

// flipper makes flips in the kernel at once, beside the loop, which may be busy for long: the loop works out what is to be written when a port
// begins to move. It is the Kernel that the Reconciler writes to, so that nothing the loop does undoes a flip before it has taken it in.
type flipper struct {
	Kernel
	self string
	mu   sync.Mutex
	// ready are the flips that may be made, by port; names finds those that are made here, by "tenant/name", and ids by the port's number.
	ready map[string]ready
	names map[string]string
	ids   map[datapath.PortID]string
	// gone are ports that left this host: where to, and the epoch since when.
	gone map[string]place
	// fresh are flips that the loop has not taken in yet, by port; rung tells it that there are.
	fresh map[string]made
	rung  chan struct{}
}

// ready is what a flip of a port writes.
type ready struct {
	flip flip
	// name is "tenant/name".
	name string
	// peer is the other host in the OAM network; zero: it cannot be spoken to there.
	peer wire.MAC
	// port is the interface's entry as it is to be; with Ifindex 0 there is none.
	port datapath.Port
	fdb  []datapath.FDBEntry
	// lacks is what is missing of what the port needs; empty: nothing. bare: it has no interface on the host that it comes to.
	lacks string
	bare  bool
}

// made is a flip that was written, or that failed on the way.
type made struct {
	ready
	err error
}

func newFlipper(k Kernel, self string) *flipper {
	return &flipper{Kernel: k, self: self, ready: map[string]ready{}, fresh: map[string]made{}, gone: map[string]place{}, rung: make(chan struct{}, 1)}
}

// errNotComing is why no flip is made of a port.
var errNotComing = errors.New("it is not on its way here")

// commit makes the flip of a port that comes here: its MACs are at its interface, and it is open, when it returns.
func (f *flipper) commit(uid string, cause planv1.CommitCause) (ready, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, ok := f.ready[uid]
	switch {
	case !ok || r.flip.To != f.self:
		return r, errNotComing
	case r.lacks != "":
		return r, errors.New(r.lacks)
	case r.bare:
		return r, errors.New("no interface is attached on this host")
	}
	r.flip.Cause = cause
	return r, f.write(r)
}

// believe makes the flip of a port that goes from here, if the plan has its move just so. It reports whether frames for it are
// forwarded to the claimant when it returns.
func (f *flipper) believe(c moveClaim, from wire.MAC) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m, ok := f.fresh[c.uid]; ok {
		return m.err == nil && m.flip.To == c.claimant && m.flip.Epoch == c.epoch && m.peer == from
	}
	if at, ok := f.gone[c.uid]; ok {
		return at.active == c.claimant && at.epoch >= c.epoch
	}
	r, ok := f.ready[c.uid]
	return ok && r.flip.From == f.self && r.flip.To == c.claimant && r.flip.Epoch == c.epoch && r.peer == from && r.lacks == "" &&
		f.write(r) == nil
}

// write makes a flip.
func (f *flipper) write(r ready) error {
	var err error
	switch {
	case r.port.Ifindex == 0:
		err = f.Kernel.PutFDB(r.fdb)
	case r.port.Held:
		err = f.Kernel.HoldPort(r.port.ID, r.fdb)
	default:
		err = f.Kernel.OpenPort(r.port.ID, r.fdb)
	}
	f.fresh[r.flip.UID] = made{r, err}
	delete(f.ready, r.flip.UID)
	select {
	case f.rung <- struct{}{}:
	default:
	}
	return err
}

// prepare says which flips may be made from now on, and which ports are gone already.
func (f *flipper) prepare(list map[string]ready, gone map[string]place) {
	names, ids := map[string]string{}, map[datapath.PortID]string{}
	for uid, r := range list {
		if r.flip.To == f.self {
			names[r.name], ids[r.port.ID] = uid, uid
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for uid := range f.fresh { // made meanwhile
		delete(list, uid)
	}
	f.ready, f.names, f.ids, f.gone = list, names, ids, gone
}

// take are the flips that were made since it was asked last.
func (f *flipper) take() []made {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []made
	for _, m := range f.fresh {
		list = append(list, m)
	}
	clear(f.fresh)
	return list
}

// named is the port of that name that may be committed, and numbered of that number.
func (f *flipper) named(name string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.names[name]
}

func (f *flipper) numbered(id datapath.PortID) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ids[id]
}

// What the loop writes of a port that was flipped, before it knows, is not written; when it takes the flip in it compares again.

func (f *flipper) UpdatePort(p datapath.Port) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.flipped(p.Ifindex) {
		return nil
	}
	return f.Kernel.UpdatePort(p)
}

func (f *flipper) DetachPort(ifindex uint32) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.flipped(ifindex) {
		return nil
	}
	return f.Kernel.DetachPort(ifindex)
}

func (f *flipper) flipped(ifindex uint32) bool {
	for _, m := range f.fresh {
		if m.port.Ifindex == ifindex {
			return true
		}
	}
	return false
}

// fdbAtOnce bounds how long a flip waits for the loop's entries.
const fdbAtOnce = 1000

func (f *flipper) PutFDB(list []datapath.FDBEntry) error {
	return inParts(f, list, func(e datapath.FDBEntry) datapath.FDBKey { return e.FDBKey }, f.Kernel.PutFDB)
}

func (f *flipper) DeleteFDB(list []datapath.FDBKey) error {
	return inParts(f, list, func(k datapath.FDBKey) datapath.FDBKey { return k }, f.Kernel.DeleteFDB)
}

func inParts[T any](f *flipper, list []T, key func(T) datapath.FDBKey, write func([]T) error) error {
	var failed error
	for part := range slices.Chunk(list, fdbAtOnce) {
		f.mu.Lock()
		err := write(without(f.fresh, part, key))
		f.mu.Unlock()
		failed = cmp.Or(failed, err) // those that fit are written all the same
	}
	return failed
}

// without leaves out what flips have written.
func without[T any](fresh map[string]made, list []T, key func(T) datapath.FDBKey) []T {
	if len(fresh) == 0 {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), func(item T) bool {
		for _, m := range fresh {
			if slices.ContainsFunc(m.fdb, func(e datapath.FDBEntry) bool { return e.FDBKey == key(item) }) {
				return true
			}
		}
		return false
	})
}

// Rehearse works out what the flip of a port would write here.
func (r *Reconciler) Rehearse(p *port) ready {
	w := p.planned
	f := flip{UID: p.uid, Epoch: w.epoch, From: w.active, To: w.incoming}
	list := ready{flip: f, name: p.tenant + "/" + p.name, peer: r.oamPeer(f.other(r.self))}
	now := p.place
	p.place = r.view.flipped(f)
	defer func() { p.place = now }()
	here, l, n := f.To == r.self, r.locals[p.uid], r.view.nets[p.network]
	want, why, ok := r.wantPort(p.uid)
	have := r.tables.ports[want.Ifindex]
	known := ok && have.UID == p.uid
	if known {
		list.port = have
		list.port.Held, list.port.Watched = want.Held, false
	}
	list.bare = here && l == nil
	switch {
	case n == nil || r.view.byVNI[n.vni] != n.uid:
		list.lacks = "its network is not in the plan of this host, or held"
		return list
	case list.bare || !here:
	case why != "":
		list.lacks = why
	case l.ifindex == 0:
		list.lacks = "its interface is not there"
	case !known:
		list.lacks = "it is not in the kernel yet"
	}
	if here && list.lacks == "" {
		list.lacks = r.lacks(p, n)
	}
	for _, mac := range p.macs {
		key := datapath.FDBKey{VNI: n.vni, MAC: mac}
		if r.view.claimOf(key).port != p.uid {
			continue
		}
		if e, ok := r.wantFDB(key); ok {
			list.fdb = append(list.fdb, e)
		} else if list.lacks == "" && !list.bare {
			list.lacks = fmt.Sprintf("MAC %s cannot be written yet", mac)
		}
	}
	return list
}

// other is the flip's other end.
func (f flip) other(self string) string {
	if f.To == self {
		return f.From
	}
	return f.To
}

// lacks says what of the surroundings of a port that comes here is not in the kernel: without them it would be open, and not reach everybody.
func (r *Reconciler) lacks(p *port, n *network) string {
	if err := r.missing(p.uid, n.vni); err != nil {
		return err.Error()
	}
	for m := range r.view.members.in[n.uid] {
		if err := r.failed.vteps[m]; err != nil {
			return fmt.Sprintf("VTEP %s could not be written: %v", m, err)
		}
	}
	return ""
}

// oamPeer is a host's address in the OAM network, if it has one of its own.
func (r *Reconciler) oamPeer(host string) wire.MAC {
	if v := r.view.vteps[host]; v != nil {
		if addr, ok := r.target(v); ok {
			if mac := oamMAC(addr, nativeLane); r.oam.peers[mac] == host {
				return mac
			}
		}
	}
	return wire.MAC{}
}

// wrote notes what a flip wrote.
func (r *Reconciler) wrote(m made) {
	for _, e := range m.fdb {
		r.tables.fdb.put(e.FDBKey, spotOf(e))
		delete(r.failed.fdb, e.FDBKey)
		r.dirty.touch(e.FDBKey)
	}
	if m.port.Ifindex != 0 {
		r.tables.ports[m.port.Ifindex] = m.port
	}
	r.dirty.ports[m.flip.UID] = true
	r.writes += len(m.fdb)
}

// moving works out every flip that may be made here, and where the ports went that left.
func (r *Reconciler) moving() (map[string]ready, map[string]place) {
	list, gone := map[string]ready{}, map[string]place{}
	for uid := range r.view.passing[r.self] {
		p := r.view.ports[uid]
		if _, done := r.view.flips[uid]; !done && p.stale == 0 && p.planned.incoming != "" {
			list[uid] = r.Rehearse(p)
		}
		if p.place.goes(r.self) {
			gone[uid] = p.place
		}
	}
	return list, gone
}

// has reports whether the loop is still to take a flip of that port in.
func (f *flipper) has(uid string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.fresh[uid]
	return ok
}
