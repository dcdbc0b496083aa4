package agent

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
)

// A flip is a commit that the plan does not tell of yet. The host that a port comes to makes it, when the port's workload runs there; the
// host that it goes from takes it over, when it is told by a claim (claim.go). It stands in the place of the plan's word until that has a
// higher epoch, whatever it says then: the store decides who has a port.

// flip is written down in both hosts, so that a restart undoes none.
type flip struct {
	UID string `json:"uid"`
	// Epoch of the binding in which the port was incoming.
	Epoch int64 `json:"epoch"`
	// From and To are the uids of hosts.
	From string `json:"from"`
	To   string `json:"to"`
	// Cause is the server's to know; of a flip that was made here.
	Cause planv1.CommitCause `json:"cause,omitempty"`
	// Dark is from the commit to the source's word that it forwards; 0: not known.
	Dark time.Duration `json:"dark,omitempty"`
	// Confirmed: a server has heard of it and agrees.
	Confirmed bool `json:"confirmed,omitempty"`
}

// flipped is where a port is by a flip.
func (v *view) flipped(f flip) place {
	vtep := f.To
	if v.host != nil && v.host.Uid == f.To && v.host.Vtep != "" {
		vtep = v.host.Vtep
	}
	return place{epoch: f.Epoch, active: f.To, draining: f.From, vtep: vtep}
}

// of reports whether a flip is of this place: the same step of the same move.
func (f flip) of(w place) bool { return w.epoch == f.Epoch && w.active == f.From && w.incoming == f.To }

// settlePlace decides where a port is, when the plan has brought it.
func (v *view) settlePlace(p *port) {
	p.planned = p.place
	f, ok := v.flips[p.uid]
	switch {
	case !ok:
	case f.of(p.planned):
		p.place = v.flipped(f)
	case p.planned.epoch > f.Epoch:
		v.endFlip(p.uid)
	}
}

// endFlip forgets one, and notes it.
func (v *view) endFlip(uid string) {
	if f, ok := v.flips[uid]; ok {
		delete(v.flips, uid)
		v.over = append(v.over, f)
	}
}

// overFlips are those that the plan has ended since the last call.
func (v *view) overFlips() []flip {
	over := v.over
	v.over = nil
	return over
}

// flip takes one in, and reports whether the plan has the move that it commits.
func (v *view) flip(f flip, d *dirty) bool {
	p := v.ports[f.UID]
	if p == nil || !f.of(p.planned) {
		return false
	}
	v.flips[f.UID] = f
	v.replace(p, v.flipped(f), d)
	return true
}

// unflip takes the plan's word again.
func (v *view) unflip(uid string, d *dirty) {
	delete(v.flips, uid)
	if p := v.ports[uid]; p != nil {
		v.replace(p, p.planned, d)
	}
}

func (v *view) replace(p *port, at place, d *dirty) {
	v.unclaimPort(p, d)
	p.place = at
	v.claimPort(p, d)
	d.ports[p.uid] = true
}

// flipFile keeps the flips.
type flipFile struct{ path string }

func newFlipFile(dir string) flipFile { return flipFile{filepath.Join(dir, "flips.json")} }

// read is what is there; nothing, where the file is not.
func (f flipFile) read() (list []flip, err error) {
	b, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &list)
	}
	if err != nil {
		return nil, fmt.Errorf("read commits %s: %w", f.path, err)
	}
	return list, nil
}

func (f flipFile) write(list []flip) error {
	slices.SortFunc(list, func(a, b flip) int { return cmp.Compare(a.UID, b.UID) })
	b, err := json.MarshalIndent(list, "", "\t")
	if err != nil {
		return err
	}
	return writeFile(f.path, append(b, '\n'))
}
