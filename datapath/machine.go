package datapath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// kernelFloor is the first kernel with tcx links.
var kernelFloor = [2]int{6, 6}

// CheckKernel is an error on a kernel that is too old. It touches nothing: whoever needs a datapath later asks first.
func CheckKernel() error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fmt.Errorf("read the kernel's version: %w", err)
	}
	return checkRelease(unix.ByteSliceToString(u.Release[:]))
}

func checkRelease(release string) error {
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return fmt.Errorf("kernel release %q is not understood: %w", release, err)
	}
	if major < kernelFloor[0] || major == kernelFloor[0] && minor < kernelFloor[1] {
		return fmt.Errorf("kernel %s is too old: weft needs %d.%d or later (tcx links)", release, kernelFloor[0], kernelFloor[1])
	}
	return nil
}

// defaultBPFFS is where everybody mounts the bpffs.
const defaultBPFFS = "/sys/fs/bpf"

// ensureBPFFS makes the directory on a bpffs, which it mounts at defaultBPFFS if it is not.
func ensureBPFFS(dir string) error {
	if !filepath.IsAbs(dir) {
		return fmt.Errorf("pin root %q is not an absolute path", dir)
	}
	on, err := onBPFFS(dir)
	if err != nil {
		return err
	}
	if !on && strings.HasPrefix(filepath.Clean(dir)+"/", defaultBPFFS+"/") {
		if err := unix.Mount("bpffs", defaultBPFFS, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
			return fmt.Errorf("mount a bpffs at %s: %w", defaultBPFFS, err)
		}
		on, err = onBPFFS(dir)
	}
	if err != nil {
		return err
	}
	if !on {
		return fmt.Errorf("pin root %s is not on a bpffs: choose one under %s", dir, defaultBPFFS)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make pin root: %w", err)
	}
	return nil
}

// onBPFFS asks the nearest ancestor that exists.
func onBPFFS(dir string) (bool, error) {
	for {
		var st unix.Statfs_t
		err := unix.Statfs(dir, &st)
		if err == nil {
			return st.Type == unix.BPF_FS_MAGIC, nil
		}
		if !errors.Is(err, unix.ENOENT) || dir == "/" {
			return false, fmt.Errorf("look at %s: %w", dir, err)
		}
		dir = filepath.Dir(dir)
	}
}
