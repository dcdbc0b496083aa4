package agent

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/plan"
	"github.com/weftnet/weft/wire"
)

// Reconciler turns plan and attachments into kernel tables. It is owned by the loop and not safe for concurrent use.
//
// Flush writes in an order that is safe to stop after any write (rules 2 and 3):
//
//	hold -> VTEPs -> accepts, groups -> attach, held -> sources -> networks -> FDB -> neighbours -> open ->
//	delete neighbours -> delete FDB -> delete networks -> delete sources -> detach -> delete groups, accepts -> delete VTEPs
type Reconciler struct {
	kernel Kernel
	self   string
	local  datapath.Local
	view   *view
	// checker follows the plan beside the view, and finds what contradicts itself in it.
	checker *plan.Checker
	// contested are networks that are kept out of the view as their VNI is another's too.
	contested map[string]change
	// doubts are about resources that the plan contradicts or leaves incomplete.
	doubts map[plan.Key]string
	tables *tables
	locals map[string]*local
	// fast says of the ports that are to be in the XDP lane whether their interfaces are fit for it.
	fast map[string]fastPath
	oam  oam
	// sender is the index of the uplink that packets to groups leave by.
	sender uint32

	// unlisted are VTEPs that no plan names, by the network that they came to.
	unlisted map[string]*unlisted

	ids     map[string]datapath.VTEPID
	uids    map[datapath.VTEPID]string
	portIDs map[string]datapath.PortID

	dirty  *dirty
	failed failures
	log    *slog.Logger
	// ended is told of a port whose number is about to be another's; its counters are the last.
	ended func(uid string, id datapath.PortID)
	// deleted counts deletions of a pass: room for what did not fit before.
	deleted int
	// writes counts entries written and deleted, ever.
	writes int
}

// failures are writes that did not succeed, by what was to be written.
type failures struct {
	vteps   map[string]error
	nets    map[wire.VNI]error
	accepts map[datapath.Accept]error
	sources map[wire.VNI]error
	groups  map[datapath.Group]error
	joins   map[netip.Addr]error
	fdb     map[datapath.FDBKey]error
	// neighbours that are not there are asked for, as addresses that nobody knows.
	neighbours map[datapath.NeighbourKey]error
	ports      map[string]error
}

// mostFailures is how many entries of failed batches a writer tries one by one before the rest is given the same error.
const mostFailures = 256

// NewReconciler starts with no plan, no attachments and no knowledge of the kernel: call Load, Adopt and Flush.
func NewReconciler(k Kernel, self string, end datapath.Local, log *slog.Logger) *Reconciler {
	r := &Reconciler{
		kernel: k, self: self, local: end, view: newView(), locals: map[string]*local{}, fast: map[string]fastPath{}, log: log,
		checker: plan.NewChecker(self, plan.Features()), contested: map[string]change{}, doubts: map[plan.Key]string{},
		unlisted: map[string]*unlisted{}, ids: map[string]datapath.VTEPID{}, uids: map[datapath.VTEPID]string{}, portIDs: map[string]datapath.PortID{},
		ended: func(string, datapath.PortID) {},
		failed: failures{
			vteps: map[string]error{}, nets: map[wire.VNI]error{}, accepts: map[datapath.Accept]error{}, sources: map[wire.VNI]error{},
			groups: map[datapath.Group]error{}, joins: map[netip.Addr]error{},
			fdb: map[datapath.FDBKey]error{}, neighbours: map[datapath.NeighbourKey]error{}, ports: map[string]error{},
		},
	}
	r.dirty, r.checker.Spread = r.newDirty(), onAllCores
	return r
}

// newDirty marks ports only where they concern this host's interfaces. Most of a plan's are elsewhere.
func (r *Reconciler) newDirty() *dirty {
	d := newDirty()
	d.concerns = func(uid string) bool {
		return r.locals[uid] != nil || r.portIDs[uid] != 0 || r.failed.ports[uid] != nil
	}
	return d
}

// change is one resource of an update in decoded form; a nil value is a removal.
type change struct {
	kind  planv1.Kind
	uid   string
	value any
	// lacks is a feature the resource requires and this agent does not know.
	lacks string
}

