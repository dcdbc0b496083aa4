package datapath

// DropReason names why a packet was dropped.
type DropReason uint8
