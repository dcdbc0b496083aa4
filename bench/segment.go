package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"connectrpc.com/connect"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/client"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/lab"
	"github.com/weftnet/weft/wire"
)

// segment is a network of a contender beside the one that everyone has, on both hosts.
type segment struct {
	name string
	// number of its bridges; its VNI is so many after the first network's.
	number int
	// teacher is a VTEP that others run and that both hosts learn MACs from; invalid: nothing is learned.
	teacher netip.Addr
}

func (s segment) vni() wire.VNI { return benchVNI + wire.VNI(s.number) }

func (s segment) devices() (bridge, vxlan string) {
	return fmt.Sprintf("br%d", s.number), fmt.Sprintf("vx%d", s.number)
}

// member is a workload in a segment.
type member struct {
	segment
	name string
	host int // 0 or 1
	mac  wire.MAC
	addr []netip.Prefix
	// anyMAC lets it send from any, and its host learns them.
	anyMAC bool
}

// joiner is a Contender that takes further workloads.
type joiner interface {
	// member adds one. Its MAC and addresses are known on both hosts when it returns, or soon after.
	member(ctx context.Context, m member) (Workload, error)
}

// ensure makes a segment on both hosts, tuned as the first network is.
func (c *bridgeVXLAN) ensure(s segment) error {
	br, vx := s.devices()
	if _, err := c.uplinks[0].netns.LinkByName(br); err == nil {
		return nil
	}
	for i, u := range c.uplinks {
		h := u.netns
		for _, step := range []func() error{
			func() error { return h.AddBridge(br, innerMTU) },
			func() error {
				return h.AddVXLAN(netdev.VXLAN{Name: vx, VNI: s.vni(), Local: hostAddrs[i], UDPPort: wire.VXLANPort, MTU: innerMTU, Learning: s.teacher.IsValid()})
			},
			func() error { return h.SetMaster(vx, br) },
			func() error { return h.SetBridgePortLearning(vx, false) },
			func() error { return h.AddVXLANFDB(vx, wire.MAC{}, hostAddrs[1-i]) },
			func() error { return h.SetUp(vx) },
			func() error { return h.SetUp(br) },
		} {
			if err := step(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *bridgeVXLAN) member(_ context.Context, m member) (w Workload, err error) {
	if err := c.ensure(m.segment); err != nil {
		return w, err
	}
	near, far, port := c.uplinks[m.host].netns, c.uplinks[1-m.host].netns, "port-"+m.name
	br, vx := m.devices()
	wl, err := c.namespace(m.name)
	if err != nil {
		return w, err
	}
	if _, _, err = near.EnsureVeth(netdev.Veth{Name: port, MTU: innerMTU, Peer: netdev.VethPeer{Namespace: wl, Name: "eth0", MAC: m.mac, Addresses: m.addr}}); err != nil {
		return w, err
	}
	if err := errors.Join(near.SetFeature(port, netdev.GRO, true), near.SetMaster(port, br), near.AddBridgeFDB(port, m.mac),
		near.SetBridgePortLearning(port, m.anyMAC), far.AddBridgeFDB(vx, m.mac), far.AddVXLANFDB(vx, m.mac, hostAddrs[m.host])); err != nil {
		return w, err
	}
	w, err = openWorkload(wl.String(), "eth0", m.addr[0].Addr())
	c.more = append(c.more, w)
	return w, err
}

func (c *weftContender) member(ctx context.Context, m member) (w Workload, err error) {
	state, err := c.lab.State()
	if err != nil {
		return w, err
	}
	api, err := c.lab.Client()
	if err != nil {
		return w, err
	}
	if err := ensureNetwork(ctx, api, m); err != nil {
		return w, err
	}
	var ips []string
	for _, p := range m.addr {
		ips = append(ips, p.Addr().String())
	}
	macs := []string{m.mac.String()}
	if m.anyMAC { // a workload is given a port that exists
		if _, err := api.Ports.CreatePort(ctx, connect.NewRequest(&weftv1.CreatePortRequest{Tenant: "bench", Name: m.name,
			Spec: &weftv1.PortSpec{Network: m.segment.name, Macs: macs, Ips: ips, Unguarded: true}})); err != nil {
			return w, err
		}
	}
	w, err = c.join(ctx, lab.WorkloadSpec{Name: m.name, Host: state.Hosts[m.host].Name, Tenant: "bench", Network: m.segment.name, IPs: ips, MACs: macs}, m.addr[0].Addr())
	c.more = append(c.more, w)
	return w, err
}

// ensureNetwork makes a segment for its first member, whose subnets it has.
func ensureNetwork(ctx context.Context, api *client.Client, m member) error {
	_, err := api.Networks.GetNetwork(ctx, connect.NewRequest(&weftv1.GetNetworkRequest{Tenant: "bench", Name: m.segment.name}))
	if e := client.Explain(err); e == nil || e.Code != connect.CodeNotFound {
		return err
	}
	spec := &weftv1.NetworkSpec{Vni: uint32(m.vni()), Mtu: innerMTU}
	for _, p := range m.addr {
		spec.Subnets = append(spec.Subnets, p.Masked().String())
	}
	if m.teacher.IsValid() {
		if _, err := api.VTEPs.CreateVTEP(ctx, connect.NewRequest(&weftv1.CreateVTEPRequest{Name: m.segment.name, Spec: &weftv1.VTEPSpec{Address: m.teacher.String()}})); err != nil {
			return err
		}
		spec.Vteps = []*weftv1.NetworkVTEP{{Vtep: m.segment.name}}
		spec.Learning = &weftv1.Learning{VtepLimit: learnLimit, PortLimit: learnLimit}
	}
	_, err = api.Networks.CreateNetwork(ctx, connect.NewRequest(&weftv1.CreateNetworkRequest{Tenant: "bench", Name: m.segment.name, Spec: spec}))
	return err
}