// Apply takes an update of the plan in. Nothing is written before Flush.
func (r *Reconciler) Apply(changes []change) {
	r.view.expect(changes)
	for _, c := range changes {
		if c.value == nil {
			r.view.remove(c.kind, c.uid, r.dirty)
		} else {
			r.view.unclaim(c.value, r.dirty)
		}
	}
	for _, c := range changes {
		if c.value == nil {
			continue
		}
		r.lack(c)
		r.view.put(c.value, r.dirty)
	}
	clear(r.view.expected)
}

// lack notes or forgets a feature that a resource requires; the host's own concerns every port.
func (r *Reconciler) lack(c change) {
	if c.lacks == r.view.lacking[c.uid] {
		return
	}
	r.view.lacking[c.uid] = c.lacks
	if c.lacks == "" {
		delete(r.view.lacking, c.uid)
	}
	if c.kind == planv1.Kind_KIND_HOST {
		for uid := range r.locals {
			r.dirty.ports[uid] = true
		}
	}
}

// SetAttached says which interface a port has here now; nil is none.
func (r *Reconciler) SetAttached(uid string, l *local) {
	if l == nil {
		delete(r.locals, uid)
	} else {
		r.locals[uid] = l
	}
	r.dirty.ports[uid] = true
	if p := r.view.ports[uid]; p != nil {
		r.view.touchFDB(p, r.dirty)
	}
}

// SetFast says whether a port's interface is fit for the XDP lane; the zero fastPath is that nobody asks. It reports a change.
func (r *Reconciler) SetFast(uid string, f fastPath) bool {
	if r.fast[uid] == f {
		return false
	}
	r.fast[uid] = f
	if f == (fastPath{}) {
		delete(r.fast, uid)
	}
	r.dirty.ports[uid] = true
	return true
}

// SetLocal changes this host's own end; every VTEP's choice of address may follow.
func (r *Reconciler) SetLocal(l datapath.Local) error {
	if err := r.kernel.SetLocal(l); err != nil {
		return fmt.Errorf("set local tunnel end: %w", err)
	}
	if l != r.local {
		r.local = l
		r.dirty.all = true
	}
	return nil
}

// SetOAM gives the probes' interface.
func (r *Reconciler) SetOAM(ifindex uint32) {
	self := r.local.Addr4
	if !self.IsValid() {
		self = r.local.Addr6
	}
	if r.oam.ifindex != ifindex || r.oam.self != self {
		r.oam.ifindex, r.oam.self = ifindex, self
		r.dirty.all = true
	}
}

// Load reads the kernel's tables; the next Flush compares all of them. It returns how VTEPs and ports are numbered to
// what they were.
func (r *Reconciler) Load() error {
	t, err := dump(r.kernel)
	if err != nil {
		return fmt.Errorf("read the kernel's tables: %w", err)
	}
	r.tables = t
	r.recallUnlisted(time.Now())
	for _, p := range t.ports {
		if r.portIDs[p.UID] == 0 {
			r.portIDs[p.UID] = p.ID
		}
	}
	r.dirty.all = true
	return nil
}

// Dirty reports whether Flush has something to compare.
func (r *Reconciler) Dirty() bool {
	d := r.dirty
	return d.all || len(d.vteps)+len(d.nets)+len(d.accepts)+len(d.fdb)+len(d.fdbOf)+len(d.neighbours)+len(d.neighboursOf)+len(d.ports)+len(d.portsOf) > 0
}

// Flush writes the difference. What could not be written stands in Errors and is tried again by Retry.
func (r *Reconciler) Flush() {
	for range 2 {
		r.deleted = 0
		r.pass()
		if r.deleted == 0 || !r.anyFailed() {
			return
		}
		r.Retry() // the deletions may have made room
	}
}

