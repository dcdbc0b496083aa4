package server

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/weftnet/weft/compile"
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
	// unready is why no world was loaded yet; nil from the first one on.
	unready error
	// loaded is closed with the first world.
	loaded chan struct{}
	// advanced is closed and replaced at each publish.
	advanced chan struct{}

	// compiler remembers what it made of world.
	compiler *compile.Compiler

	// addresses in use, by network: what allocation must not hand out.
	addresses map[model.UID]addresses
	// tokens by their public id, as a bearer token names it.
	tokens map[string]*model.APIToken
	// quarantined VNIs: few, and asked about at each acknowledgement.
	quarantined map[wire.VNI]*model.VNIUse
}

// addresses of one network, and the ports that have them.
type addresses struct {
	ips  map[netip.Addr]model.UID
	macs map[wire.MAC]model.UID
}

func newView() *view {
	v := &view{advanced: make(chan struct{}), compiler: compile.New()}
	v.load(model.NewWorld(""))
	v.loaded = make(chan struct{})
	v.unready = errors.New("the server is starting and has not loaded the store yet")
	return v
}

// load replaces the world, and compiles all of it. Only the loop calls it.
func (v *view) load(w *model.World) compile.Output {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.world = w
	if v.unready != nil {
		close(v.loaded)
	}
	v.published, v.unready = 0, nil
	v.addresses = map[model.UID]addresses{}
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
	return v.compiler.All(w)
}

// apply takes changes in, in order, and compiles what they touch. Only the loop calls it.
func (v *view) apply(rev model.Revision, changes []model.Change) compile.Output {
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
	return v.compiler.Changed(v.world, changes)
}

// mtu is the effective MTU of a network. Only for use inside read.
func (v *view) mtu(n *model.Network) int { return v.compiler.MTU(n.UID) }

// index keeps the view's own indices; old is the port as it was before the change.
func (v *view) index(c model.Change, old *model.Port) {
	switch {
	case c.Port != nil:
		v.indexPort(c.Port, old, c.Deleted)
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

func (v *view) indexPort(p, old *model.Port, deleted bool) {
	in := v.addresses[p.Alloc.NetworkUID]
	if in.ips == nil {
		in = addresses{ips: map[netip.Addr]model.UID{}, macs: map[wire.MAC]model.UID{}}
		v.addresses[p.Alloc.NetworkUID] = in
	}
	if old != nil {
		for _, ip := range old.Alloc.IPs {
			delete(in.ips, ip.Addr())
		}
		for _, m := range old.Alloc.MACs {
			delete(in.macs, m)
		}
	}
	if deleted {
		return
	}
	for _, ip := range p.Alloc.IPs {
		in.ips[ip.Addr()] = p.UID
	}
	for _, m := range p.Alloc.MACs {
		in.macs[m] = p.UID
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

// advances is closed at the next publish.
func (v *view) advances() <-chan struct{} {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.advanced
}

// members are the hosts that hold a port of the network, in whatever role, sorted. Only for use inside read.
func (v *view) members(network model.UID) []model.UID { return v.compiler.Members(network) }

// read lets f look at the world. f must not block, and must not write.
func (v *view) read(f func(w *model.World)) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	f(v.world)
}

// revision is the highest published one.
func (v *view) revision() model.Revision {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.published
}

// wait returns when the loop has taken in and published the revision, or a restore replaced the store meanwhile: its
// revision may never come then. A store that was merely loaded anew may stand before the revision still.
func (v *view) wait(ctx context.Context, rev model.Revision) error {
	store := ""
	for {
		v.mu.RLock()
		if store == "" {
			store = v.world.StoreID
		}
		done := v.published >= rev || v.world.StoreID != store
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

// reach is wait for a revision that the store has said to be there: it comes, or something hangs. Each time that late has passed, hangs is called.
func (v *view) reach(ctx context.Context, rev model.Revision, late time.Duration, hangs func()) error {
	tick := time.NewTicker(late)
	defer tick.Stop()
	for {
		v.mu.RLock()
		done, advanced := v.published >= rev, v.advanced
		v.mu.RUnlock()
		if done {
			return nil
		}
		select {
		case <-advanced:
		case <-tick.C:
			hangs()
		case <-ctx.Done():
			return fmt.Errorf("wait for revision %d to come from the store: %w", rev, ctx.Err())
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

// waitStore returns when the world of that store is loaded and published.
func (v *view) waitStore(ctx context.Context, id string) error {
	for {
		v.mu.RLock()
		done := v.world.StoreID == id && v.published >= v.world.Revision
		advanced := v.advanced
		v.mu.RUnlock()
		if done {
			return nil
		}
		select {
		case <-advanced:
		case <-ctx.Done():
			return fmt.Errorf("wait for store %s to be loaded: %w", id, ctx.Err())
		}
	}
}

// ready says whether a world was ever loaded; the error is why not.
func (v *view) ready() error {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.unready
}

// fail notes why there is no world yet. What was loaded once is kept and answered from.
func (v *view) fail(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.unready != nil {
		v.unready = err
	}
}
