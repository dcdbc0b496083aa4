package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"

	"github.com/weftnet/weft/datapath/netdev"
)

// The addresses. Everything of the underlay lies in 198.18.0.0/15 (RFC 2544, for benchmarks: nobody's) and fd18::/15.
//
//	host H   198.18.H.1/31      fd18:0:0:H::1/127     on "uplink0", the leaf has the even one
//	         198.18.H.3/31      fd18:0:0:H::3/127     on "uplink1", and with it
//	         198.18.H.10/32     fd18:0:0:H::a/128     on "lo": the VTEP's
//	guest G  198.18.128+G.1/31  ...                   a further node on leaf G, for comparisons
//	spine 1  198.19.1.1/32                            on "lo", if the routers route multicast
//	leaf L to spine S  198.19.S.2L+1/31, the spine has the even one; fd19:0:0:S::2L+1/127
//	server   172.31.0.1/16, host H 172.31.1.H/16      on "mgmt0"
const (
	management = "mgmt0"
	guestBase  = 128
)

var (
	underlays  = [2]netip.Prefix{netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("fd18::/15")}
	serverAddr = netip.MustParseAddr("172.31.0.1")
	infraNames = regexp.MustCompile(`^(server|switch|h[0-9]+|leaf[0-9]+|spine[0-9]+|guestw?[0-9]+)$`)
)

func hostName(i int) string  { return "h" + strconv.Itoa(i) }
func leafName(i int) string  { return "leaf" + strconv.Itoa(i) }
func spineName(i int) string { return "spine" + strconv.Itoa(i) }
func guestName(i int) string { return "guest" + strconv.Itoa(i) }

func uplinkName(k int) string { return "uplink" + strconv.Itoa(k) }

// uplinks are the names of a host's interfaces to the underlay.
func (c Config) uplinks() (names []string) {
	for k := range c.Uplinks {
		names = append(names, uplinkName(k))
	}
	return names
}

// edge are the two ends of link k between a leaf and what hangs below it: octet is a host's number or guestBase + a guest's.
func edge(octet, k int) (leaf, node [2]netip.Prefix) {
	return [2]netip.Prefix{below4(octet, 2*k, 31), below6(octet, 2*k, 127)}, [2]netip.Prefix{below4(octet, 2*k+1, 31), below6(octet, 2*k+1, 127)}
}

// loopback is where the tunnels of a host with several uplinks end.
func loopback(host int) [2]netip.Prefix {
	return [2]netip.Prefix{below4(host, 10, 32), below6(host, 10, 128)}
}

func below4(octet, last, bits int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(octet), byte(last)}), bits)
}

func below6(octet, last, bits int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x18, 7: byte(octet), 15: byte(last)}), bits)
}

// fabric are the two ends of a link between a leaf and a spine.
func fabric(leaf, spine int) (low, high [2]netip.Prefix) {
	v4 := func(last int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 19, byte(spine), byte(last)}), 31)
	}
	v6 := func(last int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x19, 7: byte(spine), 15: byte(last)}), 127)
	}
	return [2]netip.Prefix{v4(2*leaf + 1), v6(2*leaf + 1)}, [2]netip.Prefix{v4(2 * leaf), v6(2 * leaf)}
}

func managementAddr(host int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 31, 1, byte(host)}), 16)
}

// vtepAddr is the underlay address of a host.
func (c Config) vtepAddr(host int) netip.Addr {
	_, node := edge(host, 0)
	if c.Uplinks > 1 {
		node = loopback(host)
	}
	return node[c.family()].Addr()
}

// family is where the pairs of prefixes here have what tunnels use: 0 is IPv4, 1 is IPv6.
func (c Config) family() int {
	if c.Underlay == 6 {
		return 1
	}
	return 0
}

// has is what of a pair of prefixes the underlay has: both, or IPv6 alone.
func (c Config) has(pair [2]netip.Prefix) []netip.Prefix { return pair[c.family():] }

// infrastructure names every namespace of a lab but its workloads'.
func (c Config) infrastructure() []string {
	names := []string{"server"}
	for i := range c.Hosts {
		names = append(names, hostName(i+1))
		if !c.Direct && !c.Flat {
			names = append(names, leafName(i+1))
		}
	}
	if c.Flat {
		return append(names, switchName)
	}
	if c.Direct {
		return names
	}
	for s := range c.Spines {
		names = append(names, spineName(s+1))
	}
	return names
}

// topology builds nodes and links. Its handles stay open: they become the Lab's.
type topology struct {
	cfg   Config
	nodes map[string]*netdev.Handle
}

