package server

import (
	"testing"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
)

// TestPlanFollowsIntent walks the main way: tenant, network, ports, two hosts, bind, move, report, unbind, delete.
// Break it: drop the Publish from takeEvents.
func TestPlanFollowsIntent(t *testing.T) {
	f := server(t)
	ok(t, f.tenants.CreateTenant, &weftv1.CreateTenantRequest{Name: "way"})
	n := ok(t, f.networks.CreateNetwork, &weftv1.CreateNetworkRequest{Tenant: "way", Name: "blue",
		Spec: &weftv1.NetworkSpec{Subnets: []string{"10.1.0.0/24", "fd00:1::/64"}}})
	if n.Status.Vni < 4096 {
		t.Errorf("VNI %d is not of the default pool", n.Status.Vni)
	}
	p := ok(t, f.ports.CreatePort, &weftv1.CreatePortRequest{Tenant: "way", Name: "web1", Spec: &weftv1.PortSpec{Network: "blue"}})
	if len(p.Status.Macs) != 1 || len(p.Status.Ips) != 2 || p.Status.Ips[0] != "10.1.0.2" || p.Status.Ips[1] != "fd00:1::2" {
		t.Fatalf("allocated %v", p.Status)
	}
	if len(p.Spec.Macs)+len(p.Spec.Ips) != 0 {
		t.Errorf("the spec is not as it was written: %v", p.Spec)
	}
	h1, h2 := f.join(t, "way-h1"), f.join(t, "way-h2")
	h1.open(facts("192.0.2.1", 1500))
	h2.open(facts("192.0.2.2", 1500))

	b := ok(t, h1.agent.Bind, &planv1.BindRequest{Tenant: "way", Port: "web1"})
	h1.holds("web1", h1.uid)
	again := ok(t, h1.agent.Bind, &planv1.BindRequest{Tenant: "way", Port: "web1"})
	if again.Epoch != b.Epoch {
		t.Errorf("binding what is bound moved the epoch from %d to %d", b.Epoch, again.Epoch)
	}
	ok(t, f.ports.CreatePort, &weftv1.CreatePortRequest{Tenant: "way", Name: "web2", Spec: &weftv1.PortSpec{Network: "blue"}})
	ok(t, f.ports.BindPort, &weftv1.BindPortRequest{Tenant: "way", Name: "web2", Host: "way-h2"})
	h2.holds("web1", h1.uid)
	h1.holds("web2", h2.uid)

	moved := ok(t, f.ports.MovePort, &weftv1.MovePortRequest{Tenant: "way", Name: "web1", Host: "way-h2", Epoch: b.Epoch})
	if got := moved.Status.Binding; got.Active != "way-h2" || got.Incoming != "" || got.Epoch <= b.Epoch {
		t.Fatalf("moved to %v", got)
	}
	h2.holds("web1", h2.uid)
	eventually(t, "h1 no longer holds the network", func() bool { return h1.network("way/blue") == nil })

	h2.report(&planv1.Report{Ports: []*planv1.PortReport{{
		Uid: p.Meta.Uid, Epoch: moved.Status.Binding.Epoch, State: planv1.PortState_PORT_STATE_ACTIVE, Interface: "weft0",
		IngressPackets: 7, Drops: []*planv1.Drop{{Reason: "wrong_source_mac", Packets: 3}},
	}}})
	eventually(t, "the report is in the status", func() bool {
		s := ok(t, f.ports.GetPort, &weftv1.GetPortRequest{Tenant: "way", Name: "web1"}).Status
		return s.State == weftv1.PortState_PORT_STATE_ACTIVE && s.Counters.IngressPackets == 7 && len(s.Drops) == 1 && s.Interface == "weft0"
	})
	w := ok(t, f.system.WaitApplied, &weftv1.WaitAppliedRequest{Tenant: "way", Network: "blue", Revision: moved.Status.Binding.Epoch})
	if !w.Complete || len(w.Applied) != 1 || w.Applied[0] != "way-h2" {
		t.Errorf("applied: %v", w)
	}
	ok(t, h2.agent.Unbind, &planv1.UnbindRequest{Tenant: "way", Port: "web1", PortUid: p.Meta.Uid})
	ok(t, f.ports.DeletePort, &weftv1.DeletePortRequest{Tenant: "way", Name: "web1"})
	eventually(t, "the port left the plan", func() bool { return h2.planned("web1") == nil })
}

