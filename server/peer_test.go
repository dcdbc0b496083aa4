package server

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	peerv1 "github.com/weftnet/weft/api/gen/peer/v1"
	"github.com/weftnet/weft/api/gen/peer/v1/peerv1connect"
	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
)

// at opens the double's stream at another server.
func (d *double) at(f *fixture) {
	d.t.Helper()
	d.clients = f.tlsClients(d.t, f.pin(d.t), "", d.id)
	d.open(facts("192.0.2."+d.name[1:], 1500))
}

func stateOf(t *testing.T, f *fixture, host string) weftv1.HostState {
	t.Helper()
	return ok(t, f.hosts.GetHost, &weftv1.GetHostRequest{Name: host}).Status.State
}

const (
	isReady     = weftv1.HostState_HOST_STATE_READY
	unreachable = weftv1.HostState_HOST_STATE_UNREACHABLE
)

// TestRelay: what a host says to one server all answer from: state, port, drops, and who has applied what. A host that comes to another
// server leaves the first, and one that hangs up is gone for all. Break it: let realisation.tell do nothing, or last look at hosts alone.
func TestRelay(t *testing.T) {
	f := ownServer(t, Config{})
	g := secondServer(t, f)
	ok(t, f.tenants.CreateTenant, &weftv1.CreateTenantRequest{Name: "acme"})
	ok(t, f.networks.CreateNetwork, &weftv1.CreateNetworkRequest{Tenant: "acme", Name: "blue"})
	one, two := f.join(t, "h1"), f.join(t, "h2")
	one.at(f)
	two.at(g)
	for name, h := range map[string]*double{"p": one, "q": two} {
		ok(t, g.ports.CreatePort, &weftv1.CreatePortRequest{Tenant: "acme", Name: name, Spec: &weftv1.PortSpec{Network: "blue"}})
		epoch := ok(t, h.agent.Bind, &planv1.BindRequest{Tenant: "acme", Port: name})
		h.holds(name, h.uid)
		for _, counted := range []uint64{6, 7} {
			h.report(&planv1.Report{
				Ports: []*planv1.PortReport{{Uid: epoch.PortUid, Epoch: epoch.Epoch, State: planv1.PortState_PORT_STATE_ACTIVE, IngressPackets: counted}},
				Drops: []*planv1.Drop{{Reason: "no_route", Packets: 3}},
			})
		}
	}
	for _, s := range []*fixture{f, g} {
		for _, h := range []string{"h1", "h2"} {
			eventually(t, h+" is ready", func() bool { return stateOf(t, s, h) == isReady })
		}
		for _, p := range []string{"p", "q"} {
			eventually(t, p+" is active", func() bool {
				st := ok(t, s.ports.GetPort, &weftv1.GetPortRequest{Tenant: "acme", Name: p}).Status
				return st.State == weftv1.PortState_PORT_STATE_ACTIVE && st.Counters.IngressPackets == 7
			})
		}
		if drops := ok(t, s.system.ListDrops, &weftv1.ListDropsRequest{}).Drops; len(drops) != 2 {
			t.Errorf("drops: %v", drops)
		}
		w := ok(t, s.system.WaitApplied, &weftv1.WaitAppliedRequest{Tenant: "acme", Network: "blue"})
		if !w.Complete || len(w.Applied) != 2 {
			t.Errorf("%v", w)
		}
	}
	two.setMute(true)
	ok(t, f.networks.UpdateNetwork, &weftv1.UpdateNetworkRequest{Tenant: "acme", Name: "blue", Spec: &weftv1.NetworkSpec{Description: "x"},
		Revision: ok(t, f.networks.GetNetwork, &weftv1.GetNetworkRequest{Tenant: "acme", Name: "blue"}).Meta.Revision})
	for _, s := range []*fixture{f, g} {
		eventually(t, "h2 alone lags", func() bool {
			w := ok(t, s.system.WaitApplied, &weftv1.WaitAppliedRequest{Tenant: "acme", Network: "blue", Timeout: durationpb.New(50 * time.Millisecond)})
			return !w.Complete && len(w.Lagging) == 1 && w.Lagging[0] == "h2"
		})
	}
	two.acknowledge()
	// The newer stream is over there: the first server ends the older one.
	older := &double{t: t, name: one.name, ended: one.ended}
	one.at(g)
	older.end()
	eventually(t, "h1 is ready at the first server", func() bool { return stateOf(t, f, "h1") == isReady })
	one.hangUp()
	for _, s := range []*fixture{f, g} {
		eventually(t, "h1 is gone", func() bool { return stateOf(t, s, "h1") == unreachable })
		if st := ok(t, s.ports.GetPort, &weftv1.GetPortRequest{Tenant: "acme", Name: "p"}).Status; st.Counters.IngressPackets != 7 {
			t.Errorf("what was last known of p: %v", st)
		}
	}
}

