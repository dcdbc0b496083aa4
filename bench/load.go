package bench

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/cilium/ebpf"
)

// loadRate is the fixed load, in frames a second: what every contender can carry.
const loadRate = 50_000

// cpuAtLoad is what carrying loadRate frames a second of that traffic takes, in percent of one core, of everything that the
// machine does meanwhile. It is not 0 for no contender at all: the generator is part of it, as in packetCost.
func cpuAtLoad(a, b Workload, t traffic, length time.Duration) (float64, error) {
	var sink *counter
	if err := b.run(func() (err error) {
		sink, err = newCounter(b.Ifindex, t.Length, ebpf.AttachTCXIngress)
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
		const burst = 100
		if err := s.send(burst); err != nil {
			return err
		}
		idle, err := idleTime()
		if err != nil {
			return err
		}
		start := time.Now()
		for i := 1; time.Since(start) < length; i++ {
			if err := s.push(burst); err != nil {
				return err
			}
			if wait := time.Until(start.Add(time.Duration(i) * time.Second * burst / loadRate)); wait > 0 {
				nap(wait)
			}
		}
		percent, err = busySince(start, idle)
		return errors.Join(err, s.arrived())
	})
	return percent, err
}

// push sends without waiting.
func (s *sending) push(n int) error {
	if _, err := s.prog.Run(&ebpf.RunOptions{Data: s.frame, Repeat: uint32(n), Flags: xdpFlagLiveFrames, BatchSize: uint32(s.traffic.Batch)}); err != nil {
		return fmt.Errorf("generate frames: %w", err)
	}
	s.sent += n
	return nil
}

// idleTime is how long all cores together were idle since boot, or taken away by whoever runs this machine as a virtual one. (Unlike
// busy time, which is sampled, it is measured.)
func idleTime() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	var user, nice, system, idle, iowait, irq, softirq, steal int64
	if _, err := fmt.Sscanf(line, "cpu %d %d %d %d %d %d %d %d", &user, &nice, &system, &idle, &iowait, &irq, &softirq, &steal); err != nil {
		return 0, fmt.Errorf("read /proc/stat: %w", err)
	}
	return time.Duration(idle+iowait+steal) * (time.Second / 100), nil
}

// busySince is how busy the machine was since then, in percent of a core, when its idle time was this.
func busySince(start time.Time, idle time.Duration) (float64, error) {
	elapsed := time.Since(start)
	now, err := idleTime()
	// Idle time comes in hundredths of a second: less than one is not seen.
	least := 1 / elapsed.Seconds()
	return max(least, 100*(float64(runtime.NumCPU())-(now-idle).Seconds()/elapsed.Seconds())), err
}
