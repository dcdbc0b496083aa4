package datapath

import (
	"errors"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/bpf"
)

// retiredList is a flood list that no network names any more.
type retiredList struct{ list, blocks uint32 }

// retire hands a network's list to the sweeper. d.mu is held.
func (d *Datapath) retire(n bpf.TCNetwork) {
	if all := uint32(blocks(int(n.Local)) + blocks(int(n.Remote)+int(n.Direct))); all > 0 {
		d.retired = append(d.retired, retiredList{n.List, all})
		d.sweeper.wake()
	}
}

// recallLists finds the last list number, and deletes lists that a killed process left behind. d.mu is held.
func (d *Datapath) recallLists() error {
	used := map[uint32]bool{}
	if err := d.networks.All(func(_ uint32, n bpf.TCNetwork) { used[n.List] = true; d.lists = max(d.lists, n.List) }); err != nil {
		return err
	}
	var stale []bpf.TCFloodKey
	err := d.floods.All(func(k bpf.TCFloodKey, _ bpf.TCFloodBlock) {
		d.lists = max(d.lists, k.List)
		if !used[k.List] {
			stale = append(stale, k)
		}
	})
	if err != nil {
		return err
	}
	return d.floods.Delete(stale)
}

// sweeper deletes retired lists once every program that may have looked them up is done.
type sweeper struct {
	d    *Datapath
	bell chan struct{} // size 1: a full bell has been rung
	quit chan struct{}
	done sync.WaitGroup
	once sync.Once
}

func newSweeper(d *Datapath) *sweeper {
	s := &sweeper{d: d, bell: make(chan struct{}, 1), quit: make(chan struct{})}
	s.done.Go(s.run)
	return s
}

func (s *sweeper) wake() {
	select {
	case s.bell <- struct{}{}:
	default:
	}
}

// stop waits for the goroutine. Lists not swept yet are found by the next Open.
func (s *sweeper) stop() {
	s.once.Do(func() { close(s.quit) })
	s.done.Wait()
}

func (s *sweeper) run() {
	age := time.NewTicker(sweepEvery)
	defer age.Stop()
	for {
		select {
		case <-s.quit:
			return
		case <-age.C:
			if _, err := s.d.sweepLearned(); err != nil {
				s.d.log.Error("could not forget old MACs", "err", err)
			}
			continue
		case <-s.bell:
		}
		s.d.mu.Lock()
		retired := s.d.retired
		s.d.retired = nil
		s.d.mu.Unlock()
		if !s.grace() {
			return
		}
		for _, r := range retired {
			if err := s.d.floods.Delete(listKeys(r.list, r.blocks)); err != nil {
				s.d.log.Error("could not delete a retired flood list", "err", err)
			}
		}
	}
}

// grace waits until no program runs that began before: a program is an RCU reader, and the membarrier is synchronize_rcu.
// False: asked to stop.
func (s *sweeper) grace() bool {
	const cmdGlobal = 1 // MEMBARRIER_CMD_GLOBAL
	_, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, cmdGlobal, 0, 0)
	if errno == 0 {
		return true
	}
	select { // not with nohz_full: no program runs for a second
	case <-s.quit:
		return false
	case <-time.After(time.Second):
		return true
	}
}

// joinDelete is err, and that cleaning up after it failed too.
func joinDelete(err, cleanup error) error {
	if cleanup != nil {
		return errors.Join(err, cleanup)
	}
	return err
}
