package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
)

// TestReadsAreFresh: what one server has acknowledged, the other one's next answer has, whether it lists, gets or judges a token. Break it:
// let fresh return at once.
func TestReadsAreFresh(t *testing.T) {
	f := ownServer(t, Config{})
	g := secondServer(t, f)
	for i := range 60 {
		name := fmt.Sprintf("t%d", i)
		made := ok(t, f.tenants.CreateTenant, &weftv1.CreateTenantRequest{Name: name})
		if n := len(ok(t, g.tenants.ListTenants, &weftv1.ListTenantsRequest{}).Tenants); n != 1 {
			t.Fatalf("round %d: the other server lists %d tenants", i, n)
		}
		changed := ok(t, g.tenants.UpdateTenant, &weftv1.UpdateTenantRequest{Name: name, Revision: made.Meta.Revision,
			Spec: &weftv1.TenantSpec{Description: "x"}})
		if got := ok(t, f.tenants.GetTenant, &weftv1.GetTenantRequest{Name: name}); got.Meta.Revision != changed.Meta.Revision {
			t.Fatalf("round %d: revision %d after %d was acknowledged", i, got.Meta.Revision, changed.Meta.Revision)
		}
		ok(t, f.tenants.DeleteTenant, &weftv1.DeleteTenantRequest{Name: name})
		if n := len(ok(t, g.tenants.ListTenants, &weftv1.ListTenantsRequest{}).Tenants); n != 0 {
			t.Fatalf("round %d: the other server lists %d tenants", i, n)
		}
	}
	token := ok(t, f.system.CreateAPIToken, &weftv1.CreateAPITokenRequest{Name: "ops", Scope: weftv1.TokenScope_TOKEN_SCOPE_ADMIN})
	c := g.bearer(t, token.Secret)
	ok(t, c.tenants.ListTenants, &weftv1.ListTenantsRequest{})
	ok(t, f.system.DeleteAPIToken, &weftv1.DeleteAPITokenRequest{Name: "ops"})
	refused(t, c.tenants.ListTenants, &weftv1.ListTenantsRequest{}, unknownWho, "token")
}

// TestQuestionsAreShared: who comes while a question is under way is not answered by it, and all who wait share the next. Break it: let ask
// join the question under way, or ask one each.
func TestQuestionsAreShared(t *testing.T) {
	asked, answer := make(chan struct{}, 100), make(chan model.Revision)
	f := &fresher{head: func(context.Context) (model.Revision, error) {
		asked <- struct{}{}
		return <-answer, nil
	}}
	got := make(chan model.Revision, 2)
	ask := func() {
		rev, err := f.ask(t.Context(), time.Minute)
		if err != nil {
			t.Error(err)
		}
		got <- rev
	}
	go ask()
	<-asked
	go ask()
	eventually(t, "the second one waits", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.next != nil
	})
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 { // they come, and do not stay for the answer
		_, _ = f.ask(gone, time.Minute)
	}
	answer <- 1
	<-asked
	answer <- 2
	if first, second := <-got, <-got; first+second != 3 {
		t.Fatalf("they are told %d and %d", first, second)
	}
	eventually(t, "nobody asks any more", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return !f.asking
	})
	if n := len(asked); n > 0 {
		t.Fatalf("%d more questions were asked", n)
	}
}

// TestRepeatedCreate: a create that is sent again, to another server, answers with what the first one made, and makes nothing when that is
// gone. Break it: let metaOf return newMeta.
func TestRepeatedCreate(t *testing.T) {
	f := ownServer(t, Config{})
	g := secondServer(t, f)
	ok(t, f.tenants.CreateTenant, &weftv1.CreateTenantRequest{Name: "acme"})
	name := strings.Repeat("0b", 16)
	network := func(c *clients) (*weftv1.Network, error) {
		req := connect.NewRequest(&weftv1.CreateNetworkRequest{Tenant: "acme", Name: "blue"})
		req.Header().Set(requestHeader, name)
		res, err := c.networks.CreateNetwork(t.Context(), req)
		if err != nil {
			return nil, err
		}
		return res.Msg, nil
	}
	port := func(c *clients, request string) (*weftv1.Port, error) {
		req := connect.NewRequest(&weftv1.CreatePortRequest{Tenant: "acme", Name: "p", Spec: &weftv1.PortSpec{Network: "blue"}})
		req.Header().Set(requestHeader, request)
		res, err := c.ports.CreatePort(t.Context(), req)
		if err != nil {
			return nil, err
		}
		return res.Msg, nil
	}
	n1, err1 := network(f.clients)
	n2, err2 := network(g.clients)
	if err := errors.Join(err1, err2); err != nil || n1.Meta.Uid != n2.Meta.Uid || n1.Meta.Revision != n2.Meta.Revision || n1.Status.Vni != n2.Status.Vni {
		t.Fatalf("%v\n%v\n%v", err, n1, n2)
	}
	p1, err1 := port(f.clients, name)
	p2, err2 := port(g.clients, name)
	if err := errors.Join(err1, err2); err != nil || p1.Meta.Uid != p2.Meta.Uid || p1.Status.Macs[0] != p2.Status.Macs[0] {
		t.Fatalf("%v\n%v\n%v", err, p1, p2)
	}
	_, err := port(g.clients, strings.Repeat("0c", 16))
	wantRefusal(t, err, connect.CodeAlreadyExists, "name")
	ok(t, f.ports.DeletePort, &weftv1.DeletePortRequest{Tenant: "acme", Name: "p"})
	_, err = port(g.clients, name)
	wantRefusal(t, err, conflict, "name", "deleted since")
	_, err = port(g.clients, "zz")
	wantRefusal(t, err, invalid, requestHeader)
}

// TestForeignCA: a server without the deployment's CA, or with another one, does not start. Break it: leave the comparison out of openCA.
func TestForeignCA(t *testing.T) {
	f := ownServer(t, Config{})
	store := []string{"unix://" + filepath.Join(f.cfg.Dir, "etcd", "sockets", "client")}
	dir := t.TempDir()
	if _, err := start(Config{EtcdEndpoints: store}, dir); err == nil || !strings.Contains(err.Error(), "there is none in") {
		t.Fatalf("started without a CA: %v", err)
	}
	if entries, _ := os.ReadDir(filepath.Join(dir, "d", "ca")); len(entries) > 0 {
		t.Fatalf("a CA was made: %v", entries)
	}
	other := ownServer(t, Config{})
	if err := os.CopyFS(filepath.Join(dir, "d", "ca"), os.DirFS(filepath.Join(other.cfg.Dir, "ca"))); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "d", "ca", "ca.pem"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := start(Config{EtcdEndpoints: store}, dir); err == nil || !strings.Contains(err.Error(), "that of this deployment is") {
		t.Fatalf("started with a foreign CA: %v", err)
	}
	g, err := start(Config{EtcdEndpoints: store, ReplaceCA: true}, dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.stop(); err != nil {
		t.Error(err)
	}
}
