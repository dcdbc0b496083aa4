package cli

import (
	"github.com/spf13/cobra"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
)

func dropsCommand(a *app) *cobra.Command {
	req := &weftv1.ListDropsRequest{}
	cmd := &cobra.Command{Use: "drops", Short: "dropped packets by host, port and reason", Args: names(),
		Long: "As last reported by each host; docs/drops.md explains every reason."}
	cmd.Flags().StringVar(&req.Host, "host", "", "only of this host, `NAME`")
	cmd.Flags().StringVar(&req.Port, "port", "", "only of this port of the tenant, `NAME`")
	_ = cmd.RegisterFlagCompletionFunc("host", a.completeFlag(a.hostNames))
	_ = cmd.RegisterFlagCompletionFunc("port", a.completeFlag(a.portNames))
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if req.Port != "" {
			req.Tenant, err = a.tenant()
		} else {
			req.Tenant, err = a.tenantOrNone()
		}
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		res, err := call(cmd.Context(), c.System.ListDrops, req)
		if err != nil {
			return err
		}
		return a.print(res, func() error {
			t := newTable("HOST", "TENANT", "PORT", "REASON", "PACKETS", "SOURCE")
			for _, d := range res.GetDrops() {
				t.add(d.GetHost(), d.GetTenant(), d.GetPort(), d.GetReason(), d.GetPackets(), d.GetSource())
			}
			return a.table(t)
		})
	}
	return a.formatted(a.everyTenant(a.owned(a.asking(cmd))))
}
