package accept_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"connectrpc.com/connect"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/lab"
	"github.com/weftnet/weft/lab/probe"
)

// TestWithoutServer kills the only server, and then wants all that must go on without one for ever: forwarding and ARP; agents that are killed and
// started; a host that comes back with nothing in its kernel; the attachment of a port that is bound there; the commit of a move that was prepared.
// What needs a server waits and says so. When there is one again it takes over what was done meanwhile.
//
// Red when the source says that it forwards, and does not (believe without f.write).
func TestWithoutServer(t *testing.T) {
	f := ownLab(t, lab.Config{Name: "headless", Spines: 1})
	f.tenant(t, "acme")
	f.network(t, "acme", "blue", &weftv1.NetworkSpec{Subnets: []string{"10.1.0.0/24"}})
	var all []*workload
	for _, h := range []string{"h1", "h2", "h3"} {
		all = append(all, f.workload(t, lab.WorkloadSpec{Name: "on-" + h, Host: h, Tenant: "acme", Network: "blue"}))
	}
	f.must(t, "port", "create", "waiting", "--tenant", "acme", "--network", "blue", "--ip", "10.1.0.90")
	f.must(t, "port", "bind", "waiting", "--tenant", "acme", "--host", "h3", "--wait")
	f.workloadOf(t, lab.WorkloadSpec{Name: "mover", Host: "h1", Tenant: "acme", Network: "blue"})
	m, err := f.NewMover("mover", []string{"h1", "h2"}, "on-h3")
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close(context.Background())
	if err := m.Prepare(limited(t)); err != nil {
		t.Fatal(err)
	}
	if err := m.Workload().Bring(); err != nil {
		t.Fatal(err)
	}
	if err := f.KillServer(limited(t)); err != nil {
		t.Fatal(err)
	}
	everyone := func(when string) {
		t.Helper()
		for i, w := range all {
			to := all[(i+1)%len(all)]
			forget(t, w.ns, to)
			if err := reach(limited(t), w.ns, to.v4()); err != nil {
				t.Errorf("%s: %s does not reach %s, whose MAC it has to ask for: %v", when, w.Name, to.Name, err)
			}
		}
	}
	everyone("the server is killed")

	// Agents that are new forward as before, and nothing is lost meanwhile.
	unharmed(t, all, func() {
		for _, h := range []string{"h1", "h2", "h3"} {
			restartHeadless(t, f, h)
		}
	})
	everyone("the agents are new")

	// A host that comes back with nothing but its disk.
	f.wipe(t, "h3")
	restartHeadless(t, f, "h3")
	everyone("h3 is a new kernel")

	// A port that is bound to a host is attached there.
	ns := namespace(t, "waiting")
	if r := f.weftOn(t, "h3", "port", "attach", "waiting", "--tenant", "acme", "--netns", ns.String()); r.status != 0 {
		t.Errorf("attach what is bound there: %s%s", r.out, r.err)
	}
	reaches(t, ns, all[0].v4())

	// The prepared move is committed, and peers reach the workload in its new place; another one cannot begin.
	x, err := probe.StartExchange(limited(t), m.Workload().Place, m.Workload().Peers, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Workload().Turn(x); err != nil {
		t.Fatal(err)
	}
	if err := m.Flip(limited(t)); err != nil {
		t.Errorf("commit a prepared move: %v", err)
	}
	in0, out0 := x.Count()
	eventually(t, "datagrams come both ways by the new place", func() (bool, string) {
		in, out := x.Count()
		return in.Received > in0.Received+1000 && out.Received > out0.Received+1000, ""
	})
	r, err := x.Stop()
	if err != nil || r.In.Duplicated+r.Out.Duplicated > 0 || len(r.Broken) > 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if s := f.weft(t, "port", "move", "on-h1", "--tenant", "acme", "--host", "h2"); s.status == 0 || !strings.Contains(s.err, "server") {
		t.Errorf("begin a move without a server: status %d, %s%s", s.status, s.out, s.err)
	}
	if s := f.weftOn(t, "h2", "port", "attach", "on-h1", "--tenant", "acme", "--netns", ns.String(), "--ifname", "eth9", "--take"); s.status == 0 || !strings.Contains(s.err, "a move cannot begin without a server") {
		t.Errorf("take a port without a server: status %d, %s%s", s.status, s.out, s.err)
	}
	if got := f.attachment(t, "h2", "mover"); got.GetState() != "active" || got.GetMove() == "" {
		t.Errorf("h2 says of the port that it committed, before a server has heard: %v", got)
	}

	// A server again.
	if err := f.StartServer(limited(t)); err != nil {
		t.Fatal(err)
	}
	for _, h := range []string{"h1", "h2", "h3"} {
		f.caughtUp(t, h)
	}
	if err := m.Finish(limited(t)); err != nil {
		t.Error(err)
	}
	if is := f.move(t, "mover"); is.GetTo() != "h2" || is.GetCommitCause() != weftv1.CommitCause_COMMIT_CAUSE_EVENT || is.GetDarkTime() == nil {
		t.Errorf("the server says of the move: %v", is)
	}
	f.settled(t)
	everyone("the server is back")
}

// forget has a workload forget another one's MAC.
func forget(t *testing.T, ns *netdev.Handle, of *workload) {
	t.Helper()
	eth0, err := ns.LinkByName("eth0")
	if err == nil {
		err = ns.ManageNeighbour(eth0.Index, of.v4()) // so that it is ours to release
	}
	if err == nil {
		err = ns.ReleaseNeighbour(eth0.Index, of.v4())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// wipe ends a host's agent and takes away all that it put into the kernel, as a power cut does.
func (f *fixture) wipe(t *testing.T, host string) {
	t.Helper()
	if err := f.KillAgent(limited(t), host); err != nil {
		t.Fatal(err)
	}
	for _, l := range f.own(t, host) {
		if err := f.node(t, host).DeleteLink(l.Name); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(f.hostOf(t, host).PinRoot); err != nil {
		t.Fatal(err)
	}
}

// attachment is what a host's agent says of a port.
func (f *fixture) attachment(t *testing.T, host, port string) *localv1.Attachment {
	t.Helper()
	a, err := f.Agent(host)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	res, err := a.ListAttachments(limited(t), connect.NewRequest(&localv1.ListAttachmentsRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range res.Msg.GetAttachments() {
		if at.GetPort() == port {
			return at
		}
	}
	return nil
}
