package cli

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	"github.com/weftnet/weft/client"
)

// onHost gives a verb the flag that says which agent.
func (a *app) onHost(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&a.flags.agentSocket, "agent-socket", "", "the agent's socket, `PATH` (WEFT_AGENT_SOCKET)")
	return cmd
}

func (a *app) agent() *client.LocalClient {
	switch {
	case a.flags.agentSocket != "":
		return client.Local(a.flags.agentSocket)
	case a.deps.Env.AgentSocket != "":
		return client.Local(a.deps.Env.AgentSocket)
	}
	return client.Local(filepath.Join(a.deps.RunDir, "weft", "agent.sock"))
}

// attachFlags of `weft port attach`.
type attachFlags struct {
	netns, ifname, tap, device string
	makeTAP, take              bool
	queues                     int64
	owner, group, commitOn     string
}

func portAttach(a *app) *cobra.Command {
	var flags attachFlags
	cmd := &cobra.Command{Use: "attach NAME (--netns PATH|NAME [--ifname eth0] | --tap NAME [--make-tap] | --device IFNAME) [--take]",
		Short: "give a port an interface on this host, binding it here if it is unbound",
		Long: "Asks this host's agent, as root. --netns makes a veth, one end inside that network namespace with the port's MAC, IPs and MTU;\n" +
			"--tap and --device take an interface that is there. Attaching what is attached changes nothing.\n\n" +
			"--make-tap makes the TAP device if there is none, with virtio headers, and detaching removes it. `weft port qemu NAME` then says what to start\n" +
			"QEMU with.\n\n" +
			"--take, of a port that is bound to another host, makes it incoming here: for who moves machines between hosts that were both allowed to\n" +
			"(`weft host set --migrates`). The port stays held here until `weft port commit`, or, behind a TAP, the machine's first frame.",
		Example: "  weft port attach web1 --netns web1\n  weft port attach vm1 --tap vm1 --make-tap --queues 4 --owner libvirt-qemu",
		Args:    names("NAME"), ValidArgsFunction: a.complete(a.portNames)}
	f := cmd.Flags()
	f.StringVar(&flags.netns, "netns", "", "network namespace, `PATH|NAME`: a name is one of `ip netns`")
	f.StringVar(&flags.ifname, "ifname", "", "name of the interface inside, with --netns (eth0)")
	f.StringVar(&flags.tap, "tap", "", "TAP device, `NAME`")
	f.StringVar(&flags.device, "device", "", "any other existing interface, `IFNAME`")
	f.BoolVar(&flags.makeTAP, "make-tap", false, "make the TAP device if there is none")
	f.Int64Var(&flags.queues, "queues", 1, "`NUMBER` of queues of a TAP device that is made, one for each of the machine's CPUs at most")
	f.StringVar(&flags.owner, "owner", "", "`USER` who may open a TAP device that is made (root)")
	f.StringVar(&flags.group, "group", "", "`GROUP` that may open a TAP device that is made")
	f.BoolVar(&flags.take, "take", false, "also if it is bound to another host: make it incoming here")
	f.StringVar(&flags.commitOn, "commit-on", "", "what commits its move here, beside `weft port commit`: `WHAT` is first-frame (of a TAP if nothing is said) or command")
	_ = cmd.RegisterFlagCompletionFunc("commit-on", cobra.FixedCompletions([]string{"first-frame", "command"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		tenant, err := a.tenant()
		if err != nil {
			return err
		}
		req, err := flags.request(cmd)
		if err != nil {
			return err
		}
		req.Tenant, req.Port = tenant, args[0]
		agent := a.agent()
		defer agent.Close()
		res, err := call(cmd.Context(), agent.Attach, req)
		if err != nil {
			return err
		}
		at := res.GetAttachment()
		return a.print(at, func() error { return a.sayAttachment(at) })
	}
	return a.formatted(a.onHost(cmd))
}

// maxQueues of a TAP device: the kernel's MAX_TAP_QUEUES.
const maxQueues = 256

// request refuses flags that do not go together, and says the rest.
func (flags *attachFlags) request(cmd *cobra.Command) (*localv1.AttachRequest, error) {
	req := &localv1.AttachRequest{Take: flags.take}
	given := 0
	if flags.netns != "" {
		given++
		netns := flags.netns
		if strings.Contains(netns, "/") {
			var err error
			if netns, err = filepath.Abs(netns); err != nil {
				return nil, fmt.Errorf("find the network namespace: %w", err)
			}
		}
		req.Interface = &localv1.AttachRequest_Netns{Netns: &localv1.NetnsInterface{Netns: netns, Ifname: flags.ifname}}
	}
	if flags.tap != "" {
		given++
		req.Interface = &localv1.AttachRequest_Tap{Tap: flags.tap}
	}
	if flags.device != "" {
		given++
		req.Interface = &localv1.AttachRequest_Device{Device: flags.device}
	}
	if given != 1 {
		return nil, usagef("", "give one of --netns, --tap and --device", "%s named", are(given, "interface"))
	}
	if flags.ifname != "" && flags.netns == "" {
		return nil, usagef("--ifname", "leave it out", "it goes with --netns only")
	}
	if flags.makeTAP && flags.tap == "" {
		return nil, usagef("--make-tap", "leave it out, or name the device with --tap", "it goes with --tap only")
	}
	for _, name := range []string{"queues", "owner", "group"} {
		if cmd.Flags().Changed(name) && !flags.makeTAP {
			return nil, usagef("--"+name, "leave it out, or give --make-tap", "it is about a TAP device that is made")
		}
	}
	if flags.queues < 1 || flags.queues > maxQueues {
		return nil, usagef("--queues", "choose one in that range", "%d queues is outside 1..%d", flags.queues, maxQueues)
	}
	if flags.makeTAP {
		req.MakeTap = &localv1.MakeTap{Queues: uint32(flags.queues), Owner: flags.owner, Group: flags.group}
	}
	switch flags.commitOn {
	case "":
	case "first-frame":
		req.CommitOn = localv1.CommitOn_COMMIT_ON_FIRST_FRAME
	case "command":
		req.CommitOn = localv1.CommitOn_COMMIT_ON_COMMAND
	default:
		return nil, usagef("--commit-on", "choose first-frame or command", "%q is not one of its values", flags.commitOn)
	}
	return req, nil
}

func (a *app) sayAttachment(at *localv1.Attachment) error {
	text := fmt.Sprintf("port %s/%s attached to %s", at.GetTenant(), at.GetPort(), at.GetInterface())
	if at.GetIfname() != "" {
		text += fmt.Sprintf(" (%s in %s)", at.GetIfname(), at.GetNetns())
	}
	text += fmt.Sprintf(": %s, MTU %d, VNI %d, %s", strings.Join(append(at.GetMacs(), at.GetIps()...), " "), at.GetMtu(), at.GetVni(), at.GetState())
	if at.GetMove() != "" {
		text += ", " + at.GetMove()
	}
	return a.say("%s", withReason(text, at.GetMessage()))
}

func portDetach(a *app) *cobra.Command {
	return a.onHost(&cobra.Command{Use: "detach NAME", Short: "take a port's interface on this host away, and unbind the port", Args: names("NAME"),
		ValidArgsFunction: a.complete(a.portNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			tenant, err := a.tenant()
			if err != nil {
				return err
			}
			agent := a.agent()
			defer agent.Close()
			_, err = call(cmd.Context(), agent.Detach, &localv1.DetachRequest{Tenant: tenant, Port: args[0]})
			var away *client.Unreachable
			if errors.As(err, &away) {
				return refusef("agent", fmt.Sprintf("run it as root on the port's host, or unbind it by the server's word: `weft port unbind %s --tenant %s`",
					args[0], tenant), "%s", away)
			}
			if err != nil {
				return err
			}
			return a.say("port %s/%s detached", tenant, args[0])
		}})
}

func portListAttached(a *app) *cobra.Command {
	return a.formatted(a.onHost(&cobra.Command{Use: "list-attached", Short: "list the ports that have an interface on this host", Args: names(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			agent := a.agent()
			defer agent.Close()
			res, err := call(cmd.Context(), agent.ListAttachments, &localv1.ListAttachmentsRequest{})
			if err != nil {
				return err
			}
			return a.print(res, func() error {
				t := newTable("TENANT", "PORT", "KIND", "INTERFACE", "NETNS", "INSIDE", "MACS", "IPS", "VNI", "STATE", "MOVE", "MESSAGE")
				for _, at := range res.GetAttachments() {
					t.add(at.GetTenant(), at.GetPort(), at.GetKind(), at.GetInterface(), at.GetNetns(), at.GetIfname(),
						strings.Join(at.GetMacs(), ","), strings.Join(at.GetIps(), ","), number(at.GetVni()), at.GetState(), at.GetMove(), at.GetMessage())
				}
				return a.table(t)
			})
		}}))
}
