package distribute

import (
	"fmt"
	"net/netip"
	"slices"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/compile"
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/plan"
	"github.com/weftnet/weft/wire"
)

// fleet is a world that behaves as the store does (deletions leave tombstones, every write has a revision), the server's
// chain behind it, and agents that hear of it through Staging alone. Nothing in it runs by itself.
type fleet struct {
	cfg    Config
	world  *model.World
	made   *compile.Compiler
	d      *Distributor
	agents map[model.UID]*agent
}

// agent is what a host keeps: with the stream gone, staging still has the set.
type agent struct {
	host    model.UID
	staging *plan.Staging
	stream  *stream
}

func newFleet(cfg Config) *fleet {
	f := &fleet{cfg: cfg, world: model.NewWorld("store-1"), agents: map[model.UID]*agent{}}
	f.cfg.Evidence = func(host, scope string, since int64, subscribed bool) []plan.Removal {
		return compile.Evidence(f.world, model.UID(host), scope, since, subscribed)
	}
	f.restart()
	return f
}

// restart is a server without memory: everything comes from the world.
func (f *fleet) restart() {
	for _, a := range f.agents {
		a.stream = nil
	}
	f.made, f.d = compile.New(), New(f.cfg)
	f.d.Reset(f.world.StoreID, int64(f.world.Revision), f.made.All(f.world).Upserts)
}

// write is one transaction.
func (f *fleet) write(changes ...model.Change) {
	rev := f.world.Revision + 1
	for i := range changes {
		ch := &changes[i]
		ch.Revision = rev
		switch {
		case ch.Binding != nil:
			ch.Binding.Epoch = model.Epoch(rev)
		case ch.Tombstone != nil:
			ch.Tombstone.Revision = rev
		}
		f.world.Apply(*ch)
	}
	out := f.made.Changed(f.world, changes)
	if err := f.d.Publish(f.world.StoreID, int64(rev), out.Upserts, out.Removals); err != nil {
		panic(err)
	}
}

func (f *fleet) host(uid model.UID) {
	f.write(model.Change{Host: &model.Host{Meta: model.Meta{UID: uid}, Name: string(uid)}})
	f.write(model.Change{Facts: &model.HostFacts{Host: uid, VTEPAddresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, UDPPort: 4789, UplinkMTU: 1500}})
}

func (f *fleet) network(uid model.UID) {
	f.write(model.Change{Network: &model.Network{Meta: model.Meta{UID: uid}, Tenant: "t", Name: string(uid), Alloc: model.NetworkAlloc{VNI: 5000}}})
}

// externals makes a network name that many external VTEPs, of which there are as many at least.
func (f *fleet) externals(network model.UID, many int) {
	n := *f.world.Networks[network]
	n.Spec.VTEPs = nil
	for i := range many {
		v := &model.VTEP{Meta: model.Meta{UID: model.UID(fmt.Sprint("e", i))}, Name: fmt.Sprint("ext", i),
			Spec: model.VTEPSpec{Address: netip.MustParseAddr(fmt.Sprint("192.0.2.", 100+i))}}
		f.write(model.Change{VTEP: v})
		n.Spec.VTEPs = append(n.Spec.VTEPs, model.NetworkVTEP{VTEP: v.Name})
	}
	f.write(model.Change{Network: &n})
}

func (f *fleet) port(uid, network model.UID) {
	f.write(model.Change{Port: &model.Port{Meta: model.Meta{UID: uid}, Tenant: "t", Name: string(uid),
		Alloc: model.PortAlloc{NetworkUID: network, MACs: []wire.MAC{{2}}}}})
}

func (f *fleet) bind(port, host model.UID) {
	p := f.world.Ports[port]
	if p == nil {
		return
	}
	f.write(model.Change{Binding: &model.Binding{Port: port, Network: p.Alloc.NetworkUID, Active: host}})
}

// deletePort unbinds first, as the store wants it.
func (f *fleet) deletePort(uid model.UID) {
	p := f.world.Ports[uid]
	if p == nil {
		return
	}
	f.bind(uid, "")
	f.write(model.Change{Port: p, Deleted: true}, model.Change{Binding: f.world.Bindings[uid], Deleted: true},
		model.Change{Tombstone: &model.Tombstone{Kind: "port", UID: uid, Network: p.Alloc.NetworkUID}})
}

func (f *fleet) deleteNetwork(uid model.UID) {
	n := f.world.Networks[uid]
	if n == nil {
		return
	}
	for p := range f.world.PortsOf(uid) {
		f.deletePort(p.UID)
	}
	f.write(model.Change{Network: n, Deleted: true}, model.Change{Tombstone: &model.Tombstone{Kind: "network", UID: uid}})
}

func (f *fleet) deleteHost(uid model.UID) {
	f.write(model.Change{Facts: f.world.Facts[uid], Deleted: true}, model.Change{Host: f.world.Hosts[uid], Deleted: true},
		model.Change{Tombstone: &model.Tombstone{Kind: model.KindHost, UID: uid}})
}

func (f *fleet) agent(host model.UID) *agent {
	a := f.agents[host]
	if a == nil {
		a = &agent{host: host, staging: plan.NewStaging(string(host), plan.NewSet(), "", 0)}
		f.agents[host] = a
	}
	return a
}

// connect says hello anew, from what the agent holds; what was staged and not finished is gone.
func (f *fleet) connect(a *agent) {
	f.disconnect(a)
	a.staging = plan.NewStaging(string(a.host), a.staging.Set(), a.staging.StoreID(), a.staging.Revision())
	a.stream = f.d.open(string(a.host), a.staging.Hello("test", nil))
}

func (f *fleet) disconnect(a *agent) {
	if a.stream != nil {
		f.d.close(a.stream)
		a.stream = nil
	}
}

// pump brings an agent what is there for it. After most chunks the stream breaks: what came so far must leave no trace.
func (f *fleet) pump(a *agent, most int) error {
	if a.stream == nil {
		return nil
	}
	b := f.d.next(a.stream)
	if b == nil {
		return nil
	}
	b.ask(f.cfg.Evidence)
	chunks := slices.Collect(b.chunks(f.d.cfg.ChunkOctets))
	for i, u := range chunks {
		if said := int(u.GetResources()); i == 0 && said != len(b.upserts) || i > 0 && said != 0 {
			return fmt.Errorf("chunk %d says that %d resources come, of %d", i, said, len(b.upserts))
		}
		if i == most {
			f.disconnect(a)
			return nil
		}
		step, err := a.staging.Receive(u)
		if err != nil {
			return err
		}
		if (step != nil) != (i == len(chunks)-1) {
			return fmt.Errorf("chunk %d of %d: step %v", i, len(chunks), step)
		}
	}
	return nil
}

// want is what a host must hold, from scratch.
func (f *fleet) want(host model.UID) *plan.Set {
	all := plan.NewSet(compile.New().All(f.world).Upserts...)
	set := plan.NewSet()
	h := all.Get(plan.Key{Kind: planv1.Kind_KIND_HOST, UID: string(host)})
	if h == nil {
		return set
	}
	for _, scope := range plan.Subscription(h.Host()) {
		for r := range all.Scope(scope) {
			set.Put(r)
		}
	}
	return set
}
