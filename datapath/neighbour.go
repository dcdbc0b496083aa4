package datapath

import (
	"fmt"
	"slices"

	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/wire"
)

// PutNeighbours writes entries. Where some do not fit, the others are written all the same and the error says how many were not.
func (d *Datapath) PutNeighbours(list []Neighbour) error {
	keys, values := make([]bpf.TCNeighbourKey, len(list)), make([]bpf.TCNeighbour, len(list))
	for i, n := range list {
		if !n.IP.IsValid() {
			return fmt.Errorf("a neighbour in VNI %d has no address", n.VNI)
		}
		if n.MAC.IsZero() && !n.Ask {
			return fmt.Errorf("neighbour %s in VNI %d has no MAC", n.IP, n.VNI)
		}
		keys[i], values[i].Mac = neighbourKey(n.NeighbourKey), n.MAC
		if n.Router {
			values[i].Flags |= bpf.TCNeighbourFlagsNEIGHBOUR_ROUTER
		}
		if n.Ask {
			values[i].Flags |= bpf.TCNeighbourFlagsNEIGHBOUR_ASK
		}
	}
	return d.neighbours.Put(keys, values)
}

// DeleteNeighbours removes entries; absent ones are fine.
func (d *Datapath) DeleteNeighbours(list []NeighbourKey) error {
	keys := make([]bpf.TCNeighbourKey, len(list))
	for i, k := range list {
		keys[i] = neighbourKey(k)
	}
	return d.neighbours.Delete(keys)
}

// Neighbours reads the table, in no order.
func (d *Datapath) Neighbours() (list []Neighbour, err error) {
	err = d.neighbours.All(func(k bpf.TCNeighbourKey, v bpf.TCNeighbour) {
		list = append(list, Neighbour{NeighbourKey: NeighbourKey{VNI: wire.VNI(k.Vni), IP: netipOf(k.Ip)}, MAC: v.Mac,
			Router: v.Flags&bpf.TCNeighbourFlagsNEIGHBOUR_ROUTER != 0, Ask: v.Flags&bpf.TCNeighbourFlagsNEIGHBOUR_ASK != 0})
	})
	return list, err
}

func neighbourKey(k NeighbourKey) bpf.TCNeighbourKey {
	return bpf.TCNeighbourKey{Vni: uint32(k.VNI), Ip: addrOf(k.IP)}
}

// putClaims writes what a port may say of itself, and returns what is to be deleted once its entry is written: a port never has less
// than both allow. d.mu is held.
func (d *Datapath) putClaims(p Port) (stale []bpf.TCClaimKey, err error) {
	var want, added []bpf.TCClaimKey
	have := d.claimed[uint32(p.ID)]
	for _, c := range p.Claims {
		k := bpf.TCClaimKey{Port: uint32(p.ID), Mac: c.MAC, Ip: addrOf(c.IP)}
		if slices.Contains(want, k) {
			continue
		}
		if want = append(want, k); !slices.Contains(have, k) {
			added = append(added, k)
		}
	}
	if err := d.claims.Put(added, slices.Repeat([]uint32{1}, len(added))); err != nil {
		return nil, joinDelete(err, d.claims.Delete(added))
	}
	for _, k := range have {
		if !slices.Contains(want, k) {
			stale = append(stale, k)
		}
	}
	if d.claimed[uint32(p.ID)] = want; len(want) == 0 {
		delete(d.claimed, uint32(p.ID))
	}
	return stale, nil
}

// clearClaims removes what a port id may say. d.mu is held.
func (d *Datapath) clearClaims(id uint32) error {
	if err := d.claims.Delete(d.claimed[id]); err != nil {
		return err
	}
	delete(d.claimed, id)
	return nil
}

// recallClaims reads them back; d.mu is held.
func (d *Datapath) recallClaims() error {
	d.claimed = map[uint32][]bpf.TCClaimKey{}
	return d.claims.All(func(k bpf.TCClaimKey, _ uint32) {
		if !slices.Contains(d.claimed[k.Port], k) { // a dump may see an entry twice
			d.claimed[k.Port] = append(d.claimed[k.Port], k)
		}
	})
}

// claimsOf are those of a port id, in no order. d.mu is held.
func (d *Datapath) claimsOf(id uint32) (list []Claim) {
	for _, k := range d.claimed[id] {
		list = append(list, Claim{IP: netipOf(k.Ip), MAC: k.Mac})
	}
	return list
}

// claimFlags are the IP versions in which a port is checked: of which it has an address. Of the others weft knows nothing.
func claimFlags(list []Claim) (flags bpf.TCPortFlags) {
	for _, c := range list {
		if c.IP.Is4() {
			flags |= bpf.TCPortFlagsPORT_CLAIMS4
		} else if c.IP.IsValid() {
			flags |= bpf.TCPortFlagsPORT_CLAIMS6
		}
	}
	return flags
}
