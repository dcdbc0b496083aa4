package compile

import (
	"cmp"
	"maps"
	"slices"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/plan"
)

// Output is what a run of the compiler found to be new.
type Output struct {
	// Upserts are new resources and those whose octets changed, sorted by kind and uid.
	Upserts []*plan.Resource
	// Removals are resources that are gone, with the revision that did it as evidence.
	Removals []plan.Removal
}

// Compiler remembers what it made, so that a change costs what it touches. Not safe for concurrent use.
type Compiler struct {
	made map[plan.Key]made
	// What the World said when it was last looked at, and the counts that follow from it.
	ports    map[model.UID]place
	networks map[model.UID]*network
	hosts    map[model.UID]*host
	external map[model.UID]string // external VTEPs: uid to name
	named    map[string]model.UID // and name to uid
	uplinks  tally                // of those
}

type made struct {
	scope string
	hash  [32]byte
}

// New is a compiler that has made nothing.
func New() *Compiler {
	c := &Compiler{}
	c.forget()
	return c
}

func (c *Compiler) forget() {
	*c = Compiler{
		made: map[plan.Key]made{}, ports: map[model.UID]place{}, networks: map[model.UID]*network{},
		hosts: map[model.UID]*host{}, external: map[model.UID]string{}, named: map[string]model.UID{}, uplinks: tally{},
	}
}

// All compiles the whole world from scratch: every resource is in Upserts, and there are no removals.
func (c *Compiler) All(w *model.World) Output {
	c.forget()
	r := c.begin(w)
	for uid := range w.Hosts {
		r.host(uid)
	}
	for uid := range w.Networks {
		r.network(uid)
	}
	for name, v := range w.VTEPs {
		r.vtep(name, v.UID)
	}
	for uid := range w.Ports {
		r.port(uid)
	}
	return r.finish()
}

// Changed compiles what the changes touch; they are applied to w already. What it makes is read from w, never from the
// changes, so their order and repetition do not matter. All must have been called once before.
func (c *Compiler) Changed(w *model.World, changes []model.Change) Output {
	r := c.begin(w)
	for _, ch := range changes {
		switch {
		case ch.Network != nil:
			r.deletes(ch, planv1.Kind_KIND_NETWORK, ch.Network.UID)
			r.network(ch.Network.UID)
		case ch.Port != nil:
			r.deletes(ch, planv1.Kind_KIND_PORT, ch.Port.UID)
			r.port(ch.Port.UID)
		case ch.Binding != nil:
			r.port(ch.Binding.Port)
		case ch.Host != nil:
			r.deletes(ch, planv1.Kind_KIND_HOST, ch.Host.UID)
			r.deletes(ch, planv1.Kind_KIND_VTEP, ch.Host.UID)
			r.host(ch.Host.UID)
		case ch.Facts != nil:
			r.host(ch.Facts.Host)
		case ch.VTEP != nil:
			r.deletes(ch, planv1.Kind_KIND_VTEP, ch.VTEP.UID)
			r.vtep(ch.VTEP.Name, ch.VTEP.UID)
		}
	}
	return r.finish()
}

// run is one pass: first every touched object is looked at and marks what depends on it, then what is marked is made.
type run struct {
	*Compiler
	w       *model.World
	dirty   map[plan.Key]struct{}
	deleted map[plan.Key]model.Revision
	before  Underlay
}

func (c *Compiler) begin(w *model.World) *run {
	return &run{Compiler: c, w: w, dirty: map[plan.Key]struct{}{}, deleted: map[plan.Key]model.Revision{}, before: c.uplinks.tightest()}
}

func (r *run) mark(kind planv1.Kind, uid model.UID) {
	r.dirty[plan.Key{Kind: kind, UID: string(uid)}] = struct{}{}
}

// deletes remembers the revision of a deletion, the evidence for a removal.
func (r *run) deletes(ch model.Change, kind planv1.Kind, uid model.UID) {
	if ch.Deleted {
		k := plan.Key{Kind: kind, UID: string(uid)}
		r.deleted[k] = max(r.deleted[k], ch.Revision)
	}
}

func (r *run) finish() Output {
	if r.uplinks.tightest() != r.before {
		r.markMemberless()
	}
	var out Output
	for k := range r.dirty {
		r.make(k, &out)
	}
	slices.SortFunc(out.Upserts, func(a, b *plan.Resource) int { return compareKeys(a.Key(), b.Key()) })
	slices.SortFunc(out.Removals, func(a, b plan.Removal) int {
		return cmp.Or(compareKeys(a.Key, b.Key), cmp.Compare(a.Scope, b.Scope))
	})
	return out
}

// make makes one resource anew, and puts it out if it differs from what was made before.
func (r *run) make(k plan.Key, out *Output) {
	res := r.build(k)
	old, existed := r.made[k]
	if existed && (res == nil || res.Scope != old.scope) {
		revision := r.deleted[k]
		if revision == 0 {
			revision = r.w.Revision
		}
		out.Removals = append(out.Removals, plan.Removal{Scope: old.scope, Key: k, Revision: int64(revision)})
		delete(r.made, k)
		existed = false
	}
	if res == nil || existed && old.hash == res.Hash {
		return
	}
	r.made[k] = made{res.Scope, res.Hash}
	out.Upserts = append(out.Upserts, res)
}

// build is nil when the World has no such thing.
func (r *run) build(k plan.Key) *plan.Resource {
	uid := model.UID(k.UID)
	switch k.Kind {
	case planv1.Kind_KIND_HOST:
		return r.buildHost(uid)
	case planv1.Kind_KIND_NETWORK:
		return r.buildNetwork(uid)
	case planv1.Kind_KIND_PORT:
		return r.buildPort(uid)
	default:
		return r.buildVTEP(uid)
	}
}

func compareKeys(a, b plan.Key) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.UID, b.UID))
}

func sortedKeys[V any](m map[model.UID]V) []model.UID { return slices.Sorted(maps.Keys(m)) }

func texts(uids []model.UID) []string {
	out := make([]string, len(uids))
	for i, uid := range uids {
		out[i] = string(uid)
	}
	return out
}
