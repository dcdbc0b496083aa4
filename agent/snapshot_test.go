package agent

import (
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/weftnet/weft/plan"
)

// TestSnapshotReadsTheNewerFile turns red when read looks at plan.snapshot alone: an agent that is killed right after a change, and
// comes back without a server, then takes the kernel back to what was.
func TestSnapshotReadsTheNewerFile(t *testing.T) {
	f := &snapshotFile{dir: t.TempDir()}
	log := slog.New(slog.DiscardHandler)
	at := time.Unix(1_000_000, 0)
	snap := func(store string, revision int64) plan.Snapshot {
		at = at.Add(time.Second)
		return plan.Snapshot{StoreID: store, Revision: revision, Set: plan.NewSet(), Written: at}
	}
	expect := func(what, store string, revision int64) {
		t.Helper()
		if s := f.read(log); s.StoreID != store || s.Revision != revision {
			t.Errorf("%s: read revision %d of %q, want %d of %q", what, s.Revision, s.StoreID, revision, store)
		}
	}
	step := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	expect("nothing there", "", 0)
	step(f.write(1, snap("a", 5)))
	expect("the snapshot alone", "a", 5)
	step(f.writeRecent(snap("a", 6)))
	expect("a newer change", "a", 6)
	step(f.write(2, snap("a", 7)))
	expect("a newer snapshot", "a", 7)
	step(f.writeRecent(snap("b", 2)))
	expect("another store", "b", 2)
	step(os.WriteFile(f.recent(), []byte("torn"), 0o600))
	expect("a torn file", "a", 7)

	// A plan too large for it leaves no older one behind.
	step(f.writeRecent(snap("a", 8)))
	large := snap("a", 9)
	large.Epochs = map[string]int64{}
	for i := range mostRecent + 1 {
		large.Epochs[string(rune(i))+"x"] = 1
	}
	step(f.writeRecent(large))
	expect("too large", "a", 7)
}

// TestLeavesWhenOnDisk turns red when a port's interface goes before the plan that takes the port away is on the disk, of a plan that is too large for
// plan.recent (count the plan after it was reconciled).
func TestLeavesWhenOnDisk(t *testing.T) {
	r := newRig(t)
	r.base()
	r.links.add("tap0", "tuntap")
	if _, err := r.attach(tapRequest("web1", "tap0")); err != nil {
		t.Fatal(err)
	}
	r.until("the plan on the disk", func() bool { return r.agent.onDisk() && !r.agent.busy })
	if err := r.agent.do(r.ctx, func() {
		for i := range mostRecent + 1 {
			r.agent.rec.view.epochs[fmt.Sprint("other", i)] = 1
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := r.send(plan.NewPort(1, portOf("web1", "h2", 500))); err != nil {
		t.Fatal(err)
	}
	if err := r.agent.do(r.ctx, func() {
		_, attached := r.agent.atts.byUID["web1"]
		if on := readSnapshot(r.agent.file.path(), r.log).Revision; !attached && on != r.agent.staging.Revision() {
			t.Errorf("the interface went at revision %d, and revision %d is on the disk", r.agent.staging.Revision(), on)
		}
	}); err != nil {
		t.Fatal(err)
	}
	r.without("port web1")
}

// TestWaitsForNoNewerPlan turns red when who waits for the plan to be on the disk waits for those too that come meanwhile: there may always be one.
func TestWaitsForNoNewerPlan(t *testing.T) {
	r := newRig(t)
	r.base()
	if err := r.agent.do(r.ctx, func() {
		a := r.agent
		for a.busy {
			a.snapshotDone(<-a.saved)
		}
		went := false
		a.changed++
		a.whenOnDisk(func() { went = true })
		a.changed++
		a.snapshotDone(<-a.saved)
		if !went {
			t.Error("it waits on")
		}
	}); err != nil {
		t.Fatal(err)
	}
}
