package server

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/plan"
)

// TestRemovedHost: its stream ends, with a reason, and its certificate opens nothing from then on. Break it: drop the
// lookup of the host from peerHost.
func TestRemovedHost(t *testing.T) {
	f := server(t)
	h := f.join(t, "removed-h")
	h.open(facts("192.0.2.31", 1500))
	eventually(t, "the host is ready", func() bool {
		return ok(t, f.hosts.GetHost, &weftv1.GetHostRequest{Name: "removed-h"}).Status.State == weftv1.HostState_HOST_STATE_READY
	})
	ok(t, f.hosts.RemoveHost, &weftv1.RemoveHostRequest{Name: "removed-h"})
	wantRefusal(t, h.end(), unknownWho, "certificate", "removed", "weft host token create")
	refused(t, h.agent.Renew, &planv1.RenewRequest{}, unknownWho, "certificate")
	refused(t, h.agent.Bind, &planv1.BindRequest{Tenant: "x", Port: "y"}, unknownWho, "certificate")
	h.open(facts("192.0.2.31", 1500))
	wantRefusal(t, h.end(), unknownWho, "certificate")
}

// TestStreamRules: one stream a host, a hello first, facts that can be.
func TestStreamRules(t *testing.T) {
	f := server(t)
	h := f.join(t, "stream-h")
	h.open(facts("192.0.2.32", 1500))
	eventually(t, "the host is live", func() bool { return f.live(t, "stream-h") })
	firstEnded := h.ended
	h2 := &double{clients: h.clients, t: t, name: h.name, uid: h.uid, id: h.id, staging: plan.NewStaging(h.uid, plan.NewSet(), "", 0)}
	h2.open(facts("192.0.2.32", 1500))
	<-firstEnded
	if !strings.Contains(fmt.Sprint(h.err), "newer stream") {
		t.Errorf("the first stream ended with: %v", h.err)
	}
	h2.hangUp()
	eventually(t, "the host is unreachable", func() bool {
		return ok(t, f.hosts.GetHost, &weftv1.GetHostRequest{Name: "stream-h"}).Status.State == weftv1.HostState_HOST_STATE_UNREACHABLE
	})

	h.open(&planv1.Facts{VtepAddresses: []string{"224.0.0.1"}, UdpPort: 4789, UplinkMtu: 1500})
	wantRefusal(t, h.end(), invalid, "vtep_addresses[0]")

	s := h.agent.Stream(t.Context())
	if err := s.Send(&planv1.AgentMessage{Message: &planv1.AgentMessage_Report{Report: &planv1.Report{}}}); err != nil {
		t.Fatal(err)
	}
	_, err := s.Receive()
	wantRefusal(t, err, invalid, "hello")
	s.CloseRequest()
	s.CloseResponse()
}

func (f *fixture) live(t *testing.T, host string) bool {
	t.Helper()
	s := ok(t, f.hosts.GetHost, &weftv1.GetHostRequest{Name: host}).Status
	return s.State == weftv1.HostState_HOST_STATE_READY && s.AppliedRevision > 0
}

