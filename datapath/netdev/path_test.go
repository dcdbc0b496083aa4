package netdev

import (
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestOpenPathDoesNotWait turns red when a path that leads to a pipe keeps its opener waiting: what lies at a path may have changed
// since it was given.
func TestOpenPathDoesNotWait(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		h, err := OpenPath(path)
		if err == nil {
			h.Close()
		}
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil {
			t.Error("a pipe was taken for a network namespace")
		}
	case <-time.After(patience):
		if fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK, 0); err == nil { // lets it go
			unix.Close(fd)
		}
		t.Fatalf("it waits for a writer; then: %v", <-done)
	}
}
