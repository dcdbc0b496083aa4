package server

import (
	"context"
	"fmt"
	"net/netip"
	"sync"

	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/wire"
)

// view is the world as the loop last left it, with the few indices that handlers need besides. Only the loop writes;
// handlers read under the lock and keep pointers into it: objects in a world are never modified, only replaced.
type view struct {
	mu    sync.RWMutex
	world *model.World
	// published is the highest revision whose plan has gone to distribute. It follows world.Revision.
	published model.Revision
	// generation grows when the store was replaced, so that a wait across a restore does not wait for ever.
	generation uint64
	// advanced is closed and replaced when published or generation grows.
	advanced chan struct{}

	// addresses in use, by network: what allocation must not hand out.
	addresses map[model.UID]map[netip.Addr]model.UID
	// tokens by their public id, as a bearer token names it.
	tokens map[string]*model.APIToken
	// quarantined VNIs: few, and asked about at each acknowledgement.
	quarantined map[wire.VNI]*model.VNIUse
}

func newView() *view {
	v := &view{advanced: make(chan struct{})}
	v.load(model.NewWorld(""))
	return v
}

// load replaces the world. Only the loop calls it.
func (v *view) load(w *model.World) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.world = w
	v.generation++
	v.addresses = map[model.UID]map[netip.Addr]model.UID{}
	v.tokens = map[string]*model.APIToken{}
	v.quarantined = map[wire.VNI]*model.VNIUse{}
	for _, p := range w.Ports {
		v.index(model.Change{Port: p}, nil)
	}
	for _, t := range w.APITokens {
		v.index(model.Change{APIToken: t}, nil)
	}
	for _, u := range w.VNIs {
		v.index(model.Change{VNI: u}, nil)
	}
}

// apply takes changes in, in order. Only the loop calls it.
func (v *view) apply(rev model.Revision, changes []model.Change) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, c := range changes {
		var old *model.Port
		if c.Port != nil {
			old = v.world.Ports[c.Port.UID]
		}
		v.index(c, old)
		v.world.Apply(c)
	}
	v.world.Revision = max(v.world.Revision, rev)
}

// index keeps the view's own indices; old is the port as it was before the change.
func (v *view) index(c model.Change, old *model.Port) {
	switch {
	case c.Port != nil:
		if old != nil {
			for _, ip := range old.Alloc.IPs {
				delete(v.addresses[old.Alloc.NetworkUID], ip.Addr())
			}
		}
		if c.Deleted {
			return
		}
		in := v.addresses[c.Port.Alloc.NetworkUID]
		if in == nil {
			in = map[netip.Addr]model.UID{}
			v.addresses[c.Port.Alloc.NetworkUID] = in
		}
		for _, ip := range c.Port.Alloc.IPs {
			in[ip.Addr()] = c.Port.UID
		}
	case c.Network != nil && c.Deleted:
		delete(v.addresses, c.Network.UID)
	case c.APIToken != nil && c.Deleted:
		delete(v.tokens, c.APIToken.ID)
	case c.APIToken != nil:
		v.tokens[c.APIToken.ID] = c.APIToken
	case c.VNI != nil && !c.Deleted && c.VNI.Quarantined:
		v.quarantined[c.VNI.VNI] = c.VNI
	case c.VNI != nil:
		delete(v.quarantined, c.VNI.VNI)
	}
}

// publish says that distribute has the plan of the world's revision.
func (v *view) publish() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.published = v.world.Revision
	close(v.advanced)
	v.advanced = make(chan struct{})
}

// read lets f look at the world. f must not block, and must not write.
func (v *view) read(f func(w *model.World)) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	f(v.world)
}

// revision is the highest published one, and the generation it belongs to.
func (v *view) revision() (model.Revision, uint64) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.published, v.generation
}

// wait returns when the loop has taken in and published the revision, or the store was replaced meanwhile.
func (v *view) wait(ctx context.Context, rev model.Revision) error {
	_, generation := v.revision()
	for {
		v.mu.RLock()
		done := v.published >= rev || v.generation != generation
		advanced := v.advanced
		v.mu.RUnlock()
		if done {
			return nil
		}
		select {
		case <-advanced:
		case <-ctx.Done():
			return fmt.Errorf("wait for revision %d to come back from the store: %w", rev, ctx.Err())
		}
	}
}

// tokenByID finds an API token by its public id, or nil.
func (v *view) tokenByID(id string) *model.APIToken {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.tokens[id]
}

// hostExists reports whether the host was not removed.
func (v *view) hostExists(uid model.UID) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.world.Hosts[uid] != nil
}

// holdsQuarantine reports whether the host still stands in a quarantine that its acknowledgement of rev would end.
func (v *view) holdsQuarantine(host model.UID, rev model.Revision) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	for _, u := range v.quarantined {
		if u.Freed > rev {
			continue
		}
		for _, h := range u.Holders {
			if h == host {
				return true
			}
		}
	}
	return false
}
