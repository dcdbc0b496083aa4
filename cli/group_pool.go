package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
)

func groupPoolCommand(a *app) *cobra.Command {
	return a.asking(group("group-pool", "ranges of multicast groups of the underlay to take those of networks from", groupPoolCreate(a), groupPoolList(a), groupPoolShow(a), groupPoolSet(a), groupPoolDelete(a)))
}

type groupPoolFlags struct {
	first, last, description string
	share                    uint32
}

func (p *groupPoolFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.first, "first", "", "first `ADDRESS` of the range, IPv4 or IPv6")
	cmd.Flags().StringVar(&p.last, "last", "", "last `ADDRESS` of the range")
	cmd.Flags().Uint32Var(&p.share, "networks-per-group", 1, "`NUMBER` of networks that may have the same group")
	cmd.Flags().StringVar(&p.description, "description", "", "what it is for")
}

// edit changes what was named.
func (p *groupPoolFlags) edit(cmd *cobra.Command, spec *weftv1.GroupPoolSpec) {
	named := cmd.Flags().Changed
	if named("first") {
		spec.First = p.first
	}
	if named("last") {
		spec.Last = p.last
	}
	if named("networks-per-group") {
		spec.NetworksPerGroup = p.share
	}
	if named("description") {
		spec.Description = p.description
	}
}

func groupPoolCreate(a *app) *cobra.Command {
	var flags groupPoolFlags
	cmd := &cobra.Command{Use: "create NAME --first ADDRESS --last ADDRESS", Short: "make a group pool", Args: names("NAME")}
	flags.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		spec := &weftv1.GroupPoolSpec{}
		if flags.edit(cmd, spec); spec.First == "" || spec.Last == "" {
			return usagef("", "give --first and --last", "the range is missing")
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		p, err := call(cmd.Context(), c.GroupPools.CreateGroupPool, &weftv1.CreateGroupPoolRequest{Name: args[0], Spec: spec})
		if err != nil {
			return err
		}
		return a.print(p, func() error { return a.say("group pool %s created", p.GetName()) })
	}
	return a.formatted(cmd)
}

func groupPoolList(a *app) *cobra.Command {
	return a.formatted(&cobra.Command{Use: "list", Short: "list group pools", Args: names(), RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		res, err := call(cmd.Context(), c.GroupPools.ListGroupPools, &weftv1.ListGroupPoolsRequest{})
		if err != nil {
			return err
		}
		return a.print(res, func() error {
			t := newTable("NAME", "FIRST", "LAST", "PER GROUP", "USED", "FREE", "NETWORKS", "DESCRIPTION")
			for _, p := range res.GetPools() {
				t.add(p.GetName(), p.GetSpec().GetFirst(), p.GetSpec().GetLast(), max(1, p.GetSpec().GetNetworksPerGroup()), p.GetStatus().GetUsed(),
					p.GetStatus().GetFree(), p.GetStatus().GetNetworks(), p.GetSpec().GetDescription())
			}
			return a.table(t)
		})
	}})
}

func groupPoolShow(a *app) *cobra.Command {
	return a.formatted(&cobra.Command{Use: "show NAME", Short: "show a group pool", Args: names("NAME"), ValidArgsFunction: a.complete(a.groupPoolNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			p, err := call(cmd.Context(), c.GroupPools.GetGroupPool, &weftv1.GetGroupPoolRequest{Name: args[0]})
			if err != nil {
				return err
			}
			return a.print(p, func() error {
				return a.sheet(func(s *sheet) {
					s.row("Name", p.GetName())
					s.meta(p.GetMeta())
					s.row("Description", p.GetSpec().GetDescription())
					s.row("Range", p.GetSpec().GetFirst()+" - "+p.GetSpec().GetLast())
					s.row("Networks per group", max(1, p.GetSpec().GetNetworksPerGroup()))
					s.row("Used", fmt.Sprintf("%d, by %d networks", p.GetStatus().GetUsed(), p.GetStatus().GetNetworks()))
					s.row("Free", p.GetStatus().GetFree())
				})
			})
		}})
}

func groupPoolSet(a *app) *cobra.Command {
	var flags groupPoolFlags
	cmd := &cobra.Command{Use: "set NAME", Short: "change a group pool: first, last, networks-per-group, description", Args: names("NAME"),
		ValidArgsFunction: a.complete(a.groupPoolNames)}
	flags.register(cmd)
	based := revisionFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := somethingToSet(cmd, "first", "last", "networks-per-group", "description"); err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		p, err := change(cmd.Context(), *based,
			func(ctx context.Context) (*weftv1.GroupPool, int64, error) {
				p, err := call(ctx, c.GroupPools.GetGroupPool, &weftv1.GetGroupPoolRequest{Name: args[0]})
				return p, p.GetMeta().GetRevision(), err
			},
			func(p *weftv1.GroupPool) error {
				if p.Spec == nil {
					p.Spec = &weftv1.GroupPoolSpec{}
				}
				flags.edit(cmd, p.Spec)
				return nil
			},
			func(ctx context.Context, p *weftv1.GroupPool, revision int64) (*weftv1.GroupPool, error) {
				return call(ctx, c.GroupPools.UpdateGroupPool, &weftv1.UpdateGroupPoolRequest{Name: args[0], Revision: revision, Spec: p.GetSpec()})
			})
		if err != nil {
			return err
		}
		return a.print(p, func() error { return a.say("group pool %s changed", p.GetName()) })
	}
	return a.formatted(cmd)
}

func groupPoolDelete(a *app) *cobra.Command {
	return &cobra.Command{Use: "delete NAME", Short: "delete a group pool that no network takes its group from", Args: names("NAME"),
		ValidArgsFunction: a.complete(a.groupPoolNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			if _, err := call(cmd.Context(), c.GroupPools.DeleteGroupPool, &weftv1.DeleteGroupPoolRequest{Name: args[0]}); err != nil {
				return err
			}
			return a.say("group pool %s deleted", args[0])
		}}
}
