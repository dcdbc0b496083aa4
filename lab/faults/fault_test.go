package faults

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
)

// fault breaks something for a while, under load, and puts it right again before it returns.
type fault struct {
	name string
	do   func(c *cluster, w *work)
}

// all faults, by class. Of three members at most one is away, but where it says so.
var all = []fault{
	{"server killed", func(c *cluster, _ *work) {
		s := c.anyServer()
		s.kill()
		c.hold(100, 400)
		c.start(s)
	}},
	{"member killed", func(c *cluster, _ *work) {
		m := c.anyMember()
		m.kill()
		c.hold(100, 400)
		c.start(m)
	}},
	{"leader killed", func(c *cluster, _ *work) {
		m := c.leader()
		m.kill()
		c.hold(300, 1500) // an election takes longer than a second
		c.start(m)
	}},
	{"server stopped for a while", func(c *cluster, _ *work) {
		s := c.anyServer()
		s.signal(syscall.SIGSTOP)
		c.hold(100, 800)
		s.signal(syscall.SIGCONT)
	}},
	{"member stopped for a while", func(c *cluster, _ *work) {
		m := c.anyMember()
		m.signal(syscall.SIGSTOP)
		c.hold(100, 800)
		m.signal(syscall.SIGCONT)
	}},
	{"server cut off from the store", func(c *cluster, _ *work) {
		join := c.cut([]string{c.anyServer().name}, []string{"e0", "e1", "e2"})
		c.hold(200, 1000)
		join()
	}},
	{"server cut off from one member", func(c *cluster, _ *work) {
		join := c.cut([]string{c.anyServer().name}, []string{c.anyMember().name})
		c.hold(200, 1000)
		join()
	}},
	{"servers cut off from each other", func(c *cluster, _ *work) {
		s := c.anyServer()
		var rest []string
		for _, o := range c.servers {
			if o != s {
				rest = append(rest, o.name)
			}
		}
		join := c.cut([]string{s.name}, rest)
		c.hold(200, 800)
		join()
	}},
	{"member cut off from the others", func(c *cluster, _ *work) {
		m := c.anyMember()
		join := c.cut([]string{m.name}, c.others(m))
		c.hold(200, 1000)
		join()
	}},
	{"leader cut off from the others, not from servers", func(c *cluster, _ *work) {
		m := c.leader()
		join := c.cut([]string{m.name}, c.others(m))
		c.hold(500, 2000)
		join()
	}},
	{"no quorum", func(c *cluster, _ *work) {
		a, b := c.members[0], c.members[1]
		a.signal(syscall.SIGSTOP)
		b.signal(syscall.SIGSTOP)
		c.hold(200, 1200)
		a.signal(syscall.SIGCONT)
		b.signal(syscall.SIGCONT)
	}},
	{"compaction under a sleeping watcher", func(c *cluster, _ *work) {
		s := c.anyServer()
		s.signal(syscall.SIGSTOP)
		c.hold(100, 300)
		ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Second)
		defer cancel()
		if res, err := c.etcd.Get(ctx, "/weft/meta"); err == nil {
			_, _ = c.etcd.Compact(ctx, res.Header.Revision, clientv3.WithCompactPhysical())
		}
		s.signal(syscall.SIGCONT)
	}},
	{"quota alarm", func(c *cluster, _ *work) {
		alarm := func(do etcdserverpb.AlarmRequest_AlarmAction) {
			c.eventually("the alarm is set", func() error {
				ctx, cancel := context.WithTimeout(c.t.Context(), 3*time.Second)
				defer cancel()
				_, err := etcdserverpb.NewMaintenanceClient(c.etcd.ActiveConnection()).Alarm(ctx,
					&etcdserverpb.AlarmRequest{Action: do, MemberID: 1, Alarm: etcdserverpb.AlarmType_NOSPACE})
				return err
			})
		}
		alarm(etcdserverpb.AlarmRequest_ACTIVATE)
		c.hold(100, 300)
		alarm(etcdserverpb.AlarmRequest_DEACTIVATE)
	}},
	{"a member's disk full", func(c *cluster, _ *work) {
		filler := filepath.Join(c.dir, "e2", "filler")
		fill(filler)
		c.hold(200, 600)
		must(c.t, os.Remove(filler))
		c.restart(c.members[2]) // it may have ended by itself
	}},
	{"all servers killed", func(c *cluster, _ *work) {
		for _, s := range c.servers {
			s.kill()
		}
		for _, s := range c.servers {
			c.start(s)
		}
		for _, s := range c.servers {
			c.answers(s)
		}
	}},
	{"backup restored", func(c *cluster, w *work) {
		c.ready()
		w.paused.Lock() // what is written after a backup is gone with its restore: that is what a restore is for
		defer w.paused.Unlock()
		root := c.root(c.anyServer())
		defer root.Close()
		var file bytes.Buffer
		c.eventually("a backup is made", func() error { // a member that was killed before may be on its way back still
			file.Reset()
			_, err := root.Backup(c.t.Context(), &file)
			return err
		})
		c.eventually("the backup is restored", func() error {
			_, err := root.Restore(c.t.Context(), bytes.NewReader(file.Bytes()))
			return err
		})
	}},
}

// ready waits until every server answers.
func (c *cluster) ready() {
	for _, s := range c.servers {
		c.answers(s)
	}
}

func (c *cluster) anyServer() *process { return c.servers[c.rand.IntN(len(c.servers))] }
func (c *cluster) anyMember() *process { return c.members[c.rand.IntN(len(c.members))] }

// hold keeps a fault up for some milliseconds.
func (c *cluster) hold(least, most int) {
	time.Sleep(time.Duration(least+c.rand.IntN(most-least)) * time.Millisecond)
}

// others are the members but one.
func (c *cluster) others(m *process) (names []string) {
	for _, o := range c.members {
		if o != m {
			names = append(names, o.name)
		}
	}
	return names
}

// leader is the member that leads now.
func (c *cluster) leader() *process {
	var is *process
	c.eventually("there is a leader", func() error {
		ctx, cancel := context.WithTimeout(c.t.Context(), 2*time.Second)
		defer cancel()
		for i, ep := range c.etcd.Endpoints() {
			if st, err := c.etcd.Status(ctx, ep); err == nil && st.Leader != 0 && st.Leader == st.Header.MemberId {
				is = c.members[i]
				return nil
			}
		}
		return fmt.Errorf("no member says that it leads")
	})
	return is
}

// fill writes until there is no room.
func fill(path string) {
	f, err := os.Create(path)
	if err != nil {
		return
	}
	defer f.Close()
	for b := make([]byte, 1<<20); len(b) > 0; {
		if _, err := f.Write(b); err != nil {
			b = b[:len(b)/2]
		}
	}
}

// setUp makes what the work is done in.
func (c *cluster) setUp() {
	root := c.root(c.servers[0])
	_, err := root.Tenants.CreateTenant(c.t.Context(), connect.NewRequest(&weftv1.CreateTenantRequest{Name: tenant}))
	must(c.t, err)
	_, err = root.Networks.CreateNetwork(c.t.Context(), connect.NewRequest(&weftv1.CreateNetworkRequest{Tenant: tenant, Name: network}))
	must(c.t, err)
}
