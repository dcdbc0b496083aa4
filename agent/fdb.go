package agent

import (
	"encoding/binary"

	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/wire"
)

// The FDB is the one table with a million entries, and what is known of its keys is kept so that one of them costs little: a small map for
// each network, which the caches hold while that network is looked at, keyed by the MAC as a number, with few octets an entry.

// macKey is a MAC as a number.
type macKey uint64

func keyOf(m wire.MAC) macKey {
	return macKey(binary.BigEndian.Uint32(m[:4]))<<16 | macKey(binary.BigEndian.Uint16(m[4:]))
}

func (k macKey) mac() (m wire.MAC) {
	binary.BigEndian.PutUint32(m[:4], uint32(k>>16))
	binary.BigEndian.PutUint16(m[4:], uint16(k))
	return m
}

// byMAC is something by FDB key. A network without an entry has no map.
type byMAC[V any] map[wire.VNI]map[macKey]V

func (b byMAC[V]) get(key datapath.FDBKey) (v V, ok bool) {
	v, ok = b[key.VNI][keyOf(key.MAC)]
	return v, ok
}

func (b byMAC[V]) put(key datapath.FDBKey, v V) { b.of(key.VNI, 1)[keyOf(key.MAC)] = v }

func (b byMAC[V]) drop(key datapath.FDBKey) {
	if of := b[key.VNI]; of != nil {
		if delete(of, keyOf(key.MAC)); len(of) == 0 {
			delete(b, key.VNI)
		}
	}
}

// of is a network's map; a new one has room for so many.
func (b byMAC[V]) of(vni wire.VNI, room int) map[macKey]V {
	of := b[vni]
	if of == nil && room > 0 {
		of = make(map[macKey]V, room)
		b[vni] = of
	}
	return of
}

// spot is where the kernel has a MAC: an entry without its key.
type spot struct {
	at     uint32 // a VTEP or an interface
	remote bool
	flags  datapath.FDBFlags
}

func spotOf(e datapath.FDBEntry) spot {
	if e.VTEP != 0 {
		return spot{at: uint32(e.VTEP), remote: true, flags: e.Flags}
	}
	return spot{at: e.Ifindex, flags: e.Flags}
}

// vtep is 0 for a local one.
func (s spot) vtep() datapath.VTEPID {
	if s.remote {
		return datapath.VTEPID(s.at)
	}
	return 0
}

type fdbWriter = writer[datapath.FDBKey, datapath.FDBEntry]

// putFDB writes what is new or differs. It returns the entries that nothing asks for any more, to be deleted once ports are
// open; no stage in between changes what is asked for.
func (r *Reconciler) putFDB(d *dirty) (gone []datapath.FDBKey) {
	for key := range r.failed.fdb {
		if _, known := r.tables.fdb.get(key); d.fdbOf[key.VNI] && !known && r.view.claimOf(key) == (claim{}) {
			delete(r.failed.fdb, key) // neither there nor asked for any more
		}
	}
	begin := func() *fdbWriter {
		return &fdbWriter{write: r.kernel.PutFDB, done: r.fdbDone, key: func(e datapath.FDBEntry) datapath.FDBKey { return e.FDBKey }, wasFailed: r.failed.fdb}
	}
	wanted := func(vni wire.VNI) int { return len(r.view.claims[vni]) }
	gone = inShares(r, d.fdbOf, r.tables.fdb, wanted, r.failed.fdb, begin, r.compareFDB)
	w := begin()
	for vni, macs := range d.fdb {
		for n := range macs {
			key := datapath.FDBKey{VNI: vni, MAC: n.mac()}
			want, ok := r.wantFDB(key)
			r.compareEntry(w, key, n, want, ok)
		}
	}
	w.end()
	return append(gone, w.merge(r.failed.fdb, &r.writes)...)
}

// compareFDB compares every entry that a network has or should have.
func (r *Reconciler) compareFDB(w *fdbWriter, vni wire.VNI) {
	claims := r.view.claims[vni]
	// Entries in a row mostly share a claim: of an external VTEP all do.
	var shared *claim
	var at datapath.FDBEntry
	var ok bool
	for n, c := range claims {
		key := datapath.FDBKey{VNI: vni, MAC: n.mac()}
		if c != shared {
			shared = c
			at, ok = r.claimed(key, c)
		}
		at.FDBKey = key
		r.compareEntry(w, key, n, at, ok)
	}
	for n := range r.tables.fdb[vni] {
		if _, claimed := claims[n]; !claimed {
			r.compareEntry(w, datapath.FDBKey{VNI: vni, MAC: n.mac()}, n, datapath.FDBEntry{}, false)
		}
	}
}

func (r *Reconciler) compareEntry(w *fdbWriter, key datapath.FDBKey, n macKey, want datapath.FDBEntry, ok bool) {
	have, known := r.tables.fdb[key.VNI][n]
	switch {
	case ok && (!known || have != spotOf(want)):
		w.add(want)
		return
	case !ok && known:
		w.remove(key)
	}
	w.right(key)
}

// fdbDone notes an entry that was written.
func (r *Reconciler) fdbDone(e datapath.FDBEntry) {
	r.tables.fdb.of(e.VNI, max(1, len(r.view.claims[e.VNI])))[keyOf(e.MAC)] = spotOf(e)
}

func (r *Reconciler) deleteFDB(gone []datapath.FDBKey) {
	batch(gone, r.kernel.DeleteFDB, func(key datapath.FDBKey, err error) {
		if err != nil {
			r.failed.fdb[key] = err
			return
		}
		r.deleted++
		r.writes++
		r.tables.fdb.drop(key)
	})
}
