package agent

import (
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/weftnet/weft/plan"
)

// snapshotFile is the last plan on disk, twice:
//
//	plan.snapshot  survives a loss of power; written beside the loop, a moment after the changes it holds
//	plan.recent    survives the death of the process; written before the kernel is, so that no kernel is ever newer than
//	               what the next agent finds, which would take it back to what was
//
// A plan of more than mostRecent resources has no plan.recent: writing it would hold up the change.
type snapshotFile struct {
	dir string
	mu  sync.Mutex
	// written is the number of the newest that is there.
	written uint64
}

// mostRecent resources take about a millisecond to write.
const mostRecent = 4096

func (f *snapshotFile) path() string   { return filepath.Join(f.dir, "plan.snapshot") }
func (f *snapshotFile) recent() string { return filepath.Join(f.dir, "plan.recent") }

// read is the last plan, or an empty one.
func (f *snapshotFile) read(log *slog.Logger) plan.Snapshot {
	snapshot, recent := readSnapshot(f.path(), log), readSnapshot(f.recent(), log)
	newer := recent.Revision > snapshot.Revision
	if recent.StoreID != snapshot.StoreID {
		newer = recent.Written.After(snapshot.Written)
	}
	if recent.StoreID != "" && newer {
		return recent
	}
	return snapshot
}

// readSnapshot reads one file. One that cannot be used is set aside and said, since the kernel still forwards and a server
// will bring the plan again.
func readSnapshot(path string, log *slog.Logger) plan.Snapshot {
	empty := plan.Snapshot{Set: plan.NewSet(), Epochs: map[string]int64{}}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return empty
	}
	var s plan.Snapshot
	if err == nil {
		s, err = plan.DecodeSnapshot(b)
	}
	if err != nil {
		log.Error("the plan's snapshot cannot be used; the kernel stays as it is until a server sends the plan", "file", path, "err", err)
		if err := os.Rename(path, path+".bad"); err != nil {
			log.Error("the snapshot could not be set aside", "err", err)
		}
		return empty
	}
	if s.Epochs == nil {
		s.Epochs = map[string]int64{}
	}
	return s
}

// writeRecent replaces plan.recent, or takes it away when the plan is too large for it.
func (f *snapshotFile) writeRecent(s plan.Snapshot) error {
	if s.Set.Len()+len(s.Epochs) > mostRecent {
		if err := os.Remove(f.recent()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	b, err := s.Encode()
	if err != nil {
		return err
	}
	aside := f.recent() + ".new"
	if err := os.WriteFile(aside, b, 0o600); err != nil {
		return err
	}
	return os.Rename(aside, f.recent())
}

// write replaces the file, unless a newer one is there: two may be under way at once.
func (f *snapshotFile) write(number uint64, s plan.Snapshot) error {
	b, err := s.Encode()
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if number <= f.written {
		return nil
	}
	if err := writeFile(f.path(), b); err != nil {
		return err
	}
	f.written = number
	return nil
}

// saving is the loop's part in writing the plan down, which goes on beside it: 100,000 ports take longer than a change may.
type saving struct {
	writing sync.WaitGroup
	busy    bool
	// saved tells that a write has ended.
	saved chan error
	// snapshots numbers them; changed numbers the plans that were taken in, of which the one numbered kept is on the disk, and the one
	// numbered begun is on its way.
	snapshots, changed, kept, begun uint64
	// waiters go on when the plan that they wait for is on the disk. leaving has the numbers of the plans by which ports went away from here.
	waiters []diskWaiter
	leaving map[string]uint64
}

// diskWaiter waits for the plan of that number, or a newer one: not for the newest, as there may always be a newer one.
type diskWaiter struct {
	number uint64
	then   func()
}

// onDisk reports whether the plan is on the disk as it is now.
func (a *Agent) onDisk() bool { return a.kept == a.changed }

// whenOnDisk does something, in the loop, once the plan as it is now has been written down.
func (a *Agent) whenOnDisk(then func()) {
	a.waiters = append(a.waiters, diskWaiter{a.changed, then})
	a.startSnapshot()
}

// startSnapshot writes the plan down beside the loop, after what is under way.
func (a *Agent) startSnapshot() {
	if !a.known {
		return
	}
	if a.busy {
		later(&a.snapshotAt, snapshotDelay)
		return
	}
	a.snapshotAt = time.Time{}
	a.busy, a.begun = true, a.changed
	a.snapshots++
	seq, snap := a.snapshots, a.snapshot()
	snap.Set, snap.Epochs = snap.Set.Clone(), maps.Clone(snap.Epochs)
	a.writing.Go(func() { a.saved <- a.file.write(seq, snap) })
}

// snapshotDone takes in that a write has ended. One that failed holds nobody up: what was to be on the disk first is said, and goes on.
func (a *Agent) snapshotDone(err error) {
	a.busy = false
	if err != nil {
		a.log.Error("the plan's snapshot could not be written; it is tried again", "err", err)
		later(&a.snapshotAt, retryEvery)
	}
	a.kept = a.begun
	waiters := a.waiters
	a.waiters = nil
	for _, w := range waiters {
		if w.number > a.kept {
			a.waiters = append(a.waiters, w)
		} else {
			w.then()
		}
	}
	if len(a.waiters) > 0 && !a.busy {
		a.startSnapshot()
	}
}

// mayLeave are those of the ports that went away whose going is on the disk; it is seen to that the others come again.
func (a *Agent) mayLeave(gone []string) (may []string) {
	was, fresh := a.leaving, false
	a.leaving = map[string]uint64{}
	for _, uid := range gone {
		number, known := was[uid]
		if !known {
			number = a.changed
			fresh = fresh || number > a.kept
		}
		if a.leaving[uid] = number; number <= a.kept {
			may = append(may, uid)
		}
	}
	if fresh {
		a.whenOnDisk(a.reconcile)
	}
	return may
}

// saveSnapshot writes the plan down before it returns: at the end, when there is no loop to wait for.
func (a *Agent) saveSnapshot() {
	if !a.known {
		return
	}
	a.snapshots++
	if err := a.file.write(a.snapshots, a.snapshot()); err != nil {
		a.log.Error("the plan's snapshot could not be written", "err", err)
	}
}

func (a *Agent) snapshot() plan.Snapshot {
	return plan.Snapshot{
		StoreID: a.staging.StoreID(), Revision: a.staging.Revision(), Set: a.staging.Set(),
		Epochs: a.rec.view.epochs, Written: a.cfg.Clock(),
	}
}

// mostEpochs bounds the memory of ports that are in no plan of this host any more but were once bound here.
const mostEpochs = 100_000

// pruneEpochs forgets the epochs of all ports that left the plan, when there are more than that.
func (v *view) pruneEpochs() {
	if len(v.epochs) <= len(v.ports)+mostEpochs {
		return
	}
	for uid := range v.epochs {
		if v.ports[uid] == nil {
			delete(v.epochs, uid)
		}
	}
}
