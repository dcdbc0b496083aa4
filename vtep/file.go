package vtep

import (
	"net/netip"

	"github.com/weftnet/weft/model"
	"github.com/weftnet/weft/wire"
)

// File is what vtep.yaml says, checked: names are there once, and everything in it can be done on a host with such an underlay.
type File struct {
	// Name of this VTEP, for messages; "vtep" when none is given.
	Name     string
	Underlay Underlay
	Networks []Network

	// lines are where networks, remotes and ports stand, for what only the underlay shows to be wrong.
	lines map[string]int
	path  string
}

// Underlay is this end of every tunnel.
type Underlay struct {
	// Uplink is the interface, several with commas between them; empty: that of Address, or of the default route.
	Uplink string
	// Address is where tunnels end; invalid: the uplink's own.
	Address netip.Addr
	// UDPPort is listened on, and sent to where a remote says no other.
	UDPPort uint16
	// XDP: the XDP lane is on the uplink.
	XDP bool
}

// Network is one VNI.
type Network struct {
	Name string
	VNI  wire.VNI
	// MTU in octets of an inner IP packet; 0: what the uplink carries.
	MTU int
	// DropUnknown: frames for a MAC that nobody knows are dropped instead of flooded.
	DropUnknown bool
	DSCPUniform bool
	// Group of the underlay that floods are sent to; invalid: each remote gets a copy.
	Group netip.Addr
	// Learning is nil where nothing is learned.
	Learning *model.Learning
	Remotes  []Remote
	Ports    []Port
}

// Remote is another VTEP of a network, listed by hand: it gets the network's floods, and what it sends is accepted.
type Remote struct {
	Address       netip.Addr
	UDPPort       uint16
	OuterChecksum bool
	// Group: it receives the network's group, and so gets no copy of floods.
	Group bool
	// MACs are behind it for good.
	MACs []wire.MAC
}

// Port is an interface of this machine in a network.
type Port struct {
	Name      string
	Interface string
	// MACs are those that it may send from, and that are here for good; none: any MAC may be behind it.
	MACs []wire.MAC
	// Forwarding: the workload forwards what it gets, so that it is given packets as they were on the wire.
	Forwarding bool
}

// The limits of a file.
const (
	// MaxNetworks a file.
	MaxNetworks = 4096
	// MaxRemotes a network: what a flood is copied to one by one.
	MaxRemotes = 1024
	// MaxRemoteMACs a network.
	MaxRemoteMACs = 100_000
	// MaxPorts a network.
	MaxPorts = 1024
	// MaxPortMACs a port.
	MaxPortMACs = 16
	// MaxOctets of a file.
	MaxOctets = 16 << 20
)

// SameAs refuses a change of what a running VTEP is built upon.
func (u Underlay) SameAs(was Underlay) error {
	if u == was {
		return nil
	}
	return model.Errorf(model.Conflict, "underlay", "write it as it was, or restart `weft vtep run`: meanwhile the kernel goes on forwarding",
		"it changed, and a VTEP that runs keeps its underlay")
}
