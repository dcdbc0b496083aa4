package server

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/weftnet/weft/model"
)

// A network whose MTU is pinned has members that can carry it, and no others: a host that cannot is refused when a port
// is bound to it, and an MTU that a member cannot carry is refused when it is set.

// hostCarries refuses a host that the network with its pinned MTU cannot have as a member: its own uplink is too small,
// or its joining makes encapsulation larger (an IPv6-only VTEP) than another member's uplink can take. Hosts that have
// not said anything yet pass; a condition says so when they do.
func hostCarries(w *model.World, h *model.Host, n *model.Network) error {
	if n == nil || n.Spec.MTU == 0 {
		return nil
	}
	members := membersOf(w, n)
	members[h.UID] = struct{}{}
	return allCarry(w, n, members, "host")
}

// membersCarry is hostCarries for the hosts that hold a port of the network.
func membersCarry(w *model.World, n *model.Network) error {
	if n.Spec.MTU == 0 {
		return nil
	}
	return allCarry(w, n, membersOf(w, n), "spec.mtu")
}

func membersOf(w *model.World, n *model.Network) map[model.UID]struct{} {
	members := map[model.UID]struct{}{}
	for p := range w.PortsOf(n.UID) {
		if b := w.Bindings[p.UID]; b != nil {
			for uid := range b.Hosts() {
				members[uid] = struct{}{}
			}
		}
	}
	return members
}

func allCarry(w *model.World, n *model.Network, members map[model.UID]struct{}, field string) error {
	over := overhead(w, n, members)
	need := n.Spec.MTU + over
	for _, uid := range slices.Sorted(maps.Keys(members)) {
		h, f := w.Hosts[uid], w.Facts[uid]
		if h == nil || f == nil || f.UplinkMTU == 0 || f.UplinkMTU >= need {
			continue
		}
		return model.Errorf(model.Conflict, field,
			fmt.Sprintf("raise the MTU of %s on host %s to %d, or lower the network's with `weft network set %s --tenant %s --mtu %d`",
				f.Uplink, h.Name, need, n.Name, n.Tenant, f.UplinkMTU-over),
			"network %s with MTU %d needs %d octets in the underlay, and the uplink of host %s carries %d",
			n.Name, n.Spec.MTU, need, h.Name, f.UplinkMTU)
	}
	return nil
}

// overhead is what encapsulation adds: outer IP, UDP, VXLAN and inner Ethernet header (RFC 7348, section 5). One VTEP
// with IPv6 only makes it 70 for all, as the others reach it over IPv6.
func overhead(w *model.World, n *model.Network, members map[model.UID]struct{}) int {
	const v4, v6 = 20 + 8 + 8 + 14, 40 + 8 + 8 + 14
	for uid := range members {
		if f := w.Facts[uid]; f != nil && !slices.ContainsFunc(f.VTEPAddresses, netip.Addr.Is4) {
			return v6
		}
	}
	for _, part := range n.Spec.VTEPs {
		if v := w.VTEPs[part.VTEP]; v != nil && !v.Spec.Address.Is4() {
			return v6
		}
	}
	return v4
}
