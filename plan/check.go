package plan

import (
	"cmp"
	"fmt"
	"slices"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/wire"
)

// Problem is something in a plan that an agent cannot do, in words for its user.
type Problem struct {
	// Key of the resource that is wrong.
	Key     Key
	Message string
	// Holds says that the resource is not applied; otherwise only what it names is missing, and the rest of it works.
	Holds bool
}

// Proto is the problem as it travels in Applied.
func (p Problem) Proto() *planv1.ResourceError {
	return &planv1.ResourceError{Kind: p.Key.Kind, Uid: p.Key.UID, Message: p.Message}
}

// Checker says which networks, ports and VTEPs of a plan an agent must hold back, and why: a resource that is wrong in
// itself, one that needs a feature the agent lacks, two networks with one VNI, a port whose VTEP is not there. Everything
// else of the plan is applied. It follows the set step by step: the cost of a step is that of what it touches. Not safe
// for concurrent use.
type Checker struct {
	// Spread is how the resources of a step are looked at.
	Spread Spread

	host     string
	features []string

	found map[Key]finding
	vnis  map[wire.VNI]map[string]struct{} // to the networks that have it
	ports map[string]map[string]struct{}   // VTEP to the ports reached through it
}

// NewChecker is one for an agent that knows these features, and has taken nothing yet.
func NewChecker(host string, features []string) *Checker {
	return &Checker{
		host: host, features: features,
		found: map[Key]finding{}, vnis: map[wire.VNI]map[string]struct{}{}, ports: map[string]map[string]struct{}{},
	}
}

// Apply follows one step, or a whole set at start. It returns the keys of networks and ports whose Held changed by it,
// beside those that the step itself names, sorted. Of a network that is listed, all ports are meant.
func (c *Checker) Apply(upserts, removed []*Resource) []Key {
	if len(c.found) == 0 {
		c.found = make(map[Key]finding, len(upserts))
	}
	news := make([]finding, len(upserts))
	before := map[Key]string{}
	c.Spread.each(len(upserts), func(i int) { news[i] = inspect(upserts[i], c.host, c.features) })
	for i, r := range upserts {
		c.neighbours(r.Key(), news[i].vni(), before)
	}
	for _, r := range removed {
		c.neighbours(r.Key(), 0, before)
	}
	for _, list := range [][]*Resource{upserts, removed} {
		for _, r := range list {
			delete(before, r.Key())
		}
	}
	for _, r := range removed {
		c.forget(r.Key())
	}
	for i, r := range upserts {
		c.forget(r.Key())
		c.learn(r.Key(), news[i])
	}
	var changed []Key
	for k, was := range before {
		if c.Held(k) != was {
			changed = append(changed, k)
		}
	}
	slices.SortFunc(changed, compareKeys)
	return changed
}

// neighbours notes what is thought now of those that a change of k may concern: the networks with its old and its new
// VNI, the ports behind a VTEP.
func (c *Checker) neighbours(k Key, vni wire.VNI, before map[Key]string) {
	switch k.Kind {
	case planv1.Kind_KIND_NETWORK:
		for _, v := range []wire.VNI{vni, c.found[k].vni()} {
			for uid := range c.vnis[v] {
				n := Key{planv1.Kind_KIND_NETWORK, uid}
				before[n] = c.Held(n)
			}
		}
	case planv1.Kind_KIND_VTEP:
		for uid := range c.ports[k.UID] {
			p := Key{planv1.Kind_KIND_PORT, uid}
			before[p] = c.Held(p)
		}
	}
}

func (c *Checker) learn(k Key, f finding) {
	c.found[k] = f
	if vni := f.vni(); vni != 0 {
		enter(c.vnis, vni, k.UID)
	}
	if f.vtep != "" {
		enter(c.ports, f.vtep, k.UID)
	}
}

func enter[K comparable](index map[K]map[string]struct{}, at K, uid string) {
	in := index[at]
	if in == nil {
		in = map[string]struct{}{}
		index[at] = in
	}
	in[uid] = struct{}{}
}

func strike[K comparable](index map[K]map[string]struct{}, at K, uid string) {
	in := index[at]
	if delete(in, uid); len(in) == 0 {
		delete(index, at)
	}
}

func (c *Checker) forget(k Key) {
	f, ok := c.found[k]
	if !ok {
		return
	}
	delete(c.found, k)
	strike(c.vnis, f.vni(), k.UID)
	strike(c.ports, f.vtep, k.UID)
}

// Held is why a network, port or VTEP must not be applied, or "". What is not in the plan is not held. A port does not
// tell of its network: ask for both.
func (c *Checker) Held(k Key) string {
	f, ok := c.found[k]
	switch {
	case !ok:
		return ""
	case f.wrong != "":
		return f.wrong
	case k.Kind == planv1.Kind_KIND_NETWORK && c.Contested(k.UID):
		// Which of them is right cannot be known here, and frames that arrive with the VNI may be of either: none is
		// applied, so that two tenants never meet.
		return fmt.Sprintf("VNI %d is that of %d networks in the plan", f.vni(), len(c.vnis[f.vni()]))
	case f.vtep != "":
		v := Key{planv1.Kind_KIND_VTEP, f.vtep}
		if _, ok := c.found[v]; !ok {
			return fmt.Sprintf("its VTEP %s is not in the plan", f.vtep)
		}
		if why := c.Held(v); why != "" {
			return fmt.Sprintf("its VTEP %s: %s", f.vtep, why)
		}
	}
	return ""
}

// Contested reports whether the VNI of a network is that of another network in the plan too. Unlike a resource that is wrong in
// itself, of which the last good one may stay, none of them may.
func (c *Checker) Contested(network string) bool {
	vni := c.found[Key{planv1.Kind_KIND_NETWORK, network}].vni()
	return vni != 0 && len(c.vnis[vni]) > 1
}

// Problems lists everything that is wrong, sorted by key. It looks at all of the plan.
func (c *Checker) Problems() []Problem {
	var out []Problem
	for k, f := range c.found {
		if why := c.Held(k); why != "" {
			out = append(out, Problem{k, why, true})
			continue
		}
		if f.names == nil {
			continue
		}
		for _, uid := range f.names.vteps {
			if _, ok := c.found[Key{planv1.Kind_KIND_VTEP, uid}]; !ok {
				out = append(out, Problem{k, fmt.Sprintf("it names VTEP %s, which is not in the plan", uid), false})
			}
		}
		for _, uid := range f.names.networks {
			if _, ok := c.found[Key{planv1.Kind_KIND_NETWORK, uid}]; !ok {
				out = append(out, Problem{k, fmt.Sprintf("it names network %s, which is not in the plan", uid), false})
			}
		}
	}
	slices.SortFunc(out, func(a, b Problem) int {
		return cmp.Or(compareKeys(a.Key, b.Key), cmp.Compare(a.Message, b.Message))
	})
	return out
}

// Check is Problems of a whole set.
func Check(s *Set, host string, features []string) []Problem {
	c := NewChecker(host, features)
	c.Apply(slices.Collect(s.All()), nil)
	return c.Problems()
}

func compareKeys(a, b Key) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.UID, b.UID)) }
