package cli

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/structpb"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
)

func versionCommand(a *app) *cobra.Command {
	return a.formatted(a.asking(&cobra.Command{Use: "version", Short: "version of this program, and of the server if one answers", Args: names(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			own := &weftv1.GetVersionResponse{Version: a.deps.Version, Commit: a.deps.Commit, GoVersion: runtime.Version()}
			server := a.serverVersion(cmd.Context())
			fields := versionFields(own)
			if server != nil {
				fields["server"] = versionFields(server)
			}
			out, err := structpb.NewStruct(fields)
			if err != nil {
				return fmt.Errorf("put the versions together: %w", err)
			}
			return a.print(out, func() error {
				if err := a.say("weft %s (%s, %s)", own.GetVersion(), own.GetCommit(), own.GetGoVersion()); err != nil || server == nil {
					return err
				}
				return a.say("server %s (%s, %s)", server.GetVersion(), server.GetCommit(), server.GetGoVersion())
			})
		}}))
}

// serverVersion is nil if no server answers: that is no error here.
func (a *app) serverVersion(ctx context.Context) *weftv1.GetVersionResponse {
	a.patience = time.Second
	c, err := a.client()
	if err != nil {
		return nil
	}
	v, err := call(ctx, c.System.GetVersion, &weftv1.GetVersionRequest{})
	if err != nil {
		return nil
	}
	return v
}

func versionFields(v *weftv1.GetVersionResponse) map[string]any {
	return map[string]any{"version": v.GetVersion(), "commit": v.GetCommit(), "goVersion": v.GetGoVersion()}
}
