package server

import (
	"testing"

	"connectrpc.com/connect"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
)

const (
	invalid    = connect.CodeInvalidArgument
	notFound   = connect.CodeNotFound
	taken      = connect.CodeAlreadyExists
	conflict   = connect.CodeFailedPrecondition
	stale      = connect.CodeAborted
	exhausted  = connect.CodeResourceExhausted
	denied     = connect.CodePermissionDenied
	unknownWho = connect.CodeUnauthenticated
)

// TestRefusals is what the issue says bad input gets, where the server decides. Break it: drop a Validate from a handler.
func TestRefusals(t *testing.T) {
	f := server(t)
	ok(t, f.tenants.CreateTenant, &weftv1.CreateTenantRequest{Name: "bad"})
	network := func(name string, s *weftv1.NetworkSpec) *weftv1.CreateNetworkRequest {
		return &weftv1.CreateNetworkRequest{Tenant: "bad", Name: name, Spec: s}
	}
	port := func(name string, s *weftv1.PortSpec) *weftv1.CreatePortRequest {
		s.Network = "blue"
		return &weftv1.CreatePortRequest{Tenant: "bad", Name: name, Spec: s}
	}
	ok(t, f.networks.CreateNetwork, network("blue", &weftv1.NetworkSpec{Vni: 6001, Subnets: []string{"10.1.0.0/24"}}))
	ok(t, f.ports.CreatePort, port("p1", &weftv1.PortSpec{Ips: []string{"10.1.0.9"}, Macs: []string{"02:00:00:00:00:01"}}))

	t.Run("tenant", func(t *testing.T) {
		refused(t, f.tenants.CreateTenant, &weftv1.CreateTenantRequest{Name: "bad"}, taken, "name", "bad")
		refused(t, f.tenants.CreateTenant, &weftv1.CreateTenantRequest{Name: "Bad_Name"}, invalid, "name")
		refused(t, f.tenants.GetTenant, &weftv1.GetTenantRequest{Name: "nobody"}, notFound, "name", "weft tenant list")
		refused(t, f.tenants.DeleteTenant, &weftv1.DeleteTenantRequest{Name: "bad"}, conflict, "tenant", "1 network")
	})
	t.Run("network", func(t *testing.T) {
		create := f.networks.CreateNetwork
		refused(t, create, network("n", &weftv1.NetworkSpec{Vni: 16777216}), invalid, "spec.vni", "16777215")
		refused(t, create, network("n", &weftv1.NetworkSpec{Vni: 6001}), taken, "spec.vni", "6001", "bad/blue")
		refused(t, create, network("blue", &weftv1.NetworkSpec{}), taken, "name")
		refused(t, create, network("n", &weftv1.NetworkSpec{Subnets: []string{"10.1.0.0/24", "10.1.0.128/25"}}), invalid, "spec.subnets[1]", "overlaps")
		refused(t, create, network("n", &weftv1.NetworkSpec{Subnets: []string{"10.1.0.7/24"}}), invalid, "spec.subnets[0]", "10.1.0.0/24")
		refused(t, create, network("n", &weftv1.NetworkSpec{Subnets: []string{"10.1.0.7/32"}}), invalid, "spec.subnets[0]")
		refused(t, create, network("n", &weftv1.NetworkSpec{Subnets: []string{"blue"}}), invalid, "spec.subnets[0]")
		refused(t, create, network("n", &weftv1.NetworkSpec{Mtu: 100}), invalid, "spec.mtu", "100")
		refused(t, create, network("n", &weftv1.NetworkSpec{UnknownUnicast: 9}), invalid, "spec.unknown_unicast")
		refused(t, create, network("n", &weftv1.NetworkSpec{Dscp: 2}), invalid, "spec.dscp", "2")
		refused(t, create, network("n", &weftv1.NetworkSpec{Neighbours: 2}), invalid, "spec.neighbours", "2")
		refused(t, create, network("n", &weftv1.NetworkSpec{BumLimit: 10_000_001}), invalid, "spec.bum_limit", "10000001")
		refused(t, create, network("n", &weftv1.NetworkSpec{VniPool: "gold"}), notFound, "spec.vni_pool", "gold")
		refused(t, create, network("n", &weftv1.NetworkSpec{Vteps: []*weftv1.NetworkVTEP{{Vtep: "nowhere"}}}), notFound, "spec.vteps[0].vtep")
		refused(t, create, &weftv1.CreateNetworkRequest{Tenant: "nobody", Name: "n"}, notFound, "tenant")
		refused(t, f.networks.DeleteNetwork, &weftv1.DeleteNetworkRequest{Tenant: "bad", Name: "blue"}, conflict, "network", "1 port")
		refused(t, f.networks.UpdateNetwork, &weftv1.UpdateNetworkRequest{Tenant: "bad", Name: "blue", Spec: &weftv1.NetworkSpec{}}, invalid, "revision")
		refused(t, f.networks.UpdateNetwork, &weftv1.UpdateNetworkRequest{Tenant: "bad", Name: "blue", Revision: 1,
			Spec: &weftv1.NetworkSpec{Vni: 6001, Subnets: []string{"10.1.0.0/24"}}}, stale, "revision")
		now := ok(t, f.networks.GetNetwork, &weftv1.GetNetworkRequest{Tenant: "bad", Name: "blue"})
		refused(t, f.networks.UpdateNetwork, &weftv1.UpdateNetworkRequest{Tenant: "bad", Name: "blue", Revision: now.Meta.Revision,
			Spec: &weftv1.NetworkSpec{Vni: 6001, Subnets: []string{"10.2.0.0/24"}}}, conflict, "spec.subnets", "p1", "10.1.0.9")
		refused(t, f.networks.UpdateNetwork, &weftv1.UpdateNetworkRequest{Tenant: "bad", Name: "blue", Revision: now.Meta.Revision,
			Spec: &weftv1.NetworkSpec{Vni: 6002, Subnets: []string{"10.1.0.0/24"}}}, invalid, "spec.vni")
		refused(t, f.networks.RemoveNetworkVTEP, &weftv1.RemoveNetworkVTEPRequest{Tenant: "bad", Network: "blue", Vtep: "x"}, notFound, "vtep")
	})
	t.Run("port", func(t *testing.T) {
		create := f.ports.CreatePort
		refused(t, create, port("fast", &weftv1.PortSpec{FastPath: 2}), invalid, "spec.fast_path", "2")
		refused(t, create, port("p1", &weftv1.PortSpec{}), taken, "name")
		refused(t, create, port("p", &weftv1.PortSpec{Ips: []string{"10.2.0.1"}}), invalid, "spec.ips[0]", "10.1.0.0/24")
		refused(t, create, port("p", &weftv1.PortSpec{Ips: []string{"10.1.0.9"}}), taken, "spec.ips[0]", "p1")
		refused(t, create, port("p", &weftv1.PortSpec{Ips: []string{"10.1.0.255"}}), invalid, "spec.ips[0]")
		refused(t, create, port("p", &weftv1.PortSpec{Macs: []string{"02:00:00:00:00:01"}}), taken, "spec.macs[0]", "p1")
		refused(t, create, port("p", &weftv1.PortSpec{Macs: []string{"01:00:5e:00:00:01"}}), invalid, "spec.macs[0]", "multicast")
		refused(t, create, port("p", &weftv1.PortSpec{Macs: []string{"00:00:00:00:00:00"}}), invalid, "spec.macs[0]")
		refused(t, create, &weftv1.CreatePortRequest{Tenant: "bad", Name: "p", Spec: &weftv1.PortSpec{Network: "green"}}, notFound, "spec.network")
		refused(t, f.ports.GetPort, &weftv1.GetPortRequest{Tenant: "bad", Name: "p9"}, notFound, "name")
		refused(t, f.ports.UpdatePort, &weftv1.UpdatePortRequest{Tenant: "bad", Name: "p1", Revision: 1, Spec: &weftv1.PortSpec{Network: "blue"}}, stale, "revision")
	})
	t.Run("others", func(t *testing.T) {
		refused(t, f.vteps.CreateVTEP, &weftv1.CreateVTEPRequest{Name: "e", Spec: &weftv1.VTEPSpec{Address: "here"}}, invalid, "spec.address")
		refused(t, f.vteps.CreateVTEP, &weftv1.CreateVTEPRequest{Name: "e", Spec: &weftv1.VTEPSpec{Address: "192.0.2.9", UdpPort: 70000}}, invalid, "spec.udp_port")
		refused(t, f.pools.CreateVNIPool, &weftv1.CreateVNIPoolRequest{Name: "e", Spec: &weftv1.VNIPoolSpec{First: 9, Last: 8}}, invalid, "spec.last")
		refused(t, f.hosts.CreateHostToken, &weftv1.CreateHostTokenRequest{Host: "-"}, invalid, "host")
		refused(t, f.hosts.GetHost, &weftv1.GetHostRequest{Name: "nohost"}, notFound, "name")
		refused(t, f.system.CreateAPIToken, &weftv1.CreateAPITokenRequest{Name: "t"}, invalid, "scope")
		refused(t, f.system.CreateAPIToken, &weftv1.CreateAPITokenRequest{Name: "t", Scope: weftv1.TokenScope_TOKEN_SCOPE_TENANT}, invalid, "tenant")
		refused(t, f.system.WaitApplied, &weftv1.WaitAppliedRequest{Tenant: "bad", Network: "blue", Revision: 1 << 50}, invalid, "revision")
	})
	if n := len(ok(t, f.networks.ListNetworks, &weftv1.ListNetworksRequest{Tenant: "bad"}).Networks); n != 1 {
		t.Errorf("refusals left %d networks, want 1", n)
	}
	if n := len(ok(t, f.ports.ListPorts, &weftv1.ListPortsRequest{Tenant: "bad"}).Ports); n != 1 {
		t.Errorf("refusals left %d ports, want 1", n)
	}
}

