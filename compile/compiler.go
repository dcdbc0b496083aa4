package compile

import (
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/plan"
)

// Output is what a run of the compiler found to be new.
type Output struct {
	// Upserts are new resources and those whose octets changed.
	Upserts []*plan.Resource
	// Removals are resources that are gone, with the revision that did it as evidence.
	Removals []plan.Removal
}

// Compiler remembers what it made, so that a change costs what it touches. Not safe for concurrent use.
type Compiler struct{}

// New is a compiler that has made nothing.
func New() *Compiler { return &Compiler{} }

// All compiles the whole world from scratch: every resource is in Upserts, and there are no removals.
func (c *Compiler) All(w *model.World) Output { return Output{} }

// Changed compiles what the changes touch; they are applied to w already. Before the first All it is All.
func (c *Compiler) Changed(w *model.World, changes []model.Change) Output { return Output{} }

// MTU is the effective MTU of a network, 0 of one that does not exist.
func (c *Compiler) MTU(network model.UID) int { return 0 }

// Members are the hosts that hold a port of the network, in whatever role, sorted.
func (c *Compiler) Members(network model.UID) []model.UID { return nil }

// Underlay is the tightest underlay that a network must fit: of its members, or of all hosts when it has none. An MTU
// of 0 is unknown.
type Underlay struct {
	// MTU of the uplink, and the host that has it.
	MTU  int
	Host model.UID
	// Overhead in octets that encapsulation adds: 50 over IPv4, 70 over IPv6.
	Overhead int
}

// Underlay of a network: a pinned MTU fits when it is at most MTU - Overhead.
func (c *Compiler) Underlay(w *model.World, network model.UID) Underlay { return Underlay{} }
