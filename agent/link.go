package agent

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/weftnet/weft/datapath/netdev"
)

// event takes one change of the host's interfaces in.
func (a *Agent) event(e netdev.Event) {
	switch e.Kind {
	case netdev.EventResync:
		a.checkLinks()
		a.reconcile()
		later(&a.uplinkAt, 0)
	case netdev.EventLink:
		if uid, ok := a.atts.byIf[e.Link.Name]; ok {
			a.checkLink(a.atts.byUID[uid])
			a.reconcile()
		} else if a.uplink.has(e.Link.Name) {
			later(&a.uplinkAt, uplinkDelay)
		}
	case netdev.EventAddress, netdev.EventRoute:
		later(&a.uplinkAt, uplinkDelay)
	}
}

// checkLinks looks at every attached interface.
func (a *Agent) checkLinks() {
	for _, at := range a.atts.byUID {
		a.checkLink(at)
	}
}

// checkLink looks at an attached interface as it is now: one that vanished and came back has another index.
func (a *Agent) checkLink(at attachment) {
	now, err := a.resolve(at)
	if err != nil {
		a.log.Error("an interface cannot be looked up", "interface", at.Interface, "err", err)
		return
	}
	was := a.rec.locals[at.UID]
	if was == nil || *was != now {
		if was != nil {
			a.log.Info("an interface changed", "port", at.Tenant+"/"+at.Port, "interface", at.Interface, "there", now.ifindex != 0)
		}
		a.rec.SetAttached(at.UID, &now)
		later(&a.reportAt, reportDelay)
	}
}

// resolve is an attachment's interface in the kernel's terms; the zero local when it is not there.
func (a *Agent) resolve(at attachment) (local, error) {
	l, err := a.links.Link(at.Interface)
	if isNotFound(err) {
		return local{}, nil
	}
	if err != nil {
		return local{}, err
	}
	if !l.Up && at.Kind != kindVeth {
		// Nobody else may do it for a TAP that a VM made again. It may be gone by now: the event says so.
		if err := a.links.SetUp(at.Interface); err != nil && !isNotFound(err) {
			a.log.Warn("an interface cannot be set up", "interface", at.Interface, "err", err)
		}
	}
	return local{
		ifindex:    uint32(l.Index),
		peer:       l.Kind == "veth" && l.PeerNamespaceID >= 0,
		aggregates: l.Kind != "veth",
		tells:      at.tells(),
	}, nil
}

// raise brings the veths made here up whose program is attached by now, and no other.
func (a *Agent) raise() {
	for uid, at := range a.atts.byUID {
		l := a.rec.locals[uid]
		if at.Kind != kindVeth || l == nil || l.ifindex == 0 || a.raised[uid] == l.ifindex || a.rec.tables.ports[l.ifindex].UID != uid {
			continue
		}
		if err := a.links.SetUp(at.Interface); err != nil && !isNotFound(err) {
			a.log.Warn("an interface cannot be set up", "interface", at.Interface, "err", err)
			continue
		}
		a.raised[uid] = l.ifindex
	}
}

// settle brings the veths made here, and the MTU of TAP devices, to what the plan says now, after a port's addresses or its network's MTU changed.
func (a *Agent) settle() {
	for uid, at := range a.atts.byUID {
		a.settleTAP(uid, at)
		want, n := a.spec(at)
		l := a.rec.locals[uid]
		if at.Kind != kindVeth || at.Netns == "" || n == nil || l == nil || l.ifindex == 0 {
			continue
		}
		have, known := a.veths[uid]
		if known && have.mac == want.mac && have.mtu == want.mtu && slices.Equal(have.ips, want.ips) {
			continue
		}
		a.veths[uid] = want
		if !known {
			if near, err := a.links.Link(at.Interface); err == nil && near.MTU == want.mtu {
				continue // an earlier agent's work, and right
			}
		}
		for _, ip := range have.ips {
			if !slices.Contains(want.ips, ip) {
				want.gone = append(want.gone, ip)
			}
		}
		if _, err := a.links.MakeVeth(want); err != nil {
			a.log.Warn("an interface cannot be brought to what the plan says", "interface", at.Interface, "err", err)
		}
	}
}

// remake makes interfaces again that went with a reboot: TAP devices, and veths where their namespace has a name and is there. Other paths, as
// /proc/PID/ns/net, may lead anywhere by now.
func (a *Agent) remake() {
	for uid, at := range a.atts.byUID {
		want, n := a.spec(at)
		l := a.rec.locals[uid]
		if at.Made != nil && n != nil && l != nil && l.ifindex == 0 {
			if _, err := a.links.MakeTAP(at.Interface, at.Made.Queues, at.Made.Owner, at.Made.Group); err != nil {
				a.log.Warn("an interface cannot be made again", "interface", at.Interface, "err", err)
			}
			a.checkLink(at)
		}
		named := filepath.Dir(at.Netns) == netdev.NamespaceDir
		if at.Kind != kindVeth || !named || n == nil || l == nil || l.ifindex != 0 {
			continue
		}
		if _, err := a.links.MakeVeth(want); err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				a.log.Warn("an interface cannot be made again", "interface", at.Interface, "err", err)
			}
			continue
		}
		a.log.Info("an interface was made again", "port", at.Tenant+"/"+at.Port, "interface", at.Interface)
		a.veths[uid] = want
		a.checkLink(at)
	}
}

// adopt makes attachments of ports that the kernel serves and the plan has here, when their file was lost.
func (a *Agent) adopt() {
	byIndex, _, err := namedLinks(a.links)
	if err != nil {
		a.log.Error("interfaces cannot be listed", "err", err)
		return
	}
	for ifindex, have := range a.rec.tables.ports {
		p, l := a.rec.view.ports[have.UID], byIndex[int(ifindex)]
		if _, known := a.atts.byUID[have.UID]; known || p == nil || p.place.active != a.rec.self || l.Name == "" {
			continue
		}
		at := attachment{UID: have.UID, Tenant: p.tenant, Port: p.name, Kind: kindDevice, Interface: l.Name}
		switch {
		case l.Name == netdev.PortInterface(have.UID):
			at.Kind = kindVeth
		case l.Kind == "tuntap":
			at.Kind = kindTAP
		}
		if err := a.atts.put(at); err != nil {
			a.log.Error("an attachment cannot be written", "err", err)
			continue
		}
		a.log.Warn("an attachment was lost, and is taken from the kernel again", "port", p.tenant+"/"+p.name, "interface", l.Name)
		a.checkLink(at)
	}
}

// sweep removes interfaces that an earlier agent made and no attachment explains.
func (a *Agent) sweep() {
	owned, err := a.links.Owned()
	if err != nil {
		a.log.Error("own interfaces cannot be listed", "err", err)
		return
	}
	for _, l := range owned {
		mark, marked := l.Mark() // one without a mark was being made when its maker was killed
		if _, known := a.atts.byIf[l.Name]; known || marked && l.Name != netdev.PortInterface(mark.Port) {
			continue
		}
		a.log.Info("an interface that no attachment explains is removed", "interface", l.Name)
		if err := a.links.Delete(l.Name); err != nil && !errors.Is(err, netdev.ErrNotFound) {
			a.log.Error("an interface could not be removed", "interface", l.Name, "err", err)
		}
	}
}
