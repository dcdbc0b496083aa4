package accept_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"connectrpc.com/connect"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/lab"
	"github.com/weftnet/weft/lab/probe"
)

var (
	drainPorts = flag.Int("drainports", 16, "ports of the host that TestDrain empties (100 in make soak)")
	drainLog   = flag.String("drainlog", "", "file that TestDrain writes its figures to")
)

// drainRate is the datagrams a second to each port.
const drainRate = 100

// drainCommand moves a workload that is a namespace, as a user's program would: it attaches it to the target, and says there that it runs. It ends
// well although the move is still under way; that the namespace keeps the interface of the source until the drain is over harms nobody.
const drainCommand = `
set -e
export WEFT_AGENT_SOCKET=%[1]s/$WEFT_TO/agent.sock
%[2]s port attach "$WEFT_PORT" --tenant "$WEFT_TENANT" --netns "%[3]s$WEFT_PORT" --ifname eth1
%[2]s port commit "$WEFT_PORT" --tenant "$WEFT_TENANT"
`

// TestDrain empties a host whose ports all have a workload that somebody sends to. Every port must be on another host afterwards, active, and none may
// get a datagram twice. How long each was dark is told: by weft, and by what its sender missed.
//
// Red for the reason of TestMoves.
func TestDrain(t *testing.T) {
	f := ownLab(t, lab.Config{Name: "drain", Spines: 1})
	f.tenant(t, "acme")
	f.network(t, "acme", "blue", &weftv1.NetworkSpec{Subnets: []string{"10.1.0.0/24"}})
	far := f.workload(t, lab.WorkloadSpec{Name: "far", Host: "h3", Tenant: "acme", Network: "blue"})
	var names []string
	var senders []*probe.Sequence
	for i := range *drainPorts {
		name := fmt.Sprintf("d%d", i+1)
		w := f.workloadOf(t, lab.WorkloadSpec{Name: name, Host: "h1", Tenant: "acme", Network: "blue"})
		reaches(t, far.ns, w.v4())
		q, err := probe.StartSequence(limited(t), far.ns, w.ns, w.v4(), sequencePort, drainRate)
		if err != nil {
			t.Fatal(err)
		}
		names, senders = append(names, name), append(senders, q)
	}
	s, err := f.State()
	if err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(t.TempDir(), "move")
	if err := os.WriteFile(script, fmt.Appendf(nil, drainCommand, s.Dir, f.bin, s.Prefix), 0o700); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	f.must(t, "host", "drain", "h1", "--to", "h2,h3", "--with", "sh "+script)
	took := time.Since(began)
	var dark []time.Duration
	for _, name := range names {
		res, err := f.api(t).Ports.GetPort(limited(t), connect.NewRequest(&weftv1.GetPortRequest{Tenant: "acme", Name: name}))
		if err != nil {
			t.Fatal(err)
		}
		st := res.Msg.GetStatus()
		if st.GetBinding().GetActive() == "h1" || st.GetMove().GetCommitCause() != weftv1.CommitCause_COMMIT_CAUSE_EVENT {
			t.Errorf("port %s: %v, %v", name, st.GetBinding(), st.GetMove())
		}
		if d := st.GetMove().GetDarkTime(); d != nil {
			dark = append(dark, d.AsDuration())
		}
	}
	var missed []time.Duration
	var lost, twice, sent uint64
	results, errs := stopAll(senders)
	for i, r := range results {
		if errs[i] != nil {
			t.Error(errs[i])
		}
		missed = append(missed, r.LongestSilence)
		lost, twice, sent = lost+r.Lost, twice+r.Duplicated, sent+r.Sent
		if r.Duplicated > 0 || r.Received == 0 {
			t.Errorf("port %s: %+v", names[i], r)
		}
	}
	for _, name := range names {
		if _, err := f.WaitMove(limited(t), "acme", name, weftv1.MovePhase_MOVE_PHASE_DONE); err != nil {
			t.Error(err)
		}
	}
	f.settled(t)
	text := fmt.Sprintf("%d ports moved off a host in %s, 8 at a time, each with %d datagrams a second to it\n"+
		"ms                                              p50 | p90 | p99 | longest\n"+
		"dark, as weft says it (%d of %d known)          %s\n"+
		"dark, by what the sender missed (steps of %d)   %s\n"+
		"%d datagrams sent, %d lost, %d twice", *drainPorts, took.Round(time.Millisecond), drainRate, len(dark), *drainPorts, percentiles(dark), 1000/drainRate, percentiles(missed), sent, lost, twice)
	t.Log(text)
	if *drainLog != "" {
		text = fmt.Sprintf("TestDrain, %s, commit %s, %d CPUs, Linux %s, load %s\n%s\n", time.Now().UTC().Format(time.RFC3339), *what, runtime.NumCPU(), kernelRelease(), loadAverage(), text)
		if err := os.WriteFile(*drainLog, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
