package server

import (
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
)

func scopeIn(s weftv1.TokenScope) (model.TokenScope, error) {
	switch s {
	case weftv1.TokenScope_TOKEN_SCOPE_ADMIN:
		return model.ScopeAdmin, nil
	case weftv1.TokenScope_TOKEN_SCOPE_TENANT:
		return model.ScopeTenant, nil
	case weftv1.TokenScope_TOKEN_SCOPE_READ_ONLY:
		return model.ScopeReadOnly, nil
	}
	return "", model.Errorf(model.Invalid, "scope", "use admin, tenant or read-only", "a token needs a scope")
}

func scopeOut(s model.TokenScope) weftv1.TokenScope {
	switch s {
	case model.ScopeAdmin:
		return weftv1.TokenScope_TOKEN_SCOPE_ADMIN
	case model.ScopeTenant:
		return weftv1.TokenScope_TOKEN_SCOPE_TENANT
	case model.ScopeReadOnly:
		return weftv1.TokenScope_TOKEN_SCOPE_READ_ONLY
	}
	return weftv1.TokenScope_TOKEN_SCOPE_UNSPECIFIED
}

func apiTokenOut(t *model.APIToken) *weftv1.APIToken {
	return &weftv1.APIToken{
		Name: t.Name, Scope: scopeOut(t.Scope), Tenant: t.Tenant, Created: timeOut(t.Created), Expires: timeOut(t.Expires),
	}
}
