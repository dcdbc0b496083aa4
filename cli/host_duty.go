package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
)

func hostFail(a *app) *cobra.Command {
	var sure bool
	var reason string
	cmd := &cobra.Command{Use: "fail NAME", Short: "declare a host dead: its ports may be bound elsewhere at once", Args: names("NAME"),
		Long: "For a host that is lost, or cut off for longer than its workloads can wait. Its ports are unbound with higher epochs, moves from and to it\n" +
			"end, and nothing of it is accepted in their networks any more. Should it still run, it learns of that when it reaches a server, and holds its\n" +
			"ports then. See to it that its workloads do not run twice: weft keeps them apart on the network, and not at their disks. On a terminal it asks\n" +
			"first. `weft host return` takes the host back, without those ports. A host that works is emptied with `weft host drain`.",
		ValidArgsFunction: a.complete(a.hostNames)}
	cmd.Flags().StringVar(&reason, "reason", "", "`WHY`, for who looks at it later")
	cmd.Flags().BoolVar(&sure, "yes", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		if !sure {
			h, err := call(cmd.Context(), c.Hosts.GetHost, &weftv1.GetHostRequest{Name: args[0]})
			if err != nil {
				return err
			}
			err = a.confirm(fmt.Sprintf("Host %s is %s and has %s. Declare it dead, and unbind them?", args[0],
				enum("HOST_STATE_", h.GetStatus().GetState()), counted(h.GetStatus().GetPorts(), "port")))
			if err != nil {
				return err
			}
		}
		res, err := call(cmd.Context(), c.Hosts.FailHost, &weftv1.FailHostRequest{Name: args[0], Reason: reason})
		if err != nil {
			return err
		}
		return a.print(res, func() error {
			if err := a.say("host %s is declared dead: %s unbound", args[0], counted(len(res.GetUnboundPorts()), "port")); err != nil {
				return err
			}
			for _, p := range res.GetUnboundPorts() {
				if err := a.say("port %s unbound", p); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return a.formatted(cmd)
}

func hostReturn(a *app) *cobra.Command {
	return a.formatted(&cobra.Command{Use: "return NAME", Short: "take a drained or failed host back into service", Args: names("NAME"),
		ValidArgsFunction: a.complete(a.hostNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			h, err := call(cmd.Context(), c.Hosts.ReturnHost, &weftv1.ReturnHostRequest{Name: args[0]})
			if err != nil {
				return err
			}
			return a.print(h, func() error { return a.say("host %s is back in service", args[0]) })
		}})
}

// hostDuty is how a duty is shown.
func hostDuty(s *weftv1.HostStatus) cell {
	c := cell{text: enum("HOST_DUTY_", s.GetDuty())}
	switch s.GetDuty() {
	case weftv1.HostDuty_HOST_DUTY_DRAINED:
		c.colour = yellow
	case weftv1.HostDuty_HOST_DUTY_FAILED:
		c.colour = red
	}
	return c
}

func parseWhenSilent(s string) (weftv1.WhenSilent, error) {
	switch s {
	case "show":
		return weftv1.WhenSilent_WHEN_SILENT_SHOW, nil
	case "fail":
		return weftv1.WhenSilent_WHEN_SILENT_FAIL, nil
	}
	return 0, usagef("--when-silent", "choose show or fail", "%q is not one of its values", s)
}
