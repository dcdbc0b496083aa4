package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
)

// defaultUDPPort is what 0 means.
const defaultUDPPort = 4789

func vtepCommand(a *app) *cobra.Command {
	cmd := a.asking(group("vtep", "external tunnel end points, run by someone else; and a VTEP with no server, run here",
		vtepCreate(a), vtepList(a), vtepShow(a), vtepSet(a), vtepDelete(a)))
	cmd.AddCommand(a.deps.VTEP...)
	return cmd
}

// vtepFlags of create and set.
func vtepFlags(cmd *cobra.Command, spec *weftv1.VTEPSpec) *int64 {
	f := cmd.Flags()
	f.StringVar(&spec.Address, "address", "", "underlay `IP` address")
	port := f.Int64("udp-port", defaultUDPPort, "UDP port that it listens on, `NUMBER`")
	f.BoolVar(&spec.OuterChecksum, "outer-checksum", false, "send it a correct outer UDP checksum instead of zero")
	f.StringVar(&spec.Description, "description", "", "what it is")
	return port
}

func udpPort(port int64) (uint32, error) {
	if port < 1 || port > 65535 {
		return 0, usagef("--udp-port", "choose one in that range", "UDP port %d is outside 1..65535", port)
	}
	return uint32(port), nil
}

func vtepCreate(a *app) *cobra.Command {
	spec := &weftv1.VTEPSpec{}
	cmd := &cobra.Command{Use: "create NAME --address IP", Short: "make an external VTEP", Args: names("NAME"),
		Example: "  weft vtep create ext1 --address 192.0.2.9\n  weft network vtep add blue ext1 --tenant acme"}
	port := vtepFlags(cmd, spec)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if spec.Address == "" {
			return usagef("--address", "give its underlay address", "it is missing")
		}
		if cmd.Flags().Changed("udp-port") {
			if spec.UdpPort, err = udpPort(*port); err != nil {
				return err
			}
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		v, err := call(cmd.Context(), c.VTEPs.CreateVTEP, &weftv1.CreateVTEPRequest{Name: args[0], Spec: spec})
		if err != nil {
			return err
		}
		return a.print(v, func() error { return a.say("vtep %s created: %s", v.GetName(), v.GetSpec().GetAddress()) })
	}
	return a.formatted(cmd)
}

func vtepList(a *app) *cobra.Command {
	return a.formatted(&cobra.Command{Use: "list", Short: "list external VTEPs", Args: names(), RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		res, err := call(cmd.Context(), c.VTEPs.ListVTEPs, &weftv1.ListVTEPsRequest{})
		if err != nil {
			return err
		}
		return a.print(res, func() error {
			t := newTable("NAME", "ADDRESS", "UDP PORT", "NETWORKS", "DESCRIPTION")
			for _, v := range res.GetVteps() {
				t.add(v.GetName(), v.GetSpec().GetAddress(), shownUDPPort(v), strings.Join(v.GetStatus().GetNetworks(), ","), v.GetSpec().GetDescription())
			}
			return a.table(t)
		})
	}})
}

func shownUDPPort(v *weftv1.VTEP) string {
	if p := v.GetSpec().GetUdpPort(); p != 0 {
		return fmt.Sprint(p)
	}
	return fmt.Sprint(defaultUDPPort)
}

func vtepShow(a *app) *cobra.Command {
	brief := false
	cmd := a.formatted(a.onHost(&cobra.Command{Use: "show [NAME]", Short: "show an external VTEP; without a name, what a VTEP with no server on this machine holds",
		Long: "With NAME it asks a server about an external VTEP. Without, it asks `weft vtep run` on this machine, as root: its networks, ports with their\n" +
			"counters, the groups that it has joined and by which uplink, FDB (static and learned MACs, with their age), what it flooded, and what was dropped.",
		Args: noneOr("NAME"), ValidArgsFunction: a.complete(a.vtepNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return a.showHere(cmd.Context(), brief)
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			v, err := call(cmd.Context(), c.VTEPs.GetVTEP, &weftv1.GetVTEPRequest{Name: args[0]})
			if err != nil {
				return err
			}
			return a.print(v, func() error {
				return a.sheet(func(s *sheet) {
					s.row("Name", v.GetName())
					s.meta(v.GetMeta())
					s.row("Description", v.GetSpec().GetDescription())
					s.row("Address", v.GetSpec().GetAddress())
					s.row("UDP port", shownUDPPort(v))
					s.row("Outer checksum", yes(v.GetSpec().GetOuterChecksum()))
					s.list("Networks", v.GetStatus().GetNetworks())
				})
			})
		}}))
	cmd.Flags().BoolVar(&brief, "brief", false, "leave the FDB out")
	return cmd
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func vtepSet(a *app) *cobra.Command {
	next := &weftv1.VTEPSpec{}
	cmd := &cobra.Command{Use: "set NAME", Short: "change an external VTEP: address, udp-port, outer-checksum, description", Args: names("NAME"),
		ValidArgsFunction: a.complete(a.vtepNames)}
	port := vtepFlags(cmd, next)
	based := revisionFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if err := somethingToSet(cmd, "address", "udp-port", "outer-checksum", "description"); err != nil {
			return err
		}
		if next.UdpPort, err = udpPort(*port); err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		v, err := change(cmd.Context(), *based,
			func(ctx context.Context) (*weftv1.VTEP, int64, error) {
				v, err := call(ctx, c.VTEPs.GetVTEP, &weftv1.GetVTEPRequest{Name: args[0]})
				return v, v.GetMeta().GetRevision(), err
			},
			func(v *weftv1.VTEP) error {
				f := cmd.Flags()
				if v.Spec == nil {
					v.Spec = &weftv1.VTEPSpec{}
				}
				if f.Changed("address") {
					v.Spec.Address = next.Address
				}
				if f.Changed("udp-port") {
					v.Spec.UdpPort = next.UdpPort
				}
				if f.Changed("outer-checksum") {
					v.Spec.OuterChecksum = next.OuterChecksum
				}
				if f.Changed("description") {
					v.Spec.Description = next.Description
				}
				return nil
			},
			func(ctx context.Context, v *weftv1.VTEP, revision int64) (*weftv1.VTEP, error) {
				return call(ctx, c.VTEPs.UpdateVTEP, &weftv1.UpdateVTEPRequest{Name: args[0], Revision: revision, Spec: v.GetSpec()})
			})
		if err != nil {
			return err
		}
		return a.print(v, func() error { return a.say("vtep %s changed", v.GetName()) })
	}
	return a.formatted(cmd)
}

func vtepDelete(a *app) *cobra.Command {
	return &cobra.Command{Use: "delete NAME", Short: "delete an external VTEP that takes part in no network", Args: names("NAME"),
		ValidArgsFunction: a.complete(a.vtepNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			if _, err := call(cmd.Context(), c.VTEPs.DeleteVTEP, &weftv1.DeleteVTEPRequest{Name: args[0]}); err != nil {
				return err
			}
			return a.say("vtep %s deleted", args[0])
		}}
}
