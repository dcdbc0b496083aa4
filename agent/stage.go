package agent

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/wire"
)

// The stages of a pass, in their order: each compares the keys that are marked with the mirror of the kernel, and writes.

// holdPorts stops ports that may not send any more, before anything else.
func (r *Reconciler) holdPorts(d *dirty) {
	for ifindex, have := range r.tables.ports {
		if !d.ports[have.UID] || have.Held {
			continue
		}
		want, _, ok := r.portEntry(have.UID)
		if ok && want.Ifindex == ifindex && !want.Held && want.VNI == have.VNI {
			continue
		}
		have.Held = true
		r.writePort(have.UID, have, r.kernel.UpdatePort)
	}
}

// portEntry is wantPort, and the OAM network's own port.
func (r *Reconciler) portEntry(uid string) (datapath.Port, string, bool) {
	if uid == oamUID {
		return r.oam.port(r.portIDs[uid]), "", r.oam.ifindex != 0
	}
	return r.wantPort(uid)
}

func (r *Reconciler) writePort(uid string, p datapath.Port, write func(datapath.Port) error) {
	err := write(p)
	if slow := (*datapath.FastPathError)(nil); errors.As(err, &slow) { // the port works, in the tc lane
		p.FastPath, err = false, nil
		r.fast[uid] = fastPath{ifindex: p.Ifindex, why: slow.Error(), refused: true}
	}
	if err != nil {
		r.failed.ports[uid] = err
		return
	}
	delete(r.failed.ports, uid)
	r.tables.ports[p.Ifindex] = p
	r.writes++
}

func (r *Reconciler) putVTEPs(d *dirty) {
	var put []datapath.VTEP
	for _, uid := range slices.Sorted(maps.Keys(d.vteps)) {
		want, ok := r.wantVTEP(uid)
		if !ok {
			delete(r.failed.vteps, uid)
			continue
		}
		if want.ID == 0 {
			want.ID = r.number(uid, want)
		}
		if r.tables.vteps[want.ID] != want {
			put = append(put, want)
		}
	}
	batch(put, r.kernel.PutVTEPs, func(v datapath.VTEP, err error) {
		uid := r.uids[v.ID]
		if err != nil {
			r.failed.vteps[uid] = err
			if _, known := r.tables.vteps[v.ID]; !known {
				delete(r.ids, uid) // the next try may find a lower one free
				delete(r.uids, v.ID)
			}
			return
		}
		delete(r.failed.vteps, uid)
		if _, known := r.tables.vteps[v.ID]; !known {
			r.view.touchUsers(uid, d)
		}
		r.tables.vteps[v.ID] = v
		r.writes++
	})
}

// number finds a VTEP's id: the one the kernel has for the same end point, or else the lowest free one.
func (r *Reconciler) number(uid string, want datapath.VTEP) datapath.VTEPID {
	var id datapath.VTEPID
	for _, have := range r.tables.vteps {
		same := have
		same.ID = 0
		if _, taken := r.uids[have.ID]; !taken && same == want && (id == 0 || have.ID < id) {
			id = have.ID
		}
	}
	for next := datapath.VTEPID(1); id == 0; next++ {
		_, held := r.tables.vteps[next]
		if _, taken := r.uids[next]; !taken && !held {
			id = next
		}
	}
	r.ids[uid], r.uids[id] = id, uid
	return id
}

// putAccepts returns who is not accepted any more, to be deleted at the end; no stage in between changes who is.
func (r *Reconciler) putAccepts(d *dirty) (gone []datapath.Accept) {
	wanted := map[wire.VNI]map[datapath.Accept]datapath.VTEPID{}
	for a := range r.failed.accepts {
		if !d.accepts[a.VNI] {
			continue
		}
		if wanted[a.VNI] == nil {
			wanted[a.VNI] = map[datapath.Accept]datapath.VTEPID{}
			r.wantAccepts(a.VNI, wanted[a.VNI])
		}
		if _, ok := wanted[a.VNI][a]; !ok {
			delete(r.failed.accepts, a)
		}
	}
	begin := func() *acceptWriter {
		return &acceptWriter{write: r.kernel.PutTeachers, done: r.tables.accept, wasFailed: r.failed.accepts,
			key: func(t datapath.Teacher) datapath.Accept { return t.Accept }}
	}
	members := func(vni wire.VNI) int { return max(1, len(r.view.members.in[r.view.byVNI[vni]])) }
	return inShares(r, d.accepts, r.tables.accepts, members, r.failed.accepts, begin, r.compareAccepts)
}

type acceptWriter = writer[datapath.Accept, datapath.Teacher]

