package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/datapath"
)

// What a port counted belongs to the port, and its host's tables forget it with the interface. So the last numbers are read when nothing
// counts any more, kept in a file, and handed to a server when this host has no part in the port any more.

// tallies are those numbers.
type tallies struct {
	// Open are of ports that have no interface here any more, in which this host has a part still.
	Open map[string]datapath.PortCounters `json:"open,omitempty"`
	// Due are to be handed over.
	Due []tally `json:"due,omitempty"`
}

type tally struct {
	UID string `json:"uid"`
	// Epoch of the binding that ended this host's part; where that was never seen, the last one that was.
	Epoch  int64                 `json:"epoch"`
	Counts datapath.PortCounters `json:"counts"`
}

// mostDue bounds what waits for a server.
const mostDue = 100_000

func (t tallies) clone() tallies { return tallies{maps.Clone(t.Open), slices.Clone(t.Due)} }

func talliesPath(dir string) string { return filepath.Join(dir, "counts.json") }

func readTallies(path string) (t tallies, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	} else if err == nil {
		err = json.Unmarshal(b, &t)
	}
	if err != nil {
		err = fmt.Errorf("read counts %s: %w", path, err)
	}
	if t.Open == nil {
		t.Open = map[string]datapath.PortCounters{}
	}
	return t, err
}

// loadTallies takes up what an earlier agent left.
func (a *Agent) loadTallies() {
	path := talliesPath(a.cfg.Dir)
	a.keptTallies = &scribe[tallies]{write: func(t tallies) error {
		b, err := json.MarshalIndent(t, "", "\t")
		if err == nil {
			err = writeFile(path, append(b, '\n'))
		}
		if err != nil {
			a.log.Error("what ports counted could not be written down; a restart forgets it", "err", err)
		}
		return err
	}}
	var err error
	if a.tallies, err = readTallies(path); err != nil {
		a.log.Error("what ports counted before the restart is not known", "err", err)
	}
	a.rec.ended = a.counted
}

// counted takes in what a port counted whose programs are detached.
func (a *Agent) counted(uid string, id datapath.PortID) {
	c, err := a.kernel.PortCounters(id)
	if err != nil {
		a.log.Error("a port's last counters cannot be read", "port", uid, "err", err)
		return
	}
	if c != (datapath.PortCounters{}) {
		a.tallies.Open[uid] = sum(a.tallies.Open[uid], c)
		a.keptTallies.put(a.tallies.clone())
	}
}

func sum(a, b datapath.PortCounters) datapath.PortCounters {
	return datapath.PortCounters{IngressPackets: a.IngressPackets + b.IngressPackets, IngressOctets: a.IngressOctets + b.IngressOctets,
		EgressPackets: a.EgressPackets + b.EgressPackets, EgressOctets: a.EgressOctets + b.EgressOctets}
}

// closeTallies makes due what was counted for ports in which this host has no part any more.
func (a *Agent) closeTallies() {
	due := len(a.tallies.Due)
	for uid, c := range a.tallies.Open {
		p := a.rec.view.ports[uid]
		if p != nil && p.place.on(a.rec.self) {
			continue
		}
		epoch := cmp.Or(a.ended[uid], a.rec.view.epochs[uid])
		if p != nil {
			epoch = p.place.epoch
		}
		delete(a.tallies.Open, uid)
		delete(a.ended, uid)
		a.tallies.Due = append(a.tallies.Due, tally{uid, epoch, c})
	}
	for uid := range a.ended {
		if _, counted := a.tallies.Open[uid]; !counted {
			delete(a.ended, uid)
		}
	}
	if len(a.tallies.Due) > due {
		if more := len(a.tallies.Due) - mostDue; more > 0 {
			a.log.Error("what ports counted is forgotten, as no server has taken it", "ports", more)
			a.tallies.Due = slices.Delete(a.tallies.Due, 0, more)
		}
		a.keptTallies.put(a.tallies.clone())
	}
	if len(a.tallies.Due) > 0 && !a.settling {
		a.settling = true
		a.followers.free(a.settleAll)
	}
}

// settleAll hands over what is due until nothing is.
func (a *Agent) settleAll(ctx context.Context) {
	for wait := firstBackoff; ; {
		var t tally
		if err := a.do(ctx, func() {
			if a.settling = len(a.tallies.Due) > 0; a.settling {
				t = a.tallies.Due[0]
			}
		}); err != nil || t.UID == "" {
			return
		}
		err := a.server.Settle(ctx, &planv1.SettleRequest{PortUid: t.UID, Epoch: t.Epoch,
			IngressPackets: t.Counts.IngressPackets, IngressOctets: t.Counts.IngressOctets,
			EgressPackets: t.Counts.EgressPackets, EgressOctets: t.Counts.EgressOctets})
		if err == nil || refusal(err) {
			wait = firstBackoff
			if err := a.do(ctx, func() { a.settled(t, err) }); err != nil {
				return
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = min(2*wait, lastBackoff)
	}
}

// settled forgets what a server took, or will never take: that of a port that was deleted.
func (a *Agent) settled(t tally, refused error) {
	if refused != nil {
		a.log.Info("what a port counted is not wanted", "port", t.UID, "err", refused)
	}
	a.tallies.Due = slices.DeleteFunc(a.tallies.Due, func(o tally) bool { return o == t })
	a.keptTallies.put(a.tallies.clone())
}
