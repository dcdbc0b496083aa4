package model

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/weftnet/weft/wire"
)

// history plays a store: it makes legal changes from random choices and notes what each key holds at the end.
type history struct {
	t       *rapid.T
	rev     Revision
	uids    int
	changes []Change

	tenants  map[string]*Tenant
	networks map[TenantName]*Network
	ports    map[TenantName]*Port
	hosts    map[string]*Host
	vteps    map[string]*VTEP
	bindings map[UID]*Binding
	moves    map[UID]*Move
	counters map[UID]*Counters
	tombs    map[UID]*Tombstone
	vnis     map[wire.VNI]*VNIUse
}

func newHistory(t *rapid.T) *history {
	return &history{
		t: t, tenants: map[string]*Tenant{}, networks: map[TenantName]*Network{}, ports: map[TenantName]*Port{},
		hosts: map[string]*Host{}, vteps: map[string]*VTEP{}, bindings: map[UID]*Binding{}, moves: map[UID]*Move{}, counters: map[UID]*Counters{}, tombs: map[UID]*Tombstone{},
		vnis: map[wire.VNI]*VNIUse{},
	}
}

func (h *history) meta() Meta {
	h.uids++
	return Meta{UID: NewUID([16]byte{byte(h.uids >> 8), byte(h.uids)}), Revision: h.rev}
}

func (h *history) put(c Change) {
	c.Revision = h.rev
	h.changes = append(h.changes, c)
}

func (h *history) del(c Change) {
	c.Deleted = true
	h.put(c)
}

func pick[T any](t *rapid.T, label string, from ...T) T {
	return rapid.SampledFrom(from).Draw(t, label)
}

// step is one transaction.
func (h *history) step() {
	h.rev++
	name := pick(h.t, "name", "a", "b")
	key := TenantName{pick(h.t, "tenant", "t", "u"), name}
	switch pick(h.t, "object", "tenant", "network", "port", "port", "host", "vtep", "binding", "binding", "prune") {
	case "tenant":
		h.tenant(name)
	case "network":
		h.network(key)
	case "port":
		h.port(key)
	case "host":
		h.host(name)
	case "vtep":
		h.vtep(name)
	case "binding":
		h.bind(key)
	case "prune":
		for _, uid := range slices.Sorted(maps.Keys(h.tombs)) {
			h.del(Change{Tombstone: h.tombs[uid]})
			delete(h.tombs, uid)
			break
		}
	}
}

func (h *history) tenant(name string) {
	old := h.tenants[name]
	switch {
	case old == nil:
		h.tenants[name] = &Tenant{Meta: h.meta(), Name: name}
	case rapid.Bool().Draw(h.t, "delete"):
		delete(h.tenants, name)
		h.del(Change{Tenant: old})
		return
	default:
		n := *old
		n.Revision = h.rev
		h.tenants[name] = &n
	}
	h.put(Change{Tenant: h.tenants[name]})
}

func (h *history) network(key TenantName) {
	old := h.networks[key]
	n := &Network{}
	switch {
	case old == nil:
		n = &Network{Meta: h.meta(), Tenant: key.Tenant, Name: key.Name}
		n.Alloc.VNI = wire.VNI(h.uids)
		h.vnis[n.Alloc.VNI] = &VNIUse{VNI: n.Alloc.VNI, Network: n.UID}
		h.put(Change{VNI: h.vnis[n.Alloc.VNI]})
	case rapid.Bool().Draw(h.t, "delete"):
		for _, p := range h.ports {
			if p.Alloc.NetworkUID == old.UID {
				return // has ports
			}
		}
		delete(h.networks, key)
		delete(h.vnis, old.Alloc.VNI)
		h.del(Change{Network: old})
		h.del(Change{VNI: &VNIUse{VNI: old.Alloc.VNI, Network: old.UID}})
		h.bury(KindNetwork, old.UID, "")
		return
	default:
		*n = *old
		n.Revision = h.rev
	}
	n.Spec.VTEPs = nil
	for _, v := range []string{"a", "b"} {
		if rapid.Bool().Draw(h.t, "with "+v) {
			n.Spec.VTEPs = append(n.Spec.VTEPs, NetworkVTEP{VTEP: v})
		}
	}
	h.networks[key] = n
	h.put(Change{Network: n})
}

