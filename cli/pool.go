package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
)

func poolCommand(a *app) *cobra.Command {
	return a.asking(group("pool", "ranges of VNIs to allocate from", poolCreate(a), poolList(a), poolShow(a), poolSet(a), poolDelete(a)))
}

type poolFlags struct {
	first, last int64
	description string
}

func (p *poolFlags) register(cmd *cobra.Command) {
	cmd.Flags().Int64Var(&p.first, "first", 0, "first VNI of the range, `NUMBER`")
	cmd.Flags().Int64Var(&p.last, "last", 0, "last VNI of the range, `NUMBER`")
	cmd.Flags().StringVar(&p.description, "description", "", "what it is for")
}

// edit changes what was named.
func (p *poolFlags) edit(cmd *cobra.Command, spec *weftv1.VNIPoolSpec) error {
	first, err := vniFlag(cmd, "first", p.first)
	if err != nil {
		return err
	}
	last, err := vniFlag(cmd, "last", p.last)
	if err != nil {
		return err
	}
	if first != 0 {
		spec.First = first
	}
	if last != 0 {
		spec.Last = last
	}
	if cmd.Flags().Changed("description") {
		spec.Description = p.description
	}
	return nil
}

func poolCreate(a *app) *cobra.Command {
	var flags poolFlags
	cmd := &cobra.Command{Use: "create NAME --first VNI --last VNI", Short: "make a VNI pool", Args: names("NAME")}
	flags.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		spec := &weftv1.VNIPoolSpec{}
		if err := flags.edit(cmd, spec); err != nil {
			return err
		}
		if spec.First == 0 || spec.Last == 0 {
			return usagef("", "give --first and --last", "the range is missing")
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		p, err := call(cmd.Context(), c.VNIPools.CreateVNIPool, &weftv1.CreateVNIPoolRequest{Name: args[0], Spec: spec})
		if err != nil {
			return err
		}
		return a.print(p, func() error { return a.say("pool %s created", p.GetName()) })
	}
	return a.formatted(cmd)
}

func poolList(a *app) *cobra.Command {
	return a.formatted(&cobra.Command{Use: "list", Short: "list VNI pools", Args: names(), RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		res, err := call(cmd.Context(), c.VNIPools.ListVNIPools, &weftv1.ListVNIPoolsRequest{})
		if err != nil {
			return err
		}
		return a.print(res, func() error {
			t := newTable("NAME", "FIRST", "LAST", "USED", "FREE", "QUARANTINED", "DESCRIPTION")
			for _, p := range res.GetPools() {
				t.add(p.GetName(), p.GetSpec().GetFirst(), p.GetSpec().GetLast(), p.GetStatus().GetUsed(), p.GetStatus().GetFree(),
					p.GetStatus().GetQuarantined(), p.GetSpec().GetDescription())
			}
			return a.table(t)
		})
	}})
}

func poolShow(a *app) *cobra.Command {
	return a.formatted(&cobra.Command{Use: "show NAME", Short: "show a VNI pool", Args: names("NAME"), ValidArgsFunction: a.complete(a.poolNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			p, err := call(cmd.Context(), c.VNIPools.GetVNIPool, &weftv1.GetVNIPoolRequest{Name: args[0]})
			if err != nil {
				return err
			}
			return a.print(p, func() error {
				return a.sheet(func(s *sheet) {
					s.row("Name", p.GetName())
					s.meta(p.GetMeta())
					s.row("Description", p.GetSpec().GetDescription())
					s.row("Range", fmt.Sprintf("%d-%d", p.GetSpec().GetFirst(), p.GetSpec().GetLast()))
					s.row("Used", p.GetStatus().GetUsed())
					s.row("Free", p.GetStatus().GetFree())
					s.row("Quarantined", p.GetStatus().GetQuarantined())
				})
			})
		}})
}

func poolSet(a *app) *cobra.Command {
	var flags poolFlags
	cmd := &cobra.Command{Use: "set NAME", Short: "change a VNI pool: first, last, description", Args: names("NAME"),
		ValidArgsFunction: a.complete(a.poolNames)}
	flags.register(cmd)
	based := revisionFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := somethingToSet(cmd, "first", "last", "description"); err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		p, err := change(cmd.Context(), *based,
			func(ctx context.Context) (*weftv1.VNIPool, int64, error) {
				p, err := call(ctx, c.VNIPools.GetVNIPool, &weftv1.GetVNIPoolRequest{Name: args[0]})
				return p, p.GetMeta().GetRevision(), err
			},
			func(p *weftv1.VNIPool) error {
				if p.Spec == nil {
					p.Spec = &weftv1.VNIPoolSpec{}
				}
				return flags.edit(cmd, p.Spec)
			},
			func(ctx context.Context, p *weftv1.VNIPool, revision int64) (*weftv1.VNIPool, error) {
				return call(ctx, c.VNIPools.UpdateVNIPool, &weftv1.UpdateVNIPoolRequest{Name: args[0], Revision: revision, Spec: p.GetSpec()})
			})
		if err != nil {
			return err
		}
		return a.print(p, func() error { return a.say("pool %s changed", p.GetName()) })
	}
	return a.formatted(cmd)
}

func poolDelete(a *app) *cobra.Command {
	return &cobra.Command{Use: "delete NAME", Short: "delete a VNI pool that no network has a VNI from", Args: names("NAME"),
		ValidArgsFunction: a.complete(a.poolNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			if _, err := call(cmd.Context(), c.VNIPools.DeleteVNIPool, &weftv1.DeleteVNIPoolRequest{Name: args[0]}); err != nil {
				return err
			}
			return a.say("pool %s deleted", args[0])
		}}
}
