package agent

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/weftnet/weft/datapath/netdev"
)

// Memberships in multicast groups of the underlay. They are the kernel's own, marked as weft's: they stay when the agent ends, and the next one takes
// them over or ends them. Of several uplinks one joins and sends, the first that has a carrier: a flood that came in by two would be two.

// memberships keeps the memberships of one interface.
type memberships struct {
	// index of the interface; have are the groups that it is known to be a member of.
	index int
	have  map[netip.Addr]bool
}

// groupUplink is the uplink that joins and sends: the first by the order given that has a carrier, or else the first.
func groupUplink(names string, byName map[string]netdev.Link) (netdev.Link, bool) {
	var first netdev.Link
	found := false
	for _, name := range strings.Split(names, ",") {
		l, ok := byName[name]
		switch {
		case ok && l.Running:
			return l, true
		case ok && !found:
			first, found = l, true
		}
	}
	return first, found
}

// join makes the interface a member of what is wanted, and tells of each group whether it is one.
func (m *memberships) join(links Links, l netdev.Link, want map[netip.Addr]bool, tell func(netip.Addr, error)) {
	if m.index != l.Index {
		m.index, m.have = l.Index, map[netip.Addr]bool{}
	}
	for _, g := range slices.SortedFunc(maps.Keys(want), netip.Addr.Compare) {
		if m.have[g] {
			continue
		}
		err := links.JoinGroup(l.Name, g)
		m.have[g] = err == nil
		tell(g, err)
	}
}

// leave ends memberships that are not wanted, of any interface: an earlier agent may have made them.
func (m *memberships) leave(links Links, want map[netip.Addr]bool) (left []netdev.Group, err error) {
	all, err := links.Groups()
	if err != nil {
		return nil, err
	}
	for _, g := range all {
		if g.Index == m.index && want[g.Addr] {
			continue
		}
		if err := links.LeaveGroup(g); err != nil {
			return left, err
		}
		if g.Index == m.index {
			delete(m.have, g.Addr)
		}
		left = append(left, g)
	}
	return left, nil
}

// forget makes the next join look at everything again.
func (m *memberships) forget() { m.index, m.have = 0, nil }

// leaveAll ends every membership that an agent made here.
func leaveAll(ns *netdev.Handle) error {
	all, err := ns.Groups()
	for _, g := range all {
		err = errors.Join(err, ns.LeaveGroup(g))
	}
	return err
}

// joinGroups comes before the tables are written: who receives by a group is a member before the network's entry says so, and before the server is
// told, which lets others send then.
func (a *Agent) joinGroups() {
	want := a.rec.Joined()
	maps.DeleteFunc(a.rec.failed.joins, func(g netip.Addr, _ error) bool { return !want[g] })
	if len(want) == 0 && a.rec.sender == 0 {
		return
	}
	_, byName, err := namedLinks(a.links)
	if err != nil {
		a.log.Error("the interfaces could not be read", "err", err)
		return
	}
	l, ok := groupUplink(a.uplink.name, byName)
	if !ok {
		return
	}
	if a.rec.sender != uint32(l.Index) && a.rec.sender != 0 {
		a.log.Info("another uplink joins groups and sends to them", "uplink", l.Name)
	}
	a.rec.SetSender(uint32(l.Index))
	if a.member.index != l.Index {
		a.groupsLeft = nil // those of the other
	}
	a.member.join(a.links, l, want, func(g netip.Addr, err error) {
		a.rec.JoinFailed(g, err)
		if err != nil {
			a.log.Error("a multicast group could not be joined", "group", g, "uplink", l.Name, "err", err)
			return
		}
		a.log.Info("joined a multicast group", "group", g, "uplink", l.Name)
	})
}

// leaveGroups comes when nothing sends to them any more.
func (a *Agent) leaveGroups() {
	want := a.rec.Joined()
	if a.groupsLeft != nil && maps.Equal(want, a.groupsLeft) {
		return
	}
	left, err := a.member.leave(a.links, want)
	for _, g := range left {
		a.log.Info("left a multicast group", "group", g.Addr, "interface", g.Index)
	}
	if err != nil {
		a.log.Error("a multicast group could not be left", "err", err)
		return
	}
	a.groupsLeft = want
}

// checkGroups looks at the memberships again: at what is done every so often, and when the uplinks changed.
func (a *Agent) checkGroups() {
	a.member.forget()
	a.groupsLeft = nil
}