// compareAccepts compares who is accepted in a network with who should be.
func (r *Reconciler) compareAccepts(w *acceptWriter, vni wire.VNI) {
	want, have := map[datapath.Accept]datapath.VTEPID{}, r.tables.accepts[vni]
	r.wantAccepts(vni, want)
	for a, id := range want {
		if is, there := have[a]; !there || is != id {
			w.add(datapath.Teacher{Accept: a, VTEP: id})
		} else {
			w.right(a)
		}
	}
	for a := range have {
		if _, ok := want[a]; !ok {
			w.remove(a)
		}
	}
}

// wantSources are the prefixes from which a network takes unlisted VTEPs.
func (r *Reconciler) wantSources(vni wire.VNI) []netip.Prefix {
	if n := r.view.nets[r.view.byVNI[vni]]; n != nil {
		return n.sources
	}
	return nil
}

// putSources writes prefixes before the network says that it has some. One that does not fit is the network's error, until the next pass writes it.
func (r *Reconciler) putSources(d *dirty) {
	for vni := range d.nets {
		for _, p := range r.wantSources(vni) {
			s := datapath.Source{VNI: vni, Prefix: p}
			if r.tables.sources[s] {
				continue
			}
			if err := r.kernel.PutSources([]datapath.Source{s}); err != nil {
				r.failed.sources[vni] = err
				return
			}
			r.tables.sources[s] = true
			r.writes++
		}
		delete(r.failed.sources, vni)
	}
}

func (r *Reconciler) deleteSources(d *dirty) {
	for s := range r.tables.sources {
		if !d.nets[s.VNI] || slices.Contains(r.wantSources(s.VNI), s.Prefix) {
			continue
		}
		if err := r.kernel.DeleteSources([]datapath.Source{s}); err != nil {
			r.failed.sources[s.VNI] = err
			continue
		}
		r.deleted++
		r.writes++
		delete(r.tables.sources, s)
	}
}

// attachPorts brings entries up to date, without opening any.
func (r *Reconciler) attachPorts(d *dirty) {
	for _, uid := range slices.Sorted(maps.Keys(d.ports)) {
		want, _, ok := r.portEntry(uid)
		if !ok {
			delete(r.failed.ports, uid)
			continue
		}
		have, known := r.tables.ports[want.Ifindex]
		if known && have.UID == uid {
			want.Held = have.Held
			if !samePort(have, want) {
				r.writePort(uid, want, r.kernel.UpdatePort)
			}
			continue
		}
		if want.ID == 0 {
			want.ID = r.portNumber(uid)
			if err := r.kernel.ResetPort(want.ID); err != nil {
				r.failed.ports[uid] = err
				delete(r.portIDs, uid) // the next try may find a lower one free
				continue
			}
		}
		want.Held = true
		r.writePort(uid, want, r.kernel.AttachPort)
		if r.failed.ports[uid] != nil && !r.inKernel(uid) {
			delete(r.portIDs, uid)
		}
	}
}

func (r *Reconciler) portNumber(uid string) datapath.PortID {
	taken := map[datapath.PortID]bool{}
	for _, id := range r.portIDs {
		taken[id] = true
	}
	id := datapath.PortID(1)
	for taken[id] {
		id++
	}
	r.portIDs[uid] = id
	return id
}

func (r *Reconciler) putNetworks(d *dirty) {
	for _, vni := range slices.Sorted(maps.Keys(d.nets)) {
		want, ok := r.wantNetwork(vni)
		if !ok {
			delete(r.failed.nets, vni)
			continue
		}
		if have, known := r.tables.nets[vni]; known && sameNetwork(have, want) {
			delete(r.failed.nets, vni)
			continue
		}
		if err := r.kernel.PutNetwork(want); err != nil {
			r.failed.nets[vni] = err
			continue
		}
		delete(r.failed.nets, vni)
		r.tables.nets[vni] = want
		r.writes++
	}
}

// openPorts lets ports send for which everything is in place.
func (r *Reconciler) openPorts(d *dirty) {
	for uid := range d.ports {
		want, _, ok := r.portEntry(uid)
		if !ok || want.Held {
			continue
		}
		have, known := r.tables.ports[want.Ifindex]
		if !known || have.UID != uid || !have.Held || r.missing(uid, want.VNI) != nil {
			continue
		}
		r.writePort(uid, want, r.kernel.UpdatePort)
	}
}

