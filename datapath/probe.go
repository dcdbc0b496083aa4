package datapath

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/wire"
)

// Capability is something that the kernel, or an uplink, can do or cannot. It is found by doing it, not by a version.
type Capability struct {
	Name string
	// Interface that it is about; empty: the kernel.
	Interface string
	Present   bool
	// Detail says what there is, or why not. It may be empty.
	Detail string
}

// String is one line: "uplink0: XDP redirect target: no (basic redirect rx-sg)".
func (c Capability) String() string {
	s := c.Name + ": " + map[bool]string{true: "yes", false: "no"}[c.Present]
	if c.Interface != "" {
		s = c.Interface + ": " + s
	}
	if c.Detail != "" {
		s += " (" + c.Detail + ")"
	}
	return s
}

// Names of capabilities that others ask for.
const (
	CapabilityNativeXDP     = "native XDP"
	CapabilityXDPTarget     = "XDP redirect target"
	CapabilityClearGSO      = "BPF decapsulation clears the tunnel GSO type"
	CapabilityRedirectPeer  = "bpf_redirect_peer"
	CapabilityBatchUpdates  = "batch map updates"
	CapabilityTCX           = "tcx links"
	CapabilityKernelRelease = "kernel"
)

// Capabilities are what the kernel can do (ProbeKernel, the first time) and what the uplinks can do now (ProbeUplink).
func (d *Datapath) Capabilities() []Capability {
	d.probed.Do(func() { d.kernelCan = ProbeKernel() })
	list := slices.Clone(d.kernelCan)
	for _, name := range strings.Split(d.cfg.Uplink, ",") {
		list = append(list, ProbeUplink(d.ns, name)...)
	}
	return list
}

// bpf_skb_adjust_room (linux/bpf.h, enum bpf_adj_room_flags).
const (
	roomFixedGSO      = 1 << 0
	roomEncapIPv4     = 1 << 1
	roomEncapIPv6     = 1 << 2
	roomEncapUDP      = 1 << 4
	roomNoCsumReset   = 1 << 5
	roomEncapEthernet = 1 << 6
	roomDecapIPv6     = 1 << 8
	roomDecapUDP      = 1 << 10 // clears the tunnel's GSO type; newer than Linux 6.18
	roomEncapL2       = 14 << 56
	roomMAC           = 1 // BPF_ADJ_ROOM_MAC
)

// ProbeKernel tries, in a network namespace of its own that is gone afterwards:
//   - tcx links and native XDP (of fragmented frames) by attaching a program to a veth;
//   - bpf_redirect_peer by having the verifier accept a program that calls it;
//   - batch map updates by one;
//   - the flags of bpf_skb_adjust_room by running a program that passes them, on a tunnel packet (BPF_PROG_TEST_RUN).
func ProbeKernel() []Capability {
	var list []Capability
	var name unix.Utsname
	if err := unix.Uname(&name); err == nil {
		list = append(list, Capability{Name: CapabilityKernelRelease, Present: true, Detail: unix.ByteSliceToString(name.Release[:])})
	}
	err := inScratch(func(ifindex int) {
		for _, p := range []struct {
			name string
			try  func() error
		}{
			{CapabilityTCX, func() error { return tryTCX(ifindex) }},
			{CapabilityRedirectPeer, tryRedirectPeer},
			{CapabilityBatchUpdates, tryBatch},
			{"BPF encapsulation over IPv4", func() error {
				return tryRoom(50, roomFixedGSO|roomNoCsumReset|roomEncapUDP|roomEncapL2|roomEncapEthernet|roomEncapIPv4)
			}},
			{"BPF encapsulation over IPv6", func() error {
				return tryRoom(70, roomFixedGSO|roomNoCsumReset|roomEncapUDP|roomEncapL2|roomEncapEthernet|roomEncapIPv6)
			}},
			{"BPF decapsulation to another IP version", func() error { return tryRoom(-50, roomFixedGSO|roomNoCsumReset|roomDecapIPv6) }},
			{CapabilityClearGSO, func() error { return tryRoom(-50, roomFixedGSO|roomNoCsumReset|roomDecapUDP) }},
			{CapabilityNativeXDP, func() error { return tryXDP(ifindex) }},
		} {
			list = append(list, capability(p.name, "", p.try()))
		}
	})
	if err != nil {
		list = append(list, capability("probes", "", err))
	}
	return list
}

func capability(name, ifname string, err error) Capability {
	c := Capability{Name: name, Interface: ifname, Present: err == nil}
	if err != nil {
		c.Detail = err.Error()
	}
	return c
}

