package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"

	"connectrpc.com/connect"
	"github.com/cilium/ebpf"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/lab"
	"github.com/weftnet/weft/wire"
)

// Head-end replication: one port, whose network has many VTEPs that nobody answers for. Every copy is counted and dropped as it leaves
// its host, by the last program on the uplink's egress hook: what the underlay and a receiver would do with it, which is the same for
// all contenders and would dilute every ratio, is not part of the measure.
//
//	workload: generator -> eth0 ==> host -> copies -> uplink's egress hook: counter, drop

const (
	floodVNI = benchVNI + 1
	// floodBurst of frames are on their way at most.
	floodBurst = 32
	// noLimit: the copies are measured, not the budget of them.
	noLimit  = math.MaxUint32
	overhead = 50 // outer Ethernet, IPv4, UDP and VXLAN headers
)

// flooder is a Contender that can replicate.
type flooder interface {
	// flood gives a workload whose broadcasts go to n VTEPs, and where the copies come by.
	flood(ctx context.Context, n int) (Workload, end, error)
}

var floodNet = netip.MustParsePrefix("100.64.0.0/16")

// floodVTEPs are n addresses in it.
func floodVTEPs(n int) []netip.Addr {
	addrs := make([]netip.Addr, n)
	a := floodNet.Addr()
	for i := range addrs {
		a = a.Next()
		addrs[i] = a
	}
	return addrs
}

var floodAddr = netip.MustParseAddr("10.98.0.11")

func routeFlood(h *netdev.Handle, ifname string, gateway netip.Addr) error {
	l, err := h.LinkByName(ifname)
	if err != nil {
		return err
	}
	return h.ReplaceRoute(netdev.Route{Dst: floodNet, Hops: []netdev.Hop{{Gateway: gateway, Index: l.Index}}})
}

func (c *bridgeVXLAN) flood(_ context.Context, n int) (w Workload, at end, err error) {
	h := c.uplinks[0].netns
	wl, err := c.namespace("w3")
	if err != nil {
		return w, at, err
	}
	if _, _, err = h.EnsureVeth(netdev.Veth{Name: "port1", MTU: innerMTU,
		Peer: netdev.VethPeer{Namespace: wl, Name: "eth0", MAC: wire.MAC{0x02, 0x77, 0x65, 0, 0, 0x0d}, Addresses: []netip.Prefix{netip.PrefixFrom(floodAddr, 24)}}}); err != nil {
		return w, at, err
	}
	steps := []func() error{
		func() error { return routeFlood(h, "up0", hostAddrs[1]) },
		func() error { return h.AddBridge("br1", innerMTU) },
		func() error {
			return h.AddVXLAN(netdev.VXLAN{Name: "vx1", VNI: floodVNI, Local: hostAddrs[0], UDPPort: wire.VXLANPort, MTU: innerMTU})
		},
		func() error { return h.SetMaster("vx1", "br1") },
		func() error { return h.SetMaster("port1", "br1") },
		func() error { return h.SetBridgePortLearning("vx1", false) },
		func() error { return h.SetBridgePortLearning("port1", false) },
		func() error { return h.SetFeature("port1", netdev.GRO, true) },
		func() error { return h.SetUp("vx1") },
		func() error { return h.SetUp("br1") },
	}
	for _, addr := range floodVTEPs(n) {
		steps = append(steps, func() error { return h.AddVXLANFDB("vx1", wire.MAC{}, addr) })
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return w, at, err
		}
	}
	if w, err = openWorkload(wl.String(), "eth0", floodAddr); err != nil {
		return w, at, err
	}
	c.more = append(c.more, w)
	return leaving(w, c.uplinks[0])
}

// leaving is where what a host sends is counted.
func leaving(w Workload, u uplink) (Workload, end, error) {
	l, err := u.netns.LinkByName(u.ifname)
	return w, end{u.netns, l.Index, ebpf.AttachTCXEgress}, err
}

