package agent

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/plan"
)

func snapshotPath(dir string) string { return filepath.Join(dir, "plan.snapshot") }

// readSnapshot is the last plan, or an empty one: a file that cannot be read is set aside and said, since the kernel
// still forwards and a server will bring the plan again.
func readSnapshot(dir string, log *slog.Logger) plan.Snapshot {
	empty := plan.Snapshot{Set: plan.NewSet(), Epochs: map[string]int64{}}
	path := snapshotPath(dir)
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

func writeSnapshot(dir string, s plan.Snapshot) error {
	b, err := s.Encode()
	if err != nil {
		return err
	}
	return writeFile(snapshotPath(dir), b)
}

// changesOf decodes what a step brings. A resource that cannot be understood leaves the last good one in place.
func (r *Reconciler) changesOf(upserts, removed []*plan.Resource) []change {
	var list []change
	for _, res := range removed {
		list = append(list, change{kind: res.Kind, uid: res.UID})
	}
	for _, res := range upserts {
		value, err := decode(res.Kind, res.UID, res.Body)
		if err != nil {
			r.view.broken[res.Key()] = err.Error()
			continue
		}
		delete(r.view.broken, res.Key())
		if value != nil {
			list = append(list, change{kind: res.Kind, uid: res.UID, value: value, lacks: plan.Missing(res, plan.Features())})
		}
	}
	return list
}

// mostEpochs bounds the memory of ports that are in no plan of this host any more but were once bound here.
const mostEpochs = 100_000

// pruneEpochs forgets the epochs of ports that left the plan, oldest first, beyond the limit.
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

var _ planv1.Kind
