package trust_test

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	peerv1 "github.com/weftnet/weft/api/gen/peer/v1"
	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/trust"
)

// procedures of every generated service that a server answers.
func procedures(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, file := range []protoreflect.FileDescriptor{weftv1.File_weft_v1_services_proto, planv1.File_plan_v1_plan_proto, peerv1.File_peer_v1_peer_proto} {
		if _, err := protoregistry.GlobalFiles.FindFileByPath(file.Path()); err != nil {
			t.Fatal(err)
		}
	}
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		if p := file.Package(); p != "weft.v1" && p != "plan.v1" && p != "peer.v1" {
			return true
		}
		for i := range file.Services().Len() {
			s := file.Services().Get(i)
			for j := range s.Methods().Len() {
				all = append(all, "/"+string(s.FullName())+"/"+string(s.Methods().Get(j).Name()))
			}
		}
		return true
	})
	if len(all) < 45 {
		t.Fatalf("only %d procedures found", len(all))
	}
	return all
}

func TestEveryProcedureIsInTheTable(t *testing.T) {
	for _, p := range procedures(t) {
		if !trust.Known(p) {
			t.Errorf("%s is not in the table: say who may call it", p)
		}
	}
}

var (
	anonymous = trust.Identity{}
	root      = trust.Identity{Kind: trust.Root}
	host      = trust.Identity{Kind: trust.Host, Host: "u1", Name: "h1"}
	admin     = trust.Identity{Kind: trust.Bearer, Name: "ops", Scope: model.ScopeAdmin}
	acme      = trust.Identity{Kind: trust.Bearer, Name: "ci", Scope: model.ScopeTenant, Tenant: "acme"}
	reader    = trust.Identity{Kind: trust.Bearer, Name: "mon", Scope: model.ScopeReadOnly}
	acmeRead  = trust.Identity{Kind: trust.Bearer, Name: "see", Scope: model.ScopeReadOnly, Tenant: "acme"}
	broken    = trust.Identity{Kind: trust.Bearer, Name: "broken", Scope: model.ScopeTenant}
	unscoped  = trust.Identity{Kind: trust.Bearer, Name: "none"}
)

func TestAuthorize(t *testing.T) {
	const (
		move   = "/weft.v1.PortService/MovePort"
		list   = "/weft.v1.PortService/ListPorts"
		vteps  = "/weft.v1.VTEPService/ListVTEPs"
		hosts  = "/weft.v1.HostService/ListHosts"
		backup = "/weft.v1.SystemService/Backup"
		tokens = "/weft.v1.SystemService/CreateAPIToken"
		tenant = "/weft.v1.TenantService/GetTenant"
		drops  = "/weft.v1.SystemService/ListDrops"
		joins  = "/plan.v1.AgentService/Join"
		stream = "/plan.v1.AgentService/Stream"
	)
	for _, c := range []struct {
		procedure, tenant string
		may               []trust.Identity
	}{
		{move, "acme", []trust.Identity{root, admin, acme}},
		{move, "globex", []trust.Identity{root, admin}},
		{move, "", []trust.Identity{root, admin}},
		{list, "acme", []trust.Identity{root, admin, acme, reader, acmeRead}},
		{list, "globex", []trust.Identity{root, admin, reader}},
		{list, "", []trust.Identity{root, admin, reader}},
		{tenant, "acme", []trust.Identity{root, admin, acme, reader, acmeRead}},
		{tenant, "globex", []trust.Identity{root, admin, reader}},
		{drops, "acme", []trust.Identity{root, admin, acme, reader, acmeRead}},
		{drops, "", []trust.Identity{root, admin, reader}},
		{vteps, "", []trust.Identity{root, admin, acme, reader, acmeRead, broken}},
		{hosts, "", []trust.Identity{root, admin, reader}},
		{backup, "", []trust.Identity{root, admin}},
		{tokens, "acme", []trust.Identity{root, admin}},
		{joins, "", []trust.Identity{root, anonymous}},
		{stream, "", []trust.Identity{root, host}},
		{"/weft.v1.PortService/Nothing", "acme", nil},
		{"", "", nil},
	} {
		for _, id := range []trust.Identity{anonymous, root, host, admin, acme, reader, acmeRead, broken, unscoped} {
			want := false
			for _, m := range c.may {
				want = want || m == id
			}
			err := trust.Authorize(id, c.procedure, c.tenant)
			if (err == nil) != want {
				t.Errorf("%s, scope %q, on %q of tenant %q: %v", id, id.Scope, c.procedure, c.tenant, err)
			}
			var refusal *model.Error
			if err != nil && (!errors.As(err, &refusal) || refusal.Fix == "") {
				t.Errorf("%v is no refusal with a fix", err)
			}
		}
	}
}

// Whatever is added later: nobody but the admin and root changes what no tenant owns, and readers change nothing.
func TestWhoCanNever(t *testing.T) {
	for _, p := range procedures(t) {
		name := p[strings.LastIndexByte(p, '/')+1:]
		reads := strings.HasPrefix(name, "Get") || strings.HasPrefix(name, "List") || strings.HasPrefix(name, "Wait") || strings.HasPrefix(name, "Watch")
		if !reads && trust.Authorize(reader, p, "acme") == nil {
			t.Errorf("a read-only token may call %s", p)
		}
		if !reads && trust.Authorize(acmeRead, p, "acme") == nil {
			t.Errorf("a tenant's read-only token may call %s", p)
		}
		owned := strings.Contains(p, ".NetworkService/") || strings.Contains(p, ".PortService/")
		if !reads && !owned && trust.Authorize(acme, p, "acme") == nil {
			t.Errorf("a tenant's token may call %s", p)
		}
		if owned && trust.Authorize(acme, p, "globex") == nil {
			t.Errorf("a tenant's token may call %s on another tenant", p)
		}
		if !strings.HasPrefix(p, "/plan.v1.") && (trust.Authorize(host, p, "acme") == nil || trust.Authorize(anonymous, p, "acme") == nil) {
			t.Errorf("a host or nobody may call %s", p)
		}
	}
}

func TestTenantOf(t *testing.T) {
	for _, c := range []struct {
		procedure string
		request   any
		want      string
	}{
		{"/weft.v1.PortService/GetPort", &weftv1.GetPortRequest{Tenant: "acme", Name: "web"}, "acme"},
		{"/weft.v1.TenantService/GetTenant", &weftv1.GetTenantRequest{Name: "acme"}, "acme"},
		{"/weft.v1.TenantService/ListTenants", &weftv1.ListTenantsRequest{}, ""},
		{"/weft.v1.HostService/GetHost", &weftv1.GetHostRequest{Name: "h1"}, ""},
	} {
		if got := trust.TenantOf(c.procedure, c.request); got != c.want {
			t.Errorf("%s: %q, want %q", c.procedure, got, c.want)
		}
	}
}
