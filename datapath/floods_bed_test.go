package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/internal/testenv"
	"github.com/weftnet/weft/wire"
)

const (
	floodVNI      = wire.VNI(7)
	floodGroupID  = VTEPID(250)
	fenceProtocol = 0x88b6 // the other ethertype for local experiments
)

// floodBed is a flat underlay with multicast snooping and a querier, and hosts on it, of which the first sends:
//
//	           [net: br0]
//	 v0 |     v1 |     v2 |     v3 |  ...
//	[v0 up0] [v1 up0] [v2 up0] [v3 up0]     10.99.0.N+1, fd99::N+1
//	 p0 p1    p0       p0 p1    p0          port K of host N is vNpK in [guests]
type floodBed struct {
	net, guests *netdev.Handle
	vteps       []*floodVTEP
	seen        floodCount
	fenced      int // frames of the fence at ports
}

// floodVTEP is a host, what is seen of it on the wire, and its ports.
type floodVTEP struct {
	*testHost
	number int
	wire   *onlooker
	ports  []*floodPort
	mac    wire.MAC
}

type floodPort struct {
	ifindex uint32
	mac     wire.MAC
	inside  *onlooker
	name    string // in guests
}

func newFloodBed(t *testing.T, others int) *floodBed {
	t.Helper()
	testenv.Require(t, "root", "bpf")
	ip := testenv.RequireTool(t, "ip")
	b := &floodBed{net: namespace(t, "net"), guests: namespace(t, "guests")}
	must(t, b.net.SetSysctl("net/ipv6/conf/default/accept_dad", "0")) // its address is good at once
	cmd := exec.Command(ip, "link", "add", "br0", "mtu", "1600", "type", "bridge", "mcast_snooping", "1", "mcast_querier", "1",
		"mcast_igmp_version", "3", "mcast_mld_version", "2", "mcast_startup_query_interval", "10", "mcast_query_response_interval", "10",
		"mcast_last_member_interval", "5", "mcast_query_interval", "50") // hundredths of a second; it asks again once it has an IPv6 address
	must(t, b.net.Start(cmd))
	must(t, cmd.Wait())
	must(t, b.net.SetUp("br0"))
	for i := range others + 1 {
		b.vteps = append(b.vteps, b.newVTEP(t, i))
	}
	b.open(t)
	// Nobody has to ask, and the switch knows who is where.
	for _, v := range b.vteps {
		must(t, b.net.AddBridgeFDB(fmt.Sprintf("v%d", v.number), v.mac))
		for _, o := range b.vteps {
			if o != v {
				must(t, v.ns.SetNeighbour(int(v.uplink()), b.addrOf(o.number, false), o.mac))
				must(t, v.ns.SetNeighbour(int(v.uplink()), b.addrOf(o.number, true), o.mac))
			}
		}
	}
	return b
}

func (b *floodBed) addrOf(number int, ip6 bool) netip.Addr {
	if ip6 {
		return netip.MustParseAddr(fmt.Sprintf("fd99::%x", number+1))
	}
	return netip.AddrFrom4([4]byte{10, 99, 0, byte(number + 1)})
}

func (b *floodBed) addr(number int, ip6 bool) string { return b.addrOf(number, ip6).String() }

func (b *floodBed) newVTEP(t *testing.T, number int) *floodVTEP {
	t.Helper()
	name := fmt.Sprintf("v%d", number)
	v := &floodVTEP{number: number}
	ns := namespace(t, name)
	addr4, addr6 := b.addrOf(number, false), b.addrOf(number, true)
	_, far, err := b.net.EnsureVeth(netdev.Veth{Name: name, MTU: 1600, Quiet: true, Peer: netdev.VethPeer{Namespace: ns, Name: "up0",
		Addresses: []netip.Prefix{netip.PrefixFrom(addr4, 24), netip.PrefixFrom(addr6, 64)}}})
	must(t, err)
	must(t, b.net.SetMaster(name, "br0"))
	v.mac, v.wire = far.MAC, newOnlooker(t, b.net, name)
	v.testHost = closedHost(t, ns, name, Local{UDPPort: 4789, UplinkMTU: 1600, Addr4: addr4, Addr6: addr6})
	for k := range 1 + (number+1)%2 {
		v.ports = append(v.ports, b.newPort(t, v, k))
	}
	return v
}

