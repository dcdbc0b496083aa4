package distribute

import (
	"iter"

	"github.com/weftnet/weft/plan"
)

// entry says that a key of a scope changed; what it is now stands in the set. So the ring costs the same whatever the
// resources weigh, and a stream that is behind gets each resource once, as it is now.
type entry struct {
	scope string
	key   plan.Key
	// revision is the evidence for a removal by this change; 0 is none.
	revision int64
}

// ring holds the last changes by sequence number: first is the oldest there, next the one to come. Full, it forgets the
// oldest: streams that had not read it are resynchronised.
type ring struct {
	limit       int
	entries     []entry
	first, next uint64
}

func (r *ring) push(e entry) {
	if len(r.entries) < r.limit {
		r.entries = append(r.entries, e)
	} else {
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

// clear forgets everything; the sequence goes on, so that no cursor of before is valid.
func (r *ring) clear() {
	r.next += uint64(r.limit) - r.next%uint64(r.limit)
	r.first, r.entries = r.next, r.entries[:0]
}
