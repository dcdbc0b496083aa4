package agent

import (
	"testing"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/plan"
	"github.com/weftnet/weft/wire"
)

// TestMACsAsNumbers: a MAC is the same after it was a number, and no two are one.
func TestMACsAsNumbers(t *testing.T) {
	seen := map[macKey]wire.MAC{}
	for _, m := range []wire.MAC{{}, {1, 2, 3, 4, 5, 6}, {6, 5, 4, 3, 2, 1}, {0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0xfa}, {0, 0, 0, 0, 0, 1}, {1}, {0, 0, 0, 1}} {
		k := keyOf(m)
		if k.mac() != m {
			t.Errorf("%s is %s after it was a number", m, k.mac())
		}
		if other, twice := seen[k]; twice {
			t.Errorf("%s and %s are one number", m, other)
		}
		seen[k] = m
	}
}

// TestFDBInBatches: entries of more than a batch are all written, those that do not fit are said, and are written when there is room. Leave
// the last settle out of writer.end and it goes red.
func TestFDBInBatches(t *testing.T) {
	const n = 2*writeBatch + 100*10
	w := newWorld(t)
	w.kernel.fdbLimit = n - 500
	for _, r := range planOf(n, 0) {
		w.put(r)
	}
	w.flush()
	if in, failed := len(w.kernel.fdb), len(w.rec.failed.fdb); in > n-500 || in+failed < n/100*100 {
		t.Errorf("%d entries are in the kernel and %d are said to be missing, of %d", in, failed, n)
	}
	w.kernel.fdbLimit = 0
	w.rec.Retry()
	w.rec.Flush()
	if got := w.errors(); got != "" {
		t.Errorf("with room there are still errors: %s", got)
	}
	w.check()
	writes := w.rec.writes
	w.rec.dirty.all = true
	w.rec.Flush()
	if w.rec.writes != writes {
		t.Errorf("comparing all again wrote %d entries", w.rec.writes-writes)
	}
}

// TestMissingEntryNobodyAsksFor: an entry that could not be written and is not asked for any more is no error, also where its whole network
// is compared. Leave the look at failed.fdb out of putFDB and it goes red.
func TestMissingEntryNobodyAsksFor(t *testing.T) {
	const n = 110_000 // in each of 100 networks more than touchMACs names one by one
	w := newWorld(t)
	// Nothing fits, as there is an entry that the reconciler does not know of, and so nothing is deleted either, which would make it try again.
	w.kernel.fdbLimit = 1
	w.kernel.fdb[datapath.FDBKey{VNI: 1}] = datapath.FDBEntry{}
	all := planOf(n, 0)
	for _, r := range all {
		w.put(r)
	}
	w.flush()
	if len(w.rec.failed.fdb) == 0 {
		t.Fatal("nothing is missing")
	}
	for _, r := range all {
		if m := r.Network(); m != nil {
			w.put(plan.NewNetwork(2, &planv1.Network{Uid: m.Uid, Vni: m.Vni, Mtu: m.Mtu}))
		}
	}
	w.flush()
	if got := w.errors(); got != "" {
		t.Errorf("entries that nobody asks for are errors: %.200s", got)
	}
	w.check()
}
