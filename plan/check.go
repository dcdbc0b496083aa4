package plan

import (
	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
)

// Problem is something in a plan that an agent cannot do, in words for its user.
type Problem struct {
	// Key of the resource that is wrong.
	Key     Key
	Message string
}

// Proto is the problem as it travels in Applied.
func (p Problem) Proto() *planv1.ResourceError {
	return &planv1.ResourceError{Kind: p.Key.Kind, Uid: p.Key.UID, Message: p.Message}
}

// Checker says which networks and ports of a plan an agent must hold back, and why: a resource that is wrong in itself,
// one that needs a feature the agent lacks, two networks with one VNI, a VTEP that is not there. Everything else of the
// plan is applied. It follows the set step by step: the cost of a step is that of what it touches.
type Checker struct {
	host     string
	features []string
}

// NewChecker is one for an agent that knows these features, and has taken nothing yet.
func NewChecker(host string, features []string) *Checker {
	return &Checker{host: host, features: features}
}

// Apply follows one step, or a whole set at start. It returns the keys of networks and ports whose Held changed by it,
// beside those that the step itself names.
func (c *Checker) Apply(upserts, removed []*Resource) []Key { return nil }

// Held is why a network, port or VTEP must not be applied, or "". A port of a network that is held is held for the
// network's reason.
func (c *Checker) Held(k Key) string { return "" }

// Problems lists everything that is wrong, sorted by key.
func (c *Checker) Problems() []Problem { return nil }
