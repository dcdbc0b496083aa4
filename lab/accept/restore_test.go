package accept_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"connectrpc.com/connect"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/lab"
	"github.com/weftnet/weft/lab/probe"
)

// whenWritten are the parts of a listing that say when something was written, not what.
var whenWritten = regexp.MustCompile(`"(revision|epoch)":"?[0-9]+"?`)

// TestBackupAndRestore: what was there at the backup is there again after the restore, and what came later is gone; the agents are
// brought to the new store id; and numbered datagrams run through all of it without a loss.
// Goes red when restore leaves a kind of object out, keeps the store id, lets epochs shrink below what agents have seen, or when an
// agent withdraws what it has while it is resynchronised.
func TestBackupAndRestore(t *testing.T) {
	f := ownLab(t, lab.Config{Name: "accr", Hosts: 2, Spines: 1})
	f.tenant(t, "keep")
	f.network(t, "keep", "blue", &weftv1.NetworkSpec{Vni: 4242, Subnets: []string{"10.1.0.0/24", "fd00:1::/64"}, Description: "kept"})
	var pair [2]*workload
	for i := range pair {
		pair[i] = f.workload(t, lab.WorkloadSpec{Name: fmt.Sprintf("keep-%d", i+1), Host: fmt.Sprintf("h%d", i+1), Tenant: "keep", Network: "blue"})
	}
	f.must(t, "vtep", "create", "ext1", "--address", "192.0.2.77", "--udp-port", "8472")
	f.must(t, "network", "vtep", "add", "blue", "ext1", "--tenant", "keep", "--mac", "02:00:00:00:ee:01")
	f.must(t, "pool", "create", "small", "--first", "70000", "--last", "70010")
	f.must(t, "port", "create", "unbound", "--tenant", "keep", "--network", "blue", "--unguarded")
	f.must(t, "token", "create", "ci", "--scope", "read-only")
	reaches(t, pair[0].ns, pair[1].v4())

	seq, err := probe.StartSequence(limited(t), pair[0].ns, pair[1].ns, pair[1].v4(), 7100, 2000)
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	defer func() {
		if !stopped {
			_, _ = seq.Stop()
		}
	}()
	file := filepath.Join(t.TempDir(), "weft.backup")
	intent, epoch, id := f.intent(t), f.epoch(t, "keep", "keep-1"), f.storeID(t)
	f.must(t, "backup", file)
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 || st.Size() == 0 {
		t.Errorf("the backup: %v, %v; want something that only root can read", st, err)
	}

	// What comes after the backup is undone by the restore.
	f.must(t, "tenant", "create", "late")
	f.must(t, "network", "create", "late", "--tenant", "late", "--subnet", "10.9.0.0/24")
	f.must(t, "port", "delete", "unbound", "--tenant", "keep")
	f.must(t, "network", "set", "blue", "--tenant", "keep", "--description", "changed", "--wait")
	broken := filepath.Join(t.TempDir(), "broken.backup")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(broken, whole[:len(whole)-len(whole)/3], 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, f, 2, []string{"backup", "truncated", "nothing was changed"}, func() result { return f.weft(t, "restore", "--yes", broken) })
	f.must(t, "restore", "--yes", file)

	if after := f.intent(t); whenWritten.ReplaceAllString(after, "") != whenWritten.ReplaceAllString(intent, "") {
		t.Errorf("the restore is not what the backup was:\nbefore:\n%s\nafter:\n%s", intent, after)
	}
	now := f.storeID(t)
	if now == id {
		t.Errorf("the store id is still %s", id)
	}
	for _, h := range []string{"h1", "h2"} {
		eventually(t, h+" has come to the restored store", func() (bool, string) {
			st := f.agentStatus(t, h)
			return st.GetStoreId() == now && st.GetConnected(), fmt.Sprintf("store %s, connected %t, want store %s", st.GetStoreId(), st.GetConnected(), now)
		})
	}
	if e := f.epoch(t, "keep", "keep-1"); e < epoch {
		t.Errorf("the epoch of a port went from %d back to %d", epoch, e)
	}
	// It is not only looked at: a change after the restore reaches the hosts, and a new workload works.
	third := f.workload(t, lab.WorkloadSpec{Name: "keep-3", Host: "h2", Tenant: "keep", Network: "blue"})
	reaches(t, pair[0].ns, third.v4())
	reaches(t, third.ns, pair[1].v6())
	f.must(t, "network", "set", "blue", "--tenant", "keep", "--description", "after", "--wait")

	stopped = true
	r, err := seq.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if r.Lost != 0 || r.Duplicated != 0 || r.Unsent != 0 || r.Received < 1000 {
		t.Errorf("forwarding through backup and restore: %+v, want none lost or doubled", r)
	}
	t.Logf("through backup and restore: %d datagrams sent, %d lost, longest gap %s", r.Sent, r.Lost, r.LongestGap)
	f.must(t, "network", "vtep", "remove", "blue", "ext1", "--tenant", "keep")
}

func (f *fixture) storeID(t testing.TB) string {
	t.Helper()
	res, err := f.api(t).System.GetStatus(limited(t), connect.NewRequest(&weftv1.GetStatusRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	return res.Msg.GetStoreId()
}

func (f *fixture) epoch(t testing.TB, tenant, port string) int64 {
	t.Helper()
	res, err := f.api(t).Ports.GetPort(limited(t), connect.NewRequest(&weftv1.GetPortRequest{Tenant: tenant, Name: port}))
	if err != nil {
		t.Fatal(err)
	}
	return res.Msg.GetStatus().GetBinding().GetEpoch()
}

func (f *fixture) agentStatus(t testing.TB, host string) *localv1.GetStatusResponse {
	t.Helper()
	a, err := f.Agent(host)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	res, err := a.GetStatus(limited(t), connect.NewRequest(&localv1.GetStatusRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	return res.Msg
}
