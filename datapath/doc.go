// Package datapath is the room that speaks to the kernel: BPF programs and maps, and (in netdev) interfaces.
//
// It does what it is told, entry by entry, and decides nothing: what an entry should be is the agent's business. Every
// write is idempotent, survives the process (maps and links are pinned), and can be read back. Read Datapath, Port and
// FDBEntry first.
package datapath
