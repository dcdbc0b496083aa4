package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
)

func portCommand(a *app) *cobra.Command {
	return a.owned(a.asking(group("port", "workloads' attachments to networks: identities, wherever they are bound",
		portCreate(a), portList(a), portShow(a), portSet(a), portDelete(a),
		portBind(a), portMove(a), portUnbind(a),
		portAttach(a), portDetach(a), portCommit(a), portAbandon(a), portQEMU(a), portListAttached(a))))
}

// portFlags of create and set.
type portFlags struct {
	macs, ips, pairs      []string
	unguarded, forwarding bool
	fastPath              string
	dhcpServer, router    bool
	hostname              string
	description           string
	bum                   *string
}

func (p *portFlags) register(cmd *cobra.Command, replaces string) {
	f := cmd.Flags()
	f.StringSliceVar(&p.macs, "mac", nil, "`MAC`, any number of times"+replaces)
	f.StringSliceVar(&p.ips, "ip", nil, "`IP` inside the network's subnets, any number of times"+replaces)
	f.StringSliceVar(&p.pairs, "allowed-address", nil, "further source that it may use, `MAC[=IP]`, any number of times")
	f.BoolVar(&p.unguarded, "unguarded", false, "let it send from any source MAC (virtual routers, VRRP, L2 gateways)")
	f.BoolVar(&p.forwarding, "forwarding", false, "the workload forwards traffic on (a router)")
	f.StringVar(&p.fastPath, "fast-path", "none", "`LANE`: xdp (more packets a second, less bulk TCP; veths only) or none")
	_ = cmd.RegisterFlagCompletionFunc("fast-path", cobra.FixedCompletions([]string{"none", "xdp"}, cobra.ShellCompDirectiveNoFileComp))
	f.BoolVar(&p.dhcpServer, "dhcp-server", false, "let the workload answer as a DHCP server")
	f.BoolVar(&p.router, "router", false, "let the workload advertise itself as a router by RA; the hosts then advertise nothing in its network")
	f.StringVar(&p.hostname, "hostname", "", "host `NAME` that DHCP gives it; left out, the port's name")
	p.bum = bumLimitFlag(cmd, "that it may send", defaultPortBUM)
	f.StringVar(&p.description, "description", "", "what it is")
}

func parseFastPath(s string) (weftv1.FastPath, error) {
	v, ok := weftv1.FastPath_value["FAST_PATH_"+strings.ToUpper(s)]
	if !ok || s != strings.ToLower(s) {
		return 0, usagef("--fast-path", "choose xdp or none", "%q is not one of its values", s)
	}
	return weftv1.FastPath(v), nil
}

// edit changes what was named. An empty --mac or --ip gives back to allocation.
func (p *portFlags) edit(cmd *cobra.Command, spec *weftv1.PortSpec) error {
	f := cmd.Flags()
	fast, err := parseFastPath(p.fastPath)
	if err != nil {
		return err
	}
	if f.Changed("fast-path") {
		spec.FastPath = fast
	}
	limit, err := parseBUMLimit(*p.bum)
	if err != nil {
		return err
	}
	if f.Changed("bum-limit") {
		spec.BumLimit = limit
	}
	filled := func(list []string) []string { return slices.DeleteFunc(list, func(s string) bool { return s == "" }) }
	if f.Changed("mac") {
		spec.Macs = filled(p.macs)
	}
	if f.Changed("ip") {
		spec.Ips = filled(p.ips)
	}
	if f.Changed("allowed-address") {
		spec.AllowedAddressPairs = nil
		for _, pair := range filled(p.pairs) {
			mac, ip, _ := strings.Cut(pair, "=")
			spec.AllowedAddressPairs = append(spec.AllowedAddressPairs, &weftv1.AddressPair{Mac: mac, Ip: ip})
		}
	}
	if f.Changed("unguarded") {
		spec.Unguarded = p.unguarded
	}
	if f.Changed("forwarding") {
		spec.Forwarding = p.forwarding
	}
	if f.Changed("dhcp-server") {
		spec.DhcpServer = p.dhcpServer
	}
	if f.Changed("router") {
		spec.Router = p.router
	}
	if f.Changed("hostname") {
		spec.Hostname = p.hostname
	}
	if f.Changed("description") {
		spec.Description = p.description
	}
	return nil
}

