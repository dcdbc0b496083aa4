package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/wire"
)

// traffic is what a packet measure sends.
type traffic struct {
	// Length of a frame in octets, without frame check sequence.
	Length int
	// Flows that the frames are spread over, uniformly: by the L4 ports. 0 is one.
	Flows int
	// Destinations that the frames are spread over, uniformly: MACs of the table that spreadMAC describes, of Entries
	// entries. 0: the other workload's own MAC.
	Destinations, Entries int
	// Broadcast instead of to the other workload.
	Broadcast bool
	// Burst is how many frames are on their way at most; 0 is no limit.
	Burst int
	// Batch is how many frames the kernel takes at once, before what they caused is done; 0 is 64.
	Batch int
	// Copies of each frame that arrive, and octets that each is longer by then. 0 copies is one.
	Copies, Longer int
	// Patient: what carries the frames is a process, which needs the core while the sender waits.
	Patient bool
	// Frame to send; nil is UDP from the one workload to the other. It is written anew each time: the kernel sends a frame's memory again as it
	// comes back, and this one comes back as an answer. Length is that of the frames that are counted.
	Frame []byte
	// Questions that the frames are spread over, uniformly.
	Questions question
	// Sources: each frame has the next source MAC of the table that spreadMAC describes, at octet SourceAt.
	Sources  bool
	SourceAt int
}

// question is where a frame asks for one of many: a number below N, 16 bits at octet At. With Sum the checksum at octet SumAt follows it: Sum is
// that of everything else.
type question struct{ N, At, SumAt, Sum int }

const (
	spreadPrefix = 0x9902     // 02:99 in memory
	spreadFactor = 0x9e3779b1 // odd: i -> i*spreadFactor is one to one
	// spreadFactorBits is it as the immediate of an instruction.
	spreadFactorBits = spreadFactor - 1<<32
)

// spreadMAC is entry i of a table of many MACs, which differ everywhere.
func spreadMAC(i int) (m wire.MAC) {
	m[0], m[1] = 0x02, 0x99
	binary.NativeEndian.PutUint32(m[2:], uint32(i)*spreadFactor)
	return m
}

func spreadMACs(n int) []wire.MAC {
	macs := make([]wire.MAC, n)
	for i := range macs {
		macs[i] = spreadMAC(i)
	}
	return macs
}

// generator is an XDP program that varies each frame and redirects it to an interface. It keeps one number between frames; the
// same start gives the same frames, so that every contender gets the same.
type generator struct {
	prog   *ebpf.Program
	state  *ebpf.Map
	anchor link.Link
}

// anchorNetns has an interface that nothing is sent to. A generator is attached there for as long as it lives: for an XDP program that is
// attached nowhere the kernel rewrites its dispatcher at the begin and the end of each run, and waits for every CPU twice, which takes
// longer than a burst of frames.
const anchorNetns = benchPrefix + "gen"

func anchor(prog *ebpf.Program) (l link.Link, err error) {
	if err := netdev.CreateNamespace(anchorNetns); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	h, err := netdev.OpenName(anchorNetns)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	for i := range mostGenerators {
		l, err = anchorAt(h, prog, fmt.Sprintf("gen%d", i))
		if !errors.Is(err, unix.EBUSY) {
			break
		}
	}
	return l, err
}

// mostGenerators at once: each has an anchor of its own.
const mostGenerators = 4

func anchorAt(h *netdev.Handle, prog *ebpf.Program, name string) (l link.Link, err error) {
	a, err := h.LinkByName(name)
	if err != nil {
		if a, _, err = h.EnsureVeth(netdev.Veth{Name: name, Peer: netdev.VethPeer{Namespace: h, Name: name + "p"}}); err != nil {
			return nil, err
		}
	}
	err = h.Run(func() error {
		l, err = link.AttachXDP(link.XDPOptions{Program: prog, Interface: a.Index, Flags: link.XDPDriverMode})
		return err
	})
	return l, err
}

// removeAnchor takes the namespace away; none is fine.
func removeAnchor() error { return netdev.DeleteNamespace(anchorNetns) }

func newGenerator(ifindex int, t traffic) (*generator, error) {
	state, err := ebpf.NewMap(&ebpf.MapSpec{Name: "weft_bench_s", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return nil, fmt.Errorf("make the generator's state: %w", err)
	}
	var ins asm.Instructions
	switch {
	case t.Sources:
		ins = append(ins, nextSource(state, t.Frame, t.SourceAt)...)
	case t.Flows > 1 || t.Destinations > 1 || t.Questions.N > 1:
		ins = append(ins, vary(state, t)...)
	}
	ins = append(ins,
		asm.Mov.Imm(asm.R1, int32(ifindex)).WithSymbol("send"),
		asm.Mov.Imm(asm.R2, 0),
		asm.FnRedirect.Call(),
		asm.Return())
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "weft_bench_gen", Type: ebpf.XDP, License: "Dual BSD/GPL", Instructions: ins})
	if err != nil {
		state.Close()
		return nil, fmt.Errorf("load generator: %w", err)
	}
	g := &generator{prog: prog, state: state}
	if g.anchor, err = anchor(prog); err != nil {
		return nil, errors.Join(fmt.Errorf("anchor the generator: %w", err), prog.Close(), state.Close())
	}
	return g, nil
}