// open opens every host's datapath.
func (b *floodBed) open(t *testing.T) {
	t.Helper()
	var hosts []*testHost
	for _, v := range b.vteps {
		hosts = append(hosts, v.testHost)
	}
	openAll(t, hosts...)
	for _, v := range b.vteps {
		v.closeLater()
		for k, p := range v.ports {
			must(t, v.dp.AttachPort(Port{Ifindex: p.ifindex, ID: PortID(k + 1), UID: p.name, VNI: floodVNI, MACs: []wire.MAC{p.mac}}))
		}
	}
}

func (b *floodBed) newPort(t *testing.T, v *floodVTEP, k int) *floodPort {
	t.Helper()
	p := &floodPort{mac: wire.MAC{2, 0, 0, 0, byte(v.number + 1), byte(k)}, name: fmt.Sprintf("v%dp%d", v.number, k)}
	near, _, err := v.ns.EnsureVeth(netdev.Veth{Name: fmt.Sprintf("weftp%d", k), MTU: 1500, Quiet: true,
		Peer: netdev.VethPeer{Namespace: b.guests, Name: p.name, MAC: p.mac}})
	must(t, err)
	must(t, b.guests.Quiet(p.name))
	p.ifindex, p.inside = uint32(near.Index), newOnlooker(t, b.guests, p.name)
	return p
}

// configure makes the tables what a server would have them be: the network is on the sender and on the first n others, and names whom its method
// needs. The hosts beyond are VTEPs that have no member, and know nothing of it.
func (b *floodBed) configure(t *testing.T, n int, ip6 bool, m floodMethod) {
	t.Helper()
	group, _, _ := groupsOf(ip6)
	for _, v := range b.vteps {
		var vteps []VTEP
		var accepts []Accept
		net := Network{VNI: floodVNI, MTU: 1400, Unknown: UnknownFlood}
		joins := false
		for _, o := range b.vteps[:n+1] {
			joins = joins || o.number > 0 && m.byGroup(o.number)
			if o == v {
				continue
			}
			// A host's number is its VTEP's in everybody's table; the sender is 200.
			id := VTEPID(o.number)
			if o.number == 0 {
				id = 200
			}
			vteps, accepts = append(vteps, VTEP{ID: id, Addr: b.addrOf(o.number, ip6), UDPPort: 4789}), append(accepts, Accept{floodVNI, b.addrOf(o.number, ip6)})
			if m.copied(o.number) {
				net.Remotes = append(net.Remotes, id)
			}
		}
		if joins {
			vteps = append(vteps, VTEP{ID: floodGroupID, Addr: group, Uplink: v.uplink(), UDPPort: 4789})
			net.Remotes = append([]VTEPID{floodGroupID}, net.Remotes...)
		}
		b.leave(t, v)
		if v.number > n {
			must(t, v.dp.DeleteNetwork(floodVNI))
			continue
		}
		for _, p := range v.ports {
			net.LocalPorts = append(net.LocalPorts, p.ifindex)
		}
		must(t, errors.Join(v.dp.PutVTEPs(vteps), v.dp.PutAccepts(accepts), v.dp.PutNetwork(net)))
		if joins && m.byGroup(v.number) {
			must(t, v.ns.JoinGroup("up0", group))
			must(t, v.dp.PutGroups([]Group{{floodVNI, group}}))
		}
	}
}

// leave ends what a host is a member of.
func (b *floodBed) leave(t *testing.T, v *floodVTEP) {
	t.Helper()
	have, err := v.ns.Groups()
	must(t, err)
	for _, g := range have {
		must(t, v.ns.LeaveGroup(g))
	}
	list, err := v.dp.Groups()
	must(t, err)
	must(t, v.dp.DeleteGroups(list))
}

// settle waits until the underlay brings the group to whom has joined, and the next hops of before are forgotten.
func (b *floodBed) settle(t *testing.T, n int, ip6 bool, m floodMethod) {
	t.Helper()
	var why string
	defer func() {
		if t.Failed() {
			t.Log(why)
		}
	}()
	await(t, "a flood is what it must be, as the underlay brings the group to its members", func() bool {
		b.forget(t)
		b.send(t, macAll, testProtocol, 1)
		want := b.expect(n, ip6, m, 1)
		for range 50 {
			if b.look(t); b.seen.covers(want) {
				break
			}
			unix.Poll(nil, 1)
		}
		why = b.seen.differs(want)
		return why == ""
	})
}

