package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/netdev"
)

// The packet measure: an XDP program that only redirects, run by the kernel itself with live frames, pushes n frames into
// one workload's interface; a tc program on the other workload's interface counts and drops them. Everything happens on
// one pinned core, so that the time for n frames is what the whole path costs.
//
//	workload a: generator -> eth0 ==> host 1 -> underlay -> host 2 ==> eth0 -> counter, drop :workload b

const (
	xdpFlagLiveFrames = 1 << 1 // BPF_F_TEST_XDP_LIVE_FRAMES
	tcxDrop           = 2      // TCX_DROP
	tcxNext           = -1     // TCX_NEXT
	packetCore        = 1
)

// counter counts and drops frames of one length that arrive on an interface.
type counter struct {
	counts *ebpf.Map
	prog   *ebpf.Program
	link   link.Link
}

func newCounter(ifindex, length int, where ebpf.AttachType) (*counter, error) {
	counts, err := ebpf.NewMap(&ebpf.MapSpec{Name: "weft_bench_n", Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return nil, fmt.Errorf("make counter map: %w", err)
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "weft_bench_sink", Type: ebpf.SchedCLS, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R6, asm.R1, 0, asm.Word), // skb->len
			asm.JNE.Imm(asm.R6, int32(length), "next"),
			asm.StoreImm(asm.RFP, -4, 0, asm.Word),
			asm.LoadMapPtr(asm.R1, counts.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -4),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "next"),
			asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
			asm.Add.Imm(asm.R1, 1),
			asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord),
			asm.Mov.Imm(asm.R0, tcxDrop),
			asm.Return(),
			asm.Mov.Imm(asm.R0, tcxNext).WithSymbol("next"),
			asm.Return(),
		},
	})
	if err != nil {
		counts.Close()
		return nil, fmt.Errorf("load counter: %w", err)
	}
	l, err := link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: prog, Attach: where})
	if err != nil {
		prog.Close()
		counts.Close()
		return nil, fmt.Errorf("attach counter: %w", err)
	}
	return &counter{counts: counts, prog: prog, link: l}, nil
}

func (c *counter) perCore() ([]uint64, error) {
	var counts []uint64
	if err := c.counts.Lookup(uint32(0), &counts); err != nil {
		return nil, fmt.Errorf("read counter: %w", err)
	}
	return counts, nil
}

func (c *counter) read() (sum uint64, err error) {
	counts, err := c.perCore()
	for _, n := range counts {
		sum += n
	}
	return sum, err
}

// onCore is errAstray if more than one in a hundred frames came on another core.
func (c *counter) onCore(core int) error {
	counts, err := c.perCore()
	if err != nil {
		return err
	}
	own := counts[core%len(counts)]
	var all uint64
	for _, n := range counts {
		all += n
	}
	if (all-own)*100 > all {
		return fmt.Errorf("%w: %d of %d came on another than core %d", errAstray, all-own, all, core%len(counts))
	}
	return nil
}

func (c *counter) Close() {
	c.link.Close()
	c.prog.Close()
	c.counts.Close()
}

// warmupFrames fill caches and next hops before the clock starts.
const warmupFrames = 20_000

// packetCost is the time per frame, in nanoseconds, of n frames of that traffic from a to b. Each frame must arrive: a lost one
// is an error.
func packetCost(a, b Workload, t traffic, n int) (float64, error) {
	return packetCostTo(a, b, end{b.Netns, b.Ifindex, ebpf.AttachTCXIngress}, t, n)
}

// end is where frames are counted and dropped: by the last program on that hook of an interface.
type end struct {
	netns   *netdev.Handle
	ifindex int
	where   ebpf.AttachType
}

