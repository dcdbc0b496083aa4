package server

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"connectrpc.com/connect"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
)

func (a *api) vtep(ctx context.Context, field, name string) (*model.VTEP, error) {
	v := find(ctx, a, func(w *model.World) *model.VTEP { return w.VTEPs[name] })
	if v == nil {
		return nil, missing(field, "VTEP", name, "weft vtep list")
	}
	return v, nil
}

// CreateVTEP implements weft.v1.
func (a *api) CreateVTEP(ctx context.Context, req *connect.Request[weftv1.CreateVTEPRequest]) (*connect.Response[weftv1.VTEP], error) {
	spec, err := vtepSpecIn(req.Msg.GetSpec())
	if err != nil {
		return nil, err
	}
	meta, err := a.metaOf(ctx)
	if err != nil {
		return nil, err
	}
	v := &model.VTEP{Meta: meta, Name: req.Msg.GetName(), Spec: spec}
	if err := v.Validate(); err != nil {
		return nil, err
	}
	if err := a.noHostsVTEP(v.Spec); err != nil {
		return nil, err
	}
	if err := a.store.CreateVTEP(ctx, v); err != nil {
		return nil, err
	}
	return a.vtepAnswer(ctx, v), nil
}

// GetVTEP implements weft.v1.
func (a *api) GetVTEP(ctx context.Context, req *connect.Request[weftv1.GetVTEPRequest]) (*connect.Response[weftv1.VTEP], error) {
	v, err := a.vtep(ctx, "name", req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	return a.vtepAnswer(ctx, v), nil
}

// ListVTEPs implements weft.v1.
func (a *api) ListVTEPs(ctx context.Context, _ *connect.Request[weftv1.ListVTEPsRequest]) (*connect.Response[weftv1.ListVTEPsResponse], error) {
	res := &weftv1.ListVTEPsResponse{}
	a.view.read(func(w *model.World) {
		for _, v := range w.VTEPs {
			res.Vteps = append(res.Vteps, vtepOut(v, vtepStatus(ctx, w, v)))
		}
	})
	slices.SortFunc(res.Vteps, func(x, y *weftv1.VTEP) int { return cmp.Compare(x.Name, y.Name) })
	return connect.NewResponse(res), nil
}

// UpdateVTEP implements weft.v1.
func (a *api) UpdateVTEP(ctx context.Context, req *connect.Request[weftv1.UpdateVTEPRequest]) (*connect.Response[weftv1.VTEP], error) {
	rev, err := basedOn(req.Msg.GetRevision())
	if err != nil {
		return nil, err
	}
	spec, err := vtepSpecIn(req.Msg.GetSpec())
	if err != nil {
		return nil, err
	}
	old, err := a.vtep(ctx, "name", req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	v := *old
	v.Revision, v.Spec = rev, spec
	if err := v.ValidateUpdate(old); err != nil {
		return nil, err
	}
	if err := a.noHostsVTEP(v.Spec); err != nil {
		return nil, err
	}
	a.view.read(func(w *model.World) { err = v.ValidateWith(maps.Values(w.Networks)) })
	if err != nil {
		return nil, err
	}
	if err := a.store.UpdateVTEP(ctx, &v); err != nil {
		return nil, err
	}
	return a.vtepAnswer(ctx, &v), nil
}

// noHostsVTEP refuses what a host said to be its own VTEP. A host that comes to the address later is not looked for here.
func (a *api) noHostsVTEP(spec model.VTEPSpec) (err error) {
	a.view.read(func(w *model.World) {
		for uid, f := range w.Facts {
			if h := w.Hosts[uid]; h != nil && slices.Contains(f.VTEPAddresses, spec.Address) {
				err = model.Errorf(model.Taken, "spec.address", "leave it out: hosts take part in a network by their ports",
					"%s is the VTEP of host %s", spec.Address, h.Name)
			}
		}
	})
	return err
}

// DeleteVTEP implements weft.v1.
func (a *api) DeleteVTEP(ctx context.Context, req *connect.Request[weftv1.DeleteVTEPRequest]) (*connect.Response[weftv1.DeleteVTEPResponse], error) {
	if _, err := a.vtep(ctx, "name", req.Msg.GetName()); err != nil {
		return nil, err
	}
	rev, err := a.store.DeleteVTEP(ctx, req.Msg.GetName(), a.now())
	if err != nil {
		return nil, err
	}
	a.readBack(ctx, rev)
	return connect.NewResponse(&weftv1.DeleteVTEPResponse{Revision: int64(rev)}), nil
}

func (a *api) vtepAnswer(ctx context.Context, v *model.VTEP) *connect.Response[weftv1.VTEP] {
	a.readBack(ctx, v.Revision)
	var status *weftv1.VTEPStatus
	a.view.read(func(w *model.World) { status = vtepStatus(ctx, w, v) })
	return connect.NewResponse(vtepOut(v, status))
}

// vtepStatus lists the networks that the caller may know of.
func vtepStatus(ctx context.Context, w *model.World, v *model.VTEP) *weftv1.VTEPStatus {
	own := identityOf(ctx).Tenant
	out := &weftv1.VTEPStatus{}
	for n := range w.NetworksWith(v.Name) {
		if own == "" || own == n.Tenant {
			out.Networks = append(out.Networks, n.Tenant+"/"+n.Name)
		}
	}
	slices.Sort(out.Networks)
	return out
}
