package cli

import (
	"github.com/spf13/cobra"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/client"
)

// bindingVerb is bind or unbind: one call that answers with the port, and a wait for the new epoch.
func (a *app) bindingVerb(cmd *cobra.Command, said string, ask func(cmd *cobra.Command, c *client.Client, tenant, name string) (*weftv1.Port, error)) *cobra.Command {
	cmd.Args = names("NAME")
	cmd.ValidArgsFunction = a.complete(a.portNames)
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
		p, err := ask(cmd, c, tenant, args[0])
		if err != nil {
			return err
		}
		b := p.GetStatus().GetBinding()
		err = a.print(p, func() error {
			if host := place(b); host != "" {
				return a.say("port %s/%s %s %s (epoch %d)", tenant, args[0], said, host, b.GetEpoch())
			}
			return a.say("port %s/%s is bound to no host (epoch %d)", tenant, args[0], b.GetEpoch())
		})
		if err != nil {
			return err
		}
		return a.applied(cmd.Context(), tenant, p.GetSpec().GetNetwork(), b.GetEpoch())
	}
	return a.formatted(cmd)
}

// hostFlag is needed.
func (a *app) hostFlag(cmd *cobra.Command) func() (string, error) {
	host := cmd.Flags().String("host", "", "`NAME` of the host")
	_ = cmd.RegisterFlagCompletionFunc("host", a.completeFlag(a.hostNames))
	return func() (string, error) {
		if *host == "" {
			return "", usagef("--host", "give the name of a host", "it is missing")
		}
		return *host, nil
	}
}

const epochHelp = "refuse if the binding's epoch is not this `NUMBER` any more"

func portBind(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "bind NAME --host HOST", Short: "bind an unbound port to a host, before its workload is there"}
	host := a.hostFlag(cmd)
	return a.bindingVerb(cmd, "is bound to", func(cmd *cobra.Command, c *client.Client, tenant, name string) (*weftv1.Port, error) {
		h, err := host()
		if err != nil {
			return nil, err
		}
		return call(cmd.Context(), c.Ports.BindPort, &weftv1.BindPortRequest{Tenant: tenant, Name: name, Host: h})
	})
}

func portUnbind(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "unbind NAME", Short: "take a port from its host, wherever that is and whether or not it is up",
		Long: "Unbinds a port by the server's word. On the port's own host, `weft port detach` also takes the interface away at once."}
	epoch := cmd.Flags().Int64("epoch", 0, epochHelp)
	return a.bindingVerb(cmd, "is bound to", func(cmd *cobra.Command, c *client.Client, tenant, name string) (*weftv1.Port, error) {
		return call(cmd.Context(), c.Ports.UnbindPort, &weftv1.UnbindPortRequest{Tenant: tenant, Name: name, Epoch: *epoch})
	})
}