func (h *history) bury(kind string, uid, network UID) {
	t := &Tombstone{Kind: kind, UID: uid, Network: network, Revision: h.rev}
	h.tombs[uid] = t
	h.put(Change{Tombstone: t})
}

func (h *history) port(key TenantName) {
	old := h.ports[key]
	if old != nil && rapid.Bool().Draw(h.t, "delete") {
		delete(h.ports, key)
		h.del(Change{Port: old})
		if b := h.bindings[old.UID]; b != nil {
			delete(h.bindings, old.UID)
			h.del(Change{Binding: b})
		}
		if m := h.moves[old.UID]; m != nil {
			delete(h.moves, old.UID)
			h.del(Change{Move: m})
		}
		if c := h.counters[old.UID]; c != nil {
			delete(h.counters, old.UID)
			h.del(Change{Counters: c})
		}
		h.bury(KindPort, old.UID, old.Alloc.NetworkUID)
		if rapid.Bool().Draw(h.t, "at once again") {
			h.createPort(key) // the same name, in the same transaction
		}
		return
	}
	if old == nil {
		h.createPort(key)
		return
	}
	p := *old
	p.Revision = h.rev
	h.ports[key] = &p
	h.put(Change{Port: &p})
}

func (h *history) createPort(key TenantName) {
	for _, name := range []string{"a", "b"} {
		if n := h.networks[TenantName{key.Tenant, name}]; n != nil {
			p := &Port{Meta: h.meta(), Tenant: key.Tenant, Name: key.Name, Spec: PortSpec{Network: name}}
			p.Alloc.NetworkUID = n.UID
			h.ports[key] = p
			h.put(Change{Port: p})
			return
		}
	}
}

func (h *history) host(name string) {
	old := h.hosts[name]
	if old == nil {
		n := &Host{Meta: h.meta(), Name: name}
		h.hosts[name] = n
		h.put(Change{Host: n})
		h.put(Change{Facts: &HostFacts{Host: n.UID}})
		return
	}
	if duty := pick(h.t, "duty", "remove", string(DutyActive), string(DutyDrained), string(DutyFailed)); duty != "remove" {
		n := *old
		n.Revision, n.Duty = h.rev, HostDuty(duty)
		n.Spec.WhenSilent = WhenSilent(pick(h.t, "when silent", string(WhenSilentShow), string(WhenSilentFail)))
		h.hosts[name] = &n
		h.put(Change{Host: &n})
		return
	}
	delete(h.hosts, name)
	h.del(Change{Host: old})
	h.del(Change{Facts: &HostFacts{Host: old.UID}})
	for _, uid := range slices.Sorted(maps.Keys(h.bindings)) {
		b := *h.bindings[uid]
		if !slices.Contains(slices.Collect(b.Hosts()), old.UID) {
			continue
		}
		b.Active, b.Incoming, b.Draining, b.Epoch = "", "", "", Epoch(h.rev)
		h.bindings[uid] = &b
		h.put(Change{Binding: &b})
	}
}

func (h *history) vtep(name string) {
	old := h.vteps[name]
	if old != nil && rapid.Bool().Draw(h.t, "delete") {
		delete(h.vteps, name)
		h.del(Change{VTEP: old})
		h.bury(KindVTEP, old.UID, "")
		return
	}
	v := &VTEP{Meta: h.meta(), Name: name}
	if old != nil {
		v.UID = old.UID
	}
	v.Spec.Address = netip.AddrFrom4([4]byte{192, 0, 2, byte(h.rev)})
	h.vteps[name] = v
	h.put(Change{VTEP: v})
}

func (h *history) bind(key TenantName) {
	p := h.ports[key]
	if p == nil {
		return
	}
	role := func(label string) UID {
		if x := h.hosts[pick(h.t, label, "a", "b", "none")]; x != nil {
			return x.UID
		}
		return ""
	}
	b := &Binding{Port: p.UID, Network: p.Alloc.NetworkUID, Epoch: Epoch(h.rev),
		Active: role("active"), Incoming: role("incoming"), Draining: role("draining")}
	h.bindings[p.UID] = b
	h.put(Change{Binding: b})
	if phase := pick(h.t, "phase", "", MovePreparing, MovePrepared, MoveDraining, MoveDone, MoveAborted); phase != "" {
		m := &Move{Port: p.UID, Phase: phase, Revision: h.rev}
		h.moves[p.UID] = m
		h.put(Change{Move: m})
	}
	if rapid.Bool().Draw(h.t, "settle") {
		c := &Counters{Port: p.UID, Revision: h.rev}
		h.counters[p.UID] = c
		h.put(Change{Counters: c})
	}
}

