package cli

import (
	"runtime"
	"time"

	"github.com/spf13/cobra"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
)

func versionCommand(a *app) *cobra.Command {
	return a.formatted(a.asking(&cobra.Command{Use: "version", Short: "version of this program, and of the server if one answers", Args: names(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			own := &weftv1.GetVersionResponse{Version: a.deps.Version, Commit: a.deps.Commit, GoVersion: runtime.Version()}
			return a.print(own, func() error {
				if err := a.say("weft %s (%s, %s)", own.GetVersion(), own.GetCommit(), own.GetGoVersion()); err != nil {
					return err
				}
				a.patience = time.Second
				c, err := a.client()
				if err != nil {
					return nil // no server is no error here
				}
				v, err := call(cmd.Context(), c.System.GetVersion, &weftv1.GetVersionRequest{})
				if err != nil {
					return nil
				}
				return a.say("server %s (%s, %s)", v.GetVersion(), v.GetCommit(), v.GetGoVersion())
			})
		}}))
}
