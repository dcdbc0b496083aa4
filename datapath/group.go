package datapath

import (
	"fmt"

	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/wire"
)

// groupAny is GROUP_ANY of layout.h: the entry by which a program knows that a group is anybody's here.
const groupAny = 1<<32 - 1

// PutGroups writes entries. Where some do not fit, the others are written all the same. The kernel's own membership, without which no network
// card or switch brings what is sent to a group, is the caller's.
func (d *Datapath) PutGroups(list []Group) error {
	var keys []bpf.TCGroupKey
	for _, g := range list {
		if !g.Addr.IsMulticast() || g.VNI > wire.MaxVNI {
			return fmt.Errorf("group %s of VNI %d: it is no multicast address, or the VNI does not fit 24 bits", g.Addr, g.VNI)
		}
		keys = append(keys, bpf.TCGroupKey{Vni: groupAny, Group: addrOf(g.Addr)})
	}
	for _, g := range list {
		keys = append(keys, groupKey(g))
	}
	return d.groups.Put(keys, ones(len(keys)))
}

// DeleteGroups removes entries; absent ones are fine.
func (d *Datapath) DeleteGroups(list []Group) error {
	gone := map[Group]bool{}
	var keys []bpf.TCGroupKey
	for _, g := range list {
		gone[g] = true
		keys = append(keys, groupKey(g))
	}
	have, err := d.Groups()
	if err != nil {
		return err
	}
	used := map[bpf.TCAddr]bool{}
	for _, g := range have {
		if !gone[g] {
			used[addrOf(g.Addr)] = true
		}
	}
	for _, g := range list {
		if any := (bpf.TCGroupKey{Vni: groupAny, Group: addrOf(g.Addr)}); !used[any.Group] {
			used[any.Group] = true // once
			keys = append(keys, any)
		}
	}
	return d.groups.Delete(keys)
}

// Groups reads the table, in no order.
func (d *Datapath) Groups() (list []Group, err error) {
	err = d.groups.All(func(k bpf.TCGroupKey, _ uint32) {
		if k.Vni != groupAny {
			list = append(list, Group{VNI: wire.VNI(k.Vni), Addr: netipOf(k.Group)})
		}
	})
	return list, err
}

func groupKey(g Group) bpf.TCGroupKey {
	return bpf.TCGroupKey{Vni: uint32(g.VNI), Group: addrOf(g.Addr)}
}

func ones(n int) []uint32 {
	values := make([]uint32, n)
	for i := range values {
		values[i] = 1
	}
	return values
}
