// Package bench measures weft beside the kernel's own overlay and others: the same hosts, the same underlay, the same frames, in one
// boot, taking turns.
//
// A Contender is a path between two workloads on two hosts that are joined by one veth, so that nothing dilutes the
// ratio. A measure turns a contender into a number. Compare rotates the contenders through rounds and gives ratios with
// confidence intervals; nothing is subtracted, and a sample in which frames got lost, or of packets on one core whose path left it, does not
// count: it is taken again, and noted.
//
//	packets    packets.go, generator.go   ns a frame of 64, 512 and 1400 octets, in 1, 1,000 and 100,000 flows, on one core
//	tcp        stream.go                  1 and 4 streams; offloads on, and the underlay as a wire
//	latency    latency.go                 64 octets there and back; one core is compared, two are reported
//	cpu        load.go                    what 100,000 frames a second cost
//	replicate  replicate.go               copies a second to 256 VTEPs
//	tap        tap.go                     machines with TAP devices and virtio headers
//	fdb        table.go                   tables of 10, 100,000 and 1,000,000 MACs
//	arp        arp.go                     ARP questions and neighbour solicitations that the asker's host answers
//	learn      learn.go                   100,000 MACs learned from a tunnel and at a port, and known traffic meanwhile
//	storm      storm.go                   what others lose while one port broadcasts
//	dhcp       dhcp.go                    10,000 leases
//	plan       plan.go                    a plan of 1,000,000 entries, received to read back
//	move       move.go                    a workload that goes from host to host, and what its peers miss
//
// What is not as a user has it: for the tables of fdb weft's agents are ended and the entries written into the pinned maps, as
// many as the kernel gets for its bridge and vxlan device by netlink; a plan of a million ports would measure the server. The VTEPs of
// replicate are real objects of the API, but their addresses all lead to the second host, where copies are counted and dropped as they come
// off the underlay.
//
// An answer's and a lesson's frames are written anew each time, as their memory is sent again. The ports that arp asks for have no interfaces, and those of
// dhcp one for each 16 MACs, whose requests are a port's share of its agent.
//
// What a server takes under a fleet is measured by bench/scale.
//
// It never claims: a Result carries kernel, commit, settings and how busy the machine was, says for each target whether it is reached,
// and is kept under bench/results. Read Contender, Compare, Run and Result first.
package bench
