package datapath

import (
	"fmt"

	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/wire"
)

// PutFDB writes entries. Where some do not fit, the others are written all the same and the error says how many were not.
func (d *Datapath) PutFDB(list []FDBEntry) error {
	keys, values := make([]bpf.TCFdbKey, len(list)), make([]bpf.TCFdbEntry, len(list))
	d.mu.Lock()
	for i, e := range list {
		if (e.VTEP == 0) == (e.Ifindex == 0) {
			d.mu.Unlock()
			return fmt.Errorf("FDB entry %s in VNI %d is not at one place: vtep %d, interface %d", e.MAC, e.VNI, e.VTEP, e.Ifindex)
		}
		if e.Flags&FDBForward != 0 && e.VTEP == 0 {
			d.mu.Unlock()
			return fmt.Errorf("FDB entry %s in VNI %d is to be forwarded to no VTEP", e.MAC, e.VNI)
		}
		keys[i] = fdbKey(e.FDBKey)
		values[i] = bpf.TCFdbEntry{Vtep: uint32(e.VTEP), Ifindex: e.Ifindex, Flags: bpf.TCFdbFlags(e.Flags)}
		if e.Ifindex != 0 {
			values[i].Port = d.byIndex[e.Ifindex].id
		}
	}
	d.mu.Unlock()
	return d.fdb.Put(keys, values)
}

// DeleteFDB removes entries; absent ones are fine.
func (d *Datapath) DeleteFDB(list []FDBKey) error {
	keys := make([]bpf.TCFdbKey, len(list))
	for i, k := range list {
		keys[i] = fdbKey(k)
	}
	return d.fdb.Delete(keys)
}

// FDB reads the table, in no order.
func (d *Datapath) FDB() (list []FDBEntry, err error) {
	err = d.fdb.All(func(k bpf.TCFdbKey, v bpf.TCFdbEntry) {
		list = append(list, FDBEntry{FDBKey: FDBKey{VNI: wire.VNI(k.Vni), MAC: k.Mac}, VTEP: VTEPID(v.Vtep), Ifindex: v.Ifindex,
			Flags: FDBFlags(v.Flags)})
	})
	return list, err
}

func fdbKey(k FDBKey) bpf.TCFdbKey { return bpf.TCFdbKey{Vni: uint32(k.VNI), Mac: k.MAC} }
