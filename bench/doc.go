// Package bench measures weft beside the kernel's own overlay: the same hosts, the same underlay, the same frames, in one
// boot, taking turns.
//
// A Contender is a path between two workloads on two hosts that are joined by one veth, so that nothing dilutes the
// ratio. A Measure turns a contender into a number. Compare rotates the contenders through rounds and gives ratios with
// confidence intervals; nothing is subtracted, and a round in which frames got lost does not count as fast.
//
// It never claims: a Result carries kernel, commit and settings, and is kept under bench/results. Read Contender,
// Compare and Result first.
package bench
