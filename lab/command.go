package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/lab/guest"
	"github.com/weftnet/weft/wire"
)

// Deps is what the commands take from outside.
type Deps struct {
	// Binary that runs servers and agents; empty is the running one.
	Binary string
	// Tenant is the default of --tenant.
	Tenant string
	// Exec replaces the process by another, in the network namespace of the calling thread; nil is execve(2). Tests set it.
	Exec func(path string, argv, env []string) error
}

// app is what the commands share.
type app struct {
	deps Deps
	// name of the lab; dir is where it is if not where the name says (in tests).
	name, dir string
}

// Commands is `weft lab`.
func Commands(deps Deps) *cobra.Command {
	if deps.Exec == nil {
		deps.Exec = syscall.Exec
	}
	return (&app{deps: deps}).commands()
}

func (a *app) commands() *cobra.Command {
	root := &cobra.Command{
		Use:   "lab",
		Short: "A datacentre of network namespaces on this machine, to try weft in",
		Long: "A lab is hosts, leaf and spine routers and workloads as network namespaces on this machine, with a real server and a\n" +
			"real agent for each host. It touches nothing outside the namespaces it makes. The other weft commands find a running\n" +
			"lab by themselves.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().StringVar(&a.name, "name", a.name, "`name` of the lab, if there are several on this machine")
	root.AddCommand(a.upCommand(), a.downCommand(), a.statusCommand(), a.workloadCommand(), a.vmCommand(), a.uplinkCommand(), a.execCommand(), a.demoCommand(), guestCommand())
	return root
}

func (a *app) open() (*Lab, error) {
	return OpenConfig(Config{Name: a.name, Dir: a.dir, Binary: a.deps.Binary})
}

// interruptible ends with the signals that end a command, a closed pipe (`weft lab demo | head`) among them: what was made
// must be taken away.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE)
}

func (a *app) upCommand() *cobra.Command {
	cfg := Config{}
	detach, xdp := false, ""
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Build a lab, and keep it until Ctrl-C or, with --detach, until `weft lab down`",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := interruptible(cmd.Context())
			defer cancel()
			cfg.Name, cfg.Binary = a.name, a.deps.Binary
			if cfg.XDP = xdp == "uplink"; !cfg.XDP && xdp != "none" {
				return refuse("--xdp", fmt.Sprintf("%q is no place for programs", xdp), "use none or uplink")
			}
			cfg.Step = func(s string) { fmt.Fprintln(cmd.OutOrStdout(), s) }
			l, err := Up(ctx, cfg)
			if err != nil {
				return err
			}
			return keep(ctx, cmd.OutOrStdout(), l, detach)
		},
	}
	fl := cmd.Flags()
	fl.IntVar(&cfg.Hosts, "hosts", 3, "`number` of hosts, each under a leaf of its own")
	fl.IntVar(&cfg.Spines, "spines", 2, "`number` of spines")
	fl.IntVar(&cfg.Underlay, "underlay", 4, "IP `version` of the underlay: 4 or 6")
	fl.IntVar(&cfg.Uplinks, "uplinks", 1, "`number` of uplinks of each host, 1 or 2; with 2 tunnels end at its loopback")
	fl.Uint16Var(&cfg.UDPPort, "udp-port", wire.VXLANPort, "UDP `port` of the tunnels")
	fl.IntVar(&cfg.MTU, "mtu", 0, "MTU of the underlay in `octets` (default 1550, on IPv6 1570); a network's is 50 less, on IPv6 70")
	fl.StringVar(&xdp, "xdp", "none", "`where` the agents run XDP programs before the others: none or uplink")
	fl.BoolVar(&cfg.Multicast, "multicast", false, "have leaves and spines route multicast, by FRR's pimd, for networks that flood to a group")
	fl.BoolVar(&detach, "detach", false, "leave the lab running and return")
	return cmd
}

