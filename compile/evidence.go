package compile

import (
	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/plan"
)

// Evidence says which revisions after since took something of a scope away from a host, from the World alone: a server
// that has just started and remembers nothing gives it as well. subscribed says whether the host still holds the scope;
// if not, the evidence is one removal with the zero Key, for the whole of it.
//
// A deletion is evident from its tombstone. That a host left a network is evident from the highest epoch among the
// network's bindings and tombstones: no binding names a host that it once had. A VTEP that is still there was not lost: the
// host does not need it any more, as the world's revision says. A world that knows nothing of the scope (a wiped store, an
// older backup) gives none; since must be a revision of the same store.
func Evidence(w *model.World, host model.UID, scope string, since int64, subscribed bool) []plan.Removal {
	if scope == plan.UnderlayScope {
		return removedHosts(w, since)
	}
	kind, id, ok := plan.SplitScope(scope)
	if !ok {
		return nil
	}
	uid := model.UID(id)
	if subscribed {
		var out []plan.Removal
		for t := range w.TombstonesOf(uid) {
			if int64(t.Revision) > since {
				k := plan.Key{Kind: planv1.Kind_KIND_PORT, UID: string(t.UID)}
				out = append(out, plan.Removal{Scope: scope, Key: k, Revision: int64(t.Revision)})
			}
		}
		return out
	}
	var latest int64
	if t := w.Tombstones[uid]; t != nil {
		latest = int64(t.Revision)
	}
	switch kind {
	case planv1.Kind_KIND_VTEP:
		for _, v := range w.VTEPs {
			if v.UID == uid {
				latest = int64(w.Revision)
			}
		}
	case planv1.Kind_KIND_NETWORK:
		for p := range w.PortsOf(uid) {
			if b := w.Bindings[p.UID]; b != nil {
				latest = max(latest, int64(b.Epoch))
			}
		}
		for t := range w.TombstonesOf(uid) {
			latest = max(latest, int64(t.Revision))
		}
	}
	if latest <= since {
		return nil
	}
	return []plan.Removal{{Scope: scope, Revision: latest}}
}

// removedHosts are those whose VTEPs are gone from the underlay with them.
func removedHosts(w *model.World, since int64) []plan.Removal {
	var out []plan.Removal
	for t := range w.TombstonesOfHosts() {
		if int64(t.Revision) > since {
			k := plan.Key{Kind: planv1.Kind_KIND_VTEP, UID: string(t.UID)}
			out = append(out, plan.Removal{Scope: plan.UnderlayScope, Key: k, Revision: int64(t.Revision)})
		}
	}
	return out
}
