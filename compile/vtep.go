package compile

import (
	"net/netip"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/plan"
	"github.com/weftnet/weft/wire"
)

// vtep looks at an external VTEP, which networks name; uid is that of the change, which may be of an earlier life.
func (r *run) vtep(name string, uid model.UID) {
	old, now := r.named[name], model.UID("")
	if v := r.w.VTEPs[name]; v != nil {
		now = v.UID
	}
	for _, u := range []model.UID{uid, old, now} {
		if u != "" {
			r.mark(planv1.Kind_KIND_VTEP, u)
		}
	}
	for n := range r.w.NetworksWith(name) {
		r.mark(planv1.Kind_KIND_NETWORK, n.UID)
		if old == now {
			continue
		}
		for h := range r.networkState(n.UID).members {
			r.mark(planv1.Kind_KIND_HOST, h)
		}
	}
	if old != now {
		delete(r.external, old)
		delete(r.named, name)
	}
	if now != "" {
		r.external[now], r.named[name] = name, now
	}
}

func (r *run) buildVTEP(uid model.UID) *plan.Resource {
	if name, ok := r.external[uid]; ok {
		v := r.w.VTEPs[name]
		if v == nil || v.UID != uid {
			return nil
		}
		return plan.NewVTEP(int64(r.w.Revision), &planv1.Vtep{
			Uid: string(uid), Name: name, Addresses: addresses([]netip.Addr{v.Spec.Address}), UdpPort: udpPort(v.Spec.UDPPort),
			OuterChecksum: v.Spec.OuterChecksum, External: true,
		})
	}
	if !r.hasVTEP(uid) {
		return nil
	}
	f := r.w.Facts[uid]
	return plan.NewVTEP(int64(r.w.Revision), &planv1.Vtep{
		Uid: string(uid), Name: r.w.HostName(uid), Addresses: addresses(f.VTEPAddresses), UdpPort: udpPort(f.UDPPort),
		OuterChecksum: r.w.Hosts[uid].Spec.OuterChecksum,
	})
}

// addresses are the first of each family, IPv4 before IPv6.
func addresses(in []netip.Addr) [][]byte {
	var four, six []byte
	for _, a := range in {
		switch a = a.Unmap(); {
		case a.Is4() && four == nil:
			four = a.AsSlice()
		case a.Is6() && six == nil:
			six = a.AsSlice()
		}
	}
	var out [][]byte
	for _, a := range [][]byte{four, six} {
		if a != nil {
			out = append(out, a)
		}
	}
	return out
}

func udpPort(p uint16) uint32 {
	if p == 0 {
		return wire.VXLANPort
	}
	return uint32(p)
}
