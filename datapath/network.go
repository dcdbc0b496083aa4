package datapath

import (
	"errors"
	"fmt"

	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/wire"
)

// PutNetwork writes a network: its flood list under a new number first, then the entry that names it, then the old list is
// retired, and deleted when no program can be reading it any more. Where the list does not fit, everything stays as it was.
func (d *Datapath) PutNetwork(n Network) error {
	if err := n.validate(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	old, had, err := d.networks.Get(uint32(n.VNI))
	if err != nil {
		return err
	}
	want := bpf.TCNetwork{Local: uint32(len(n.LocalPorts)), Remote: uint32(len(n.Remotes) - n.Direct), External: uint32(n.External), Direct: uint32(n.Direct),
		Mtu: uint32(n.MTU), Unknown: bpf.TCUnknownUnicast(n.Unknown), TosMask: n.tosMask(), Neighbours: bpf.TCNetworkNeighbours(n.Neighbours)}
	d.teach(&want, n)
	if had && d.sameList(old, n) {
		want.List = old.List
	} else if want.List, err = d.putList(n); err != nil {
		return fmt.Errorf("network with VNI %d: %w", n.VNI, err)
	}
	if err := d.networks.PutOne(uint32(n.VNI), want); err != nil {
		if want.List != old.List { // else it is the one in use
			d.retire(want)
		}
		return err
	}
	if had && old.List != want.List {
		d.retire(old)
	}
	if err := errors.Join(putBudget(d.ofNetworks, uint32(n.VNI), n.BUMLimit), d.countFloods(n.VNI), d.followNetwork(n.VNI, want)); err != nil {
		return err
	}
	if had && old.Ageing != 0 && want.Ageing == 0 {
		return d.forgetNetwork(n.VNI)
	}
	return nil
}

// TOS_PIPE and TOS_UNIFORM of layout.h.
const (
	tosPipe    = 0x03
	tosUniform = 0xff
)

func (n Network) tosMask() uint8 {
	if n.DSCPUniform {
		return tosUniform
	}
	return tosPipe
}

func (n Network) validate() error {
	switch {
	case n.VNI > wire.MaxVNI:
		return fmt.Errorf("network: VNI %d does not fit 24 bits", n.VNI)
	case len(n.LocalPorts) > MaxFlood || len(n.Remotes) > MaxFlood:
		return fmt.Errorf("network with VNI %d: %d local ports and %d VTEPs; the flood list takes %d of each", n.VNI,
			len(n.LocalPorts), len(n.Remotes), MaxFlood)
	case n.External < 0 || n.External > len(n.Remotes):
		return fmt.Errorf("network with VNI %d: %d of %d VTEPs are external", n.VNI, n.External, len(n.Remotes))
	case n.Neighbours > NeighboursAnswer|NeighboursClosed4|NeighboursClosed6:
		return fmt.Errorf("network with VNI %d: %d is not a setting for neighbours", n.VNI, n.Neighbours)
	case checkBUM(n.BUMLimit) != nil:
		return fmt.Errorf("network with VNI %d: %w", n.VNI, checkBUM(n.BUMLimit))
	case n.Direct < 0 || n.Direct > n.External:
		return fmt.Errorf("network with VNI %d: %d of %d external VTEPs get floods by a group", n.VNI, n.Direct, n.External)
	case n.MTU < 0 || n.MTU > 65535:
		return fmt.Errorf("network with VNI %d: MTU %d", n.VNI, n.MTU)
	}
	return n.Learning.validate(n.VNI)
}

// DeleteNetwork removes a network; an absent one is fine.
func (d *Datapath) DeleteNetwork(vni wire.VNI) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	old, had, err := d.networks.Get(uint32(vni))
	if err != nil || !had {
		return err
	}
	if err := errors.Join(d.networks.Delete([]uint32{uint32(vni)}), d.ofNetworks.Delete([]uint32{uint32(vni)}), d.forgetFloods(vni)); err != nil {
		return err
	}
	d.retire(old)
	if old.Ageing != 0 {
		return d.forgetNetwork(vni)
	}
	return nil
}

