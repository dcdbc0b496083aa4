package agent

import (
	"crypto/sha256"
	"net/netip"
	"slices"
	"strings"

	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/wire"
)

// The OAM network, VNI 0, lets agents prove the tunnel to each other. It is no tenant's and never floods. Each host has
// a veth pair in its own namespace:
//
//	agent's socket -- weft-oam1 ===== weft-oam0 -- from_port / to_port, as any port
//
// and two MACs, made from its VTEP address so that peers know them without being told. What is sent to the first is
// delivered as any packet; what is sent to the second takes the kernel lane, where the host's firewall sees it.
const (
	oamInterface = "weft-oam0"
	oamSocket    = "weft-oam1"
	oamUID       = "weft-oam"
)

// lane says by which way a probe is delivered.
type lane byte

const (
	nativeLane lane = iota
	kernelLane
)

// oamMAC is the MAC of a VTEP for a lane: the prefix 02:6f:77, which no tenant may use, 23 bits of the address's
// hash, and the lane.
func oamMAC(vtep netip.Addr, l lane) wire.MAC {
	h := sha256.Sum256(vtep.AsSlice())
	return wire.MAC{0x02, 0x6f, 0x77, h[0], h[1], h[2]&^1 | byte(l)}
}

// oam is the reconciler's part of the OAM network.
type oam struct {
	ifindex uint32
	self    netip.Addr
	// peers are the MACs of the other hosts' VTEPs; those on which two hosts fall are in none.
	peers map[wire.MAC]string
	// changed since the prober was told.
	changed bool
	// groups are those that this host sends probes to, by their MACs in the OAM network; regroup: they, or who else sends to them, may have changed
	// since the watch was told.
	groups  map[wire.MAC]netip.Addr
	regroup bool
}

func (o *oam) macs() []wire.MAC {
	return []wire.MAC{oamMAC(o.self, nativeLane), oamMAC(o.self, kernelLane)}
}

func (o *oam) network(local datapath.Local) datapath.Network {
	return datapath.Network{VNI: wire.OAMVNI, MTU: innerMTU(local), Unknown: datapath.UnknownDrop, LocalPorts: nil}
}

func (o *oam) fdb(key datapath.FDBKey, id func(string) (datapath.VTEPID, bool)) (datapath.FDBEntry, bool) {
	entry := datapath.FDBEntry{FDBKey: key}
	if o.ifindex == 0 {
		return entry, false
	}
	for l, mac := range o.macs() {
		if key.MAC == mac {
			entry.Ifindex = o.ifindex
			if lane(l) == kernelLane {
				entry.Flags = datapath.FDBAllByKernel
			}
			return entry, true
		}
	}
	uid := o.peers[key.MAC]
	if g, probed := o.groups[key.MAC]; probed {
		uid = groupUID(g)
	}
	var ok bool
	entry.VTEP, ok = id(uid)
	return entry, ok
}

// index works out the peers' MACs and returns every MAC that changed hands.
func (o *oam) index(r *Reconciler) []wire.MAC {
	peers := map[wire.MAC]string{}
	if o.ifindex != 0 {
		twice := map[wire.MAC]bool{{0x02, 0x6f, 0x77, 0, 0, 1}: true} // weft-vxlan's own
		for _, mac := range o.macs() {
			twice[mac] = true
		}
		for uid, v := range r.view.vteps {
			addr, ok := r.target(v)
			if v.external || r.own(uid) || !ok {
				continue
			}
			for _, l := range []lane{nativeLane, kernelLane} {
				mac := oamMAC(addr, l)
				if twice[mac] || peers[mac] != "" {
					twice[mac] = true
					delete(peers, mac)
					continue
				}
				peers[mac] = uid
			}
		}
	}
	var changed []wire.MAC
	for mac, uid := range peers {
		if o.peers[mac] != uid {
			changed = append(changed, mac)
		}
	}
	for mac := range o.peers {
		if peers[mac] == "" {
			changed = append(changed, mac)
		}
	}
	o.peers = peers
	o.changed = o.changed || len(changed) > 0
	return changed
}

// oamGroupMAC is what stands in the OAM network for a group of the underlay: frames to it are sent to the group, and delivered where they come by one.
func oamGroupMAC(group netip.Addr) wire.MAC {
	m := oamMAC(group, nativeLane)
	m[0] |= 1
	return m
}

// mostProbed groups are probed by one host: the lowest of those that it sends floods to.
const mostProbed = 64

// indexGroups works out which groups are probed, and returns every MAC that changed hands.
func (o *oam) indexGroups(r *Reconciler) (changed []wire.MAC) {
	var all []netip.Addr
	if o.ifindex != 0 {
		for uid := range r.view.netsOf {
			if text, ok := strings.CutPrefix(uid, groupPrefix); ok {
				if g, err := netip.ParseAddr(text); err == nil && r.carries(g) {
					all = append(all, g)
				}
			}
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	groups := map[wire.MAC]netip.Addr{}
	for _, g := range all {
		mac := oamGroupMAC(g)
		if _, taken := groups[mac]; !taken && len(groups) < mostProbed {
			groups[mac] = g
		}
	}
	for mac, g := range groups {
		if o.groups[mac] != g {
			changed = append(changed, mac)
		}
	}
	for mac := range o.groups {
		if !groups[mac].IsValid() {
			changed = append(changed, mac)
		}
	}
	o.groups = groups
	return changed
}

func (o *oam) port(id datapath.PortID) datapath.Port {
	return datapath.Port{Ifindex: o.ifindex, ID: id, UID: oamUID, VNI: wire.OAMVNI, MACs: o.macs()}
}

// innerMTU is what the uplink carries of an inner IP packet: less 20 or 40 octets of outer IP, 8 of UDP, 8 of VXLAN
// and 14 of inner Ethernet.
func innerMTU(local datapath.Local) int {
	if local.Addr4.IsValid() {
		return local.UplinkMTU - 50
	}
	return local.UplinkMTU - 70
}
