package datapath

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/wire"
)

// AttachPort writes the entry, then attaches from_port to the interface: no frame is looked at before its port is known.
// For a port that is attached it is UpdatePort. Where attaching fails, neither entry nor program is left; where only the XDP program cannot be
// attached, the port is there without it, and the error is a FastPathError.
func (d *Datapath) AttachPort(p Port) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	fast := p.FastPath
	p.FastPath = fast && d.inFastPath(p)
	if err := d.putPort(p); err != nil {
		return err
	}
	if err := d.attachPort(p.Ifindex); err != nil {
		return joinDelete(err, errors.Join(d.detachPort(p.Ifindex), d.removePort(p.Ifindex)))
	}
	return d.setFastPath(p, fast)
}

// UpdatePort rewrites the entry of an attached port. The error may be a FastPathError, as AttachPort's.
func (d *Datapath) UpdatePort(p Port) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.byIndex[p.Ifindex]; !ok {
		return fmt.Errorf("port %s: interface %d is not attached", p.UID, p.Ifindex)
	}
	fast := p.FastPath
	p.FastPath = fast && d.inFastPath(p)
	if err := d.putPort(p); err != nil {
		return err
	}
	return d.setFastPath(p, fast)
}

func (d *Datapath) putPort(p Port) error {
	switch {
	case p.Ifindex == 0 || p.ID == 0:
		return fmt.Errorf("port %s: interface %d, id %d: an entry needs both", p.UID, p.Ifindex, p.ID)
	case len(p.UID) > len(bpf.TCPort{}.Uid):
		return fmt.Errorf("port %s: the uid is longer than %d octets", p.UID, len(bpf.TCPort{}.Uid))
	case len(p.MACs) > MaxPortMACs:
		return fmt.Errorf("port %s: %d MACs; the table holds %d a port", p.UID, len(p.MACs), MaxPortMACs)
	case checkBUM(p.BUMLimit) != nil:
		return fmt.Errorf("port %s: %w", p.UID, checkBUM(p.BUMLimit))
	case int(p.ID) > d.ports.Limit():
		return d.ports.Refuse(1)
	}
	e := bpf.TCPort{Ifindex: p.Ifindex, Vni: uint32(p.VNI), MacCount: uint8(len(p.MACs)), UidLen: uint8(len(p.UID)),
		Services: bpf.TCPortServices(p.Services)}
	if p.Held {
		e.Flags |= bpf.TCPortFlagsPORT_HELD
	}
	if p.Watched {
		e.Flags |= bpf.TCPortFlagsPORT_WATCHED
	}
	if p.Unguarded {
		e.Flags |= bpf.TCPortFlagsPORT_UNGUARDED
	}
	if p.FastPath {
		e.Flags |= bpf.TCPortFlagsPORT_XDP
	}
	e.Flags |= claimFlags(p.Claims)
	for i, m := range p.MACs {
		e.Macs[i] = wordOf(m)
	}
	copy(e.Uid[:], p.UID)
	n, _, err := d.networks.Get(uint32(p.VNI))
	if err != nil {
		return err
	}
	follow(&e, n)
	// The interface may have been another port's, and the id may have been at another interface.
	if err := d.forget(p.Ifindex, uint32(p.ID)); err != nil {
		return err
	}
	if err := putBudget(d.ofPorts, uint32(p.ID), p.BUMLimit); err != nil {
		return err
	}
	stale, err := d.putClaims(p)
	if err != nil {
		return err
	}
	if err := d.ports.PutOne(uint32(p.ID), e); err != nil {
		return err
	}
	if err := d.claims.Delete(stale); err != nil {
		return err
	}
	if err := d.portIDs.PutOne(p.Ifindex, uint32(p.ID)); err != nil {
		return err
	}
	d.byIndex[p.Ifindex] = portRef{id: uint32(p.ID), vni: uint32(p.VNI)}
	return nil
}

// forget removes what contradicts (ifindex, id).
func (d *Datapath) forget(ifindex, id uint32) error {
	if old, ok := d.byIndex[ifindex]; ok && old.id != id {
		if err := d.erasePort(old.id); err != nil {
			return err
		}
	}
	for other, have := range d.byIndex {
		if have.id != id || other == ifindex {
			continue
		}
		if err := errors.Join(d.detachPort(other), d.portIDs.Delete([]uint32{other})); err != nil {
			return err
		}
		delete(d.byIndex, other)
	}
	return nil
}

// DetachPort takes the program off the interface and removes the entry. An interface that is gone, or was never attached,
// is fine. When it returns nothing is counted for the port any more: what PortCounters says then is its last word.
func (d *Datapath) DetachPort(ifindex uint32) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	ref, ok := d.byIndex[ifindex]
	if ok {
		if err := d.putHeld(ref.id, true); err != nil { // nothing is delivered from now on
			return err
		}
	}
	waited := d.attached(linkName("from_port", ifindex), ifindex) // the kernel then waits until no program runs that ran before
	if err := d.detachPort(ifindex); err != nil {
		return err
	}
	if ok && !waited {
		d.sweeper.grace()
	}
	return d.removePort(ifindex)
}

