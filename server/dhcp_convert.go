package server

import (
	"net/netip"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/model"
)

func dhcpIn(d *weftv1.DHCP) (*model.DHCP, error) {
	if d == nil {
		return nil, nil
	}
	out := &model.DHCP{Disabled: d.GetDisabled(), Domain: d.GetDomain()}
	var err error
	if out.Gateways, err = addrsIn("spec.dhcp.gateways", d.GetGateways()); err != nil {
		return nil, err
	}
	if out.DNSServers, err = addrsIn("spec.dhcp.dns_servers", d.GetDnsServers()); err != nil {
		return nil, err
	}
	for i, r := range d.GetRoutes() {
		t, err := routeIn(item("spec.dhcp.routes", i), r)
		if err != nil {
			return nil, err
		}
		out.Routes = append(out.Routes, t)
	}
	if d.LeaseTime != nil {
		if out.LeaseTime = d.LeaseTime.AsDuration(); out.LeaseTime == 0 || d.LeaseTime.CheckValid() != nil {
			out.LeaseTime = time.Nanosecond // no lease time, and model says so
		}
	}
	return out, nil
}

func addrsIn(field string, list []string) (out []netip.Addr, err error) {
	for i, text := range list {
		a, bad := model.ParseAddr(item(field, i), text)
		if bad != nil {
			return nil, bad
		}
		out = append(out, a)
	}
	return out, nil
}

func routeIn(field string, r *weftv1.Route) (model.Route, error) {
	var out model.Route
	p, err := netip.ParsePrefix(r.GetPrefix())
	if err != nil {
		return out, model.Errorf(model.Invalid, field+".prefix", "write it as 10.9.0.0/16", "%.80q is not an IP prefix", r.GetPrefix())
	}
	a, bad := model.ParseAddr(field+".gateway", r.GetGateway())
	if bad != nil {
		return out, bad
	}
	return model.Route{Prefix: p, Gateway: a}, nil
}

func dhcpOut(d *model.DHCP) *weftv1.DHCP {
	if d == nil {
		return nil
	}
	out := &weftv1.DHCP{Disabled: d.Disabled, Gateways: addrsOut(d.Gateways), DnsServers: addrsOut(d.DNSServers), Domain: d.Domain}
	for _, r := range d.Routes {
		out.Routes = append(out.Routes, &weftv1.Route{Prefix: r.Prefix.String(), Gateway: r.Gateway.String()})
	}
	if d.LeaseTime != 0 {
		out.LeaseTime = durationpb.New(d.LeaseTime)
	}
	return out
}

func servicesOut(c *planv1.ServiceCounts) *weftv1.ServiceCounts {
	if c == nil {
		return nil
	}
	return &weftv1.ServiceCounts{Requests: c.GetRequests(), Answers: c.GetAnswers(), Refused: c.GetRefused(), Advertisements: c.GetAdvertisements()}
}
