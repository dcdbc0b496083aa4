package heap

import (
	"fmt"
	"io/fs"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
)

// collector is how far the heap grows between two collections, now.
func collector() int {
	now := debug.SetGCPercent(100)
	debug.SetGCPercent(now)
	return now
}

// residentOctets is what this process has in memory (proc_pid_statm(5)).
func residentOctets(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(b), &size, &resident); err != nil {
		t.Fatal(err)
	}
	return resident * int64(os.Getpagesize())
}

// TestRoom: room is memory that is the heap's, touched, and free; it is made once, only for much, only where no limit is set; and the collector is
// itself again afterwards. Break it: leave out any condition of Open, the advice, or the collection that frees the pages.
func TestRoom(t *testing.T) {
	was := collector()
	free := func() int64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapIdle - m.HeapReleased)
	}
	const want = 4 * worthwhile
	r := Room{left: func() int64 { return 8 * share * want }}
	r.Open(worthwhile - 1)
	if r.made || collector() != was {
		t.Errorf("room for %d octets was made", worthwhile-1)
	}
	limit := debug.SetMemoryLimit(1 << 30)
	r.Open(want)
	if debug.SetMemoryLimit(limit); r.made || collector() != was || limit != math.MaxInt64 {
		t.Errorf("room was made although memory is limited")
	}
	r.Open(want)
	if collector() != percent || free() < want*9/10 {
		t.Errorf("the collector runs at %d, and %d octets are free of %d", collector(), free(), want)
	}
	if resident := residentOctets(t); resident < want {
		t.Errorf("%d octets are resident, want %d and more", resident, want)
	}
	r.Open(4 * want)
	if free() > 2*want {
		t.Errorf("made again: %d octets are free", free())
	}
	r.Close()
	r.Close()
	if collector() != was {
		t.Errorf("the collector runs at %d, before %d", collector(), was)
	}
}

// TestAvailable reads what machines and cgroups say. Break it: forget a cgroup above one's own, or take "max" for a number.
func TestAvailable(t *testing.T) {
	const machine = "MemTotal: 8000 kB\nMemFree:  10 kB\nMemAvailable:    4000 kB\n"
	for name, c := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"nothing can be read":     {nil, math.MaxInt64},
		"no cgroup":               {map[string]string{"/proc/meminfo": machine}, 4000 << 10},
		"a kernel that says less": {map[string]string{"/proc/meminfo": "MemTotal: 8000 kB\n", "/proc/self/cgroup": "3:cpu,cpuacct:/x\n"}, math.MaxInt64},
		"cgroups of version 1": {map[string]string{"/proc/meminfo": machine, "/proc/self/cgroup": "4:cpu,memory:/x/y\n0::/\n",
			"/sys/fs/cgroup/memory/x/memory.limit_in_bytes": "1000\n", "/sys/fs/cgroup/memory/x/memory.usage_in_bytes": "500\n",
			"/sys/fs/cgroup/memory/x/memory.stat": "inactive_file 1\ntotal_inactive_file 100\n", "/sys/fs/cgroup/memory/x/y/memory.usage_in_bytes": "400\n",
			"/sys/fs/cgroup/memory/x/y/memory.limit_in_bytes": "9223372036854771712\n"}, 600},
		"held up before killed": {map[string]string{"/proc/meminfo": machine, "/proc/self/cgroup": "0::/a\n", "/sys/fs/cgroup/a/memory.max": "1000\n",
			"/sys/fs/cgroup/a/memory.high": "800\n", "/sys/fs/cgroup/a/memory.current": "300\n"}, 500},
		"pages of files": {map[string]string{"/proc/meminfo": machine, "/proc/self/cgroup": "0::/a\n", "/sys/fs/cgroup/a/memory.max": "1000\n",
			"/sys/fs/cgroup/a/memory.current": "900\n", "/sys/fs/cgroup/a/memory.stat": "anon 100\nactive_file 50\ninactive_file 600\n"}, 700},
		"no limit": {map[string]string{"/proc/meminfo": machine, "/proc/self/cgroup": "0::/a/b\n",
			"/sys/fs/cgroup/a/b/memory.max": "max\n", "/sys/fs/cgroup/a/b/memory.current": "5\n"}, 4000 << 10},
		"its own": {map[string]string{"/proc/meminfo": machine, "/proc/self/cgroup": "1:cpu:/x\n0::/a/b\n",
			"/sys/fs/cgroup/a/b/memory.max": "1000\n", "/sys/fs/cgroup/a/b/memory.current": "300\n"}, 700},
		"one above": {map[string]string{"/proc/meminfo": machine, "/proc/self/cgroup": "0::/a/b\n",
			"/sys/fs/cgroup/a/memory.max": "1000\n", "/sys/fs/cgroup/a/memory.current": "1200\n"}, 0},
		"inside a container": {map[string]string{"/proc/meminfo": machine, "/proc/self/cgroup": "0::/\n",
			"/sys/fs/cgroup/memory.max": "1000\n", "/sys/fs/cgroup/memory.current": "1\n"}, 999},
	} {
		t.Run(name, func(t *testing.T) {
			got := available(func(file string) ([]byte, error) {
				if s, ok := c.files[file]; ok {
					return []byte(s), nil
				}
				return nil, fs.ErrNotExist
			})
			if got != c.want {
				t.Errorf("%d octets are available, want %d", got, c.want)
			}
		})
	}
	if here := available(os.ReadFile); here < 1<<20 {
		t.Errorf("%d octets are available here", here)
	}
}