// storeKey is the store key that a change is of: changes of one key are seen in their order, whatever else happens.
func storeKey(c Change) string {
	switch {
	case c.Tenant != nil:
		return "tenant " + c.Tenant.Name
	case c.Network != nil:
		return "network " + string(c.Network.UID)
	case c.Port != nil:
		return "port " + string(c.Port.UID)
	case c.Binding != nil:
		return "binding " + string(c.Binding.Port)
	case c.Host != nil:
		return "host " + string(c.Host.UID)
	case c.Facts != nil:
		return "facts " + string(c.Facts.Host)
	case c.VTEP != nil:
		return "vtep " + c.VTEP.Name
	case c.VNI != nil:
		return fmt.Sprint("vni ", c.VNI.VNI)
	case c.Move != nil:
		return "move " + string(c.Move.Port)
	case c.Counters != nil:
		return "counters " + string(c.Counters.Port)
	case c.Tombstone != nil:
		return "tombstone " + string(c.Tombstone.UID)
	}
	panic("a change of nothing")
}

// interleave puts the changes in another legal order: those of each key keep theirs.
func interleave(t *rapid.T, changes []Change) []Change {
	queues := map[string][]Change{}
	var keys []string
	for _, c := range changes {
		k := storeKey(c)
		if queues[k] == nil {
			keys = append(keys, k)
		}
		queues[k] = append(queues[k], c)
	}
	var out []Change
	for len(keys) > 0 {
		i := rapid.IntRange(0, len(keys)-1).Draw(t, "key")
		k := keys[i]
		out = append(out, queues[k][0])
		if queues[k] = queues[k][1:]; len(queues[k]) == 0 {
			keys = slices.Delete(keys, i, i+1)
		}
	}
	return out
}

func worldOf(changes ...Change) *World {
	w := NewWorld("s")
	for _, c := range changes {
		w.Apply(c)
	}
	return w
}

