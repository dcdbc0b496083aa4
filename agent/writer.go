package agent

import (
	"maps"
	"runtime"
	"sync"

	"github.com/weftnet/weft/wire"
)

// writeBatch entries are written at once; while that is done the next are worked out.
const writeBatch = 1 << 13

// writer puts many entries in a table of the kernel, beside whoever works them out, and notes what became of each. What it notes is its own until
// it is merged: several may be at work on the same table.
type writer[K comparable, T any] struct {
	// write puts entries in the kernel; done is told of each that is there.
	write func([]T) error
	done  func(T)
	key   func(T) K
	// wasFailed are those that could not be written before.
	wasFailed map[K]error

	put []T
	// under is being written; written is told how that went.
	under   []T
	written chan error
	misfits int

	writes int
	failed map[K]error
	cured  []K
	gone   []K
}

// add takes an entry that is to be written.
func (w *writer[K, T]) add(item T) {
	if w.put = append(w.put, item); len(w.put) == writeBatch {
		w.start()
	}
}

// remove takes a key that nothing asks for any more, to be deleted later.
func (w *writer[K, T]) remove(key K) { w.gone = append(w.gone, key) }

// right notes that an entry is as it should be.
func (w *writer[K, T]) right(key K) {
	if len(w.wasFailed) > 0 {
		w.cured = append(w.cured, key)
	}
}

// start writes what there is beside the loop, once that before it is written.
func (w *writer[K, T]) start() {
	spare := w.under[:0]
	w.settle()
	w.under, w.put = w.put, spare
	w.written = make(chan error, 1)
	go func(list []T, written chan error) { written <- w.write(list) }(w.under, w.written)
}

// settle waits for what is being written.
func (w *writer[K, T]) settle() {
	if w.written != nil {
		settle(w.under, <-w.written, &w.misfits, w.write, w.note)
		w.written = nil
	}
}

// end writes the rest, and returns when all is written.
func (w *writer[K, T]) end() {
	w.settle()
	if len(w.put) > 0 {
		settle(w.put, w.write(w.put), &w.misfits, w.write, w.note)
	}
}

func (w *writer[K, T]) note(item T, err error) {
	key := w.key(item)
	if err != nil {
		if w.failed == nil {
			w.failed = map[K]error{}
		}
		w.failed[key] = err
		return
	}
	w.right(key)
	w.done(item)
	w.writes++
}

// merge takes over what a writer noted, and returns what is to be deleted.
func (w *writer[K, T]) merge(failed map[K]error, writes *int) (gone []K) {
	for _, key := range w.cured {
		delete(failed, key)
	}
	maps.Copy(failed, w.failed)
	*writes += w.writes
	return w.gone
}

// inShares has writers compare networks, side by side where many entries are wanted of them together, each its own. Every network has its map in the table
// before that, so that a share writes to none that is another's; what stays empty goes again. It returns what is to be deleted.
func inShares[K, N comparable, V, T any](r *Reconciler, set map[wire.VNI]bool, table map[wire.VNI]map[N]V, wanted func(wire.VNI) int, failed map[K]error,
	begin func() *writer[K, T], compare func(*writer[K, T], wire.VNI)) (gone []K) {
	vnis, entries := make([]wire.VNI, 0, len(set)), 0
	for vni := range set {
		n := wanted(vni)
		if table[vni] == nil && n > 0 {
			table[vni] = make(map[N]V, n)
		}
		vnis, entries = append(vnis, vni), entries+n
	}
	shares := 1
	if entries >= many {
		shares = min(runtime.GOMAXPROCS(0), len(vnis))
	}
	writers := make([]*writer[K, T], shares)
	for i := range writers {
		writers[i] = begin()
	}
	part := func(share int) {
		for _, vni := range vnis[share*len(vnis)/shares : (share+1)*len(vnis)/shares] {
			compare(writers[share], vni)
		}
		writers[share].end()
	}
	var others sync.WaitGroup
	for share := 1; share < shares; share++ {
		others.Go(func() { part(share) })
	}
	part(0)
	others.Wait()
	for _, w := range writers {
		gone = append(gone, w.merge(failed, &r.writes)...)
	}
	for _, vni := range vnis {
		if of, there := table[vni]; there && len(of) == 0 {
			delete(table, vni)
		}
	}
	return gone
}