// Retry marks what failed.
func (r *Reconciler) Retry() {
	for uid := range r.failed.vteps {
		r.dirty.vteps[uid] = true
		r.view.touchUsers(uid, r.dirty)
	}
	for vni := range r.failed.nets {
		r.dirty.nets[vni] = true
		r.touchPortsOf(vni)
	}
	for vni := range r.failed.sources {
		r.dirty.nets[vni] = true
	}
	for a := range r.failed.accepts {
		r.dirty.accepts[a.VNI] = true
		r.touchPortsOf(a.VNI)
	}
	for g := range r.failed.groups {
		r.dirty.nets[g.VNI] = true
	}
	for key := range r.failed.fdb {
		r.dirty.touch(key)
		if c := r.view.claimOf(key); c.port != "" {
			r.dirty.ports[c.port] = true
		}
	}
	for key := range r.failed.neighbours {
		r.dirty.touchAddress(key)
	}
	for uid := range r.failed.ports {
		r.dirty.ports[uid] = true
	}
}

func (r *Reconciler) touchPortsOf(vni wire.VNI) {
	if uid := r.view.byVNI[vni]; uid != "" {
		r.dirty.portsOf[uid] = true
	}
}

func (r *Reconciler) anyFailed() bool {
	f := &r.failed
	return len(f.vteps)+len(f.nets)+len(f.accepts)+len(f.sources)+len(f.groups)+len(f.joins)+len(f.fdb)+len(f.neighbours)+len(f.ports) > 0
}

// pass is one way through the stages.
func (r *Reconciler) pass() {
	d := r.dirty
	r.dirty = r.newDirty()
	r.expand(d)
	r.holdPorts(d)
	r.putVTEPs(d)
	refused := r.putAccepts(d)
	r.putGroups(d)
	r.attachPorts(d)
	r.putSources(d)
	r.putNetworks(d)
	gone := r.putFDB(d)
	lost := r.putNeighbours(d)
	r.openPorts(d)
	r.deleteNeighbours(lost)
	r.deleteFDB(gone)
	r.deleteNetworks(d)
	r.deleteSources(d)
	r.detachPorts(d)
	r.deleteGroups(d)
	r.deleteAccepts(refused)
	r.deleteVTEPs(d)
}

// expand turns "all" and "this network's ports" into keys, and marks what a change to a port drags along.
func (r *Reconciler) expand(d *dirty) {
	if d.all {
		r.expandAll(d)
	}
	if len(d.vteps) > 0 || d.all {
		for _, mac := range r.oam.index(r) {
			d.touch(datapath.FDBKey{VNI: wire.OAMVNI, MAC: mac})
		}
		for _, mac := range r.oam.indexGroups(r) {
			d.touch(datapath.FDBKey{VNI: wire.OAMVNI, MAC: mac})
		}
		for mac, g := range r.oam.groups { // one may have got its number, or another uplink
			if d.vteps[groupUID(g)] {
				d.touch(datapath.FDBKey{VNI: wire.OAMVNI, MAC: mac})
			}
		}
	}
	if len(d.nets) > 0 || d.all {
		d.nets[wire.OAMVNI] = true // its groups are those of all networks
		r.oam.regroup = true
	}
	for net := range d.portsOf {
		for uid := range r.locals {
			if p := r.view.ports[uid]; p != nil && p.network == net {
				d.ports[uid] = true
			}
		}
	}
	for uid := range d.ports {
		if p := r.view.ports[uid]; p != nil && (r.locals[uid] != nil || r.portIDs[uid] != 0) {
			if n := r.view.nets[p.network]; n != nil {
				d.nets[n.vni] = true
				r.view.touchFDB(p, d)
			}
		}
	}
	for _, have := range r.tables.ports {
		if d.ports[have.UID] {
			d.nets[have.VNI] = true
		}
	}
}