// keep says what there is, and holds a lab in the foreground until it ends.
func keep(ctx context.Context, out io.Writer, l *Lab, detach bool) error {
	if err := printStatus(ctx, out, l); err != nil {
		return errors.Join(err, l.Down(context.WithoutCancel(ctx)))
	}
	fmt.Fprintln(out, "\nTry:")
	if l.cfg.Name != "" {
		fmt.Fprintf(out, "  export WEFT_SOCKET=%s\n", l.cfg.serverSocket())
	}
	group := ""
	if l.cfg.Multicast {
		group = " --group 239.1.2.3"
	}
	for _, line := range []string{
		"weft tenant create acme",
		"weft network create blue --tenant acme --subnet 10.1.0.0/24" + group,
		"weft lab workload add web1" + l.cfg.flag() + " --host h1 --tenant acme --network blue",
		"weft lab workload add web2" + l.cfg.flag() + " --host h2 --tenant acme --network blue",
		"weft lab exec" + l.cfg.flag() + " web1 -- ping 10.1.0.3",
	} {
		fmt.Fprintln(out, "  "+line)
	}
	fmt.Fprintln(out)
	if detach {
		l.Close()
		fmt.Fprintf(out, "The lab runs on; take it away with `weft lab down%s`.\n", l.cfg.flag())
		return nil
	}
	fmt.Fprintln(out, "The lab runs until Ctrl-C.")
	err := l.Wait(ctx)
	fmt.Fprintln(out, "taking the lab away")
	return errors.Join(err, l.Down(context.WithoutCancel(ctx)))
}

func (a *app) downCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Take the lab away, whatever state it is in",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := Down(cmd.Context(), Config{Name: a.name, Binary: a.deps.Binary}); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "no lab is left")
			return nil
		},
	}
}

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the lab's hosts and workloads",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := a.open()
			if err != nil {
				return err
			}
			defer l.Close()
			return printStatus(cmd.Context(), cmd.OutOrStdout(), l)
		},
	}
}

func printStatus(ctx context.Context, out io.Writer, l *Lab) error {
	s, err := l.State()
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\nNODE\tNAMESPACE\tPROCESS\tADDRESS\tSTATE\n")
	fmt.Fprintf(w, "server\t%s\t%s\t%s\t\n", l.cfg.namespace("server"), processState(s.Server), serverAddr)
	states := l.hostStates(ctx)
	for _, h := range s.Hosts {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", h.Name, h.Namespace, processState(h.Agent), h.VTEPAddress, states[h.Name])
	}
	for _, n := range l.cfg.infrastructure() {
		if _, host := s.Host(n); n != "server" && !host {
			l.printRouter(ctx, w, s, n)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(s.Workloads) > 0 {
		fmt.Fprintln(out)
		err = printWorkloads(out, s)
	}
	if len(s.VMs) > 0 {
		fmt.Fprintln(out)
		err = errors.Join(err, printVMs(out, s))
	}
	return err
}

// printRouter writes a line for a leaf or spine; of one that routes multicast its pimd and that one's neighbours.
func (l *Lab) printRouter(ctx context.Context, w io.Writer, s State, name string) {
	process, address, state := "", "", ""
	if p := s.process(name + "/" + pimd); p != nil {
		process = processState(*p)
		if name == spineName(1) {
			address = rendezvous.Addr().String()
		}
		state = "no PIM"
		if n, err := l.Neighbours(ctx, name); err == nil {
			state = fmt.Sprintf("%d of %d PIM neighbours", n, len(l.cfg.fabricLinks(name)))
		}
	}
	fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", name, l.cfg.namespace(name), process, address, state)
}

func processState(p Process) string {
	if p.PID == 0 {
		return "-"
	}
	if !p.Alive() {
		return "ended"
	}
	return fmt.Sprintf("pid %d", p.PID)
}

// hostStates asks the server; what it does not say is unknown.
func (l *Lab) hostStates(ctx context.Context) map[string]string {
	states := map[string]string{}
	c, err := l.Client()
	if err != nil {
		return states
	}
	res, err := c.Hosts.ListHosts(ctx, connect.NewRequest(&weftv1.ListHostsRequest{}))
	if err != nil {
		return states
	}
	for _, h := range res.Msg.GetHosts() {
		text := strings.ToLower(strings.TrimPrefix(h.GetStatus().GetState().String(), "HOST_STATE_"))
		for _, c := range h.GetStatus().GetConditions() {
			text += ", " + c.GetName()
		}
		states[h.GetName()] = text
	}
	return states
}

func printWorkloads(out io.Writer, s State) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "WORKLOAD\tHOST\tTENANT\tNETWORK\tIPS\tMACS\tNAMESPACE\n")
	for _, x := range s.Workloads {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", x.Name, x.Host, x.Tenant, x.Network, strings.Join(x.IPs, " "), strings.Join(x.MACs, " "), x.Namespace)
	}
	return w.Flush()
}

func (a *app) workloadCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "workload",
		Short: "Add, move, remove and list workloads: namespaces with a port",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.workloadAdd(), a.workloadMove(), a.workloadRemove(), a.workloadList())
	return cmd
}

