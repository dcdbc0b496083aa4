package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"connectrpc.com/connect"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/client"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/lab"
)

// weftName is weft with every check on, in the tc lane.
const weftName = "weft"

// weftConfig of one.
type weftConfig struct {
	// lab is its name; each contender has a lab of its own.
	lab, binary string
	// tap: the workloads are attached by TAP devices instead of veths.
	tap bool
	// xdp: uplinks and ports are in the XDP lane.
	xdp  bool
	step func(string)
}

// weftContender is weft as users run it: a real server, a real agent on each host, every check on.
type weftContender struct {
	name      string
	lab       *lab.Lab
	uplinks   []uplink
	workloads [2]Workload
	more      []Workload
	machines  []*machine
}

// newWeft builds a lab of two hosts that are joined by one link, with a port on each.
func newWeft(ctx context.Context, cfg weftConfig) (_ Contender, err error) {
	l, err := lab.Up(ctx, lab.Config{Name: cfg.lab, Direct: true, MTU: underlayMTU, Tables: "host", Binary: cfg.binary, XDP: cfg.xdp, Step: cfg.step})
	if err != nil {
		return nil, fmt.Errorf("build weft: %w", err)
	}
	c := &weftContender{name: weftName, lab: l}
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
	if cfg.xdp {
		c.name = xdpName
	}
	for i := range c.workloads {
		h, err := l.Node(state.Hosts[i].Name)
		if err != nil {
			return nil, err
		}
		c.uplinks = append(c.uplinks, uplink{h, "uplink0"})
		if cfg.tap {
			err = c.attachMachine(ctx, i, state.Hosts[i])
		} else {
			c.workloads[i], err = c.join(ctx, lab.WorkloadSpec{Name: fmt.Sprintf("w%d", i+1), Host: state.Hosts[i].Name, Tenant: "bench", Network: "path",
				IPs: []string{workloadAddrs[i].String()}, MACs: []string{workloadMACs[i].String()}}, workloadAddrs[i])
		}
		if cfg.xdp && err == nil {
			err = fastPath(ctx, api, fmt.Sprintf("w%d", i+1))
		}
		if err != nil {
			return nil, err
		}
	}
	return c, nil
}

// fastPath puts a port in the XDP lane, and waits until it is there.
func fastPath(ctx context.Context, api *client.Client, port string) error {
	get := func() (*weftv1.Port, error) {
		res, err := api.Ports.GetPort(ctx, connect.NewRequest(&weftv1.GetPortRequest{Tenant: "bench", Name: port}))
		if err != nil {
			return nil, err
		}
		return res.Msg, nil
	}
	p, err := get()
	if err != nil {
		return err
	}
	p.Spec.FastPath = weftv1.FastPath_FAST_PATH_XDP
	if _, err := api.Ports.UpdatePort(ctx, connect.NewRequest(&weftv1.UpdatePortRequest{Tenant: "bench", Name: port, Revision: p.GetMeta().GetRevision(), Spec: p.Spec})); err != nil {
		return err
	}
	return waitFor(ctx, 30*time.Second, "port "+port+" to be in the XDP lane", func() bool {
		p, err := get()
		return err == nil && p.GetStatus().GetFastPath() == weftv1.FastPath_FAST_PATH_XDP
	})
}

// join adds a workload in a namespace.
func (c *weftContender) join(ctx context.Context, spec lab.WorkloadSpec, addr netip.Addr) (Workload, error) {
	w, err := c.lab.AddWorkload(ctx, spec)
	if err != nil {
		return Workload{}, err
	}
	h, err := c.lab.Node(spec.Host)
	if err != nil {
		return Workload{}, err
	}
	// The generator sends frames straight to the interface, which must have NAPI.
	links, err := h.Owned("lab-" + spec.Host)
	if err != nil {
		return Workload{}, err
	}
	for _, l := range links {
		if m, ok := l.Mark(); !ok || m.Port == "" {
			continue
		}
		if err := h.SetFeature(l.Name, netdev.GRO, true); err != nil {
			return Workload{}, err
		}
	}
	return openWorkload(w.Namespace, w.Interface, addr)
}

// attachMachine makes a machine on a host and attaches its TAP device to a port.
func (c *weftContender) attachMachine(ctx context.Context, i int, host lab.Host) error {
	m, err := newMachine(c.uplinks[i].netns, "tap0", fmt.Sprintf("weft-bench-tap-m%d", i+1), i)
	if err != nil {
		return err
	}
	c.machines, c.workloads[i] = append(c.machines, m), m.workload
	api, err := c.lab.Client()
	if err != nil {
		return err
	}
	name := fmt.Sprintf("m%d", i+1)
	if _, err := api.Ports.CreatePort(ctx, connect.NewRequest(&weftv1.CreatePortRequest{Tenant: "bench", Name: name, Spec: &weftv1.PortSpec{Network: "path",
		Ips: []string{workloadAddrs[i].String()}, Macs: []string{workloadMACs[i].String()}}})); err != nil {
		return err
	}
	agent, err := c.lab.Agent(host.Name)
	if err != nil {
		return err
	}
	defer agent.Close()
	if _, err := agent.Attach(ctx, connect.NewRequest(&localv1.AttachRequest{Tenant: "bench", Port: name, Interface: &localv1.AttachRequest_Tap{Tap: "tap0"}})); err != nil {
		return err
	}
	return waitFor(ctx, 30*time.Second, "port "+name+" to be active", func() bool {
		res, err := api.Ports.GetPort(ctx, connect.NewRequest(&weftv1.GetPortRequest{Tenant: "bench", Name: name}))
		return err == nil && res.Msg.GetStatus().GetState() == weftv1.PortState_PORT_STATE_ACTIVE
	})
}

func (c *weftContender) ends() []*machine { return c.machines }

// Name implements Contender.
func (c *weftContender) Name() string { return c.name }

// Workloads implements Contender.
func (c *weftContender) Workloads() (a, b Workload) { return c.workloads[0], c.workloads[1] }

// keepProcesses implements attended: the agents probe each other.
func (c *weftContender) keepProcesses(cores []int) error {
	state, err := c.lab.State()
	if err != nil {
		return err
	}
	for _, h := range state.Hosts {
		if h.Agent.Alive() {
			err = errors.Join(err, pinProcesses(cores, h.Agent.PID))
		}
	}
	return err
}

// SetWire implements Contender. The XDP lane leaves nothing to switch: it takes single packets and whole checksums only, as a wire does.
func (c *weftContender) SetWire(on bool) error {
	if c.name == xdpName {
		return nil
	}
	return setWire(on, c.uplinks...)
}

// Close implements Contender.
func (c *weftContender) Close() error {
	var errs []error
	for _, m := range c.machines {
		errs = append(errs, m.Close())
	}
	for _, w := range append(c.workloads[:], c.more...) {
		if w.Netns != nil && len(c.machines) == 0 {
			w.Netns.Close()
		}
	}
	return errors.Join(append(errs, c.lab.Down(context.Background()))...)
}
