package server

import (
	"cmp"
	"context"
	"runtime"
	"slices"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
)

// GetVersion implements weft.v1.
func (a *api) GetVersion(context.Context, *connect.Request[weftv1.GetVersionRequest]) (*connect.Response[weftv1.GetVersionResponse], error) {
	return connect.NewResponse(&weftv1.GetVersionResponse{
		Version: a.cfg.Version, Commit: a.cfg.Commit, GoVersion: runtime.Version(),
	}), nil
}

// GetStatus implements weft.v1.
func (a *api) GetStatus(ctx context.Context, _ *connect.Request[weftv1.GetStatusRequest]) (*connect.Response[weftv1.GetStatusResponse], error) {
	octets, quota, err := a.store.Size(ctx)
	if err != nil {
		return nil, err
	}
	res := &weftv1.GetStatusResponse{
		Version: a.cfg.Version, StoreOctets: octets, StoreQuotaOctets: quota,
		Started: timestamppb.New(a.started), CaFingerprint: a.ca.Fingerprint().String(),
		Hosts: a.hosts(),
	}
	a.view.read(func(w *model.World) {
		res.StoreId, res.Revision = w.StoreID, int64(w.Revision)
		res.Tenants, res.Networks, res.Ports = uint32(len(w.Tenants)), uint32(len(w.Networks)), uint32(len(w.Ports))
		res.ExternalVteps = uint32(len(w.VTEPs))
		for _, b := range w.Bindings {
			for range b.Hosts() {
				res.BoundPorts++
				break
			}
		}
	})
	return connect.NewResponse(res), nil
}

// ListDrops implements weft.v1: what each host last reported. A credential of one tenant sees that one's ports.
func (a *api) ListDrops(ctx context.Context, req *connect.Request[weftv1.ListDropsRequest]) (*connect.Response[weftv1.ListDropsResponse], error) {
	tenant, err := a.listed(ctx, req.Msg.GetTenant())
	if err != nil {
		return nil, err
	}
	if name := req.Msg.GetHost(); name != "" {
		if _, err := a.host(ctx, "host", name); err != nil {
			return nil, err
		}
	}
	if name := req.Msg.GetPort(); name != "" && tenant != "" {
		if _, err := a.port(ctx, "port", tenant, name); err != nil {
			return nil, err
		}
	}
	res := &weftv1.ListDropsResponse{}
	a.view.read(func(w *model.World) {
		for _, h := range w.Hosts {
			if name := req.Msg.GetHost(); name != "" && name != h.Name {
				continue
			}
			said, ok := a.heard.host(h.UID)
			if !ok {
				continue
			}
			if tenant == "" && req.Msg.GetPort() == "" {
				res.Drops = appendDrops(res.Drops, dropPlace{host: h.Name}, said.drops)
				if len(said.books) > 0 {
					res.Books = append(res.Books, &weftv1.HostBooks{Host: h.Name, Books: booksOut(said.books)})
				}
			}
			for _, rep := range said.said.GetPorts() {
				p := w.Ports[model.UID(rep.GetUid())]
				if p == nil || tenant != "" && p.Tenant != tenant || req.Msg.GetPort() != "" && p.Name != req.Msg.GetPort() {
					continue
				}
				res.Drops = appendDrops(res.Drops, dropPlace{h.Name, p.Tenant, p.Name}, rep.GetDrops())
			}
		}
	})
	slices.SortFunc(res.Drops, func(x, y *weftv1.Drop) int {
		return cmp.Or(cmp.Compare(x.Host, y.Host), cmp.Compare(x.Tenant, y.Tenant), cmp.Compare(x.Port, y.Port),
			cmp.Compare(x.Reason, y.Reason), cmp.Compare(x.Source, y.Source))
	})
	slices.SortFunc(res.Books, func(x, y *weftv1.HostBooks) int { return cmp.Compare(x.Host, y.Host) })
	return connect.NewResponse(res), nil
}

func appendDrops(out []*weftv1.Drop, at dropPlace, drops []*planv1.Drop) []*weftv1.Drop {
	for _, d := range drops {
		if d.GetPackets() == 0 {
			continue
		}
		out = append(out, &weftv1.Drop{
			Host: at.host, Tenant: at.tenant, Port: at.port,
			Reason: d.GetReason(), Packets: d.GetPackets(), Source: d.GetSource(),
		})
	}
	return out
}

// dropPlace is where packets were dropped; no port where the packet belonged to none.
type dropPlace struct{ host, tenant, port string }
