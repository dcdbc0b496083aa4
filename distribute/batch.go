package distribute

import (
	"iter"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/plan"
)

// ask adds the evidence for what is removed.
func (b *batch) ask(evidence func(host, scope string, since int64, subscribed bool) []plan.Removal) {
	if evidence == nil || len(b.questions) == 0 {
		return
	}
	asked := map[question]bool{}
	for _, q := range b.questions {
		if asked[q] {
			continue
		}
		asked[q] = true
		for _, r := range evidence(q.host, q.scope, q.since, q.subscribed) {
			// Who is asked may know more than this batch carries: a later deletion is not part of it.
			if r.Key == (plan.Key{}) || r.Revision <= b.revision {
				b.removals = append(b.removals, r)
			}
		}
	}
}

// single is the one resource that the batch is, or nil.
func (b *batch) single() *plan.Resource {
	if len(b.upserts) != 1 || len(b.reset)+len(b.drop)+len(b.removals) > 0 {
		return nil
	}
	return b.upserts[0]
}

// overhead is about what a name or a resource takes beside its body.
const overhead = 160

// chunks cuts the batch into messages of about a size; the last one says so. There is always one.
func (b *batch) chunks(octets int) iter.Seq[*planv1.Update] {
	return func(yield func(*planv1.Update) bool) {
		u, size := b.update(), 0
		u.Resources = uint32(len(b.upserts))
		// full hands a message over once it is large enough; false: nobody wants more.
		full := func(add int) bool {
			if size += add; size < octets {
				return true
			}
			if !yield(u) {
				return false
			}
			u, size = b.update(), 0
			return true
		}
		for _, scope := range b.reset {
			u.ResetScopes = append(u.ResetScopes, scope)
			if !full(len(scope)) {
				return
			}
		}
		for _, scope := range b.drop {
			u.DropScopes = append(u.DropScopes, scope)
			if !full(len(scope)) {
				return
			}
		}
		for _, r := range b.removals {
			u.Removals = append(u.Removals, r.Proto())
			if !full(len(r.Scope) + len(r.Key.UID)) {
				return
			}
		}
		for _, r := range b.upserts {
			u.Upserts = append(u.Upserts, r.Proto())
			if !full(len(r.Body) + overhead) {
				return
			}
		}
		u.Last = true
		yield(u)
	}
}

func (b *batch) update() *planv1.Update {
	return &planv1.Update{StoreId: b.storeID, Revision: b.revision}
}