func (a *app) workloadAdd() *cobra.Command {
	spec := WorkloadSpec{}
	cmd := &cobra.Command{
		Use:   "add NAME --host h1 --tenant TENANT --network NETWORK",
		Short: "Make a workload and attach it to a network; its port is made if it is not there",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := a.open()
			if err != nil {
				return err
			}
			defer l.Close()
			ctx, cancel := interruptible(cmd.Context())
			defer cancel()
			spec.Name = args[0]
			w, err := l.AddWorkload(ctx, spec)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is on %s: %s, %s; run something in it with `weft lab exec %s -- CMD`\n",
				w.Name, w.Host, strings.Join(w.IPs, " "), strings.Join(w.MACs, " "), w.Name)
			return nil
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&spec.Host, "host", "", "`host` of the lab")
	fl.StringVar(&spec.Tenant, "tenant", a.deps.Tenant, "`tenant` (or WEFT_TENANT)")
	fl.StringVar(&spec.Network, "network", "", "`network` of the tenant")
	fl.StringVar(&spec.Port, "port", "", "`port` to use; made if it is not there (default: the workload's name)")
	fl.StringSliceVar(&spec.IPs, "ip", nil, "IP `address` of a port that is made (repeatable)")
	fl.StringSliceVar(&spec.MACs, "mac", nil, "MAC `address` of a port that is made (repeatable)")
	for _, f := range []string{"host", "network"} {
		_ = cmd.MarkFlagRequired(f) // the flag exists: it was made above
	}
	return cmd
}

func (a *app) workloadMove() *cobra.Command {
	host := ""
	cmd := &cobra.Command{
		Use:   "move NAME --host h2",
		Short: "Move a workload to another host; it keeps its addresses and connections",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := a.open()
			if err != nil {
				return err
			}
			defer l.Close()
			w, err := l.MoveWorkload(cmd.Context(), args[0], host)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is on %s: %s\n", w.Name, w.Host, strings.Join(w.IPs, " "))
			return nil
		},
	}
	cmd.Flags().StringVar(&host, "host", "", "`host` of the lab")
	_ = cmd.MarkFlagRequired("host")
	return cmd
}

func (a *app) workloadRemove() *cobra.Command {
	return &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove a workload, and its port if it was made for it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := a.open()
			if err != nil {
				return err
			}
			defer l.Close()
			return l.RemoveWorkload(cmd.Context(), args[0])
		},
	}
}

func (a *app) workloadList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List workloads",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := a.open()
			if err != nil {
				return err
			}
			defer l.Close()
			s, err := l.State()
			if err != nil {
				return err
			}
			return printWorkloads(cmd.OutOrStdout(), s)
		},
	}
}

func (a *app) execCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "exec NAME -- CMD [ARG…]",
		Short: "Run a command in a host, leaf, spine, the server or a workload",
		Args: func(_ *cobra.Command, args []string) error {
			if len(command(args)) == 0 {
				return errors.New("say in what to run which command, as `weft lab exec h1 -- ip addr`")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			argv := command(args)
			l, err := a.open()
			if err != nil {
				return err
			}
			defer l.Close()
			h, err := l.Node(args[0])
			if err != nil {
				return err
			}
			path, err := l.program(argv[0])
			if err != nil {
				return err
			}
			return h.Run(func() error { return a.deps.Exec(path, argv, l.environment(args[0])) })
		},
	}
	// Flags after the node's name are the command's own, with or without the two dashes before it.
	cmd.Flags().SetInterspersed(false)
	return cmd
}

// guestCommand is what a virtual machine of the lab runs; nobody else has a use for it.
func guestCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "guest",
		Short:  "Inside a virtual machine of a lab: do what is asked over its serial port",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return guest.Serve(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}

// program finds a command of this machine, as every node has its files; `weft` is the lab's own binary if there is no other.
func (l *Lab) program(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	if name == "weft" {
		return l.cfg.Binary, nil
	}
	fix := "give the path of a program of this machine"
	if name == "ping" {
		fix = "install it: apt-get install iputils-ping"
	}
	return "", refuse("CMD", fmt.Sprintf("there is no program %q on this machine", name), fix)
}

// command is what follows the node's name.
func command(args []string) []string {
	if len(args) > 1 && args[1] == "--" {
		return args[2:]
	}
	return args[min(1, len(args)):]
}

// environment lets weft commands in a node find the lab's server, and on a host its agent.
func (l *Lab) environment(node string) []string {
	env := append(os.Environ(), "WEFT_SOCKET="+l.cfg.serverSocket())
	l.mu.Lock()
	defer l.mu.Unlock()
	if h, ok := l.state.Host(node); ok {
		env = append(env, "WEFT_AGENT_SOCKET="+h.AgentSocket)
	}
	return env
}
