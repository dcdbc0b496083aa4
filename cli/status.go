package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
)

func statusCommand(a *app) *cobra.Command {
	return a.formatted(a.asking(&cobra.Command{Use: "status", Short: "the deployment at a glance: server, store, hosts", Args: names(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			st, err := call(cmd.Context(), c.System.GetStatus, &weftv1.GetStatusRequest{})
			if err != nil {
				return err
			}
			return a.print(st, func() error {
				if err := a.sheet(func(s *sheet) { s.status(st) }); err != nil {
					return err
				}
				if len(st.GetHosts()) == 0 {
					return a.say("\nno hosts yet: `weft host token create NAME`, then `weft agent --server … --token …` there")
				}
				if err := a.say(""); err != nil {
					return err
				}
				return a.hostTable(st.GetHosts())
			})
		}}))
}

func (s *sheet) status(st *weftv1.GetStatusResponse) {
	s.row("Version", st.GetVersion())
	s.row("Started", when(st.GetStarted()))
	s.row("Store", fmt.Sprintf("%s, revision %d, %s of %s", st.GetStoreId(), st.GetRevision(), octets(st.GetStoreOctets()), octets(st.GetStoreQuotaOctets())))
	s.row("CA", st.GetCaFingerprint())
	s.row("Tenants", st.GetTenants())
	s.row("Networks", st.GetNetworks())
	s.row("Ports", fmt.Sprintf("%d, %d bound", st.GetPorts(), st.GetBoundPorts()))
	s.row("External VTEPs", st.GetExternalVteps())
	count := map[weftv1.HostState]int{}
	for _, h := range st.GetHosts() {
		count[h.GetStatus().GetState()]++
	}
	s.row("Hosts", fmt.Sprintf("%d, %d ready, %d degraded, %d unreachable", len(st.GetHosts()), count[weftv1.HostState_HOST_STATE_READY],
		count[weftv1.HostState_HOST_STATE_DEGRADED], count[weftv1.HostState_HOST_STATE_UNREACHABLE]))
}

func octets(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	v, i := float64(n), 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}
