package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/client"
)

// completionPatience bounds what a shell waits for names.
const completionPatience = time.Second

// lister finds the names of one kind of object.
type lister func(ctx context.Context, c *client.Client) ([]string, error)

type completer = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

// complete offers names for the first argument.
func (a *app) complete(list lister) completer { return a.completeEach(list) }

// completeFlag offers names for a flag's value.
func (a *app) completeFlag(list lister) completer {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return a.offer(cmd, list), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeEach offers names for each argument by its place.
func (a *app) completeEach(lists ...lister) completer {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= len(lists) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.offer(cmd, lists[len(args)]), cobra.ShellCompDirectiveNoFileComp
	}
}

// offer asks the server for names; without one there are none.
func (a *app) offer(cmd *cobra.Command, list lister) []string {
	a.patience = completionPatience
	c, err := a.client()
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), 2*completionPatience)
	defer cancel()
	found, err := list(ctx, c)
	if err != nil {
		return nil
	}
	return found
}

// namesOf lists the names of objects.
func namesOf[T interface{ GetName() string }](objects []T) []string {
	var all []string
	for _, o := range objects {
		all = append(all, o.GetName())
	}
	return all
}

func (a *app) tenantNames(ctx context.Context, c *client.Client) ([]string, error) {
	res, err := call(ctx, c.Tenants.ListTenants, &weftv1.ListTenantsRequest{})
	return namesOf(res.GetTenants()), err
}

func (a *app) networkNames(ctx context.Context, c *client.Client) ([]string, error) {
	tenant, err := a.tenant()
	if err != nil {
		return nil, err
	}
	res, err := call(ctx, c.Networks.ListNetworks, &weftv1.ListNetworksRequest{Tenant: tenant})
	return namesOf(res.GetNetworks()), err
}

func (a *app) portNames(ctx context.Context, c *client.Client) ([]string, error) {
	tenant, err := a.tenant()
	if err != nil {
		return nil, err
	}
	res, err := call(ctx, c.Ports.ListPorts, &weftv1.ListPortsRequest{Tenant: tenant})
	return namesOf(res.GetPorts()), err
}

func (a *app) hostNames(ctx context.Context, c *client.Client) ([]string, error) {
	res, err := call(ctx, c.Hosts.ListHosts, &weftv1.ListHostsRequest{})
	return namesOf(res.GetHosts()), err
}

func (a *app) vtepNames(ctx context.Context, c *client.Client) ([]string, error) {
	res, err := call(ctx, c.VTEPs.ListVTEPs, &weftv1.ListVTEPsRequest{})
	return namesOf(res.GetVteps()), err
}

func (a *app) poolNames(ctx context.Context, c *client.Client) ([]string, error) {
	res, err := call(ctx, c.VNIPools.ListVNIPools, &weftv1.ListVNIPoolsRequest{})
	return namesOf(res.GetPools()), err
}

func (a *app) groupPoolNames(ctx context.Context, c *client.Client) ([]string, error) {
	res, err := call(ctx, c.GroupPools.ListGroupPools, &weftv1.ListGroupPoolsRequest{})
	return namesOf(res.GetPools()), err
}

func (a *app) tokenNames(ctx context.Context, c *client.Client) ([]string, error) {
	res, err := call(ctx, c.System.ListAPITokens, &weftv1.ListAPITokensRequest{})
	return namesOf(res.GetTokens()), err
}
