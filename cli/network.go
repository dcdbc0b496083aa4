package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/wire"
)

func networkCommand(a *app) *cobra.Command {
	return a.owned(a.asking(group("network", "a tenant's segments: one broadcast domain and one VNI each",
		networkCreate(a), networkList(a), networkShow(a), networkSet(a), networkDelete(a), networkLearned(a), networkForget(a), networkVTEPCommand(a))))
}

const unknownUnicastHelp = "where frames to unknown MACs go, `WHERE`: external (VTEPs), flood or drop"

func parseUnknownUnicast(s string) (weftv1.UnknownUnicast, error) {
	v, ok := weftv1.UnknownUnicast_value["UNKNOWN_UNICAST_"+strings.ToUpper(s)]
	if !ok || s != strings.ToLower(s) {
		return 0, usagef("--unknown-unicast", "choose external, flood or drop", "%q is not one of its values", s)
	}
	return weftv1.UnknownUnicast(v), nil
}

func unknownUnicastFlag(cmd *cobra.Command) *string {
	v := cmd.Flags().String("unknown-unicast", "external", unknownUnicastHelp)
	_ = cmd.RegisterFlagCompletionFunc("unknown-unicast", cobra.FixedCompletions([]string{"external", "flood", "drop"}, cobra.ShellCompDirectiveNoFileComp))
	return v
}

func parseDSCP(s string) (weftv1.DSCP, error) {
	v, ok := weftv1.DSCP_value["DSCP_"+strings.ToUpper(s)]
	if !ok || s != strings.ToLower(s) {
		return 0, usagef("--dscp", "choose pipe or uniform", "%q is not one of its values", s)
	}
	return weftv1.DSCP(v), nil
}

func dscpFlag(cmd *cobra.Command) *string {
	v := cmd.Flags().String("dscp", "pipe", "what becomes of the DSCP across the tunnel, `MODEL` of RFC 2983: pipe (0 outside, the inner one is left alone) "+
		"or uniform (the inner one outside, and back)")
	_ = cmd.RegisterFlagCompletionFunc("dscp", cobra.FixedCompletions([]string{"pipe", "uniform"}, cobra.ShellCompDirectiveNoFileComp))
	return v
}

func parseNeighbours(s string) (weftv1.Neighbours, error) {
	v, ok := weftv1.Neighbours_value["NEIGHBOURS_"+strings.ToUpper(s)]
	if !ok || s != strings.ToLower(s) {
		return 0, usagef("--neighbours", "choose answer or flood", "%q is not one of its values", s)
	}
	return weftv1.Neighbours(v), nil
}

func neighboursFlag(cmd *cobra.Command) *string {
	v := cmd.Flags().String("neighbours", "answer", "what becomes of ARP requests and neighbour solicitations, `HOW`: answer (by the host, for the addresses of "+
		"the network's ports) or flood")
	_ = cmd.RegisterFlagCompletionFunc("neighbours", cobra.FixedCompletions([]string{"answer", "flood"}, cobra.ShellCompDirectiveNoFileComp))
	return v
}

// floodFlags say how a network floods.
type floodFlags struct{ method, group, pool string }

func (f *floodFlags) register(a *app, cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.method, "flood", "head-end", "how floods reach the other VTEPs, `METHOD`: head-end (a copy for each) or multicast (one packet to a group)")
	cmd.Flags().StringVar(&f.group, "group", "", "multicast `ADDRESS` of the underlay, IPv4 or IPv6; networks may share one")
	cmd.Flags().StringVar(&f.pool, "group-pool", "", "`NAME` of the group pool to take the group from, instead of giving one")
	_ = cmd.RegisterFlagCompletionFunc("group-pool", a.completeFlag(a.groupPoolNames))
	_ = cmd.RegisterFlagCompletionFunc("flood", cobra.FixedCompletions([]string{"head-end", "multicast"}, cobra.ShellCompDirectiveNoFileComp))
}

