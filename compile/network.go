package compile

import (
	"slices"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/plan"
)

// network is what was seen of one: it may have members before it is seen itself.
type network struct {
	exists   bool
	external []string          // names of its external VTEPs
	members  map[model.UID]int // host to ports held
	uplinks  tally             // of the members that have a VTEP
	mtu      int               // as made
}

func (c *Compiler) networkState(uid model.UID) *network {
	n := c.networks[uid]
	if n == nil {
		n = &network{members: map[model.UID]int{}, uplinks: tally{}}
		c.networks[uid] = n
	}
	return n
}

// network looks at a network. Its members hear of it when it comes or goes, or when its external VTEPs change; its ports
// only when it comes or goes.
func (r *run) network(uid model.UID) {
	r.mark(planv1.Kind_KIND_NETWORK, uid)
	n, now := r.networkState(uid), r.w.Networks[uid]
	var external []string
	if now != nil {
		for _, v := range now.Spec.VTEPs {
			external = append(external, v.VTEP)
		}
	}
	flipped := n.exists != (now != nil)
	if flipped {
		for p := range r.w.PortsOf(uid) {
			r.mark(planv1.Kind_KIND_PORT, p.UID)
		}
	}
	if flipped || !slices.Equal(n.external, external) {
		for h := range n.members {
			r.mark(planv1.Kind_KIND_HOST, h)
		}
	}
	n.exists, n.external = now != nil, external
}

// members changes what is known of a network's members and their uplinks. That touches the network only if another MTU may follow: its
// resource does not name them.
func (r *run) members(uid model.UID, n *network, change func()) {
	was, none := r.tightest(n), len(n.members) == 0
	change()
	if r.tightest(n) != was || none != (len(n.members) == 0) {
		r.mark(planv1.Kind_KIND_NETWORK, uid)
	}
}

// markMemberless marks the networks whose MTU follows from all hosts.
func (r *run) markMemberless() {
	for uid, n := range r.networks {
		if n.exists && len(n.members) == 0 {
			r.mark(planv1.Kind_KIND_NETWORK, uid)
		}
	}
}

func (r *run) buildNetwork(uid model.UID) *plan.Resource {
	n := r.w.Networks[uid]
	state := r.networkState(uid)
	if n == nil {
		if len(state.members) == 0 {
			delete(r.networks, uid)
		}
		return nil
	}
	state.mtu = r.mtu(n)
	m := &planv1.Network{
		Uid: string(uid), Vni: uint32(n.Alloc.VNI), Mtu: uint32(state.mtu),
		UnknownUnicast: unknownUnicast(n.Spec.UnknownUnicast), Display: n.Tenant + "/" + n.Name,
		DscpUniform: n.Spec.DSCP == model.DSCPUniform, BumLimit: n.Spec.EffectiveBUMLimit(),
	}
	if n.Spec.Neighbours == model.NeighboursFlood {
		m.Neighbours = planv1.Neighbours_NEIGHBOURS_FLOOD
	}
	for _, ext := range n.Spec.VTEPs {
		if v := r.w.VTEPs[ext.VTEP]; v != nil {
			m.External = append(m.External, &planv1.ExternalVtep{Vtep: string(v.UID), Macs: macs(ext.MACs)})
			if n.Alloc.Flood.Sends.IsValid() && !receivesGroup(ext, v, n.Alloc.Flood.Sends) {
				m.Copies = append(m.Copies, string(v.UID))
			}
		}
	}
	m.Dhcp = dhcp(n.Spec.EffectiveDHCP())
	requires := []string{plan.FeatureMembers}
	if n.Spec.Learning != nil {
		m.Learning = learning(n.Spec.Learning.Effective())
		requires = append(requires, plan.FeatureLearning)
	}
	requires = append(requires, flood(n.Alloc.Flood, m)...)
	return plan.NewNetwork(int64(r.w.Revision), m, requires...)
}

func learning(l model.Learning) *planv1.Learning {
	out := &planv1.Learning{AgeingSeconds: uint32(l.Ageing.Seconds()), VtepLimit: uint32(l.VTEPLimit), PortLimit: uint32(l.PortLimit)}
	for _, p := range l.Sources {
		out.Sources = append(out.Sources, p.String())
	}
	return out
}

func unknownUnicast(u model.UnknownUnicast) planv1.UnknownUnicast {
	switch u {
	case model.UnknownUnicastFlood:
		return planv1.UnknownUnicast_UNKNOWN_UNICAST_FLOOD
	case model.UnknownUnicastDrop:
		return planv1.UnknownUnicast_UNKNOWN_UNICAST_DROP
	default:
		return planv1.UnknownUnicast_UNKNOWN_UNICAST_EXTERNAL
	}
}

// Members are the hosts that hold a port of the network, in whatever role, sorted.
func (c *Compiler) Members(network model.UID) []model.UID {
	if n := c.networks[network]; n != nil {
		return sortedKeys(n.members)
	}
	return nil
}
