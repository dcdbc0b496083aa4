package model

import "github.com/weftnet/weft/wire"

// DefaultPoolSpec leaves the low VNIs to networks that pin one.
var DefaultPoolSpec = VNIPoolSpec{First: 4096, Last: wire.MaxVNI}

// PoolOf is the name of the pool that the network's VNI comes from when none is pinned.
func PoolOf(n *Network) string {
	if n.Spec.VNIPool == "" {
		return DefaultPool
	}
	return n.Spec.VNIPool
}

// Validate reports everything that is wrong with the pool in itself.
func (p *VNIPool) Validate() error {
	var r refusals
	r.add(ValidateName("name", p.Name))
	first, last := validateVNI("spec.first", p.Spec.First), validateVNI("spec.last", p.Spec.Last)
	r.add(first)
	r.add(last)
	if first == nil && last == nil && p.Spec.First > p.Spec.Last {
		r.add(Errorf(Invalid, "spec.last", "make spec.last at least spec.first", "the range %d..%d is empty", p.Spec.First, p.Spec.Last))
	}
	r.add(validateDescription(p.Spec.Description))
	return r.err()
}

// ValidateUpdate is Validate, and refuses a change of the name. The range may change: networks keep the VNIs they have.
func (p *VNIPool) ValidateUpdate(old *VNIPool) error {
	if e := same("name", p.Name, old.Name, fixRecreate); e != nil {
		return e
	}
	return p.Validate()
}

// Contains reports whether a VNI lies in the range.
func (s VNIPoolSpec) Contains(v wire.VNI) bool { return s.First <= v && v <= s.Last }

// Size is the number of VNIs in the range, 0 if the range is not a valid one.
func (s VNIPoolSpec) Size() int {
	if s.First == 0 || s.Last > wire.MaxVNI || s.Last < s.First {
		return 0
	}
	return int(s.Last-s.First) + 1
}

func validateVNI(field string, v wire.VNI) *Error {
	if err := v.Validate(); err != nil {
		return Errorf(Invalid, field, "choose one within that range, or leave it out to have one allocated", "%s", err)
	}
	return nil
}

// NextVNI is the first VNI of the pool that is not used, searching from `from` to the end and then from the beginning. A
// `from` outside the pool is its first VNI. It reports false when all are used.
func NextVNI(pool VNIPool, used func(wire.VNI) bool, from wire.VNI) (wire.VNI, bool) {
	s := pool.Spec
	if s.Size() == 0 {
		return 0, false
	}
	if !s.Contains(from) {
		from = s.First
	}
	for v, n := from, s.Size(); n > 0; n-- {
		if !used(v) {
			return v, true
		}
		if v == s.Last {
			v = s.First
		} else {
			v++
		}
	}
	return 0, false
}

// AllocateVNI fills in n.Alloc.VNI: the pinned one, the one it has already, or else the next of the pool. used reports VNIs
// of other networks and quarantined ones; it is not asked about the VNI that n has already.
func AllocateVNI(n *Network, pool VNIPool, used func(wire.VNI) bool) error {
	if v := n.Spec.VNI; v != 0 {
		if v != n.Alloc.VNI && used(v) {
			return Errorf(Taken, "spec.vni", "choose another, or leave it out to have one allocated", "VNI %d is already taken", v)
		}
		n.Alloc.VNI = v
		return nil
	}
	if n.Alloc.VNI != 0 {
		return nil
	}
	v, ok := NextVNI(pool, used, 0)
	if !ok {
		return Errorf(Exhausted, "spec.vni_pool", "enlarge the pool, name another one, or pin a VNI outside it",
			"VNI pool %s has no free VNI in %d..%d", pool.Name, pool.Spec.First, pool.Spec.Last)
	}
	n.Alloc.VNI = v
	return nil
}