// check compares a world with what the history says is there, through everything that a reader can ask.
func (h *history) check(w *World, how string) {
	h.t.Helper()
	byUID := func(what string, got, want any) {
		h.t.Helper()
		if !reflect.DeepEqual(got, want) {
			h.t.Fatalf("%s: %s: got %v, want %v", how, what, got, want)
		}
	}
	networks, ports, hosts := map[UID]*Network{}, map[UID]*Port{}, map[UID]*Host{}
	for _, name := range []string{"a", "b"} {
		byUID("host "+name, w.HostByName(name), h.hosts[name])
		for _, tenant := range []string{"t", "u"} {
			key := TenantName{tenant, name}
			byUID("network "+name, w.NetworkByName(tenant, name), h.networks[key])
			byUID("port "+name, w.PortByName(tenant, name), h.ports[key])
		}
		var with []UID
		for _, n := range h.networks {
			if slices.ContainsFunc(n.Spec.VTEPs, func(v NetworkVTEP) bool { return v.VTEP == name }) {
				with = append(with, n.UID)
			}
		}
		var got []UID
		for n := range w.NetworksWith(name) {
			got = append(got, n.UID)
		}
		byUID("networks with "+name, sorted(got), sorted(with))
	}
	for _, n := range h.networks {
		networks[n.UID] = n
		var got, want []UID
		for p := range w.PortsOf(n.UID) {
			got = append(got, p.UID)
		}
		for _, p := range h.ports {
			if p.Alloc.NetworkUID == n.UID {
				want = append(want, p.UID)
			}
		}
		byUID("ports of a network", sorted(got), sorted(want))
		got, want = nil, nil
		for t := range w.TombstonesOf(n.UID) {
			got = append(got, t.UID)
		}
		for _, t := range h.tombs {
			if t.Network == n.UID {
				want = append(want, t.UID)
			}
		}
		byUID("tombstones of a network", sorted(got), sorted(want))
	}
	for _, p := range h.ports {
		ports[p.UID] = p
	}
	var gone, removed []UID
	for t := range w.TombstonesOfHosts() {
		gone = append(gone, t.UID)
	}
	for _, t := range h.tombs {
		if t.Kind == KindHost {
			removed = append(removed, t.UID)
		}
	}
	byUID("tombstones of hosts", sorted(gone), sorted(removed))
	for _, x := range h.hosts {
		hosts[x.UID] = x
		var got, want []UID
		for p := range w.PortsOn(x.UID) {
			got = append(got, p.UID)
		}
		for _, b := range h.bindings {
			if slices.Contains(slices.Collect(b.Hosts()), x.UID) {
				want = append(want, b.Port)
			}
		}
		byUID("ports on a host", sorted(got), sorted(want))
	}
	var open, wantOpen, dead, wantDead []UID
	for m := range w.OpenMoves() {
		open = append(open, m.Port)
	}
	for _, m := range h.moves {
		if m.Phase == MovePreparing || m.Phase == MovePrepared || m.Phase == MoveDraining {
			wantOpen = append(wantOpen, m.Port)
		}
	}
	for x := range w.DeadHosts() {
		dead = append(dead, x.UID)
	}
	for _, x := range h.hosts {
		if x.Duty == DutyFailed {
			wantDead = append(wantDead, x.UID)
		}
	}
	byUID("open moves", sorted(open), sorted(wantOpen))
	byUID("dead hosts", sorted(dead), sorted(wantDead))
	var toFail, wantToFail []UID
	for x := range w.HostsToFail() {
		toFail = append(toFail, x.UID)
	}
	for _, x := range h.hosts {
		if x.Duty != DutyFailed && x.Spec.WhenSilent == WhenSilentFail {
			wantToFail = append(wantToFail, x.UID)
		}
	}
	byUID("hosts to fail", sorted(toFail), sorted(wantToFail))
	byUID("moves", w.Moves, h.moves)
	byUID("counters", w.Counters, h.counters)
	byUID("tenants", w.Tenants, h.tenants)
	byUID("networks", w.Networks, networks)
	byUID("ports", w.Ports, ports)
	byUID("hosts", w.Hosts, hosts)
	byUID("bindings", w.Bindings, h.bindings)
	byUID("vteps", w.VTEPs, h.vteps)
	byUID("tombstones", w.Tombstones, h.tombs)
	byUID("number of VNIs", len(w.VNIs), len(h.vnis))
	byUID("number of facts", len(w.Facts), len(h.hosts))
	if len(h.changes) > 0 {
		byUID("revision", w.Revision, h.changes[len(h.changes)-1].Revision)
	}
}

func sorted(uids []UID) []UID {
	slices.Sort(uids)
	return slices.Compact(uids)
}

// The same history gives the same world, however it arrives.
func TestWorldDependsOnStateNotOnHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory(t)
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			h.step()
		}
		straight := worldOf(h.changes...)
		h.check(straight, "in order")

		var doubled []Change
		for _, c := range h.changes {
			doubled = append(doubled, c, c)
		}
		var chunks []Change
		for rest := h.changes; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "chunk")
			chunks = append(append(chunks, rest[:n]...), rest[:n]...)
			rest = rest[n:]
		}
		from := rapid.IntRange(0, len(h.changes)).Draw(t, "from")
		other := interleave(t, h.changes)
		for _, c := range []struct {
			how     string
			changes []Change
		}{
			{"each twice", doubled},
			{"in chunks, each twice", chunks},
			{"all twice", slices.Concat(h.changes, h.changes)},
			{"resumed from earlier", slices.Concat(h.changes, h.changes[from:])},
			{"in another order", other},
			{"in two orders", slices.Concat(other, h.changes)},
		} {
			w := worldOf(c.changes...)
			h.check(w, c.how)
			if !reflect.DeepEqual(w, straight) {
				t.Fatalf("%s: what lies behind the world differs", c.how)
			}
		}
	})
}

func port(uid UID, name string, rev Revision) *Port {
	return &Port{Meta: Meta{UID: uid, Revision: rev}, Tenant: "t", Name: name, Alloc: PortAlloc{NetworkUID: "n"}}
}