// TestSlowHost: a host that takes nothing delays nobody, and is named by who waits for it. Nor does anybody wait for one that has left. Break it: let progress count
// it as applied, or have waitApplied listen to that host alone.
func TestSlowHost(t *testing.T) {
	f := server(t)
	ok(t, f.tenants.CreateTenant, &weftv1.CreateTenantRequest{Name: "slow"})
	ok(t, f.networks.CreateNetwork, &weftv1.CreateNetworkRequest{Tenant: "slow", Name: "blue"})
	quick, slow := f.join(t, "slow-quick"), f.join(t, "slow-slow")
	for i, h := range []*double{quick, slow} {
		h.open(facts(fmt.Sprintf("192.0.2.%d", 41+i), 1500))
		name := fmt.Sprintf("p%d", i)
		ok(t, f.ports.CreatePort, &weftv1.CreatePortRequest{Tenant: "slow", Name: name, Spec: &weftv1.PortSpec{Network: "blue"}})
		ok(t, h.agent.Bind, &planv1.BindRequest{Tenant: "slow", Port: name})
	}
	eventually(t, "both are heard", func() bool { return f.live(t, "slow-quick") && f.live(t, "slow-slow") })
	wait := &weftv1.WaitAppliedRequest{Tenant: "slow", Network: "blue"}
	if w := ok(t, f.system.WaitApplied, wait); !w.Complete || len(w.Applied) != 2 {
		t.Fatalf("%v", w)
	}
	slow.setMute(true)
	rev := ok(t, f.ports.CreatePort, &weftv1.CreatePortRequest{Tenant: "slow", Name: "late", Spec: &weftv1.PortSpec{Network: "blue"}}).Meta.Revision
	quick.holds("late", "")
	eventually(t, "the slow one alone is named", func() bool { // what the quick one said may be under way
		w := ok(t, f.system.WaitApplied, &weftv1.WaitAppliedRequest{Tenant: "slow", Network: "blue", Revision: rev, Timeout: durationpb.New(300 * time.Millisecond)})
		return !w.Complete && len(w.Lagging) == 1 && w.Lagging[0] == "slow-slow"
	})
	done := make(chan *weftv1.WaitAppliedResponse, 1)
	go func() {
		res, err := f.system.WaitApplied(context.Background(), connect.NewRequest(&weftv1.WaitAppliedRequest{Tenant: "slow", Network: "blue", Revision: rev}))
		if err == nil {
			done <- res.Msg
		}
		close(done)
	}()
	slow.acknowledge()
	if w := <-done; w == nil || !w.Complete {
		t.Errorf("after the acknowledgement: %v", w)
	}

	slow.setMute(true)
	rev = ok(t, f.ports.CreatePort, &weftv1.CreatePortRequest{Tenant: "slow", Name: "later", Spec: &weftv1.PortSpec{Network: "blue"}}).Meta.Revision
	done = make(chan *weftv1.WaitAppliedResponse, 1)
	go func() {
		res, err := f.system.WaitApplied(context.Background(), connect.NewRequest(&weftv1.WaitAppliedRequest{Tenant: "slow", Network: "blue", Revision: rev,
			Timeout: durationpb.New(patience)}))
		if err == nil {
			done <- res.Msg
		}
		close(done)
	}()
	time.Sleep(2 * hurryAfter) // who waits has nothing to do any more but to watch the one that lags
	ok(t, f.ports.UnbindPort, &weftv1.UnbindPortRequest{Tenant: "slow", Name: "p1"})
	if w := <-done; w == nil || !w.Complete {
		t.Errorf("after the host that lagged has left the network: %v", w)
	}
}