// build makes everything; what it made before an error stays, for Down to find.
func (t *topology) build() error {
	for _, n := range t.cfg.infrastructure() {
		if err := t.node(n); err != nil {
			return err
		}
	}
	if err := t.management(); err != nil {
		return err
	}
	if t.cfg.Direct {
		return t.direct()
	}
	if t.cfg.Flat {
		return t.flat()
	}
	for s := 1; s <= t.cfg.Spines; s++ {
		if err := router(t.nodes[spineName(s)]); err != nil {
			return err
		}
	}
	for i := 1; i <= t.cfg.Hosts; i++ {
		if err := t.rack(i); err != nil {
			return err
		}
		if err := t.manage(i); err != nil {
			return err
		}
	}
	for i := 1; i <= t.cfg.Hosts; i++ {
		if err := t.wire(i); err != nil {
			return err
		}
	}
	if t.cfg.Multicast {
		return t.meet()
	}
	return nil
}

// wire hangs host i below its leaves.
func (t *topology) wire(i int) error {
	var out [2][]netdev.Hop
	for k := range t.cfg.Uplinks {
		if err := t.below(t.cfg.leafOf(i, k), i, k, t.nodes[hostName(i)], &out); err != nil {
			return err
		}
	}
	if t.cfg.Uplinks == 1 {
		return t.outward(t.nodes[hostName(i)], out, [2]netip.Prefix{})
	}
	for _, p := range t.cfg.has(loopback(i)) {
		if err := t.nodes[hostName(i)].AddAddress("lo", p); err != nil {
			return err
		}
	}
	if err := t.outward(t.nodes[hostName(i)], out, loopback(i)); err != nil {
		return err
	}
	return t.announce(i, make([]bool, t.cfg.Uplinks))
}

// direct joins host 1 and host 2 by one link, each other's neighbour.
func (t *topology) direct() error {
	end := func(i int) []netip.Prefix { return []netip.Prefix{netip.PrefixFrom(t.cfg.vtepAddr(i), 15)} }
	_, _, err := t.nodes[hostName(1)].EnsureVeth(netdev.Veth{Name: uplinkName(0), MTU: t.cfg.MTU, Addresses: end(1),
		Peer: netdev.VethPeer{Namespace: t.nodes[hostName(2)], Name: uplinkName(0), Addresses: end(2)}})
	if err != nil {
		return err
	}
	return errors.Join(t.fit(t.nodes[hostName(1)], uplinkName(0)), t.fit(t.nodes[hostName(2)], uplinkName(0)), t.manage(1), t.manage(2))
}

// switchName is the node that carries the switch of a flat lab, and its bridge.
const switchName = "switch"

