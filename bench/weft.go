package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"connectrpc.com/connect"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/lab"
)

// weftContender is weft as users run it: a real server, a real agent on each host, every check on.
type weftContender struct {
	lab       *lab.Lab
	uplinks   []uplink
	workloads [2]Workload
}

// newWeft builds a lab of two hosts that are joined by one link, with a port on each.
func newWeft(ctx context.Context, binary string, step func(string)) (_ Contender, err error) {
	l, err := lab.Up(ctx, lab.Config{Name: "bench", Direct: true, MTU: underlayMTU, Binary: binary, Step: step})
	if err != nil {
		return nil, fmt.Errorf("build weft: %w", err)
	}
	c := &weftContender{lab: l}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("build weft: %w", err), c.Close())
		}
	}()
	api, err := l.Client()
	if err != nil {
		return nil, err
	}
	if _, err = api.Tenants.CreateTenant(ctx, connect.NewRequest(&weftv1.CreateTenantRequest{Name: "bench"})); err != nil {
		return nil, err
	}
	if _, err = api.Networks.CreateNetwork(ctx, connect.NewRequest(&weftv1.CreateNetworkRequest{Tenant: "bench", Name: "path",
		Spec: &weftv1.NetworkSpec{Vni: benchVNI, Subnets: []string{netip.PrefixFrom(workloadAddrs[0], 24).Masked().String()}, Mtu: innerMTU}})); err != nil {
		return nil, err
	}
	state, err := l.State()
	if err != nil {
		return nil, err
	}
	for i := range c.workloads {
		if err = c.workload(ctx, i, state.Hosts[i]); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *weftContender) workload(ctx context.Context, i int, host lab.Host) error {
	name := fmt.Sprintf("w%d", i+1)
	w, err := c.lab.AddWorkload(ctx, lab.WorkloadSpec{Name: name, Host: host.Name, Tenant: "bench", Network: "path",
		IPs: []string{workloadAddrs[i].String()}, MACs: []string{workloadMACs[i].String()}})
	if err != nil {
		return err
	}
	if c.workloads[i], err = openWorkload(w.Namespace, w.Interface, workloadAddrs[i]); err != nil {
		return err
	}
	h, err := c.lab.Node(host.Name)
	if err != nil {
		return err
	}
	c.uplinks = append(c.uplinks, uplink{h, "uplink0"})
	// The generator sends frames straight to the interface, which must have NAPI.
	links, err := h.Owned("lab-" + host.Name)
	if err != nil {
		return err
	}
	for _, l := range links {
		if m, ok := l.Mark(); !ok || m.Port == "" {
			continue
		}
		if err := h.SetFeature(l.Name, netdev.GRO, true); err != nil {
			return err
		}
	}
	return nil
}

// Name implements Contender.
func (c *weftContender) Name() string { return "weft" }

// Workloads implements Contender.
func (c *weftContender) Workloads() (a, b Workload) { return c.workloads[0], c.workloads[1] }

// SetWire implements Contender.
func (c *weftContender) SetWire(on bool) error { return setWire(on, c.uplinks...) }

// Close implements Contender.
func (c *weftContender) Close() error {
	for _, w := range c.workloads {
		if w.Netns != nil {
			w.Netns.Close()
		}
	}
	return c.lab.Down(context.Background())
}
