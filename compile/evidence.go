package compile

import (
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/plan"
)

// Evidence says which revisions after since took something of a scope away from a host, from the World alone: a server
// that has just started and remembers nothing gives it as well. subscribed says whether the host still holds the scope;
// if not, the evidence is one removal with the zero Key, for the whole of it. A world that never held the scope gives none.
func Evidence(w *model.World, host model.UID, scope string, since int64, subscribed bool) []plan.Removal {
	return nil
}
