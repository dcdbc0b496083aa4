// Package datapath is the room that speaks to the kernel: BPF programs and maps, and (in netdev) interfaces.
//
// It does what it is told, entry by entry, and decides nothing: what an entry should be is the agent's business. Every
// write is idempotent, survives the process (maps and links are pinned), and can be read back. Read Datapath, Port and
// FDBEntry first.
//
// The programs (bpf/, one C file an attach point, one header a stage):
//
//	workload --> [from_port] --+--> another local port
//	                           +--> headers written here ----------------+--> [to_uplink] --> underlay
//	                           +--> what cannot be: weft-vxlan (kernel) --+
//	underlay --> [from_uplink] --+--> stripped here --------------------------------> local port
//	                             +--> sealed, up the stack --> weft-vxlan --> [from_vxlan] --+--> local port
//	                             |                                                           +--> weft-vxlan, after a port that has moved on
//	                             +--> not ours: on, as if weft were not there
//
// The XDP lane (xdp.go, bpf/xdp.h) stands before that: xdp_from_port and xdp_from_uplink take what is for one receiver that is in the
// lane too, or for a VTEP, and pass on everything else as it came. The stages are the same headers, compiled for another kind of packet
// (bpf/ctx.h).
//
// A packet of a port that does not fit its network, or the path to its VTEP, is dropped, and from_port makes an ICMP message of it
// for the sender (bpf/answer.h): Books.Answers counts those.
//
// from_port and from_uplink check; from_vxlan lets in only what carries the seal that from_uplink put on, and checks
// again; to_uplink lets nothing out to the tunnel's UDP port but what carries the seal that from_port put on. Drop reasons are
// in bpf/drop.h, and from there in Go and in docs/drops.md.
//
// Checksums: a zero outer UDP checksum is accepted. Another is verified, by the card or GRO where they did it already, else by the
// kernel, which such packets are left to; a wrong one is dropped there and counted by the kernel (UdpInCsumErrors).
//
// ECN and DSCP (bpf/tos.h) are the same in all lanes; the kernel merges ECN itself, and to_uplink writes CE where its device
// wrote ECT(0). What is not IP carries neither.
//
// Pins and upgrades: maps are under PinRoot/layout-<hash>, links under PinRoot/links. A program of the same layout is exchanged under
// its link by Open; another layout (a changed struct, or other Limits) is made aside and switched to by Publish.
package datapath
