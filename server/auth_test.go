package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/trust"
)

// TestJoinTokens: wrong, used, expired, foreign and other hosts' tokens. Break it: drop CheckJoin from Join, or tokensKept from housekeep.
func TestJoinTokens(t *testing.T) {
	f := ownServer(t, Config{Limits: Limits{Housekeeping: 5 * time.Millisecond}})
	anyone := f.bearer(t, "")
	csr := func() []byte {
		j, err := trust.PrepareJoin(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return j.CSR
	}
	join := func(token, host string, csr []byte) *planv1.JoinRequest {
		return &planv1.JoinRequest{Token: token, Host: host, Csr: csr}
	}
	token := ok(t, f.hosts.CreateHostToken, &weftv1.CreateHostTokenRequest{Host: "h1"}).Token
	if h := ok(t, f.hosts.GetHost, &weftv1.GetHostRequest{Name: "h1"}); h.Status.State != weftv1.HostState_HOST_STATE_EXPECTED {
		t.Errorf("state %v", h.Status.State)
	}
	mine := csr()
	parsed, err := trust.ParseToken(trust.JoinToken, token)
	if err != nil {
		t.Fatal(err)
	}
	wrong := parsed
	wrong.Secret = strings.Repeat("00", 32)
	refused(t, anyone.agent.Join, join(wrong.String(), "h1", mine), unknownWho, "token")
	foreign := parsed
	foreign.CA[0] ^= 1
	refused(t, anyone.agent.Join, join(foreign.String(), "h1", mine), unknownWho, "token", "another deployment")
	refused(t, anyone.agent.Join, join("rubbish", "h1", mine), unknownWho, "token")
	refused(t, anyone.agent.Join, join(token, "h2", mine), unknownWho, "token", `"h1"`, `"h2"`)
	refused(t, anyone.agent.Join, join(token, "h1", []byte("rubbish")), invalid, "csr")

	first := ok(t, anyone.agent.Join, join(token, "h1", mine))
	again := ok(t, anyone.agent.Join, join(token, "h1", mine))
	if first.HostUid != again.HostUid {
		t.Errorf("the retry got host %s, the first %s", again.HostUid, first.HostUid)
	}
	refused(t, anyone.agent.Join, join(token, "h1", csr()), unknownWho, "token", "used")

	// A second token for the same name is for the same host: a machine made anew.
	second := ok(t, f.hosts.CreateHostToken, &weftv1.CreateHostTokenRequest{Host: "h1"}).Token
	if res := ok(t, anyone.agent.Join, join(second, "h1", csr())); res.HostUid != first.HostUid {
		t.Errorf("joined as %s, was %s", res.HostUid, first.HostUid)
	}
	old := ok(t, f.hosts.CreateHostToken, &weftv1.CreateHostTokenRequest{Host: "h1", Lifetime: durationpb.New(time.Minute)}).Token
	f.clock.advance(2 * time.Minute)
	for range 20 { // it still says so when the house has been kept
		refused(t, anyone.agent.Join, join(old, "h1", csr()), unknownWho, "token", "expired")
		time.Sleep(5 * time.Millisecond)
	}
	removed := ok(t, f.hosts.CreateHostToken, &weftv1.CreateHostTokenRequest{Host: "h1"}).Token
	ok(t, f.hosts.RemoveHost, &weftv1.RemoveHostRequest{Name: "h1"})
	refused(t, anyone.agent.Join, join(removed, "h1", csr()), unknownWho, "token")
}

// TestScopes: what each credential may see and do. Break it: let listed return "" for a tenant's token.
func TestScopes(t *testing.T) {
	f := server(t)
	for _, tenant := range []string{"mine", "yours"} {
		ok(t, f.tenants.CreateTenant, &weftv1.CreateTenantRequest{Name: tenant})
		ok(t, f.networks.CreateNetwork, &weftv1.CreateNetworkRequest{Tenant: tenant, Name: "blue"})
		ok(t, f.ports.CreatePort, &weftv1.CreatePortRequest{Tenant: tenant, Name: "p", Spec: &weftv1.PortSpec{Network: "blue"}})
	}
	token := func(name string, scope weftv1.TokenScope, tenant string) *clients {
		return f.bearer(t, ok(t, f.system.CreateAPIToken, &weftv1.CreateAPITokenRequest{Name: name, Scope: scope, Tenant: tenant}).Secret)
	}
	admin := token("scopes-admin", weftv1.TokenScope_TOKEN_SCOPE_ADMIN, "")
	tenant := token("scopes-tenant", weftv1.TokenScope_TOKEN_SCOPE_TENANT, "mine")
	reader := token("scopes-read", weftv1.TokenScope_TOKEN_SCOPE_READ_ONLY, "")
	nobody := f.bearer(t, "")

	t.Run("tenant", func(t *testing.T) {
		ns := ok(t, tenant.networks.ListNetworks, &weftv1.ListNetworksRequest{}).Networks
		if len(ns) != 1 || ns[0].Tenant != "mine" {
			t.Errorf("lists %v", ns)
		}
		ps := ok(t, tenant.ports.ListPorts, &weftv1.ListPortsRequest{}).Ports
		if len(ps) != 1 || ps[0].Tenant != "mine" {
			t.Errorf("lists %v", ps)
		}
		ok(t, tenant.ports.CreatePort, &weftv1.CreatePortRequest{Tenant: "mine", Name: "q", Spec: &weftv1.PortSpec{Network: "blue"}})
		ok(t, tenant.system.ListDrops, &weftv1.ListDropsRequest{})
		refused(t, tenant.networks.ListNetworks, &weftv1.ListNetworksRequest{Tenant: "yours"}, denied, "tenant", "yours")
		refused(t, tenant.ports.GetPort, &weftv1.GetPortRequest{Tenant: "yours", Name: "p"}, denied, "tenant")
		refused(t, tenant.ports.DeletePort, &weftv1.DeletePortRequest{Tenant: "yours", Name: "p"}, denied, "tenant")
		refused(t, tenant.tenants.CreateTenant, &weftv1.CreateTenantRequest{Name: "more"}, denied, "")
		refused(t, tenant.hosts.CreateHostToken, &weftv1.CreateHostTokenRequest{Host: "h"}, denied, "")
		refused(t, tenant.system.CreateAPIToken, &weftv1.CreateAPITokenRequest{Name: "x", Scope: weftv1.TokenScope_TOKEN_SCOPE_TENANT, Tenant: "mine"}, denied, "")
		res, err := tenant.system.Backup(t.Context(), connect.NewRequest(&weftv1.BackupRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Close()
		if res.Receive() {
			t.Error("a tenant's token got a backup")
		}
		wantRefusal(t, res.Err(), denied, "")
	})
	t.Run("read-only", func(t *testing.T) {
		if n := len(ok(t, reader.networks.ListNetworks, &weftv1.ListNetworksRequest{}).Networks); n < 2 {
			t.Errorf("lists %d networks", n)
		}
		refused(t, reader.ports.DeletePort, &weftv1.DeletePortRequest{Tenant: "mine", Name: "p"}, denied, "")
	})
	t.Run("admin", func(t *testing.T) {
		ok(t, admin.hosts.ListHosts, &weftv1.ListHostsRequest{})
		refused(t, admin.agent.Bind, &planv1.BindRequest{Tenant: "mine", Port: "p"}, denied, "")
	})
	t.Run("nobody", func(t *testing.T) {
		refused(t, nobody.networks.ListNetworks, &weftv1.ListNetworksRequest{}, unknownWho, "token")
		refused(t, nobody.agent.Renew, &planv1.RenewRequest{}, unknownWho, "token")
		refused(t, f.bearer(t, "weft-api.00").networks.ListNetworks, &weftv1.ListNetworksRequest{}, unknownWho, "token")
	})
	t.Run("ended", func(t *testing.T) {
		ok(t, f.system.DeleteAPIToken, &weftv1.DeleteAPITokenRequest{Name: "scopes-tenant"})
		refused(t, tenant.networks.ListNetworks, &weftv1.ListNetworksRequest{}, unknownWho, "token")
		for _, tok := range ok(t, f.system.ListAPITokens, &weftv1.ListAPITokensRequest{}).Tokens {
			if tok.Name == "scopes-tenant" {
				t.Error("the deleted token is listed")
			}
		}
	})
}

// TestTokenExpires uses the server's clock. Break it: drop CheckAPI from bearer.
func TestTokenExpires(t *testing.T) {
	f := ownServer(t, Config{})
	c := f.bearer(t, ok(t, f.system.CreateAPIToken, &weftv1.CreateAPITokenRequest{
		Name: "short", Scope: weftv1.TokenScope_TOKEN_SCOPE_ADMIN, Lifetime: durationpb.New(time.Minute)}).Secret)
	ok(t, c.tenants.ListTenants, &weftv1.ListTenantsRequest{})
	f.clock.advance(time.Minute)
	refused(t, c.tenants.ListTenants, &weftv1.ListTenantsRequest{}, unknownWho, "token", "expired")
}

// TestJSON: the API is plain HTTP and JSON for whoever has a token, errors with their detail included.
func TestJSON(t *testing.T) {
	f := server(t)
	secret := ok(t, f.system.CreateAPIToken, &weftv1.CreateAPITokenRequest{Name: "json", Scope: weftv1.TokenScope_TOKEN_SCOPE_ADMIN}).Secret
	c := f.bearer(t, secret)
	post := func(method, body string) (int, string) {
		res, err := c.http.Post(c.base+"/weft.v1."+method, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b)
	}
	if code, body := post("TenantService/CreateTenant", `{"name":"json"}`); code != 200 || !strings.Contains(body, `"uid"`) {
		t.Errorf("%d %s", code, body)
	}
	if code, body := post("TenantService/CreateTenant", `{"name":"JSON"}`); code != 400 || !strings.Contains(body, `"field":"name"`) {
		t.Errorf("%d %s", code, body)
	}
}

// TestNoPlaintext: whoever does not speak TLS gets nothing. Break it: serve the TCP listener with Serve.
func TestNoPlaintext(t *testing.T) {
	f := server(t)
	res, err := http.Post("http://"+f.srv.Addr().String()+"/weft.v1.SystemService/GetVersion", "application/json", strings.NewReader("{}"))
	http.DefaultClient.CloseIdleConnections()
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	// net/http's TLS server has one answer for plaintext, before any handler.
	if body, _ := io.ReadAll(res.Body); res.StatusCode != 400 || !strings.Contains(string(body), "HTTP request to an HTTPS server") {
		t.Fatalf("answered in plaintext: %d %s", res.StatusCode, body)
	}
}

// TestSocketIsForRoot: the file is 0600, and who gets past it is asked for its uid. Break it: drop the check of c.uid.
func TestSocketIsForRoot(t *testing.T) {
	f := ownServer(t, Config{})
	info, err := os.Stat(f.cfg.Socket)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	for _, path := range []string{f.dir, f.cfg.Socket} {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	conn := dialAs(t, 65534, f.cfg.Socket)
	c := newClients("http://local", &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	}, "")
	defer c.close()
	refused(t, c.tenants.ListTenants, &weftv1.ListTenantsRequest{}, denied, "", "65534")
}

// dialAs connects to a unix socket from a thread of another uid; the thread ends with its goroutine.
func dialAs(t *testing.T, uid int, path string) net.Conn {
	t.Helper()
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			done <- result{err: err}
			return
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
			done <- result{err: errno}
			return
		}
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
			done <- result{err: err}
			return
		}
		file := os.NewFile(uintptr(fd), path)
		conn, err := net.FileConn(file)
		file.Close()
		done <- result{conn, err}
	}()
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r.conn
}

