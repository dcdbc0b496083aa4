package scale

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/weftnet/weft/agent"
	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/client"
	"github.com/weftnet/weft/plan"
	"github.com/weftnet/weft/trust"
)

// convergePatience bounds how long a whole fleet may take.
const convergePatience = 5 * time.Minute

// fleet is all simulated agents, and what they share.
type fleet struct {
	cfg    Config
	server *server
	shared *shared
	dir    string
	agents []*simulated

	ctx     context.Context
	end     context.CancelFunc
	running sync.WaitGroup

	awaited atomic.Pointer[awaited]
	// quiet fleets do not report.
	quiet atomic.Bool
}

// awaited is that every agent has taken an update to a revision, since it was armed. Agents look at it in the middle of what is timed, so each
// has a place of its own in it.
type awaited struct {
	target int64
	taken  []atomic.Bool // by the place in fleet.agents
	behind atomic.Int64
	done   chan struct{}
}

// by notes that an agent stands at a revision.
func (w *awaited) by(place int, revision int64) {
	if revision >= w.target && place < len(w.taken) && w.taken[place].CompareAndSwap(false, true) && w.behind.Add(-1) == 0 {
		close(w.done)
	}
}

func newFleet(ctx context.Context, cfg Config, s *server, dir string) *fleet {
	f := &fleet{cfg: cfg, server: s, shared: newShared(), dir: dir}
	f.ctx, f.end = context.WithCancel(context.WithoutCancel(ctx))
	return f
}

// close ends every agent.
func (f *fleet) close() {
	f.end()
	f.running.Wait()
}

// join makes a host: a token by the API, a key, a certificate.
func (f *fleet) join(ctx context.Context, api *client.Client, name string) (*trust.HostIdentity, error) {
	token, err := api.Hosts.CreateHostToken(ctx, connect.NewRequest(&weftv1.CreateHostTokenRequest{Host: name}))
	if err != nil {
		return nil, fmt.Errorf("make a token for %s: %w", name, err)
	}
	return agent.Join(ctx, agent.Config{Name: name, Servers: []string{f.server.address}, Token: token.Msg.GetToken(), Dir: f.agentDir(name)})
}

func (f *fleet) agentDir(name string) string { return filepath.Join(f.dir, "agents", name) }

// muster makes the hosts and starts their agents.
func (f *fleet) muster(ctx context.Context, apis []*client.Client) error {
	f.agents = make([]*simulated, f.cfg.Hosts)
	return f.cfg.each(ctx, len(f.agents), apis, func(ctx context.Context, api *client.Client, i int) error {
		id, err := f.join(ctx, api, hostName(i))
		if err != nil {
			return err
		}
		f.agents[i] = f.newAgent(i, hostName(i), id)
		f.agents[i].place = i
		f.start(f.agents[i])
		return nil
	})
}

func (f *fleet) start(a *simulated) {
	f.running.Go(func() { a.run(f.ctx, f.cfg.ReportEvery) })
}

// applied is told by each agent of each update that it took.
func (f *fleet) applied(a *simulated, revision int64) {
	if w := f.awaited.Load(); w != nil {
		w.by(a.place, revision)
	}
}

// expect arms the wait for a revision. anew: what was taken before does not count, only what comes from now on.
func (f *fleet) expect(revision int64, anew bool) *awaited {
	w := &awaited{target: revision, taken: make([]atomic.Bool, len(f.agents)), done: make(chan struct{})}
	w.behind.Store(int64(len(f.agents)))
	f.awaited.Store(w)
	if !anew {
		for i, a := range f.agents {
			w.by(i, a.stands.Load())
		}
	}
	return w
}

// await waits for what expect armed.
func (f *fleet) await(ctx context.Context, w *awaited) error {
	ctx, cancel := context.WithTimeout(ctx, convergePatience)
	defer cancel()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
	}
	for i, a := range f.agents {
		if !w.taken[i].Load() {
			return fmt.Errorf("%d of %d agents have not taken revision %d: %w; one is %s: %s", w.behind.Load(), len(f.agents), w.target, ctx.Err(), a.name, a.state())
		}
	}
	return nil
}

// last is when the last agent took the update that it now stands at.
func (f *fleet) last() (t time.Time) {
	for _, a := range f.agents {
		if s := a.state(); s.took.After(t) {
			t = s.took
		}
	}
	return t
}

// gone waits until no agent has a stream.
func (f *fleet) gone(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, convergePatience)
	defer cancel()
	for {
		live := 0
		for _, a := range f.agents {
			if a.state().live {
				live++
			}
		}
		if live == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d agents still have a stream to a server that is gone: %w", live, ctx.Err())
		case <-time.After(askEvery):
		}
	}
}

// sums adds up what all agents got.
func (f *fleet) sums() (octets int64, updates, resources, ports int) {
	for _, a := range f.agents {
		s := a.state()
		octets, updates, resources, ports = octets+s.octets, updates+s.updates, resources+s.resources, ports+s.ports
	}
	return octets, updates, resources, ports
}

// reportOctets is the mean size of the agents' reports: of the first on a stream, and of those that follow it.
func (f *fleet) reportOctets() (whole, follows float64) {
	size := func(r *planv1.Report) float64 {
		return float64(proto.Size(&planv1.AgentMessage{Message: &planv1.AgentMessage_Report{Report: r}})) / float64(len(f.agents))
	}
	for _, a := range f.agents {
		a.mu.Lock()
		before := a.said()
		a.packets += packetsPerReport
		whole, follows = whole+size(before), follows+size(plan.Shorten(before, a.said()))
		a.mu.Unlock()
	}
	return whole, follows
}

// inFlight is how many requests each client has under way.
const inFlight = 16

// askPatience is how long a request is asked again that got no answer in time.
const askPatience = 3 * time.Minute

// sayEvery is how often a long stage says how far it is.
const sayEvery = 15 * time.Second

// tell says how many of n are begun, now and then, until what it gives back is called.
func (c Config) tell(begun *atomic.Int64, n int) (stop func()) {
	over := make(chan struct{})
	var teller sync.WaitGroup
	teller.Go(func() {
		tick := time.NewTicker(sayEvery)
		defer tick.Stop()
		for {
			select {
			case <-over:
				return
			case <-tick.C:
				c.say("%d of %d", min(int(begun.Load()), n), n)
			}
		}
	})
	return func() { close(over); teller.Wait() }
}

// each does something n times, spread over the clients. What gets no answer, as the server is too busy, is asked again and counted: it
// may have been done, and then its second try finds it there. Any other error ends it.
func (c Config) each(ctx context.Context, n int, apis []*client.Client, do func(ctx context.Context, api *client.Client, i int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	defer c.tell(&next, n)()
	for _, api := range apis {
		for range inFlight {
			g.Go(func() error {
				for {
					i := int(next.Add(1)) - 1
					if i >= n || ctx.Err() != nil {
						return ctx.Err()
					}
					began := time.Now()
					err := do(ctx, api, i)
					for codeOf(err) == connect.CodeUnavailable && time.Since(began) < askPatience && ctx.Err() == nil {
						c.askedAgain.Add(1)
						if err = do(ctx, api, i); codeOf(err) == connect.CodeAlreadyExists {
							err = nil
						}
					}
					if err != nil {
						return err
					}
				}
			})
		}
	}
	return g.Wait()
}

// codeOf is what kind of error the API gave.
func codeOf(err error) connect.Code {
	var e *client.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return connect.CodeOf(err)
}