func portCreate(a *app) *cobra.Command {
	var flags portFlags
	spec := &weftv1.PortSpec{}
	cmd := &cobra.Command{Use: "create NAME --network NETWORK", Short: "make a port", Args: names("NAME"),
		Example: "  weft port create web1 --tenant acme --network blue\n  weft port attach web1 --tenant acme --netns web1"}
	cmd.Flags().StringVar(&spec.Network, "network", "", "`NAME` of its network, which never changes")
	_ = cmd.RegisterFlagCompletionFunc("network", a.completeFlag(a.networkNames))
	flags.register(cmd, "; left out, one is allocated")
	a.waiting(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if spec.Network == "" {
			return usagef("--network", "give the name of a network of the tenant", "it is missing")
		}
		if err := flags.edit(cmd, spec); err != nil {
			return err
		}
		tenant, err := a.tenant()
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		p, err := call(cmd.Context(), c.Ports.CreatePort, &weftv1.CreatePortRequest{Tenant: tenant, Name: args[0], Spec: spec})
		if err != nil {
			return err
		}
		if err := a.print(p, func() error { return a.sayPort(p, "created") }); err != nil {
			return err
		}
		return a.applied(cmd.Context(), tenant, spec.Network, p.GetMeta().GetRevision())
	}
	return a.formatted(cmd)
}

func (a *app) sayPort(p *weftv1.Port, what string) error {
	return a.say("port %s/%s %s: %s", p.GetTenant(), p.GetName(), what,
		strings.Join(append(slices.Clone(p.GetStatus().GetMacs()), p.GetStatus().GetIps()...), " "))
}

func portList(a *app) *cobra.Command {
	req := &weftv1.ListPortsRequest{}
	cmd := &cobra.Command{Use: "list", Short: "list ports, of one tenant or of all", Args: names()}
	cmd.Flags().StringVar(&req.Network, "network", "", "only of this network, `NAME`")
	cmd.Flags().StringVar(&req.Host, "host", "", "only those bound to this host, `NAME`")
	_ = cmd.RegisterFlagCompletionFunc("network", a.completeFlag(a.networkNames))
	_ = cmd.RegisterFlagCompletionFunc("host", a.completeFlag(a.hostNames))
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if req.Tenant, err = a.tenantOrNone(); err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		res, err := call(cmd.Context(), c.Ports.ListPorts, req)
		if err != nil {
			return err
		}
		return a.print(res, func() error {
			t := newTable("TENANT", "NAME", "NETWORK", "MACS", "IPS", "HOST", "STATE")
			for _, p := range res.GetPorts() {
				s := p.GetStatus()
				t.add(p.GetTenant(), p.GetName(), p.GetSpec().GetNetwork(), strings.Join(s.GetMacs(), ","), strings.Join(s.GetIps(), ","),
					place(s.GetBinding()), portState(s.GetState()))
			}
			return a.table(t)
		})
	}
	return a.formatted(a.everyTenant(cmd))
}

// place is where a port is: "h1", "h1 -> h3" while it moves.
func place(b *weftv1.Binding) string {
	switch {
	case b.GetIncoming() != "":
		return b.GetActive() + " -> " + b.GetIncoming()
	case b.GetDraining() != "":
		return b.GetDraining() + " -> " + b.GetActive()
	}
	return b.GetActive()
}

func portState(s weftv1.PortState) cell {
	c := cell{text: enum("PORT_STATE_", s)}
	switch s {
	case weftv1.PortState_PORT_STATE_ACTIVE:
		c.colour = green
	case weftv1.PortState_PORT_STATE_HELD:
		c.colour = red
	case weftv1.PortState_PORT_STATE_PENDING, weftv1.PortState_PORT_STATE_DETACHED:
		c.colour = yellow
	}
	return c
}

func portShow(a *app) *cobra.Command {
	return a.formatted(&cobra.Command{Use: "show NAME", Short: "show a port, its counters, and its drops by reason", Args: names("NAME"),
		ValidArgsFunction: a.complete(a.portNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			tenant, err := a.tenant()
			if err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			p, err := call(cmd.Context(), c.Ports.GetPort, &weftv1.GetPortRequest{Tenant: tenant, Name: args[0]})
			if err != nil {
				return err
			}
			return a.print(p, func() error { return a.sheet(func(s *sheet) { s.port(p) }) })
		}})
}

