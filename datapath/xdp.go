package datapath

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/datapath/netdev"
)

// The XDP lane: programs before the tc lane's, on the uplinks (Config.XDP) and on single ports (Port.FastPath), over the
// same tables. Both are opt-in: while a program is attached to a veth, packets of 64 kB do not cross it.

// FastPathError says that a port's interface does not take the XDP program. The port works, in the tc lane.
type FastPathError struct {
	UID string
	Err error
}

// Error names the port and the way out.
func (e *FastPathError) Error() string {
	return fmt.Sprintf("port %s stays in the tc lane, its interface takes no XDP program (set its fast path to none): %v", e.UID, e.Err)
}

// Unwrap gives the kernel's reason.
func (e *FastPathError) Unwrap() error { return e.Err }

// load brings an object's programs into the kernel, over the maps that are there.
func (d *Datapath) load(spec *ebpf.CollectionSpec) error {
	maps := map[string]*ebpf.Map{}
	for name := range spec.Maps {
		if m := d.maps[name]; m != nil {
			maps[name] = m
		}
	}
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: maps})
	if err != nil {
		return fmt.Errorf("load the programs: %w", err)
	}
	for name, p := range c.Programs {
		d.progs[name] = p
		delete(c.Programs, name)
	}
	c.Close()
	return nil
}

// inFastPath reports whether the port's XDP program is where it should be, or will be when Publish comes.
func (d *Datapath) inFastPath(p Port) bool {
	return d.pending || d.attached(linkName("xdp_from_port", p.Ifindex), p.Ifindex)
}

// checkWhole refuses an interface whose frames XDP would send on unfinished: it does not see the virtio header, which asks for a checksum
// or for cutting. Of a veth the caller sees to it (netdev's FitForXDP); of a virtual machine nobody on the host can.
func (d *Datapath) checkWhole(ifindex uint32) error {
	l, err := d.ns.LinkByIndex(int(ifindex))
	if err != nil {
		return err
	}
	if l.VirtioHeader {
		return fmt.Errorf("TAP device %s has virtio headers, with which a virtual machine leaves its checksums to the host: open it without (IFF_VNET_HDR)", l.Name)
	}
	return nil
}

// setFastPath attaches the XDP program to a port that has its entry, or takes it off. An entry says XDP only while frames that
// XDP redirects do arrive: last on the way in, first on the way out. d.mu is held.
func (d *Datapath) setFastPath(p Port, on bool) error {
	name := linkName("xdp_from_port", p.Ifindex)
	if !on && d.pending {
		return nil
	}
	if !on {
		return d.detach(name)
	}
	if err := d.checkWhole(p.Ifindex); err != nil {
		p.FastPath = false
		return errors.Join(&FastPathError{UID: p.UID, Err: err}, d.putPort(p), d.setFastPath(p, false))
	}
	if d.inFastPath(p) {
		return nil
	}
	if err := d.attachTo(name, "xdp_from_port", ebpf.AttachXDP, p.Ifindex); err != nil {
		return &FastPathError{UID: p.UID, Err: err}
	}
	p.FastPath = true
	return d.putPort(p)
}

// refuseMembers refuses an interface that hands on what its members receive: XDP sees the members' indexes, which are no uplinks', and would take
// no frame for weft's, without a word.
func refuseMembers(l netdev.Link) error {
	switch l.Kind {
	case "bond", "team":
		return fmt.Errorf("uplink %s is a %s, whose members XDP would see in its place", l.Name, l.Kind)
	}
	return nil
}

// keepTags makes an uplink leave VLAN tags in the frames: XDP sees none beside them, and would take a tagged tunnel packet, which tc drops as
// outer_vlan, for one of the underlay. It stays so; without XDP it costs next to nothing.
func (d *Datapath) keepTags(ifindex uint32) error {
	l, err := d.ns.LinkByIndex(int(ifindex))
	if err != nil {
		return err
	}
	if err := refuseMembers(l); err != nil {
		return err
	}
	for _, f := range []netdev.Feature{netdev.RXVLAN, netdev.RXServiceVLAN} {
		on, err := d.ns.Feature(l.Name, f)
		if err == nil && on {
			d.log.Info("the uplink leaves VLAN tags in the frames from now on, for the XDP lane", "interface", l.Name, "feature", f)
			err = d.ns.SetFeature(l.Name, f, false)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// CheckXDP looks again at what the XDP lane has to know of the uplinks: their MACs, and whether they take frames from other interfaces'
// programs now, of which there is no event. SetLocal and Publish do so too. Where the lane is on the uplinks, VLAN tags are left in the frames again,
// should somebody have changed that.
func (d *Datapath) CheckXDP() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.keepAllTags(); err != nil {
		return err
	}
	l := d.local
	l.Uplinks = d.describeUplinks()
	if l == d.local {
		return nil
	}
	if err := d.locals.PutOne(0, l); err != nil {
		return err
	}
	d.local = l
	return nil
}

// keepAllTags is keepTags of every uplink that has the lane's program. One that is away is Publish's business. d.mu is held.
func (d *Datapath) keepAllTags() error {
	if !d.cfg.XDP {
		return nil
	}
	for name := range strings.SplitSeq(d.cfg.Uplink, ",") {
		l, err := d.ns.LinkByName(name)
		if err != nil || !d.attached(linkName("xdp_from_uplink", uint32(l.Index)), uint32(l.Index)) {
			continue
		}
		if err := d.keepTags(uint32(l.Index)); err != nil {
			return err
		}
	}
	return nil
}

// describeUplinks is what is known of them. One that cannot be asked, or has no guard yet, is left out: nothing is sent by it.
func (d *Datapath) describeUplinks() (list [len(bpf.TCLocal{}.Uplinks)]bpf.TCUplink) {
	names := strings.Split(d.cfg.Uplink, ",")
	for i := range min(len(names), len(list)) {
		l, err := d.ns.LinkByName(names[i])
		if err != nil || !d.attached(linkName("to_uplink", uint32(l.Index)), uint32(l.Index)) {
			continue
		}
		list[i] = bpf.TCUplink{Mac: wordOf(l.MAC), Ifindex: uint32(l.Index)}
		if f, err := d.ns.XDPFeatures(l.Index); err == nil && f.Has(netdev.XDPTransmit|netdev.XDPTransmitFragments) {
			list[i].Flags |= bpf.TCUplinkFlagsUPLINK_FROM_XDP
		}
	}
	return list
}
