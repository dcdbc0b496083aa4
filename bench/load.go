package bench

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/cilium/ebpf"
)

// loadRate is the fixed load, in frames a second: what every contender can carry.
const loadRate = 100_000

// cpuAtLoad is what carrying loadRate frames a second of that traffic takes, in percent of one core, of everything that the
// machine does meanwhile. It is not 0 for no contender at all: the generator is part of it, as in packetCost.
func cpuAtLoad(a, b Workload, t traffic, length time.Duration) (float64, error) {
	var sink *counter
	if err := b.run(func() (err error) {
		sink, err = newCounter(b.Ifindex, t.Length, false)
		return err
	}); err != nil {
		return 0, err
	}
	defer sink.Close()
	var percent float64
	err := a.run(func() error {
		g, err := newGenerator(a.Ifindex, t)
		if err != nil {
			return err
		}
		defer g.Close()
		if err := errors.Join(pin(packetCore), undisturbed()); err != nil {
			return err
		}
		s := sending{generator: g, sink: sink, frame: udpFrame(a, b, t.Length), traffic: t}
		if err := s.send(ovsBurst); err != nil {
			return err
		}
		busy, err := busyTime()
		if err != nil {
			return err
		}
		const burst = 250
		start := time.Now()
		for i := 1; time.Since(start) < length; i++ {
			if err := s.push(burst); err != nil {
				return err
			}
			if wait := time.Until(start.Add(time.Duration(i) * time.Second * burst / loadRate)); wait > 0 {
				nap(wait)
			}
		}
		elapsed := time.Since(start)
		after, err := busyTime()
		percent = 100 * (after - busy).Seconds() / elapsed.Seconds()
		return errors.Join(err, s.arrived())
	})
	return percent, err
}

// push sends without waiting.
func (s *sending) push(n int) error {
	if _, err := s.prog.Run(&ebpf.RunOptions{Data: s.frame, Repeat: uint32(n), Flags: xdpFlagLiveFrames}); err != nil {
		return fmt.Errorf("generate frames: %w", err)
	}
	s.sent += n
	return nil
}

// busyTime is the time that all cores together were not idle since boot.
func busyTime() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	var user, nice, system, idle, iowait, irq, softirq, steal int64
	if _, err := fmt.Sscanf(line, "cpu %d %d %d %d %d %d %d %d", &user, &nice, &system, &idle, &iowait, &irq, &softirq, &steal); err != nil {
		return 0, fmt.Errorf("read /proc/stat: %w", err)
	}
	return time.Duration(user+nice+system+irq+softirq) * (time.Second / 100), nil
}
