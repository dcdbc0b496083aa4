package trust

import (
	"strings"

	"github.com/weftnet/weft/model"
)

// IdentityKind is how a caller proved itself.
type IdentityKind int

// The kinds.
const (
	// Anonymous proved nothing.
	Anonymous IdentityKind = iota
	// Root came through the server's own socket, which only root may open.
	Root
	// Bearer showed an API token.
	Bearer
	// Host showed a host's certificate.
	Host
	// Server showed a certificate of another server of this deployment.
	Server
)

// Identity is a caller.
type Identity struct {
	Kind IdentityKind
	// Name of the API token or host, for the audit trail and for messages.
	Name string
	// Host is the uid of the host whose certificate was shown.
	Host model.UID
	// Scope and Tenant of the API token.
	Scope  model.TokenScope
	Tenant string
}

// String is who it was, for the audit trail: "root", "token/ci", "host/h1".
func (id Identity) String() string {
	switch id.Kind {
	case Root:
		return "root"
	case Bearer:
		return "token/" + id.Name
	case Host:
		return "host/" + id.Name
	case Server:
		return "server/" + id.Name
	}
	return "anonymous"
}

// access is a class of procedures: who may call them.
type access int

const (
	// none is no class: the procedure is not in the table.
	none access = iota
	// adminOnly: admin tokens.
	adminOnly
	// readAll: admin tokens, and read-only tokens that are not bound to a tenant.
	readAll
	// tenantWrite: admin tokens, and tenant tokens in their own tenant.
	tenantWrite
	// tenantRead: tenantWrite's callers, and read-only tokens of everything or of that tenant.
	tenantRead
	// readShared: every token.
	readShared
	// hostOnly: hosts, for themselves.
	hostOnly
	// serverOnly: the deployment's other servers.
	serverOnly
	// joining: whoever has a join token, which the handler checks.
	joining
)

// table is the whole of who may do what. A procedure that is not in it is denied to everybody.
var table = map[string]access{
	"/weft.v1.TenantService/CreateTenant": adminOnly,
	"/weft.v1.TenantService/GetTenant":    tenantRead,
	"/weft.v1.TenantService/ListTenants":  readAll,
	"/weft.v1.TenantService/UpdateTenant": adminOnly,
	"/weft.v1.TenantService/DeleteTenant": adminOnly,

	"/weft.v1.NetworkService/CreateNetwork":     tenantWrite,
	"/weft.v1.NetworkService/GetNetwork":        tenantRead,
	"/weft.v1.NetworkService/ListNetworks":      tenantRead,
	"/weft.v1.NetworkService/UpdateNetwork":     tenantWrite,
	"/weft.v1.NetworkService/DeleteNetwork":     tenantWrite,
	"/weft.v1.NetworkService/AddNetworkVTEP":    tenantWrite,
	"/weft.v1.NetworkService/RemoveNetworkVTEP": tenantWrite,

	"/weft.v1.PortService/CreatePort":  tenantWrite,
	"/weft.v1.PortService/GetPort":     tenantRead,
	"/weft.v1.PortService/ListPorts":   tenantRead,
	"/weft.v1.PortService/UpdatePort":  tenantWrite,
	"/weft.v1.PortService/DeletePort":  tenantWrite,
	"/weft.v1.PortService/BindPort":    tenantWrite,
	"/weft.v1.PortService/MovePort":    tenantWrite,
	"/weft.v1.PortService/PrepareMove": tenantWrite,
	"/weft.v1.PortService/CommitMove":  tenantWrite,
	"/weft.v1.PortService/AbortMove":   tenantWrite,
	"/weft.v1.PortService/WatchMove":   tenantRead,
	"/weft.v1.PortService/UnbindPort":  tenantWrite,

	"/weft.v1.HostService/CreateHostToken": adminOnly,
	"/weft.v1.HostService/GetHost":         readAll,
	"/weft.v1.HostService/ListHosts":       readAll,
	"/weft.v1.HostService/UpdateHost":      adminOnly,
	"/weft.v1.HostService/RemoveHost":      adminOnly,
	"/weft.v1.HostService/DrainHost":       adminOnly,
	"/weft.v1.HostService/FailHost":        adminOnly,
	"/weft.v1.HostService/ReturnHost":      adminOnly,

	"/weft.v1.VTEPService/CreateVTEP": adminOnly,
	"/weft.v1.VTEPService/GetVTEP":    readShared,
	"/weft.v1.VTEPService/ListVTEPs":  readShared,
	"/weft.v1.VTEPService/UpdateVTEP": adminOnly,
	"/weft.v1.VTEPService/DeleteVTEP": adminOnly,

	"/weft.v1.VNIPoolService/CreateVNIPool": adminOnly,
	"/weft.v1.VNIPoolService/GetVNIPool":    readAll,
	"/weft.v1.VNIPoolService/ListVNIPools":  readAll,
	"/weft.v1.VNIPoolService/UpdateVNIPool": adminOnly,
	"/weft.v1.VNIPoolService/DeleteVNIPool": adminOnly,

	// A tenant may name a pool for its network, and asks its administrator what pools there are.
	"/weft.v1.GroupPoolService/CreateGroupPool": adminOnly,
	"/weft.v1.GroupPoolService/GetGroupPool":    readAll,
	"/weft.v1.GroupPoolService/ListGroupPools":  readAll,
	"/weft.v1.GroupPoolService/UpdateGroupPool": adminOnly,
	"/weft.v1.GroupPoolService/DeleteGroupPool": adminOnly,

	"/weft.v1.SystemService/GetVersion":  readShared,
	"/weft.v1.SystemService/GetStatus":   readAll,
	"/weft.v1.SystemService/ListDrops":   tenantRead,
	"/weft.v1.SystemService/WaitApplied": tenantRead,
	// A backup carries the hashes of tokens, and a restore replaces them.
	"/weft.v1.SystemService/Backup":         adminOnly,
	"/weft.v1.SystemService/Restore":        adminOnly,
	"/weft.v1.SystemService/CreateAPIToken": adminOnly,
	"/weft.v1.SystemService/ListAPITokens":  adminOnly,
	"/weft.v1.SystemService/DeleteAPIToken": adminOnly,

	"/plan.v1.AgentService/Join":    joining,
	"/plan.v1.AgentService/Renew":   hostOnly,
	"/plan.v1.AgentService/Bind":    hostOnly,
	"/plan.v1.AgentService/Unbind":  hostOnly,
	"/plan.v1.AgentService/Prepare": hostOnly,
	"/plan.v1.AgentService/Commit":  hostOnly,
	"/plan.v1.AgentService/Abort":   hostOnly,
	"/plan.v1.AgentService/Settle":  hostOnly,
	"/plan.v1.AgentService/Stream":  hostOnly,

	"/peer.v1.PeerService/Hear": serverOnly,
}

