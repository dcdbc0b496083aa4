package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
)

// dhcpFlags are of what a network's hosts tell its workloads.
type dhcpFlags struct {
	on                    string
	gateways, dns, routes []string
	domain                string
	lease                 time.Duration
}

// dhcpFlagNames are theirs, for somethingToSet.
var dhcpFlagNames = []string{"dhcp", "gateway", "dns", "domain", "route", "lease-time"}

func (d *dhcpFlags) register(cmd *cobra.Command, replaces string) {
	f := cmd.Flags()
	f.StringVar(&d.on, "dhcp", "on", "`on` or off: whether the hosts answer DHCP and advertise by RA what its ports have; needs subnets")
	_ = cmd.RegisterFlagCompletionFunc("dhcp", cobra.FixedCompletions([]string{"on", "off"}, cobra.ShellCompDirectiveNoFileComp))
	f.StringSliceVar(&d.gateways, "gateway", nil, "`IP` of the router in an IPv4 subnet, or its link-local IPv6 address, any number of times"+replaces)
	f.StringSliceVar(&d.dns, "dns", nil, "`IP` of a DNS server that workloads are told of, any number of times"+replaces)
	f.StringVar(&d.domain, "domain", "", "domain `NAME` that workloads are told of")
	f.StringSliceVar(&d.routes, "route", nil, "static IPv4 route that workloads are told of, `PREFIX=GATEWAY`, any number of times"+replaces)
	f.DurationVar(&d.lease, "lease-time", 24*time.Hour, "how long an address is leased, `TIME` such as 12h")
}

// edit changes what was named.
func (d *dhcpFlags) edit(cmd *cobra.Command, spec *weftv1.NetworkSpec) error {
	f := cmd.Flags()
	if d.on != "on" && d.on != "off" {
		return usagef("--dhcp", "choose on or off", "%q is not one of its values", d.on)
	}
	if !slices.ContainsFunc(dhcpFlagNames, f.Changed) {
		return nil
	}
	if spec.Dhcp == nil {
		spec.Dhcp = &weftv1.DHCP{}
	}
	filled := func(list []string) []string { return slices.DeleteFunc(list, func(s string) bool { return s == "" }) }
	if f.Changed("dhcp") {
		spec.Dhcp.Disabled = d.on == "off"
	}
	if f.Changed("gateway") {
		spec.Dhcp.Gateways = filled(d.gateways)
	}
	if f.Changed("dns") {
		spec.Dhcp.DnsServers = filled(d.dns)
	}
	if f.Changed("domain") {
		spec.Dhcp.Domain = d.domain
	}
	if f.Changed("lease-time") {
		spec.Dhcp.LeaseTime = durationpb.New(d.lease)
	}
	if !f.Changed("route") {
		return nil
	}
	spec.Dhcp.Routes = nil
	for _, r := range filled(d.routes) {
		prefix, gateway, ok := strings.Cut(r, "=")
		if !ok {
			return usagef("--route", "write it as 10.9.0.0/16=10.1.0.1", "%q has no gateway", r)
		}
		spec.Dhcp.Routes = append(spec.Dhcp.Routes, &weftv1.Route{Prefix: prefix, Gateway: gateway})
	}
	return nil
}

// dhcp shows what workloads are told; nothing of a network without addresses.
func (s *sheet) dhcp(spec *weftv1.NetworkSpec) {
	d := spec.GetDhcp()
	switch {
	case len(spec.GetSubnets()) == 0:
		return
	case d.GetDisabled():
		s.row("DHCP", "off")
		return
	}
	lease := 24 * time.Hour
	if d.GetLeaseTime() != nil {
		lease = d.GetLeaseTime().AsDuration()
	}
	s.row("DHCP", fmt.Sprintf("on, leases of %s", lease))
	s.row("Gateway", orNone(d.GetGateways()))
	if len(d.GetDnsServers()) > 0 {
		s.list("DNS servers", d.GetDnsServers())
	}
	s.row("Domain", d.GetDomain())
	var routes []string
	for _, r := range d.GetRoutes() {
		routes = append(routes, r.GetPrefix()+" by "+r.GetGateway())
	}
	if len(routes) > 0 {
		s.list("Routes", routes)
	}
}

// services shows what a workload asked its host for.
func (s *sheet) services(c *weftv1.ServiceCounts) {
	if c == nil {
		return
	}
	s.row("Asked its host", fmt.Sprintf("%s: %d answered, %d refused; %d unasked router advertisements", counted(c.GetRequests(), "DHCP or RS request"),
		c.GetAnswers(), c.GetRefused(), c.GetAdvertisements()))
}
