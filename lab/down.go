package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/netdev"
)

// Down takes a lab away, whatever state it is in: running, half built, or left by a kill. It goes by the lab's record, and by
// names where the record is lost. A lab that is not there is no error.
func Down(ctx context.Context, cfg Config) error {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return err
	}
	s, err := readState(cfg.statePath())
	known := !errors.Is(err, errNoLab)
	if err == nil {
		log, step := cfg.Log, cfg.Step
		cfg = s.config()
		cfg.Log, cfg.Step = log, step
		if _, err := updateState(cfg.statePath(), func(s *State) error { s.Leaving = true; return nil }); err != nil {
			return err
		}
	}
	namespaces, err := cfg.namespaces(s)
	if err != nil {
		return err
	}
	processes := strays(cfg, namespaces)
	for _, p := range slices.Concat([]Process{s.Server}, agents(s), daemons(s), machines(s)) {
		if !slices.ContainsFunc(processes, func(o Process) bool { return o.PID == p.PID }) {
			processes = append(processes, p)
		}
	}
	errs := []error{stop(ctx, processes)}
	for _, ns := range namespaces {
		errs = append(errs, netdev.DeleteNamespace(ns))
	}
	errs = append(errs, removePins(cfg.PinRoot), restoreBacklog(s))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("take the lab away: %w; run `weft lab down%s` again", err, cfg.flag())
	}
	// The record goes last, so that whatever stopped us can be finished.
	if !known {
		return nil
	}
	if err := os.RemoveAll(cfg.Dir); err != nil {
		return fmt.Errorf("remove the lab's directory: %w", err)
	}
	return nil
}

func agents(s State) []Process {
	var all []Process
	for _, h := range s.Hosts {
		all = append(all, h.Agent)
	}
	return all
}

func machines(s State) []Process {
	var all []Process
	for _, vm := range s.VMs {
		all = append(all, vm.Process)
		if vm.Target != nil {
			all = append(all, vm.Target.Process)
		}
	}
	return all
}

// namespaces of the lab that are there: of its record, and those that are named like hosts and routers of it.
func (c Config) namespaces(s State) ([]string, error) {
	all, err := netdev.Namespaces(c.Prefix)
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, w := range s.Workloads {
		known[w.Namespace] = true
	}
	for _, n := range s.Extra {
		known[c.namespace(n)] = true
	}
	return slices.DeleteFunc(all, func(ns string) bool {
		return !known[ns] && !infraNames.MatchString(strings.TrimPrefix(ns, c.Prefix))
	}), nil
}

// removePins removes what the agents pinned, if that lies in a BPF file system; anything else is not ours.
func removePins(root string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); errors.Is(err, unix.ENOENT) {
		return nil
	} else if err != nil {
		return fmt.Errorf("remove BPF pins in %s: %w", root, err)
	}
	if st.Type != unix.BPF_FS_MAGIC {
		return nil
	}
	if err := os.RemoveAll(root); err != nil {
		return fmt.Errorf("remove BPF pins: %w", err)
	}
	return nil
}

// restoreBacklog puts the machine's setting back, if it is still what the lab made it.
func restoreBacklog(s State) error {
	if s.Backlog == 0 {
		return nil
	}
	b, err := os.ReadFile(backlogPath)
	if err != nil || strings.TrimSpace(string(b)) != strconv.Itoa(backlog) {
		return err
	}
	return os.WriteFile(backlogPath, []byte(strconv.Itoa(s.Backlog)), 0)
}

// leftovers are what is still there of a lab that was taken away, going by what its state was.
func leftovers(cfg Config, was State) ([]string, error) {
	left, err := cfg.namespaces(was)
	if err != nil {
		return nil, err
	}
	for _, p := range suspects(cfg) {
		left = append(left, fmt.Sprintf("process %d", p.PID))
	}
	for _, path := range []string{cfg.Dir, cfg.PinRoot} {
		if _, err := os.Lstat(path); err == nil {
			left = append(left, path)
		}
	}
	return left, nil
}
