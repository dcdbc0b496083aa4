package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
)

func hostCommand(a *app) *cobra.Command {
	return a.asking(group("host", "Linux machines that run the agent",
		group("token", "single-use tokens with which hosts join", hostTokenCreate(a)),
		hostList(a), hostShow(a), hostSet(a), hostDrain(a), hostFail(a), hostReturn(a), hostRemove(a)))
}

func hostTokenCreate(a *app) *cobra.Command {
	var lifetime time.Duration
	cmd := &cobra.Command{Use: "create HOST", Short: "make a token with which a host of that name joins, once", Args: names("HOST"),
		Long:    "Prints the token and nothing else. It is for a host of that name only, once, until it expires, and it pins the deployment's CA.",
		Example: "  weft agent --server 192.0.2.10 --token \"$(weft host token create h1)\"", ValidArgsFunction: a.complete(a.hostNames)}
	cmd.Flags().DurationVar(&lifetime, "lifetime", time.Hour, "until it expires, `DURATION`")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if lifetime <= 0 {
			return usagef("--lifetime", "give a time, such as 1h", "%s is no lifetime", lifetime)
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		res, err := call(cmd.Context(), c.Hosts.CreateHostToken, &weftv1.CreateHostTokenRequest{Host: args[0], Lifetime: durationpb.New(lifetime)})
		if err != nil {
			return err
		}
		return a.print(res, func() error { return a.say("%s", res.GetToken()) })
	}
	return a.formatted(cmd)
}

func hostList(a *app) *cobra.Command {
	return a.formatted(&cobra.Command{Use: "list", Short: "list hosts", Args: names(), RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		res, err := call(cmd.Context(), c.Hosts.ListHosts, &weftv1.ListHostsRequest{})
		if err != nil {
			return err
		}
		return a.print(res, func() error { return a.hostTable(res.GetHosts()) })
	}})
}

// brief names the conditions for a listing; of `degraded` also what is wrong. The rest is in `weft host show`.
func brief(conditions []*weftv1.Condition) string {
	var list []string
	times := map[string]int{}
	for _, c := range conditions {
		text := c.GetName()
		if what, _, _ := strings.Cut(c.GetMessage(), ": "); text == "degraded" && what != "" {
			text += ": " + what
		}
		if times[text]++; times[text] == 1 {
			list = append(list, text)
		}
	}
	for i, text := range list {
		if n := times[text]; n > 1 {
			list[i] = fmt.Sprintf("%s (%d)", text, n)
		}
	}
	return strings.Join(list, "; ")
}

func (a *app) hostTable(hosts []*weftv1.Host) error {
	t := newTable("NAME", "STATE", "DUTY", "VTEP", "UPLINK", "MTU", "PORTS", "REVISION", "VERSION", "CONDITIONS")
	for _, h := range hosts {
		s := h.GetStatus()
		t.add(h.GetName(), hostState(s.GetState()), hostDuty(s), strings.Join(s.GetVtepAddresses(), ","), s.GetUplink(), number(s.GetUplinkMtu()), s.GetPorts(),
			number(s.GetAppliedRevision()), s.GetVersion(), brief(s.GetConditions()))
	}
	return a.table(t)
}

func hostState(s weftv1.HostState) cell {
	c := cell{text: enum("HOST_STATE_", s)}
	switch s {
	case weftv1.HostState_HOST_STATE_READY:
		c.colour = green
	case weftv1.HostState_HOST_STATE_DEGRADED:
		c.colour = yellow
	case weftv1.HostState_HOST_STATE_UNREACHABLE:
		c.colour = red
	}
	return c
}

func hostShow(a *app) *cobra.Command {
	return a.formatted(&cobra.Command{Use: "show NAME", Short: "show a host", Args: names("NAME"), ValidArgsFunction: a.complete(a.hostNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			h, err := call(cmd.Context(), c.Hosts.GetHost, &weftv1.GetHostRequest{Name: args[0]})
			if err != nil {
				return err
			}
			return a.print(h, func() error { return a.sheet(func(s *sheet) { s.host(h) }) })
		}})
}

func (s *sheet) host(h *weftv1.Host) {
	status := h.GetStatus()
	s.row("Name", h.GetName())
	s.meta(h.GetMeta())
	s.row("Description", h.GetSpec().GetDescription())
	s.row("State", hostState(status.GetState()))
	s.row("Duty", hostDuty(status))
	s.row("Declared dead", status.GetDutyMessage())
	s.list("Conditions", conditionLines(status.GetConditions()))
	s.row("VTEP", orNone(status.GetVtepAddresses()))
	s.row("UDP port", number(status.GetUdpPort()))
	s.row("Outer checksum", yes(h.GetSpec().GetOuterChecksum()))
	s.row("Migrates", yes(h.GetSpec().GetMigrates()))
	s.row("When silent", enum("WHEN_SILENT_", h.GetSpec().GetWhenSilent()))
	uplink := status.GetUplink()
	if mtu := status.GetUplinkMtu(); mtu != 0 {
		uplink += fmt.Sprintf(" (MTU %d)", mtu)
	}
	s.row("Uplink", uplink)
	s.row("Kernel", status.GetKernel())
	s.row("Version", status.GetVersion())
	s.row("Features", strings.Join(status.GetFeatures(), ", "))
	s.row("Ports", status.GetPorts())
	s.row("Applied", number(status.GetAppliedRevision()))
	s.row("Last seen", when(status.GetLastSeen()))
	s.capabilities(status.GetCapabilities())
	if len(status.GetPrograms()) > 0 {
		s.list("Programs", status.GetPrograms())
	}
	s.books(status.GetBooks())
	var lanes []string
	for _, l := range status.GetLanes() {
		lanes = append(lanes, fmt.Sprintf("%s: %d", l.GetReason(), l.GetPackets()))
	}
	if len(lanes) > 0 {
		s.list("To another lane", lanes)
	}
}

