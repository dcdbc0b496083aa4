package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/weftnet/weft/datapath/netdev"
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

// TestDirOfAKilledAgent: an agent that is started when another has just been killed waits until the kernel has closed what that had; one that runs keeps
// it out, and soon. Break it: try once, or for ever.
func TestDirOfAKilledAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		unlock, err := lockDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		time.AfterFunc(lockPatience/2, unlock)
		second, err := takeDir(t.Context(), dir)
		if took := time.Since(began); err != nil || took < lockPatience/2 || took > lockPatience {
			t.Fatalf("%v after %s", err, took)
		}
		defer second()
		began = time.Now()
		if _, err := takeDir(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "another agent runs") || time.Since(began) > 2*lockPatience {
			t.Errorf("a second agent: %v after %s", err, time.Since(began))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		began = time.Now()
		if _, err := takeDir(ctx, dir); err == nil || time.Since(began) > 0 {
			t.Errorf("interrupted: %v after %s", err, time.Since(began))
		}
	})
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

// TestLeavePutsBackWorkloadsEnds: an interface that stays gets back what the XDP lane changed at its other end; one that was made again under
// its name is left alone, and one that cannot be put back is told with the command. Red when unfitLeft takes every attachment, or none.
func TestLeavePutsBackWorkloadsEnds(t *testing.T) {
	links := newFakeLinks()
	links.fast = func(int) bool { return false }
	dir := t.TempDir()
	atts, err := openAttachments(dir)
	if err != nil {
		t.Fatal(err)
	}
	fit := map[netdev.Feature]bool{netdev.TX: false, netdev.GRO: true}
	for i, name := range []string{"same", "again", "lost"} {
		links.add(name, "veth")
		links.peers[name] = maps.Clone(fit)
		index := uint32(links.links[name].Index)
		if name == "again" {
			index++
		}
		at := attachment{UID: fmt.Sprint(i), Tenant: "acme", Port: name, Kind: kindDevice, Interface: name,
			Fitted: &fitted{Ifindex: index, Was: map[netdev.Feature]bool{netdev.TX: true, netdev.GRO: false}}}
		if err := atts.put(at); err != nil {
			t.Fatal(err)
		}
	}
	delete(links.peers, "lost")
	err = unfitLeft(links, dir)
	if err == nil || !strings.Contains(err.Error(), "port acme/lost") || !strings.Contains(err.Error(), "`ethtool -K IFNAME gro off tx on` there") ||
		strings.Contains(err.Error(), "same") {
		t.Errorf("said %v", err)
	}
	if p := links.peers["same"]; !p[netdev.TX] || p[netdev.GRO] {
		t.Errorf("the end that stays has %v", p)
	}
	if p := links.peers["again"]; !maps.Equal(p, fit) {
		t.Errorf("another interface of the name has %v", p)
	}
}
