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

func portAttach(a *app) *cobra.Command {
	var netns, ifname, tap, device string
	cmd := &cobra.Command{Use: "attach NAME (--netns PATH|NAME [--ifname eth0] | --tap NAME | --device IFNAME)",
		Short: "give a port an interface on this host, binding it here if it is unbound",
		Long: "Asks this host's agent, as root. --netns makes a veth, one end inside that network namespace with the port's MAC, IPs and MTU;\n" +
			"--tap and --device take an interface that is there. Attaching what is attached changes nothing.",
		Args: names("NAME"), ValidArgsFunction: a.complete(a.portNames)}
	f := cmd.Flags()
	f.StringVar(&netns, "netns", "", "network namespace, `PATH|NAME`: a name is one of `ip netns`")
	f.StringVar(&ifname, "ifname", "", "name of the interface inside, with --netns (eth0)")
	f.StringVar(&tap, "tap", "", "existing TAP device, `NAME`")
	f.StringVar(&device, "device", "", "any other existing interface, `IFNAME`")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		tenant, err := a.tenant()
		if err != nil {
			return err
		}
		req := &localv1.AttachRequest{Tenant: tenant, Port: args[0]}
		given := 0
		if netns != "" {
			given++
			if strings.Contains(netns, "/") {
				if netns, err = filepath.Abs(netns); err != nil {
					return fmt.Errorf("find the network namespace: %w", err)
				}
			}
			req.Interface = &localv1.AttachRequest_Netns{Netns: &localv1.NetnsInterface{Netns: netns, Ifname: ifname}}
		}
		if tap != "" {
			given++
			req.Interface = &localv1.AttachRequest_Tap{Tap: tap}
		}
		if device != "" {
			given++
			req.Interface = &localv1.AttachRequest_Device{Device: device}
		}
		if given != 1 {
			return usagef("", "give one of --netns, --tap and --device", "%d interfaces are named", given)
		}
		if ifname != "" && netns == "" {
			return usagef("--ifname", "leave it out", "it goes with --netns only")
		}
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

func (a *app) sayAttachment(at *localv1.Attachment) error {
	text := fmt.Sprintf("port %s/%s attached to %s", at.GetTenant(), at.GetPort(), at.GetInterface())
	if at.GetIfname() != "" {
		text += fmt.Sprintf(" (%s in %s)", at.GetIfname(), at.GetNetns())
	}
	text += fmt.Sprintf(": %s, MTU %d, VNI %d, %s", strings.Join(append(at.GetMacs(), at.GetIps()...), " "), at.GetMtu(), at.GetVni(), at.GetState())
	if at.GetMessage() != "" {
		text += ": " + at.GetMessage()
	}
	return a.say("%s", text)
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
				t := newTable("TENANT", "PORT", "KIND", "INTERFACE", "NETNS", "INSIDE", "MACS", "IPS", "VNI", "STATE", "MESSAGE")
				for _, at := range res.GetAttachments() {
					t.add(at.GetTenant(), at.GetPort(), at.GetKind(), at.GetInterface(), at.GetNetns(), at.GetIfname(),
						strings.Join(at.GetMacs(), ","), strings.Join(at.GetIps(), ","), number(at.GetVni()), at.GetState(), at.GetMessage())
				}
				return a.table(t)
			})
		}}))
}
