// Package faults breaks several servers and the etcd cluster below them while clients write and read, and checks afterwards that what the
// clients saw is what one server that never fails could have answered (linearizability), that nothing acknowledged was lost, and that every
// host holds exactly what the store says.
//
// It is tests only. Members of etcd are real ones, each a process of this test's own binary with its data on disk; servers are the real
// `weft server`. Each has a network namespace of its own on a bridge, so that it can be cut off from any other one. Clients use the client
// library; hosts are the agent's own Speaker without a kernel below.
//
// Read TestFaults, cluster and history first.
package faults