func (r *Reconciler) expandAll(d *dirty) {
	for uid := range r.view.vteps {
		d.vteps[uid] = true
	}
	for uid := range r.ids {
		d.vteps[uid] = true
	}
	for vni := range r.view.byVNI {
		d.nets[vni], d.accepts[vni] = true, true
	}
	for vni := range r.tables.nets {
		d.nets[vni] = true
	}
	for uid := range r.view.netsOf { // those of groups among them
		d.vteps[uid] = true
	}
	for g := range r.tables.groups {
		d.nets[g.VNI] = true
	}
	for vni := range r.tables.accepts {
		d.accepts[vni] = true
	}
	for s := range r.tables.sources {
		d.nets[s.VNI] = true
	}
	d.nets[wire.OAMVNI], d.accepts[wire.OAMVNI] = true, true
	for vni := range r.view.claims {
		d.touchAll(vni)
	}
	for vni := range r.tables.fdb {
		if vni != wire.OAMVNI {
			d.touchAll(vni)
		}
	}
	for mac := range r.tables.fdb[wire.OAMVNI] {
		d.touch(datapath.FDBKey{VNI: wire.OAMVNI, MAC: mac.mac()})
	}
	for vni := range r.view.addresses {
		d.touchAddresses(vni)
	}
	for vni := range r.tables.neighbours {
		d.touchAddresses(vni)
	}
	for mac := range r.oam.groups {
		d.touch(datapath.FDBKey{VNI: wire.OAMVNI, MAC: mac})
	}
	for mac := range r.oam.peers {
		d.touch(datapath.FDBKey{VNI: wire.OAMVNI, MAC: mac})
	}
	if r.oam.ifindex != 0 {
		for _, mac := range r.oam.macs() {
			d.touch(datapath.FDBKey{VNI: wire.OAMVNI, MAC: mac})
		}
	}
	for uid := range r.locals {
		d.ports[uid] = true
	}
	for _, have := range r.tables.ports {
		d.ports[have.UID] = true
	}
	d.ports[oamUID] = true
}

// Errors are the objects that could not be put in the kernel, one line each.
func (r *Reconciler) Errors() []*planv1.ResourceError {
	var list []*planv1.ResourceError
	add := func(kind planv1.Kind, uid string, format string, args ...any) {
		list = append(list, &planv1.ResourceError{Kind: kind, Uid: uid, Message: fmt.Sprintf(format, args...)})
	}
	for uid, err := range r.failed.vteps {
		add(planv1.Kind_KIND_VTEP, uid, "VTEP table: %v", err)
	}
	for vni, err := range r.failed.nets {
		add(planv1.Kind_KIND_NETWORK, r.view.byVNI[vni], "network table: %v", err)
	}
	for vni, err := range r.failed.sources {
		add(planv1.Kind_KIND_NETWORK, r.view.byVNI[vni], "table of sources: %v", err)
	}
	for a, err := range r.failed.accepts {
		add(planv1.Kind_KIND_NETWORK, r.view.byVNI[a.VNI], "accept table, VTEP %s: %v", a.Addr, err)
	}
	r.groupErrors(add)
	for key, err := range r.failed.fdb {
		c := r.view.claimOf(key)
		if c.port != "" {
			add(planv1.Kind_KIND_PORT, c.port, "FDB, MAC %s: %v", key.MAC, err)
		} else {
			add(planv1.Kind_KIND_NETWORK, r.view.byVNI[key.VNI], "FDB, MAC %s: %v", key.MAC, err)
		}
	}
	for key, err := range r.failed.neighbours {
		if h, _ := r.view.addresses.get(key); h.owner != "" {
			add(planv1.Kind_KIND_PORT, h.owner, "neighbour table, address %s: %v", key.IP, err)
		} else {
			add(planv1.Kind_KIND_NETWORK, r.view.byVNI[key.VNI], "neighbour table, address %s: %v", key.IP, err)
		}
	}
	for uid, err := range r.failed.ports {
		add(planv1.Kind_KIND_PORT, uid, "port table: %v", err)
	}
	for uid := range r.view.stale {
		add(planv1.Kind_KIND_PORT, uid, "binding refused: epoch %d is lower than %d, which was seen", r.view.ports[uid].stale, r.view.epochs[uid])
	}
	for key, why := range r.doubts {
		p := r.view.ports[key.UID]
		here := p != nil && p.place.active == r.self // then it needs no VTEP
		if !here && r.view.lacking[key.UID] == "" && r.view.broken[key] == "" {
			add(key.Kind, key.UID, "%s", why)
		}
	}
	for uid, lacks := range r.view.lacking {
		add(r.view.kindOf(uid), uid, "requires %q, which this version of weft does not know", lacks)
	}
	for key, message := range r.view.broken {
		add(key.Kind, key.UID, "%s", message)
	}
	slices.SortFunc(list, func(a, b *planv1.ResourceError) int {
		if a.Kind != b.Kind {
			return int(a.Kind) - int(b.Kind)
		}
		return strings.Compare(a.Uid+a.Message, b.Uid+b.Message)
	})
	return list
}