func (c *weftContender) flood(ctx context.Context, n int) (w Workload, at end, err error) {
	state, err := c.lab.State()
	if err != nil {
		return w, at, err
	}
	far, err := c.uplinks[1].netns.Addresses(c.uplinks[1].ifname)
	if err != nil {
		return w, at, err
	}
	gateway := netip.Addr{}
	for _, a := range far {
		if a.Prefix.Addr().Is4() {
			gateway = a.Prefix.Addr()
		}
	}
	if err = routeFlood(c.uplinks[0].netns, c.uplinks[0].ifname, gateway); err != nil {
		return w, at, err
	}
	api, err := c.lab.Client()
	if err != nil {
		return w, at, err
	}
	spec := &weftv1.NetworkSpec{Vni: floodVNI, Subnets: []string{netip.PrefixFrom(floodAddr, 24).Masked().String()}, Mtu: innerMTU, BumLimit: noLimit}
	for i, addr := range floodVTEPs(n) {
		name := fmt.Sprintf("sink%d", i)
		if _, err = api.VTEPs.CreateVTEP(ctx, connect.NewRequest(&weftv1.CreateVTEPRequest{Name: name, Spec: &weftv1.VTEPSpec{Address: addr.String()}})); err != nil {
			return w, at, err
		}
		spec.Vteps = append(spec.Vteps, &weftv1.NetworkVTEP{Vtep: name})
	}
	if _, err = api.Networks.CreateNetwork(ctx, connect.NewRequest(&weftv1.CreateNetworkRequest{Tenant: "bench", Name: "flood", Spec: spec})); err != nil {
		return w, at, err
	}
	if _, err = api.Ports.CreatePort(ctx, connect.NewRequest(&weftv1.CreatePortRequest{Tenant: "bench", Name: "w3",
		Spec: &weftv1.PortSpec{Network: "flood", Ips: []string{floodAddr.String()}, BumLimit: noLimit}})); err != nil {
		return w, at, err
	}
	if w, err = c.join(ctx, lab.WorkloadSpec{Name: "w3", Host: state.Hosts[0].Name, Tenant: "bench", Network: "flood", IPs: []string{floodAddr.String()}}, floodAddr); err != nil {
		return w, at, err
	}
	c.more = append(c.more, w)
	return leaving(w, c.uplinks[0])
}

const replicateMeasure = "head-end replication"

// replicate measures broadcasts of one port to many VTEPs.
func (f *field) replicate(ctx context.Context) ([]Series, error) {
	contenders, err := f.need(ctx, weftName, tunedName)
	if err != nil {
		return nil, err
	}
	n := f.cfg.VTEPs
	type path struct {
		w  Workload
		at end
	}
	paths := map[string]path{}
	t := traffic{Length: frameOctets, Broadcast: true, Burst: floodBurst, Batch: 1, Patient: true, Copies: n, Longer: overhead}
	for _, c := range contenders {
		w, at, err := c.(flooder).flood(ctx, n)
		if err != nil {
			return nil, fmt.Errorf("build %d VTEPs for %s: %w", n, c.Name(), err)
		}
		paths[c.Name()] = path{w, at}
		// The first frames may come before the last VTEP, or before the next hop is known.
		if werr := waitFor(ctx, carryPatience, c.Name()+" to copy to every VTEP", func() bool {
			_, err = packetCostTo(w, w, at, t, 1)
			return err == nil
		}); werr != nil {
			return nil, errors.Join(werr, err)
		}
	}
	s, err := f.compare(ctx, Series{Measure: fmt.Sprintf("%s to %d VTEPs", replicateMeasure, n), Unit: "million copies/s", Higher: true}, contenders,
		func(c Contender) (float64, error) {
			p := paths[c.Name()]
			ns, err := packetCostTo(p.w, p.w, p.at, t, max(f.cfg.Frames/100, floodBurst))
			return float64(n) * 1e3 / ns, err
		})
	return []Series{s}, err
}
