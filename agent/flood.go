package agent

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/wire"
)

// Floods by multicast groups of the underlay: what the plan asks of the tables. A group stands in the table of VTEPs as one more VTEP, so that
// the lists of networks name it. Who joins it is in group.go.

// groupUID is what a group is called among the uids of VTEPs, which have no slash.
func groupUID(group netip.Addr) string { return groupPrefix + group.String() }

const groupPrefix = "group/"

func decodeGroups(n *network, m *planv1.Network) error {
	one := func(b []byte) (netip.Addr, error) {
		a, ok := netip.AddrFromSlice(b)
		if !ok || !a.IsMulticast() || a.Is4In6() {
			return a, fmt.Errorf("% x is not a multicast address", b)
		}
		return a, nil
	}
	var err error
	if len(m.Group) > 0 {
		if n.group, err = one(m.Group); err != nil {
			return err
		}
	}
	for _, b := range m.JoinedGroups {
		a, err := one(b)
		if err != nil {
			return err
		}
		n.joined = append(n.joined, a)
	}
	n.copies = map[string]bool{}
	for _, uid := range m.Copies {
		n.copies[uid] = true
	}
	return nil
}

// carries reports whether this host can send to a group and receive it: it has an address of its IP version.
func (r *Reconciler) carries(group netip.Addr) bool {
	if group.Is4() {
		return r.local.Addr4.IsValid()
	}
	return r.local.Addr6.IsValid()
}

// wantGroup is a group's entry in the table of VTEPs.
func (r *Reconciler) wantGroup(uid string) (datapath.VTEP, bool) {
	text, ok := strings.CutPrefix(uid, groupPrefix)
	group, err := netip.ParseAddr(text)
	if !ok || err != nil || len(r.view.netsOf[uid]) == 0 || !r.carries(group) || r.sender == 0 {
		return datapath.VTEP{}, false
	}
	return datapath.VTEP{ID: r.ids[uid], Addr: group, Uplink: r.sender, UDPPort: r.local.UDPPort}, true
}

// floodVTEPs fills in who gets the network's floods: the group and whom it does not reach, or else each VTEP. Where this host cannot send to the group, each
// gets its copy.
func (r *Reconciler) floodVTEPs(n *network, want *datapath.Network) {
	group, multicast := r.vtepID(groupUID(n.group))
	multicast = multicast && n.group.IsValid() && r.carries(n.group) && r.sender != 0
	if multicast {
		want.Remotes = append(want.Remotes, group)
	}
	add := func(uid string, to *[]datapath.VTEPID) {
		if id, ok := r.vtepID(uid); ok && !r.own(uid) && !slices.Contains(want.Remotes, id) && !slices.Contains(*to, id) {
			*to = append(*to, id)
		}
	}
	var members, copies, direct []datapath.VTEPID
	for m := range r.view.members.in[n.uid] {
		if !multicast || !r.view.receives(m, n.group) {
			add(m, &members)
		}
	}
	slices.Sort(members)
	want.Remotes = append(want.Remotes, members...)
	for _, e := range n.external {
		if multicast && !n.copies[e.vtep] {
			add(e.vtep, &direct)
		} else {
			add(e.vtep, &copies)
		}
	}
	for _, addr := range r.unlisted[n.uid].addrs() {
		if multicast && addr.Is4() == n.group.Is4() { // nobody can say that it is not in the group, and two copies are worse than one
			add(unlistedUID(addr), &direct)
		} else {
			add(unlistedUID(addr), &copies)
		}
	}
	slices.Sort(copies)
	slices.Sort(direct)
	want.Remotes = append(append(want.Remotes, copies...), direct...)
	want.External, want.Direct = len(copies)+len(direct), len(direct)
}

// receives reports whether a host has an address of the group's IP version, and so has joined it.
func (v *view) receives(vtep string, group netip.Addr) bool {
	h := v.vteps[vtep]
	return h == nil || slices.ContainsFunc(h.addrs, func(a netip.Addr) bool { return a.Is4() == group.Is4() })
}

