// Package heap makes room in the heap at once before something large fills it (Room), and has a heap that is small beside the machine's memory collected less
// often (Pace, docs/decisions/0022-the-servers-collector-gives-way.md). Both set what is the whole process's, so one Room or Pace at a time.
//
// A heap that grows from nothing to hundreds of megabytes touches each of its pages for the first time, and is collected each time it has doubled. On a
// virtual machine a first touch can be a trip to the hypervisor: 20 us where one costs so much, and a third of an agent's cold start with 100,000
// ports. Asked for in one call the same pages cost a thirtieth.
// docs/decisions/0021-room-in-the-heap.md
package heap

import (
	"math"
	"os"
	"path"
	"runtime"
	"runtime/debug"
	"slices"
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
	// left is what is available, in octets; nil asks the machine.
	left func() int64
}

func machine() int64 { return available(os.ReadFile) }

// Open makes room for so many octets, within reason: at most a quarter of what the machine and the process's cgroups have left, and none where the
// process has a limit or a pace of its own (GOMEMLIMIT, GOGC). Until Close the collector runs less often. Opening again changes nothing.
func (r *Room) Open(octets int64) {
	if r.made || chosen() {
		return
	}
	left := r.left
	if left == nil {
		left = machine
	}
	octets = min(octets, most, left()/share)
	if octets < worthwhile {
		return
	}
	r.made, r.percent = true, debug.SetGCPercent(percent)
	Touch(octets)
}

// chosen reports that whoever runs the process has chosen how it is collected (runtime's GOGC and GOMEMLIMIT).
func chosen() bool { return os.Getenv("GOGC") != "" || debug.SetMemoryLimit(-1) != math.MaxInt64 }

// Close lets the collector run as before. Closing what is not open changes nothing.
func (r *Room) Close() {
	if r.made {
		debug.SetGCPercent(r.percent)
		r.made = false
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

// available is what may still be taken without anybody's being killed or held up for it: the least of what the machine has (proc_meminfo(5)) and what each
// cgroup above this process has left, of which pages of files that were not used lately do not count. What cannot be read does not limit.
func available(read func(string) ([]byte, error)) int64 {
	left := int64(math.MaxInt64)
	if n, ok := field(read, "/proc/meminfo", "MemAvailable:"); ok {
		left = n << 10
	}
	h := hierarchyOf(read)
	for group := h.own; ; group = path.Dir(group) {
		at := path.Join(h.root, group)
		used, known := number(read, path.Join(at, h.used))
		idle, _ := field(read, path.Join(at, "memory.stat"), h.idle)
		for _, file := range h.limits {
			if limit, limited := number(read, path.Join(at, file)); limited && known {
				left = min(left, max(0, limit-max(0, used-idle)))
			}
		}
		if group == "/" {
			return left
		}
	}
}

// hierarchy is where cgroups count memory, and in which files.
type hierarchy struct {
	root, own  string
	used, idle string
	limits     []string
}

// hierarchyOf finds this process's cgroup (cgroups(7)): of version 1 where that counts memory (the kernel's cgroup-v1/memory.rst), or else of version
// 2 (cgroup-v2.rst).
func hierarchyOf(read func(string) ([]byte, error)) hierarchy {
	h := hierarchy{root: "/sys/fs/cgroup", own: "/", used: "memory.current", idle: "inactive_file", limits: []string{"memory.max", "memory.high"}}
	b, err := read("/proc/self/cgroup")
	if err != nil {
		return h
	}
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3) // number:controllers:path
		switch {
		case len(f) < 3:
		case slices.Contains(strings.Split(f[1], ","), "memory"):
			return hierarchy{root: "/sys/fs/cgroup/memory", own: path.Clean("/" + f[2]), used: "memory.usage_in_bytes", idle: "total_inactive_file",
				limits: []string{"memory.limit_in_bytes"}}
		case f[0] == "0":
			h.own = path.Clean("/" + f[2])
		}
	}
	return h
}

// field is the number after a name in a file of such lines.
func field(read func(string) ([]byte, error), file, name string) (int64, bool) {
	b, err := read(file)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == name {
			n, err := strconv.ParseInt(f[1], 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}

// number is what a file holds. "max" is none.
func number(read func(string) ([]byte, error), file string) (int64, bool) {
	b, err := read(file)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n, err == nil
}
