package netdev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// NamespaceDir is where named network namespaces are bind-mounted, as iproute2 does it.
const NamespaceDir = "/run/netns"

// currentNamespace is the namespace of the calling thread (not of the process).
const currentNamespace = "/proc/thread-self/ns/net"

// CreateNamespace makes an empty network namespace that lasts until DeleteNamespace; `ip netns` sees it. Its loopback
// interface is up. A name that exists is an error (os.ErrExist).
func CreateNamespace(name string) error {
	if err := validName(name); err != nil {
		return err
	}
	if err := shareNamespaceDir(); err != nil {
		return err
	}
	path := NamespacePath(name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return fmt.Errorf("create network namespace %s: %w", name, err)
	}
	f.Close()
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := unix.Mount(currentNamespace, path, "none", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind-mount: %w", err)
		}
		return nil
	})
	if err != nil {
		os.Remove(path)
		return fmt.Errorf("create network namespace %s: %w", name, err)
	}
	h, err := OpenName(name)
	if err == nil {
		err = h.SetUp("lo")
		h.Close()
	}
	if err != nil {
		return errors.Join(err, DeleteNamespace(name))
	}
	return nil
}

// DeleteNamespace removes the name; the namespace goes when its last process, socket and handle are gone. A name that does
// not exist is no error.
func DeleteNamespace(name string) error {
	if err := validName(name); err != nil {
		return err
	}
	path := NamespacePath(name)
	// A killed creator leaves a plain file, on which there is nothing to unmount.
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete network namespace %s: unmount: %w", name, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("delete network namespace %s: %w", name, err)
	}
	return nil
}

// NamespaceExists reports whether the name is there.
func NamespaceExists(name string) bool {
	_, err := os.Lstat(NamespacePath(name))
	return err == nil
}

// Namespaces lists the named network namespaces that start with the prefix, sorted.
func Namespaces(prefix string) ([]string, error) {
	entries, err := os.ReadDir(NamespaceDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list network namespaces: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// NamespacePath is the file of a named namespace. What contains a slash is taken for a path and returned as it is.
func NamespacePath(nameOrPath string) string {
	if strings.Contains(nameOrPath, "/") {
		return nameOrPath
	}
	return filepath.Join(NamespaceDir, nameOrPath)
}

func validName(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > 255 || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%q is not a name for a network namespace: use a plain file name", name)
	}
	return nil
}

// shareNamespaceDir makes the directory a shared mount of its own, so that a namespace deleted here is also let go by
// processes with private mount namespaces (man 8 ip-netns).
func shareNamespaceDir() error {
	if err := os.MkdirAll(NamespaceDir, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", NamespaceDir, err)
	}
	err := unix.Mount("", NamespaceDir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if errors.Is(err, unix.EINVAL) {
		if err = unix.Mount(NamespaceDir, NamespaceDir, "none", unix.MS_BIND|unix.MS_REC, ""); err == nil {
			err = unix.Mount("", NamespaceDir, "none", unix.MS_SHARED|unix.MS_REC, "")
		}
	}
	if err != nil {
		return fmt.Errorf("share %s: %w", NamespaceDir, err)
	}
	return nil
}

// onThread runs f on a thread of its own and brings the thread back to its namespace after. A thread that cannot be
// brought back is ended instead of being given to other goroutines.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := unix.Open(currentNamespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("open own network namespace: %w", err)
			return
		}
		defer unix.Close(home)
		// A panic in f leaves the thread locked, and it ends with the goroutine; so does runtime.Goexit (t.FailNow).
		returned := false
		defer func() {
			if !returned {
				done <- errors.New("the function did not return")
			}
		}()
		err = f()
		returned = true
		if unix.Setns(home, unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}
