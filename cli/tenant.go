package cli

import (
	"context"

	"github.com/spf13/cobra"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
)

func tenantCommand(a *app) *cobra.Command {
	return a.asking(group("tenant", "owners of networks and ports, isolated from each other",
		tenantCreate(a), tenantList(a), tenantShow(a), tenantSet(a), tenantDelete(a)))
}

func tenantCreate(a *app) *cobra.Command {
	spec := &weftv1.TenantSpec{}
	cmd := &cobra.Command{Use: "create NAME", Short: "make a tenant", Args: names("NAME"), RunE: func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		t, err := call(cmd.Context(), c.Tenants.CreateTenant, &weftv1.CreateTenantRequest{Name: args[0], Spec: spec})
		if err != nil {
			return err
		}
		return a.print(t, func() error { return a.say("tenant %s created", t.GetName()) })
	}}
	cmd.Flags().StringVar(&spec.Description, "description", "", "what it is for")
	return a.formatted(cmd)
}

func tenantList(a *app) *cobra.Command {
	return a.formatted(&cobra.Command{Use: "list", Short: "list tenants", Args: names(), RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		res, err := call(cmd.Context(), c.Tenants.ListTenants, &weftv1.ListTenantsRequest{})
		if err != nil {
			return err
		}
		return a.print(res, func() error {
			t := newTable("NAME", "NETWORKS", "PORTS", "DESCRIPTION")
			for _, x := range res.GetTenants() {
				t.add(x.GetName(), x.GetStatus().GetNetworks(), x.GetStatus().GetPorts(), x.GetSpec().GetDescription())
			}
			return a.table(t)
		})
	}})
}

func tenantShow(a *app) *cobra.Command {
	return a.formatted(&cobra.Command{Use: "show NAME", Short: "show a tenant", Args: names("NAME"), ValidArgsFunction: a.complete(a.tenantNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			t, err := call(cmd.Context(), c.Tenants.GetTenant, &weftv1.GetTenantRequest{Name: args[0]})
			if err != nil {
				return err
			}
			return a.print(t, func() error {
				return a.sheet(func(s *sheet) {
					s.row("Name", t.GetName())
					s.meta(t.GetMeta())
					s.row("Description", t.GetSpec().GetDescription())
					s.row("Networks", t.GetStatus().GetNetworks())
					s.row("Ports", t.GetStatus().GetPorts())
				})
			})
		}})
}

func tenantSet(a *app) *cobra.Command {
	var next weftv1.TenantSpec
	cmd := &cobra.Command{Use: "set NAME --description TEXT", Short: "change a tenant: description", Args: names("NAME"),
		ValidArgsFunction: a.complete(a.tenantNames)}
	cmd.Flags().StringVar(&next.Description, "description", "", "what it is for")
	based := revisionFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		if err := somethingToSet(cmd, "description"); err != nil {
			return err
		}
		t, err := change(cmd.Context(), *based,
			func(ctx context.Context) (*weftv1.Tenant, int64, error) {
				t, err := call(ctx, c.Tenants.GetTenant, &weftv1.GetTenantRequest{Name: args[0]})
				return t, t.GetMeta().GetRevision(), err
			},
			func(t *weftv1.Tenant) error {
				t.Spec = &weftv1.TenantSpec{Description: next.Description}
				return nil
			},
			func(ctx context.Context, t *weftv1.Tenant, revision int64) (*weftv1.Tenant, error) {
				return call(ctx, c.Tenants.UpdateTenant, &weftv1.UpdateTenantRequest{Name: args[0], Revision: revision, Spec: t.GetSpec()})
			})
		if err != nil {
			return err
		}
		return a.print(t, func() error { return a.say("tenant %s changed", t.GetName()) })
	}
	return a.formatted(cmd)
}

func tenantDelete(a *app) *cobra.Command {
	return &cobra.Command{Use: "delete NAME", Short: "delete a tenant that has no networks and no ports", Args: names("NAME"),
		ValidArgsFunction: a.complete(a.tenantNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			if _, err := call(cmd.Context(), c.Tenants.DeleteTenant, &weftv1.DeleteTenantRequest{Name: args[0]}); err != nil {
				return err
			}
			return a.say("tenant %s deleted", args[0])
		}}
}

// revisionFlag is for scripts that read, think and write.
func revisionFlag(cmd *cobra.Command) *int64 {
	return cmd.Flags().Int64("revision", 0, "refuse the change if the object's revision is not this `NUMBER` any more")
}

// somethingToSet refuses a set that sets nothing.
func somethingToSet(cmd *cobra.Command, flags ...string) error {
	list := ""
	for _, f := range flags {
		if cmd.Flags().Changed(f) {
			return nil
		}
		list += " --" + f
	}
	return usagef("", "give at least one of"+list, "nothing to change")
}

// meta writes what every object has.
func (s *sheet) meta(m *weftv1.Meta) {
	s.row("UID", m.GetUid())
	s.row("Revision", m.GetRevision())
	s.row("Created", when(m.GetCreated()))
}
