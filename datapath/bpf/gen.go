// Package bpf holds the programs: C sources, the objects built from them, and the Go side of what both share.
//
// Nothing here touches the kernel; package datapath loads, fills and attaches. One C file an attach point, one header a
// stage, layout.h for what is shared. Read from_port.c, from_uplink.c and layout.h first.
package bpf

//go:generate go run ./dropgen
//go:generate bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -output-stem tc -type addr -type uplink -type local -type port -type fdb_key -type fdb_entry -type vtep -type hop -type hops -type network -type flood_key -type flood_block -type flood_count -type accept_key -type group_key -type neighbour_key -type neighbour -type neighbour_flags -type network_neighbours -type claim_key -type asked_key -type budget -type nexthop -type port_counters -type program_books -type drop_key -type drop_source_key -type learned_mac -type learner_key -type learner -type forget_args -type source_key -type verdict -type drop_reason -type lane_reason -type program -type verdict_kind -type port_services -type punt -type port_flags -type uplink_flags -type fdb_flags -type vtep_flags -type hop_flags -type network_flags -type forget_why -type unknown_unicast TC tc.c -- -O2 -g -Wall -Werror -mcpu=v3
//go:generate bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -output-stem xdp XDP xdp.c -- -O2 -g -Wall -Werror -mcpu=v3
