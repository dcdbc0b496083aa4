package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	"github.com/weftnet/weft/client"
)

// portCommit is the hypervisor's event, said by hand.
func portCommit(a *app) *cobra.Command {
	return a.formatted(a.onPort(&cobra.Command{Use: "commit NAME", Short: "say that the workload of a port that is incoming here runs here now",
		Long: "Asks this host's agent, as root. The port is open when it returns, and its old host forwards what still comes to it; whether a server could\n" +
			"be told of it or not. It is what a machine's first frame does by itself behind a TAP. From elsewhere: `weft port move NAME --commit`."},
		func(ctx context.Context, agent *client.LocalClient, tenant, port string) error {
			res, err := call(ctx, agent.Commit, &localv1.CommitRequest{Tenant: tenant, Port: port})
			if err != nil {
				return err
			}
			at := res.GetAttachment()
			return a.print(at, func() error { return a.sayCommitted(at) })
		}))
}

func (a *app) sayCommitted(at *localv1.Attachment) error {
	text := "port " + at.GetTenant() + "/" + at.GetPort() + " is here now, " + at.GetState()
	if at.GetDarkNanoseconds() > 0 {
		text += ", dark for " + time.Duration(at.GetDarkNanoseconds()).Round(time.Microsecond).String()
	}
	if at.GetMove() == "committed" {
		text += ", and no server has confirmed it yet"
	}
	return a.say("%s", withReason(text, at.GetMessage()))
}

func portAbandon(a *app) *cobra.Command {
	var reason string
	cmd := &cobra.Command{Use: "abandon NAME", Short: "give up a port that is incoming here: its move is aborted, and its interface here goes",
		Long: "Asks this host's agent, as root. From elsewhere: `weft port move NAME --abort`."}
	cmd.Flags().StringVar(&reason, "reason", "", "`WHY`, for who asks what became of the move")
	return a.onPort(cmd, func(ctx context.Context, agent *client.LocalClient, tenant, port string) error {
		if _, err := call(ctx, agent.Abort, &localv1.AbortRequest{Tenant: tenant, Port: port, Reason: reason}); err != nil {
			return err
		}
		return a.say("port %s/%s is given up here", tenant, port)
	})
}

// onPort is a verb about one port that is said to this host's agent.
func (a *app) onPort(cmd *cobra.Command, run func(ctx context.Context, agent *client.LocalClient, tenant, port string) error) *cobra.Command {
	cmd.Args, cmd.ValidArgsFunction = names("NAME"), a.complete(a.portNames)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		tenant, err := a.tenant()
		if err != nil {
			return err
		}
		agent := a.agent()
		defer agent.Close()
		return run(cmd.Context(), agent, tenant, args[0])
	}
	return a.onHost(cmd)
}