// TestPeerGoes: the hosts of a server that stops are gone with it, and a new server hears everything that was there before it. Break it: let
// departed leave hosts elsewhere.
func TestPeerGoes(t *testing.T) {
	f := ownServer(t, Config{})
	h := f.join(t, "h1")
	h.at(f)
	eventually(t, "h1 is ready", func() bool { return stateOf(t, f, "h1") == isReady })
	dir, err := os.MkdirTemp("", "wefttest-server-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	copyCAOf(t, f, dir)
	g, err := start(Config{EtcdEndpoints: []string{"unix://" + filepath.Join(f.cfg.Dir, "etcd", "sockets", "client")}}, dir)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new server knows that h1 is ready", func() bool { return stateOf(t, g, "h1") == isReady })
	h.hangUp()
	h.at(g)
	eventually(t, "h1 is ready over there", func() bool { return stateOf(t, f, "h1") == isReady })
	if err := g.stop(); err != nil {
		t.Error(err)
	}
	eventually(t, "h1 went with its server", func() bool { return stateOf(t, f, "h1") == unreachable })
}

// hearing is what a caller gets who wants to hear a server.
func hearing(c *clients) connect.Code {
	stream, err := peerv1connect.NewPeerServiceClient(c.http, c.base, connect.WithGRPC()).Hear(context.Background(), connect.NewRequest(&peerv1.HearRequest{}))
	if err == nil {
		for stream.Receive() {
		}
		err = stream.Err()
		stream.Close()
	}
	return connect.CodeOf(err)
}

// TestOnlyServersHear: neither hosts nor users with a token hear what hosts say. Break it: let Hear be hostOnly.
func TestOnlyServersHear(t *testing.T) {
	f := ownServer(t, Config{})
	h := f.join(t, "h1")
	token := ok(t, f.system.CreateAPIToken, &weftv1.CreateAPITokenRequest{Name: "ops", Scope: weftv1.TokenScope_TOKEN_SCOPE_ADMIN})
	for who, c := range map[string]*clients{"a host": h.clients, "an administrator": f.bearer(t, token.Secret), "anybody": f.bearer(t, "")} {
		if code := hearing(c); code != connect.CodePermissionDenied && code != unknownWho {
			t.Errorf("%s is answered %v", who, code)
		}
	}
}

// TestRelayBounds: many hosts with long lists of errors come in several messages. Break it: count the reports alone.
func TestRelayBounds(t *testing.T) {
	r := newRealisation()
	long := []*planv1.ResourceError{{Message: strings.Repeat("x", relayOctets/4)}}
	for i := range 20 {
		r.hosts[model.UID(fmt.Sprint(i))] = &heard{errors: long}
	}
	l, told := r.listen(), 0
	for all := false; !all; {
		var m *peerv1.HearResponse
		m, all = r.collect(l)
		told += len(m.Hosts)
		if size := proto.Size(m); size > 2*relayOctets {
			t.Fatalf("a message of %d octets", size)
		}
	}
	if told != 20 {
		t.Fatalf("told of %d hosts", told)
	}
}
