package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"connectrpc.com/connect"

	localv1 "github.com/weftnet/weft/api/gen/local/v1"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/lab/guest"
	"github.com/weftnet/weft/lab/qemu"
	"github.com/weftnet/weft/wire"
)

// VM is a virtual machine with a port of a network, behind a TAP device that the agent of its host makes.
type VM struct {
	Name   string `json:"name"`
	Host   string `json:"host"`
	Tenant string `json:"tenant"`
	Port   string `json:"port"`
	// Owned: the port was created for the machine, and goes with it.
	Owned bool `json:"owned"`
	// Machine as it is on every host; its Dir is the present place's.
	Machine qemu.Machine `json:"machine"`
	Process Process      `json:"process"`
	// Target is where it migrates to, while it does; its Dir and process there.
	Target *VMPlace `json:"target,omitempty"`
}

// VMPlace is where a machine is run.
type VMPlace struct {
	Host    string  `json:"host"`
	Dir     string  `json:"dir"`
	Process Process `json:"process"`
}

// VMSpec asks for a virtual machine.
type VMSpec struct {
	Name, Host string
	// Tenant must exist, and Network too, unless the port does.
	Tenant, Network string
	// Port is the port's name; empty is the machine's. One that exists is used as it is, and stays when the machine goes.
	Port string
	// IPs and MACs for a port that does not exist; empty: the server chooses.
	IPs, MACs []string
	// Kernel is a directory as scripts/guest-kernel fills it; empty is qemu.DefaultKernel.
	Kernel string
	// CPUs, and queues of the TAP device; 0 is 1.
	CPUs, Queues int
	// CopyMemory has migrations copy the guest's memory, instead of both ends using the same: see qemu.Machine.SharedMemory.
	CopyMemory bool
}

// CommitBy says what commits a machine's move.
type CommitBy int

const (
	// ByFirstFrame: the machine's first frame on the target, which is QEMU's announcement of it, as the target's agent sees it.
	ByFirstFrame CommitBy = iota
	// ByEvent: QEMU says on the target that the machine goes on, and whoever listens tells the agent, as libvirt's hook does.
	ByEvent
)

// VMMigration is what a migration was like.
type VMMigration struct {
	qemu.Migration
	// Move is the port's, when it was over.
	Move *weftv1.Move
}

const (
	// bootTime is how long a guest may take to boot, or to migrate, in software emulation on a busy machine.
	bootTime = 2 * time.Minute
	// maxVMName leaves a TAP device's name its 15 octets.
	maxVMName = 11
)

// StartVM boots a virtual machine on a host, with a port that is made if there is none. When it returns, the port is active and the guest answers over
// its serial port. On an error what was made is taken away again.
func (l *Lab) StartVM(ctx context.Context, spec VMSpec) (VM, error) {
	fill(&spec.Port, spec.Name)
	fill(&spec.Kernel, qemu.DefaultKernel)
	vm := VM{Name: spec.Name, Host: spec.Host, Tenant: spec.Tenant, Port: spec.Port}
	vm.Machine = qemu.Machine{TAP: "tap-" + spec.Name, CPUs: spec.CPUs, Queues: spec.Queues, Image: filepath.Join(l.cfg.vmDir(), "image")}
	if !spec.CopyMemory {
		vm.Machine.SharedMemory = filepath.Join(l.cfg.vmDir(), spec.Name+".memory")
	}
	kernel, err := l.checkVM(vm, spec)
	if err != nil {
		return VM{}, err
	}
	vm.Machine.Kernel = kernel.File()
	if err := l.recordVM(vm); err != nil {
		return VM{}, err
	}
	if err = l.guestImage(kernel, vm.Machine.Image); err == nil {
		err = l.bootVM(ctx, &vm, spec)
	}
	if err != nil {
		return VM{}, errors.Join(fmt.Errorf("start machine %s: %w", vm.Name, err), l.dropVM(context.WithoutCancel(ctx), vm))
	}
	return vm, nil
}