// TestBindingRules is architecture section 1. Break it: let bind accept a port that another host has.
func TestBindingRules(t *testing.T) {
	f := server(t)
	ok(t, f.tenants.CreateTenant, &weftv1.CreateTenantRequest{Name: "rules"})
	ok(t, f.networks.CreateNetwork, &weftv1.CreateNetworkRequest{Tenant: "rules", Name: "blue"})
	ok(t, f.ports.CreatePort, &weftv1.CreatePortRequest{Tenant: "rules", Name: "p", Spec: &weftv1.PortSpec{Network: "blue"}})
	h1, h2 := f.join(t, "rules-h1"), f.join(t, "rules-h2")

	refused(t, f.ports.MovePort, &weftv1.MovePortRequest{Tenant: "rules", Name: "p", Host: "rules-h2"}, conflict, "name", "weft port attach")
	b := ok(t, h1.agent.Bind, &planv1.BindRequest{Tenant: "rules", Port: "p"})
	refused(t, h2.agent.Bind, &planv1.BindRequest{Tenant: "rules", Port: "p"}, conflict, "host", "rules-h1", "weft port move p --tenant rules --host rules-h2")
	refused(t, f.ports.BindPort, &weftv1.BindPortRequest{Tenant: "rules", Name: "p", Host: "rules-h2"}, conflict, "host", "rules-h1")
	refused(t, h2.agent.Unbind, &planv1.UnbindRequest{Tenant: "rules", Port: "p"}, conflict, "port", "rules-h1")
	refused(t, h2.agent.Unbind, &planv1.UnbindRequest{Tenant: "rules", Port: "p", PortUid: "older"}, notFound, "port_uid")
	refused(t, h1.ports.MovePort, &weftv1.MovePortRequest{Tenant: "rules", Name: "p", Host: "rules-h2"}, denied, "")
	refused(t, h1.ports.UnbindPort, &weftv1.UnbindPortRequest{Tenant: "rules", Name: "p"}, denied, "")
	refused(t, f.ports.MovePort, &weftv1.MovePortRequest{Tenant: "rules", Name: "p", Host: "rules-h2", Epoch: b.Epoch - 1}, stale, "epoch")
	refused(t, f.ports.UnbindPort, &weftv1.UnbindPortRequest{Tenant: "rules", Name: "p", Epoch: b.Epoch - 1}, stale, "epoch")
	refused(t, f.ports.DeletePort, &weftv1.DeletePortRequest{Tenant: "rules", Name: "p"}, conflict, "port", "weft port detach p --tenant rules")
	refused(t, f.hosts.RemoveHost, &weftv1.RemoveHostRequest{Name: "rules-h1"}, conflict, "host", "--force")

	gone := ok(t, f.hosts.RemoveHost, &weftv1.RemoveHostRequest{Name: "rules-h1", Force: true})
	if len(gone.UnboundPorts) != 1 || gone.UnboundPorts[0] != "rules/p" {
		t.Errorf("unbound: %v", gone.UnboundPorts)
	}
	now := ok(t, f.ports.GetPort, &weftv1.GetPortRequest{Tenant: "rules", Name: "p"})
	if now.Status.State != weftv1.PortState_PORT_STATE_UNBOUND || now.Status.Binding.Epoch <= b.Epoch {
		t.Errorf("after the forced removal: %v", now.Status)
	}
	ok(t, h2.agent.Bind, &planv1.BindRequest{Tenant: "rules", Port: "p"})
}

