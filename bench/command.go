package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"os/signal"

	"github.com/spf13/cobra"

	"github.com/weftnet/weft/bench/scale"
)

// Deps is what the command takes from outside.
type Deps struct{ Version, Commit string }

// Command is `weft bench`.
func Command(deps Deps) *cobra.Command {
	cfg := Config{Version: deps.Version, Commit: deps.Commit}
	var out string
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure weft beside the Linux bridge + vxlan device and Open vSwitch, on this machine",
		Long: "Builds two hosts with weft, the same with the kernel's bridge and vxlan device (tuned, and as it comes) and with Open vSwitch in\n" +
			"user space, a bridge without overlay and a plain veth, in network namespaces; measures them in turn; prints medians and ratios.\n" +
			"Use an idle machine: everything shares its cores. What an interrupted or killed run leaves, the next one removes.",
		Example: "  weft bench --quick\n  weft bench --only fdb,tap --out results",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			cfg.Progress = cmd.ErrOrStderr()
			return runCommand(ctx, cmd, cfg, out)
		},
	}
	fl := cmd.Flags()
	fl.IntVar(&cfg.Rounds, "rounds", 0, "`number` of rounds, five or more (default 7, or 5 with --quick)")
	fl.IntVar(&cfg.Frames, "frames", 0, "`number` of frames a sample (default 200000)")
	fl.DurationVar(&cfg.Stream, "stream", 0, "`length` of a TCP sample (default 600ms)")
	fl.BoolVar(&cfg.Quick, "quick", false, "small frames and one TCP stream only: under 4 minutes")
	fl.StringSliceVar(&cfg.Only, "only", nil, "take only these `measures`: "+strings.Join(MeasureNames(), ", "))
	fl.StringVar(&out, "out", "", "`directory` to keep the results in, as JSON, Markdown and SVG")
	cmd.AddCommand(scale.Command(scale.Deps{Version: deps.Version, Commit: deps.Commit, Enter: enter, Machine: describe}))
	return cmd
}

// describe says what this machine is, and how busy.
func describe() (text string, otherLoad float64, err error) {
	r, err := newResult(Config{})
	if err != nil {
		return "", 0, err
	}
	return fmt.Sprintf("Linux %s, %d cores of %s", r.Kernel, r.CPUs, r.CPU), r.OtherLoad, nil
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
