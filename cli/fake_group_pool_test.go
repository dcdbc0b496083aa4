package cli_test

import (
	"context"

	"connectrpc.com/connect"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
)

type groupPools struct{ *fake }

func (f groupPools) CreateGroupPool(_ context.Context, r *connect.Request[weftv1.CreateGroupPoolRequest]) (*connect.Response[weftv1.GroupPool], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return answer(make1(&f.groupPools, "group pool", r.Msg.GetName(), &weftv1.GroupPool{Name: r.Msg.GetName(), Meta: f.meta(), Spec: r.Msg.GetSpec()}))
}
func (f groupPools) GetGroupPool(_ context.Context, r *connect.Request[weftv1.GetGroupPoolRequest]) (*connect.Response[weftv1.GroupPool], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return answer(find(&f.groupPools, "group pool", r.Msg.GetName()))
}
func (f groupPools) ListGroupPools(context.Context, *connect.Request[weftv1.ListGroupPoolsRequest]) (*connect.Response[weftv1.ListGroupPoolsResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return answer(&weftv1.ListGroupPoolsResponse{Pools: f.groupPools.all("")}, nil)
}
func (f groupPools) UpdateGroupPool(_ context.Context, r *connect.Request[weftv1.UpdateGroupPoolRequest]) (*connect.Response[weftv1.GroupPool], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.groupPools.by[r.Msg.GetName()]
	if err := f.stale(p.GetMeta(), r.Msg.GetRevision()); err != nil {
		return nil, err
	}
	p.Spec = r.Msg.GetSpec()
	return answer(p, nil)
}
func (f groupPools) DeleteGroupPool(_ context.Context, r *connect.Request[weftv1.DeleteGroupPoolRequest]) (*connect.Response[weftv1.DeleteGroupPoolResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.groupPools.remove(r.Msg.GetName())
	return answer(&weftv1.DeleteGroupPoolResponse{}, nil)
}
