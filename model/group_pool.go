package model

import (
	"math"
	"math/big"
	"net/netip"
)

// GroupPool is a range of multicast addresses of the underlay that networks take their groups from.
type GroupPool struct {
	Meta
	Name string        `json:"name"`
	Spec GroupPoolSpec `json:"spec"`
}

// GroupPoolSpec is the range, both ends included.
type GroupPoolSpec struct {
	First netip.Addr `json:"first"`
	Last  netip.Addr `json:"last"`
	// NetworksPerGroup: see Sharing.
	NetworksPerGroup uint32 `json:"networks_per_group,omitempty"`
	Description      string `json:"description,omitempty"`
}

const fixGroupRange = "choose a range inside 239.0.0.0/8 (RFC 2365), or inside ff05::/16 or ff08::/16 (RFC 7346)"

// Validate reports everything that is wrong with the pool in itself.
func (p *GroupPool) Validate() error {
	var r refusals
	r.add(ValidateName("name", p.Name))
	r.add(p.Spec.validateRange())
	r.add(validateDescription(p.Spec.Description))
	return r.err()
}

func (s GroupPoolSpec) validateRange() *Error {
	if !s.First.IsValid() {
		return Errorf(Invalid, "spec.first", "give both ends, as 239.1.0.0 and 239.1.0.255", "the range is missing")
	}
	if !s.Last.IsValid() {
		return Errorf(Invalid, "spec.last", "give both ends, as 239.1.0.0 and 239.1.0.255", "the end of the range is missing")
	}
	if e := ValidateGroup("spec.first", s.First); e != nil {
		return e
	}
	if e := ValidateGroup("spec.last", s.Last); e != nil {
		return e
	}
	switch {
	case s.First.Is4() != s.Last.Is4():
		return Errorf(Invalid, "spec.last", "make two pools, one for each IP version", "%s and %s are of different IP versions", s.First, s.Last)
	case s.Last.Less(s.First):
		return Errorf(Invalid, "spec.last", "make spec.last at least spec.first", "the range %s..%s is empty", s.First, s.Last)
	}
	for _, no := range noGroup {
		if s.Contains(no.prefix.Addr()) {
			return Errorf(Invalid, "spec.last", fixGroupRange, "the range %s..%s has groups that are %s", s.First, s.Last, no.what)
		}
	}
	return nil
}

// ValidateUpdate is Validate, and refuses a change of the name. The range may change: networks keep the groups they have.
func (p *GroupPool) ValidateUpdate(old *GroupPool) error {
	if e := same("name", p.Name, old.Name, fixRecreate); e != nil {
		return e
	}
	return p.Validate()
}

// ValidateBeside refuses a range that another pool has a part of: a group is taken from one pool.
func (p *GroupPool) ValidateBeside(other *GroupPool) *Error {
	if other.Name == p.Name || other.Spec.Last.Less(p.Spec.First) || p.Spec.Last.Less(other.Spec.First) {
		return nil
	}
	return Errorf(Conflict, "spec.first", "choose a range outside it: `weft group-pool list` has those that are taken",
		"%s..%s overlaps group pool %s, which is %s..%s", p.Spec.First, p.Spec.Last, other.Name, other.Spec.First, other.Spec.Last)
}

// Contains reports whether a group lies in the range.
func (s GroupPoolSpec) Contains(g netip.Addr) bool {
	return g.BitLen() == s.First.BitLen() && !g.Less(s.First) && !s.Last.Less(g)
}

// Size is the number of groups in the range; what is more than a uint64 holds is that.
func (s GroupPoolSpec) Size() uint64 {
	if !s.First.IsValid() || s.First.BitLen() != s.Last.BitLen() || s.Last.Less(s.First) {
		return 0
	}
	first, last := new(big.Int).SetBytes(s.First.AsSlice()), new(big.Int).SetBytes(s.Last.AsSlice())
	n := last.Sub(last, first).Add(last, big.NewInt(1))
	if !n.IsUint64() {
		return math.MaxUint64
	}
	return n.Uint64()
}

// Sharing is how many networks may have the same group of the pool.
func (s GroupPoolSpec) Sharing() int { return max(1, int(s.NetworksPerGroup)) }

// AllocateGroup is the group of the pool that the fewest other networks have, of those the lowest: so it depends on what networks there are, and on
// nothing else. others tells how many have a group.
func AllocateGroup(pool *GroupPool, others func(netip.Addr) int) (netip.Addr, error) {
	var best netip.Addr
	fewest := pool.Spec.Sharing()
	for g := pool.Spec.First; pool.Spec.Contains(g) && fewest > 0; g = g.Next() {
		if n := others(g); n < fewest {
			best, fewest = g, n
		}
	}
	if !best.IsValid() {
		return best, exhaustedGroups(pool)
	}
	return best, nil
}

func exhaustedGroups(pool *GroupPool) *Error {
	return Errorf(Exhausted, "spec.group_pool", "let more networks have the same group (`weft group-pool set "+pool.Name+" --networks-per-group N`), enlarge the pool, name another one, or give a group",
		"group pool %s has no group in %s..%s that fewer than %s have", pool.Name, pool.Spec.First, pool.Spec.Last, Counted(pool.Spec.Sharing(), "network"))
}