func packetCostTo(a, b Workload, at end, t traffic, n int) (float64, error) {
	var sink *counter
	if err := at.netns.Run(func() (err error) {
		sink, err = newCounter(at.ifindex, t.Length+t.Longer, at.where)
		return err
	}); err != nil {
		return 0, err
	}
	defer sink.Close()

	frame := t.Frame
	if frame == nil {
		frame = udpFrame(a, b, t.Length)
	}
	if t.Broadcast {
		copy(frame, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	}
	var elapsed time.Duration
	err := a.run(func() error {
		g, err := newGenerator(a.Ifindex, t)
		if err != nil {
			return err
		}
		defer g.Close()
		if err := errors.Join(pin(packetCore), undisturbed()); err != nil {
			return err
		}
		s := sending{generator: g, sink: sink, frame: frame, traffic: t}
		if err := s.send(min(n, warmupFrames)); err != nil {
			return err
		}
		if err := g.reset(); err != nil {
			return err
		}
		start := time.Now()
		if err := s.send(n); err != nil {
			return err
		}
		elapsed = time.Since(start)
		return sink.onCore(packetCore)
	})
	if err != nil {
		return 0, err
	}
	return float64(elapsed.Nanoseconds()) / float64(n), nil
}

// sending is a generator at work, and what the counter must stand at.
type sending struct {
	*generator
	sink    *counter
	frame   []byte
	traffic traffic
	sent    int
}

// send sends n frames, no more than a burst at a time, and waits until all have arrived.
func (s *sending) send(n int) error {
	for n > 0 {
		burst := n
		if s.traffic.Burst > 0 {
			burst = min(n, s.traffic.Burst)
		}
		if err := s.push(burst); err != nil {
			return err
		}
		n -= burst
		if err := s.arrived(); err != nil {
			return err
		}
	}
	return nil
}

func (s *sending) arrived() error {
	want := uint64(s.sent) * uint64(max(1, s.traffic.Copies))
	start := time.Now()
	for {
		got, err := s.sink.read()
		if err != nil {
			return err
		}
		if got == want {
			return nil
		}
		if got > want || time.Since(start) > time.Minute || (time.Since(start) > 2*time.Second && stalled(s.sink, got)) {
			return errors.Join(fmt.Errorf("%w: sent %d frames, delivered %d", errLost, want, got), s.sink.onCore(packetCore))
		}
		if s.traffic.Patient {
			nap(20 * time.Microsecond)
		} else {
			runtime.Gosched()
		}
	}
}

// Why a sample does not count.
var (
	errLost = errors.New("frames were lost")
	// errAstray: its time is not what one core takes.
	errAstray = errors.New("frames left the core")
)

// doesNotCount reports whether the sample is to be taken again.
func doesNotCount(err error) bool { return errors.Is(err, errLost) || errors.Is(err, errAstray) }

// nap gives the core away: time.Sleep of the calling thread itself, without the scheduler of Go.
func nap(d time.Duration) {
	ts := unix.NsecToTimespec(d.Nanoseconds())
	_ = unix.Nanosleep(&ts, nil)
}

// stalled reports whether the counter has stopped.
func stalled(sink *counter, got uint64) bool {
	time.Sleep(200 * time.Millisecond)
	now, err := sink.read()
	return err != nil || now == got
}

// pin keeps the calling thread, which the caller has locked, on one core.
func pin(core int) error {
	var set unix.CPUSet
	set.Set(core % runtime.NumCPU())
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("pin to core %d: %w", core, err)
	}
	return nil
}

// pinProcesses keeps every thread of some processes on these cores.
func pinProcesses(cores []int, pids ...int) error {
	var set unix.CPUSet
	for _, core := range cores {
		set.Set(core % runtime.NumCPU())
	}
	for _, pid := range pids {
		threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			return fmt.Errorf("pin process %d: %w", pid, err)
		}
		for _, t := range threads {
			tid, err := strconv.Atoi(t.Name())
			if err != nil {
				continue
			}
			if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("pin process %d: %w", pid, err)
			}
		}
	}
	return nil
}

// everyCore lists the machine's.
func everyCore() []int {
	cores := make([]int, runtime.NumCPU())
	for i := range cores {
		cores[i] = i
	}
	return cores
}

// udpFrame is an Ethernet frame of the given length without frame check sequence that carries UDP from a to b.
func udpFrame(a, b Workload, length int) []byte {
	f := make([]byte, length)
	copy(f[0:6], b.MAC[:])
	copy(f[6:12], a.MAC[:])
	binary.BigEndian.PutUint16(f[12:], unix.ETH_P_IP)
	ip := f[14:]
	ip[0] = 0x45
	binary.BigEndian.PutUint16(ip[2:], uint16(length-14))
	ip[8], ip[9] = 64, unix.IPPROTO_UDP
	src, dst := a.Addr.As4(), b.Addr.As4()
	copy(ip[12:16], src[:])
	copy(ip[16:20], dst[:])
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum))
	binary.BigEndian.PutUint16(ip[20:], 40000)
	binary.BigEndian.PutUint16(ip[22:], 9) // discard
	binary.BigEndian.PutUint16(ip[24:], uint16(length-34))
	return f
}
