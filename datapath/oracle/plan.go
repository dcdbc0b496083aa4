package oracle

import (
	"net/netip"

	"github.com/weftnet/weft/wire"
)

// Plan is what a host's tables hold, and what its kernel knows of the underlay.
type Plan struct {
	// Addr4 and Addr6 are the host's own VTEP addresses; the one that it has not is invalid.
	Addr4, Addr6 netip.Addr
	UDPPort      uint16
	// UplinkMTU in octets of an underlay IP packet.
	UplinkMTU int
	// UplinkMAC is the source of what leaves, and the destination of what is meant for this host.
	UplinkMAC wire.MAC
	// NextHops are the Ethernet addresses through which VTEP addresses are reached; an address that is not here has no route.
	NextHops map[netip.Addr]wire.MAC

	VTEPs    map[uint32]VTEP
	Networks map[wire.VNI]Network
	FDB      map[FDBKey]FDBEntry
	Accepts  map[Accept]bool
	// Groups are those by which floods come in.
	Groups map[Group]bool
	// Neighbours are the addresses that ports are answered for.
	Neighbours map[NeighbourKey]Neighbour
	// Ports by interface index.
	Ports map[uint32]Port
	// Sources are prefixes from which networks accept tunnel packets, listed or not.
	Sources map[Source]bool
	// Teachers are the VTEPs at whose ids MACs are learned from accepted packets; an address without one teaches nothing.
	Teachers map[Accept]uint32
	// Learned is what the frames so far have taught: the one part of a plan that packets change.
	Learned map[FDBKey]Place
	// Reserved is the MAC of the kernel lane's device.
	Reserved wire.MAC
}

// VTEP is a remote tunnel end point, or a group of the underlay, which only flood lists name (and, in the network of probes, the FDB).
type VTEP struct {
	Addr          netip.Addr
	UDPPort       uint16
	OuterChecksum bool
}

// Unknown says where unknown unicast goes.
type Unknown uint8

// Where unknown unicast goes: to external VTEPs alone, to everybody, or nowhere.
const (
	ToExternal Unknown = iota
	ToAll
	ToNobody
)

// Network is a VNI that the host holds.
type Network struct {
	// MTU in octets of an inner IP packet.
	MTU        int
	Unknown    Unknown
	LocalPorts []uint32
	// Remotes are VTEPs, of which the last External are external. Of those the last Direct get floods by a group, and none of their own.
	Remotes          []uint32
	External, Direct int
	// Uniform: the outer DSCP is the inner one, both ways (RFC 2983); else it is 0, and ignored.
	Uniform bool
	// Answers: ARP requests and neighbour solicitations are answered. How often an address that is not known may be asked for is not modelled.
	Answers bool
	// Learns, and how many MACs from one VTEP and one port.
	Learns               bool
	VTEPLimit, PortLimit int
}

// FDBKey is a MAC in a network.
type FDBKey struct {
	VNI wire.VNI
	MAC wire.MAC
}

// FDBEntry is where a MAC is: at a local interface, or behind a VTEP.
type FDBEntry struct {
	VTEP, Ifindex uint32
	// ByKernel: every packet for it goes by the kernel lane; AggregatesByKernel: GRO aggregates do.
	ByKernel, AggregatesByKernel bool
	// Forward: what comes by the tunnel follows the MAC to its VTEP.
	Forward bool
}

// Accept admits tunnel packets of a VNI from an address.
type Accept struct {
	VNI  wire.VNI
	Addr netip.Addr
}

// Source admits tunnel packets of a VNI from a prefix.
type Source struct {
	VNI    wire.VNI
	Prefix netip.Prefix
}

// Place is where a MAC was learned: a VTEP, or a port's interface.
type Place struct {
	VTEP, Ifindex uint32
	// Moves so far, all of them within the time in which five are too many.
	Moves int
}

// Port is a local interface with a port's identity.
type Port struct {
	VNI             wire.VNI
	Held, Unguarded bool
	// MTU is that of its interface: the largest IP packet that a copy may hold. A frame for it alone is handed over whatever its length.
	MTU  int
	MACs []wire.MAC
	// Claims are what the port may say of itself in ARP and neighbour discovery.
	Claims   []Claim
	Services Services
}
