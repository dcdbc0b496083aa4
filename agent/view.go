package agent

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/plan"
	"github.com/weftnet/weft/wire"
)

// view is the plan in decoded form, with the indexes that let one change touch only what it concerns.
type view struct {
	host   *planv1.Host
	vteps  map[string]*vtep
	nets   map[string]*network
	ports  map[string]*port
	byVNI  map[wire.VNI]string
	claims byMAC[*claim] // an entry is nowhere changed: a port's MACs share one
	// addresses are those that ports say they have, or may have.
	addresses byIP[holders]
	// open counts a network's ports of which not every address is known, by IP version: 4, 6.
	open    map[string]*[2]int
	atVTEP  portIndex                  // by the uid of the VTEP
	netsOf  map[string]map[string]bool // external vtep uid -> network uids
	inNet   portIndex                  // by the uid of the network, whichever came first
	members members
	epochs  map[string]int64
	// expected are the ports of each network that a first plan brings and that have not come yet.
	expected map[string]int
	stale    map[string]bool     // ports whose resource has a lower epoch than was seen
	lacking  map[string]string   // resource uid -> a feature it requires and we lack
	broken   map[plan.Key]string // resources that could not be understood; the last good one stays
	flips    map[string]flip     // port uid -> a commit that stands in the place of the plan's word
	// passing are the ports that are on their way, by each host that they come to or go from.
	passing map[string]map[string]bool
	// routers are the ports of each network that may advertise themselves as one.
	routers map[string]map[string]bool
	// over are flips that ended since overFlips was asked.
	over []flip
}

// vtep is a decoded Vtep resource.
type vtep struct {
	uid, name string
	addrs     []netip.Addr
	udpPort   uint16
	checksum  bool
	external  bool
}

// network is a decoded Network resource.
type network struct {
	uid, display string
	vni          wire.VNI
	mtu          int
	unknown      datapath.UnknownUnicast
	dscpUniform  bool
	learning     datapath.Learning
	sources      []netip.Prefix
	external     []external
	dhcp         *dhcp // nil: nothing is answered
	// floods: nobody is answered.
	floods   bool
	bumLimit uint32
	// group that floods are sent to, if any; joined are those that they are received by.
	group  netip.Addr
	joined []netip.Addr
	// copies are the external VTEPs that the group does not reach.
	copies map[string]bool
}

type external struct {
	vtep string
	macs []wire.MAC
}

// port is a decoded Port resource, and its place: that of the highest epoch seen, which may not be this resource's.
type port struct {
	uid, network, tenant, name string
	macs, pairs                []wire.MAC
	ips                        []netip.Prefix
	unguarded, forwarding      bool
	fastPath                   bool
	dhcpServer, router         bool
	hostname                   string
	// allowed are its pairs.
	allowed  []datapath.Claim
	bumLimit uint32
	// place is where it is: what the plan says, or the flip in its place.
	place, planned place
	// claim is that to its MACs.
	claim claim
	// at are its places in the view's indexes.
	at [portIndexes]int32
	// stale is the epoch of the resource when it is lower than the highest seen, and refused is what it says.
	stale   int64
	refused *place
}

// place is where a port is: host uids, and the uid of the active host's VTEP.
type place struct {
	epoch                            int64
	active, incoming, draining, vtep string
}

// on reports whether the host has any part in the port.
func (p place) on(host string) bool {
	return p.active == host || p.incoming == host || p.draining == host
}

// comes reports whether the port is on its way to the host, from another.
func (p place) comes(host string) bool { return p.incoming == host && p.active != host }

// goes reports whether the port has left the host, which forwards what still comes for it.
func (p place) goes(host string) bool { return p.draining == host && p.active != host }

// ends are the hosts that a port is on its way between, if it is.
func (p *port) ends() []string {
	switch w := p.planned; {
	case w.incoming != "" && w.incoming != w.active:
		return []string{w.active, w.incoming}
	case w.draining != "" && w.draining != w.active:
		return []string{w.active, w.draining}
	}
	return nil
}

// claim is who says where a MAC is: a port, or a network's external VTEP.
type claim struct {
	port          string
	network, vtep string
}

// claimOf is who says where a MAC is; the zero claim is nobody.
func (v *view) claimOf(key datapath.FDBKey) claim {
	if c, ok := v.claims.get(key); ok {
		return *c
	}
	return claim{}
}

