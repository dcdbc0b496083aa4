package distribute

import (
	"iter"
	"sort"

	"github.com/weftnet/weft/plan"
)

// entry says that a key of a scope changed; what it is now stands in the set. So the ring costs the same whatever the
// resources weigh, and a stream that is behind gets each resource once, as it is now.
type entry struct {
	scope string
	key   plan.Key
	// revision is the evidence for a removal by this change; 0 is none.
	revision int64
	// at is the revision that it came with: who holds an older one has not seen it.
	at int64
	// idle: nobody needs it before something else names it, so it wakes no stream; it goes along with what does, or when there is time.
	idle bool
	// undo turns the scope's digest back to what it was before.
	undo plan.Digest
}

// ring holds the last changes by sequence number: first is the oldest there, next the one to come. Full, it forgets the
// oldest: streams that had not read it are resynchronised.
type ring struct {
	limit       int
	entries     []entry
	first, next uint64
	// forgotten is the highest revision that an entry of before first came with.
	forgotten int64
}

func (r *ring) push(e entry) {
	if len(r.entries) < r.limit {
		r.entries = append(r.entries, e)
	} else {
		r.forgotten = max(r.forgotten, r.entries[r.next%uint64(r.limit)].at)
		r.entries[r.next%uint64(r.limit)] = e
		r.first++
	}
	r.next++
}

// since yields the entries from a sequence number on, or from the oldest there.
func (r *ring) since(seq uint64) iter.Seq[entry] {
	return func(yield func(entry) bool) {
		for i := max(seq, r.first); i < r.next; i++ {
			if !yield(r.entries[i%uint64(r.limit)]) {
				return
			}
		}
	}
}

// clear forgets everything up to a revision; the sequence goes on, so that no cursor of before is valid.
func (r *ring) clear(revision int64) {
	r.forgotten = revision
	r.next += uint64(r.limit) - r.next%uint64(r.limit)
	r.first, r.entries = r.next, r.entries[:0]
}

// after is the first sequence number that came after a revision. ok is false when the ring no longer has all that did.
func (r *ring) after(revision int64) (seq uint64, ok bool) {
	if revision < r.forgotten {
		return 0, false
	}
	n := sort.Search(int(r.next-r.first), func(i int) bool {
		return r.entries[(r.first+uint64(i))%uint64(r.limit)].at > revision
	})
	return r.first + uint64(n), true
}

// add shifts a digest by a difference, and the difference of two is add(a, negative(b)): the XOR is its own reverse, the
// count is not.
func add(a, b plan.Digest) plan.Digest {
	for i := range a.Sum {
		a.Sum[i] ^= b.Sum[i]
	}
	a.Resources += b.Resources
	return a
}

func negative(d plan.Digest) plan.Digest {
	d.Resources = -d.Resources
	return d
}
