package qemu

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/weftnet/weft/wire"
)

// Program is QEMU's name.
const Program = "qemu-system-x86_64"

// Machine is a virtual machine in one place. Two that shall migrate between each other differ in nothing but Dir, TAP and Incoming.
type Machine struct {
	// Dir of its own: sockets, what its consoles said, its process id.
	Dir string
	// Kernel and Image are files, as Image makes the latter.
	Kernel, Image string
	// Memory in MiB, and CPUs; 0 is 192 and 1.
	Memory, CPUs int
	// Interface of its only network card: a TAP in the namespace that QEMU runs in, with its number of queues; 0 is 1.
	TAP    string
	Queues int
	MAC    wire.MAC
	// MTU in octets of an IP packet; the guest is told (VIRTIO_NET_F_MTU).
	MTU int
	// Addresses of eth0 in CIDR notation, which the guest reads from the kernel's command line.
	Addresses []string
	// SharedMemory is a file in memory that is the guest's, for machines that migrate without leaving this one: it is not copied then, and the
	// rest of a migration is as ever. Empty: the guest's memory is QEMU's own, and a migration copies it. That breaks about one guest in eight
	// here (software emulation of QEMU 7.2 on a busy machine): a page that the guest wrote is missing at the target. A write is
	// lost, it seems, when the emulating thread is interrupted between its look at a page's state and the write.
	SharedMemory string
	// Incoming: waits for another's migration instead of starting.
	Incoming bool
}

const (
	defaultMemory = 192
	// hardware stays the same wherever a machine goes. The emulation of cmpxchg16b is wrong in QEMU 7.2 (its flags end up in memory), and
	// kernels from 6.7 on use it in every allocation: the guest gets a processor without.
	hardware  = "pc,accel=tcg"
	processor = "qemu64,-cx16"
)

// MonitorSocket is where QEMU listens for QMP; ControlSocket leads to the guest's second serial port; Console is the file of what the
// kernel and the first process say.
func (m Machine) MonitorSocket() string { return filepath.Join(m.Dir, "qmp.sock") }

// ControlSocket leads to the guest's second serial port.
func (m Machine) ControlSocket() string { return filepath.Join(m.Dir, "control.sock") }

// Console is the file of what the guest's kernel and its first process say.
func (m Machine) Console() string { return filepath.Join(m.Dir, "console.log") }

// Args is the command line, QEMU's name first.
func (m Machine) Args() []string {
	memory, cpus, queues := max(m.Memory, 0), max(m.CPUs, 1), max(m.Queues, 1)
	if memory == 0 {
		memory = defaultMemory
	}
	// QEMU announces a machine that has arrived by itself; that the guest does so too is turned off, so that every frame can be accounted for.
	card := fmt.Sprintf("virtio-net-pci,id=net0,guest_announce=off,netdev=tap0,mac=%s,host_mtu=%d", m.MAC, m.MTU)
	if queues > 1 {
		card += fmt.Sprintf(",mq=on,vectors=%d", 2*queues+2)
	}
	args := []string{Program, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-pidfile", filepath.Join(m.Dir, "pid"),
		"-cpu", processor, "-smp", strconv.Itoa(cpus), "-m", strconv.Itoa(memory),
		"-kernel", m.Kernel, "-initrd", m.Image, "-append", m.commandLine(),
		"-chardev", "file,id=console,path=" + m.Console() + ",append=on", "-serial", "chardev:console",
		"-chardev", "socket,id=control,server=on,wait=off,path=" + m.ControlSocket(), "-serial", "chardev:control",
		"-qmp", "unix:" + m.MonitorSocket() + ",server=on,wait=off",
		"-netdev", fmt.Sprintf("tap,id=tap0,ifname=%s,script=no,downscript=no,queues=%d", m.TAP, queues), "-device", card}
	if m.SharedMemory == "" {
		args = append(args, "-machine", hardware)
	} else {
		args = append(args, "-machine", hardware+",memory-backend=ram", "-object", fmt.Sprintf("memory-backend-file,id=ram,size=%dM,share=on,mem-path=%s", memory, m.SharedMemory))
	}
	if m.Incoming {
		args = append(args, "-incoming", "defer")
	}
	return args
}

func (m Machine) commandLine() string {
	line := "console=ttyS0 quiet panic=-1 weft.addresses=" + strings.Join(m.Addresses, ",")
	if !slices.ContainsFunc(m.Addresses, func(a string) bool { return strings.Contains(a, ":") }) {
		line += " ipv6.disable=1" // it would look for routers, and all it sends and gets is accounted for
	}
	return line
}