// checkVM refuses what cannot be, before anything is made.
func (l *Lab) checkVM(vm VM, spec VMSpec) (qemu.Kernel, error) {
	if !nameForm.MatchString(vm.Name) || len(vm.Name) > maxVMName {
		return qemu.Kernel{}, refuse("name", fmt.Sprintf("%q is not a machine's name", vm.Name), fmt.Sprintf("use at most %d of a-z, 0-9 and -", maxVMName))
	}
	if _, err := exec.LookPath(qemu.Program); err != nil {
		return qemu.Kernel{}, refuse("name", "a virtual machine needs "+qemu.Program, "install it: apt-get install qemu-system-x86")
	}
	kernel, err := qemu.FindKernel(spec.Kernel)
	if err != nil {
		return kernel, refuse("--kernel", "there is no kernel in "+spec.Kernel, "fetch one with `scripts/guest-kernel "+spec.Kernel+"`, or unpack a kernel's package there")
	}
	return kernel, nil
}

// recordVM reserves the name.
func (l *Lab) recordVM(vm VM) error {
	return l.update(func(s *State) error {
		if _, ok := s.VM(vm.Name); ok {
			return refuse("name", "there is a machine "+vm.Name+" already", "use another name, or `weft lab vm stop "+vm.Name+"`")
		}
		if _, ok := s.Host(vm.Host); !ok {
			return refuse("--host", fmt.Sprintf("%s is no host of the lab", vm.Host), fmt.Sprintf("use one of h1 to h%d", len(s.Hosts)))
		}
		s.setVM(vm)
		return nil
	})
}

// guestImage builds what all guests of the lab run, once.
func (l *Lab) guestImage(k qemu.Kernel, path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return refuse("name", "a virtual machine needs busybox", "install it: apt-get install busybox-static")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	part := path + ".part"
	if err := k.WriteImage(part, l.cfg.Binary, busybox); err != nil {
		return fmt.Errorf("build the guest's files: %w", err)
	}
	return os.Rename(part, path)
}

func (l *Lab) bootVM(ctx context.Context, vm *VM, spec VMSpec) error {
	ctx, cancel := context.WithTimeout(ctx, bootTime)
	defer cancel()
	var err error
	if vm.Owned, err = l.ensurePort(ctx, vm.Tenant, vm.Port, &weftv1.PortSpec{Network: spec.Network, Ips: spec.IPs, Macs: spec.MACs}); err != nil {
		return err
	}
	if err := l.saveVM(*vm); err != nil { // before anything else: an owned port is to be deleted
		return err
	}
	at, err := l.attachVM(ctx, *vm, vm.Host, ByEvent)
	if err != nil {
		return err
	}
	if vm.Machine.MAC, err = wire.ParseMAC(at.GetMacs()[0]); err != nil {
		return err
	}
	vm.Machine.MTU, vm.Machine.Addresses = int(at.GetMtu()), at.GetIps()
	if vm.Machine.Dir, vm.Process, err = l.runVM(vm.Machine, vm.Name, vm.Host); err != nil {
		return err
	}
	if err := l.saveVM(*vm); err != nil {
		return err
	}
	if err := errors.Join(awaitQEMU(ctx, vm.Machine, vm.Process), l.waitActive(ctx, vm.Tenant, vm.Port, vm.Host)); err != nil {
		return err
	}
	_, err = l.AskVM(ctx, vm.Name, guest.Request{Do: guest.Tell})
	return err
}

// attachVM asks a host's agent for the machine's TAP device. What commits the move, if the port is incoming there, is the first frame or Commit.
func (l *Lab) attachVM(ctx context.Context, vm VM, host string, by CommitBy) (*localv1.Attachment, error) {
	a, err := l.Agent(host)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	on := localv1.CommitOn_COMMIT_ON_FIRST_FRAME
	if by == ByEvent {
		on = localv1.CommitOn_COMMIT_ON_COMMAND
	}
	res, err := a.Attach(ctx, connect.NewRequest(&localv1.AttachRequest{Tenant: vm.Tenant, Port: vm.Port, CommitOn: on,
		Interface: &localv1.AttachRequest_Tap{Tap: vm.Machine.TAP}, MakeTap: &localv1.MakeTap{Queues: uint32(max(vm.Machine.Queues, 1))}}))
	if err != nil {
		return nil, err
	}
	at := res.Msg.GetAttachment()
	if len(at.GetMacs()) == 0 {
		return nil, fmt.Errorf("the agent of %s does not say the MAC of port %s", host, vm.Port)
	}
	return at, nil
}

