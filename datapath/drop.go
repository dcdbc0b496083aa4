package datapath

import "strings"

// DropReason names why a packet was dropped. The list is in bpf/drop.h; names and texts are generated from it.
type DropReason uint8

// LaneReason names why the fast path left a packet to the kernel lane.
type LaneReason uint8

// IsCopy reports whether the reason counts copies of floods, which stand apart from the books.
func (r DropReason) IsCopy() bool { return strings.HasPrefix(r.String(), "copy_") }