func (d *Datapath) removePort(ifindex uint32) error {
	ref, ok := d.byIndex[ifindex]
	if !ok {
		return nil
	}
	if err := errors.Join(d.portIDs.Delete([]uint32{ifindex}), d.erasePort(ref.id)); err != nil {
		return err
	}
	delete(d.byIndex, ifindex)
	return d.forgetPort(ref.id)
}

// Ports reads the table, in no order. An entry whose interface does not have the program (a kill between the two, an interface that
// is gone, a link that somebody detached) is no port: it is removed and not listed, so that whoever compares attaches it
// again. Else it would count as open while its frames pass by every check. FastPath is whether XDP serves the port, and may.
func (d *Datapath) Ports() (list []Port, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	limits := map[uint32]uint32{}
	if err := d.ofPorts.All(func(id uint32, b bpf.TCBudget) { limits[id] = b.Limit }); err != nil {
		return nil, err
	}
	err = d.ports.All(func(id uint32, e bpf.TCPort) {
		if e.Ifindex == 0 {
			return
		}
		p := Port{Ifindex: e.Ifindex, ID: PortID(id), UID: string(e.Uid[:e.UidLen]), VNI: wire.VNI(e.Vni),
			Held: e.Flags&bpf.TCPortFlagsPORT_HELD != 0, Watched: e.Flags&bpf.TCPortFlagsPORT_WATCHED != 0, Unguarded: e.Flags&bpf.TCPortFlagsPORT_UNGUARDED != 0,
			Services: Services(e.Services)}
		p.FastPath = e.Flags&bpf.TCPortFlagsPORT_XDP != 0 && d.inFastPath(p)
		for _, w := range e.Macs[:e.MacCount] {
			p.MACs = append(p.MACs, macOf(w))
		}
		p.Claims, p.BUMLimit = d.claimsOf(id), limits[id]
		list = append(list, p)
	})
	if err != nil {
		return nil, err
	}
	whole := list[:0]
	for _, p := range list {
		if ref, ok := d.byIndex[p.Ifindex]; ok && ref.id == uint32(p.ID) && d.attached(linkName("from_port", p.Ifindex), p.Ifindex) {
			p.FastPath = p.FastPath && d.checkWhole(p.Ifindex) == nil
			whole = append(whole, p)
			continue
		}
		if err := d.dropPort(p.Ifindex, uint32(p.ID)); err != nil {
			return nil, fmt.Errorf("remove the rest of port %s: %w", p.UID, err)
		}
	}
	return whole, nil
}

// dropPort removes an entry and, unless another id has the interface now, what else there is of it. d.mu is held.
func (d *Datapath) dropPort(ifindex, id uint32) error {
	if ref, ok := d.byIndex[ifindex]; !ok || ref.id == id {
		if err := errors.Join(d.detachPort(ifindex), d.removePort(ifindex)); err != nil {
			return err
		}
	}
	return d.erasePort(id)
}

// erasePort empties an entry. d.mu is held.
func (d *Datapath) erasePort(id uint32) error {
	return errors.Join(d.ports.PutOne(id, bpf.TCPort{}), d.clearClaims(id), putBudget(d.ofPorts, id, 0))
}

// follow gives a port what it needs of its network, so that from_port needs no look at that.
func follow(e *bpf.TCPort, n bpf.TCNetwork) {
	e.Mtu, e.TosMask = n.Mtu, max(n.TosMask, tosPipe)
	if e.Flags &^= bpf.TCPortFlagsPORT_LEARNS; n.Ageing != 0 {
		e.Flags |= bpf.TCPortFlagsPORT_LEARNS
	}
}

// followNetwork gives a changed network to its ports. d.mu is held.
func (d *Datapath) followNetwork(vni wire.VNI, n bpf.TCNetwork) error {
	for _, ref := range d.byIndex {
		if ref.vni != uint32(vni) {
			continue
		}
		e, ok, err := d.ports.Get(ref.id)
		if err != nil {
			return err
		}
		old := e
		if follow(&e, n); ok && e.Ifindex != 0 && e != old {
			if err := d.ports.PutOne(ref.id, e); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *Datapath) attachPort(ifindex uint32) error {
	name := linkName("from_port", ifindex)
	if d.pending && d.attached(name, ifindex) {
		return nil // the other layout serves it until Publish
	}
	return d.attachTo(name, "from_port", ebpf.AttachTCXIngress, ifindex)
}

func (d *Datapath) detachPort(ifindex uint32) error {
	return errors.Join(d.detach(linkName("xdp_from_port", ifindex)), d.detach(linkName("from_port", ifindex)))
}
