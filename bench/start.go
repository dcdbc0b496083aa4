package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/lab"
)

const (
	benchLab = "bench"
	// One for each contender that is weft and stays.
	uncheckedLab = benchLab + "-off"
	xdpLab       = benchLab + "-xdp"
	benchPrefix  = "weft-bench-"
	lockPath     = "/run/weft-bench.lock"
	ovsDir       = "/run/weft-bench/ovs"
)

// enter takes the machine for this run alone, and removes what a run left that was killed.
func enter(ctx context.Context) (leave func(), err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("measuring needs network namespaces and BPF, and that needs root: run it with sudo")
	}
	fd, err := unix.Open(lockPath, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", lockPath, err)
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("another `weft bench` runs on this machine: wait until it has ended")
	}
	if err := removeLeftovers(ctx); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("remove what an earlier run left: %w", err)
	}
	return func() { unix.Close(fd) }, nil
}

// removeLeftovers takes away by name what only a run makes: labs, switches, namespaces.
func removeLeftovers(ctx context.Context) error {
	errs := []error{endPeers(filepath.Dir(ovsDir)), os.RemoveAll(filepath.Dir(ovsDir))}
	dirs, err := filepath.Glob("/run/weft-lab-" + benchLab + "*")
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		name := strings.TrimPrefix(dir, "/run/weft-lab-")
		if name == benchLab || strings.HasPrefix(name, benchLab+"-") {
			errs = append(errs, lab.Down(ctx, lab.Config{Name: name}))
		}
	}
	names, err := netdev.Namespaces(benchPrefix)
	errs = append(errs, err)
	for _, name := range names {
		errs = append(errs, netdev.DeleteNamespace(name))
	}
	return errors.Join(errs...)
}

// endPeers kills the processes of Open vSwitch and dnsmasq whose files are in dir: nobody else's are.
func endPeers(dir string) error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		args, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		name := filepath.Base(strings.SplitN(string(args), "\x00", 2)[0])
		if err != nil || !strings.HasPrefix(name, "ovs") && name != "dnsmasq" || !strings.Contains(string(args), "="+dir+"/") {
			continue
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("end process %d: %w", pid, err)
		}
	}
	return nil
}

// idleEnough is how busy the machine may be before a run, in percent of a core.
const idleEnough = 10

// otherLoad is how busy the machine is with nothing measured, in percent of a core.
func otherLoad() (float64, error) {
	idle, err := idleTime()
	if err != nil {
		return 0, err
	}
	start := time.Now()
	time.Sleep(time.Second)
	return busySince(start, idle)
}
