package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/weftnet/weft/agent"
	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/cli"
	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/vtep"
)

// vtepFile is where the file is, if nobody says otherwise.
const vtepFile = "/etc/weft/vtep.yaml"

// vtepCommands are the verbs of `weft vtep` that run a VTEP with no server.
func vtepCommands() []*cobra.Command {
	list := []*cobra.Command{vtepRun(), vtepCheck(), vtepLeave()}
	for _, cmd := range list {
		cmd.PreRunE = asksNobody
	}
	return list
}

// asksNobody refuses the flags that the other verbs of `weft vtep` share: they say which server is asked.
func asksNobody(cmd *cobra.Command, _ []string) (err error) {
	cmd.InheritedFlags().VisitAll(func(f *pflag.Flag) {
		if !f.Changed {
			return
		}
		err = cli.Usagef("leave it out", "--%s names whom to ask, and `%s` asks no server", f.Name, cmd.CommandPath())
	})
	return err
}

func vtepRun() *cobra.Command {
	f := agentFlags{xdp: "none"} // the file says where else
	var file string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "run a VTEP with no server: the networks, remotes and ports of a file",
		Long: "Run a VTEP as RFC 7348 has it, from a file: networks by VNI, remotes, and interfaces of this machine as ports. It needs no server and no\n" +
			"store. On SIGHUP the file is read again, and what changed in it is changed; a file with a mistake changes nothing. Stopping it stops no\n" +
			"packet: forwarding is the kernel's. `weft vtep leave` takes it off the machine.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := requireRoot("weft vtep run"); err != nil {
				return err
			}
			return runVTEP(cmd.Context(), file, f)
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&file, "file", "f", vtepFile, "`file` that says what to run")
	fl.StringVar(&f.cfg.Dir, "dir", "/var/lib/weft/vtep", "`directory` of what it must remember")
	fl.StringVar(&f.cfg.Socket, "agent-socket", "/run/weft/vtep.sock", "`path` of the socket for `weft vtep show` on this machine")
	fl.StringVar(&f.cfg.Instance, "instance", "vtep", "`name` that tells several on one kernel apart")
	fl.StringVar(&f.cfg.PinRoot, "pin-root", "", "`directory` in a bpffs for maps and links (default /sys/fs/bpf/weft/<instance>)")
	fl.StringVar(&f.tables, "tables", "host", "`size` of the kernel's tables: host (a million MACs), or lab (65536 MACs)")
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "log at debug level")
	completeVTEP(cmd)
	return cmd
}

// completeVTEP offers files where a flag names one, and the words that --tables knows.
func completeVTEP(cmd *cobra.Command) {
	if cmd.Flags().Lookup("agent-socket") != nil {
		_ = cmd.MarkFlagFilename("agent-socket")
	}
	for _, name := range []string{"dir", "pin-root"} {
		if cmd.Flags().Lookup(name) != nil {
			_ = cmd.MarkFlagDirname(name)
		}
	}
	if cmd.Flags().Lookup("file") != nil {
		_ = cmd.MarkFlagFilename("file", "yaml", "yml")
	}
	if cmd.Flags().Lookup("tables") != nil {
		_ = cmd.RegisterFlagCompletionFunc("tables", cobra.FixedCompletions([]string{"host", "lab"}, cobra.ShellCompDirectiveNoFileComp))
	}
	cmd.ValidArgsFunction = cobra.NoFileCompletions
}

func vtepCheck() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "say what is wrong with the file of a VTEP with no server, and change nothing",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := readVTEP(file)
			if err != nil {
				return err
			}
			ports, remotes := 0, 0
			for _, n := range f.Networks {
				ports, remotes = ports+len(n.Ports), remotes+len(n.Remotes)
			}
			cmd.Printf("%s is good: networks %d, ports %d, remotes %d\n", file, len(f.Networks), ports, remotes)
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", vtepFile, "`file` to check; - is standard input")
	completeVTEP(cmd)
	return cmd
}

func vtepLeave() *cobra.Command {
	var cfg agent.Config
	cmd := &cobra.Command{
		Use:   "leave",
		Short: "take a VTEP with no server off this machine: programs, tables and files",
		Long:  "Take a VTEP with no server off this machine, after `weft vtep run` was stopped. The interfaces that were its ports stay, and so does the file.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := requireRoot("weft vtep leave"); err != nil {
				return err
			}
			if err := agent.Leave(cfg); err != nil {
				return err
			}
			cmd.Println("the VTEP has left this machine")
			return nil
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&cfg.Dir, "dir", "/var/lib/weft/vtep", "`directory` of what it must remember")
	fl.StringVar(&cfg.Instance, "instance", "vtep", "`name` of the instance")
	fl.StringVar(&cfg.PinRoot, "pin-root", "", "`directory` of its maps and links (default /sys/fs/bpf/weft/<instance>)")
	completeVTEP(cmd)
	return cmd
}

func readVTEP(file string) (*vtep.File, error) {
	in, name := io.ReadCloser(os.Stdin), "standard input"
	if file != "-" {
		var err error
		if in, err = os.Open(file); err != nil {
			return nil, err
		}
		name = file
	}
	defer in.Close()
	octets, err := io.ReadAll(io.LimitReader(in, vtep.MaxOctets+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return vtep.Parse(name, octets)
}

func runVTEP(ctx context.Context, file string, flags agentFlags) error {
	f, err := readVTEP(file)
	if err != nil {
		return err
	}
	cfg, err := flags.config()
	if err != nil {
		return err
	}
	cfg.Name, cfg.Uplink, cfg.VTEPAddress, cfg.UDPPort, cfg.XDP = f.Name, f.Underlay.Uplink, f.Underlay.Address, f.Underlay.UDPPort, f.Underlay.XDP
	if err := datapath.CheckKernel(); err != nil {
		return err
	}
	a := agent.NewAlone(cfg, vtep.HostUID(), planner(f))
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		reloads(ctx, hup, a, file, f.Underlay)
	}()
	err = a.Run(ctx)
	cancel()
	<-done
	if err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// reloads reads the file again with every SIGHUP. Several that come during one are one.
func reloads(ctx context.Context, hup <-chan os.Signal, a *agent.Agent, file string, was vtep.Underlay) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
		}
		// What is wrong is logged and shown as a condition.
		_ = a.Replan(ctx, func() (agent.Planner, error) {
			f, err := readVTEP(file)
			if err != nil {
				return nil, err
			}
			if err := f.Underlay.SameAs(was); err != nil {
				return nil, err
			}
			return planner(f), nil
		})
	}
}

// planner is the file's plan in the agent's words.
func planner(f *vtep.File) agent.Planner {
	return func(facts *planv1.Facts) (agent.Whole, error) {
		end := vtep.End{UplinkMTU: int(facts.GetUplinkMtu())}
		for _, s := range facts.GetVtepAddresses() {
			a, err := netip.ParseAddr(s)
			if err != nil {
				return agent.Whole{}, err
			}
			end.Addresses = append(end.Addresses, a)
		}
		resources, err := f.Plan(end)
		if err != nil {
			return agent.Whole{}, err
		}
		w := agent.Whole{Resources: resources}
		for _, n := range f.Networks {
			for _, p := range n.Ports {
				w.Interfaces = append(w.Interfaces, agent.Interface{Port: vtep.PortUID(p.Name), Network: n.Name, Name: p.Name, Interface: p.Interface})
			}
		}
		return w, nil
	}
}
