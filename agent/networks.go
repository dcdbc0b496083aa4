package agent

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"connectrpc.com/connect"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/wire"
)

// mostFDB bounds what one answer lists of a network's FDB.
const mostFDB = 10_000

func (s *localService) ListNetworks(ctx context.Context, req *connect.Request[localv1.ListNetworksRequest]) (*connect.Response[localv1.ListNetworksResponse], error) {
	res := &localv1.ListNetworksResponse{}
	err := s.agent.do(ctx, func() { res.Networks = s.agent.heldNetworks(wire.VNI(req.Msg.Vni), req.Msg.Brief) })
	return connect.NewResponse(res), err
}

// heldNetworks are the networks that the kernel holds, by name. In the loop.
func (a *Agent) heldNetworks(only wire.VNI, brief bool) (list []*localv1.HeldNetwork) {
	byVNI := map[wire.VNI]*localv1.HeldNetwork{}
	for vni, have := range a.rec.tables.nets {
		if vni == wire.OAMVNI || only != 0 && vni != only {
			continue
		}
		byVNI[vni] = a.heldNetwork(have)
		list = append(list, byVNI[vni])
	}
	a.heldPorts(byVNI)
	if !brief {
		a.heldFDB(byVNI)
	}
	slices.SortFunc(list, func(x, y *localv1.HeldNetwork) int {
		return cmp.Or(cmp.Compare(x.Name, y.Name), cmp.Compare(x.Vni, y.Vni))
	})
	return list
}

var unknownWord = map[datapath.UnknownUnicast]string{
	datapath.UnknownExternal: "external", datapath.UnknownFlood: "flood", datapath.UnknownDrop: "drop",
}

func (a *Agent) heldNetwork(have datapath.Network) *localv1.HeldNetwork {
	m := &localv1.HeldNetwork{Vni: uint32(have.VNI), Mtu: uint32(have.MTU), UnknownUnicast: unknownWord[have.Unknown]}
	if n := a.rec.view.nets[a.rec.view.byVNI[have.VNI]]; n != nil {
		m.Name = n.display
	}
	for _, id := range have.Remotes {
		m.Remotes = append(m.Remotes, a.rec.tables.vteps[id].Addr.String())
	}
	slices.Sort(m.Remotes)
	return m
}

// heldPorts adds the ports that have, or are to have, an interface here.
func (a *Agent) heldPorts(byVNI map[wire.VNI]*localv1.HeldNetwork) {
	drops, err := a.kernel.Drops()
	if err != nil {
		a.log.Error("the drop counters cannot be read", "err", err)
	}
	dropped := map[datapath.PortID]uint64{}
	for _, d := range drops {
		dropped[d.ID] += d.Packets
	}
	for uid, at := range a.atts.byUID {
		p := a.rec.view.ports[uid]
		if p == nil || a.rec.view.nets[p.network] == nil {
			continue
		}
		net := byVNI[a.rec.view.nets[p.network].vni]
		if net == nil {
			continue
		}
		state, message := a.portState(uid)
		m := &localv1.HeldPort{Name: at.Port, Interface: at.Interface, State: stateWord[state], Message: message}
		for _, mac := range p.macs {
			m.Macs = append(m.Macs, mac.String())
		}
		c := a.tallies.Open[uid]
		if id := a.rec.portIDs[uid]; id != 0 {
			now, err := a.kernel.PortCounters(id)
			if err != nil {
				a.log.Error("a port's counters cannot be read", "port", uid, "err", err)
			}
			c, m.Dropped = sum(c, now), dropped[id]
		}
		m.IngressPackets, m.IngressOctets, m.EgressPackets, m.EgressOctets = c.IngressPackets, c.IngressOctets, c.EgressPackets, c.EgressOctets
		net.Ports = append(net.Ports, m)
	}
	for _, net := range byVNI {
		slices.SortFunc(net.Ports, func(x, y *localv1.HeldPort) int { return cmp.Compare(x.Name, y.Name) })
	}
}

// heldFDB adds where each MAC is, in the order of the MACs.
func (a *Agent) heldFDB(byVNI map[wire.VNI]*localv1.HeldNetwork) {
	names := map[uint32]string{} // by interface
	for ifindex, have := range a.rec.tables.ports {
		names[ifindex] = a.atts.byUID[have.UID].Port
	}
	for vni, net := range byVNI {
		held := a.rec.tables.fdb[vni]
		macs := slices.Sorted(maps.Keys(held))
		if extra := len(macs) - mostFDB; extra > 0 {
			net.Unlisted += uint32(extra)
			macs = macs[:mostFDB]
		}
		for _, mac := range macs {
			e := held[mac]
			m := &localv1.FdbEntry{Mac: mac.mac().String()}
			if e.remote {
				m.Vtep = a.rec.tables.vteps[e.vtep()].Addr.String()
			} else {
				m.Port = names[e.at]
			}
			net.Fdb = append(net.Fdb, m)
		}
	}
}