func parseFlood(s string) (weftv1.FloodMethod, error) {
	v, ok := weftv1.FloodMethod_value["FLOOD_METHOD_"+strings.ToUpper(strings.ReplaceAll(s, "-", "_"))]
	if !ok || s != strings.ToLower(s) {
		return 0, usagef("--flood", "choose head-end or multicast", "%q is not one of its values", s)
	}
	return weftv1.FloodMethod(v), nil
}

// edit changes what was named. A group, or a pool for it, means multicast, and head-end replication that there is none.
func (f *floodFlags) edit(cmd *cobra.Command, spec *weftv1.NetworkSpec) error {
	named := cmd.Flags().Changed
	method, err := parseFlood(f.method)
	if err != nil {
		return err
	}
	if named("group") || named("group-pool") {
		// The one takes the other's place; who names both is told that by the server.
		spec.Group, spec.GroupPool = f.group, f.pool
		if !named("flood") && f.group+f.pool != "" {
			method = weftv1.FloodMethod_FLOOD_METHOD_MULTICAST
		}
	} else if named("flood") && method == weftv1.FloodMethod_FLOOD_METHOD_HEAD_END {
		spec.Group, spec.GroupPool = "", ""
	}
	if named("flood") || named("group") || named("group-pool") {
		spec.Flood = method
	}
	return nil
}

// vniFlag is checked here, as 0 means on the wire that none was given.
func vniFlag(cmd *cobra.Command, name string, value int64) (uint32, error) {
	if !cmd.Flags().Changed(name) {
		return 0, nil
	}
	if value >= 0 && value <= int64(wire.MaxVNI) && wire.VNI(value).Validate() == nil {
		return uint32(value), nil
	}
	fix := "choose one in that range"
	if name == "vni" {
		fix = "choose one in that range, or leave it out to have one allocated"
	}
	return 0, usagef("--"+name, fix, "VNI %d is outside 1..%d", value, wire.MaxVNI)
}

// mtuFlag is checked here, as the wire carries no negative one.
func mtuFlag(value int64) (uint32, error) {
	if value < 0 || value > 1<<16-1 {
		return 0, usagef("--mtu", "choose one that fits, or 0 for whatever fits", "MTU %d is outside 0..65535", value)
	}
	return uint32(value), nil
}

