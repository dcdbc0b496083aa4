package datapath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/weftnet/weft/datapath/bpf"
)

// Below PinRoot:
//
//	secret, seal        the mark and what stands beside it (bpf/seal.h), for all layouts
//	layout-<hash>/NAME  the maps of a layout
//	links/NAME          the links, for all layouts: what is attached stays attached while programs are exchanged
const linkDir, layoutPrefix = "links", "layout-"

func layoutDir(hash string) string { return layoutPrefix + hash }

// linkName is the pin's name: the program, and the interface where there can be several.
func linkName(program string, ifindex uint32) string {
	if ifindex == 0 {
		return program
	}
	return program + "_" + strconv.FormatUint(uint64(ifindex), 10)
}

func (d *Datapath) linkPath(name string) string { return filepath.Join(d.cfg.PinRoot, linkDir, name) }

// attachTo sees to it that the program of this layout is attached to the interface, first in line, under the pinned link.
// An attached link gets the program in one step: no packet passes without one.
func (d *Datapath) attachTo(name, program string, where ebpf.AttachType, ifindex uint32) error {
	path := d.linkPath(name)
	if l, err := link.LoadPinnedLink(path, nil); err == nil {
		defer l.Close()
		if linkIfindex(l) == ifindex {
			if err := l.Update(d.progs[program]); err != nil {
				return fmt.Errorf("exchange %s on interface %d: %w", program, ifindex, err)
			}
			return nil
		}
		if err := os.Remove(path); err != nil { // its interface is gone
			return fmt.Errorf("unpin link %s: %w", name, err)
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("open pinned link %s: %w", name, err)
	}
	return d.ns.Run(func() error {
		l, err := attachLink(d.progs[program], where, ifindex)
		if err != nil {
			return fmt.Errorf("attach %s to interface %d: %w", program, ifindex, err)
		}
		defer l.Close()
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return fmt.Errorf("make link directory: %w", err)
		}
		if err := l.Pin(path); err != nil {
			return fmt.Errorf("pin link %s: %w", name, err)
		}
		return nil
	})
}

func attachLink(p *ebpf.Program, where ebpf.AttachType, ifindex uint32) (link.Link, error) {
	if where == ebpf.AttachXDP { // in the driver or not at all: elsewhere it would only cost
		return link.AttachXDP(link.XDPOptions{Interface: int(ifindex), Program: p, Flags: link.XDPDriverMode})
	}
	return link.AttachTCX(link.TCXOptions{Interface: int(ifindex), Program: p, Attach: where, Anchor: link.Head()})
}

// linkIfindex is the interface a link is on, 0 when that is gone.
func linkIfindex(l link.Link) uint32 {
	info, err := l.Info()
	if err != nil {
		return 0
	}
	if t := info.TCX(); t != nil {
		return t.Ifindex
	}
	if x := info.XDP(); x != nil {
		return x.Ifindex
	}
	return 0
}

func (d *Datapath) attached(name string, ifindex uint32) bool {
	l, err := link.LoadPinnedLink(d.linkPath(name), nil)
	if err != nil {
		return false
	}
	defer l.Close()
	return linkIfindex(l) == ifindex
}

// detach takes a program off and unpins its link; an absent one is fine.
func (d *Datapath) detach(name string) error { return detachLink(d.linkPath(name)) }

// detachLink detaches first: after unpinning alone the kernel takes the program off when it comes to it.
func detachLink(path string) error {
	l, err := link.LoadPinnedLink(path, nil)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open pinned link %s: %w", filepath.Base(path), err)
	}
	defer l.Close()
	if err := l.Detach(); err != nil && linkIfindex(l) != 0 {
		return fmt.Errorf("detach link %s: %w", filepath.Base(path), err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("unpin link %s: %w", filepath.Base(path), err)
	}
	return nil
}

// Publish switches everything to this layout. Open does so itself unless it found another layout attached (other limits, or
// another version of weft): then the new tables are made aside and empty, the old ones go on forwarding, and the caller fills the new
// ones, attaches its ports, and calls Publish. Every program is then exchanged under its link, which loses no packet; ports
// that were not attached again are detached, and the old tables go. Publish again changes nothing. An uplink that takes no XDP
// program, or no longer shows its VLAN tags to one, is an error where Config.XDP asks for one.
func (d *Datapath) Publish() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	ups, err := uplinks(d.ns, d.cfg.Uplink)
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	do := func(name, program string, where ebpf.AttachType, ifindex uint32) error {
		keep[name] = true
		return d.attachTo(name, program, where, ifindex)
	}
	// What checks is attached before what lets in.
	if err := do(linkName("from_vxlan", 0), "from_vxlan", ebpf.AttachTCXIngress, d.local.VxlanIfindex); err != nil {
		return err
	}
	if err := d.openVXLAN(); err != nil {
		return err
	}
	for _, up := range ups {
		if err := do(linkName("to_uplink", up), "to_uplink", ebpf.AttachTCXEgress, up); err != nil {
			return err
		}
		if err := do(linkName("from_uplink", up), "from_uplink", ebpf.AttachTCXIngress, up); err != nil {
			return err
		}
		if !d.cfg.XDP {
			continue
		}
		err := d.keepTags(up)
		if err == nil {
			err = do(linkName("xdp_from_uplink", up), "xdp_from_uplink", ebpf.AttachXDP, up)
		}
		if err != nil {
			return fmt.Errorf("%w (start the agent without --xdp uplink)", err)
		}
	}
	for ifindex, ref := range d.byIndex {
		name := linkName("from_port", ifindex)
		keep[name] = true
		if !d.attached(name, ifindex) {
			continue // the interface is gone; the agent will see that, too
		}
		if err := d.attachTo(name, "from_port", ebpf.AttachTCXIngress, ifindex); err != nil {
			return err
		}
		e, _, err := d.ports.Get(ref.id)
		if err != nil {
			return err
		}
		if e.Flags&bpf.TCPortFlagsPORT_XDP == 0 {
			continue
		}
		if err := do(linkName("xdp_from_port", ifindex), "xdp_from_port", ebpf.AttachXDP, ifindex); err != nil {
			d.log.Warn("a port leaves the XDP lane", "err", err) // Ports says so, too
			delete(keep, linkName("xdp_from_port", ifindex))     // over the tables of another layout it would go on for ever
			e.Flags &^= bpf.TCPortFlagsPORT_XDP
			if err := d.ports.PutOne(ref.id, e); err != nil {
				return err
			}
		}
	}
	if err := d.prune(keep); err != nil {
		return err
	}
	d.pending = false
	d.local.Uplinks = d.describeUplinks()
	return d.locals.PutOne(0, d.local)
}