// TestMTU refuses what an underlay cannot carry, with both numbers. Break it: let hostCarries return nil.
func TestMTU(t *testing.T) {
	f := server(t)
	ok(t, f.tenants.CreateTenant, &weftv1.CreateTenantRequest{Name: "mtu"})
	big := ok(t, f.networks.CreateNetwork, &weftv1.CreateNetworkRequest{Tenant: "mtu", Name: "big", Spec: &weftv1.NetworkSpec{Mtu: 8900}})
	ok(t, f.ports.CreatePort, &weftv1.CreatePortRequest{Tenant: "mtu", Name: "p", Spec: &weftv1.PortSpec{Network: "big"}})
	small, jumbo := f.join(t, "mtu-small"), f.join(t, "mtu-jumbo")
	small.open(facts("192.0.2.11", 1500))
	jumbo.open(facts("192.0.2.12", 9000))
	eventually(t, "both hosts said their MTU", func() bool {
		a := ok(t, f.hosts.GetHost, &weftv1.GetHostRequest{Name: "mtu-small"})
		b := ok(t, f.hosts.GetHost, &weftv1.GetHostRequest{Name: "mtu-jumbo"})
		return a.Status.UplinkMtu == 1500 && b.Status.UplinkMtu == 9000
	})
	refused(t, small.agent.Bind, &planv1.BindRequest{Tenant: "mtu", Port: "p"}, conflict, "host", "8950", "1500", "mtu-small")
	ok(t, jumbo.agent.Bind, &planv1.BindRequest{Tenant: "mtu", Port: "p"})
	refused(t, f.ports.MovePort, &weftv1.MovePortRequest{Tenant: "mtu", Name: "p", Host: "mtu-small"}, conflict, "host", "8950", "1500")
	refused(t, f.networks.UpdateNetwork, &weftv1.UpdateNetworkRequest{Tenant: "mtu", Name: "big", Revision: big.Meta.Revision,
		Spec: &weftv1.NetworkSpec{Mtu: 8951}}, conflict, "spec.mtu", "9001", "9000", "mtu-jumbo")
	set := ok(t, f.networks.UpdateNetwork, &weftv1.UpdateNetworkRequest{Tenant: "mtu", Name: "big", Revision: big.Meta.Revision,
		Spec: &weftv1.NetworkSpec{Mtu: 0}})
	if set.Status.Mtu != 8950 {
		t.Errorf("effective MTU %d, want 8950", set.Status.Mtu)
	}
	// A pinned network whose member's uplink shrinks is a condition of that host.
	ok(t, f.networks.UpdateNetwork, &weftv1.UpdateNetworkRequest{Tenant: "mtu", Name: "big", Revision: set.Meta.Revision,
		Spec: &weftv1.NetworkSpec{Mtu: 8900}})
	jumbo.say(&planv1.AgentMessage{Message: &planv1.AgentMessage_Facts{Facts: facts("192.0.2.12", 1500)}})
	eventually(t, "the shrunken uplink is a condition", func() bool {
		h := ok(t, f.hosts.GetHost, &weftv1.GetHostRequest{Name: "mtu-jumbo"})
		return h.Status.State == weftv1.HostState_HOST_STATE_DEGRADED && len(h.Status.Conditions) == 1 && h.Status.Conditions[0].Name == "mtu"
	})
}

