package main

import (
	"context"
	"errors"
	"net/netip"
	"os"

	"github.com/spf13/cobra"

	"github.com/weftnet/weft/agent"
	"github.com/weftnet/weft/cli"
	"github.com/weftnet/weft/client"
	"github.com/weftnet/weft/datapath"
)

// agentFlags are the flags of `weft agent`, and of `weft up` for its agent.
type agentFlags struct {
	cfg         agent.Config
	vtepAddress string
	tables      string
	xdp         string
	verbose     bool
}

func (f *agentFlags) add(cmd *cobra.Command, dir, socket string) {
	fl := cmd.Flags()
	hostname, _ := os.Hostname()
	fl.StringVar(&f.cfg.Name, "name", hostname, "`name` of this host, as its join token says")
	fl.StringVar(&f.cfg.Dir, dir, "/var/lib/weft/agent", "`directory` of the host's identity, snapshot and attachments")
	fl.StringVar(&f.cfg.Socket, socket, "/run/weft/agent.sock", "`path` of the socket for `weft port attach` on this host")
	fl.StringVar(&f.cfg.Instance, "instance", "default", "`name` that tells several agents on one kernel apart")
	fl.StringVar(&f.cfg.PinRoot, "pin-root", "", "`directory` in a bpffs for maps and links (default /sys/fs/bpf/weft/<instance>)")
	fl.StringVar(&f.cfg.Uplink, "uplink", "", "underlay `interface` (default: that of the VTEP address, or of the route to the server)")
	fl.StringVar(&f.vtepAddress, "vtep-address", "", "underlay `address` of this host's tunnels (default: the uplink's)")
	fl.Uint16Var(&f.cfg.UDPPort, "udp-port", 4789, "UDP `port` of the tunnels")
	fl.StringVar(&f.tables, "tables", "host", "`size` of the kernel's tables: host (a million MACs), or lab (65536 MACs, for many agents on one machine)")
	fl.StringVar(&f.xdp, "xdp", "none", "`where` XDP programs run before the others: none, or uplink (more packets a second, less bulk TCP on some interfaces)")
	fl.BoolVar(&f.cfg.AcceptLoss, "accept-loss", false, "take a plan in that removes most of what is here and does not say why, as after a restore")
}

func (f *agentFlags) config() (agent.Config, error) {
	cfg := f.cfg
	cfg.Version, cfg.Log = version, logger(f.verbose)
	switch f.tables {
	case "host":
		cfg.Limits = datapath.DefaultLimits()
	case "lab":
		cfg.Limits = datapath.LabLimits()
	default:
		return cfg, cli.Usagef("say host or lab", "--tables %q is not a size", f.tables)
	}
	switch f.xdp {
	case "none":
	case "uplink":
		cfg.XDP = true
	default:
		return cfg, cli.Usagef("say none or uplink; a port's is `weft port set --fast-path xdp`", "--xdp %q is no place for programs", f.xdp)
	}
	if f.vtepAddress != "" {
		addr, err := netip.ParseAddr(f.vtepAddress)
		if err != nil {
			return cfg, cli.Usagef("give an IPv4 or IPv6 address of this host", "--vtep-address %q is not an IP address", f.vtepAddress)
		}
		cfg.VTEPAddress = addr
	}
	return cfg, nil
}

func agentCommand() *cobra.Command {
	var f agentFlags
	var servers []string
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run the weft agent: make this machine a host",
		Long: "Run the weft agent. The first start needs a join token (`weft host token create NAME` on the server); later ones\n" +
			"use the identity that it gained. Stopping the agent stops no packet: forwarding is the kernel's.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := requireRoot("weft agent"); err != nil {
				return err
			}
			cfg, err := f.config()
			if err != nil {
				return err
			}
			cfg.Servers = servers
			if len(cfg.Servers) == 0 {
				cfg.Servers = splitList(os.Getenv("WEFT_SERVER"))
			}
			if cfg.Token == "" {
				cfg.Token = os.Getenv("WEFT_TOKEN")
			}
			if len(cfg.Servers) == 0 {
				return cli.Usagef("say --server HOST[:PORT] (repeatable) or set WEFT_SERVER", "no server is given")
			}
			for i, s := range cfg.Servers {
				cfg.Servers[i] = client.WithPort(s)
			}
			return runAgent(cmd.Context(), cfg)
		},
	}
	f.add(cmd, "dir", "socket")
	cmd.Flags().StringSliceVar(&servers, "server", nil, "`host[:port]` of a server; several are tried in turn (or WEFT_SERVER)")
	cmd.Flags().StringVar(&f.cfg.Token, "token", "", "join `token` for the first start (or WEFT_TOKEN)")
	cmd.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "log at debug level")
	cmd.AddCommand(leaveCommand())
	return cmd
}

func leaveCommand() *cobra.Command {
	var cfg agent.Config
	cmd := &cobra.Command{
		Use:   "leave",
		Short: "Take weft off this machine: interfaces, programs, tables and files",
		Long: "Take weft off this machine, after its agent was stopped: the interfaces it made (workloads lose theirs), programs, tables,\n" +
			"the vxlan device, the nftables table and the agent's files. Then tell the server: `weft host remove NAME --force`.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := requireRoot("weft agent leave"); err != nil {
				return err
			}
			if err := agent.Leave(cfg); err != nil {
				return err
			}
			cmd.Println("weft has left this machine; on the server: weft host remove NAME --force")
			return nil
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&cfg.Dir, "dir", "/var/lib/weft/agent", "`directory` of the agent")
	fl.StringVar(&cfg.Instance, "instance", "default", "`name` of the agent's instance")
	fl.StringVar(&cfg.PinRoot, "pin-root", "", "`directory` of its maps and links (default /sys/fs/bpf/weft/<instance>)")
	return cmd
}

func runAgent(ctx context.Context, cfg agent.Config) error {
	a, err := agent.New(cfg)
	if err != nil {
		return err
	}
	if err := a.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