// missing says what of a port's surroundings is not in the kernel.
func (r *Reconciler) missing(uid string, vni wire.VNI) error {
	if err := r.failed.nets[vni]; err != nil {
		return fmt.Errorf("its network could not be written: %w", err)
	}
	if _, ok := r.tables.nets[vni]; !ok {
		return errors.New("its network is not in the kernel yet")
	}
	if err := r.failed.ports[uid]; err != nil {
		return err
	}
	for a, err := range r.failed.accepts {
		if a.VNI == vni {
			return fmt.Errorf("VTEP %s could not be accepted: %w", a.Addr, err)
		}
	}
	if p := r.view.ports[uid]; p != nil {
		for _, mac := range p.macs {
			if err := r.failed.fdb[datapath.FDBKey{VNI: vni, MAC: mac}]; err != nil {
				return fmt.Errorf("MAC %s could not be written: %w", mac, err)
			}
		}
	}
	return nil
}

func (r *Reconciler) deleteNetworks(d *dirty) {
	for vni := range d.nets {
		if _, known := r.tables.nets[vni]; !known {
			continue
		}
		if r.wantsNetwork(vni) {
			continue
		}
		if err := r.kernel.DeleteNetwork(vni); err != nil {
			r.failed.nets[vni] = err
			continue
		}
		r.deleted++
		r.writes++
		delete(r.tables.nets, vni)
	}
}

func (r *Reconciler) detachPorts(d *dirty) {
	for ifindex, have := range r.tables.ports {
		if !d.ports[have.UID] {
			continue
		}
		want, _, ok := r.portEntry(have.UID)
		if ok && want.Ifindex == ifindex {
			continue
		}
		if err := r.kernel.DetachPort(ifindex); err != nil {
			r.failed.ports[have.UID] = err
			continue
		}
		r.deleted++
		r.writes++
		delete(r.tables.ports, ifindex)
	}
	for uid := range d.ports {
		l := r.locals[uid] // one whose interface is gone is numbered anew when that comes back: meanwhile nothing but a file knows what it counted
		if r.portIDs[uid] != 0 && (l == nil || l.ifindex == 0) && uid != oamUID && !r.inKernel(uid) {
			r.ended(uid, r.portIDs[uid])
			delete(r.portIDs, uid)
			delete(r.failed.ports, uid)
		}
	}
}

func (r *Reconciler) inKernel(uid string) bool {
	for _, have := range r.tables.ports {
		if have.UID == uid {
			return true
		}
	}
	return false
}

func (r *Reconciler) deleteAccepts(gone []datapath.Accept) {
	batch(gone, r.kernel.DeleteAccepts, func(a datapath.Accept, err error) {
		if err != nil {
			r.failed.accepts[a] = err
			return
		}
		r.deleted++
		r.writes++
		r.tables.refuse(a)
	})
}

// deleteVTEPs removes those that nothing names any more; one that is still named stays until it is not.
func (r *Reconciler) deleteVTEPs(d *dirty) {
	gone := map[datapath.VTEPID]bool{}
	for uid := range d.vteps {
		if id := r.ids[uid]; id != 0 {
			if _, ok := r.wantVTEP(uid); !ok {
				gone[id] = true
			}
		}
	}
	if d.all {
		for id := range r.tables.vteps {
			if _, known := r.uids[id]; !known {
				gone[id] = true
			}
		}
	}
	if len(gone) == 0 {
		return
	}
	for vni := range r.tables.fdb {
		for _, s := range r.tables.fdb[vni] {
			r.spare(gone, s.vtep())
		}
	}
	for _, n := range r.tables.nets {
		for _, id := range n.Remotes {
			r.spare(gone, id)
		}
	}
	batch(slices.Sorted(maps.Keys(gone)), r.kernel.DeleteVTEPs, func(id datapath.VTEPID, err error) {
		if err != nil {
			r.failed.vteps[r.uids[id]] = err
			return
		}
		r.deleted++
		r.writes++
		delete(r.tables.vteps, id)
		delete(r.ids, r.uids[id])
		delete(r.uids, id)
	})
}

func (r *Reconciler) spare(gone map[datapath.VTEPID]bool, id datapath.VTEPID) {
	if gone[id] {
		delete(gone, id)
		if uid := r.uids[id]; uid != "" {
			r.dirty.vteps[uid] = true
		} else {
			r.dirty.all = true
		}
	}
}

// batch writes items at once, and one by one when that fails, to learn which did not fit.
func batch[T any](items []T, write func([]T) error, done func(T, error)) {
	if len(items) > 0 {
		failed := 0
		settle(items, write(items), &failed, write, done)
	}
}

// settle is what follows the writing of a batch. failed counts what did not fit, in this batch and those before it.
func settle[T any](items []T, err error, failed *int, write func([]T) error, done func(T, error)) {
	if err == nil {
		for _, item := range items {
			done(item, nil)
		}
		return
	}
	for _, item := range items {
		if *failed < mostFailures {
			err = write([]T{item})
		}
		if err != nil {
			*failed++
		}
		done(item, err)
	}
}