func newView() *view {
	return &view{
		vteps:     map[string]*vtep{},
		nets:      map[string]*network{},
		ports:     map[string]*port{},
		byVNI:     map[wire.VNI]string{},
		claims:    byMAC[*claim]{},
		atVTEP:    newPortIndex(byVTEP),
		netsOf:    map[string]map[string]bool{},
		inNet:     newPortIndex(byNetwork),
		members:   newMembers(),
		epochs:    map[string]int64{},
		expected:  map[string]int{},
		stale:     map[string]bool{},
		lacking:   map[string]string{},
		broken:    map[plan.Key]string{},
		flips:     map[string]flip{},
		passing:   map[string]map[string]bool{},
		routers:   map[string]map[string]bool{},
		addresses: byIP[holders]{},
		open:      map[string]*[2]int{},
	}
}

// expect makes room for a first plan, whose resources are mostly ports.
func (v *view) expect(changes []change) {
	if len(v.ports) > 0 || len(changes) < many {
		return
	}
	v.ports = make(map[string]*port, len(changes))
	if len(v.epochs) == 0 {
		v.epochs = make(map[string]int64, len(changes))
	}
	for _, c := range changes {
		if p, ok := c.value.(*port); ok {
			v.expected[p.network]++
		}
	}
}

// makeRoom is for the ports of a network that are expected, when the first of them comes.
func (v *view) makeRoom(uid string) {
	ports := v.expected[uid]
	if ports == 0 {
		return
	}
	delete(v.expected, uid)
	if n := v.nets[uid]; n != nil && v.inNet.of[uid] == nil {
		v.inNet.of[uid] = make([]*port, 0, ports)
		v.claims.of(n.vni, ports)
		v.addresses.of(n.vni, ports)
	}
}

// decode reads a resource's body into its type, and refuses what no kernel table could hold.
func decode(r *plan.Resource) (any, error) {
	m, err := r.Decode()
	if err != nil {
		return nil, err
	}
	switch m := m.(type) {
	case *planv1.Host:
		return m, nil
	case *planv1.Vtep:
		return decodeVTEP(r.UID, m)
	case *planv1.Network:
		return decodeNetwork(r.UID, m)
	case *planv1.Port:
		return decodePort(r.UID, m)
	}
	return nil, fmt.Errorf("%s is of no known kind", r.Key())
}

func decodeVTEP(uid string, m *planv1.Vtep) (*vtep, error) {
	v := &vtep{uid: uid, name: m.Name, checksum: m.OuterChecksum, external: m.External}
	if m.UdpPort > 0xffff {
		return nil, fmt.Errorf("UDP port %d is outside 1..65535", m.UdpPort)
	}
	v.udpPort = uint16(m.UdpPort)
	if v.udpPort == 0 {
		v.udpPort = wire.VXLANPort
	}
	for _, b := range m.Addresses {
		a, ok := netip.AddrFromSlice(b)
		if !ok || a.IsUnspecified() || a.IsMulticast() {
			return nil, fmt.Errorf("address % x is not a unicast IP address", b)
		}
		v.addrs = append(v.addrs, a.Unmap())
	}
	return v, nil
}

func decodeNetwork(uid string, m *planv1.Network) (*network, error) {
	n := &network{uid: uid, display: m.Display, vni: wire.VNI(m.Vni), mtu: int(m.Mtu), dscpUniform: m.DscpUniform,
		floods: m.Neighbours == planv1.Neighbours_NEIGHBOURS_FLOOD, bumLimit: min(m.BumLimit, datapath.MaxBUMLimit)}
	if err := n.vni.Validate(); err != nil {
		return nil, err
	}
	if n.mtu < 68 || n.mtu > 65535 {
		return nil, fmt.Errorf("MTU %d is outside 68..65535", n.mtu)
	}
	switch m.UnknownUnicast {
	case planv1.UnknownUnicast_UNKNOWN_UNICAST_FLOOD:
		n.unknown = datapath.UnknownFlood
	case planv1.UnknownUnicast_UNKNOWN_UNICAST_DROP:
		n.unknown = datapath.UnknownDrop
	default:
		n.unknown = datapath.UnknownExternal
	}
	var err error
	if n.dhcp, err = decodeDHCP(m.Dhcp); err != nil {
		return nil, err
	}
	if l := m.Learning; l != nil {
		n.learning = datapath.Learning{Ageing: time.Duration(l.AgeingSeconds) * time.Second, VTEPLimit: int(l.VtepLimit), PortLimit: int(l.PortLimit)}
		if n.learning.Ageing <= 0 || n.learning.Ageing > datapath.MaxAgeing {
			return nil, fmt.Errorf("learned MACs are to age after %s", n.learning.Ageing)
		}
		for _, s := range l.Sources {
			p, err := netip.ParsePrefix(s)
			if err != nil {
				return nil, err
			}
			n.sources = append(n.sources, p.Masked())
		}
	}
	for _, e := range m.External {
		macs, err := decodeMACs(e.Macs)
		if err != nil {
			return nil, err
		}
		n.external = append(n.external, external{vtep: e.Vtep, macs: macs})
	}
	return n, decodeGroups(n, m)
}

