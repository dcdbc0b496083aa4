package datapath

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/bpf"
	"github.com/weftnet/weft/internal/testenv"
)

// TestDropsOfASourceAtOnce: packets that two CPUs drop at the same time, of a source that was not known before, are both counted as its. Red when
// count_drop_source puts its first count over one that is there.
func TestDropsOfASourceAtOnce(t *testing.T) {
	if runtime.NumCPU() < 2 {
		testenv.Missing(t, testenv.Root, "one CPU only: nothing happens at once")
	}
	a, b := twoHosts(t, false)
	join(t, 7, a, b)
	a.workload(7, 1, nil)
	must(t, b.dp.detach(linkName("to_uplink", b.uplink()))) // its own guard would stop what follows
	rogue := netip.MustParseAddr("10.99.0.77")
	packet := a.tunnel(b, 7, frame(t, macAll, macRemote, ip1, ip2, 40), func(o *tunnelOptions) { o.src = rogue })
	key := bpf.TCDropSourceKey{Reason: uint32(DropSourceNotAccepted), Source: addrOf(rogue)}
	counts := a.dp.maps["drop_sources"]

	const rounds = 1000
	up, err := b.ns.LinkByName("up0")
	must(t, err)
	// Both spin, each on a core, to send as close together as can be: one says when, cleans up and counts.
	var round, sent atomic.Int32
	sender := func(core int, each func(i int32, send func() error) error) error {
		return b.ns.Run(func() error {
			var one unix.CPUSet
			one.Set(core)
			fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if err := unix.SchedSetaffinity(0, &one); err != nil {
				return err
			}
			for i := int32(1); i <= rounds; i++ {
				if err := each(i, func() error { return unix.Sendto(fd, packet, 0, &unix.SockaddrLinklayer{Ifindex: up.Index, Halen: 6}) }); err != nil {
					return err
				}
			}
			return nil
		})
	}
	other := make(chan error, 1)
	go func() {
		other <- sender(1, func(i int32, send func() error) error {
			for round.Load() < i {
			}
			defer sent.Add(1)
			return send()
		})
	}()
	err = sender(0, func(i int32, send func() error) error {
		if err := counts.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
		before := a.drops(DropSourceNotAccepted)
		round.Store(i)
		if err := send(); err != nil {
			return err
		}
		for end := time.Now().Add(patience); sent.Load() < i || a.drops(DropSourceNotAccepted) < before+2; {
			if time.Now().After(end) {
				return fmt.Errorf("round %d: two packets were sent, %d were dropped", i, a.drops(DropSourceNotAccepted)-before)
			}
		}
		var n uint64
		for end := time.Now().Add(patience); n < 2 && time.Now().Before(end); { // each is counted by its reason first
			if err := counts.Lookup(key, &n); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return err
			}
		}
		if n != 2 {
			return fmt.Errorf("round %d: two packets of the source were dropped, %d counted as its", i, n)
		}
		return nil
	})
	round.Store(rounds)
	must(t, errors.Join(err, <-other))
}
