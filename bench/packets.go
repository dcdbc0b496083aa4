package bench

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
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

func newCounter(ifindex, length int) (*counter, error) {
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
	l, err := link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: prog, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		prog.Close()
		counts.Close()
		return nil, fmt.Errorf("attach counter: %w", err)
	}
	return &counter{counts: counts, prog: prog, link: l}, nil
}

func (c *counter) read() (uint64, error) {
	var perCPU []uint64
	if err := c.counts.Lookup(uint32(0), &perCPU); err != nil {
		return 0, fmt.Errorf("read counter: %w", err)
	}
	var sum uint64
	for _, n := range perCPU {
		sum += n
	}
	return sum, nil
}

func (c *counter) Close() {
	c.link.Close()
	c.prog.Close()
	c.counts.Close()
}

// packetCost is the time per frame, in nanoseconds, of n frames of the given length from a to b. The frames are the
// given ones in turn. Each frame must arrive: a lost one is an error.
func packetCost(a, b Workload, frame []byte, n int) (float64, error) {
	var sink *counter
	if err := b.run(func() (err error) {
		sink, err = newCounter(b.Ifindex, len(frame))
		return err
	}); err != nil {
		return 0, err
	}
	defer sink.Close()

	var elapsed time.Duration
	err := a.run(func() error {
		generator, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Name: "weft_bench_gen", Type: ebpf.XDP, License: "Dual BSD/GPL",
			Instructions: asm.Instructions{
				asm.Mov.Imm(asm.R1, int32(a.Ifindex)),
				asm.Mov.Imm(asm.R2, 0),
				asm.FnRedirect.Call(),
				asm.Return(),
			},
		})
		if err != nil {
			return fmt.Errorf("load generator: %w", err)
		}
		defer generator.Close()
		if err := pin(packetCore); err != nil {
			return err
		}
		const warmup = 20_000
		if _, err := generate(generator, frame, warmup, sink, warmup); err != nil {
			return err
		}
		elapsed, err = generate(generator, frame, n, sink, warmup+n)
		return err
	})
	if err != nil {
		return 0, err
	}
	return float64(elapsed.Nanoseconds()) / float64(n), nil
}

// generate sends n frames and waits until the counter stands at want.
func generate(generator *ebpf.Program, frame []byte, n int, sink *counter, want int) (time.Duration, error) {
	start := time.Now()
	if _, err := generator.Run(&ebpf.RunOptions{Data: frame, Repeat: uint32(n), Flags: xdpFlagLiveFrames}); err != nil {
		return 0, fmt.Errorf("generate frames: %w", err)
	}
	deadline := start.Add(time.Minute)
	for {
		got, err := sink.read()
		if err != nil {
			return 0, err
		}
		if got == uint64(want) {
			return time.Since(start), nil
		}
		if got > uint64(want) || time.Now().After(deadline) || (got < uint64(want) && time.Since(start) > 3*time.Second && stalled(sink, got)) {
			return 0, fmt.Errorf("sent %d frames, delivered %d", want, got)
		}
		runtime.Gosched()
	}
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