// rewrite writes the frame, which R7 points to.
func rewrite(frame []byte) (ins asm.Instructions) {
	for at := 0; at < len(frame); {
		size, octets := asm.Byte, 1
		if len(frame)-at >= 8 {
			size, octets = asm.DWord, 8
		}
		var word [8]byte
		copy(word[:], frame[at:at+octets])
		ins = append(ins, asm.LoadImm(asm.R2, int64(binary.NativeEndian.Uint64(word[:])), asm.DWord), asm.StoreMem(asm.R7, int16(at), asm.R2, size))
		at += octets
	}
	return ins
}

// recall leaves the frame in R7, if it has that many octets, a pointer to the state in R0, and what it is in R1.
func recall(state *ebpf.Map, octets int) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R7, asm.R1, 0, asm.Word), // data
		asm.LoadMem(asm.R8, asm.R1, 4, asm.Word), // data_end
		asm.Mov.Reg(asm.R2, asm.R7),
		asm.Add.Imm(asm.R2, int32(octets)),
		asm.JGT.Reg(asm.R2, asm.R8, "send"),
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, state.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "send"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
	}
}

// nextSource counts, and writes the MAC of that number into the frame.
func nextSource(state *ebpf.Map, frame []byte, at int) asm.Instructions {
	return append(append(recall(state, max(at+6, len(frame))), rewrite(frame)...),
		asm.Mov.Reg(asm.R2, asm.R1),
		asm.Add.Imm(asm.R2, 1),
		asm.StoreMem(asm.R0, 0, asm.R2, asm.DWord),
		asm.Mul.Imm32(asm.R1, int32(spreadFactorBits)),
		asm.Mov.Imm(asm.R2, spreadPrefix),
		asm.StoreMem(asm.R7, int16(at), asm.R2, asm.Half),
		asm.StoreMem(asm.R7, int16(at+2), asm.R1, asm.Word))
}

// vary steps a linear congruence and writes what follows from it into the frame.
func vary(state *ebpf.Map, t traffic) asm.Instructions {
	const ethernet, ip4 = 14, 20
	ins := append(append(recall(state, max(ethernet+ip4+8, len(t.Frame))), rewrite(t.Frame)...),
		asm.LoadImm(asm.R2, 6364136223846793005, asm.DWord),
		asm.Mul.Reg(asm.R1, asm.R2),
		asm.LoadImm(asm.R2, 1442695040888963407, asm.DWord),
		asm.Add.Reg(asm.R1, asm.R2),
		asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord),
		asm.RSh.Imm(asm.R1, 33))
	if q := t.Questions; q.N > 1 {
		ins = append(ins,
			asm.Mod.Imm(asm.R1, int32(q.N)),
			asm.Mov.Reg(asm.R2, asm.R1),
			asm.HostTo(asm.BE, asm.R2, asm.Half),
			asm.StoreMem(asm.R7, int16(q.At), asm.R2, asm.Half))
		if q.SumAt > 0 {
			ins = append(ins, // fold and complement
				asm.Add.Imm(asm.R1, int32(q.Sum)),
				asm.Mov.Reg(asm.R2, asm.R1),
				asm.RSh.Imm(asm.R2, 16),
				asm.And.Imm(asm.R1, 0xffff),
				asm.Add.Reg(asm.R1, asm.R2),
				asm.Xor.Imm(asm.R1, 0xffff),
				asm.HostTo(asm.BE, asm.R1, asm.Half),
				asm.StoreMem(asm.R7, int16(q.SumAt), asm.R1, asm.Half))
		}
		return ins
	}
	if t.Flows > 1 {
		ins = append(ins,
			asm.Mov.Reg(asm.R2, asm.R1),
			asm.Mod.Imm(asm.R2, int32(t.Flows)),
			asm.Mov.Reg(asm.R3, asm.R2), // source port: the lower 15 bits, from 32768 on, where no service is that weft guards
			asm.And.Imm(asm.R3, 0x7fff),
			asm.Or.Imm(asm.R3, 0x8000),
			asm.HostTo(asm.BE, asm.R3, asm.Half),
			asm.StoreMem(asm.R7, ethernet+ip4, asm.R3, asm.Half),
			asm.RSh.Imm(asm.R2, 15),
			asm.Add.Imm(asm.R2, 9),
			asm.StoreMem(asm.R7, ethernet+ip4+2, asm.R2, asm.Half))
	}
	if t.Destinations > 1 {
		every := uint32(t.Entries/t.Destinations) * spreadFactor
		ins = append(ins,
			asm.Mod.Imm(asm.R1, int32(t.Destinations)),
			asm.Mul.Imm32(asm.R1, int32(every)),
			asm.Mov.Imm(asm.R2, spreadPrefix),
			asm.StoreMem(asm.R7, 0, asm.R2, asm.Half),
			asm.StoreMem(asm.R7, 2, asm.R1, asm.Word))
	}
	return ins
}

func (g *generator) reset() error { return g.state.Update(uint32(0), uint64(0), ebpf.UpdateAny) }

func (g *generator) Close() error {
	return errors.Join(g.anchor.Close(), g.prog.Close(), g.state.Close())
}

// undisturbed keeps the scheduler's signals of Go from the calling thread, which the caller has locked and lets end: a run of frames
// that is interrupted begins anew, and sends more than was asked.
func undisturbed() error {
	var set unix.Sigset_t
	set.Val[0] = 1<<(unix.SIGURG-1) | 1<<(unix.SIGPROF-1)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &set, nil); err != nil {
		return fmt.Errorf("block signals: %w", err)
	}
	// Short waits are as short as they say.
	return unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
}