// Networks reads the table, in no order.
func (d *Datapath) Networks() ([]Network, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	lists := map[uint32]*Network{} // by flood list number
	limits := map[uint32]uint32{}
	if err := d.ofNetworks.All(func(vni uint32, b bpf.TCBudget) { limits[vni] = b.Limit }); err != nil {
		return nil, err
	}
	var heads []bpf.TCNetwork
	err := d.networks.All(func(vni uint32, v bpf.TCNetwork) {
		n := &Network{VNI: wire.VNI(vni), MTU: int(v.Mtu), Unknown: UnknownUnicast(v.Unknown), External: int(v.External), Direct: int(v.Direct),
			DSCPUniform: v.TosMask == tosUniform, Neighbours: Neighbours(v.Neighbours), BUMLimit: limits[vni],
			Learning: learningOf(v), Open: v.Flags&bpf.TCNetworkFlagsNETWORK_SOURCES != 0}
		n.LocalPorts, n.Remotes = make([]uint32, v.Local), make([]VTEPID, v.Remote+v.Direct)
		lists[v.List] = n
		heads = append(heads, v)
	})
	if err != nil {
		return nil, err
	}
	err = d.floods.All(func(k bpf.TCFloodKey, v bpf.TCFloodBlock) {
		n := lists[k.List]
		if n == nil {
			return
		}
		remote := int(k.Block) - blocks(len(n.LocalPorts))
		for i, to := range v.To {
			if at := int(k.Block)*floodBlock + i; remote < 0 && at < len(n.LocalPorts) {
				n.LocalPorts[at] = to
			} else if at = remote*floodBlock + i; remote >= 0 && at < len(n.Remotes) {
				n.Remotes[at] = VTEPID(to)
			}
		}
	})
	if err != nil {
		return nil, err
	}
	out := make([]Network, 0, len(heads))
	for _, h := range heads {
		out = append(out, *lists[h.List])
	}
	return out, nil
}

// floodBlock is how many receivers a block of a flood list holds.
const floodBlock = len(bpf.TCFloodBlock{}.To)

// blocks is how many blocks so many receivers take.
func blocks(receivers int) int { return (receivers + floodBlock - 1) / floodBlock }

func listKeys(list, n uint32) []bpf.TCFloodKey {
	keys := make([]bpf.TCFloodKey, n)
	for i := range keys {
		keys[i] = bpf.TCFloodKey{List: list, Block: uint32(i)}
	}
	return keys
}

// listValues are the blocks of a list: of interfaces, then of VTEPs.
func listValues(n Network) []bpf.TCFloodBlock {
	values := make([]bpf.TCFloodBlock, blocks(len(n.LocalPorts))+blocks(len(n.Remotes)))
	for i, ifindex := range n.LocalPorts {
		values[i/floodBlock].To[i%floodBlock] = ifindex
	}
	remote := values[blocks(len(n.LocalPorts)):]
	for i, id := range n.Remotes {
		remote[i/floodBlock].To[i%floodBlock] = uint32(id)
	}
	return values
}

// sameList reports whether the list is there already: applying a plan twice changes nothing.
func (d *Datapath) sameList(have bpf.TCNetwork, n Network) bool {
	if int(have.Local) != len(n.LocalPorts) || int(have.Remote)+int(have.Direct) != len(n.Remotes) {
		return false
	}
	for i, want := range listValues(n) {
		v, ok, err := d.floods.Get(bpf.TCFloodKey{List: have.List, Block: uint32(i)})
		if err != nil || !ok || v != want {
			return false
		}
	}
	return true
}

// putList writes a list aside. On failure nothing of it is left.
func (d *Datapath) putList(n Network) (uint32, error) {
	d.lists++
	list, values := d.lists, listValues(n)
	keys := listKeys(list, uint32(len(values)))
	if err := d.floods.Put(keys, values); err != nil {
		return 0, joinDelete(err, d.floods.Delete(keys))
	}
	return list, nil
}
