package accept_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/client"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/wire"
)

// Where a port can be, beside on a host of that name.
const (
	unbound = "unbound"
	gone    = "gone"
)

// churn makes, attaches, moves, detaches and deletes ports of one network, at a rate, and knows of each port where it must be by
// what was acknowledged: after a clear yes in one place, after an error in any that the request could have led to.
//
// Each port has a namespace on every host, so that a copy that stays behind on a host is seen.
type churn struct {
	f               *fixture
	tenant, network string
	hosts           []string
	rnd             *rand.Rand
	ports           []*churned

	stop    chan struct{}
	running sync.WaitGroup
	mu      sync.Mutex
	counts  map[string]int // "attach done", "move refused", …
	refusal map[string]int // words of refusals
	unclear []string
}

type churned struct {
	name string
	ns   map[string]*netdev.Handle // by host
	busy sync.Mutex
	may  map[string]bool // where it may be
}

// address is a port's.
type address struct {
	ip  netip.Addr
	mac wire.MAC
}

// churnWait is how long one request may take, on a machine that stands still for seconds at times.
const churnWait = 10 * time.Second

// newChurn makes the namespaces. The ports come and go by Start.
func newChurn(t *testing.T, f *fixture, tenant, network string, ports int) *churn {
	t.Helper()
	s, err := f.State()
	if err != nil {
		t.Fatal(err)
	}
	c := &churn{f: f, tenant: tenant, network: network, hosts: hostNames(s)}
	for i := range ports {
		p := &churned{name: fmt.Sprintf("churn%d", i), ns: map[string]*netdev.Handle{}, may: map[string]bool{gone: true}}
		for _, h := range c.hosts {
			name := "wefttest-accept-" + p.name + "-" + h
			if err := netdev.DeleteNamespace(name); err != nil {
				t.Fatal(err)
			}
			if err := netdev.CreateNamespace(name); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := netdev.DeleteNamespace(name); err != nil {
					t.Error(err)
				}
			})
			if p.ns[h], err = netdev.OpenName(name); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(p.ns[h].Close)
		}
		c.ports = append(c.ports, p)
	}
	return c
}

// start begins to ask for changes, so many a second, chosen by the seed.
func (c *churn) start(seed uint64, rate int) {
	c.rnd = rand.New(rand.NewPCG(seed, 1))
	c.stop, c.counts, c.refusal, c.unclear = make(chan struct{}), map[string]int{}, map[string]int{}, nil
	c.running.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(rate))
		defer tick.Stop()
		for {
			select {
			case <-c.stop:
				return
			case <-tick.C:
			}
			p := c.ports[c.rnd.IntN(len(c.ports))]
			dice, at := c.rnd.Float64(), c.hosts[c.rnd.IntN(len(c.hosts))]
			if !p.busy.TryLock() {
				c.count("busy")
				continue
			}
			c.running.Go(func() {
				defer p.busy.Unlock()
				ctx, cancel := context.WithTimeout(context.Background(), churnWait)
				defer cancel()
				c.change(ctx, p, dice, at)
			})
		}
	})
}

// end waits until everything that was asked is answered.
func (c *churn) end() {
	close(c.stop)
	c.running.Wait()
}

func (c *churn) count(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[what]++
}

// change asks for one thing that fits where the port is.
func (c *churn) change(ctx context.Context, p *churned, dice float64, at string) {
	if len(p.may) > 1 && !c.find(ctx, p) {
		return
	}
	switch now := only(p.may); {
	case now == gone:
		c.create(ctx, p)
	case now == unbound && dice < 0.2:
		c.ask("delete", p, gone, func() error {
			_, err := c.f.mustClient().Ports.DeletePort(ctx, connect.NewRequest(&weftv1.DeletePortRequest{Tenant: c.tenant, Name: p.name}))
			return err
		})
	case now == unbound:
		c.attach(ctx, p, at)
	case at == now:
		c.detach(ctx, p, now)
	default:
		moved := c.ask("move", p, at, func() error {
			_, err := c.f.mustClient().Ports.MovePort(ctx, connect.NewRequest(&weftv1.MovePortRequest{Tenant: c.tenant, Name: p.name, Host: at}))
			return err
		})
		if moved {
			c.attach(ctx, p, at)
		}
	}
}

func only(m map[string]bool) string {
	for k := range m {
		return k
	}
	return ""
}

// ask does one request and learns from its answer where the port may be.
func (c *churn) ask(what string, p *churned, leads string, do func() error) bool {
	err := do()
	if err == nil {
		p.may = map[string]bool{leads: true}
		c.count(what + " done")
		return true
	}
	p.may[leads] = true
	c.count(what + " refused")
	c.mu.Lock()
	defer c.mu.Unlock()
	e := client.Explain(err)
	c.refusal[strings.ReplaceAll(err.Error(), p.name, "PORT")]++
	// A clear refusal says by its code what kind it is, and by its words why.
	if e == nil || e.Code == connect.CodeUnknown || e.Code == connect.CodeInternal || e.Reason == "" {
		c.unclear = append(c.unclear, fmt.Sprintf("%s: %v", what, err))
	}
	return false
}

