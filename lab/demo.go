package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// DemoConfig says how thorough the demo is.
type DemoConfig struct {
	Lab Config
	Out io.Writer
	// Rounds of the TCP comparison, Stream of each, Changes of the latency measurement; 0 is 5, one second and 100.
	Rounds, Changes int
	Stream          time.Duration
}

// check is a line of the table at the end.
type check struct {
	name, want, got string
	ok              bool
}

// demo is one run.
type demo struct {
	cfg    DemoConfig
	out    io.Writer
	lab    *Lab
	step   int
	checks []check
}

// errChecks is the error of a demo that ran to its end with a check that failed.
var errChecks = errors.New("a check failed: see the table")

// Demo builds a lab, shows what weft does step by step, ends with a table of checks, and takes everything away however it
// ends. Its error is nil only if every check passed.
func Demo(ctx context.Context, cfg DemoConfig) error {
	fill(&cfg.Rounds, 5)
	fill(&cfg.Changes, 100)
	fill(&cfg.Stream, time.Second)
	d := &demo{cfg: cfg, out: cfg.Out}
	d.cfg.Lab.Step = func(s string) { d.say("   %s", s) }
	began := time.Now()
	defer func() {
		broken := recover()
		if broken == nil {
			return
		}
		if d.lab != nil {
			_ = d.lab.Down(context.WithoutCancel(ctx)) // the panic is what is to be heard of
		}
		panic(broken)
	}()
	err := d.run(ctx)
	if d.lab != nil {
		d.title("Taking everything away")
		was, serr := d.lab.State()
		derr := d.lab.Down(context.WithoutCancel(ctx))
		left, lerr := leftovers(d.lab.cfg, was)
		d.note("nothing is left behind", "no namespace, process, pin or file", orNothing(left), serr == nil && derr == nil && lerr == nil && len(left) == 0)
		err = errors.Join(err, serr, derr, lerr)
	}
	d.table(time.Since(began))
	if ctx.Err() != nil {
		return fmt.Errorf("the demo was interrupted; everything was taken away: %w", context.Cause(ctx))
	}
	if err == nil && slices.ContainsFunc(d.checks, func(c check) bool { return !c.ok }) {
		return errChecks
	}
	return err
}

func (d *demo) run(ctx context.Context) error {
	d.title("Building a datacentre in this machine")
	l, err := Up(ctx, d.cfg.Lab)
	if err != nil {
		return err
	}
	d.lab = l
	if err := d.showTopology(); err != nil {
		return err
	}
	for _, stage := range []func(context.Context) error{
		d.tenants, d.reach, d.isolation, d.move, d.throughput, d.spread, d.latency,
	} {
		if err := stage(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) title(format string, args ...any) {
	d.step++
	fmt.Fprintf(d.out, "\n%d. %s\n", d.step, fmt.Sprintf(format, args...))
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }

// note records a check and says how it went.
func (d *demo) note(name, want, got string, ok bool) {
	d.checks = append(d.checks, check{name, want, got, ok})
	d.say("   %s: %s%s", name, got, map[bool]string{false: "   <-- NOT OK, want " + want}[ok])
}

func (d *demo) table(took time.Duration) {
	if len(d.checks) == 0 {
		return
	}
	fmt.Fprintln(d.out)
	w := tabwriter.NewWriter(d.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\tCHECK\tWANT\tGOT\n")
	passed := 0
	for _, c := range d.checks {
		mark := "FAIL"
		if c.ok {
			mark, passed = "ok", passed+1
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", mark, c.name, c.want, c.got)
	}
	_ = w.Flush() // the terminal is gone if it fails
	d.say("\n%d of %d checks passed, in %s.", passed, len(d.checks), took.Round(time.Second))
}

func orNothing(list []string) string {
	if len(list) == 0 {
		return "nothing"
	}
	return strings.Join(list, ", ")
}

func (a *app) demoCommand() *cobra.Command {
	cfg := DemoConfig{}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Build a lab, show what weft does step by step, check it, and take everything away",
		Long: "Builds three hosts on a routed leaf-spine underlay, two tenants with the same subnet, IPs and MACs, and shows that each\n" +
			"reaches its own and never the other, that a workload moves and keeps its connections, what a TCP stream carries beside\n" +
			"the Linux bridge with vxlan, how flows spread over the spines, and how long a change takes to reach every host.\n" +
			"Ends with a table of checks; the exit status is 0 only if all passed. Takes about a minute.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := interruptible(cmd.Context())
			defer cancel()
			cfg.Lab.Name, cfg.Lab.Binary, cfg.Out = a.name, a.deps.Binary, cmd.OutOrStdout()
			return Demo(ctx, cfg)
		},
	}
	fl := cmd.Flags()
	fl.IntVar(&cfg.Lab.Underlay, "underlay", 4, "IP `version` of the underlay: 4 or 6")
	fl.IntVar(&cfg.Rounds, "rounds", 5, "`rounds` of the TCP comparison")
	fl.DurationVar(&cfg.Stream, "stream", time.Second, "`duration` of each TCP stream")
	fl.IntVar(&cfg.Changes, "changes", 100, "`changes` whose latency is measured")
	return cmd
}
