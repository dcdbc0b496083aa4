package server

import (
	"context"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
)

// movers are three hosts in one network, the third of which takes plans and does not acknowledge them.
func movers(t *testing.T, f *fixture, tenant string) (from, to, peer *double) {
	t.Helper()
	ok(t, f.tenants.CreateTenant, &weftv1.CreateTenantRequest{Name: tenant})
	ok(t, f.networks.CreateNetwork, &weftv1.CreateNetworkRequest{Tenant: tenant, Name: "blue"})
	from, to, peer = f.join(t, tenant+"-from"), f.join(t, tenant+"-to"), f.join(t, tenant+"-peer")
	from.open(facts("192.0.2.71", 1500))
	to.open(facts("192.0.2.72", 1500))
	peer.open(facts("192.0.2.73", 1500))
	for name, h := range map[string]*double{"p": from, "q": peer} {
		ok(t, f.ports.CreatePort, &weftv1.CreatePortRequest{Tenant: tenant, Name: name, Spec: &weftv1.PortSpec{Network: "blue"}})
		ok(t, h.agent.Bind, &planv1.BindRequest{Tenant: tenant, Port: name})
	}
	peer.holds("p", from.uid)
	if w := ok(t, f.system.WaitApplied, &weftv1.WaitAppliedRequest{Tenant: tenant, Network: "blue"}); !w.Complete {
		t.Fatalf("%v", w)
	}
	peer.setMute(true)
	return from, to, peer
}

// TestMoveIsAnnounced: the other hosts list the coming host's VTEP before the port is there. Break it: let move write
// the new host at once.
func TestMoveIsAnnounced(t *testing.T) {
	f := ownServer(t, Config{Limits: Limits{Prepare: 10 * time.Second}})
	from, to, peer := movers(t, f, "announced")
	before := peer.members("announced/blue")
	moved := make(chan error, 1)
	go func() {
		_, err := f.ports.MovePort(context.Background(), connect.NewRequest(&weftv1.MovePortRequest{Tenant: "announced", Name: "p", Host: to.name}))
		moved <- err
	}()
	eventually(t, "the peer lists the coming host", func() bool { return len(peer.members("announced/blue")) == len(before)+1 })
	if p := peer.planned("p"); p.GetActive() != from.uid || p.GetIncoming() != to.uid {
		t.Errorf("in between: active %s, incoming %s", p.GetActive(), p.GetIncoming())
	}
	refused(t, to.agent.Bind, &planv1.BindRequest{Tenant: "announced", Port: "p"}, conflict, "host", from.name)
	peer.acknowledge()
	if err := <-moved; err != nil {
		t.Fatal(err)
	}
	peer.holds("p", to.uid)
	eventually(t, "the peer forgets the old host", func() bool { return len(peer.members("announced/blue")) == len(before) })
}

// TestMoveLosesToUnbind: what was decided meanwhile is not undone.
func TestMoveLosesToUnbind(t *testing.T) {
	f := ownServer(t, Config{Limits: Limits{Prepare: 10 * time.Second}})
	_, to, peer := movers(t, f, "loses")
	moved := make(chan error, 1)
	go func() {
		_, err := f.ports.MovePort(context.Background(), connect.NewRequest(&weftv1.MovePortRequest{Tenant: "loses", Name: "p", Host: to.name}))
		moved <- err
	}()
	eventually(t, "the move began", func() bool {
		return ok(t, f.ports.GetPort, &weftv1.GetPortRequest{Tenant: "loses", Name: "p"}).Status.Binding.Incoming == to.name
	})
	ok(t, f.ports.UnbindPort, &weftv1.UnbindPortRequest{Tenant: "loses", Name: "p"})
	peer.acknowledge()
	wantRefusal(t, <-moved, stale, "epoch")
	if b := ok(t, f.ports.GetPort, &weftv1.GetPortRequest{Tenant: "loses", Name: "p"}).Status.Binding; b.Active != "" || b.Incoming != "" {
		t.Errorf("after the unbind: %v", b)
	}
}

// TestCountersMove: what a port counted on the host that it left stays its own. Break it: drop the moved counts.
func TestCountersMove(t *testing.T) {
	f := server(t)
	from, to, peer := movers(t, f, "counters")
	peer.acknowledge()
	uid := ok(t, f.ports.GetPort, &weftv1.GetPortRequest{Tenant: "counters", Name: "p"}).Meta.Uid
	said := func(n uint64) *planv1.Report {
		return &planv1.Report{Ports: []*planv1.PortReport{{Uid: uid, EgressPackets: n}}}
	}
	counted := func() uint64 {
		return ok(t, f.ports.GetPort, &weftv1.GetPortRequest{Tenant: "counters", Name: "p"}).Status.Counters.EgressPackets
	}
	from.report(said(100))
	eventually(t, "100 packets are counted", func() bool { return counted() == 100 })
	ok(t, f.ports.MovePort, &weftv1.MovePortRequest{Tenant: "counters", Name: "p", Host: to.name})
	from.report(&planv1.Report{})
	to.report(said(7))
	eventually(t, "107 packets are counted", func() bool { return counted() == 107 })
}

// TestStreamEndsWithCertificate: an hour before the certificate ends, the agent is told to connect again, and may.
func TestStreamEndsWithCertificate(t *testing.T) {
	f := ownServer(t, Config{})
	h := f.join(t, "old-h")
	f.clock.advance(24*time.Hour - time.Second)
	h.open(facts("192.0.2.81", 1500))
	if err := h.end(); connect.CodeOf(err) != connect.CodeUnavailable || !strings.Contains(err.Error(), "connect again") {
		t.Fatalf("the stream ended with: %v", err)
	}
	h.open(facts("192.0.2.81", 1500))
	eventually(t, "the host is live again", func() bool { return f.live(t, "old-h") })
}

// TestMovesOfOnePortToOneHost: of several who saw the port at one epoch and move it, to the same host even, one does; the others are told
// that what they saw is past. Break it: let move ask for the epoch only when the port is not there yet.
func TestMovesOfOnePortToOneHost(t *testing.T) {
	f := ownServer(t, Config{Limits: Limits{Prepare: 10 * time.Second}})
	from, to, peer := movers(t, f, "twice")
	peer.acknowledge()
	const several = 4
	moved := make(chan error, several)
	for range 10 {
		epoch := ok(t, f.ports.GetPort, &weftv1.GetPortRequest{Tenant: "twice", Name: "p"}).Status.Binding.Epoch
		for range several {
			go func() {
				_, err := f.ports.MovePort(context.Background(), connect.NewRequest(&weftv1.MovePortRequest{Tenant: "twice", Name: "p", Host: to.name, Epoch: epoch}))
				moved <- err
			}()
		}
		done := 0
		for range several {
			if err := <-moved; err == nil {
				done++
			} else {
				wantRefusal(t, err, stale, "epoch")
			}
		}
		if done != 1 {
			t.Errorf("%d of %d moved it", done, several)
		}
		from, to = to, from
	}
}
