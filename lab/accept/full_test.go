package accept_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/lab"
)

// TestFullTable: two networks have more VTEPs together than a host's table holds. What does not fit is shown on the host and on its network,
// by name and with what to do; what was there before goes on, and its network shows nothing; and when there is room again, nothing is
// shown. It turns red when displayOf does not know external VTEPs, when networkStatus leaves out what hosts say, or when the agent forgets
// what did not fit.
func TestFullTable(t *testing.T) {
	f := sharedLab(t)
	const each = 150 // of two networks; a lab's hosts hold 256 in all
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 4*inTime)
		defer cancel()
		several(t, 2*each, func(i int) error {
			_, err := f.api(t).VTEPs.DeleteVTEP(ctx, connect.NewRequest(&weftv1.DeleteVTEPRequest{Name: fmt.Sprintf("full-%d", i)}))
			return err
		})
	})
	f.tenant(t, "full")
	c := f.api(t)
	parts := make([]*weftv1.NetworkVTEP, 2*each)
	several(t, 2*each, func(i int) error {
		parts[i] = &weftv1.NetworkVTEP{Vtep: fmt.Sprintf("full-%d", i)}
		_, err := c.VTEPs.CreateVTEP(limited(t), connect.NewRequest(&weftv1.CreateVTEPRequest{Name: parts[i].Vtep,
			Spec: &weftv1.VTEPSpec{Address: fmt.Sprintf("203.0.%d.%d", i/250, 1+i%250)}}))
		return err
	})
	if t.Failed() {
		return
	}
	f.network(t, "full", "blue", &weftv1.NetworkSpec{Subnets: []string{"10.9.0.0/24"}, Vteps: parts[:each]})
	w1 := f.workload(t, lab.WorkloadSpec{Name: "full-1", Tenant: "full", Network: "blue", Host: "h1"})
	w2 := f.workload(t, lab.WorkloadSpec{Name: "full-2", Tenant: "full", Network: "blue", Host: "h2"})
	reaches(t, w1.ns, w2.v4())
	shown := func(where, name string, want bool, args ...string) {
		t.Helper()
		eventually(t, where, func() (bool, string) {
			r := f.weft(t, args...)
			found := false
			for line := range strings.Lines(r.out) {
				found = found || strings.Contains(line, name+": vtep full-") && strings.Contains(line, "table vteps is full (limit 256)") &&
					strings.Contains(line, "--tables")
			}
			return r.status == 0 && found == want, r.out + r.err
		})
	}
	red := f.network(t, "full", "red", &weftv1.NetworkSpec{Subnets: []string{"10.9.1.0/24"}, Vteps: parts[each:]})
	f.workload(t, lab.WorkloadSpec{Name: "full-3", Tenant: "full", Network: "red", Host: "h1"})
	shown("the host shows the full table", "not applied", true, "host", "show", "h1")
	shown("the network shows the full table", "not applied on h1", true, "network", "show", "red", "--tenant", "full")
	shown("the network that was there first is whole", "not applied on h1", false, "network", "show", "blue", "--tenant", "full")
	reaches(t, w1.ns, w2.v4())
	red.Spec.Vteps = red.Spec.Vteps[:10]
	if _, err := c.Networks.UpdateNetwork(limited(t), connect.NewRequest(&weftv1.UpdateNetworkRequest{Tenant: "full", Name: "red",
		Revision: red.Meta.Revision, Spec: red.Spec})); err != nil {
		t.Fatal(err)
	}
	shown("the host has room", "not applied", false, "host", "show", "h1")
	shown("the network fits", "not applied on h1", false, "network", "show", "red", "--tenant", "full")
}

// several does something for each number below n, a few at a time.
func several(t testing.TB, n int, do func(i int) error) {
	t.Helper()
	var all errgroup.Group
	all.SetLimit(8)
	for i := range n {
		all.Go(func() error { return do(i) })
	}
	if err := all.Wait(); err != nil {
		t.Error(err)
	}
}