// runVM starts QEMU on a host, in a new directory of its own.
func (l *Lab) runVM(m qemu.Machine, name, host string) (dir string, p Process, err error) {
	if m.Dir, err = os.MkdirTemp(l.cfg.vmDir(), name+"-"+host+"-"); err != nil {
		return "", p, err
	}
	h, err := l.Node(host)
	if err != nil {
		return m.Dir, p, err
	}
	p, ended, err := launch((*netdev.Handle).Start, h, filepath.Join(m.Dir, "qemu.log"), nil, m.Args()...)
	if p.PID != 0 {
		l.reapers.Go(func() { <-ended })
	}
	return m.Dir, p, err
}

// awaitQEMU waits until a machine's sockets are there. If QEMU ends before, its last words are the error.
func awaitQEMU(ctx context.Context, m qemu.Machine, p Process) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		// Of its sockets QEMU makes the monitor's last.
		if _, err := os.Stat(m.MonitorSocket()); err == nil {
			return nil
		}
		if p.ended() { // not Alive, which wants a command line: a process that has just begun has none for a moment
			return fmt.Errorf("QEMU has ended: %s", tail(filepath.Join(m.Dir, "qemu.log")))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for QEMU's monitor: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// AskVM has the guest's program do something, and report.
func (l *Lab) AskVM(ctx context.Context, name string, r guest.Request) (guest.Report, error) {
	vm, err := l.findVM(name)
	if err != nil {
		return guest.Report{}, err
	}
	return guest.Ask(ctx, vm.Machine.ControlSocket(), r)
}

// MigrateVM moves a running machine to another host with its port: the move is prepared, QEMU migrates, and the move is committed in the
// way that by says. It returns when the move is over. After an error before the machine has gone, machine and port are where they were.
func (l *Lab) MigrateVM(ctx context.Context, name, host string, by CommitBy) (VMMigration, error) {
	vm, err := l.findVM(name)
	if err != nil {
		return VMMigration{}, err
	}
	s, err := l.State()
	if err != nil {
		return VMMigration{}, err
	}
	to, ok := s.Host(host)
	if !ok || host == vm.Host {
		return VMMigration{}, refuse("--host", fmt.Sprintf("%s is no other host of the lab", host), fmt.Sprintf("use one of h1 to h%d, but not %s, where it is", len(s.Hosts), vm.Host))
	}
	ctx, cancel := context.WithTimeout(ctx, bootTime)
	defer cancel()
	r, err := l.migrateVM(ctx, vm, to, by)
	if err != nil {
		return r, fmt.Errorf("migrate machine %s: %w", name, err)
	}
	return r, nil
}

func (l *Lab) migrateVM(ctx context.Context, vm VM, to Host, by CommitBy) (r VMMigration, err error) {
	target, at, err := l.prepareVM(ctx, &vm, to, by)
	if err == nil {
		defer target.Close()
		r.Migration, err = l.transferVM(ctx, vm, target, at, by)
	}
	if err != nil && r.Resumed.IsZero() {
		return r, errors.Join(err, l.abandonVM(context.WithoutCancel(ctx), vm, to.Name))
	}
	return r, errors.Join(err, l.arrivedVM(ctx, vm, &r))
}

// prepareVM makes the port incoming on the target, with a TAP device, and has a QEMU wait there for the machine.
func (l *Lab) prepareVM(ctx context.Context, vm *VM, to Host, by CommitBy) (*qemu.Monitor, netip.AddrPort, error) {
	var at netip.AddrPort
	c, err := l.Client()
	if err != nil {
		return nil, at, err
	}
	if _, err := c.Ports.PrepareMove(ctx, connect.NewRequest(&weftv1.PrepareMoveRequest{Tenant: vm.Tenant, Name: vm.Port, Host: to.Name})); err != nil {
		return nil, at, err
	}
	if _, err := l.attachVM(ctx, *vm, to.Name, by); err != nil {
		return nil, at, err
	}
	if err := l.waitPhase(ctx, *vm, weftv1.MovePhase_MOVE_PHASE_PREPARED); err != nil {
		return nil, at, err
	}
	m := vm.Machine
	m.Incoming = true
	vm.Target = &VMPlace{Host: to.Name}
	if vm.Target.Dir, vm.Target.Process, err = l.runVM(m, vm.Name, to.Name); err == nil {
		err = l.saveVM(*vm)
	}
	if err != nil {
		return nil, at, err
	}
	m.Dir = vm.Target.Dir
	if err := awaitQEMU(ctx, m, vm.Target.Process); err != nil {
		return nil, at, err
	}
	target, err := qemu.Dial(ctx, m.MonitorSocket())
	if err != nil {
		return nil, at, err
	}
	addr, err := netip.ParseAddr(to.VTEPAddress)
	if err == nil {
		at, err = qemu.Listen(ctx, target, addr)
	}
	if err != nil {
		target.Close()
	}
	return target, at, err
}

// transferVM has QEMU migrate.
func (l *Lab) transferVM(ctx context.Context, vm VM, target *qemu.Monitor, at netip.AddrPort, by CommitBy) (qemu.Migration, error) {
	source, err := qemu.Dial(ctx, vm.Machine.MonitorSocket())
	if err != nil {
		return qemu.Migration{}, err
	}
	defer source.Close()
	a, err := l.Agent(vm.Target.Host)
	if err != nil {
		return qemu.Migration{}, err
	}
	defer a.Close()
	// A connection that is there already, as a hypervisor's hook has one.
	if _, err := a.GetStatus(ctx, connect.NewRequest(&localv1.GetStatusRequest{})); err != nil {
		return qemu.Migration{}, err
	}
	resumed := func() error {
		if by == ByFirstFrame {
			return nil
		}
		_, err := a.Commit(ctx, connect.NewRequest(&localv1.CommitRequest{Tenant: vm.Tenant, Port: vm.Port}))
		return err
	}
	return qemu.Migrate(ctx, source, target, at, resumed)
}

// arrivedVM lets go of the source, and waits until the move is over.
func (l *Lab) arrivedVM(ctx context.Context, vm VM, r *VMMigration) error {
	old := vm
	vm.Host, vm.Machine.Dir, vm.Process, vm.Target = vm.Target.Host, vm.Target.Dir, vm.Target.Process, nil
	err := stop(ctx, []Process{old.Process})
	err = errors.Join(err, l.saveVM(vm), os.RemoveAll(old.Machine.Dir), l.detachVM(ctx, old, old.Host))
	c, cerr := l.Client()
	if cerr != nil {
		return errors.Join(err, cerr)
	}
	err = errors.Join(err, c.FollowMove(ctx, vm.Tenant, vm.Port, func(m *weftv1.Move) bool { r.Move = m; return true }))
	if err == nil && r.Move.GetPhase() != weftv1.MovePhase_MOVE_PHASE_DONE {
		err = fmt.Errorf("the machine is on %s, but the move of port %s is %s: %s", vm.Host, vm.Port, r.Move.GetPhase(), r.Move.GetMessage())
	}
	return err
}

// abandonVM gives a migration up that has not happened.
func (l *Lab) abandonVM(ctx context.Context, vm VM, host string) error {
	ctx, cancel := context.WithTimeout(ctx, handover)
	defer cancel()
	var err error
	if vm.Target != nil {
		err = errors.Join(stop(ctx, []Process{vm.Target.Process}), os.RemoveAll(vm.Target.Dir))
		vm.Target = nil
		err = errors.Join(err, l.saveVM(vm))
	}
	c, cerr := l.Client()
	if cerr != nil {
		return errors.Join(err, cerr)
	}
	_, aerr := c.Ports.AbortMove(ctx, connect.NewRequest(&weftv1.AbortMoveRequest{Tenant: vm.Tenant, Name: vm.Port}))
	if notThere(aerr) {
		aerr = nil
	}
	return errors.Join(err, aerr, l.detachVM(ctx, vm, host))
}

// waitPhase waits until the port's move is so far, or has ended.
func (l *Lab) waitPhase(ctx context.Context, vm VM, want weftv1.MovePhase) error {
	c, err := l.Client()
	if err != nil {
		return err
	}
	var last *weftv1.Move
	err = c.FollowMove(ctx, vm.Tenant, vm.Port, func(m *weftv1.Move) bool {
		last = m
		return m.GetPhase() != want
	})
	if err != nil || last.GetPhase() != want {
		return errors.Join(fmt.Errorf("the move of port %s is %s and not %s: %s", vm.Port, last.GetPhase(), want, last.GetMessage()), err)
	}
	return nil
}

// StopVM ends a machine, detaches its port, and deletes the port if it was made for the machine.
func (l *Lab) StopVM(ctx context.Context, name string) error {
	vm, err := l.findVM(name)
	if err != nil {
		return err
	}
	if err := l.dropVM(ctx, vm); err != nil {
		return fmt.Errorf("stop machine %s: %w", name, err)
	}
	return nil
}

func (l *Lab) dropVM(ctx context.Context, vm VM) error {
	ctx, cancel := context.WithTimeout(ctx, handover)
	defer cancel()
	processes, dirs := []Process{vm.Process}, []string{vm.Machine.Dir}
	if vm.Target != nil {
		processes, dirs = append(processes, vm.Target.Process), append(dirs, vm.Target.Dir)
	}
	err := stop(ctx, processes)
	for _, d := range append(dirs, vm.Machine.SharedMemory) {
		if d != "" {
			err = errors.Join(err, os.RemoveAll(d))
		}
	}
	if err = errors.Join(err, l.detachVM(ctx, vm, vm.Host)); err != nil {
		return err
	}
	if vm.Owned {
		c, err := l.Client()
		if err != nil {
			return err
		}
		if _, err := c.Ports.DeletePort(ctx, connect.NewRequest(&weftv1.DeletePortRequest{Tenant: vm.Tenant, Name: vm.Port})); err != nil && !notThere(err) {
			return err
		}
	}
	return l.update(func(s *State) error { s.removeVM(vm.Name); return nil })
}

// detachVM has a host's agent take the machine's TAP device away.
func (l *Lab) detachVM(ctx context.Context, vm VM, host string) error {
	a, err := l.Agent(host)
	if err != nil {
		return err
	}
	defer a.Close()
	if _, err := a.Detach(ctx, connect.NewRequest(&localv1.DetachRequest{Tenant: vm.Tenant, Port: vm.Port})); err != nil && !notThere(err) {
		return err
	}
	return nil
}

func (l *Lab) findVM(name string) (VM, error) {
	s, err := l.State()
	if err != nil {
		return VM{}, err
	}
	vm, ok := s.VM(name)
	if !ok {
		return VM{}, refuse("name", "there is no machine "+name, "see `weft lab vm list`")
	}
	return vm, nil
}

func (l *Lab) saveVM(vm VM) error {
	return l.update(func(s *State) error { s.setVM(vm); return nil })
}

// vmDir is where the files of all virtual machines are.
func (c Config) vmDir() string { return filepath.Join(c.Dir, "vm") }

// String is what a test or a user wants to read of a migration.
func (m VMMigration) String() string {
	cause := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(m.Move.GetCommitCause().String(), "COMMIT_CAUSE_"), "_", " "))
	return fmt.Sprintf("QEMU's downtime %s, stopped for %s, in all %s; committed by %s, dark for %s", m.Downtime, m.Resumed.Sub(m.Stopped).Round(time.Microsecond), m.Total,
		cause, m.Move.GetDarkTime().AsDuration().Round(time.Microsecond))
}
