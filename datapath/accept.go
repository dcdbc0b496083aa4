package datapath

import (
	"fmt"

	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/wire"
)

// PutAccepts writes entries from whose packets nothing is learned. Where some do not fit, the others are written all the same.
func (d *Datapath) PutAccepts(list []Accept) error {
	keys, values := make([]bpf.TCAcceptKey, len(list)), make([]uint32, len(list))
	for i, a := range list {
		if !a.Addr.IsValid() {
			return fmt.Errorf("accept for VNI %d has no address", a.VNI)
		}
		keys[i], values[i] = acceptKey(a), 0
	}
	return d.accepts.Put(keys, values)
}

// DeleteAccepts removes entries; absent ones are fine.
func (d *Datapath) DeleteAccepts(list []Accept) error {
	keys := make([]bpf.TCAcceptKey, len(list))
	for i, a := range list {
		keys[i] = acceptKey(a)
	}
	taught, err := d.taughtBy(keys)
	if err != nil {
		return err
	}
	if err := d.accepts.Delete(keys); err != nil || len(taught) == 0 {
		return err
	}
	return d.forgetPlaces(func(k bpf.TCLearnerKey) bool { return taught[k] })
}

// taughtBy are the places that the entries teach about.
func (d *Datapath) taughtBy(keys []bpf.TCAcceptKey) (map[bpf.TCLearnerKey]bool, error) {
	taught := map[bpf.TCLearnerKey]bool{}
	if n, err := d.learners.Len(); n == 0 || err != nil {
		return nil, err
	}
	for _, k := range keys {
		if id, ok, err := d.accepts.Get(k); err != nil {
			return nil, err
		} else if ok && id != 0 && id != placePort {
			taught[bpf.TCLearnerKey{Vni: k.Vni, Place: id}] = true
		}
	}
	return taught, nil
}

// Accepts reads the table, in no order.
func (d *Datapath) Accepts() (list []Accept, err error) {
	err = d.accepts.All(func(k bpf.TCAcceptKey, _ uint32) {
		list = append(list, Accept{VNI: wire.VNI(k.Vni), Addr: netipOf(k.Source)})
	})
	return list, err
}

func acceptKey(a Accept) bpf.TCAcceptKey {
	return bpf.TCAcceptKey{Vni: uint32(a.VNI), Source: addrOf(a.Addr)}
}
