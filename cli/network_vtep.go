package cli

import (
	"strings"

	"github.com/spf13/cobra"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
)

func networkVTEPCommand(a *app) *cobra.Command {
	return group("vtep", "the external VTEPs that take part in a network", networkVTEPAdd(a), networkVTEPList(a), networkVTEPRemove(a))
}

func networkVTEPAdd(a *app) *cobra.Command {
	part := &weftv1.NetworkVTEP{}
	cmd := &cobra.Command{Use: "add NETWORK VTEP", Short: "let an external VTEP take part in a network", Args: names("NETWORK", "VTEP"),
		ValidArgsFunction: a.completeEach(a.networkNames, a.vtepNames)}
	cmd.Flags().StringSliceVar(&part.Macs, "mac", nil, "`MAC` that is behind it, any number of times")
	flood := cmd.Flags().String("flood", "copy", "how it gets floods of a network that floods by multicast, `HOW`: copy (of its own) or group (it has joined it)")
	_ = cmd.RegisterFlagCompletionFunc("flood", cobra.FixedCompletions([]string{"copy", "group"}, cobra.ShellCompDirectiveNoFileComp))
	a.waiting(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		how, ok := weftv1.VTEPFlood_value["VTEP_FLOOD_"+strings.ToUpper(*flood)]
		if !ok || *flood != strings.ToLower(*flood) {
			return usagef("--flood", "choose copy or group", "%q is not one of its values", *flood)
		}
		part.Flood = weftv1.VTEPFlood(how)
		tenant, err := a.tenant()
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		part.Vtep = args[1]
		n, err := call(cmd.Context(), c.Networks.AddNetworkVTEP, &weftv1.AddNetworkVTEPRequest{Tenant: tenant, Network: args[0], Vtep: part})
		if err != nil {
			return err
		}
		err = a.print(n, func() error { return a.say("vtep %s takes part in network %s/%s", args[1], tenant, args[0]) })
		if err != nil {
			return err
		}
		return a.applied(cmd.Context(), tenant, args[0], n.GetMeta().GetRevision())
	}
	return a.formatted(cmd)
}

func networkVTEPList(a *app) *cobra.Command {
	return a.formatted(&cobra.Command{Use: "list NETWORK", Short: "list the external VTEPs of a network", Args: names("NETWORK"),
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
			n, err := call(cmd.Context(), c.Networks.GetNetwork, &weftv1.GetNetworkRequest{Tenant: tenant, Name: args[0]})
			if err != nil {
				return err
			}
			only := &weftv1.NetworkSpec{Vteps: n.GetSpec().GetVteps()}
			return a.print(only, func() error {
				t := newTable("VTEP", "MACS")
				for _, v := range only.GetVteps() {
					t.add(v.GetVtep(), strings.Join(v.GetMacs(), ","))
				}
				return a.table(t)
			})
		}})
}

func networkVTEPRemove(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "remove NETWORK VTEP", Short: "take an external VTEP out of a network", Args: names("NETWORK", "VTEP"),
		ValidArgsFunction: a.completeEach(a.networkNames, a.vtepNames)}
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
		n, err := call(cmd.Context(), c.Networks.RemoveNetworkVTEP, &weftv1.RemoveNetworkVTEPRequest{Tenant: tenant, Network: args[0], Vtep: args[1]})
		if err != nil {
			return err
		}
		if err := a.say("vtep %s is out of network %s/%s", args[1], tenant, args[0]); err != nil {
			return err
		}
		return a.applied(cmd.Context(), tenant, args[0], n.GetMeta().GetRevision())
	}
	return cmd
}