// TestConcurrentAllocation: everybody gets something of their own, of one server (TestManyServers has two).
func TestConcurrentAllocation(t *testing.T) {
	f := server(t)
	ok(t, f.tenants.CreateTenant, &weftv1.CreateTenantRequest{Name: "many"})
	ok(t, f.networks.CreateNetwork, &weftv1.CreateNetworkRequest{Tenant: "many", Name: "blue", Spec: &weftv1.NetworkSpec{Subnets: []string{"10.9.0.0/24"}}})
	const n = 24
	var wg sync.WaitGroup
	errs := make(chan error, 2*n)
	for i := range n {
		wg.Go(func() {
			_, err := f.networks.CreateNetwork(context.Background(), connect.NewRequest(&weftv1.CreateNetworkRequest{Tenant: "many", Name: fmt.Sprintf("n%d", i)}))
			errs <- err
		})
		wg.Go(func() {
			_, err := f.ports.CreatePort(context.Background(), connect.NewRequest(&weftv1.CreatePortRequest{Tenant: "many", Name: fmt.Sprintf("p%d", i), Spec: &weftv1.PortSpec{Network: "blue"}}))
			errs <- err
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	vnis, ips := map[uint32]bool{}, map[string]bool{}
	for _, n := range ok(t, f.networks.ListNetworks, &weftv1.ListNetworksRequest{Tenant: "many"}).Networks {
		vnis[n.Status.Vni] = true
	}
	for _, p := range ok(t, f.ports.ListPorts, &weftv1.ListPortsRequest{Tenant: "many", Network: "blue"}).Ports {
		ips[p.Status.Ips[0]] = true
	}
	if len(vnis) != n+1 || len(ips) != n {
		t.Errorf("%d VNIs and %d addresses, want %d and %d", len(vnis), len(ips), n+1, n)
	}
}

// TestRestart keeps everything, and a host that comes back is sent nothing that it has. Break it: let load compile nothing.
func TestRestart(t *testing.T) {
	f, err := start(Config{}, "")
	if err != nil {
		t.Fatal(err)
	}
	dir := f.dir
	t.Cleanup(func() { os.RemoveAll(dir) })
	ok(t, f.tenants.CreateTenant, &weftv1.CreateTenantRequest{Name: "acme"})
	n := ok(t, f.networks.CreateNetwork, &weftv1.CreateNetworkRequest{Tenant: "acme", Name: "blue", Spec: &weftv1.NetworkSpec{Subnets: []string{"10.1.0.0/24"}}})
	ok(t, f.ports.CreatePort, &weftv1.CreatePortRequest{Tenant: "acme", Name: "p", Spec: &weftv1.PortSpec{Network: "blue"}})
	h := f.join(t, "h1")
	h.open(facts("192.0.2.1", 1500))
	ok(t, h.agent.Bind, &planv1.BindRequest{Tenant: "acme", Port: "p"})
	h.holds("p", h.uid)
	secret := ok(t, f.system.CreateAPIToken, &weftv1.CreateAPITokenRequest{Name: "ci", Scope: weftv1.TokenScope_TOKEN_SCOPE_ADMIN}).Secret
	before := ok(t, f.ports.GetPort, &weftv1.GetPortRequest{Tenant: "acme", Name: "p"})
	fingerprint := ok(t, f.system.GetStatus, &weftv1.GetStatusRequest{}).CaFingerprint
	if err := f.stop(); err != nil {
		t.Fatalf("the first server ended with: %v", err)
	}
	if end := h.end(); connect.CodeOf(end) != connect.CodeUnavailable || !strings.Contains(end.Error(), "stopping") {
		t.Errorf("the stream ended with: %v", end)
	}
	g, err := start(Config{}, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		h.hangUp()
		if err := g.stop(); err != nil {
			t.Error(err)
		}
	}()
	after := ok(t, g.bearer(t, secret).ports.GetPort, &weftv1.GetPortRequest{Tenant: "acme", Name: "p"})
	if !proto.Equal(before.Meta, after.Meta) || !proto.Equal(before.Spec, after.Spec) || !proto.Equal(before.Status.Binding, after.Status.Binding) {
		t.Errorf("before %v\nafter %v", before, after)
	}
	s := ok(t, g.system.GetStatus, &weftv1.GetStatusRequest{})
	if s.CaFingerprint != fingerprint || s.Networks != 1 || s.BoundPorts != 1 || s.StoreQuotaOctets == 0 || s.Hosts[0].Status.State != weftv1.HostState_HOST_STATE_UNREACHABLE {
		t.Errorf("status %v", s)
	}
	h.clients = g.tlsClients(t, g.pin(t), "", h.id)
	had := h.brought
	h.open(facts("192.0.2.1", 1500))
	eventually(t, "the host is back", func() bool { return g.live(t, "h1") })
	h.mu.Lock()
	if got := h.brought - had; got != 0 {
		t.Errorf("updates brought %d things to a host that has everything", got)
	}
	h.mu.Unlock()
	refused(t, g.networks.CreateNetwork, &weftv1.CreateNetworkRequest{Tenant: "acme", Name: "red", Spec: &weftv1.NetworkSpec{Vni: n.Status.Vni}}, taken, "spec.vni")
}

// TestRestore replaces everything under running streams: hosts that the backup knows go on with its plan, others are
// removed. Break it: drop sweepHeard from begin.
func TestRestore(t *testing.T) {
	f := ownServer(t, Config{})
	ok(t, f.tenants.CreateTenant, &weftv1.CreateTenantRequest{Name: "acme"})
	ok(t, f.networks.CreateNetwork, &weftv1.CreateNetworkRequest{Tenant: "acme", Name: "blue"})
	for _, name := range []string{"kept", "moved"} {
		ok(t, f.ports.CreatePort, &weftv1.CreatePortRequest{Tenant: "acme", Name: name, Spec: &weftv1.PortSpec{Network: "blue"}})
	}
	h1 := f.join(t, "h1")
	h1.open(facts("192.0.2.1", 1500))
	ok(t, h1.agent.Bind, &planv1.BindRequest{Tenant: "acme", Port: "kept"})
	var backup []byte
	res, err := f.system.Backup(t.Context(), connect.NewRequest(&weftv1.BackupRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	for res.Receive() {
		backup = append(backup, res.Msg().Chunk...)
	}
	if err := res.Err(); err != nil {
		t.Fatal(err)
	}
	res.Close()

	h2 := f.join(t, "h2")
	h2.open(facts("192.0.2.2", 1500))
	epoch := ok(t, h2.agent.Bind, &planv1.BindRequest{Tenant: "acme", Port: "moved"}).Epoch
	h1.holds("moved", h2.uid)
	ok(t, f.tenants.CreateTenant, &weftv1.CreateTenantRequest{Name: "later"})
	before := ok(t, f.system.GetStatus, &weftv1.GetStatusRequest{})

	bad := f.system.Restore(t.Context())
	_ = bad.Send(&weftv1.RestoreRequest{Chunk: []byte("this is no backup")})
	if _, err := bad.CloseAndReceive(); err == nil || detailOf(err) == nil {
		t.Errorf("rubbish was restored, or refused without a detail: %v", err)
	}
	up := f.system.Restore(t.Context())
	for len(backup) > 0 {
		n := min(len(backup), 100)
		if err := up.Send(&weftv1.RestoreRequest{Chunk: backup[:n]}); err != nil {
			t.Fatal(err)
		}
		backup = backup[n:]
	}
	done, err := up.CloseAndReceive()
	if err != nil {
		t.Fatal(err)
	}
	if done.Msg.StoreId == before.StoreId || done.Msg.Revision <= before.Revision || done.Msg.Objects == 0 {
		t.Errorf("restored: %v", done.Msg)
	}
	refused(t, f.tenants.GetTenant, &weftv1.GetTenantRequest{Name: "later"}, notFound, "name")
	wantRefusal(t, h2.end(), unknownWho, "certificate")
	h1.holds("moved", "")
	h1.holds("kept", h1.uid)
	b := ok(t, h1.agent.Bind, &planv1.BindRequest{Tenant: "acme", Port: "moved"})
	if b.Epoch <= epoch {
		t.Errorf("epoch %d after the restore, %d before it", b.Epoch, epoch)
	}
}

// TestExternalVTEP: an external VTEP takes part, is in the plan, and cannot go while a network names it.
func TestExternalVTEP(t *testing.T) {
	f := server(t)
	ok(t, f.tenants.CreateTenant, &weftv1.CreateTenantRequest{Name: "ext"})
	ok(t, f.networks.CreateNetwork, &weftv1.CreateNetworkRequest{Tenant: "ext", Name: "blue"})
	ok(t, f.ports.CreatePort, &weftv1.CreatePortRequest{Tenant: "ext", Name: "p", Spec: &weftv1.PortSpec{Network: "blue"}})
	v := ok(t, f.vteps.CreateVTEP, &weftv1.CreateVTEPRequest{Name: "ext1", Spec: &weftv1.VTEPSpec{Address: "192.0.2.99"}})
	h := f.join(t, "ext-h")
	h.open(facts("192.0.2.51", 1500))
	ok(t, h.agent.Bind, &planv1.BindRequest{Tenant: "ext", Port: "p"})
	add := func(mac string) *weftv1.AddNetworkVTEPRequest {
		return &weftv1.AddNetworkVTEPRequest{Tenant: "ext", Network: "blue", Vtep: &weftv1.NetworkVTEP{Vtep: "ext1", Macs: []string{mac}}}
	}
	ok(t, f.networks.AddNetworkVTEP, add("02:00:00:00:00:aa"))
	n := ok(t, f.networks.AddNetworkVTEP, add("02:00:00:00:00:bb"))
	if len(n.Spec.Vteps) != 1 || len(n.Spec.Vteps[0].Macs) != 2 {
		t.Errorf("vteps %v", n.Spec.Vteps)
	}
	eventually(t, "the host's plan has the external VTEP", func() bool {
		n := h.network("ext/blue")
		return n != nil && len(n.External) == 1 && n.External[0].Vtep == v.Meta.Uid && len(n.External[0].Macs) == 2
	})
	refused(t, f.vteps.DeleteVTEP, &weftv1.DeleteVTEPRequest{Name: "ext1"}, conflict, "vtep", "1 network")
	// Break it: drop noHostsVTEP from either call.
	own := ok(t, f.hosts.GetHost, &weftv1.GetHostRequest{Name: "ext-h"}).Status.VtepAddresses[0]
	refused(t, f.vteps.CreateVTEP, &weftv1.CreateVTEPRequest{Name: "own", Spec: &weftv1.VTEPSpec{Address: own}}, taken, "spec.address", "ext-h")
	refused(t, f.vteps.UpdateVTEP, &weftv1.UpdateVTEPRequest{Name: "ext1", Revision: v.Meta.Revision, Spec: &weftv1.VTEPSpec{Address: own}}, taken, "spec.address", "ext-h")
	if s := ok(t, f.vteps.GetVTEP, &weftv1.GetVTEPRequest{Name: "ext1"}).Status; len(s.Networks) != 1 || s.Networks[0] != "ext/blue" {
		t.Errorf("status %v", s)
	}
	ok(t, f.networks.RemoveNetworkVTEP, &weftv1.RemoveNetworkVTEPRequest{Tenant: "ext", Network: "blue", Vtep: "ext1"})
	ok(t, f.vteps.DeleteVTEP, &weftv1.DeleteVTEPRequest{Name: "ext1"})
}

// wantBooks is what TestDrops reported. Break it: swap two columns in booksOut.
func wantBooks(t *testing.T, got []*weftv1.ProgramBooks) {
	t.Helper()
	want := &weftv1.ProgramBooks{Program: "from_port", In: 39, Delivered: 1, Encapsulated: 2, Passed: 4, Dropped: 24, Copies: 9, Answers: 23, Answered: 8}
	if len(got) != 1 || !proto.Equal(got[0], want) {
		t.Errorf("books %v, want %v", got, want)
	}
}

// TestDrops: what hosts report is listed by host, tenant and port; a tenant sees its own.
func TestDrops(t *testing.T) {
	f := server(t)
	ok(t, f.tenants.CreateTenant, &weftv1.CreateTenantRequest{Name: "drops"})
	ok(t, f.networks.CreateNetwork, &weftv1.CreateNetworkRequest{Tenant: "drops", Name: "blue"})
	p := ok(t, f.ports.CreatePort, &weftv1.CreatePortRequest{Tenant: "drops", Name: "p", Spec: &weftv1.PortSpec{Network: "blue"}})
	h := f.join(t, "drops-h")
	h.open(facts("192.0.2.61", 1500))
	ok(t, h.agent.Bind, &planv1.BindRequest{Tenant: "drops", Port: "p"})
	h.report(&planv1.Report{
		Ports:        []*planv1.PortReport{{Uid: p.Meta.Uid, Epoch: 1 << 40, State: planv1.PortState_PORT_STATE_HELD, Message: "why", Drops: []*planv1.Drop{{Reason: "port_held", Packets: 5}}}},
		Drops:        []*planv1.Drop{{Reason: "vtep_not_listed", Packets: 2, Source: "203.0.113.7"}, {Reason: "none", Packets: 0}},
		Conditions:   []*planv1.Condition{{Name: "kernel lane blocked", Message: "a firewall rule drops UDP 4789"}},
		Books:        []*planv1.ProgramBooks{{Program: "from_port", In: 39, Delivered: 1, Encapsulated: 2, Passed: 4, Dropped: 24, Copies: 9, Answers: 23, Answered: 8}},
		Lanes:        []*planv1.LaneCount{{Reason: "checksum", Packets: 4}},
		Programs:     []string{"from_port on veth7, tcx, program 9"},
		Capabilities: []*planv1.Capability{{Name: "XDP redirect target", Interface: "eth1", Present: true, Detail: "basic ndo-xmit"}},
	})
	eventually(t, "the drops are listed", func() bool {
		return len(ok(t, f.system.ListDrops, &weftv1.ListDropsRequest{Host: "drops-h"}).Drops) == 2
	})
	wantBooks(t, ok(t, f.system.ListDrops, &weftv1.ListDropsRequest{Host: "drops-h"}).Books[0].GetBooks())
	shown := ok(t, f.hosts.GetHost, &weftv1.GetHostRequest{Name: "drops-h"}).Status
	wantBooks(t, shown.Books)
	if len(shown.Programs) != 1 || len(shown.Lanes) != 1 || shown.Lanes[0].Reason != "checksum" || shown.Lanes[0].Packets != 4 {
		t.Errorf("programs %q, lanes %v", shown.Programs, shown.Lanes)
	}
	can := &weftv1.Capability{Name: "XDP redirect target", Interface: "eth1", Present: true, Detail: "basic ndo-xmit"}
	if len(shown.Capabilities) != 1 || !proto.Equal(shown.Capabilities[0], can) {
		t.Errorf("capabilities %v, want %v", shown.Capabilities, can)
	}
	if b := ok(t, f.system.ListDrops, &weftv1.ListDropsRequest{Tenant: "drops"}).Books; len(b) != 0 {
		t.Errorf("a tenant's drops come with the host's books: %v", b)
	}
	own := ok(t, f.system.ListDrops, &weftv1.ListDropsRequest{Tenant: "drops"}).Drops
	if len(own) != 1 || own[0].Port != "p" || own[0].Packets != 5 || own[0].Host != "drops-h" {
		t.Errorf("drops %v", own)
	}
	s := ok(t, f.hosts.GetHost, &weftv1.GetHostRequest{Name: "drops-h"}).Status
	if s.State != weftv1.HostState_HOST_STATE_DEGRADED || len(s.Conditions) != 1 || s.Ports != 1 {
		t.Errorf("host %v", s)
	}
	if ps := ok(t, f.ports.GetPort, &weftv1.GetPortRequest{Tenant: "drops", Name: "p"}).Status; ps.State != weftv1.PortState_PORT_STATE_HELD || ps.Message != "why" {
		t.Errorf("port %v", ps)
	}
	refused(t, f.system.ListDrops, &weftv1.ListDropsRequest{Host: "nohost"}, notFound, "host")
}