func networkCreate(a *app) *cobra.Command {
	spec := &weftv1.NetworkSpec{}
	var vni, mtu int64
	cmd := &cobra.Command{Use: "create NAME", Short: "make a network", Args: names("NAME"),
		Example: "  weft network create blue --tenant acme --subnet 10.1.0.0/24 --subnet fd00:1::/64"}
	f := cmd.Flags()
	f.Int64Var(&vni, "vni", 0, "pin this VNI, `NUMBER`; left out, one is allocated")
	f.StringVar(&spec.VniPool, "vni-pool", "", "`NAME` of the pool to allocate a VNI from")
	f.StringSliceVar(&spec.Subnets, "subnet", nil, "IPv4 or IPv6 `PREFIX`, any number of times")
	f.Int64Var(&mtu, "mtu", 0, "`OCTETS` of an inner IP packet; 0 is whatever fits")
	f.StringVar(&spec.Description, "description", "", "what it is for")
	unknown, dscp, neighbours, learning := unknownUnicastFlag(cmd), dscpFlag(cmd), neighboursFlag(cmd), newLearningFlags(cmd)
	bum := bumLimitFlag(cmd, "for all its ports on one host together", defaultNetworkBUM)
	var dhcp dhcpFlags
	dhcp.register(cmd, "")
	var floods floodFlags
	floods.register(a, cmd)
	a.waiting(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if spec.Neighbours, err = parseNeighbours(*neighbours); err != nil {
			return err
		}
		if spec.BumLimit, err = parseBUMLimit(*bum); err != nil {
			return err
		}
		if spec.Vni, err = vniFlag(cmd, "vni", vni); err != nil {
			return err
		}
		if spec.Mtu, err = mtuFlag(mtu); err != nil {
			return err
		}
		if spec.UnknownUnicast, err = parseUnknownUnicast(*unknown); err != nil {
			return err
		}
		if spec.Dscp, err = parseDSCP(*dscp); err != nil {
			return err
		}
		if err := dhcp.edit(cmd, spec); err != nil {
			return err
		}
		if err = learning.apply(spec); err != nil {
			return err
		}
		if err := floods.edit(cmd, spec); err != nil {
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
		n, err := call(cmd.Context(), c.Networks.CreateNetwork, &weftv1.CreateNetworkRequest{Tenant: tenant, Name: args[0], Spec: spec})
		if err != nil {
			return err
		}
		if err := a.print(n, func() error { return a.sayNetwork(n, "created") }); err != nil {
			return err
		}
		return a.inForce(cmd.Context(), tenant, n.GetName(), n.GetMeta().GetRevision())
	}
	return a.formatted(cmd)
}

func (a *app) sayNetwork(n *weftv1.Network, what string) error {
	text := fmt.Sprintf("network %s/%s %s: VNI %d", n.GetTenant(), n.GetName(), what, n.GetStatus().GetVni())
	if mtu := n.GetStatus().GetMtu(); mtu != 0 {
		text += fmt.Sprintf(", MTU %d", mtu)
	}
	return a.say("%s", text)
}

func networkList(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "list networks, of one tenant or of all", Args: names(), RunE: func(cmd *cobra.Command, _ []string) error {
		tenant, err := a.tenantOrNone()
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		res, err := call(cmd.Context(), c.Networks.ListNetworks, &weftv1.ListNetworksRequest{Tenant: tenant})
		if err != nil {
			return err
		}
		return a.print(res, func() error {
			t := newTable("TENANT", "NAME", "VNI", "SUBNETS", "MTU", "PORTS", "BOUND", "HOSTS")
			for _, n := range res.GetNetworks() {
				s := n.GetStatus()
				t.add(n.GetTenant(), n.GetName(), s.GetVni(), strings.Join(n.GetSpec().GetSubnets(), ","), number(s.GetMtu()),
					s.GetPorts(), s.GetBoundPorts(), strings.Join(s.GetHosts(), ","))
			}
			return a.table(t)
		})
	}}
	return a.formatted(a.everyTenant(cmd))
}

// everyTenant gives a listing its -A.
func (a *app) everyTenant(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().BoolVarP(&a.flags.allTenants, "all-tenants", "A", false, "of every tenant, whatever the default is")
	return cmd
}

func networkShow(a *app) *cobra.Command {
	return a.formatted(&cobra.Command{Use: "show NAME", Short: "show a network", Args: names("NAME"), ValidArgsFunction: a.complete(a.networkNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			tenant, err := a.tenant()
			if err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			n, err := call(cmd.Context(), c.Networks.GetNetwork, &weftv1.GetNetworkRequest{Tenant: tenant, Name: args[0]})
			if err != nil {
				return err
			}
			return a.print(n, func() error { return a.sheet(func(s *sheet) { s.network(n) }) })
		}})
}

