package compile

import (
	"time"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/model"
)

func dhcp(d *model.DHCP) *planv1.Dhcp {
	if d == nil {
		return nil
	}
	m := &planv1.Dhcp{Domain: d.Domain, LeaseSeconds: uint32(d.LeaseTime / time.Second)}
	for _, g := range d.Gateways {
		m.Gateways = append(m.Gateways, g.String())
	}
	for _, a := range d.DNSServers {
		m.DnsServers = append(m.DnsServers, a.String())
	}
	for _, t := range d.Routes {
		m.Routes = append(m.Routes, &planv1.Route{Prefix: t.Prefix.String(), Gateway: t.Gateway.String()})
	}
	return m
}