func decodePort(uid string, m *planv1.Port) (*port, error) {
	p := &port{
		claim: claim{port: uid},
		uid:   uid, network: m.Network, tenant: m.TenantName, name: m.Name,
		unguarded: m.Unguarded, forwarding: m.Forwarding, fastPath: m.FastPath,
		dhcpServer: m.DhcpServer, router: m.Router, hostname: cmp.Or(m.Hostname, m.Name),
		bumLimit: min(m.BumLimit, datapath.MaxBUMLimit),
		place:    place{epoch: m.Epoch, active: m.Active, incoming: m.Incoming, draining: m.Draining, vtep: m.Vtep},
	}
	var err error
	if p.macs, err = decodeMACs(m.Macs); err != nil {
		return nil, err
	}
	for _, pair := range m.AllowedAddressPairs {
		macs, err := decodeMACs([][]byte{pair.Mac})
		if err != nil {
			return nil, err
		}
		if !slices.Contains(p.pairs, macs[0]) && !slices.Contains(p.macs, macs[0]) {
			p.pairs = append(p.pairs, macs[0])
		}
		c := datapath.Claim{MAC: macs[0]}
		if pair.Ip != "" {
			if c.IP, err = netip.ParseAddr(pair.Ip); err != nil {
				return nil, err
			}
			c.IP = c.IP.Unmap()
		}
		p.allowed = append(p.allowed, c)
	}
	for _, s := range m.Ips {
		ip, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, err
		}
		p.ips = append(p.ips, ip)
	}
	if len(uid) > 32 {
		return nil, fmt.Errorf("uid of %d octets, 32 are the most", len(uid))
	}
	return p, nil
}

func decodeMACs(raw [][]byte) ([]wire.MAC, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	macs := make([]wire.MAC, 0, len(raw))
	for _, b := range raw {
		if len(b) != 6 {
			return nil, fmt.Errorf("MAC of %d octets", len(b))
		}
		m := wire.MAC(b)
		if m.IsZero() || m.IsMulticast() {
			return nil, fmt.Errorf("MAC %s is not a unicast address", m)
		}
		macs = append(macs, m)
	}
	return macs, nil
}

func (v *view) kindOf(uid string) planv1.Kind {
	switch {
	case v.ports[uid] != nil:
		return planv1.Kind_KIND_PORT
	case v.nets[uid] != nil:
		return planv1.Kind_KIND_NETWORK
	case v.host != nil && v.host.Uid == uid:
		return planv1.Kind_KIND_HOST
	}
	return planv1.Kind_KIND_VTEP
}

// remove takes one resource out. What it touched is marked.
func (v *view) remove(kind planv1.Kind, uid string, d *dirty) {
	delete(v.lacking, uid)
	delete(v.broken, plan.Key{Kind: kind, UID: uid})
	switch kind {
	case planv1.Kind_KIND_HOST:
		v.host = nil
		d.accepts[wire.OAMVNI] = true
	case planv1.Kind_KIND_VTEP:
		v.touchVTEP(uid, d)
		delete(v.vteps, uid)
	case planv1.Kind_KIND_NETWORK:
		if n := v.nets[uid]; n != nil {
			v.touchNetwork(n, d)
			v.unclaimNetwork(n, d)
			v.unclaimPorts(n, d)
			delete(v.nets, uid)
			if v.byVNI[n.vni] == uid {
				delete(v.byVNI, n.vni)
				v.heir(n.vni, d)
			}
		}
	case planv1.Kind_KIND_PORT:
		if p := v.ports[uid]; p != nil {
			v.unclaimPort(p, d)
			delete(v.ports, uid)
			delete(v.stale, uid)
			v.inNet.remove(p.network, p)
			v.leave(p, d)
			v.endFlip(uid)
			d.touchPort(uid)
		}
	}
}

// heir gives a VNI to another network that was refused it; the server never lets that happen, a bad plan might.
func (v *view) heir(vni wire.VNI, d *dirty) {
	for uid, n := range v.nets {
		if n.vni == vni {
			v.byVNI[vni] = uid
			v.claimNetwork(n, d)
			v.claimPorts(n, d)
			v.touchNetwork(n, d)
			return
		}
	}
}

