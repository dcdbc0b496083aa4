package agent

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"testing"

	planv1 "github.com/weftnet/weft/api/gen/plan/v1"
	"github.com/weftnet/weft/plan"
)

// percent is the collector's, now.
func percent() int {
	now := debug.SetGCPercent(100)
	debug.SetGCPercent(now)
	return now
}

// residentOctets is what this process has in memory (proc_pid_statm(5)).
func residentOctets(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var size, resident int
	if _, err := fmt.Sscan(string(b), &size, &resident); err != nil {
		t.Fatal(err)
	}
	return resident * os.Getpagesize()
}

// TestRoom: room is memory that is the heap's, touched, and free; it is made once, only for many, only where no limit is set; and the collector is
// itself again afterwards. Break it: leave out any condition of open, the advice, or the collection that frees the pages.
func TestRoom(t *testing.T) {
	was := percent()
	free := func() int {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapIdle - m.HeapReleased)
	}
	var r room
	r.open(roomFrom - 1)
	if r.made || percent() != was {
		t.Errorf("room for %d was made", roomFrom-1)
	}
	limit := debug.SetMemoryLimit(1 << 30)
	r.open(4 * roomFrom)
	if debug.SetMemoryLimit(limit); r.made || percent() != was || limit != math.MaxInt64 {
		t.Errorf("room was made although memory is limited")
	}
	r.open(4 * roomFrom)
	want := 4 * roomFrom * roomOctets
	if percent() != roomPercent || free() < want*9/10 {
		t.Errorf("the collector runs at %d, and %d octets are free of %d", percent(), free(), want)
	}
	if resident := residentOctets(t); resident < want {
		t.Errorf("%d octets are resident, want %d and more", resident, want)
	}
	r.open(1 << 20)
	if free() > 2*want {
		t.Errorf("made again: %d octets are free", free())
	}
	r.close()
	r.close()
	if percent() != was {
		t.Errorf("the collector runs at %d, before %d", percent(), was)
	}
}

// TestRoomOfAStream: whatever becomes of a large plan, the collector runs as before in the end. Break it: leave close out of take, of what a
// refusal does or of Connection.
func TestRoomOfAStream(t *testing.T) {
	was := percent()
	many := func(r *rig, last bool, upserts ...*plan.Resource) error {
		u := &planv1.Update{StoreId: "s1", Revision: r.rev + 1, Resources: roomFrom, Last: last}
		for _, res := range upserts {
			u.Upserts = append(u.Upserts, res.Proto())
		}
		return r.agent.Receive(r.ctx, u)
	}
	for name, end := range map[string]func(r *rig) error{
		"taken":   func(r *rig) error { return many(r, true, vtepOf("h1", 1)) },
		"cut off": func(r *rig) error { r.agent.Connection(r.ctx, "", errors.New("gone")); return nil },
		"refused": func(r *rig) error {
			if err := many(r, true, vtepOf("h1", 1), vtepOf("h1", 2)); err == nil {
				return errors.New("a resource was taken twice")
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			if err := many(r, false, hostOf()); err != nil {
				t.Fatal(err)
			}
			if percent() != roomPercent {
				t.Errorf("no room was made: the collector runs at %d", percent())
			}
			if err := end(r); err != nil {
				t.Fatal(err)
			}
			if percent() != was {
				t.Errorf("the collector runs at %d, before %d", percent(), was)
			}
		})
	}
}
