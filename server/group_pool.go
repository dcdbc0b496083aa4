package server

import (
	"cmp"
	"context"
	"slices"

	"connectrpc.com/connect"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
)

func (a *api) groupPool(ctx context.Context, field, name string) (*model.GroupPool, error) {
	p := find(ctx, a, func(w *model.World) *model.GroupPool { return w.GroupPools[name] })
	if p == nil {
		return nil, missing(field, "group pool", name, "weft group-pool list")
	}
	return p, nil
}

// CreateGroupPool implements weft.v1.
func (a *api) CreateGroupPool(ctx context.Context, req *connect.Request[weftv1.CreateGroupPoolRequest]) (*connect.Response[weftv1.GroupPool], error) {
	spec, err := groupPoolIn(req.Msg.GetSpec())
	if err != nil {
		return nil, err
	}
	meta, err := a.metaOf(ctx)
	if err != nil {
		return nil, err
	}
	p := &model.GroupPool{Meta: meta, Name: req.Msg.GetName(), Spec: spec}
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if err := a.store.CreateGroupPool(ctx, p); err != nil {
		return nil, err
	}
	return a.groupPoolAnswer(ctx, p), nil
}

// GetGroupPool implements weft.v1.
func (a *api) GetGroupPool(ctx context.Context, req *connect.Request[weftv1.GetGroupPoolRequest]) (*connect.Response[weftv1.GroupPool], error) {
	p, err := a.groupPool(ctx, "name", req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	return a.groupPoolAnswer(ctx, p), nil
}

// ListGroupPools implements weft.v1.
func (a *api) ListGroupPools(context.Context, *connect.Request[weftv1.ListGroupPoolsRequest]) (*connect.Response[weftv1.ListGroupPoolsResponse], error) {
	res := &weftv1.ListGroupPoolsResponse{}
	a.view.read(func(w *model.World) {
		for _, p := range w.GroupPools {
			res.Pools = append(res.Pools, groupPoolOut(p, groupPoolStatus(w, p)))
		}
	})
	slices.SortFunc(res.Pools, func(x, y *weftv1.GroupPool) int { return cmp.Compare(x.Name, y.Name) })
	return connect.NewResponse(res), nil
}

// UpdateGroupPool implements weft.v1. Networks keep groups that the pool no longer contains.
func (a *api) UpdateGroupPool(ctx context.Context, req *connect.Request[weftv1.UpdateGroupPoolRequest]) (*connect.Response[weftv1.GroupPool], error) {
	rev, err := basedOn(req.Msg.GetRevision())
	if err != nil {
		return nil, err
	}
	spec, err := groupPoolIn(req.Msg.GetSpec())
	if err != nil {
		return nil, err
	}
	old, err := a.groupPool(ctx, "name", req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	p := *old
	p.Revision, p.Spec = rev, spec
	if err := p.ValidateUpdate(old); err != nil {
		return nil, err
	}
	if err := a.store.UpdateGroupPool(ctx, &p); err != nil {
		return nil, err
	}
	return a.groupPoolAnswer(ctx, &p), nil
}

// DeleteGroupPool implements weft.v1.
func (a *api) DeleteGroupPool(ctx context.Context, req *connect.Request[weftv1.DeleteGroupPoolRequest]) (*connect.Response[weftv1.DeleteGroupPoolResponse], error) {
	if _, err := a.groupPool(ctx, "name", req.Msg.GetName()); err != nil {
		return nil, err
	}
	rev, err := a.store.DeleteGroupPool(ctx, req.Msg.GetName())
	if err != nil {
		return nil, err
	}
	a.readBack(ctx, rev)
	return connect.NewResponse(&weftv1.DeleteGroupPoolResponse{Revision: int64(rev)}), nil
}

func (a *api) groupPoolAnswer(ctx context.Context, p *model.GroupPool) *connect.Response[weftv1.GroupPool] {
	a.readBack(ctx, p.Revision)
	var status *weftv1.GroupPoolStatus
	a.view.read(func(w *model.World) { status = groupPoolStatus(w, p) })
	return connect.NewResponse(groupPoolOut(p, status))
}

// groupPoolStatus counts every group of the range, however the networks that have it came to it.
func groupPoolStatus(w *model.World, p *model.GroupPool) *weftv1.GroupPoolStatus {
	out := &weftv1.GroupPoolStatus{}
	for g, networks := range w.GroupsInUse() {
		if p.Spec.Contains(g) {
			out.Used++
			out.Networks += uint32(networks)
		}
	}
	out.Free = p.Spec.Size() - uint64(out.Used)
	return out
}

func groupPoolIn(s *weftv1.GroupPoolSpec) (out model.GroupPoolSpec, err error) {
	out = model.GroupPoolSpec{NetworksPerGroup: s.GetNetworksPerGroup(), Description: s.GetDescription()}
	first, bad := model.ParseGroup("spec.first", s.GetFirst())
	if bad != nil {
		return out, bad
	}
	last, bad := model.ParseGroup("spec.last", s.GetLast())
	if bad != nil {
		return out, bad
	}
	out.First, out.Last = first, last
	return out, nil
}

func groupPoolOut(p *model.GroupPool, status *weftv1.GroupPoolStatus) *weftv1.GroupPool {
	return &weftv1.GroupPool{
		Name: p.Name, Meta: metaOut(p.Meta),
		Spec: &weftv1.GroupPoolSpec{First: groupOut(p.Spec.First), Last: groupOut(p.Spec.Last), NetworksPerGroup: p.Spec.NetworksPerGroup,
			Description: p.Spec.Description},
		Status: status,
	}
}