// prune detaches links that nothing asked for, and removes the tables of other layouts.
func (d *Datapath) prune(keep map[string]bool) error {
	pins, err := os.ReadDir(filepath.Join(d.cfg.PinRoot, linkDir))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("list links: %w", err)
	}
	for _, p := range pins {
		if !keep[p.Name()] {
			if err := d.detach(p.Name()); err != nil {
				return err
			}
		}
	}
	old, err := d.otherLayouts()
	if err != nil {
		return err
	}
	for _, dir := range old {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove old layout: %w", err)
		}
	}
	return nil
}

func (d *Datapath) otherLayouts() ([]string, error) {
	dirs, err := filepath.Glob(filepath.Join(d.cfg.PinRoot, layoutPrefix+"*"))
	return slices.DeleteFunc(dirs, func(dir string) bool { return dir == d.dir }), err
}

// Remove takes everything of the instance out of the kernel: links, tables, VXLANDevice (of the calling thread's network
// namespace). An instance that is not there is fine.
func Remove(pinRoot string) error {
	// The kernel lane's device is shut before its guard goes. Then the links, and of those the ones that let in first.
	if err := shutVXLAN(pinRoot); err != nil {
		return fmt.Errorf("shut %s: %w", VXLANDevice, err)
	}
	links := filepath.Join(pinRoot, linkDir)
	pins, err := os.ReadDir(links)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("list links: %w", err)
	}
	order := func(p os.DirEntry) string { return strings.Replace(p.Name(), "xdp_", " ", 1) } // before from_ and to_
	slices.SortFunc(pins, func(a, b os.DirEntry) int { return strings.Compare(order(a), order(b)) })
	for _, p := range pins {
		if err := detachLink(filepath.Join(links, p.Name())); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(pinRoot); err != nil {
		return fmt.Errorf("remove pins: %w", err)
	}
	if err := removeVXLAN(pinRoot); err != nil {
		return fmt.Errorf("remove %s: %w", VXLANDevice, err)
	}
	return nil
}

// Programs names what is attached where, one line each: program, interface, kernel's program id. Each line asks the kernel three times: of the
// ports' programs there are at most so many, and a last line says how many more there are.
func (d *Datapath) Programs(most int) []string {
	pins, err := os.ReadDir(filepath.Join(d.cfg.PinRoot, linkDir))
	if err != nil {
		return nil
	}
	var names []string
	for _, p := range pins {
		names = append(names, p.Name())
	}
	names, more := fewPorts(names, most)
	var lines []string
	for _, name := range names {
		l, err := link.LoadPinnedLink(d.linkPath(name), nil)
		if err != nil {
			continue
		}
		program, hook := programOf(name), "tcx"
		if strings.HasPrefix(program, "xdp_") {
			hook = "XDP"
		}
		line := program + " on nothing: the interface is gone"
		if i := linkIfindex(l); i != 0 {
			line = fmt.Sprintf("%s on %s", program, d.interfaceName(i))
		}
		if info, err := l.Info(); err == nil {
			line += fmt.Sprintf(", %s, program %d", hook, info.Program)
		}
		lines = append(lines, line)
		l.Close()
	}
	if more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more on ports", more))
	}
	return lines
}

// programOf is linkName's opposite.
func programOf(name string) string { return strings.TrimRight(name, "_0123456789") }

// fewPorts keeps the links that are not of ports, and at most so many of those that are; more is how many it left out.
func fewPorts(names []string, most int) (few []string, more int) {
	ports := 0
	for _, name := range names {
		if strings.HasSuffix(programOf(name), "from_port") {
			if ports++; ports > most {
				more++
				continue
			}
		}
		few = append(few, name)
	}
	return few, more
}

func (d *Datapath) interfaceName(ifindex uint32) string {
	name := strconv.FormatUint(uint64(ifindex), 10)
	err := d.ns.Run(func() error {
		l, err := netlink.LinkByIndex(int(ifindex))
		if err == nil {
			name = l.Attrs().Name
		}
		return err
	})
	if err != nil {
		return "interface " + name
	}
	return name
}
