package agent

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"

	"connectrpc.com/connect"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/wire"
)

// mostFDB bounds what one answer lists of a network's FDB.
const mostFDB = 10_000

func (s *localService) ListNetworks(ctx context.Context, req *connect.Request[localv1.ListNetworksRequest]) (*connect.Response[localv1.ListNetworksResponse], error) {
	res := &localv1.ListNetworksResponse{}
	var learned []datapath.LearnedMAC
	if !req.Msg.Brief {
		var err error
		if learned, err = s.agent.kernel.Learned(); err != nil { // outside the loop: it may be long
			return nil, err
		}
	}
	err := s.agent.do(ctx, func() { res.Networks = s.agent.heldNetworks(wire.VNI(req.Msg.Vni), req.Msg.Brief, learned) })
	return connect.NewResponse(res), err
}

// heldNetworks are the networks that the kernel holds, by name. In the loop.
func (a *Agent) heldNetworks(only wire.VNI, brief bool, learned []datapath.LearnedMAC) (list []*localv1.HeldNetwork) {
	byVNI := map[wire.VNI]*localv1.HeldNetwork{}
	for vni, have := range a.rec.tables.nets {
		if vni == wire.OAMVNI || only != 0 && vni != only {
			continue
		}
		byVNI[vni] = a.heldNetwork(have)
		list = append(list, byVNI[vni])
	}
	a.heldPorts(byVNI)
	a.heldGroups(byVNI)
	if !brief {
		a.heldFDB(byVNI, learned)
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
		if addr := a.rec.tables.vteps[id].Addr; !addr.IsMulticast() { // a group is no VTEP: see heldGroups
			m.Remotes = append(m.Remotes, addr.String())
		}
	}
	slices.Sort(m.Remotes)
	return m
}

// heldGroups adds by which groups floods come in and go out, and how much the ports here flooded.
func (a *Agent) heldGroups(byVNI map[wire.VNI]*localv1.HeldNetwork) {
	counts, err := a.kernel.FloodCounts()
	if err != nil {
		a.log.Error("what was flooded cannot be read", "err", err)
	}
	uplink := ""
	if _, byName, err := namedLinks(a.links); err == nil {
		for _, l := range byName {
			if l.Index == a.member.index {
				uplink = l.Name
			}
		}
	}
	for vni, net := range byVNI {
		net.Floods, net.Copies = counts[vni].Floods, counts[vni].Copies
		n := a.rec.view.nets[a.rec.view.byVNI[vni]]
		if n == nil {
			continue
		}
		groups := slices.Clone(n.joined)
		if n.group.IsValid() && !slices.Contains(groups, n.group) {
			groups = append(groups, n.group)
		}
		for _, g := range groups {
			m := &localv1.HeldGroup{Group: g.String(), Sends: g == n.group}
			switch err := a.rec.failed.joins[g]; {
			case a.member.have[g]:
				m.Uplink = uplink
			case !a.rec.carries(g):
				m.Message = "this end of the underlay has no address of its IP version: each VTEP gets a copy"
			case err != nil:
				m.Message = err.Error()
			}
			net.Groups = append(net.Groups, m)
		}
	}
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

// heldFDB adds where each MAC is, in the order of the MACs: what the plan says, and what was learned. Of one that is both, what the plan says wins.
func (a *Agent) heldFDB(byVNI map[wire.VNI]*localv1.HeldNetwork, learned []datapath.LearnedMAC) {
	names := map[uint32]string{} // by interface
	for ifindex, have := range a.rec.tables.ports {
		names[ifindex] = a.atts.byUID[have.UID].Port
	}
	of := map[wire.VNI][]datapath.LearnedMAC{}
	for _, m := range learned {
		if _, static := a.rec.tables.fdb.get(m.FDBKey); byVNI[m.VNI] != nil && !static {
			of[m.VNI] = append(of[m.VNI], m)
		}
	}
	for vni, net := range byVNI {
		held := a.rec.tables.fdb[vni]
		all := make([]*localv1.FdbEntry, 0, min(len(held)+len(of[vni]), 2*mostFDB))
		macs := slices.Sorted(maps.Keys(held))
		for _, mac := range macs[:min(len(macs), mostFDB)] {
			m := &localv1.FdbEntry{Mac: mac.mac().String()}
			if e := held[mac]; e.remote {
				m.Vtep = a.rec.tables.vteps[e.vtep()].Addr.String()
			} else {
				m.Port = names[e.at]
			}
			all = append(all, m)
		}
		slices.SortFunc(of[vni], func(x, y datapath.LearnedMAC) int { return bytes.Compare(x.MAC[:], y.MAC[:]) })
		for _, l := range of[vni][:min(len(of[vni]), mostFDB)] {
			all = append(all, a.learnedEntry(l))
		}
		slices.SortStableFunc(all, func(x, y *localv1.FdbEntry) int { return cmp.Compare(x.Mac, y.Mac) })
		net.Fdb = all[:min(len(all), mostFDB)]
		net.Unlisted = uint32(len(held) + len(of[vni]) - len(net.Fdb))
	}
}

func (a *Agent) learnedEntry(l datapath.LearnedMAC) *localv1.FdbEntry {
	m := &localv1.FdbEntry{Mac: l.MAC.String(), Learned: true, AgeNanoseconds: int64(l.Age), LeftNanoseconds: int64(l.Left), Moves: uint32(l.Moves), Frozen: l.Frozen}
	switch where := a.placeWord(l.VTEP, l.Port); {
	case l.Port == 0:
		m.Vtep = strings.TrimPrefix(where, "VTEP ")
	default:
		_, m.Port, _ = strings.Cut(strings.TrimPrefix(where, "port "), "/") // the network is above it
	}
	return m
}
