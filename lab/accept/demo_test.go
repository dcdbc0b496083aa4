package accept_test

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/weftnet/weft/datapath/netdev"
	"github.com/weftnet/weft/internal/testenv"
)

// TestDemoLeavesNothing runs the demo to its end, and ends it early in every way there is.
//
// Red when Demo does not take its lab away after an error (remove d.lab.Down), when a workload is made before it is recorded, or
// when a check of the demo fails.
func TestDemoLeavesNothing(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.BPF)
	// A run that was killed may have left one.
	if out, err := exec.Command(weft(t), "lab", "down", "--name", "demo").CombinedOutput(); err != nil {
		t.Fatalf("weft lab down: %v\n%s", err, out)
	}
	for _, c := range []struct {
		name string
		// underlay is its IP version.
		underlay string
		// at is the start of the line at which the signal comes; none: it runs to its end.
		at     string
		signal syscall.Signal
		// status of the command; -1: it was killed.
		status int
	}{
		{"the end", "4", "", 0, 0},
		{"the end, on IPv6", "6", "", 0, 0},
		{"Ctrl-C while it is built", "4", "   starting the server", syscall.SIGINT, 1},
		{"Ctrl-C while workloads are added", "6", "   acme-1 on h1", syscall.SIGINT, 1},
		{"SIGTERM during a TCP stream", "4", "6. One TCP stream", syscall.SIGTERM, 1},
		{"kill -9 while agents join", "4", "   starting 3 agents", syscall.SIGKILL, -1},
		{"kill -9 while a port is bound again and again", "4", "8. How long", syscall.SIGKILL, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			// A single round may meet a machine that stands still; and one that is ended early has enough left to do when the signal comes late.
			rounds, changes := "3", "20"
			if c.signal != 0 {
				rounds, changes = "1", "2000"
			}
			cmd := exec.Command(weft(t), "lab", "demo", "--name", "demo", "--underlay", c.underlay, "--rounds", rounds, "--stream", "200ms", "--changes", changes)
			cmd.Env = clean()
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			log := runTo(t, cmd, c.at, c.signal)
			t.Cleanup(func() {
				down := exec.Command(weft(t), "lab", "down", "--name", "demo")
				if out, err := down.CombinedOutput(); err != nil {
					t.Errorf("weft lab down: %v\n%s", err, out)
				}
			})
			if got := cmd.ProcessState.ExitCode(); got != c.status {
				t.Errorf("exit status %d, want %d:\n%s", got, c.status, log)
			}
			if c.signal == syscall.SIGKILL {
				if len(traces(t, "demo")) == 0 {
					t.Fatal("it was killed too late to leave anything")
				}
				if out, err := exec.Command(weft(t), "lab", "down", "--name", "demo").CombinedOutput(); err != nil {
					t.Errorf("weft lab down: %v\n%s", err, out)
				}
			}
			if left := traces(t, "demo"); len(left) > 0 {
				t.Errorf("left behind: %s\n%s", strings.Join(left, ", "), log)
			}
		})
	}
}

// runTo runs a command until it has said a line, sends it a signal, and returns what it said to its end.
func runTo(t *testing.T, cmd *exec.Cmd, at string, signal syscall.Signal) string {
	t.Helper()
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		err := cmd.Wait()
		w.Close()
		ended <- err
	}()
	var log strings.Builder
	sent := at == ""
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		log.WriteString(lines.Text() + "\n")
		if !sent && strings.HasPrefix(lines.Text(), at) {
			sent = true
			if err := cmd.Process.Signal(signal); err != nil {
				t.Error(err)
			}
		}
	}
	var exit *exec.ExitError
	if err := <-ended; err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if !sent {
		t.Fatalf("it never said %q:\n%s", at, &log)
	}
	return log.String()
}

// traces are what is there of a lab.
func traces(t *testing.T, name string) []string {
	t.Helper()
	left, err := netdev.Namespaces("weft-" + name + "-")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/run/weft-lab-" + name, "/sys/fs/bpf/weft-lab-" + name} {
		if _, err := os.Lstat(path); err == nil {
			left = append(left, path)
		}
	}
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), "/run/weft-lab-"+name+"/") {
			left = append(left, filepath.Base(filepath.Dir(path))+": "+strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	return left
}