// TestPoolExhausted: a full pool refuses the network that does not fit, and a freed VNI comes back only after its
// quarantine. Break it: drop freeVNIs.
func TestPoolExhausted(t *testing.T) {
	f := server(t)
	ok(t, f.tenants.CreateTenant, &weftv1.CreateTenantRequest{Name: "pool"})
	ok(t, f.pools.CreateVNIPool, &weftv1.CreateVNIPoolRequest{Name: "tiny", Spec: &weftv1.VNIPoolSpec{First: 100, Last: 101}})
	create := func(name string) *weftv1.CreateNetworkRequest {
		return &weftv1.CreateNetworkRequest{Tenant: "pool", Name: name, Spec: &weftv1.NetworkSpec{VniPool: "tiny"}}
	}
	h := f.join(t, "pool-h")
	h.open(facts("192.0.2.21", 1500))
	n1 := ok(t, f.networks.CreateNetwork, create("n1"))
	ok(t, f.networks.CreateNetwork, create("n2"))
	refused(t, f.networks.CreateNetwork, create("n3"), exhausted, "spec.vni_pool", "tiny")

	ok(t, f.ports.CreatePort, &weftv1.CreatePortRequest{Tenant: "pool", Name: "p", Spec: &weftv1.PortSpec{Network: "n1"}})
	ok(t, h.agent.Bind, &planv1.BindRequest{Tenant: "pool", Port: "p"})
	h.holds("p", h.uid)
	h.setMute(true)
	ok(t, h.agent.Unbind, &planv1.UnbindRequest{Tenant: "pool", Port: "p"})
	ok(t, f.ports.DeletePort, &weftv1.DeletePortRequest{Tenant: "pool", Name: "p"})
	gone := ok(t, f.networks.DeleteNetwork, &weftv1.DeleteNetworkRequest{Tenant: "pool", Name: "n1"})
	if s := ok(t, f.pools.GetVNIPool, &weftv1.GetVNIPoolRequest{Name: "tiny"}).Status; s.Quarantined != 1 || s.Used != 1 || s.Free != 0 {
		t.Fatalf("pool %v", s)
	}
	refused(t, f.networks.CreateNetwork, create("n3"), exhausted, "spec.vni_pool")
	eventually(t, "the host heard of the deletion", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.staging.Revision() >= gone.Revision
	})
	h.acknowledge()
	eventually(t, "the VNI is free", func() bool {
		return ok(t, f.pools.GetVNIPool, &weftv1.GetVNIPoolRequest{Name: "tiny"}).Status.Free == 1
	})
	if n := ok(t, f.networks.CreateNetwork, create("n3")); n.Status.Vni != n1.Status.Vni {
		t.Errorf("VNI %d, want %d", n.Status.Vni, n1.Status.Vni)
	}
}
