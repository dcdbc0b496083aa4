package server

import (
	"context"

	"connectrpc.com/connect"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/store"
	"github.com/weftnet/weft/trust"
)

// Join implements plan.v1: a join token and a certificate request become a host's certificate. The token works once; the
// same key may ask again, as an answer may be lost on its way.
func (a *api) Join(ctx context.Context, req *connect.Request[planv1.JoinRequest]) (*connect.Response[planv1.JoinResponse], error) {
	name := req.Msg.GetHost()
	token, err := trust.ParseToken(trust.JoinToken, req.Msg.GetToken())
	if err != nil {
		return nil, err
	}
	csr, err := trust.CheckCSR(req.Msg.GetCsr())
	if err != nil {
		return nil, err
	}
	record, err := a.store.GetJoinToken(ctx, token.ID)
	if err != nil && refusal(err) == nil {
		return nil, err
	}
	if err := token.CheckJoin(a.ca.Fingerprint(), record, name, csr.KeyHash, a.now()); err != nil {
		return nil, err
	}
	h, err := a.host(ctx, "host", name)
	if err != nil {
		return nil, err
	}
	ctx = store.WithActor(ctx, trust.Identity{Kind: trust.Host, Name: name}.String())
	// The store is the judge of two that come with one token at the same time.
	if err := a.store.UseJoinToken(ctx, token.ID, h.UID, csr.KeyHash); err != nil {
		return nil, err
	}
	chain, err := a.ca.SignHost(req.Msg.GetCsr(), h.UID, a.now())
	if err != nil {
		return nil, err
	}
	a.log.Info("a host joined", "host", name)
	return connect.NewResponse(&planv1.JoinResponse{HostUid: string(h.UID), Certificates: chain}), nil
}

// Renew implements plan.v1.
func (a *api) Renew(ctx context.Context, req *connect.Request[planv1.RenewRequest]) (*connect.Response[planv1.RenewResponse], error) {
	chain, err := a.ca.SignHost(req.Msg.GetCsr(), identityOf(ctx).Host, a.now())
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&planv1.RenewResponse{Certificates: chain}), nil
}

// Bind implements plan.v1: a host takes an unbound port for itself.
func (a *api) Bind(ctx context.Context, req *connect.Request[planv1.BindRequest]) (*connect.Response[planv1.BindResponse], error) {
	p, err := a.port(ctx, "port", req.Msg.GetTenant(), req.Msg.GetPort())
	if err != nil {
		return nil, err
	}
	h, err := a.caller(ctx)
	if err != nil {
		return nil, err
	}
	b, err := a.bind(ctx, p, h)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&planv1.BindResponse{
		PortUid: string(p.UID), NetworkUid: string(p.Alloc.NetworkUID), Epoch: int64(b.Epoch), Revision: int64(b.Epoch),
	}), nil
}

// Unbind implements plan.v1: a host gives up a port that it holds.
func (a *api) Unbind(ctx context.Context, req *connect.Request[planv1.UnbindRequest]) (*connect.Response[planv1.UnbindResponse], error) {
	p, err := a.port(ctx, "port", req.Msg.GetTenant(), req.Msg.GetPort())
	if err != nil {
		return nil, err
	}
	if uid := req.Msg.GetPortUid(); uid != "" && uid != string(p.UID) {
		return nil, model.Errorf(model.NotFound, "port_uid", "nothing is left to unbind",
			"port %s/%s was deleted and made again", p.Tenant, p.Name)
	}
	b, err := a.release(ctx, p, identityOf(ctx).Host)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&planv1.UnbindResponse{Epoch: int64(b.Epoch), Revision: int64(b.Epoch)}), nil
}

// caller is the host under whose certificate the call came.
func (a *api) caller(ctx context.Context) (*model.Host, error) {
	id := identityOf(ctx)
	h := find(ctx, a, func(w *model.World) *model.Host { return w.Hosts[id.Host] })
	if h == nil {
		return nil, errHostRemoved
	}
	return h, nil
}
