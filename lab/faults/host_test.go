package faults

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/weftnet/weft/agent"
	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/compile"
	"github.com/weftnet/weft/plan"
	"github.com/weftnet/weft/trust"
)

// host is an agent without a kernel: the agent's own Speaker and Staging. It applies all that it is told at once, and moves as agents did
// before they moved by steps.
type host struct {
	name    string
	n       int
	id      *trust.HostIdentity
	speaker *agent.Speaker

	mu      sync.Mutex
	staging *plan.Staging
	refused error
}

// join makes a host that knows all servers, and starts its agent.
func (c *cluster) join(n int) *host {
	c.t.Helper()
	h := &host{name: fmt.Sprintf("h%d", n), n: n}
	token, err := c.root(c.servers[0]).Hosts.CreateHostToken(c.t.Context(), connect.NewRequest(&weftv1.CreateHostTokenRequest{Host: h.name}))
	must(c.t, err)
	var list []string
	for i := range c.servers {
		list = append(list, nodes[c.servers[(n+i)%len(c.servers)].name]+":7348")
	}
	h.id, err = agent.Join(c.t.Context(), agent.Config{Name: h.name, Servers: list, Token: token.Msg.GetToken(), Dir: filepath.Join(c.dir, h.name)})
	must(c.t, err)
	h.staging = plan.NewStaging(string(h.id.UID), plan.NewSet(), "", 0)
	h.speaker = agent.NewSpeaker(list, func(server string) *tls.Config { return h.id.ClientTLS(server, time.Now) }, h, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { h.speaker.Run(ctx) })
	c.t.Cleanup(func() { cancel(); running.Wait() })
	return h
}

// Hello implements the Speaker's listener.
func (h *host) Hello(context.Context) (*planv1.Hello, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	hello := h.staging.Hello("test", &planv1.Facts{
		VtepAddresses: []string{fmt.Sprintf("198.18.0.%d", h.n+1)}, UdpPort: 4789, UplinkMtu: 1500, Uplink: "eth0", Kernel: "none",
	})
	hello.Features = nil
	return hello, nil
}

// Receive implements the Speaker's listener.
func (h *host) Receive(_ context.Context, u *planv1.Update) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	step, err := h.staging.Receive(u)
	if err != nil {
		h.refused = err
		return err
	}
	if step != nil {
		h.speaker.Say(&planv1.Applied{StoreId: h.staging.StoreID(), Revision: h.staging.Revision()}, nil, nil)
	}
	return nil
}

// Connection implements the Speaker's listener.
func (h *host) Connection(_ context.Context, server string, _ error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if server != "" && h.staging.StoreID() != "" {
		h.speaker.Say(&planv1.Applied{StoreId: h.staging.StoreID(), Revision: h.staging.Revision()}, nil, nil)
	}
}

// converged waits until every host holds what the store says, scope by scope and by hash, and every server knows every host as live and up
// to date; it returns how long that took. The store is read anew, and compiled here.
func (c *cluster) converged(hosts []*host) time.Duration {
	c.t.Helper()
	began := time.Now()
	c.eventually("every host holds what the store says", func() error { return c.holdsStore(hosts) })
	for _, s := range c.servers {
		root := c.root(s)
		c.eventually(s.name+" knows that all hosts are there", func() error {
			list, err := root.Hosts.ListHosts(c.t.Context(), connect.NewRequest(&weftv1.ListHostsRequest{}))
			if err != nil {
				return err
			}
			for _, h := range list.Msg.GetHosts() {
				if st := h.GetStatus().GetState(); st != weftv1.HostState_HOST_STATE_READY {
					return fmt.Errorf("%s is %v", h.GetName(), st)
				}
			}
			res, err := root.System.WaitApplied(c.t.Context(), connect.NewRequest(&weftv1.WaitAppliedRequest{Tenant: tenant, Network: network}))
			if err == nil && !res.Msg.GetComplete() {
				err = fmt.Errorf("%v lag behind", res.Msg.GetLagging())
			}
			return err
		})
		root.Close()
	}
	return time.Since(began)
}

func (c *cluster) holdsStore(hosts []*host) error {
	w, err := c.store.Load(c.t.Context())
	if err != nil {
		return err
	}
	truth := plan.NewSet()
	subscribed := map[string][]string{}
	for _, r := range compile.New().All(w).Upserts {
		truth.Put(r)
		if h := r.Host(); h != nil {
			subscribed[r.UID] = plan.Subscription(h)
		}
	}
	for _, h := range hosts {
		if err := h.holds(truth, subscribed[string(h.id.UID)]); err != nil {
			return err
		}
	}
	return nil
}

// holds compares what the host holds of its scopes with what it must, by digest.
func (h *host) holds(truth *plan.Set, scopes []string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.refused != nil {
		return fmt.Errorf("%s refused a plan: %w", h.name, h.refused)
	}
	if len(scopes) == 0 {
		return fmt.Errorf("%s is not in the store", h.name)
	}
	held := h.staging.Set()
	for _, scope := range held.Scopes() {
		if !slices.Contains(scopes, scope) {
			return fmt.Errorf("%s holds %s, which it must not", h.name, scope)
		}
	}
	for _, scope := range scopes {
		if must, is := truth.Digest(scope), held.Digest(scope); must != is {
			return fmt.Errorf("%s: %s has %d resources, and %d in the store, or they differ", h.name, scope, is.Resources, must.Resources)
		}
	}
	return nil
}