// flat hangs every host on one switch, each other's neighbour.
func (t *topology) flat() error {
	sw := t.nodes[switchName]
	if err := sw.AddBridge(switchName, t.cfg.MTU); err != nil {
		return err
	}
	if err := sw.SetUp(switchName); err != nil {
		return err
	}
	for i := 1; i <= t.cfg.Hosts; i++ {
		_, _, err := sw.EnsureVeth(netdev.Veth{Name: "to-" + hostName(i), MTU: t.cfg.MTU, Peer: netdev.VethPeer{Namespace: t.nodes[hostName(i)],
			Name: uplinkName(0), Addresses: []netip.Prefix{netip.PrefixFrom(t.cfg.vtepAddr(i), 15)}}})
		if err == nil {
			err = sw.SetMaster("to-"+hostName(i), switchName)
		}
		if err == nil {
			err = t.manage(i)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// fit makes an interface one whose other end can be an uplink of the XDP lane, if the lab has such.
func (t *topology) fit(h *netdev.Handle, ifname string) error {
	if !t.cfg.XDP {
		return nil
	}
	return h.FitForXDP(ifname)
}

// management makes the server's end of the management link.
func (t *topology) management() error {
	server := t.nodes["server"]
	if err := server.AddBridge(management, 1500); err != nil {
		return err
	}
	if err := server.AddAddress(management, netip.PrefixFrom(serverAddr, 16)); err != nil {
		return err
	}
	return server.SetUp(management)
}

// manage joins a host to the management link.
func (t *topology) manage(i int) error {
	server := t.nodes["server"]
	_, _, err := server.EnsureVeth(netdev.Veth{Name: "to-" + hostName(i), MTU: 1500,
		Peer: netdev.VethPeer{Namespace: t.nodes[hostName(i)], Name: management, Addresses: []netip.Prefix{managementAddr(i)}}})
	if err != nil {
		return err
	}
	return server.SetMaster("to-"+hostName(i), management)
}

// rack makes leaf i and its links to every spine.
func (t *topology) rack(i int) error {
	leaf := t.nodes[leafName(i)]
	if err := router(leaf); err != nil {
		return err
	}
	var up [2][]netdev.Hop
	for s := 1; s <= t.cfg.Spines; s++ {
		low, high := fabric(i, s)
		near, _, err := leaf.EnsureVeth(netdev.Veth{Name: "to-" + spineName(s), MTU: t.cfg.MTU, Addresses: t.cfg.has(low),
			Peer: netdev.VethPeer{Namespace: t.nodes[spineName(s)], Name: "to-" + leafName(i), Addresses: t.cfg.has(high)}})
		if err != nil {
			return err
		}
		for f := range up {
			up[f] = append(up[f], netdev.Hop{Gateway: high[f].Addr(), Index: near.Index})
		}
	}
	for f := t.cfg.family(); f < len(up); f++ {
		if err := leaf.ReplaceRoute(netdev.Route{Dst: underlays[f], Hops: up[f]}); err != nil {
			return err
		}
	}
	return nil
}

// below hangs a node under leaf i by its link k, tells every spine the way to that link, and adds the way out to the node's.
func (t *topology) below(i, octet, k int, node *netdev.Handle, out *[2][]netdev.Hop) error {
	leafEnd, nodeEnd := edge(octet, k)
	name := "to-" + hostName(octet)
	if octet >= guestBase {
		name = "to-" + guestName(octet-guestBase)
	}
	_, far, err := t.nodes[leafName(i)].EnsureVeth(netdev.Veth{Name: name, MTU: t.cfg.MTU, Addresses: t.cfg.has(leafEnd),
		Peer: netdev.VethPeer{Namespace: node, Name: uplinkName(k), Addresses: t.cfg.has(nodeEnd)}})
	if err == nil {
		err = t.fit(t.nodes[leafName(i)], name)
	}
	if err != nil {
		return err
	}
	for f := range out {
		out[f] = append(out[f], netdev.Hop{Gateway: leafEnd[f].Addr(), Index: far.Index})
	}
	for s := 1; s <= t.cfg.Spines; s++ {
		spine := t.nodes[spineName(s)]
		l, err := spine.LinkByName("to-" + leafName(i))
		if err != nil {
			return err
		}
		low, _ := fabric(i, s)
		for f := t.cfg.family(); f < len(leafEnd); f++ {
			r := netdev.Route{Dst: leafEnd[f].Masked(), Hops: []netdev.Hop{{Gateway: low[f].Addr(), Index: l.Index}}}
			if err := spine.ReplaceRoute(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// outward gives a node its ways to the rest of the underlay, and the addresses that it speaks from there, if not those of the links.
func (t *topology) outward(node *netdev.Handle, out [2][]netdev.Hop, from [2]netip.Prefix) error {
	for f := t.cfg.family(); f < len(underlays); f++ {
		if err := node.ReplaceRoute(netdev.Route{Dst: underlays[f], Hops: out[f], Source: from[f].Addr()}); err != nil {
			return err
		}
	}
	return nil
}

func (t *topology) node(name string) error {
	ns := t.cfg.namespace(name)
	if err := netdev.CreateNamespace(ns); err != nil {
		return fmt.Errorf("make %s: %w", name, err)
	}
	if err := t.open(name); err != nil {
		return err
	}
	// A router asks for a neighbour from its link-local address, and has none for the second or two that the search for
	// duplicates takes. Here nobody else can have it.
	for _, scope := range []string{"all", "default"} {
		if err := t.nodes[name].SetSysctl("net/ipv6/conf/"+scope+"/accept_dad", "0"); err != nil {
			return err
		}
	}
	return nil
}

func (t *topology) open(name string) error {
	if t.nodes[name] != nil {
		return nil
	}
	h, err := netdev.OpenName(t.cfg.namespace(name))
	if err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	if t.nodes == nil {
		t.nodes = map[string]*netdev.Handle{}
	}
	t.nodes[name] = h
	return nil
}

// router lets a namespace forward, and choose among equal paths by addresses, protocol and L4 ports: with the default policy
// 0 all tunnel packets between two hosts would take one spine. A reverse path filter inherited from the machine would drop
// what returns by another spine.
func router(h *netdev.Handle) error {
	for _, s := range [][2]string{
		{"net/ipv4/conf/all/rp_filter", "0"}, {"net/ipv4/conf/default/rp_filter", "0"},
		{"net/ipv4/ip_forward", "1"}, {"net/ipv4/fib_multipath_hash_policy", "1"},
		{"net/ipv6/conf/all/forwarding", "1"}, {"net/ipv6/fib_multipath_hash_policy", "1"},
	} {
		if err := h.SetSysctl(s[0], s[1]); err != nil {
			return err
		}
	}
	return nil
}