// unclaim is the first half of an upsert: the old resource's claims go before any new one's come, so that a MAC
// can pass from one port to another in one update.
func (v *view) unclaim(decoded any, d *dirty) {
	switch r := decoded.(type) {
	case *network:
		if old := v.nets[r.uid]; old != nil {
			v.touchNetwork(old, d)
			v.unclaimNetwork(old, d)
		}
	case *port:
		if old := v.ports[r.uid]; old != nil {
			v.unclaimPort(old, d)
		}
	}
}

// put is the second half.
func (v *view) put(decoded any, d *dirty) {
	switch r := decoded.(type) {
	case *planv1.Host:
		v.host = r
		d.accepts[wire.OAMVNI] = true
	case *vtep:
		v.vteps[r.uid] = r
		v.touchVTEP(r.uid, d)
	case *network:
		v.putNetwork(r, d)
	case *port:
		v.putPort(r, d)
	}
}

func (v *view) putNetwork(n *network, d *dirty) {
	old := v.nets[n.uid]
	moved := old == nil || old.vni != n.vni
	if old != nil && moved {
		v.unclaimPorts(old, d)
	}
	v.nets[n.uid] = n
	if old != nil && moved && v.byVNI[old.vni] == n.uid {
		delete(v.byVNI, old.vni)
		v.heir(old.vni, d)
	}
	if _, taken := v.byVNI[n.vni]; !taken {
		v.byVNI[n.vni] = n.uid
	}
	if moved {
		d.touchAll(n.vni) // before its ports come, which need no marks then
		v.claimPorts(n, d)
	} else if old.floods != n.floods {
		d.touchAddresses(n.vni)
	}
	v.claimNetwork(n, d)
	v.touchNetwork(n, d)
}

func (v *view) putPort(p *port, d *dirty) {
	old := v.ports[p.uid]
	if old != nil {
		v.inNet.remove(old.network, old)
	}
	switch seen := v.epochs[p.uid]; {
	case p.place.epoch >= seen:
		v.epochs[p.uid] = p.place.epoch
	default:
		told := p.place
		p.stale, p.refused = told.epoch, &told
		p.place = place{epoch: seen}
		if old != nil {
			p.place = old.planned
		}
	}
	v.settlePlace(p)
	delete(v.stale, p.uid)
	if p.stale != 0 {
		v.stale[p.uid] = true
	}
	v.ports[p.uid] = p
	v.makeRoom(p.network)
	v.inNet.add(p.network, p)
	v.join(p, d)
	if old != nil {
		v.leave(old, d)
	}
	v.claimPort(p, d)
	d.touchPort(p.uid)
}

// touchVTEP marks what depends on a VTEP: its entry, who is accepted, floods and the FDB entries that name it.
func (v *view) touchVTEP(uid string, d *dirty) {
	d.vteps[uid] = true
	d.accepts[wire.OAMVNI] = true
	v.touchUsers(uid, d)
}

// touchUsers marks what names a VTEP.
func (v *view) touchUsers(uid string, d *dirty) {
	for net := range v.members.of[uid] {
		if n := v.nets[net]; n != nil {
			d.nets[n.vni] = true
			d.accepts[n.vni] = true
		}
	}
	for net := range v.netsOf[uid] {
		n := v.nets[net]
		if n == nil {
			continue
		}
		d.nets[n.vni] = true
		d.accepts[n.vni] = true
		for _, e := range n.external {
			if e.vtep == uid {
				v.touchMACs(n.vni, e.macs, d)
			}
		}
	}
	for _, p := range v.atVTEP.of[uid] {
		v.touchFDB(p, d)
	}
}

// touchNetwork marks the network's entries and those of its local ports, not its whole FDB.
func (v *view) touchNetwork(n *network, d *dirty) {
	d.nets[n.vni] = true
	d.accepts[n.vni] = true
	d.portsOf[n.uid] = true
}

func (v *view) touchFDB(p *port, d *dirty) {
	if n := v.nets[p.network]; n != nil {
		v.touchMACs(n.vni, p.macs, d)
	}
}

// touchMACs marks entries of a network. Where they are most of those it has, the whole of it is marked: comparing the few that are left costs
// less than naming each.
func (v *view) touchMACs(vni wire.VNI, macs []wire.MAC, d *dirty) {
	const few = 1000
	if len(macs) > few && 2*len(macs) > len(v.claims[vni]) {
		d.touchAll(vni)
	}
	for _, mac := range macs {
		if !d.touch(datapath.FDBKey{VNI: vni, MAC: mac}) {
			return
		}
	}
}