// ProbeUplink asks the driver of an interface what it does with XDP programs and redirected frames (netdev.XDPFeatures), and which
// offloads that matter to tunnels are on (ethtool's names in Detail).
func ProbeUplink(ns *netdev.Handle, ifname string) []Capability {
	l, err := ns.LinkByName(ifname)
	if err != nil {
		return []Capability{capability("uplink", ifname, err)}
	}
	var list []Capability
	can, err := ns.XDPFeatures(l.Index)
	for _, x := range []struct {
		name string
		need netdev.XDPFeatures
	}{
		{CapabilityNativeXDP, netdev.XDPBasic | netdev.XDPRedirect},
		{CapabilityXDPTarget, netdev.XDPTransmit | netdev.XDPTransmitFragments},
	} {
		c := capability(x.name, ifname, err)
		if err == nil {
			c.Present, c.Detail = can.Has(x.need), can.String()
		}
		list = append(list, c)
	}
	for _, o := range []struct {
		name    string
		feature netdev.Feature
	}{
		{"checksum offload", netdev.TX},
		{"GRO", netdev.GRO},
		{"tunnel segmentation", "tx-udp_tnl-segmentation"},
		{"tunnel segmentation with outer checksums", "tx-udp_tnl-csum-segmentation"},
	} {
		on, err := ns.Feature(ifname, o.feature)
		c := capability(o.name, ifname, err)
		if err == nil {
			c.Present, c.Detail = on, string(o.feature)
		}
		list = append(list, c)
	}
	return list
}

// inScratch runs f on a thread in a network namespace of its own, with the index of one end of a veth there. Both go with the thread.
func inScratch(f func(ifindex int)) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("make a network namespace to probe in: %w", err)
			}
			ns, err := netdev.Current()
			if err != nil {
				return err
			}
			defer ns.Close()
			near, _, err := ns.EnsureVeth(netdev.Veth{Name: "probe0", Peer: netdev.VethPeer{Name: "probe1"}})
			if err != nil {
				return err
			}
			f(near.Index)
			return nil
		}()
	}()
	return <-done
}

// tryProgram loads a program that returns r0, and does something with it.
func tryProgram(spec ebpf.ProgramSpec, do func(*ebpf.Program) error) error {
	spec.License = "Dual BSD/GPL"
	spec.Instructions = append(spec.Instructions, asm.Return())
	p, err := ebpf.NewProgramWithOptions(&spec, ebpf.ProgramOptions{LogDisabled: true})
	if err != nil {
		return err
	}
	defer p.Close()
	return do(p)
}

func tryTCX(ifindex int) error {
	next := asm.Instructions{asm.Mov.Imm(asm.R0, -1)} // TCX_NEXT
	return tryProgram(ebpf.ProgramSpec{Type: ebpf.SchedCLS, Instructions: next}, func(p *ebpf.Program) error {
		l, err := link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: p, Attach: ebpf.AttachTCXIngress})
		if err != nil {
			return err
		}
		return l.Close()
	})
}

func tryXDP(ifindex int) error {
	pass := asm.Instructions{asm.Mov.Imm(asm.R0, 2)} // XDP_PASS
	return tryProgram(ebpf.ProgramSpec{Type: ebpf.XDP, Flags: unix.BPF_F_XDP_HAS_FRAGS, Instructions: pass}, func(p *ebpf.Program) error {
		l, err := link.AttachXDP(link.XDPOptions{Interface: ifindex, Program: p, Flags: link.XDPDriverMode})
		if err != nil {
			return err
		}
		return l.Close()
	})
}

func tryRedirectPeer() error {
	call := asm.Instructions{asm.Mov.Imm(asm.R1, 0), asm.Mov.Imm(asm.R2, 0), asm.FnRedirectPeer.Call()}
	return tryProgram(ebpf.ProgramSpec{Type: ebpf.SchedCLS, Instructions: call}, func(*ebpf.Program) error { return nil })
}

func tryBatch() error {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: 4})
	if err != nil {
		return err
	}
	defer m.Close()
	n, err := m.BatchUpdate([]uint32{1, 2}, []uint32{3, 4}, nil)
	if err == nil && n != 2 {
		err = fmt.Errorf("%d of 2 entries were written", n)
	}
	return err
}

// tryRoom has a program change a VXLAN packet's room by so many octets with those flags. The error is what the helper said.
func tryRoom(octets int32, flags uint64) error {
	call := asm.Instructions{
		asm.Mov.Imm(asm.R2, octets), asm.Mov.Imm(asm.R3, roomMAC), asm.LoadImm(asm.R4, int64(flags), asm.DWord), asm.FnSkbAdjustRoom.Call(),
		asm.Neg.Imm(asm.R0, 0),
	}
	return tryProgram(ebpf.ProgramSpec{Type: ebpf.SchedCLS, Instructions: call}, func(p *ebpf.Program) error {
		errno, err := p.Run(&ebpf.RunOptions{Data: probePacket()})
		if err == nil && errno != 0 {
			err = unix.Errno(errno)
		}
		return err
	})
}

// probePacket is a VXLAN packet with an inner one of the same IP version.
func probePacket() []byte {
	outer := wire.Flow{SrcMAC: wire.MAC{2, 0, 0, 0, 0, 1}, DstMAC: wire.MAC{2, 0, 0, 0, 0, 2},
		Src: netip.AddrFrom4([4]byte{192, 0, 2, 1}), Dst: netip.AddrFrom4([4]byte{192, 0, 2, 2})}
	return wire.Encapsulate(outer, wire.MinSourcePort, wire.VXLANPort, 1, outer.Back().UDP(1, 2, make([]byte, 64)))
}
