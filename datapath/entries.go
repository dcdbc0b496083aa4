package datapath

import (
	"net/netip"

	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/wire"
)

// The entries below are what the kernel tables hold, in Go's words. Each table is keyed as its Key method or its comment
// says; the C layouts are generated and stay inside the package.

// VTEPID numbers a VTEP in this host's tables, from 1. The agent assigns it and finds it again by reading the table.
type VTEPID uint32

// PortID numbers a local port in this host's tables, from 1; counters are kept by it.
type PortID uint32

// Local is this host's own end of every tunnel.
type Local struct {
	// Addr4 and Addr6 are its underlay addresses; at least one is valid.
	Addr4, Addr6 netip.Addr
	UDPPort      uint16
	// UplinkMTU in octets of an underlay IP packet.
	UplinkMTU int
}

// VTEP is a remote tunnel end point, or a multicast group of the underlay that stands for several. Key: ID.
type VTEP struct {
	ID   VTEPID
	Addr netip.Addr
	// Uplink is, of a group, the index of the uplink that its packets leave by.
	Uplink uint32
	// UDPPort to send to.
	UDPPort       uint16
	OuterChecksum bool
}

// Hop is one of the equal next hops of the route to a VTEP.
type Hop struct {
	Ifindex uint32
	// Gateway is the neighbour there: the VTEP itself where it is on the link.
	Gateway netip.Addr
	// Down: the link has no carrier. It is listed, so that the choices of other flows stay.
	Down bool
}

// MaxHops is how many equal next hops flows are spread over; flows never take one beyond them unless the kernel says so.
const MaxHops = len(bpf.TCHops{}.Hop)

// Network is a VNI that this host holds. Key: VNI.
type Network struct {
	VNI wire.VNI
	// MTU in octets of an inner IP packet.
	MTU int
	// Unknown says where unknown unicast goes.
	Unknown UnknownUnicast
	// LocalPorts get a copy of BUM frames, by interface index.
	LocalPorts []uint32
	// Remotes get a copy of BUM frames from local ports; of them the last External are external VTEPs, which alone get
	// unknown unicast under UnknownExternal. The last Direct of those get BUM frames by a group among the Remotes, and none of their own.
	Remotes  []VTEPID
	External int
	Direct   int
	// DSCPUniform: the outer DSCP is the inner one, and the other way round where a packet leaves the tunnel (RFC 2983, uniform).
	// Otherwise the outer one is 0 and the inner one stays as it was (pipe).
	DSCPUniform bool
	// Neighbours says whether ARP requests and neighbour solicitations of its ports are answered.
	Neighbours Neighbours
	// BUMLimit is how many frames a second its ports here may have flooded together, with a second's worth in reserve; 0 is any number.
	BUMLimit uint32
	// Learning, if the network does.
	Learning Learning
	// Open: the network has entries in the table of sources.
	Open bool
}

// UnknownUnicast is the datapath's form of the network setting.
type UnknownUnicast uint8

// Where unknown unicast goes.
const (
	UnknownExternal UnknownUnicast = iota
	UnknownFlood
	UnknownDrop
)

// Neighbours says what becomes of a network's ARP requests and neighbour solicitations. Without NeighboursAnswer they go to all.
type Neighbours uint8

const (
	// NeighboursAnswer: those about an address in the table are answered. For others each port may ask all once a second.
	NeighboursAnswer Neighbours = 1 << iota
	// NeighboursClosed4 and NeighboursClosed6: every address of the IP version is known. For others all ports together may ask once a
	// second: nobody is there to answer.
	NeighboursClosed4
	NeighboursClosed6
)

// NeighbourKey is an IP address in a network.
type NeighbourKey struct {
	VNI wire.VNI
	IP  netip.Addr
}

// Neighbour says who has an address.
type Neighbour struct {
	NeighbourKey
	MAC wire.MAC
	// Router: it forwards, and says so in neighbour discovery.
	Router bool
	// Ask: the address is one of the network's, but who has it is not certain: nobody is answered, and everybody may ask all. MAC is not
	// looked at.
	Ask bool
}