// The name of an object that was deleted and made again leads to the new one, also when the old one's end comes late.
func TestWorldRecreatedUnderItsName(t *testing.T) {
	oldPort, newPort := port("p1", "web", 1), port("p2", "web", 5)
	oldNet := &Network{Meta: Meta{UID: "n1", Revision: 1}, Tenant: "t", Name: "blue"}
	newNet := &Network{Meta: Meta{UID: "n2", Revision: 5}, Tenant: "t", Name: "blue"}
	oldHost := &Host{Meta: Meta{UID: "h1", Revision: 1}, Name: "h"}
	newHost := &Host{Meta: Meta{UID: "h2", Revision: 5}, Name: "h"}
	oldVTEP := &VTEP{Meta: Meta{UID: "v1", Revision: 1}, Name: "ext"}
	newVTEP := &VTEP{Meta: Meta{UID: "v2", Revision: 5}, Name: "ext"}
	oldTenant := &Tenant{Meta: Meta{UID: "t1", Revision: 1}, Name: "t"}
	newTenant := &Tenant{Meta: Meta{UID: "t2", Revision: 5}, Name: "t"}
	oldPool := &VNIPool{Meta: Meta{UID: "o1", Revision: 1}, Name: "o"}
	newPool := &VNIPool{Meta: Meta{UID: "o2", Revision: 5}, Name: "o"}

	w := worldOf(
		Change{Revision: 1, Port: oldPort}, Change{Revision: 1, Network: oldNet}, Change{Revision: 1, Host: oldHost},
		Change{Revision: 1, VTEP: oldVTEP}, Change{Revision: 1, Tenant: oldTenant}, Change{Revision: 1, Pool: oldPool},
		Change{Revision: 5, Port: newPort}, Change{Revision: 5, Network: newNet}, Change{Revision: 5, Host: newHost},
		Change{Revision: 5, VTEP: newVTEP}, Change{Revision: 5, Tenant: newTenant}, Change{Revision: 5, Pool: newPool},
		Change{Revision: 4, Deleted: true, Port: oldPort}, Change{Revision: 4, Deleted: true, Network: oldNet},
		Change{Revision: 4, Deleted: true, Host: oldHost}, Change{Revision: 4, Deleted: true, VTEP: oldVTEP},
		Change{Revision: 4, Deleted: true, Tenant: oldTenant}, Change{Revision: 4, Deleted: true, Pool: oldPool},
	)
	if w.PortByName("t", "web") != newPort {
		t.Error("the port is not found by its name")
	}
	if w.NetworkByName("t", "blue") != newNet {
		t.Error("the network is not found by its name")
	}
	if w.HostByName("h") != newHost {
		t.Error("the host is not found by its name")
	}
	if w.VTEPs["ext"] != newVTEP || w.Tenants["t"] != newTenant || w.Pools["o"] != newPool {
		t.Error("an object that is kept by its name is gone")
	}
	if n := len(slices.Collect(w.PortsOf("n"))); n != 1 {
		t.Errorf("%d ports in the network, want 1", n)
	}
}

// A replay that starts before what the world has does not take it back in time.
func TestWorldIgnoresWhatIsOlder(t *testing.T) {
	first, second := port("p1", "web", 3), port("p1", "web", 7)
	second.Spec.Description = "second"
	b3, b7 := &Binding{Port: "p1", Epoch: 3, Active: "h1"}, &Binding{Port: "p1", Epoch: 7, Active: "h2"}
	w := worldOf(Change{Revision: 7, Port: second}, Change{Revision: 7, Binding: b7},
		Change{Revision: 3, Port: first}, Change{Revision: 3, Binding: b3})
	if w.Ports["p1"] != second {
		t.Error("an older version of a port took the place of a newer one")
	}
	if w.Bindings["p1"] != b7 {
		t.Error("an older epoch took the place of a newer one")
	}
	if n := len(slices.Collect(w.PortsOn("h1"))); n != 0 {
		t.Error("the host of the older epoch holds the port")
	}
	// A deletion is newer than the version it deletes.
	w.Apply(Change{Revision: 9, Deleted: true, Port: second})
	if w.PortByName("t", "web") != nil || len(slices.Collect(w.PortsOf("n"))) != 0 {
		t.Error("the deleted port is still there")
	}
}

