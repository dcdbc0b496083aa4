package agent

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/weftnet/weft/plan"
)

// snapshotFile is the last plan on disk.
type snapshotFile struct {
	dir string
	// busy: one is being written beside the loop.
	busy atomic.Bool
	mu   sync.Mutex
	// written is the number of the newest that is there.
	written uint64
}

func (f *snapshotFile) path() string { return filepath.Join(f.dir, "plan.snapshot") }

// read is the last plan, or an empty one: a file that cannot be read is set aside and said, since the kernel
// still forwards and a server will bring the plan again.
func (f *snapshotFile) read(log *slog.Logger) plan.Snapshot {
	empty := plan.Snapshot{Set: plan.NewSet(), Epochs: map[string]int64{}}
	path := f.path()
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
