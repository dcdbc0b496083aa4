package datapath

// DropReason names why a packet was dropped.
type DropReason uint8

// String is the reason's name, as in docs/drops.md.
func (r DropReason) String() string { return "unnamed" }