// Claim is what a port may say of itself in ARP and neighbour discovery: that it has IP at MAC.
type Claim struct {
	// IP that is not valid stands for any address.
	IP netip.Addr
	// MAC zero stands for any of the port's.
	MAC wire.MAC
}

// FDBKey is a MAC in a network.
type FDBKey struct {
	VNI wire.VNI
	MAC wire.MAC
}

// FDBEntry says where a MAC is: at a local interface (Ifindex set) or behind a VTEP (VTEP set).
type FDBEntry struct {
	FDBKey
	VTEP    VTEPID
	Ifindex uint32
	Flags   FDBFlags
}

// FDBFlags say how a local entry is delivered, and whether one with a VTEP is forwarded to.
type FDBFlags uint8

const (
	// FDBPeer: the interface is a veth whose other end is in another network namespace, so that bpf_redirect_peer works.
	FDBPeer FDBFlags = 1 << iota
	// FDBAggregatesByKernel: GRO aggregates are passed to the kernel lane instead of being stripped here.
	FDBAggregatesByKernel
	// FDBAllByKernel: every packet goes by the kernel lane (for probes that prove it).
	FDBAllByKernel
	// FDBForward: of an entry with a VTEP. What comes by the tunnel for this MAC leaves by the tunnel again, through the kernel lane and with an
	// outer TTL one less than it came with, instead of being dropped as split_horizon: the port was here and has moved there.
	FDBForward
)

// Accept admits tunnel packets of a VNI from a source address. Key: both.
type Accept struct {
	VNI  wire.VNI
	Addr netip.Addr
}

// Group admits tunnel packets of a VNI that are sent to a multicast group of the underlay. Key: both.
type Group struct {
	VNI  wire.VNI
	Addr netip.Addr
}

// Port is a local interface with a port's identity. Key: Ifindex.
type Port struct {
	Ifindex uint32
	ID      PortID
	// UID of the port, at most 32 octets, so that a restarted agent recognises the entry.
	UID string
	VNI wire.VNI
	// Held drops everything the port sends, and everything for it, as port_held.
	Held bool
	// Watched: while the port is held, its next frame from one of its MACs is told by FirstFrames, once; then the flag is off, until it is put again.
	Watched bool
	// Unguarded lets any source MAC through.
	Unguarded bool
	// FastPath puts the port in the XDP lane: the program is attached to its interface, and frames are redirected to that. The caller
	// sees to it that the workload fills in its checksums and leaves its VLAN tags in the frames, and that the kernel takes redirected
	// frames (of a veth: netdev's FitForXDP at the workload's end): where it does not they are lost and nothing is counted.
	FastPath bool
	// MACs the port may send from.
	MACs []wire.MAC
	// Services that the agent gives the port, and those that its workload may give others. An unguarded port is not looked at for them.
	Services Services
	// Claims are checked, of the IP versions that they have an address of, unless the port is unguarded. What a port claims for itself it
	// is not answered.
	Claims []Claim
	// BUMLimit is how many frames a second it may have flooded, with a second's worth in reserve; 0 is any number.
	BUMLimit uint32
}

// PortCounters are octets and frames as the workload sees them, since the id was taken into use.
type PortCounters struct {
	IngressPackets, IngressOctets uint64
	EgressPackets, EgressOctets   uint64
}

// FloodCount is what was flooded for a network's ports here since the network came: frames, and the packets on the underlay that they became, to
// VTEPs one by one and to a group.
type FloodCount struct {
	Floods, Copies uint64
}

// DropCount is packets dropped for one reason. ID is 0 where the packet belonged to no port. Source is the outer
// source address where the drop is about who sent it.
type DropCount struct {
	ID      PortID
	Reason  DropReason
	Source  netip.Addr
	Packets uint64
}

// Books are a program's packet counts; In = Delivered + Encapsulated + Passed + Answered + Dropped, with copies apart, and so are answers: ICMP
// messages to the senders of dropped packets. Untold are first frames that FirstFrames could not be told of, because nobody had read for so long.
type Books struct {
	Program                                                               string
	In, Delivered, Encapsulated, Passed, Dropped, Copies, Answers, Untold uint64
	// Answered are frames that were turned into the answer to what they asked.
	Answered uint64
}