func (c *churn) create(ctx context.Context, p *churned) {
	c.ask("create", p, unbound, func() error {
		_, err := c.f.mustClient().Ports.CreatePort(ctx, connect.NewRequest(&weftv1.CreatePortRequest{Tenant: c.tenant, Name: p.name,
			Spec: &weftv1.PortSpec{Network: c.network}}))
		return err
	})
}

func (c *churn) attach(ctx context.Context, p *churned, host string) bool {
	p.may[unbound] = p.may[unbound] || !p.may[host] // an attachment that fails undoes the binding it made
	return c.ask("attach", p, host, func() error {
		a, err := c.f.Agent(host)
		if err != nil {
			return err
		}
		defer a.Close()
		_, err = a.Attach(ctx, connect.NewRequest(&localv1.AttachRequest{Tenant: c.tenant, Port: p.name,
			Interface: &localv1.AttachRequest_Netns{Netns: &localv1.NetnsInterface{Netns: p.ns[host].String()}}}))
		return err
	})
}

func (c *churn) detach(ctx context.Context, p *churned, host string) bool {
	return c.ask("detach", p, unbound, func() error {
		a, err := c.f.Agent(host)
		if err != nil {
			return err
		}
		defer a.Close()
		_, err = a.Detach(ctx, connect.NewRequest(&localv1.DetachRequest{Tenant: c.tenant, Port: p.name}))
		return err
	})
}

// find asks the server where a port is that may be in several places, and wants it to be in one of them.
func (c *churn) find(ctx context.Context, p *churned) bool {
	is, err := c.where(ctx, p)
	if err != nil {
		c.count("look refused")
		return false
	}
	if !p.may[is] {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.unclear = append(c.unclear, fmt.Sprintf("%s is %s, and by what was answered it can only be in %v", p.name, is, slices.Sorted(maps.Keys(p.may))))
	}
	p.may = map[string]bool{is: true}
	return true
}

func (c *churn) where(ctx context.Context, p *churned) (string, error) {
	res, err := c.f.mustClient().Ports.GetPort(ctx, connect.NewRequest(&weftv1.GetPortRequest{Tenant: c.tenant, Name: p.name}))
	if e := client.Explain(err); e != nil && e.Code == connect.CodeNotFound {
		return gone, nil
	}
	if err != nil {
		return "", err
	}
	if at := res.Msg.GetStatus().GetBinding().GetActive(); at != "" {
		return at, nil
	}
	return unbound, nil
}

// verify wants every port where it was acknowledged to be, completes what a refused attachment left half done, and then wants
// every bound port's interface in the namespace of its host alone. It returns the addresses of the bound ports.
func (c *churn) verify(t testing.TB) (bound []address) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*inTime)
	defer cancel()
	for _, u := range c.unclear {
		t.Error(u)
	}
	for _, p := range c.ports {
		may := slices.Sorted(maps.Keys(p.may))
		is, err := c.where(ctx, p)
		if err != nil {
			t.Fatal(err)
		}
		if !p.may[is] {
			t.Errorf("%s is %s, and by what was acknowledged it has to be in %v", p.name, is, may)
		}
		p.may = map[string]bool{is: true}
		if is == gone || is == unbound {
			continue
		}
		if !c.attach(ctx, p, is) {
			t.Errorf("%s could not be attached on %s, where it is bound: %v", p.name, is, slices.Sorted(maps.Keys(c.refusal)))
			continue
		}
		res, err := c.f.mustClient().Ports.GetPort(ctx, connect.NewRequest(&weftv1.GetPortRequest{Tenant: c.tenant, Name: p.name}))
		if err != nil {
			t.Fatal(err)
		}
		mac, err := wire.ParseMAC(res.Msg.GetStatus().GetMacs()[0])
		if err != nil {
			t.Fatal(err)
		}
		bound = append(bound, address{first(res.Msg.GetStatus().GetIps(), netip.Addr.Is4), mac})
	}
	for _, p := range c.ports {
		for h, ns := range p.ns {
			want := p.may[h]
			eventually(t, fmt.Sprintf("%s has an interface on %s: %t", p.name, h, want), func() (bool, string) {
				_, err := ns.LinkByName("eth0")
				if err != nil && !errors.Is(err, netdev.ErrNotFound) {
					t.Fatal(err)
				}
				return (err == nil) == want, fmt.Sprintf("%v; on %s:\n%s", err, h, c.f.history(t, h, c.tenant+"/"+p.name))
			})
		}
	}
	return bound
}

// String are the counts.
func (c *churn) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(c.counts)) {
		parts = append(parts, fmt.Sprintf("%s %d", k, c.counts[k]))
	}
	return strings.Join(parts, ", ")
}

// clear takes the ports away.
func (c *churn) clear(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*inTime)
	defer cancel()
	for _, p := range c.ports {
		if is := only(p.may); is != gone {
			if is != unbound && !c.detach(ctx, p, is) {
				t.Errorf("%s could not be detached", p.name)
			}
			if _, err := c.f.mustClient().Ports.DeletePort(ctx, connect.NewRequest(&weftv1.DeletePortRequest{Tenant: c.tenant, Name: p.name})); err != nil {
				t.Error(err)
			}
			p.may = map[string]bool{gone: true}
		}
	}
}

// mustClient is for goroutines that have no test at hand: the lab's client is made before they start.
func (f *fixture) mustClient() *client.Client {
	c, err := f.Client()
	if err != nil {
		panic(err)
	}
	return c
}
