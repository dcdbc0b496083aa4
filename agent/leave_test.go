package agent

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// oneWall is a kernel whose nftables has the agent's table and another's of the same name.
type oneWall struct {
	err     error
	deleted []*nftables.Table
}

func (w *oneWall) ListTables() ([]*nftables.Table, error) {
	if w.err != nil {
		return nil, w.err
	}
	return []*nftables.Table{{Name: wallTable, Family: nftables.TableFamilyINet}, {Name: wallTable, Family: nftables.TableFamilyIPv4}}, nil
}

func (w *oneWall) DelTable(t *nftables.Table) { w.deleted = append(w.deleted, t) }
func (w *oneWall) Flush() error               { return nil }

// TestLeaveSaysWhatStays: a table that could not be looked for may be there. Red when removeWall takes every error for a kernel without
// nftables.
func TestLeaveSaysWhatStays(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want string
	}{
		{unix.EPERM, "look for the nftables table weft: operation not permitted"},
		{errors.New("netlink: message truncated"), "message truncated"},
		{fmt.Errorf("netlink: %w", unix.EPROTONOSUPPORT), ""},
		{fmt.Errorf("netlink: %w", unix.EINVAL), ""},
	} {
		err := removeWall(&oneWall{err: tc.err})
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%v: %v, want %q", tc.err, err, tc.want)
		}
	}
	w := &oneWall{}
	if err := removeWall(w); err != nil || len(w.deleted) != 1 || w.deleted[0].Family != nftables.TableFamilyINet {
		t.Errorf("%v, deleted %v", err, w.deleted)
	}
}

// TestLockOfALeftDirectory: Leave takes the lock's file away while it is held, and nobody has the directory together with another all
// the same. Red when lockDir does not look whether the file that it locked is still the one there.
func TestLockOfALeftDirectory(t *testing.T) {
	dir := t.TempDir()
	var holders, times, twice atomic.Int32
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 2000 {
				unlock, err := lockDir(dir)
				if err != nil {
					continue // another has it
				}
				times.Add(1)
				if holders.Add(1) > 1 {
					twice.Add(1)
				}
				runtime.Gosched()
				holders.Add(-1)
				if err := emptyDir(dir); err != nil {
					t.Error(err)
				}
				unlock()
			}
		})
	}
	all.Wait()
	if times.Load() == 0 || twice.Load() > 0 {
		t.Errorf("had %d times, %d of them by two", times.Load(), twice.Load())
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("files stayed: %v %v", files, err)
	}
}
