package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/client"
)

const (
	tenant  = "acme"
	network = "blue"
	// workers write and read at the same time; names is how many ports, and how many networks, they fight for in a round.
	workers = 6
	names   = 4
)

// work is a round's clients and what they did.
type work struct {
	*history
	round   int
	hosts   []*host
	clients [][]*client.Client // of each worker, one a server
	// paused holds writes back.
	paused sync.RWMutex
	// stale, with a chance in a thousand, answers a read from an older one: a broken server, for the test of this test.
	stale   int
	olds    sync.Map // key to answer
	done    atomic.Int64
	unknown atomic.Int64
}

// port and network names of a round are its own: what is unknown of one does not burden the next.
func (w *work) port() string { return fmt.Sprintf("p%d-%d", w.round, rand.N(names)) }
func (w *work) net() string  { return fmt.Sprintf("n%d-%d", w.round, rand.N(names)) }

// run works until ctx ends; calls under way are finished.
func (w *work) run(ctx context.Context) {
	var all sync.WaitGroup
	for i := range workers {
		all.Go(func() {
			for ctx.Err() == nil {
				w.one(i)
			}
		})
	}
	all.Wait()
}

// one is one call of one client at a random server.
func (w *work) one(worker int) {
	c := w.clients[worker][rand.N(len(w.clients[worker]))]
	host := w.hosts[rand.N(len(w.hosts))].name
	port, net := w.port(), w.net()
	value := fmt.Sprintf("v%d-%d", worker, w.now())
	switch rand.N(13) {
	case 0, 1:
		w.write(worker, call{key: "port " + port, verb: "create", value: value}, func(ctx context.Context) error {
			_, err := c.Ports.CreatePort(ctx, connect.NewRequest(&weftv1.CreatePortRequest{Tenant: tenant, Name: port,
				Spec: &weftv1.PortSpec{Network: network, Description: value}}))
			return err
		})
	case 2:
		w.write(worker, call{key: "port " + port, verb: "delete"}, func(ctx context.Context) error {
			_, err := c.Ports.DeletePort(ctx, connect.NewRequest(&weftv1.DeletePortRequest{Tenant: tenant, Name: port}))
			return err
		})
	case 3, 4:
		w.write(worker, call{key: "port " + port, verb: "bind", host: host}, func(ctx context.Context) error {
			_, err := c.Ports.BindPort(ctx, connect.NewRequest(&weftv1.BindPortRequest{Tenant: tenant, Name: port, Host: host}))
			return err
		})
	case 5:
		w.write(worker, call{key: "port " + port, verb: "unbind"}, func(ctx context.Context) error {
			_, err := c.Ports.UnbindPort(ctx, connect.NewRequest(&weftv1.UnbindPortRequest{Tenant: tenant, Name: port}))
			return err
		})
	case 6:
		w.write(worker, call{key: "port " + port, verb: "move", host: host}, func(ctx context.Context) error {
			_, err := c.Ports.MovePort(ctx, connect.NewRequest(&weftv1.MovePortRequest{Tenant: tenant, Name: port, Host: host}))
			return err
		})
	case 7:
		w.write(worker, call{key: "network " + net, verb: "create", value: value}, func(ctx context.Context) error {
			_, err := c.Networks.CreateNetwork(ctx, connect.NewRequest(&weftv1.CreateNetworkRequest{Tenant: tenant, Name: net,
				Spec: &weftv1.NetworkSpec{Description: value}}))
			return err
		})
	case 8:
		w.write(worker, call{key: "network " + net, verb: "delete"}, func(ctx context.Context) error {
			_, err := c.Networks.DeleteNetwork(ctx, connect.NewRequest(&weftv1.DeleteNetworkRequest{Tenant: tenant, Name: net}))
			return err
		})
	case 9:
		w.readNetwork(worker, c, net)
	case 10:
		w.list(worker, c)
	default:
		w.readPort(worker, c, port)
	}
}

func (w *work) write(worker int, in call, do func(context.Context) error) {
	w.paused.RLock()
	defer w.paused.RUnlock()
	called := w.now()
	out := outcome(do(context.Background()))
	w.add(worker, in, called, out, w.now())
	switch {
	case out.unknown:
		w.unknown.Add(1)
	case out.code == 0:
		w.done.Add(1)
	case out.code == connect.CodeUnavailable:
		time.Sleep(10 * time.Millisecond) // this server is away: not all of the history is to say so
	}
}

// read notes what a read saw, or, of a broken server, what an earlier one did.
func (w *work) read(worker int, in call, called int64, out answer) {
	if out.code == connect.CodeNotFound {
		out = answer{} // of that name there was nothing
	}
	if old, known := w.olds.Swap(in.key, out); known && rand.N(1000) < w.stale {
		out = old.(answer)
	}
	if out.code != 0 && !out.unknown {
		out.unknown = true // a read that was refused says nothing
	}
	w.add(worker, in, called, out, w.now())
}

func (w *work) readPort(worker int, c *client.Client, name string) {
	called := w.now()
	res, err := c.Ports.GetPort(context.Background(), connect.NewRequest(&weftv1.GetPortRequest{Tenant: tenant, Name: name}))
	out := outcome(err)
	if err == nil {
		out.value, out.host = res.Msg.GetSpec().GetDescription(), res.Msg.GetStatus().GetBinding().GetActive()
	}
	w.read(worker, call{key: "port " + name, verb: "get"}, called, out)
}

func (w *work) readNetwork(worker int, c *client.Client, name string) {
	called := w.now()
	res, err := c.Networks.GetNetwork(context.Background(), connect.NewRequest(&weftv1.GetNetworkRequest{Tenant: tenant, Name: name}))
	out := outcome(err)
	if err == nil {
		out.value = res.Msg.GetSpec().GetDescription()
	}
	w.read(worker, call{key: "network " + name, verb: "get"}, called, out)
}

// list reads every port of the round at once.
func (w *work) list(worker int, c *client.Client) {
	called := w.now()
	res, err := c.Ports.ListPorts(context.Background(), connect.NewRequest(&weftv1.ListPortsRequest{Tenant: tenant, Network: network}))
	if err != nil {
		return
	}
	seen := map[string]answer{}
	for _, p := range res.Msg.GetPorts() {
		seen[p.GetName()] = answer{value: p.GetSpec().GetDescription(), host: p.GetStatus().GetBinding().GetActive()}
	}
	for i := range names {
		name := fmt.Sprintf("p%d-%d", w.round, i)
		w.read(worker, call{key: "port " + name, verb: "list"}, called, seen[name])
	}
}

// last reads everything of the round at every server, and takes it away: nothing that was acknowledged may be missing.
func (w *work) last() {
	for _, c := range w.clients[0] {
		for i := range names {
			w.readPort(workers, c, fmt.Sprintf("p%d-%d", w.round, i))
			w.readNetwork(workers, c, fmt.Sprintf("n%d-%d", w.round, i))
		}
		w.list(workers, c)
	}
	for i := range names {
		c, port, net := w.clients[0][0], fmt.Sprintf("p%d-%d", w.round, i), fmt.Sprintf("n%d-%d", w.round, i)
		_, _ = c.Ports.UnbindPort(context.Background(), connect.NewRequest(&weftv1.UnbindPortRequest{Tenant: tenant, Name: port}))
		_, _ = c.Ports.DeletePort(context.Background(), connect.NewRequest(&weftv1.DeletePortRequest{Tenant: tenant, Name: port}))
		_, _ = c.Networks.DeleteNetwork(context.Background(), connect.NewRequest(&weftv1.DeleteNetworkRequest{Tenant: tenant, Name: net}))
	}
}
