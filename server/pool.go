package server

import (
	"cmp"
	"context"
	"slices"

	"connectrpc.com/connect"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
)

func (a *api) pool(ctx context.Context, field, name string) (*model.VNIPool, error) {
	p := find(ctx, a, func(w *model.World) *model.VNIPool { return w.Pools[name] })
	if p == nil {
		return nil, missing(field, "VNI pool", name, "weft pool list")
	}
	return p, nil
}

// CreateVNIPool implements weft.v1.
func (a *api) CreateVNIPool(ctx context.Context, req *connect.Request[weftv1.CreateVNIPoolRequest]) (*connect.Response[weftv1.VNIPool], error) {
	meta, err := a.metaOf(ctx)
	if err != nil {
		return nil, err
	}
	p := &model.VNIPool{Meta: meta, Name: req.Msg.GetName(), Spec: poolSpecIn(req.Msg.GetSpec())}
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if err := a.store.CreatePool(ctx, p); err != nil {
		return nil, err
	}
	return a.poolAnswer(ctx, p), nil
}

// GetVNIPool implements weft.v1.
func (a *api) GetVNIPool(ctx context.Context, req *connect.Request[weftv1.GetVNIPoolRequest]) (*connect.Response[weftv1.VNIPool], error) {
	p, err := a.pool(ctx, "name", req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	return a.poolAnswer(ctx, p), nil
}

// ListVNIPools implements weft.v1.
func (a *api) ListVNIPools(context.Context, *connect.Request[weftv1.ListVNIPoolsRequest]) (*connect.Response[weftv1.ListVNIPoolsResponse], error) {
	res := &weftv1.ListVNIPoolsResponse{}
	a.view.read(func(w *model.World) {
		for _, p := range w.Pools {
			res.Pools = append(res.Pools, poolOut(p, poolStatus(w, p)))
		}
	})
	slices.SortFunc(res.Pools, func(x, y *weftv1.VNIPool) int { return cmp.Compare(x.Name, y.Name) })
	return connect.NewResponse(res), nil
}

// UpdateVNIPool implements weft.v1. Networks keep VNIs that the pool no longer contains.
func (a *api) UpdateVNIPool(ctx context.Context, req *connect.Request[weftv1.UpdateVNIPoolRequest]) (*connect.Response[weftv1.VNIPool], error) {
	rev, err := basedOn(req.Msg.GetRevision())
	if err != nil {
		return nil, err
	}
	old, err := a.pool(ctx, "name", req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	p := *old
	p.Revision, p.Spec = rev, poolSpecIn(req.Msg.GetSpec())
	if err := p.ValidateUpdate(old); err != nil {
		return nil, err
	}
	if err := a.store.UpdatePool(ctx, &p); err != nil {
		return nil, err
	}
	return a.poolAnswer(ctx, &p), nil
}

// DeleteVNIPool implements weft.v1.
func (a *api) DeleteVNIPool(ctx context.Context, req *connect.Request[weftv1.DeleteVNIPoolRequest]) (*connect.Response[weftv1.DeleteVNIPoolResponse], error) {
	if _, err := a.pool(ctx, "name", req.Msg.GetName()); err != nil {
		return nil, err
	}
	rev, err := a.store.DeletePool(ctx, req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	a.readBack(ctx, rev)
	return connect.NewResponse(&weftv1.DeleteVNIPoolResponse{Revision: int64(rev)}), nil
}

func (a *api) poolAnswer(ctx context.Context, p *model.VNIPool) *connect.Response[weftv1.VNIPool] {
	a.readBack(ctx, p.Revision)
	var status *weftv1.VNIPoolStatus
	a.view.read(func(w *model.World) { status = poolStatus(w, p) })
	return connect.NewResponse(poolOut(p, status))
}

// poolStatus counts every VNI of the range, whoever has it.
func poolStatus(w *model.World, p *model.VNIPool) *weftv1.VNIPoolStatus {
	out := &weftv1.VNIPoolStatus{}
	for _, u := range w.VNIs {
		switch {
		case !p.Spec.Contains(u.VNI):
		case u.Quarantined:
			out.Quarantined++
		default:
			out.Used++
		}
	}
	out.Free = uint32(max(0, p.Spec.Size()-int(out.Used)-int(out.Quarantined)))
	return out
}