func (s *sheet) network(n *weftv1.Network) {
	spec, status := n.GetSpec(), n.GetStatus()
	s.row("Name", n.GetName())
	s.row("Tenant", n.GetTenant())
	s.meta(n.GetMeta())
	s.row("Description", spec.GetDescription())
	vni := fmt.Sprint(status.GetVni())
	switch {
	case spec.GetVni() != 0:
		vni += " (pinned)"
	case spec.GetVniPool() != "":
		vni += " (from pool " + spec.GetVniPool() + ")"
	}
	s.row("VNI", vni)
	s.list("Subnets", spec.GetSubnets())
	mtu := number(status.GetMtu())
	if spec.GetMtu() == 0 && mtu != "" {
		mtu += " (whatever fits)"
	}
	s.row("MTU", mtu)
	s.row("Unknown unicast", enum("UNKNOWN_UNICAST_", spec.GetUnknownUnicast()))
	s.row("DSCP", enum("DSCP_", spec.GetDscp()))
	s.learning(spec.GetLearning(), status.GetLearned())
	s.dhcp(spec)
	s.row("Neighbours", enum("NEIGHBOURS_", spec.GetNeighbours()))
	s.row("BUM limit", bumLimit(spec.GetBumLimit(), defaultNetworkBUM)+" on each host")
	s.floods(spec, status)
	s.row("Ports", fmt.Sprintf("%d, %d bound", status.GetPorts(), status.GetBoundPorts()))
	s.row("Hosts", orNone(status.GetHosts()))
	if len(status.GetConditions()) > 0 {
		s.list("Conditions", conditionLines(status.GetConditions()))
	}
	var vteps []string
	for _, v := range spec.GetVteps() {
		text := v.GetVtep()
		if v.GetFlood() == weftv1.VTEPFlood_VTEP_FLOOD_GROUP {
			text += " (gets floods by the group)"
		}
		if len(v.GetMacs()) > 0 {
			text += ": " + strings.Join(v.GetMacs(), ", ")
		}
		vteps = append(vteps, text)
	}
	if len(vteps) > 0 {
		s.list("External VTEPs", vteps)
	}
}

// floods says how the network floods now, and how many packets that is.
func (s *sheet) floods(spec *weftv1.NetworkSpec, status *weftv1.NetworkStatus) {
	text := enum("FLOOD_METHOD_", status.GetFlood())
	if group := status.GetGroup(); group != "" {
		text += ", group " + group
	}
	if status.GetFlood() != spec.GetFlood() || spec.GetGroup() != "" && spec.GetGroup() != status.GetGroup() {
		text += ", to become " + enum("FLOOD_METHOD_", spec.GetFlood())
		if spec.GetGroup() != "" {
			text += ", group " + spec.GetGroup()
		}
	}
	if pool := spec.GetGroupPool(); pool != "" {
		text += " (from group pool " + pool + ")"
	}
	s.row("Floods", text)
	s.row("Fan-out", fmt.Sprintf("%d packets a flood", status.GetFanOut()))
	s.row("Flooded", fmt.Sprintf("%s floods a second, %s copies a second", rate(status.GetFloodsPerSecond()), rate(status.GetCopiesPerSecond())))
}

