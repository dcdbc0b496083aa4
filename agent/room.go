package agent

import (
	"math"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// A heap that grows from nothing to hundreds of megabytes touches each of its pages for the first time, and is collected each time it has doubled.
// On a virtual machine a first touch is a trip to the hypervisor and back: with 100,000 ports, a third of what a cold start took. Asked for in one
// call the same pages cost a thirtieth.

const (
	// roomFrom is from how many resources on it is worth the trouble.
	roomFrom = 10_000
	// roomOctets are what one of them takes, about, from the message to the tables; mostRoom bounds what is made because a server says that many
	// will come.
	roomOctets = 2800
	mostRoom   = 320 << 20
	// roomPercent is how far the heap may grow between two collections meanwhile (GOGC).
	roomPercent = 400
)

// room is the heap's while a large plan is taken in. The zero one has made none.
type room struct {
	made    bool
	percent int // as it was
}

// open makes room for so many resources, if they are many, and there is no limit to the process's memory that this could break.
func (r *room) open(resources int) {
	if r.made || resources < roomFrom || debug.SetMemoryLimit(-1) != math.MaxInt64 {
		return
	}
	r.made, r.percent = true, debug.SetGCPercent(roomPercent)
	touch(min(resources*roomOctets, mostRoom))
}

// close lets the collector run as before.
func (r *room) close() {
	if r.made {
		debug.SetGCPercent(r.percent)
		*r = room{}
	}
}

// touch has so many octets of memory in the heap, free. A kernel that does not know the advice (before 5.14) leaves all as it was.
func touch(octets int) {
	pages := make([]byte, octets) // of the runtime's own pages, which nobody has touched: a kernel's page begins where it does
	_ = unix.Madvise(pages, unix.MADV_POPULATE_WRITE)
	runtime.KeepAlive(pages)
	pages = nil
	runtime.GC() // now they are free
}
