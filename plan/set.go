package plan

import (
	"crypto/sha256"
	"encoding/binary"
	"iter"
	"maps"
	"slices"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
)

// Digest sums up the resources of one scope, in any order: the XOR of sha256(kind "/" uid "/" sha256(body)), where kind
// is 4 octets, big endian, and sha256(body) is 32. It finds differences between two that trust each other; it is no proof
// against a forger.
type Digest struct {
	Sum       [sha256.Size]byte
	Resources int
}

// Toggle puts a resource in, or takes one out that is in: the two are one operation.
func (d *Digest) toggle(k Key, hash [sha256.Size]byte, step int) {
	b := make([]byte, 0, 4+2+len(k.UID)+sha256.Size)
	b = binary.BigEndian.AppendUint32(b, uint32(k.Kind))
	b = append(b, '/')
	b = append(b, k.UID...)
	b = append(b, '/')
	b = append(b, hash[:]...)
	for i, x := range sha256.Sum256(b) {
		d.Sum[i] ^= x
	}
	d.Resources += step
}

// Proto is the digest of a scope as it travels in Hello.
func (d Digest) Proto(scope string) *planv1.ScopeDigest {
	return &planv1.ScopeDigest{Scope: scope, Digest: d.Sum[:], Resources: uint32(d.Resources)}
}

// Matches compares with a digest from the wire.
func (d Digest) Matches(m *planv1.ScopeDigest) bool {
	return string(d.Sum[:]) == string(m.GetDigest()) && uint32(d.Resources) == m.GetResources()
}

// Set is resources by key, with every scope's digest kept up to date. It is not safe for concurrent use.
type Set struct {
	resources map[Key]*Resource
	scopes    map[string]*scopeSet
}

type scopeSet struct {
	resources map[Key]*Resource
	digest    Digest
}

// NewSet is a set of these resources.
func NewSet(resources ...*Resource) *Set {
	s := &Set{resources: map[Key]*Resource{}, scopes: map[string]*scopeSet{}}
	for _, r := range resources {
		s.Put(r)
	}
	return s
}

// Len counts the resources.
func (s *Set) Len() int { return len(s.resources) }

// Get finds a resource, or nil.
func (s *Set) Get(k Key) *Resource { return s.resources[k] }

// Put takes a resource in, in the place of one with the same key. It reports whether the set's content changed: the same
// octets in the same scope are no change, and the resource that was there stays.
func (s *Set) Put(r *Resource) bool {
	k := r.Key()
	if old := s.resources[k]; old != nil {
		if old.Scope == r.Scope && old.Hash == r.Hash && slices.Equal(old.Requires, r.Requires) {
			return false
		}
		s.Remove(k)
	}
	sc := s.scopes[r.Scope]
	if sc == nil {
		sc = &scopeSet{resources: map[Key]*Resource{}}
		s.scopes[r.Scope] = sc
	}
	s.resources[k] = r
	sc.resources[k] = r
	sc.digest.toggle(k, r.Hash, +1)
	return true
}

// Remove takes a resource out; it returns what was there, or nil.
func (s *Set) Remove(k Key) *Resource {
	old := s.resources[k]
	if old == nil {
		return nil
	}
	delete(s.resources, k)
	sc := s.scopes[old.Scope]
	delete(sc.resources, k)
	sc.digest.toggle(k, old.Hash, -1)
	if len(sc.resources) == 0 {
		delete(s.scopes, old.Scope)
	}
	return old
}

// All yields every resource, in no order.
func (s *Set) All() iter.Seq[*Resource] { return maps.Values(s.resources) }

// Scope yields the resources of one scope, in no order.
func (s *Set) Scope(scope string) iter.Seq[*Resource] {
	sc := s.scopes[scope]
	if sc == nil {
		return func(func(*Resource) bool) {}
	}
	return maps.Values(sc.resources)
}

// Kind yields the resources of one kind, in no order. It looks at all of them.
func (s *Set) Kind(kind planv1.Kind) iter.Seq[*Resource] {
	return func(yield func(*Resource) bool) {
		for k, r := range s.resources {
			if k.Kind == kind && !yield(r) {
				return
			}
		}
	}
}

// Scopes are the names of all scopes that hold something, sorted.
func (s *Set) Scopes() []string { return slices.Sorted(maps.Keys(s.scopes)) }

// Digest of a scope; the zero Digest when nothing is in it.
func (s *Set) Digest(scope string) Digest {
	if sc := s.scopes[scope]; sc != nil {
		return sc.digest
	}
	return Digest{}
}

// Digests of every scope, for Hello.
func (s *Set) Digests() []*planv1.ScopeDigest {
	var out []*planv1.ScopeDigest
	for _, scope := range s.Scopes() {
		out = append(out, s.Digest(scope).Proto(scope))
	}
	return out
}

// Equal reports whether both hold the same octets under the same keys and scopes.
func (s *Set) Equal(o *Set) bool {
	if len(s.resources) != len(o.resources) {
		return false
	}
	for k, r := range s.resources {
		if q := o.resources[k]; q == nil || q.Scope != r.Scope || q.Hash != r.Hash {
			return false
		}
	}
	return true
}

// Clone is a copy that can be changed apart; the resources are shared.
func (s *Set) Clone() *Set { return NewSet(slices.Collect(s.All())...) }
