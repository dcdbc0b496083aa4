package conform

import (
	"fmt"
	"net/netip"
	"strings"
)

// Lane is a way that packets take through a host.
type Lane string

// The lanes.
const (
	// TC is the programs at tcx alone.
	TC Lane = "tc"
	// Kernel is the vxlan device, which the programs feed and watch: every tunnel packet is made to take it.
	Kernel Lane = "kernel"
	// XDP is the programs before those at tcx: the uplink and every port are in it, but virtual machines, which leave checksums to the host.
	XDP Lane = "xdp"
)

// Underlay is the IP version that carries the tunnels.
type Underlay string

// The underlays.
const (
	IPv4 Underlay = "ipv4"
	IPv6 Underlay = "ipv6"
)

// Row is one configuration in which every case must hold.
type Row struct {
	Lane     Lane
	Underlay Underlay
}

func (r Row) String() string { return string(r.Lane) + "/" + string(r.Underlay) }

// ParseRow reads a row's String.
func ParseRow(s string) (Row, error) {
	var names []string
	for _, row := range Rows() {
		if row.String() == s {
			return row, nil
		}
		names = append(names, row.String())
	}
	return Row{}, fmt.Errorf("there is no row %q: say one of %s", s, strings.Join(names, ", "))
}

// Rows are all there are.
func Rows() []Row {
	return []Row{{TC, IPv4}, {Kernel, IPv4}, {XDP, IPv4}, {TC, IPv6}, {Kernel, IPv6}, {XDP, IPv6}}
}

// addresses of an underlay. Group is the group of VNI 7, and OtherGroup that of VNI 8. A is a host's VTEP, B an external one; Far and Narrow are behind the router Gateway; Rogue is nobody's;
// Second is another address of the host's uplink, and Loopback one of its loopback interface.
type addresses struct {
	Own, A, B, Gateway, Rogue, Far, Narrow, Second, Loopback netip.Addr
	Group, OtherGroup                                        netip.Addr
	bits, farBits                                            int
}

func (u Underlay) addresses() addresses {
	p := netip.MustParseAddr
	if u == IPv6 {
		return addresses{Own: p("fd18::1"), A: p("fd18::2"), B: p("fd18::3"), Gateway: p("fd18::fe"), Rogue: p("fd18::66"), Far: p("fd99::9"),
			Narrow: p("fd99::10"), Second: p("fd18::11"), Loopback: p("fd98::1"),
			Group: p("ff05::7:1"), OtherGroup: p("ff05::8:1"), bits: 64, farBits: 128}
	}
	return addresses{Own: p("198.18.1.1"), A: p("198.18.1.2"), B: p("198.18.1.3"), Gateway: p("198.18.1.254"), Rogue: p("198.18.1.66"),
		Far: p("198.19.9.9"), Narrow: p("198.19.9.10"), Second: p("198.18.1.11"), Loopback: p("198.19.8.1"),
		Group: p("239.129.7.1"), OtherGroup: p("239.1.8.1"), bits: 24, farBits: 32}
}
