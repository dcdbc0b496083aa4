package server

import (
	"cmp"
	"context"
	"slices"

	"connectrpc.com/connect"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/trust"
)

// CreateAPIToken implements weft.v1. Without a lifetime the token does not expire.
func (a *api) CreateAPIToken(ctx context.Context, req *connect.Request[weftv1.CreateAPITokenRequest]) (*connect.Response[weftv1.CreateAPITokenResponse], error) {
	scope, err := scopeIn(req.Msg.GetScope())
	if err != nil {
		return nil, err
	}
	token, err := trust.NewToken(trust.APIToken, a.ca.Fingerprint())
	if err != nil {
		return nil, err
	}
	t := &model.APIToken{
		Name: req.Msg.GetName(), ID: token.ID, Scope: scope, Tenant: req.Msg.GetTenant(), Hash: token.Hash(), Created: a.now().UTC(),
	}
	if d := req.Msg.GetLifetime(); d != nil {
		if d.AsDuration() <= 0 {
			return nil, model.Errorf(model.Invalid, "lifetime", "use more than 0, or leave it out", "%s is no lifetime", d.AsDuration())
		}
		t.Expires = t.Created.Add(d.AsDuration())
	}
	if err := t.Validate(); err != nil {
		return nil, err
	}
	if t.Tenant != "" {
		if _, err := a.tenant(ctx, "tenant", t.Tenant); err != nil {
			return nil, err
		}
	}
	if err := a.store.CreateAPIToken(ctx, t); err != nil {
		return nil, err
	}
	a.refresh(ctx)
	return connect.NewResponse(&weftv1.CreateAPITokenResponse{Token: apiTokenOut(t), Secret: token.String()}), nil
}

// ListAPITokens implements weft.v1.
func (a *api) ListAPITokens(context.Context, *connect.Request[weftv1.ListAPITokensRequest]) (*connect.Response[weftv1.ListAPITokensResponse], error) {
	res := &weftv1.ListAPITokensResponse{}
	a.view.read(func(w *model.World) {
		for _, t := range w.APITokens {
			res.Tokens = append(res.Tokens, apiTokenOut(t))
		}
	})
	slices.SortFunc(res.Tokens, func(x, y *weftv1.APIToken) int { return cmp.Compare(x.Name, y.Name) })
	return connect.NewResponse(res), nil
}

// DeleteAPIToken implements weft.v1. The token is refused from the moment this returns.
func (a *api) DeleteAPIToken(ctx context.Context, req *connect.Request[weftv1.DeleteAPITokenRequest]) (*connect.Response[weftv1.DeleteAPITokenResponse], error) {
	rev, err := a.store.DeleteAPIToken(ctx, req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	a.readBack(ctx, rev)
	return connect.NewResponse(&weftv1.DeleteAPITokenResponse{}), nil
}
