package compile

import (
	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/plan"
	"github.com/weftnet/weft/wire"
)

// place is a port's part in membership: its network, and the hosts that its binding names (each once, or empty).
type place struct {
	network model.UID
	hosts   [3]model.UID
}

func placeOf(w *model.World, port model.UID) place {
	p := w.Ports[port]
	if p == nil {
		return place{}
	}
	at := place{network: p.Alloc.NetworkUID}
	if b := w.Bindings[port]; b != nil {
		i := 0
		for h := range b.Hosts() {
			at.hosts[i] = h
			i++
		}
	}
	return at
}

// port looks at a port and its binding. Only a host that gains its first port of the network, or loses its last, touches more than the
// port: its own resource, and the network's if another MTU follows.
func (r *run) port(uid model.UID) {
	r.mark(planv1.Kind_KIND_PORT, uid)
	old, now := r.ports[uid], placeOf(r.w, uid)
	if old == now {
		return
	}
	for _, h := range now.hosts {
		r.count(now.network, h, +1)
	}
	for _, h := range old.hosts {
		r.count(old.network, h, -1)
	}
	if now == (place{}) {
		delete(r.ports, uid)
	} else {
		r.ports[uid] = now
	}
}

// count changes how many ports of a network a host holds, by one.
func (r *run) count(network, host model.UID, by int) {
	if host == "" {
		return
	}
	n, h := r.networkState(network), r.hostState(host)
	was := n.members[host]
	if was != 0 && was+by != 0 {
		n.members[host] = was + by
		return
	}
	r.mark(planv1.Kind_KIND_HOST, host)
	r.members(network, n, func() {
		if was == 0 {
			n.members[host] = by
			h.networks[network] = struct{}{}
		} else {
			delete(n.members, host)
			delete(h.networks, network)
		}
		if h.vtep {
			n.uplinks.add(h.uplink, by)
		}
	})
}

func (r *run) buildPort(uid model.UID) *plan.Resource {
	p := r.w.Ports[uid]
	if p == nil || r.w.Networks[p.Alloc.NetworkUID] == nil {
		return nil
	}
	m := &planv1.Port{
		Uid: string(uid), Network: string(p.Alloc.NetworkUID), Macs: macs(p.Alloc.MACs),
		Unguarded: p.Spec.Unguarded, Forwarding: p.Spec.Forwarding, FastPath: p.Spec.FastPath == model.FastPathXDP,
		TenantName: p.Tenant, Name: p.Name, DhcpServer: p.Spec.DHCPServer, Router: p.Spec.Router, Hostname: p.Spec.Hostname,
		BumLimit: p.Spec.EffectiveBUMLimit(),
	}
	for _, ip := range p.Alloc.IPs {
		m.Ips = append(m.Ips, ip.String())
	}
	for _, pair := range p.Spec.AllowedAddressPairs {
		a := &planv1.AddressPair{Mac: pair.MAC[:]}
		if pair.IP.IsValid() {
			a.Ip = pair.IP.String()
		}
		m.AllowedAddressPairs = append(m.AllowedAddressPairs, a)
	}
	if b := r.w.Bindings[uid]; b != nil {
		m.Epoch = int64(b.Epoch)
		m.Active, m.Incoming, m.Draining = string(b.Active), string(b.Incoming), string(b.Draining)
		if r.hasVTEP(b.Active) {
			m.Vtep = string(b.Active)
		}
	}
	return plan.NewPort(int64(r.w.Revision), m)
}

func macs(in []wire.MAC) [][]byte {
	var out [][]byte
	for _, m := range in {
		out = append(out, m[:])
	}
	return out
}