func (s *sheet) port(p *weftv1.Port) {
	spec, status := p.GetSpec(), p.GetStatus()
	s.row("Name", p.GetName())
	s.row("Tenant", p.GetTenant())
	s.row("Network", spec.GetNetwork())
	s.meta(p.GetMeta())
	s.row("Description", spec.GetDescription())
	s.list("MACs", status.GetMacs())
	s.list("IPs", status.GetIps())
	var pairs []string
	for _, pair := range spec.GetAllowedAddressPairs() {
		pairs = append(pairs, strings.TrimSpace(pair.GetMac()+" "+pair.GetIp()))
	}
	if len(pairs) > 0 {
		s.list("Allowed addresses", pairs)
	}
	s.row("Guarded", yes(!spec.GetUnguarded()))
	if spec.GetForwarding() {
		s.row("Forwarding", yes(true))
	}
	if spec.GetFastPath() != weftv1.FastPath_FAST_PATH_NONE {
		s.row("Fast path", fastPath(spec, status))
	}
	s.row("Host name", spec.GetHostname())
	if spec.GetDhcpServer() {
		s.row("DHCP server", yes(true))
	}
	if spec.GetRouter() {
		s.row("Router", yes(true))
	}
	s.row("BUM limit", bumLimit(spec.GetBumLimit(), defaultPortBUM))
	s.row("MTU", number(status.GetMtu()))
	host := place(status.GetBinding())
	if host == "" {
		host = "-"
	}
	s.row("Host", host)
	s.row("Epoch", number(status.GetBinding().GetEpoch()))
	s.row("State", portState(status.GetState()))
	s.row("Message", status.GetMessage())
	s.row("Interface", status.GetInterface())
	if c := status.GetCounters(); c != nil {
		s.row("To workload", counted(c.GetIngressPackets(), "packet")+", "+counted(c.GetIngressOctets(), "octet"))
		s.row("From workload", counted(c.GetEgressPackets(), "packet")+", "+counted(c.GetEgressOctets(), "octet"))
	}
	var drops []string
	for _, d := range status.GetDrops() {
		drops = append(drops, d.GetReason()+": "+counted(d.GetPackets(), "packet"))
	}
	s.services(status.GetServices())
	s.list("Drops", drops)
	if m := status.GetMove(); m != nil {
		s.list("Last move", moveLines(m))
	}
}

// fastPath is what was asked for, and what came of it.
func fastPath(spec *weftv1.PortSpec, status *weftv1.PortStatus) cell {
	c := cell{text: enum("FAST_PATH_", spec.GetFastPath())}
	if status.GetFastPath() != spec.GetFastPath() {
		c.text += " (not in force yet)"
		if why := status.GetFastPathMessage(); why != "" {
			c = cell{text: enum("FAST_PATH_", spec.GetFastPath()) + " (not in force: " + why + ")", colour: yellow}
		}
	}
	return c
}

func portSet(a *app) *cobra.Command {
	var flags portFlags
	cmd := &cobra.Command{Use: "set NAME", Short: "change a port: mac, ip, allowed-address, unguarded, forwarding, fast-path, bum-limit, dhcp-server, router, hostname, description", Args: names("NAME"),
		Long:              "Changes what is named and leaves the rest. The network of a port never changes; its host is changed with `weft port move`.",
		ValidArgsFunction: a.complete(a.portNames)}
	flags.register(cmd, ": they replace all that were there; '' has one allocated")
	based := revisionFlag(cmd)
	a.waiting(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := somethingToSet(cmd, "mac", "ip", "allowed-address", "unguarded", "forwarding", "fast-path", "bum-limit", "dhcp-server", "router", "hostname", "description"); err != nil {
			return err
		}
		tenant, err := a.tenant()
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		p, err := change(cmd.Context(), *based,
			func(ctx context.Context) (*weftv1.Port, int64, error) {
				p, err := call(ctx, c.Ports.GetPort, &weftv1.GetPortRequest{Tenant: tenant, Name: args[0]})
				return p, p.GetMeta().GetRevision(), err
			},
			func(p *weftv1.Port) error {
				if p.Spec == nil {
					p.Spec = &weftv1.PortSpec{}
				}
				return flags.edit(cmd, p.Spec)
			},
			func(ctx context.Context, p *weftv1.Port, revision int64) (*weftv1.Port, error) {
				return call(ctx, c.Ports.UpdatePort, &weftv1.UpdatePortRequest{Tenant: tenant, Name: args[0], Revision: revision, Spec: p.GetSpec()})
			})
		if err != nil {
			return err
		}
		if err := a.print(p, func() error { return a.sayPort(p, "changed") }); err != nil {
			return err
		}
		return a.applied(cmd.Context(), tenant, p.GetSpec().GetNetwork(), p.GetMeta().GetRevision())
	}
	return a.formatted(cmd)
}

func portDelete(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "delete NAME", Short: "delete a port that is not bound", Args: names("NAME"), ValidArgsFunction: a.complete(a.portNames)}
	a.waiting(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		tenant, err := a.tenant()
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		network := ""
		if a.flags.wait { // afterwards nobody knows
			p, err := call(cmd.Context(), c.Ports.GetPort, &weftv1.GetPortRequest{Tenant: tenant, Name: args[0]})
			if err != nil {
				return err
			}
			network = p.GetSpec().GetNetwork()
		}
		res, err := call(cmd.Context(), c.Ports.DeletePort, &weftv1.DeletePortRequest{Tenant: tenant, Name: args[0]})
		if err != nil {
			return err
		}
		if err := a.say("port %s/%s deleted", tenant, args[0]); err != nil {
			return err
		}
		return a.applied(cmd.Context(), tenant, network, res.GetRevision())
	}
	return cmd
}