// members is how many ports get a flood of the sender's.
func (b *floodBed) members(n int) (count int) {
	for _, v := range b.vteps[:n+1] {
		count += len(v.ports)
	}
	return count - 1
}

func (b *floodBed) nothing() (c floodCount) {
	for _, v := range b.vteps {
		c.out, c.in = append(c.out, map[string]int{}), append(c.in, map[string]int{})
		c.ports = append(c.ports, make([]int, len(v.ports)))
	}
	return c
}

// expect is what must come of so many floods of host 0's first port.
func (b *floodBed) expect(n int, ip6 bool, m floodMethod, count int) floodCount {
	group, _, _ := groupsOf(ip6)
	c := b.nothing()
	for _, v := range b.vteps[:n+1] {
		for k := range v.ports {
			if v.number > 0 || k > 0 {
				c.ports[v.number][k] = count
			}
		}
		if v.number == 0 {
			continue
		}
		to := b.addr(v.number, ip6)
		if m.byGroup(v.number) {
			to = group.String()
		}
		c.out[0][to], c.in[v.number][to] = count, count
	}
	return c
}

// send has host 0's first port send frames.
func (b *floodBed) send(t *testing.T, dst wire.MAC, protocol uint16, n int) {
	t.Helper()
	p := b.vteps[0].ports[0]
	for range n {
		must(t, p.inside.send(raw(dst, p.mac, protocol, 50)))
	}
}

// forget begins to count anew.
func (b *floodBed) forget(t *testing.T) {
	t.Helper()
	b.look(t)
	b.seen, b.fenced = b.nothing(), 0
}

// look counts what has come since. The bridge's end of a link sees what its host sends as coming in.
func (b *floodBed) look(t *testing.T) {
	t.Helper()
	if len(b.seen.out) == 0 {
		b.seen = b.nothing()
	}
	for i, v := range b.vteps {
		must(t, v.wire.each(func(outgoing bool, f []byte) {
			to, inner := tunnelTo(f)
			switch {
			case inner != testProtocol: // the fence's, and what is no tunnel packet
			case outgoing:
				b.seen.in[i][to]++
			default:
				b.seen.out[i][to]++
			}
		}))
		for k, p := range v.ports {
			must(t, p.inside.each(func(outgoing bool, f []byte) {
				switch protocol := binary.BigEndian.Uint16(f[12:]); {
				case outgoing:
				case protocol == testProtocol:
					b.seen.ports[i][k]++
				case protocol == fenceProtocol:
					b.fenced++
				}
			}))
		}
	}
}

// tunnelTo is where a tunnel packet goes, and the ethertype of the frame in it.
func tunnelTo(f []byte) (to string, ethertype uint16) {
	p, err := wire.ParseFrame(f)
	if err != nil || !p.Has(wire.LayerUDP) || p.UDP.Dst != 4789 {
		return "", 0
	}
	at, dst := 14+20, p.IPv4.Dst
	if p.Has(wire.LayerIPv6) {
		at, dst = 14+40, p.IPv6.Dst
	}
	return dst.String(), binary.BigEndian.Uint16(f[at+8+8+12:])
}

// onlooker sees and sends frames on an interface.
type onlooker struct {
	fd, index int
	buf       [2048]byte
}

func newOnlooker(t *testing.T, ns *netdev.Handle, ifname string) *onlooker {
	t.Helper()
	l, err := ns.LinkByName(ifname)
	must(t, err)
	s := &onlooker{fd: -1, index: l.Index}
	must(t, ns.Run(func() (err error) {
		if s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		return errors.Join(unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20),
			unix.Bind(s.fd, &unix.SockaddrLinklayer{Protocol: 0x0300 /* ETH_P_ALL */, Ifindex: l.Index}))
	}))
	t.Cleanup(func() { unix.Close(s.fd) })
	return s
}

func (s *onlooker) send(frame []byte) error {
	return unix.Sendto(s.fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: s.index, Halen: 6})
}

// each reads what is there.
func (s *onlooker) each(visit func(outgoing bool, frame []byte)) error {
	for {
		n, from, err := unix.Recvfrom(s.fd, s.buf[:], 0)
		if err == unix.EAGAIN || err == unix.EINTR {
			return nil
		}
		if err != nil {
			return err
		}
		ll, ok := from.(*unix.SockaddrLinklayer)
		visit(ok && ll.Pkttype == unix.PACKET_OUTGOING, s.buf[:n])
	}
}
