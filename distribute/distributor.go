package distribute

import (
	"context"
	"time"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/plan"
)

// Config is what a Distributor needs; zero values are the defaults.
type Config struct {
	// RingEntries bounds how many changes are remembered for streams that are behind. Default 65536.
	RingEntries int
	// ChunkOctets is the size at which an update is cut. Default 256 KiB.
	ChunkOctets int
	// AdvanceEvery is how often a host that a change does not concern hears of the revision alone. Default 200 ms.
	AdvanceEvery time.Duration
	// Evidence names the revisions after since that took something of a scope from a host (compile.Evidence); subscribed
	// says whether the host still holds the scope. Called from streams' goroutines without a lock held; nil gives none.
	Evidence func(host, scope string, since int64, subscribed bool) []plan.Removal
}

// Distributor holds the current resources of all hosts and a bounded ring of what changed. Safe for concurrent use.
type Distributor struct{ cfg Config }

// New is a distributor that has nothing yet: streams wait for the first Reset.
func New(cfg Config) *Distributor { return &Distributor{cfg: cfg} }

// Reset replaces everything: at start, when the store was loaded anew, and when it was replaced (another store id).
// Streams go on: they are sent what differs.
func (d *Distributor) Reset(storeID string, revision int64, all []*plan.Resource) {}

// Publish takes one compiled change in; it never waits for a stream. A store id other than that of the last Reset is an
// error: call Reset.
func (d *Distributor) Publish(storeID string, revision int64, upserts []*plan.Resource, removals []plan.Removal) error {
	return nil
}

// Serve feeds one stream until ctx ends or send fails, and returns why. send may block as long as it likes, and must
// return when ctx ends. The messages share their resources with other streams: they must not be modified.
func (d *Distributor) Serve(ctx context.Context, host string, hello *planv1.Hello, send func(*planv1.ServerMessage) error) error {
	return nil
}

// Subscribers are the hosts that must hold a scope by the current plan, connected or not, sorted.
func (d *Distributor) Subscribers(scope string) []string { return nil }

// Revision is what was last published, and of which store.
func (d *Distributor) Revision() (storeID string, revision int64) { return "", 0 }
