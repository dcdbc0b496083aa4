package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/lab/qemu"
)

// Process is one that the lab started, with what proves that it still is the same one: a pid may be used again, a pid with
// the same start time may not.
type Process struct {
	PID int `json:"pid"`
	// Started is the 22nd field of /proc/PID/stat, in clock ticks since boot.
	Started uint64 `json:"started"`
	// Args are its command line.
	Args []string `json:"args"`
}

// starter starts a command in a namespace.
type starter func(*netdev.Handle, *exec.Cmd) error

// grace is how long a process may take to end by itself.
const grace = 10 * time.Second

// launch starts a command in a namespace, in a session of its own (so that a Ctrl-C on the terminal reaches only the lab,
// which ends its processes in order), with its output in a file and none of the caller's WEFT_ variables but those in env. The returned channel gives its end.
func launch(start starter, h *netdev.Handle, logFile string, env []string, argv ...string) (Process, <-chan error, error) {
	if err := os.MkdirAll(filepath.Dir(logFile), 0o700); err != nil {
		return Process{}, nil, err
	}
	out, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return Process{}, nil, err
	}
	defer out.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "WEFT_") })
	cmd.Env = append(cmd.Env, env...)
	if err := start(h, cmd); err != nil {
		return Process{}, nil, err
	}
	p := Process{PID: cmd.Process.Pid, Args: argv}
	p.Started, _, err = procStat(p.PID)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return p, ended, err
}

// procStat reads a process's start time and state letter.
func procStat(pid int) (started uint64, state byte, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	// The second field is the name in parentheses, which may hold anything.
	i := bytes.LastIndexByte(b, ')')
	f := strings.Fields(string(b[i+1:]))
	if i < 0 || len(f) < 20 {
		return 0, 0, fmt.Errorf("/proc/%d/stat is not what it was", pid)
	}
	started, err = strconv.ParseUint(f[19], 10, 64)
	return started, f[0][0], err
}

func procArgs(pid int) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(b) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
}

// Alive reports whether the process still runs and is the one that was started.
func (p Process) Alive() bool {
	started, state, err := procStat(p.PID)
	return p.PID > 0 && err == nil && state != 'Z' && started == p.Started && slices.Equal(procArgs(p.PID), p.Args)
}

// ended reports whether the process is gone with everything that it held. A process that was killed is not Alive from the moment
// when its memory goes; its files, and with them its locks, go after that, and with the last of its threads.
func (p Process) ended() bool {
	started, state, err := procStat(p.PID)
	if args := procArgs(p.PID); p.PID <= 0 || err != nil || started != p.Started || args != nil && !slices.Equal(args, p.Args) {
		return true
	}
	if state != 'Z' {
		return false
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.PID))
	return err != nil || len(threads) <= 1
}

// signal sends a signal to the process, if it is proven to be ours. Between the proof and the signal a pidfd holds it fast.
func (p Process) signal(sig unix.Signal) error {
	if p.PID <= 0 {
		return nil
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", p.PID, err)
	}
	defer unix.Close(fd)
	if !p.Alive() {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal process %d: %w", p.PID, err)
	}
	return nil
}

// stop ends processes: asks all of them, waits, and kills what is left.
func stop(ctx context.Context, all []Process) error {
	var errs []error
	for _, p := range all {
		errs = append(errs, p.signal(unix.SIGTERM))
	}
	if left := gone(ctx, all, grace); len(left) > 0 {
		for _, p := range left {
			errs = append(errs, p.signal(unix.SIGKILL))
		}
		for _, p := range gone(context.Background(), left, grace) {
			errs = append(errs, fmt.Errorf("process %d (%s) does not end", p.PID, strings.Join(p.Args, " ")))
		}
	}
	return errors.Join(errs...)
}

// gone waits until the processes have ended, and returns those that have not in time.
func gone(ctx context.Context, all []Process, patience time.Duration) []Process {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		all = slices.DeleteFunc(slices.Clone(all), Process.ended)
		if len(all) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return all
		case <-tick.C:
		}
	}
}

// strays finds processes of a lab whose record was lost: a server, agent, virtual machine or router's daemon whose data lies in the lab's directory and whose
// network namespace is one of the lab's.
func strays(cfg Config, namespaces []string) []Process {
	inodes := map[uint64]bool{}
	for _, ns := range namespaces {
		var st unix.Stat_t
		if unix.Stat(netdev.NamespacePath(ns), &st) == nil {
			inodes[st.Ino] = true
		}
	}
	return slices.DeleteFunc(suspects(cfg), func(p Process) bool {
		var st unix.Stat_t
		return unix.Stat(fmt.Sprintf("/proc/%d/ns/net", p.PID), &st) != nil || !inodes[st.Ino]
	})
}

// suspects are processes that by their command line are servers, agents, virtual machines or routers' daemons with their data in the lab's directory.
func suspects(cfg Config) []Process {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var found []Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		args := procArgs(pid)
		if len(args) < 2 || args[0] != qemu.Program && args[1] != "server" && args[1] != "agent" && !isDaemon(args) || !slices.ContainsFunc(args, cfg.owns) {
			continue
		}
		if started, state, err := procStat(pid); err == nil && state != 'Z' {
			found = append(found, Process{PID: pid, Started: started, Args: args})
		}
	}
	return found
}

// owns reports whether a path lies in the lab's directory.
func (c Config) owns(path string) bool { return strings.HasPrefix(path, c.Dir+"/") }

// tail is the end of a log, for an error about the process that wrote it.
func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-8):], "\n  ")
}
