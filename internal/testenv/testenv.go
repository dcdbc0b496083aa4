// Package testenv says what a test needs of the machine. A need that is not met skips the test, unless WEFT_REQUIRE
// names it ("root,bpf,peers", as in CI): then the test fails, so that nothing is skipped unseen.
package testenv

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Needs that a test may state.
const (
	// Root: effective uid 0, able to make network namespaces.
	Root = "root"
	// BPF: a kernel that loads programs, with BTF.
	BPF = "bpf"
	// Peers: other implementations and decoders (tshark, etcd, iperf3, ...) from scripts/deps.
	Peers = "peers"
)

// Require skips the test, or fails it under WEFT_REQUIRE, when one of the needs is not met.
func Require(t testing.TB, needs ...string) {
	t.Helper()
	for _, need := range needs {
		switch need {
		case Root:
			if os.Geteuid() != 0 {
				Missing(t, Root, "not root")
			}
		case BPF:
			if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil || os.Geteuid() != 0 {
				Missing(t, BPF, "no BTF, or not root")
			}
		default:
			t.Fatalf("testenv: unknown need %q", need)
		}
	}
}

// RequireTool is Require for a program from scripts/deps; it returns its path.
func RequireTool(t testing.TB, name string) string {
	t.Helper()
	for _, dir := range []string{"", "/usr/sbin/", "/sbin/", "/usr/bin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path
		}
	}
	Missing(t, Peers, name+" is not installed: run scripts/deps")
	return ""
}

// backlogFile is of all network namespaces together, and shown in the first alone.
const backlogFile = "/proc/sys/net/core/netdev_max_backlog"

// RaiseBacklog lets a core hold ten thousand received packets until the test ends. The kernel drops what comes beyond, and its default of a
// thousand, which all virtual interfaces of the machine share, is less than a busy core lets come together: a test that counts packets one by
// one would count what the machine lost.
func RaiseBacklog(t testing.TB) {
	t.Helper()
	const enough = 10_000
	before, err := os.ReadFile(backlogFile)
	if err != nil {
		t.Fatalf("%v", err)
	}
	if n, err := strconv.Atoi(strings.TrimSpace(string(before))); err != nil || n >= enough {
		return
	}
	// Kept open: when the test ends, its thread may be in a namespace that has no such file.
	f, err := os.OpenFile(backlogFile, os.O_WRONLY, 0)
	if err != nil {
		t.Fatalf("%v", err)
	}
	set := func(value []byte) error {
		_, err := f.WriteAt(value, 0)
		return err
	}
	t.Cleanup(func() {
		if err := errors.Join(set(before), f.Close()); err != nil {
			t.Errorf("%v", err)
		}
	})
	if err := set([]byte(strconv.Itoa(enough))); err != nil {
		t.Fatalf("%v", err)
	}
}

// Missing skips or fails the test for a need that the test itself found unmet, such as a file from scripts/deps.
func Missing(t testing.TB, need, why string) {
	t.Helper()
	if slices.Contains(strings.Split(os.Getenv("WEFT_REQUIRE"), ","), need) {
		t.Fatalf("WEFT_REQUIRE names %s: %s", need, why)
	}
	t.Skipf("needs %s: %s", need, why)
}
