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

// defaultWait is how long --wait waits.
const defaultWait = 30 * time.Second

// waiting gives a verb its --wait.
func (a *app) waiting(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&a.flags.wait, "wait", false, "until every live host of the network has applied it; exit status 3 if one has not in time")
	cmd.Flags().DurationVar(&a.flags.waitTimeout, "wait-timeout", defaultWait, "how long --wait waits, `DURATION`")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if a.flags.waitTimeout <= 0 {
			return usagef("--wait-timeout", "give a time, such as 30s", "%s is no time to wait", a.flags.waitTimeout)
		}
		return nil
	}
}

// applied waits, if that was asked for, until every live host that subscribes to the network has applied the revision.
func (a *app) applied(ctx context.Context, tenant, network string, revision int64) error {
	if !a.flags.wait {
		return nil
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	res, err := call(ctx, c.System.WaitApplied, &weftv1.WaitAppliedRequest{
		Tenant: tenant, Network: network, Revision: revision, Timeout: durationpb.New(a.flags.waitTimeout),
	})
	if err != nil {
		_, lines := explain(err)
		return &failure{status: exitRefused, reason: "it is done, but waiting for the hosts failed: " + lines[0].Error(), fix: lines[0].fix}
	}
	if !res.GetComplete() {
		return &failure{status: exitLagging, reason: fmt.Sprintf("it is done, but after %s these hosts have not applied revision %d: %s",
			a.flags.waitTimeout, revision, strings.Join(res.GetLagging(), ", ")),
			fix: "look at them with `weft host show`; each applies it when it can"}
	}
	return nil
}
