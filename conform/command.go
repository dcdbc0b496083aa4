package conform

import (
	"fmt"
	"os/signal"
	"regexp"
	"syscall"

	"github.com/spf13/cobra"
)

// Command is `weft conform`.
func Command() *cobra.Command {
	var match string
	var rows []string
	cmd := &cobra.Command{
		Use:   "conform",
		Short: "Hold this machine's datapath against RFC 7348, rule by rule",
		Long: "Runs every rule of RFC 7348 that the datapath keeps as cases, with real packets, in network namespaces of its own, in\n" +
			"each lane and over each underlay, and prints the table: a line a case, a column a lane and underlay. It touches nothing else of the machine, and leaves nothing; what\n" +
			"a run that was killed has left, the next one takes away.\n" +
			"The exit status is 1 if a case fails.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			var cfg Config
			if match != "" {
				re, err := regexp.Compile(match)
				if err != nil {
					return fmt.Errorf("--run is not a regular expression: %w", err)
				}
				cfg.Match = re
			}
			for _, name := range rows {
				row, err := ParseRow(name)
				if err != nil {
					return fmt.Errorf("--row: %w", err)
				}
				cfg.Rows = append(cfg.Rows, row)
			}
			results, err := Run(ctx, cfg)
			if err != nil {
				return err
			}
			failed, err := Write(cmd.OutOrStdout(), results)
			if err != nil {
				return err
			}
			if failed > 0 {
				return fmt.Errorf("%d of %d conformance cases failed", failed, len(results))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&match, "run", "", "`expression` of the cases to run, as \"9 \" or \"fragment\"")
	cmd.Flags().StringSliceVar(&rows, "row", nil, "`lane/underlay` to run in, as \"xdp/ipv6\"; several with commas (default: all)")
	return cmd
}
