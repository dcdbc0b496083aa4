package cli

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
)

// defaultWait is how long --wait waits.
const defaultWait = 30 * time.Second

// waiting gives a verb its --wait.
func (a *app) waiting(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&a.flags.wait, "wait", false, "until every live host of the network has applied it, and floods go its way; exit status 3 if not in time")
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
	return a.appliedBy(ctx, tenant, network, revision, time.Now().Add(a.flags.waitTimeout))
}

// inForce is applied for what was said of the network itself: until floods go as it says, too.
func (a *app) inForce(ctx context.Context, tenant, network string, revision int64) error {
	if !a.flags.wait {
		return nil
	}
	end := time.Now().Add(a.flags.waitTimeout)
	if err := a.appliedBy(ctx, tenant, network, revision, end); err != nil {
		return err
	}
	changed, err := a.floods(ctx, tenant, network, end)
	if err != nil || changed <= revision {
		return err
	}
	return a.appliedBy(ctx, tenant, network, changed, end)
}

// askAgain is between two looks at a network whose flood method changes.
const askAgain = 200 * time.Millisecond

// floods waits until a network's floods go as its spec says, which takes hosts and underlay a while, and returns the revision by which they do.
func (a *app) floods(ctx context.Context, tenant, network string, end time.Time) (int64, error) {
	c, err := a.client()
	if err != nil {
		return 0, err
	}
	for {
		n, err := call(ctx, c.Networks.GetNetwork, &weftv1.GetNetworkRequest{Tenant: tenant, Name: network})
		if isCode(err, connect.CodeNotFound) {
			return 0, nil // it was deleted
		}
		if err != nil {
			return 0, a.waitFailed(err)
		}
		if floodsAsSaid(n) {
			return n.GetMeta().GetRevision(), nil
		}
		if time.Now().After(end) {
			return 0, &failure{status: exitLagging, reason: fmt.Sprintf("it is done, but after %s its floods do not go that way yet%s", a.flags.waitTimeout, whyNot(n)),
				fix: fmt.Sprintf("look at it with `weft network show %s --tenant %s`; they change over when they can", network, tenant)}
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(askAgain):
		}
	}
}

// floodsAsSaid compares the method in force, and a group that was given, with the spec.
func floodsAsSaid(n *weftv1.Network) bool {
	group := n.GetSpec().GetFlood() == weftv1.FloodMethod_FLOOD_METHOD_MULTICAST
	if group != (n.GetStatus().GetGroup() != "") {
		return false
	}
	want, err := netip.ParseAddr(n.GetSpec().GetGroup())
	return (!group || err != nil || want.String() == n.GetStatus().GetGroup()) && whyNot(n) == "" // which of a pool's, only the server knows
}

// whyNot is what the server says of a change of the flood method under way.
func whyNot(n *weftv1.Network) string {
	for _, c := range n.GetStatus().GetConditions() {
		if c.GetName() == "flood method changes" {
			return ": " + c.GetMessage()
		}
	}
	return ""
}

func (a *app) waitFailed(err error) error {
	_, lines := explain(err)
	return &failure{status: exitRefused, reason: "it is done, but waiting for the hosts failed: " + lines[0].Error(), fix: lines[0].fix}
}

// appliedBy waits until then.
func (a *app) appliedBy(ctx context.Context, tenant, network string, revision int64, end time.Time) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	res, err := call(ctx, c.System.WaitApplied, &weftv1.WaitAppliedRequest{
		Tenant: tenant, Network: network, Revision: revision, Timeout: durationpb.New(max(time.Until(end), time.Millisecond)),
	})
	if err != nil {
		return a.waitFailed(err)
	}
	if !res.GetComplete() {
		return &failure{status: exitLagging, reason: fmt.Sprintf("it is done, but after %s these hosts have not applied revision %d: %s",
			a.flags.waitTimeout, revision, strings.Join(res.GetLagging(), ", ")),
			fix: "look at them with `weft host show`; each applies it when it can"}
	}
	return nil
}
