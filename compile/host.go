package compile

import (
	"slices"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/plan"
)

// host is what was seen of one: a binding may name it before it is seen itself.
type host struct {
	vtep     bool
	uplink   uplink
	networks map[model.UID]struct{} // those it holds ports of
}

func (c *Compiler) hostState(uid model.UID) *host {
	h := c.hosts[uid]
	if h == nil {
		h = &host{networks: map[model.UID]struct{}{}}
		c.hosts[uid] = h
	}
	return h
}

// hasVTEP says whether a host has a VTEP resource: it exists, and its agent told an address.
func (c *Compiler) hasVTEP(uid model.UID) bool {
	h := c.hosts[uid]
	return h != nil && h.vtep
}

// host looks at a host and its facts. Other addresses touch its VTEP alone; another uplink also those networks it is a
// member of to which another MTU follows; a VTEP that comes or goes also its ports. The other hosts' own resources do not name it.
func (r *run) host(uid model.UID) {
	r.mark(planv1.Kind_KIND_HOST, uid)
	r.mark(planv1.Kind_KIND_VTEP, uid)
	h := r.hostState(uid)
	f := r.w.Facts[uid]
	vtep := r.w.Hosts[uid] != nil && f != nil && len(addresses(f.VTEPAddresses)) > 0
	var now uplink
	if vtep {
		now = uplinkOf(f)
	}
	if vtep == h.vtep && now == h.uplink {
		return
	}
	if h.vtep {
		r.uplinks.add(h.uplink, -1)
	}
	if vtep {
		r.uplinks.add(now, +1)
	}
	for uid := range h.networks {
		n := r.networkState(uid)
		r.members(uid, n, func() {
			if h.vtep {
				n.uplinks.add(h.uplink, -1)
			}
			if vtep {
				n.uplinks.add(now, +1)
			}
		})
	}
	if vtep != h.vtep {
		for p := range r.w.PortsOn(uid) {
			r.mark(planv1.Kind_KIND_PORT, p.UID)
		}
	}
	h.vtep, h.uplink = vtep, now
}

func (r *run) buildHost(uid model.UID) *plan.Resource {
	h := r.w.Hosts[uid]
	state := r.hostState(uid)
	if h == nil {
		if len(state.networks) == 0 && !state.vtep {
			delete(r.hosts, uid)
		}
		return nil
	}
	m := &planv1.Host{Uid: string(uid), Name: h.Name}
	if state.vtep {
		m.Vtep = string(uid)
	}
	var vteps []model.UID // sorted
	for _, n := range sortedKeys(state.networks) {
		network := r.w.Networks[n]
		if network == nil {
			continue
		}
		m.Networks = append(m.Networks, string(n))
		for _, ext := range network.Spec.VTEPs {
			if v := r.w.VTEPs[ext.VTEP]; v != nil {
				if i, found := slices.BinarySearch(vteps, v.UID); !found {
					vteps = slices.Insert(vteps, i, v.UID)
				}
			}
		}
	}
	m.Vteps = texts(vteps)
	return plan.NewHost(int64(r.w.Revision), m)
}
