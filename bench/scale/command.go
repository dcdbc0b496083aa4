package scale

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Deps is what the command takes from outside.
type Deps struct {
	Version, Commit string
	// Enter takes the machine for this run alone.
	Enter func(ctx context.Context) (leave func(), err error)
	// Machine tells of it, and how busy it is in percent of a core.
	Machine func() (text string, otherLoad float64, err error)
}

// Command is `weft bench scale`.
func Command(deps Deps) *cobra.Command {
	cfg := Config{Version: deps.Version, Commit: deps.Commit}
	var out string
	cmd := &cobra.Command{
		Use:   "scale",
		Short: "Measure a server with a fleet of simulated agents, on this machine",
		Long: "Starts a real server with its own etcd in a temporary directory, fills it by its API, joins simulated agents with real tokens, each on\n" +
			"a TLS connection of its own, and measures: building, a change to all, restarts of the server, and a host that comes with nothing. Every\n" +
			"agent is compared with the store. Use an idle machine: server and agents share its cores.",
		Example: "  weft bench scale --out bench/results\n  weft bench scale --hosts 100 --ports 5000 --networks 100",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			cfg.Progress = cmd.ErrOrStderr()
			leave, err := deps.Enter(ctx)
			if err != nil {
				return err
			}
			defer leave()
			if cfg.Machine, cfg.OtherLoad, err = deps.Machine(); err != nil {
				return err
			}
			return runCommand(ctx, cmd, cfg, out)
		},
	}
	fl := cmd.Flags()
	fl.IntVar(&cfg.Hosts, "hosts", 0, "`number` of hosts (default 1000)")
	fl.IntVar(&cfg.Ports, "ports", 0, "`number` of ports (default 100000)")
	fl.IntVar(&cfg.Networks, "networks", 0, "`number` of networks (default 1000)")
	fl.IntVar(&cfg.Changes, "changes", 0, "`number` of changes to all hosts (default 200)")
	fl.IntVar(&cfg.Clients, "clients", 0, "`number` of clients of the API (default 4)")
	fl.BoolVar(&cfg.Real, "real", true, "measure a real agent with the plan of all ports too; it needs root and BPF")
	fl.StringSliceVar(&cfg.EtcdEndpoints, "etcd-endpoints", nil, "`URLs` of an external etcd cluster that is empty; without it the server's own")
	fl.StringVar(&cfg.Profiles, "profiles", "", "`directory` for profiles of both sides during the changes")
	fl.StringVar(&out, "out", "", "`directory` to keep the results in, as JSON and Markdown")
	return cmd
}

func runCommand(ctx context.Context, cmd *cobra.Command, cfg Config, out string) error {
	r, err := Run(ctx, cfg)
	if r == nil {
		return err
	}
	if out != "" {
		path, serr := r.Save(out)
		if serr != nil {
			return errors.Join(err, serr)
		}
		fmt.Fprintln(cmd.ErrOrStderr(), "kept in", path)
	}
	return errors.Join(err, r.WriteMarkdown(cmd.OutOrStdout()))
}