// TestDSCPFollowsIntent: a network's DSCP model is in its members' plans, follows a change at once, and is told as it was written.
// Break it: leave DscpUniform out of compile's buildNetwork, or Dscp out of networkSpecOut.
func TestDSCPFollowsIntent(t *testing.T) {
	f := server(t)
	ok(t, f.tenants.CreateTenant, &weftv1.CreateTenantRequest{Name: "dscp"})
	n := ok(t, f.networks.CreateNetwork, &weftv1.CreateNetworkRequest{Tenant: "dscp", Name: "blue", Spec: &weftv1.NetworkSpec{}})
	ok(t, f.ports.CreatePort, &weftv1.CreatePortRequest{Tenant: "dscp", Name: "p", Spec: &weftv1.PortSpec{Network: "blue"}})
	h := f.join(t, "dscp-h1")
	h.open(facts("192.0.2.21", 1500))
	ok(t, h.agent.Bind, &planv1.BindRequest{Tenant: "dscp", Port: "p"})
	eventually(t, "the network is planned, as pipe", func() bool {
		got := h.network("dscp/blue")
		return got != nil && !got.DscpUniform
	})
	n = ok(t, f.networks.UpdateNetwork, &weftv1.UpdateNetworkRequest{Tenant: "dscp", Name: "blue", Revision: n.Meta.Revision,
		Spec: &weftv1.NetworkSpec{Dscp: weftv1.DSCP_DSCP_UNIFORM}})
	if n.Spec.Dscp != weftv1.DSCP_DSCP_UNIFORM {
		t.Errorf("the network says %s", n.Spec.Dscp)
	}
	eventually(t, "it is planned as uniform", func() bool { return h.network("dscp/blue").GetDscpUniform() })
}

// TestFastPathFollowsIntent: a port's lane is planned as asked, told as it was written, and what its host says of it stands in the status.
// Break it: leave FastPath out of compile's buildPort, of portSpecOut, or of portStatus.
func TestFastPathFollowsIntent(t *testing.T) {
	f := server(t)
	ok(t, f.tenants.CreateTenant, &weftv1.CreateTenantRequest{Name: "fast"})
	ok(t, f.networks.CreateNetwork, &weftv1.CreateNetworkRequest{Tenant: "fast", Name: "blue", Spec: &weftv1.NetworkSpec{}})
	p := ok(t, f.ports.CreatePort, &weftv1.CreatePortRequest{Tenant: "fast", Name: "quick", Spec: &weftv1.PortSpec{Network: "blue"}})
	h := f.join(t, "fast-h1")
	h.open(facts("192.0.2.31", 1500))
	b := ok(t, h.agent.Bind, &planv1.BindRequest{Tenant: "fast", Port: "quick"})
	p = ok(t, f.ports.UpdatePort, &weftv1.UpdatePortRequest{Tenant: "fast", Name: "quick", Revision: p.Meta.Revision,
		Spec: &weftv1.PortSpec{Network: "blue", FastPath: weftv1.FastPath_FAST_PATH_XDP}})
	if p.Spec.FastPath != weftv1.FastPath_FAST_PATH_XDP || p.Status.FastPath != weftv1.FastPath_FAST_PATH_NONE {
		t.Errorf("asked %s, in force %s", p.Spec.FastPath, p.Status.FastPath)
	}
	eventually(t, "it is planned in the XDP lane", func() bool { return h.planned("quick").GetFastPath() })
	for _, said := range []*planv1.PortReport{
		{Uid: p.Meta.Uid, Epoch: b.Epoch, State: planv1.PortState_PORT_STATE_ACTIVE, FastPathMessage: "gro is off"},
		{Uid: p.Meta.Uid, Epoch: b.Epoch, State: planv1.PortState_PORT_STATE_ACTIVE, FastPath: true},
	} {
		h.report(&planv1.Report{Ports: []*planv1.PortReport{said}})
		eventually(t, "the status has what the host says", func() bool {
			s := ok(t, f.ports.GetPort, &weftv1.GetPortRequest{Tenant: "fast", Name: "quick"}).Status
			return (s.FastPath == weftv1.FastPath_FAST_PATH_XDP) == said.FastPath && s.FastPathMessage == said.FastPathMessage && s.State == weftv1.PortState_PORT_STATE_ACTIVE
		})
	}
}