// Of objects that are kept by their names, too; and the end of an earlier life, even if it is told in the transaction that
// made the next one, leaves that one alone.
func TestWorldNamedObjects(t *testing.T) {
	older := &VTEP{Meta: Meta{UID: "v1", Revision: 3}, Name: "ext"}
	newer := &VTEP{Meta: Meta{UID: "v1", Revision: 7}, Name: "ext"}
	w := worldOf(Change{Revision: 7, VTEP: newer}, Change{Revision: 3, VTEP: older})
	if w.VTEPs["ext"] != newer {
		t.Error("an older version took the place of a newer one")
	}
	next := &VTEP{Meta: Meta{UID: "v2", Revision: 9}, Name: "ext"}
	w.Apply(Change{Revision: 9, VTEP: next})
	w.Apply(Change{Revision: 9, Deleted: true, VTEP: newer})
	if w.VTEPs["ext"] != next {
		t.Error("the end of the earlier life took the later one away")
	}
	token := &APIToken{ID: "2", Name: "ci"}
	w.Apply(Change{Revision: 10, APIToken: token})
	w.Apply(Change{Revision: 10, Deleted: true, APIToken: &APIToken{ID: "1", Name: "ci"}})
	if w.APITokens["ci"] != token {
		t.Error("the end of the earlier token took the later one away")
	}
}

// Where everything was deleted, nothing stays behind, in no index; deletions may come without the version they delete.
func TestWorldLeavesNothingBehind(t *testing.T) {
	n := &Network{Meta: Meta{UID: "n", Revision: 1}, Tenant: "t", Name: "blue", Spec: NetworkSpec{VTEPs: []NetworkVTEP{{VTEP: "ext"}}}}
	n.Alloc.Flood = n.Alloc.Flood.Use(netip.MustParseAddr("239.1.1.1"))
	changes := []Change{
		{Tenant: &Tenant{Meta: Meta{UID: "t", Revision: 1}, Name: "t"}}, {Network: n}, {Port: port("p", "web", 1)},
		{Binding: &Binding{Port: "p", Epoch: 1, Active: "h", Draining: "g"}}, {Host: &Host{Meta: Meta{UID: "h", Revision: 1}, Name: "h"}},
		{Facts: &HostFacts{Host: "h"}}, {VTEP: &VTEP{Meta: Meta{UID: "v", Revision: 1}, Name: "ext"}},
		{Pool: &VNIPool{Meta: Meta{UID: "o", Revision: 1}, Name: "o"}}, {VNI: &VNIUse{VNI: 5}},
		{GroupPool: &GroupPool{Meta: Meta{UID: "g", Revision: 1}, Name: "g"}},
		{Tombstone: &Tombstone{UID: "x", Network: "n"}}, {APIToken: &APIToken{Name: "a"}},
		{Move: &Move{Port: "p", Phase: MoveDraining, Revision: 1}}, {Host: &Host{Meta: Meta{UID: "d", Revision: 1}, Name: "d", Duty: DutyFailed}},
		{Host: &Host{Meta: Meta{UID: "e", Revision: 1}, Name: "e", Spec: HostSpec{WhenSilent: WhenSilentFail}}},
		{Counters: &Counters{Port: "p", Revision: 1}},
	}
	w := worldOf(changes...)
	for _, c := range changes {
		c.Deleted, c.Revision = true, 2
		if c.Port != nil {
			c.Port = &Port{Meta: Meta{UID: "p"}}
		}
		w.Apply(c)
	}
	empty := NewWorld("s")
	empty.Revision = 2
	if !reflect.DeepEqual(w, empty) {
		t.Errorf("left behind: %+v", w)
	}
}

// What an object is indexed by follows its newest version.
func TestWorldReindexes(t *testing.T) {
	moved := port("p1", "other", 5)
	moved.Alloc.NetworkUID = "m"
	w := worldOf(Change{Revision: 1, Port: port("p1", "web", 1)}, Change{Revision: 5, Port: moved})
	if w.PortByName("t", "web") != nil || w.PortByName("t", "other") != moved {
		t.Error("the port's old name still leads to it, or the new one does not")
	}
	if len(slices.Collect(w.PortsOf("n"))) != 0 || len(slices.Collect(w.PortsOf("m"))) != 1 {
		t.Error("the port is listed in its old network, or not in the new one")
	}
}

func TestBindingHosts(t *testing.T) {
	for _, c := range []struct {
		b    Binding
		want []UID
	}{
		{Binding{}, nil},
		{Binding{Active: "a"}, []UID{"a"}},
		{Binding{Active: "a", Incoming: "b", Draining: "c"}, []UID{"a", "b", "c"}},
		{Binding{Active: "a", Incoming: "a", Draining: "a"}, []UID{"a"}},
		{Binding{Incoming: "b", Draining: "b"}, []UID{"b"}},
	} {
		if got := slices.Collect(c.b.Hosts()); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %v, want %v", c.b, got, c.want)
		}
	}
}