// rate is a number a second, with as much of a fraction as one wants to read.
func rate(v float64) string {
	switch {
	case v == 0 || v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v < 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

func networkSet(a *app) *cobra.Command {
	var next weftv1.NetworkSpec
	var mtu int64
	cmd := &cobra.Command{Use: "set NAME", Short: "change a network: mtu, subnets, unknown-unicast, dscp, neighbours, bum-limit, learning, flood, group, group-pool, dhcp and what it says, description", Args: names("NAME"),
		Long:              "Changes what is named and leaves the rest. VNI and pool of a network never change; its VTEPs are changed with `weft network vtep`.",
		ValidArgsFunction: a.complete(a.networkNames)}
	f := cmd.Flags()
	f.StringSliceVar(&next.Subnets, "subnet", nil, "IPv4 or IPv6 `PREFIX`, any number of times: they replace all that were there")
	f.Int64Var(&mtu, "mtu", 0, "`OCTETS` of an inner IP packet; 0 is whatever fits")
	f.StringVar(&next.Description, "description", "", "what it is for")
	unknown, dscp, neighbours, learning := unknownUnicastFlag(cmd), dscpFlag(cmd), neighboursFlag(cmd), newLearningFlags(cmd)
	bum := bumLimitFlag(cmd, "for all its ports on one host together", defaultNetworkBUM)
	var floods floodFlags
	floods.register(a, cmd)
	var dhcp dhcpFlags
	dhcp.register(cmd, ": they replace all that were there")
	based := revisionFlag(cmd)
	a.waiting(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if err := somethingToSet(cmd, slices.Concat([]string{"mtu", "subnet", "unknown-unicast", "dscp", "neighbours", "bum-limit", "flood", "group", "group-pool", "description"}, learningNames, dhcpFlagNames)...); err != nil {
			return err
		}
		if next.Mtu, err = mtuFlag(mtu); err != nil {
			return err
		}
		if next.UnknownUnicast, err = parseUnknownUnicast(*unknown); err != nil {
			return err
		}
		if next.Dscp, err = parseDSCP(*dscp); err != nil {
			return err
		}
		if _, err := parseFlood(floods.method); err != nil {
			return err
		}
		if err := dhcp.edit(cmd, &weftv1.NetworkSpec{}); err != nil { // said before anything is asked
			return err
		}
		if next.Neighbours, err = parseNeighbours(*neighbours); err != nil {
			return err
		}
		if next.BumLimit, err = parseBUMLimit(*bum); err != nil {
			return err
		}
		n, err := a.changeNetwork(cmd.Context(), args[0], *based, func(spec *weftv1.NetworkSpec) error {
			_ = dhcp.edit(cmd, spec)
			_ = floods.edit(cmd, spec) // what can be wrong with it was looked at
			if f.Changed("subnet") {
				spec.Subnets = slices.DeleteFunc(next.Subnets, func(s string) bool { return s == "" })
			}
			if f.Changed("mtu") {
				spec.Mtu = next.Mtu
			}
			if f.Changed("unknown-unicast") {
				spec.UnknownUnicast = next.UnknownUnicast
			}
			if f.Changed("dscp") {
				spec.Dscp = next.Dscp
			}
			if f.Changed("neighbours") {
				spec.Neighbours = next.Neighbours
			}
			if f.Changed("bum-limit") {
				spec.BumLimit = next.BumLimit
			}
			if f.Changed("description") {
				spec.Description = next.Description
			}
			return learning.apply(spec)
		})
		if err != nil {
			return err
		}
		if err := a.print(n, func() error { return a.sayNetwork(n, "changed") }); err != nil {
			return err
		}
		return a.inForce(cmd.Context(), n.GetTenant(), n.GetName(), n.GetMeta().GetRevision())
	}
	return a.formatted(cmd)
}

func (a *app) changeNetwork(ctx context.Context, name string, based int64, edit func(*weftv1.NetworkSpec) error) (*weftv1.Network, error) {
	tenant, err := a.tenant()
	if err != nil {
		return nil, err
	}
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	return change(ctx, based,
		func(ctx context.Context) (*weftv1.Network, int64, error) {
			n, err := call(ctx, c.Networks.GetNetwork, &weftv1.GetNetworkRequest{Tenant: tenant, Name: name})
			return n, n.GetMeta().GetRevision(), err
		},
		func(n *weftv1.Network) error {
			if n.Spec == nil {
				n.Spec = &weftv1.NetworkSpec{}
			}
			return edit(n.Spec)
		},
		func(ctx context.Context, n *weftv1.Network, revision int64) (*weftv1.Network, error) {
			return call(ctx, c.Networks.UpdateNetwork,
				&weftv1.UpdateNetworkRequest{Tenant: tenant, Name: name, Revision: revision, Spec: n.GetSpec()})
		})
}

func networkDelete(a *app) *cobra.Command {
	return &cobra.Command{Use: "delete NAME", Short: "delete a network that has no ports", Args: names("NAME"),
		Long: "A network without ports is on no host, so there is nothing to wait for (`weft port delete --wait` before it does). Its VNI is given out again\n" +
			"when every host that held it has said that it forgot it: `weft pool show`.",
		ValidArgsFunction: a.complete(a.networkNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			tenant, err := a.tenant()
			if err != nil {
				return err
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			if _, err := call(cmd.Context(), c.Networks.DeleteNetwork, &weftv1.DeleteNetworkRequest{Tenant: tenant, Name: args[0]}); err != nil {
				return err
			}
			return a.say("network %s/%s deleted", tenant, args[0])
		}}
}