// wantGroups are the groups by which floods of a VNI come in: those that this host has joined.
func (r *Reconciler) wantGroups(n *network, want map[datapath.Group]bool) {
	for _, g := range n.joined {
		if r.carries(g) {
			want[datapath.Group{VNI: n.vni, Addr: g}] = true
		}
	}
}

func (r *Reconciler) groupsOf(d *dirty) map[datapath.Group]bool {
	want := map[datapath.Group]bool{}
	for vni := range d.nets {
		if n := r.view.nets[r.view.byVNI[vni]]; n != nil {
			r.wantGroups(n, want)
		}
	}
	if d.nets[wire.OAMVNI] && r.oam.ifindex != 0 {
		for g := range r.Joined() {
			want[datapath.Group{VNI: wire.OAMVNI, Addr: g}] = true
		}
	}
	return want
}

// groupMembers are, of each group that is probed, the VTEPs of the hosts that send floods to it, this one left out.
func (r *Reconciler) groupMembers() map[netip.Addr]map[string]bool {
	of := map[netip.Addr]map[string]bool{}
	for _, g := range r.oam.groups {
		of[g] = map[string]bool{}
		for uid := range r.view.netsOf[groupUID(g)] {
			for m := range r.view.members.in[uid] {
				if !r.own(m) && r.view.vteps[m] != nil && r.view.receives(m, g) {
					of[g][m] = true
				}
			}
		}
	}
	return of
}

func (r *Reconciler) putGroups(d *dirty) {
	var put []datapath.Group
	want := r.groupsOf(d)
	for g := range want {
		if !r.tables.groups[g] {
			put = append(put, g)
		}
	}
	for g := range r.failed.groups {
		if d.nets[g.VNI] && !want[g] {
			delete(r.failed.groups, g)
		}
	}
	batch(put, r.kernel.PutGroups, func(g datapath.Group, err error) {
		if err != nil {
			r.failed.groups[g] = err
			return
		}
		delete(r.failed.groups, g)
		r.tables.groups[g] = true
		r.writes++
	})
}

func (r *Reconciler) deleteGroups(d *dirty) {
	var gone []datapath.Group
	want := r.groupsOf(d)
	for g := range r.tables.groups {
		if d.nets[g.VNI] && !want[g] {
			gone = append(gone, g)
		}
	}
	batch(gone, r.kernel.DeleteGroups, func(g datapath.Group, err error) {
		if err != nil {
			r.failed.groups[g] = err
			return
		}
		delete(r.tables.groups, g)
		r.deleted++
		r.writes++
	})
}

// Joined are the groups that this host is to be a member of.
func (r *Reconciler) Joined() map[netip.Addr]bool {
	all := map[datapath.Group]bool{}
	for _, n := range r.view.nets {
		r.wantGroups(n, all)
	}
	want := map[netip.Addr]bool{}
	for g := range all {
		want[g.Addr] = true
	}
	return want
}

// SetSender gives the index of the uplink that packets to groups leave by.
func (r *Reconciler) SetSender(ifindex uint32) {
	if r.sender != ifindex {
		r.sender = ifindex
		r.dirty.all = true
	}
}

// JoinFailed says why this host is no member of a group; nil that it is.
func (r *Reconciler) JoinFailed(group netip.Addr, err error) {
	if err != nil {
		r.failed.joins[group] = err
	} else {
		delete(r.failed.joins, group)
	}
}

func (r *Reconciler) groupErrors(add func(kind planv1.Kind, uid string, format string, args ...any)) {
	for g, err := range r.failed.groups {
		add(planv1.Kind_KIND_NETWORK, r.view.byVNI[g.VNI], "group table, %s: %v", g.Addr, err)
	}
	for _, uid := range slices.Sorted(maps.Keys(r.view.nets)) {
		for _, g := range r.view.nets[uid].joined {
			if err := r.failed.joins[g]; err != nil {
				add(planv1.Kind_KIND_NETWORK, uid, "floods by a group are not received: %v", err)
			}
		}
	}
}
