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
	var room [128]byte
	b := binary.BigEndian.AppendUint32(room[:0], uint32(k.Kind))
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
	resources map[Key]member
	scopes    map[string]*scopeSet
}

// member is a resource and its place in its scope's list.
type member struct {
	*Resource
	at int
}

type scopeSet struct {
	resources []*Resource
	digest    Digest
}

// NewSet is a set of these resources.
func NewSet(resources ...*Resource) *Set {
	s := &Set{resources: make(map[Key]member, len(resources)), scopes: map[string]*scopeSet{}}
	for _, r := range resources {
		s.Put(r)
	}
	return s
}

// Len counts the resources.
func (s *Set) Len() int { return len(s.resources) }

// Get finds a resource, or nil.
func (s *Set) Get(k Key) *Resource { return s.resources[k].Resource }

// Put takes a resource in, in the place of one with the same key. It reports whether the set's content changed: the same
// octets in the same scope are no change, and the resource that was there stays.
func (s *Set) Put(r *Resource) bool {
	k := r.Key()
	if old := s.resources[k].Resource; old != nil {
		if old.Scope == r.Scope && old.Hash == r.Hash && slices.Equal(old.Requires, r.Requires) {
			return false
		}
		s.Remove(k)
	}
	sc := s.scopes[r.Scope]
	if sc == nil {
		sc = &scopeSet{}
		s.scopes[r.Scope] = sc
	}
	s.resources[k] = member{r, len(sc.resources)}
	sc.resources = append(sc.resources, r)
	sc.digest.toggle(k, r.Hash, +1)
	return true
}

// expect makes room for a first plan of so many resources.
func (s *Set) expect(resources int) {
	if len(s.resources) == 0 {
		s.resources = make(map[Key]member, resources)
	}
}

// Remove takes a resource out; it returns what was there, or nil.
func (s *Set) Remove(k Key) *Resource {
	gone, ok := s.resources[k]
	if !ok {
		return nil
	}
	old := gone.Resource
	delete(s.resources, k)
	sc := s.scopes[old.Scope]
	last := len(sc.resources) - 1
	if moved := sc.resources[last]; moved != old {
		sc.resources[gone.at] = moved
		s.resources[moved.Key()] = member{moved, gone.at}
	}
	sc.resources[last] = nil
	sc.resources = sc.resources[:last]
	sc.digest.toggle(k, old.Hash, -1)
	if len(sc.resources) == 0 {
		delete(s.scopes, old.Scope)
	}
	return old
}

// All yields every resource, in no order.
func (s *Set) All() iter.Seq[*Resource] {
	return func(yield func(*Resource) bool) {
		for _, m := range s.resources {
			if !yield(m.Resource) {
				return
			}
		}
	}
}

// Scope yields the resources of one scope, in no order. The set must not change meanwhile.
func (s *Set) Scope(scope string) iter.Seq[*Resource] {
	sc := s.scopes[scope]
	if sc == nil {
		return func(func(*Resource) bool) {}
	}
	return slices.Values(sc.resources)
}

// Kind yields the resources of one kind, in no order. It looks at all of them.
func (s *Set) Kind(kind planv1.Kind) iter.Seq[*Resource] {
	return func(yield func(*Resource) bool) {
		for k, m := range s.resources {
			if k.Kind == kind && !yield(m.Resource) {
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
		if q := o.Get(k); q == nil || q.Scope != r.Scope || q.Hash != r.Hash {
			return false
		}
	}
	return true
}

// Clone is a copy that can be changed apart; the resources are shared.
func (s *Set) Clone() *Set { return NewSet(slices.Collect(s.All())...) }
