package server

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"connectrpc.com/connect"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
)

// secondServer runs beside f on the same store, as with an external cluster, with the same CA.
func secondServer(t *testing.T, f *fixture) *fixture {
	t.Helper()
	g := startBeside(t, f, Config{})
	t.Cleanup(func() {
		if err := g.stop(); err != nil {
			t.Errorf("the second server ended with: %v", err)
		}
	})
	return g
}

// startBeside starts a server beside f, which the test stops.
func startBeside(t *testing.T, f *fixture, cfg Config) *fixture {
	t.Helper()
	dir, err := os.MkdirTemp("", "wefttest-server-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	copyCAOf(t, f, dir)
	cfg.EtcdEndpoints = []string{"unix://" + filepath.Join(f.cfg.Dir, "etcd", "sockets", "client")}
	g, err := start(cfg, dir)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// copyCAOf gives a server in dir the CA of f.
func copyCAOf(t *testing.T, f *fixture, dir string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(dir, "d", "ca"), os.DirFS(filepath.Join(f.cfg.Dir, "ca"))); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "d", "ca"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "d", "ca", "ca.pem"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestManyServers: what one writes the other answers, both allocate at once without meeting, and a host that one removes
// loses its stream to the other. Break it: let outrun return false.
func TestManyServers(t *testing.T) {
	f := ownServer(t, Config{})
	g := secondServer(t, f)
	ok(t, f.tenants.CreateTenant, &weftv1.CreateTenantRequest{Name: "acme"})
	for i := range 10 {
		name := fmt.Sprintf("n%d", i)
		ok(t, f.networks.CreateNetwork, &weftv1.CreateNetworkRequest{Tenant: "acme", Name: name})
		ok(t, g.ports.CreatePort, &weftv1.CreatePortRequest{Tenant: "acme", Name: "of-" + name, Spec: &weftv1.PortSpec{Network: name}})
		ok(t, f.ports.DeletePort, &weftv1.DeletePortRequest{Tenant: "acme", Name: "of-" + name})
	}
	ok(t, f.networks.CreateNetwork, &weftv1.CreateNetworkRequest{Tenant: "acme", Name: "blue", Spec: &weftv1.NetworkSpec{Subnets: []string{"10.1.0.0/24"}}})

	var wg sync.WaitGroup
	const each = 12
	errs := make(chan error, 4*each)
	for s, server := range []*fixture{f, g} {
		for i := range each {
			wg.Go(func() {
				_, err := server.ports.CreatePort(context.Background(), connect.NewRequest(&weftv1.CreatePortRequest{
					Tenant: "acme", Name: fmt.Sprintf("p%d-%d", s, i), Spec: &weftv1.PortSpec{Network: "blue"}}))
				errs <- err
			})
			wg.Go(func() {
				_, err := server.networks.CreateNetwork(context.Background(), connect.NewRequest(&weftv1.CreateNetworkRequest{
					Tenant: "acme", Name: fmt.Sprintf("m%d-%d", s, i)}))
				errs <- err
			})
		}
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}

	h := f.join(t, "h1")
	h.clients = g.tlsClients(t, g.pin(t), "", h.id)
	h.open(facts("192.0.2.1", 1500))
	ok(t, h.agent.Bind, &planv1.BindRequest{Tenant: "acme", Port: "p0-0"})
	h.holds("p0-0", h.uid)
	refused(t, f.hosts.RemoveHost, &weftv1.RemoveHostRequest{Name: "h1"}, conflict, "host", "1 bound ports")
	ok(t, f.hosts.RemoveHost, &weftv1.RemoveHostRequest{Name: "h1", Force: true})
	wantRefusal(t, h.end(), unknownWho, "certificate")
	eventually(t, "the second server knows that the port is free", func() bool {
		return ok(t, g.ports.GetPort, &weftv1.GetPortRequest{Tenant: "acme", Name: "p0-0"}).Status.State == weftv1.PortState_PORT_STATE_UNBOUND
	})
}

// TestBindAfterUnbindElsewhere: a server that has not heard yet what another one wrote does not take the old for the new.
// Break it: let swap answer with what the world says when nothing changes.
func TestBindAfterUnbindElsewhere(t *testing.T) {
	f := ownServer(t, Config{})
	g := secondServer(t, f)
	ok(t, f.tenants.CreateTenant, &weftv1.CreateTenantRequest{Name: "acme"})
	ok(t, f.networks.CreateNetwork, &weftv1.CreateNetworkRequest{Tenant: "acme", Name: "blue"})
	ok(t, f.ports.CreatePort, &weftv1.CreatePortRequest{Tenant: "acme", Name: "p", Spec: &weftv1.PortSpec{Network: "blue"}})
	h := f.join(t, "h1")
	epoch := ok(t, h.agent.Bind, &planv1.BindRequest{Tenant: "acme", Port: "p"}).Epoch
	servers := []*clients{h.clients, g.tlsClients(t, g.pin(t), "", h.id)}
	for i := range 40 {
		gone := ok(t, servers[i%2].agent.Unbind, &planv1.UnbindRequest{Tenant: "acme", Port: "p"}).Epoch
		if gone <= epoch {
			t.Fatalf("round %d: unbound at epoch %d what was bound at %d", i, gone, epoch)
		}
		epoch = ok(t, servers[(i+1)%2].agent.Bind, &planv1.BindRequest{Tenant: "acme", Port: "p"}).Epoch
		if epoch <= gone {
			t.Fatalf("round %d: bound at epoch %d what was unbound at %d", i, epoch, gone)
		}
	}
}