// claimNetwork enters a network in the indexes, and its externals' MACs. Ports come before externals: a port's MAC is
// the server's word, an external's a user's.
func (v *view) claimNetwork(n *network, d *dirty) {
	for _, e := range n.external {
		index(v.netsOf, e.vtep, n.uid)
	}
	if n.group.IsValid() {
		index(v.netsOf, groupUID(n.group), n.uid)
		d.vteps[groupUID(n.group)] = true
	}
	if v.byVNI[n.vni] != n.uid {
		return
	}
	for _, e := range n.external {
		c := &claim{network: n.uid, vtep: e.vtep}
		of := v.claims.of(n.vni, len(e.macs))
		for _, mac := range e.macs {
			if k := keyOf(mac); of[k] == nil {
				of[k] = c
			}
		}
		v.touchMACs(n.vni, e.macs, d)
	}
}

func (v *view) unclaimNetwork(n *network, d *dirty) {
	if n.group.IsValid() {
		unindex(v.netsOf, groupUID(n.group), n.uid)
		d.vteps[groupUID(n.group)] = true
	}
	for _, e := range n.external {
		unindex(v.netsOf, e.vtep, n.uid)
		v.touchMACs(n.vni, e.macs, d)
		for _, mac := range e.macs {
			key := datapath.FDBKey{VNI: n.vni, MAC: mac}
			if c := v.claimOf(key); c.port == "" && c.network == n.uid {
				v.claims.drop(key)
			}
		}
	}
}

// claimPorts and unclaimPorts are for a network that gets or loses its VNI; every other change leaves its ports alone.
func (v *view) claimPorts(n *network, d *dirty) {
	if v.byVNI[n.vni] != n.uid {
		return
	}
	for _, p := range v.inNet.of[n.uid] {
		v.claimMACs(n, p, d)
	}
}

func (v *view) unclaimPorts(n *network, d *dirty) {
	for _, p := range v.inNet.of[n.uid] {
		v.unclaimAddresses(n, p, d)
		for _, mac := range p.macs {
			key := datapath.FDBKey{VNI: n.vni, MAC: mac}
			if v.claimOf(key).port == p.uid {
				v.claims.drop(key)
				d.touch(key)
			}
		}
	}
}

func (v *view) claimPort(p *port, d *dirty) {
	if p.router {
		index(v.routers, p.network, p.uid)
		d.portsOf[p.network] = true
	}
	if p.place.vtep != "" {
		v.atVTEP.add(p.place.vtep, p)
	}
	for _, host := range p.ends() {
		index(v.passing, host, p.uid)
	}
	if n := v.nets[p.network]; n != nil && v.byVNI[n.vni] == n.uid {
		v.claimMACs(n, p, d)
	}
}

func (v *view) claimMACs(n *network, p *port, d *dirty) {
	v.claimAddresses(n, p, d)
	for _, mac := range p.macs {
		key := datapath.FDBKey{VNI: n.vni, MAC: mac}
		if v.claimOf(key).port == "" {
			v.claims.put(key, &p.claim)
		}
		d.touch(key)
	}
}

func (v *view) unclaimPort(p *port, d *dirty) {
	if p.router {
		unindex(v.routers, p.network, p.uid)
		d.portsOf[p.network] = true
	}
	v.atVTEP.remove(p.place.vtep, p)
	for _, host := range p.ends() {
		unindex(v.passing, host, p.uid)
	}
	n := v.nets[p.network]
	if n == nil {
		return
	}
	v.unclaimAddresses(n, p, d)
	for _, mac := range p.macs {
		key := datapath.FDBKey{VNI: n.vni, MAC: mac}
		if v.claimOf(key).port == p.uid {
			v.claims.drop(key)
			for _, e := range n.external {
				if slices.Contains(e.macs, mac) {
					v.claims.put(key, &claim{network: n.uid, vtep: e.vtep})
				}
			}
		}
		d.touch(key)
	}
}

func index(m map[string]map[string]bool, key, member string) {
	in := m[key]
	if in == nil {
		in = map[string]bool{}
		m[key] = in
	}
	in[member] = true
}

func unindex(m map[string]map[string]bool, key, member string) {
	in := m[key]
	if delete(in, member); len(in) == 0 {
		delete(m, key)
	}
}
