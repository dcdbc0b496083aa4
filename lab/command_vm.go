package lab

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/weftnet/weft/lab/qemu"
)

func (a *app) vmCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "vm",
		Short: "Start, migrate, stop and list virtual machines with a port",
		Long: "Virtual machines in QEMU with software emulation, each with a stock kernel, busybox and a TAP device that the agent of its host\n" +
			"makes. They need qemu-system-x86, busybox-static, and a kernel that scripts/guest-kernel fetches.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.vmStart(), a.vmMigrate(), a.vmStop(), a.vmList())
	return cmd
}

func (a *app) vmStart() *cobra.Command {
	spec := VMSpec{}
	cmd := &cobra.Command{
		Use:   "start NAME --host h1 --tenant TENANT --network NETWORK",
		Short: "Boot a virtual machine and attach it to a network; its port is made if it is not there",
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
			vm, err := l.StartVM(ctx, spec)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s runs on %s: %s, %s; what it says is in %s\n", vm.Name, vm.Host, strings.Join(vm.Machine.Addresses, " "),
				vm.Machine.MAC, vm.Machine.Console())
			return nil
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&spec.Host, "host", "", "`host` of the lab")
	fl.StringVar(&spec.Tenant, "tenant", a.deps.Tenant, "`tenant` (or WEFT_TENANT)")
	fl.StringVar(&spec.Network, "network", "", "`network` of the tenant, for a port that is made")
	fl.StringVar(&spec.Port, "port", "", "`port` to use; made if it is not there (default: the machine's name)")
	fl.StringSliceVar(&spec.IPs, "ip", nil, "IP `address` of a port that is made (repeatable)")
	fl.StringSliceVar(&spec.MACs, "mac", nil, "MAC `address` of a port that is made (repeatable)")
	fl.StringVar(&spec.Kernel, "kernel", qemu.DefaultKernel, "`directory` with boot and lib/modules of a kernel")
	fl.IntVar(&spec.CPUs, "cpus", 1, "`number` of processors")
	fl.IntVar(&spec.Queues, "queues", 1, "`number` of queues of the network card")
	fl.BoolVar(&spec.CopyMemory, "copy-memory", false, "have migrations copy the machine's memory, which is not safe with QEMU 7.2's software emulation")
	_ = cmd.MarkFlagRequired("host") // the flag exists: it was made above
	return cmd
}

func (a *app) vmMigrate() *cobra.Command {
	host, event := "", false
	cmd := &cobra.Command{
		Use:   "migrate NAME --host h2",
		Short: "Migrate a running virtual machine to another host, live",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := a.open()
			if err != nil {
				return err
			}
			defer l.Close()
			ctx, cancel := interruptible(cmd.Context())
			defer cancel()
			by := ByFirstFrame
			if event {
				by = ByEvent
			}
			m, err := l.MigrateVM(ctx, args[0], host, by)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is on %s: %s\n", args[0], host, m)
			return nil
		},
	}
	cmd.Flags().StringVar(&host, "host", "", "`host` of the lab")
	cmd.Flags().BoolVar(&event, "by-event", false, "commit when QEMU says that the machine goes on, not by its first frame")
	_ = cmd.MarkFlagRequired("host")
	return cmd
}

func (a *app) vmStop() *cobra.Command {
	return &cobra.Command{
		Use:   "stop NAME",
		Short: "End a virtual machine, and delete its port if it was made for it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := a.open()
			if err != nil {
				return err
			}
			defer l.Close()
			return l.StopVM(cmd.Context(), args[0])
		},
	}
}

func (a *app) vmList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List virtual machines",
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
			return printVMs(cmd.OutOrStdout(), s)
		},
	}
}

func printVMs(out io.Writer, s State) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "MACHINE\tHOST\tTENANT\tPORT\tIPS\tMAC\tPROCESS\n")
	for _, vm := range s.VMs {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", vm.Name, vm.Host, vm.Tenant, vm.Port, strings.Join(vm.Machine.Addresses, " "), vm.Machine.MAC, processState(vm.Process))
	}
	return w.Flush()
}
