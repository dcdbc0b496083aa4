// Package interop is the interop matrix: VTEPs of three makes, weft's without a server, the Linux vxlan device behind a bridge, and Open vSwitch with its
// datapath in user space, in one network, two by two, over IPv4 and IPv6, with unicast remotes and with a multicast group.
//
// All of it is tests: some cells in `make test`, all in `make soak` with the log kept in docs/soak/interop.txt. It makes namespaces whose names begin
// with weftiop-, and touches nothing else.
package interop