// TestLimits: a stranger's request is small or refused, everybody's is bounded. Break it: drop WithReadMaxBytes.
func TestLimits(t *testing.T) {
	f := server(t)
	nobody := f.bearer(t, "")
	_, err := nobody.agent.Join(t.Context(), connect.NewRequest(&planv1.JoinRequest{Csr: bytes.Repeat([]byte{1}, strangerOctets)}))
	if err == nil || !strings.Contains(err.Error(), "MaxBytesReader limit") {
		t.Errorf("a stranger's large request: %v", err)
	}
	_, err = f.tenants.CreateTenant(t.Context(), connect.NewRequest(&weftv1.CreateTenantRequest{
		Name: "large", Spec: &weftv1.TenantSpec{Description: strings.Repeat("x", 17<<20)}}))
	if connect.CodeOf(err) != exhausted {
		t.Errorf("a large request: %v", err)
	}
}

// TestRenew: a host gets a new certificate with its old one, and an expired one opens nothing.
func TestRenew(t *testing.T) {
	f := ownServer(t, Config{})
	h := f.join(t, "renew-h")
	j, err := trust.PrepareJoin(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f.clock.advance(13 * time.Hour)
	res := ok(t, h.agent.Renew, &planv1.RenewRequest{Csr: j.CSR})
	fresh, err := j.Accept(res.Certificates, f.pin(t), f.clock.now())
	if err != nil {
		t.Fatal(err)
	}
	if string(fresh.UID) != h.uid {
		t.Errorf("renewed as %s, was %s", fresh.UID, h.uid)
	}
	f.clock.advance(14 * time.Hour) // past the first one's day and hour of skew
	// The connection is still there, and is worth nothing any more.
	refused(t, h.agent.Renew, &planv1.RenewRequest{Csr: j.CSR}, unknownWho, "certificate", "expired")
	ok(t, f.tlsClients(t, trust.Pin{}, "", fresh).agent.Renew, &planv1.RenewRequest{Csr: j.CSR})
}

// TestForeignCertificate: a certificate of another CA ends in the handshake.
func TestForeignCertificate(t *testing.T) {
	f, g := server(t), ownServer(t, Config{})
	h := g.join(t, "foreign-h")
	cfg := h.id.ClientTLS(f.srv.Addr().String(), time.Now)
	cfg.VerifyConnection = nil
	conn, err := tls.Dial("tcp", f.srv.Addr().String(), cfg)
	if err == nil {
		// In TLS 1.3 the client hears of it with the first read.
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		_, err = conn.Read(make([]byte, 1))
		conn.Close()
	}
	var alert tls.AlertError
	if !errors.As(err, &alert) && (err == nil || !strings.Contains(err.Error(), "tls:")) {
		t.Errorf("the foreign certificate was not refused: %v", err)
	}
}
