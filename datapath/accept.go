package datapath

import (
	"fmt"

	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/wire"
)

// PutAccepts writes entries. Where some do not fit, the others are written all the same.
func (d *Datapath) PutAccepts(list []Accept) error {
	keys, values := make([]bpf.TCAcceptKey, len(list)), make([]uint32, len(list))
	for i, a := range list {
		if !a.Addr.IsValid() {
			return fmt.Errorf("accept for VNI %d has no address", a.VNI)
		}
		keys[i], values[i] = acceptKey(a), 1
	}
	return d.accepts.Put(keys, values)
}

// DeleteAccepts removes entries; absent ones are fine.
func (d *Datapath) DeleteAccepts(list []Accept) error {
	keys := make([]bpf.TCAcceptKey, len(list))
	for i, a := range list {
		keys[i] = acceptKey(a)
	}
	return d.accepts.Delete(keys)
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
