package scale

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/client"
)

// The fleet's networks. One, n0, is wide: it has a port on every host. The others have equal parts of the other ports, and each
// is on a few hosts, as tenants' networks are: a block of so many hosts holds the ports of a block of networks.
//
//	        h0   h1 ... h9   h10  h11 ...
//	n0      p    p      p    p    p         one a host
//	n1..10  10   10     10   .    .         of 100 ports each
//	n11..   .    .      .    10   10

const (
	tenant = "fleet"
	// coldName is the host that has one port in every network, and so a plan of all ports.
	coldName = "cold"
	// blockHosts is how many hosts a network is on, but for the wide one.
	blockHosts = 10
)

func networkName(i int) string { return fmt.Sprintf("n%d", i) }
func hostName(i int) string    { return fmt.Sprintf("h%d", i) }
func portName(i int) string    { return fmt.Sprintf("p%d", i) }
func coldPort(i int) string    { return fmt.Sprintf("cold%d", i) }

// networkOf is the network of the i-th port. The first ports, one a host, are in the wide one.
func (c Config) networkOf(i int) int {
	if i < c.Hosts || c.Networks == 1 {
		return 0
	}
	return 1 + (i-c.Hosts)*(c.Networks-1)/(c.Ports-c.Hosts)
}

// hostOf is the host that the i-th port is bound to.
func (c Config) hostOf(i int) int {
	if i < c.Hosts {
		return i
	}
	blocks := (c.Hosts + blockHosts - 1) / blockHosts
	block := (i - c.Hosts) * blocks / (c.Ports - c.Hosts)
	return min(block*blockHosts+i%blockHosts, c.Hosts-1)
}

// clients are several users of the API, each on a TLS connection of its own with one token.
func clients(ctx context.Context, s *server, n int) ([]*client.Client, error) {
	local, err := s.local()
	if err != nil {
		return nil, err
	}
	defer local.Close()
	token, err := local.System.CreateAPIToken(ctx, connect.NewRequest(&weftv1.CreateAPITokenRequest{Name: "scale", Scope: weftv1.TokenScope_TOKEN_SCOPE_ADMIN}))
	if err != nil {
		return nil, err
	}
	var all []*client.Client
	for range n {
		c, err := client.New(client.Config{Servers: []string{s.address}, Token: token.Msg.GetSecret(), Patience: startPatience})
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

// fillNetworks makes the tenant and its networks.
func (c Config) fillNetworks(ctx context.Context, apis []*client.Client) error {
	if _, err := apis[0].Tenants.CreateTenant(ctx, connect.NewRequest(&weftv1.CreateTenantRequest{Name: tenant})); err != nil {
		return err
	}
	return c.each(ctx, c.Networks, apis, func(ctx context.Context, api *client.Client, i int) error {
		_, err := api.Networks.CreateNetwork(ctx, connect.NewRequest(&weftv1.CreateNetworkRequest{Tenant: tenant, Name: networkName(i),
			Spec: &weftv1.NetworkSpec{Subnets: []string{"10.0.0.0/15"}}}))
		return err
	})
}

// fillPorts makes the ports, bound nowhere.
func (c Config) fillPorts(ctx context.Context, apis []*client.Client) error {
	return c.each(ctx, c.Ports, apis, func(ctx context.Context, api *client.Client, i int) error {
		_, err := api.Ports.CreatePort(ctx, connect.NewRequest(&weftv1.CreatePortRequest{Tenant: tenant, Name: portName(i),
			Spec: &weftv1.PortSpec{Network: networkName(c.networkOf(i))}}))
		return err
	})
}

// scattered is another order of n things, in which those of one host are not next to each other.
func scattered(i, n int) int {
	const prime = 7919
	if n%prime == 0 {
		return i
	}
	return i * prime % n
}

// bind has hosts bind the ports of a range, each under its own certificate and while its stream is open.
func (f *fleet) bind(ctx context.Context, apis []*client.Client, from, to int) (revision int64, err error) {
	revisions := make([]int64, to-from)
	err = f.cfg.each(ctx, to-from, apis, func(ctx context.Context, _ *client.Client, i int) error {
		at := scattered(i, to-from)
		i = from + at
		a := f.agents[f.cfg.hostOf(i)]
		revisions[at], err = f.bindOne(ctx, a, portName(i))
		return err
	})
	for _, r := range revisions {
		revision = max(revision, r)
	}
	return revision, err
}

// bindOne binds a port. Binding again what is bound changes nothing, so a host asks again when a server that is busy gave up; how often
// that was is counted.
func (f *fleet) bindOne(ctx context.Context, a *simulated, port string) (int64, error) {
	for began := time.Now(); ; f.cfg.askedAgain.Add(1) {
		res, err := a.speaker.Bind(ctx, tenant, port)
		if err == nil {
			return res.GetRevision(), nil
		}
		if ctx.Err() != nil || time.Since(began) > askPatience || !strings.HasPrefix(err.Error(), "no server answers") {
			return 0, fmt.Errorf("%s binds %s: %w", a.name, port, err)
		}
	}
}

// fillCold gives one more host a port in every network.
func (c Config) fillCold(ctx context.Context, apis []*client.Client) error {
	return c.each(ctx, c.Networks, apis, func(ctx context.Context, api *client.Client, i int) error {
		_, err := api.Ports.CreatePort(ctx, connect.NewRequest(&weftv1.CreatePortRequest{Tenant: tenant, Name: coldPort(i),
			Spec: &weftv1.PortSpec{Network: networkName(i)}}))
		if err != nil && codeOf(err) != connect.CodeAlreadyExists {
			return err
		}
		_, err = api.Ports.BindPort(ctx, connect.NewRequest(&weftv1.BindPortRequest{Tenant: tenant, Name: coldPort(i), Host: coldName}))
		return err
	})
}

// change turns a switch of a port of the wide network, and gives the revision of that, and when it was asked for: what the port was before is
// read first.
func change(ctx context.Context, api *client.Client, name string) (revision int64, asked time.Time, err error) {
	p, err := api.Ports.GetPort(ctx, connect.NewRequest(&weftv1.GetPortRequest{Tenant: tenant, Name: name}))
	if err != nil {
		return 0, asked, err
	}
	spec := p.Msg.GetSpec()
	spec.Forwarding = !spec.GetForwarding()
	asked = time.Now()
	p, err = api.Ports.UpdatePort(ctx, connect.NewRequest(&weftv1.UpdatePortRequest{Tenant: tenant, Name: name, Revision: p.Msg.GetMeta().GetRevision(), Spec: spec}))
	if err != nil {
		return 0, asked, err
	}
	return p.Msg.GetMeta().GetRevision(), asked, nil
}

// acknowledged waits until the server has heard of all hosts of the wide network that they applied the revision, and says
// how many did.
func acknowledged(ctx context.Context, api *client.Client, revision int64) (int, error) {
	res, err := api.System.WaitApplied(ctx, connect.NewRequest(&weftv1.WaitAppliedRequest{Tenant: tenant, Network: networkName(0), Revision: revision}))
	if err != nil {
		return 0, err
	}
	if !res.Msg.GetComplete() {
		return 0, errors.New("hosts have not acknowledged: " + fmt.Sprint(res.Msg.GetLagging()))
	}
	return len(res.Msg.GetApplied()), nil
}
