package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"connectrpc.com/connect"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/lab/probe"
	"github.com/weftnet/weft/wire"
)

// LatencyConfig says where to measure how long a change takes to reach every host.
type LatencyConfig struct {
	// Tenant and Network of the port that is bound again and again, and its address, which must be free.
	Tenant, Network string
	IP              netip.Addr
	// Changes to make.
	Changes int
	// Knockers are workloads of the network, one on each host.
	Knockers []string
}

const (
	latencyPort = "latency-probe"
	// tooLate for one change: then something is broken.
	tooLate = 20 * time.Second
)

// ChangeLatency binds an unbound port to one host after the other, and measures each time from the request to the agent until
// a datagram from every host has been delivered to the port. The senders know the port's MAC from the start, so that what is
// measured is weft's change and not the guests' ARP.
func (l *Lab) ChangeLatency(ctx context.Context, cfg LatencyConfig) (took []time.Duration, err error) {
	p := latencyProbe{lab: l, cfg: cfg, workload: Workload{Name: latencyPort, Namespace: l.cfg.namespace(latencyPort), Host: hostName(1),
		Tenant: cfg.Tenant, Network: cfg.Network, Port: latencyPort, Interface: "eth0", Owned: true}}
	if err := l.recordWorkload(p.workload); err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, l.dropWorkload(context.WithoutCancel(ctx), p.workload))
	}()
	stop, err := p.prepare(ctx)
	defer stop()
	if err != nil {
		return nil, fmt.Errorf("measure change latency: %w", err)
	}
	s, err := l.State()
	if err != nil {
		return nil, err
	}
	for i := range cfg.Changes {
		p.workload.Host = s.Hosts[i%len(s.Hosts)].Name
		d, err := p.change(ctx)
		if err != nil {
			return took, fmt.Errorf("measure change latency, change %d, to %s: %w", i+1, p.workload.Host, err)
		}
		took = append(took, d)
	}
	return took, nil
}

type latencyProbe struct {
	lab      *Lab
	cfg      LatencyConfig
	workload Workload
	ns       *netdev.Handle
}

// prepare makes the namespace and the port, and starts the knockers, which stop ends.
func (p *latencyProbe) prepare(ctx context.Context) (stop func(), err error) {
	var knocks []*probe.Knock
	stop = func() {
		for _, k := range knocks {
			k.Close()
		}
	}
	if err := netdev.CreateNamespace(p.workload.Namespace); err != nil {
		return stop, err
	}
	if p.ns, err = p.lab.Node(p.workload.Name); err != nil {
		return stop, err
	}
	c, err := p.lab.Client()
	if err != nil {
		return stop, err
	}
	res, err := c.Ports.CreatePort(ctx, connect.NewRequest(&weftv1.CreatePortRequest{Tenant: p.cfg.Tenant, Name: latencyPort,
		Spec: &weftv1.PortSpec{Network: p.cfg.Network, Ips: []string{p.cfg.IP.String()}}}))
	if err != nil {
		return stop, err
	}
	mac, err := wire.ParseMAC(res.Msg.GetStatus().GetMacs()[0])
	if err != nil {
		return stop, err
	}
	for i, name := range p.cfg.Knockers {
		ns, err := p.lab.Node(name)
		if err != nil {
			return stop, err
		}
		eth0, err := ns.LinkByName("eth0")
		if err != nil {
			return stop, err
		}
		if err := ns.SetNeighbour(eth0.Index, p.cfg.IP, mac); err != nil {
			return stop, err
		}
		k, err := probe.StartKnock(ctx, ns, p.cfg.IP, uint32(i))
		if err != nil {
			return stop, err
		}
		knocks = append(knocks, k)
	}
	return stop, nil
}

// change binds, measures and unbinds.
func (p *latencyProbe) change(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, tooLate)
	defer cancel()
	arrivals, err := probe.ListenArrivals(ctx, p.ns, p.cfg.IP.Is6())
	if err != nil {
		return 0, err
	}
	defer arrivals.Close()
	agent, err := p.lab.Agent(p.workload.Host)
	if err != nil {
		return 0, err
	}
	defer agent.Close()
	// The connection to the agent's socket is made before the clock starts.
	if _, err := agent.GetStatus(ctx, connect.NewRequest(&localv1.GetStatusRequest{})); err != nil {
		return 0, err
	}
	type arrival struct {
		at  time.Time
		err error
	}
	last := make(chan arrival, 1)
	// Read while the agent works: what comes before it answers is not to be timed by the answer.
	go func() {
		at, err := arrivals.Wait(ctx, len(p.cfg.Knockers))
		last <- arrival{at, err}
	}()
	began := time.Now()
	_, err = agent.Attach(ctx, connect.NewRequest(&localv1.AttachRequest{Tenant: p.cfg.Tenant, Port: latencyPort,
		Interface: &localv1.AttachRequest_Netns{Netns: &localv1.NetnsInterface{Netns: netdev.NamespacePath(p.workload.Namespace), Ifname: "eth0"}}}))
	if err != nil {
		cancel()
	}
	heard := <-last
	if err = errors.Join(err, heard.err); err != nil {
		return 0, err
	}
	if _, err := agent.Detach(ctx, connect.NewRequest(&localv1.DetachRequest{Tenant: p.cfg.Tenant, Port: latencyPort})); err != nil {
		return 0, err
	}
	return heard.at.Sub(began), p.lab.waitDetached(ctx, p.workload)
}

// Percentile is the smallest of the durations that p of them (0 to 1) do not exceed.
func Percentile(list []time.Duration, p float64) time.Duration {
	if len(list) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(list))
	i := int(p*float64(len(s))+0.999999) - 1
	return s[min(max(i, 0), len(s)-1)]
}