// capabilities are a line each, those of an uplink under its name.
func (s *sheet) capabilities(all []*weftv1.Capability) {
	var lines []string
	for _, c := range all {
		line := c.GetName() + ": " + yes(c.GetPresent())
		if c.GetInterface() != "" {
			line = c.GetInterface() + ": " + line
		}
		if c.GetDetail() != "" {
			line += " (" + c.GetDetail() + ")"
		}
		lines = append(lines, line)
	}
	if len(lines) > 0 {
		s.list("Capabilities", lines)
	}
}

func conditionLines(list []*weftv1.Condition) (lines []string) {
	for _, c := range list {
		text := c.GetName()
		if c.GetMessage() != "" {
			text += ": " + c.GetMessage()
		}
		lines = append(lines, text)
	}
	return lines
}

// books are those of programs that saw a packet.
func (s *sheet) books(all []*weftv1.ProgramBooks) {
	var lines []string
	for _, b := range all {
		if b.GetIn() == 0 {
			continue
		}
		line := fmt.Sprintf("%s: %d in, %d delivered, %d encapsulated, %d passed, %d answered, %d dropped", b.GetProgram(), b.GetIn(), b.GetDelivered(),
			b.GetEncapsulated(), b.GetPassed(), b.GetAnswered(), b.GetDropped())
		if n := b.GetCopies(); n > 0 {
			line += fmt.Sprintf("; copies of floods: %d", n)
		}
		if n := b.GetAnswers(); n > 0 {
			line += fmt.Sprintf("; answers sent: %d", n)
		}
		lines = append(lines, line)
	}
	if len(lines) > 0 {
		s.list("Books", lines)
	}
}

func hostSet(a *app) *cobra.Command {
	next := &weftv1.HostSpec{}
	cmd := &cobra.Command{Use: "set NAME", Short: "change a host: outer-checksum, migrates, when-silent, description", Args: names("NAME"),
		Long: "Changes what is named and leaves the rest. With an outer checksum, tunnel packets to this host are sent through their hosts' kernel lane,\n" +
			"which is slower; it is for an underlay that drops or damages packets whose UDP checksum is zero.\n\n" +
			"Hosts that both migrate may take ports over from each other without a user's word, as hypervisors do that move machines among themselves\n" +
			"(`weft port attach --take`, libvirt's hook). A host is silent when neither its VTEP nor the host itself (ICMP echo) answers\n" +
			"those that watch it, and its agent has no stream: then it is shown, or declared dead as by `weft host fail`.",
		ValidArgsFunction: a.complete(a.hostNames)}
	f := cmd.Flags()
	f.BoolVar(&next.OuterChecksum, "outer-checksum", false, "have its peers send it a correct outer UDP checksum instead of zero")
	f.BoolVar(&next.Migrates, "migrates", false, "let it take over ports from hosts that migrate, too")
	silent := f.String("when-silent", "show", "what is done when it is silent, `WHAT`: show or fail")
	_ = cmd.RegisterFlagCompletionFunc("when-silent", cobra.FixedCompletions([]string{"show", "fail"}, cobra.ShellCompDirectiveNoFileComp))
	f.StringVar(&next.Description, "description", "", "what it is")
	based := revisionFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if err := somethingToSet(cmd, "outer-checksum", "migrates", "when-silent", "description"); err != nil {
			return err
		}
		if next.WhenSilent, err = parseWhenSilent(*silent); err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		h, err := change(cmd.Context(), *based,
			func(ctx context.Context) (*weftv1.Host, int64, error) {
				h, err := call(ctx, c.Hosts.GetHost, &weftv1.GetHostRequest{Name: args[0]})
				return h, h.GetMeta().GetRevision(), err
			},
			func(h *weftv1.Host) error {
				if h.Spec == nil {
					h.Spec = &weftv1.HostSpec{}
				}
				if f.Changed("outer-checksum") {
					h.Spec.OuterChecksum = next.OuterChecksum
				}
				if f.Changed("migrates") {
					h.Spec.Migrates = next.Migrates
				}
				if f.Changed("when-silent") {
					h.Spec.WhenSilent = next.WhenSilent
				}
				if f.Changed("description") {
					h.Spec.Description = next.Description
				}
				return nil
			},
			func(ctx context.Context, h *weftv1.Host, revision int64) (*weftv1.Host, error) {
				return call(ctx, c.Hosts.UpdateHost, &weftv1.UpdateHostRequest{Name: args[0], Revision: revision, Spec: h.GetSpec()})
			})
		if err != nil {
			return err
		}
		return a.print(h, func() error { return a.say("host %s changed", h.GetName()) })
	}
	return a.formatted(cmd)
}

func hostRemove(a *app) *cobra.Command {
	var force bool
	cmd := &cobra.Command{Use: "remove NAME", Short: "remove a host: its certificate is worth nothing from then on", Args: names("NAME"),
		Long: "Refused while ports are bound to the host. --force unbinds them: their epochs grow, other hosts stop sending to this one, and they can\n" +
			"be attached elsewhere. A host that is cut off goes on as it was until it hears of it.",
		ValidArgsFunction: a.complete(a.hostNames)}
	cmd.Flags().BoolVar(&force, "force", false, "also if ports are bound to it: they are unbound")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		res, err := call(cmd.Context(), c.Hosts.RemoveHost, &weftv1.RemoveHostRequest{Name: args[0], Force: force})
		if err != nil {
			return err
		}
		if err := a.say("host %s removed", args[0]); err != nil {
			return err
		}
		for _, p := range res.GetUnboundPorts() {
			if err := a.say("port %s unbound", p); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}
