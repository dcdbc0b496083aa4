package server

import (
	"cmp"
	"context"
	"slices"

	"connectrpc.com/connect"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
)

// CreateTenant implements weft.v1.
func (a *api) CreateTenant(ctx context.Context, req *connect.Request[weftv1.CreateTenantRequest]) (*connect.Response[weftv1.Tenant], error) {
	meta, err := a.metaOf(ctx)
	if err != nil {
		return nil, err
	}
	t := &model.Tenant{Meta: meta, Name: req.Msg.GetName(), Spec: tenantSpecIn(req.Msg.GetSpec())}
	if err := t.Validate(); err != nil {
		return nil, err
	}
	if err := a.store.CreateTenant(ctx, t); err != nil {
		return nil, err
	}
	return a.tenantAnswer(ctx, t), nil
}

// GetTenant implements weft.v1.
func (a *api) GetTenant(ctx context.Context, req *connect.Request[weftv1.GetTenantRequest]) (*connect.Response[weftv1.Tenant], error) {
	t, err := a.tenant(ctx, "name", req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	return a.tenantAnswer(ctx, t), nil
}

// ListTenants implements weft.v1. A credential of one tenant lists that one.
func (a *api) ListTenants(ctx context.Context, _ *connect.Request[weftv1.ListTenantsRequest]) (*connect.Response[weftv1.ListTenantsResponse], error) {
	own := identityOf(ctx).Tenant
	res := &weftv1.ListTenantsResponse{}
	a.view.read(func(w *model.World) {
		networks, ports := map[string]uint32{}, map[string]uint32{}
		for _, n := range w.Networks {
			networks[n.Tenant]++
		}
		for _, p := range w.Ports {
			ports[p.Tenant]++
		}
		for _, t := range w.Tenants {
			if own == "" || own == t.Name {
				res.Tenants = append(res.Tenants, tenantOut(t, &weftv1.TenantStatus{Networks: networks[t.Name], Ports: ports[t.Name]}))
			}
		}
	})
	slices.SortFunc(res.Tenants, func(x, y *weftv1.Tenant) int { return cmp.Compare(x.Name, y.Name) })
	return connect.NewResponse(res), nil
}

// UpdateTenant implements weft.v1.
func (a *api) UpdateTenant(ctx context.Context, req *connect.Request[weftv1.UpdateTenantRequest]) (*connect.Response[weftv1.Tenant], error) {
	rev, err := basedOn(req.Msg.GetRevision())
	if err != nil {
		return nil, err
	}
	old, err := a.tenant(ctx, "name", req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	t := *old
	t.Revision, t.Spec = rev, tenantSpecIn(req.Msg.GetSpec())
	if err := t.ValidateUpdate(old); err != nil {
		return nil, err
	}
	if err := a.store.UpdateTenant(ctx, &t); err != nil {
		return nil, err
	}
	return a.tenantAnswer(ctx, &t), nil
}

// DeleteTenant implements weft.v1.
func (a *api) DeleteTenant(ctx context.Context, req *connect.Request[weftv1.DeleteTenantRequest]) (*connect.Response[weftv1.DeleteTenantResponse], error) {
	if _, err := a.tenant(ctx, "name", req.Msg.GetName()); err != nil {
		return nil, err
	}
	rev, err := a.store.DeleteTenant(ctx, req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	a.readBack(ctx, rev)
	return connect.NewResponse(&weftv1.DeleteTenantResponse{Revision: int64(rev)}), nil
}

func (a *api) tenantAnswer(ctx context.Context, t *model.Tenant) *connect.Response[weftv1.Tenant] {
	a.readBack(ctx, t.Revision)
	status := &weftv1.TenantStatus{}
	a.view.read(func(w *model.World) {
		for _, n := range w.Networks {
			if n.Tenant == t.Name {
				status.Networks++
			}
		}
		for _, p := range w.Ports {
			if p.Tenant == t.Name {
				status.Ports++
			}
		}
	})
	return connect.NewResponse(tenantOut(t, status))
}