// Known reports whether the table has the procedure.
func Known(procedure string) bool { return table[procedure] != none }

// Authorize says whether the caller may call the procedure ("/weft.v1.PortService/MovePort") for the tenant that the request
// names (see TenantOf); "" stands for all tenants, or for none.
func Authorize(id Identity, procedure, tenant string) error {
	class := table[procedure]
	if class == none {
		return model.Errorf(model.Denied, "", "use the same version of weft on both sides", "%s is not known to this server", procedure)
	}
	switch id.Kind {
	case Root:
		return nil
	case Host:
		return authorizeHost(id, class, procedure)
	case Bearer:
		return authorizeToken(id, class, procedure, tenant)
	case Server:
		if class == serverOnly {
			return nil
		}
		return model.Errorf(model.Denied, "", "use an API token", "%s is not for a server's certificate", method(procedure))
	}
	if class == joining {
		return nil
	}
	return model.Errorf(model.Unauthenticated, "token",
		"give an API token (WEFT_TOKEN, or `weft context set --token-file`), or run the command as root on the server's machine",
		"%s needs a credential, and there is none", method(procedure))
}

func authorizeHost(id Identity, class access, procedure string) error {
	if class == hostOnly && id.Host != "" {
		return nil
	}
	return model.Errorf(model.Denied, "", "use an API token", "%s is not for a host's certificate", method(procedure))
}

func authorizeToken(id Identity, class access, procedure, tenant string) error {
	var ok bool
	switch id.Scope {
	case model.ScopeAdmin:
		ok = class != hostOnly && class != joining && class != serverOnly
	case model.ScopeTenant:
		if class == tenantWrite || class == tenantRead {
			return ownTenant(id, tenant)
		}
		ok = class == readShared
	case model.ScopeReadOnly:
		if class == tenantRead && id.Tenant != "" {
			return ownTenant(id, tenant)
		}
		ok = class == readShared || class == tenantRead || class == readAll && id.Tenant == ""
	}
	if ok {
		return nil
	}
	scope := string(id.Scope)
	if id.Tenant != "" {
		scope += " (tenant " + id.Tenant + ")"
	}
	return model.Errorf(model.Denied, "", "use a token whose scope allows it", "%s is not allowed to token %q with scope %s",
		method(procedure), id.Name, scope)
}

func ownTenant(id Identity, tenant string) error {
	switch {
	case id.Tenant != "" && tenant == id.Tenant:
		return nil
	case tenant == "":
		return model.Errorf(model.Denied, "tenant", "give `--tenant "+id.Tenant+"`", "token %q is for one tenant, and none was named", id.Name)
	}
	return model.Errorf(model.Denied, "tenant", "use a token of that tenant", "token %q is for tenant %q, not for %q", id.Name, id.Tenant, tenant)
}

// TenantOf is the tenant that a request is about: its tenant field, or the name in a request of the tenant service.
func TenantOf(procedure string, request any) string {
	if strings.HasPrefix(procedure, "/weft.v1.TenantService/") {
		if r, ok := request.(interface{ GetName() string }); ok {
			return r.GetName()
		}
		return ""
	}
	if r, ok := request.(interface{ GetTenant() string }); ok {
		return r.GetTenant()
	}
	return ""
}

// method is the last part of a procedure.
func method(procedure string) string { return procedure[strings.LastIndexByte(procedure, '/')+1:] }
