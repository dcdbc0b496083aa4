// Package heap makes room in the heap at once before something large fills it.
//
// A heap that grows from nothing to hundreds of megabytes touches each of its pages for the first time, and is collected each time it has doubled. On a
// virtual machine a first touch can be a trip to the hypervisor: 20 us where one costs so much, a third of an agent's cold start with 100,000
// ports, and nearly half of a server's start. Asked for in one call the same pages cost a thirtieth.
// docs/decisions/0021-room-in-the-heap.md
package heap

import (
	"bufio"
	"bytes"
	"math"
	"os"
	"path"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// worthwhile is the least room that is made, and most the largest.
	worthwhile, most = 32 << 20, 1 << 30
	// percent is how far the heap may grow between two collections while there is room (GOGC).
	percent = 400
	// share of the memory that is available is the most that is taken: one in so many parts.
	share = 4
)

// Room is the heap's while something large is taken in. The zero one has made none. Not safe for concurrent use.
type Room struct {
	made    bool
	percent int // as it was
}

// Open makes room for so many octets, within reason: at most a quarter of what the machine and the process's cgroups have left, and none where the
// process has a limit of its own (GOMEMLIMIT). Until Close the collector runs less often. Opening again changes nothing.
func (r *Room) Open(octets int64) {
	if r.made || debug.SetMemoryLimit(-1) != math.MaxInt64 {
		return
	}
	octets = min(octets, most, available(os.ReadFile)/share)
	if octets < worthwhile {
		return
	}
	r.made, r.percent = true, debug.SetGCPercent(percent)
	Touch(octets)
}

// Close lets the collector run as before. Closing what is not open changes nothing.
func (r *Room) Close() {
	if r.made {
		debug.SetGCPercent(r.percent)
		*r = Room{}
	}
}

// Touch has so many octets of memory in the heap, free, for whoever makes no Room of it. A kernel that does not know the advice (before 5.14) leaves all as it was.
func Touch(octets int64) {
	pages := make([]byte, octets) // of the runtime's own pages, which nobody has touched: a kernel's page begins where it does
	_ = unix.Madvise(pages, unix.MADV_POPULATE_WRITE)
	runtime.KeepAlive(pages)
	pages = nil
	runtime.GC() // now they are free
}

// available is what may still be taken without anybody's being killed for it: the least of what the machine has (proc_meminfo(5)) and what each
// cgroup above this process has left (the kernel's cgroup-v2.rst, memory.max). What cannot be read does not limit.
func available(read func(string) ([]byte, error)) int64 {
	left := int64(math.MaxInt64)
	if b, err := read("/proc/meminfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if rest, ok := strings.CutPrefix(line, "MemAvailable:"); ok {
				if n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64); err == nil {
					left = n << 10
				}
			}
		}
	}
	for group := ownGroup(read); ; group = path.Dir(group) {
		limit, limited := number(read, group, "memory.max")
		if used, known := number(read, group, "memory.current"); limited && known {
			left = min(left, max(0, limit-used))
		}
		if group == "/" || group == "." {
			return left
		}
	}
}

// ownGroup is the path of this process's cgroup, or "/".
func ownGroup(read func(string) ([]byte, error)) string {
	b, err := read("/proc/self/cgroup")
	if err != nil {
		return "/"
	}
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		if own, ok := strings.CutPrefix(lines.Text(), "0::"); ok {
			return path.Clean("/" + own)
		}
	}
	return "/"
}

// number reads one of a cgroup's files. "max" is none.
func number(read func(string) ([]byte, error), group, file string) (int64, bool) {
	b, err := read(path.Join("/sys/fs/cgroup", group, file))
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n, err == nil
}
