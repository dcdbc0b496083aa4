package datapath

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/bpf"
)

// PutVTEPs writes entries. Those whose id is beyond the limit are refused, the others written.
func (d *Datapath) PutVTEPs(list []VTEP) error {
	keys, values := make([]uint32, 0, len(list)), make([]bpf.TCVtep, 0, len(list))
	refused := 0
	for _, v := range list {
		if v.ID == 0 || !v.Addr.IsValid() || v.UDPPort == 0 {
			return fmt.Errorf("vtep %d at %s, UDP port %d: an entry needs all three", v.ID, v.Addr, v.UDPPort)
		}
		if int(v.ID) > d.vteps.Limit() {
			refused++
			continue
		}
		e := bpf.TCVtep{Addr: addrOf(v.Addr), UdpPort: swap16(v.UDPPort), Flags: bpf.TCVtepFlagsVTEP_PRESENT}
		if v.Addr.Is6() && !v.Addr.Is4In6() {
			e.Flags |= bpf.TCVtepFlagsVTEP_IP6
		}
		if v.Addr.IsMulticast() {
			e.Flags |= bpf.TCVtepFlagsVTEP_GROUP
			e.Ifindex = v.Uplink
		}
		if v.OuterChecksum {
			e.Flags |= bpf.TCVtepFlagsVTEP_CHECKSUM
		}
		keys, values = append(keys, uint32(v.ID)), append(values, e)
	}
	if err := d.vteps.Put(keys, values); err != nil {
		return err
	}
	if refused > 0 {
		return d.vteps.Refuse(refused)
	}
	return nil
}

// DeleteVTEPs removes entries; absent ones are fine.
func (d *Datapath) DeleteVTEPs(ids []VTEPID) error {
	keys := make([]uint32, 0, len(ids))
	for _, id := range ids {
		if id != 0 && int(id) <= d.vteps.Limit() {
			keys = append(keys, uint32(id))
		}
	}
	if err := d.vteps.Put(keys, make([]bpf.TCVtep, len(keys))); err != nil { // an array has no absent entries, only zero ones
		return err
	}
	gone := map[uint32]bool{}
	for _, id := range keys {
		gone[id] = true
	}
	return d.forgetPlaces(func(k bpf.TCLearnerKey) bool { return gone[k.Place] })
}

// SetHops says which next hops to a VTEP are equal, so that flows are spread over them: in the order given, which should not change without
// need, as flows follow it. Fewer than two leave the choice to the kernel, and so does a hop that the kernel itself does not name.
func (d *Datapath) SetHops(id VTEPID, list []Hop) error {
	if id == 0 || int(id) > d.hops.Limit() {
		return d.hops.Refuse(1)
	}
	var set bpf.TCHops
	for _, h := range list[:min(len(list), MaxHops)] {
		e := bpf.TCHop{Ifindex: h.Ifindex, Gateway: addrOf(h.Gateway), Family: unix.AF_INET6}
		if h.Gateway.Is4() {
			e.Gateway.W[2], e.Family = 0, unix.AF_INET // as the kernel's answers have it
		}
		if h.Down {
			e.Flags = bpf.TCHopFlagsHOP_DOWN
		}
		set.Hop[set.Count] = e
		set.Count++
	}
	return d.hops.PutOne(uint32(id), set)
}

// VTEPs reads the table, in no order.
func (d *Datapath) VTEPs() (list []VTEP, err error) {
	err = d.vteps.All(func(id uint32, v bpf.TCVtep) {
		if v.Flags == 0 {
			return
		}
		list = append(list, VTEP{ID: VTEPID(id), Addr: netipOf(v.Addr), UDPPort: swap16(v.UdpPort), Uplink: v.Ifindex,
			OuterChecksum: v.Flags&bpf.TCVtepFlagsVTEP_CHECKSUM != 0})
	})
	return list, err
}
