package agent

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// wallTable is weft's own nftables table: tunnel packets are accepted as far as one table can, and not tracked.
const wallTable = "weft"

// wallDelay collects changes of the host's firewall before the kernel lane is proved anew.
const wallDelay = 300 * time.Millisecond

// wall is the host's firewall as the kernel lane meets it.
type wall struct{ port uint16 }

// startWall puts the table there, best effort, and watches for changes by others.
func (a *Agent) startWall(ctx context.Context, tasks *sync.WaitGroup) {
	a.wall = &wall{port: a.cfg.UDPPort}
	if err := a.wall.ensure(); err != nil {
		a.log.Warn("no nftables table of its own for the tunnel; the host's firewall must let it in", "err", err)
	}
	events, err := watchWall()
	if err != nil {
		a.log.Warn("changes of the host's firewall are not seen; the kernel lane is proved by time alone", "err", err)
		return
	}
	changed := make(chan struct{}, 1)
	stop := context.AfterFunc(ctx, func() { events.Close() })
	tasks.Go(func() {
		defer stop()
		defer close(changed)
		buf := make([]byte, 1<<16)
		for {
			// ENOBUFS says that there was more than fitted: a change all the same.
			if _, err := events.Read(buf); err != nil && !errors.Is(err, unix.ENOBUFS) {
				return
			}
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	})
	tasks.Go(func() { a.followWall(ctx, changed) })
}

func (a *Agent) followWall(ctx context.Context, changed <-chan struct{}) {
	for {
		if _, ok := <-changed; !ok {
			return
		}
		timer := time.NewTimer(wallDelay)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		select {
		case <-changed: // what came meanwhile is the same change
		default:
		}
		if err := a.wall.ensure(); err != nil {
			a.log.Warn("the tunnel's nftables table could not be put back", "err", err)
		}
		if a.prober != nil {
			a.prober.Hurry()
		}
	}
}

// watchWall is a netlink socket that gets a message for every change of nftables in this namespace.
func watchWall() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "nftables events"), nil
}

// hook is one of weft's own chains: one rule each, "udp dport PORT" and a verdict.
type hook struct {
	name     string
	hook     *nftables.ChainHook
	priority nftables.ChainPriority
	verdict  []expr.Any
}

func hooks() []hook {
	accept := []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}
	return []hook{
		{"prerouting", nftables.ChainHookPrerouting, *nftables.ChainPriorityRaw - 1, []expr.Any{&expr.Notrack{}}},
		{"output", nftables.ChainHookOutput, *nftables.ChainPriorityRaw - 1, []expr.Any{&expr.Notrack{}}},
		{"input", nftables.ChainHookInput, *nftables.ChainPriorityFilter - 1, accept},
	}
}

// ensure makes the table what it should be, in one transaction, and writes nothing when it is.
func (w *wall) ensure() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	if w.right(c) {
		return nil
	}
	table := &nftables.Table{Name: wallTable, Family: nftables.TableFamilyINet}
	c.AddTable(table)
	c.DelTable(table)
	c.AddTable(table)
	for _, h := range hooks() {
		chain := c.AddChain(&nftables.Chain{Name: h.name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: h.hook, Priority: &h.priority})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(w.match(), h.verdict...)})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("write nftables table %s: %w", wallTable, err)
	}
	return nil
}

// match is "meta l4proto udp, udp dport PORT".
func (w *wall) match() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(w.port)},
	}
}

func (w *wall) right(c *nftables.Conn) bool {
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return false
	}
	found := 0
	for _, ch := range chains {
		if ch.Table.Name != wallTable {
			continue
		}
		rules, err := c.GetRules(ch.Table, ch)
		if err != nil || len(rules) != 1 || !w.names(rules[0]) {
			return false
		}
		found++
	}
	return found == len(hooks())
}

// names reports whether a rule compares something with the tunnel's port.
func (w *wall) names(r *nftables.Rule) bool {
	port := binary.BigEndian.AppendUint16(nil, w.port)
	for _, e := range r.Exprs {
		if c, ok := e.(*expr.Cmp); ok && c.Op == expr.CmpOpEq && bytes.Equal(c.Data, port) {
			return true
		}
	}
	return false
}

// suspect names what of the host's firewall looks as if it drops tunnel packets: a rule that names their port, or else
// chains on their way that drop what nothing accepts. Empty: nothing was found, or it cannot be listed.
func (w *wall) suspect() string {
	c, err := nftables.New()
	if err != nil {
		return ""
	}
	chains, err := c.ListChains()
	if err != nil {
		return ""
	}
	var rules, policies []string
	for _, ch := range chains {
		if ch.Table.Name == wallTable && ch.Table.Family == nftables.TableFamilyINet {
			continue
		}
		where := fmt.Sprintf("chain %q of table %s %q", ch.Name, familyWord(ch.Table.Family), ch.Table.Name)
		list, err := c.GetRules(ch.Table, ch)
		if err != nil {
			continue
		}
		accepted := false
		for i, r := range list {
			drops, accepts := verdicts(r)
			if w.names(r) && drops {
				rules = append(rules, fmt.Sprintf("rule %d (handle %d) of %s drops UDP port %d", i+1, r.Handle, where, w.port))
			}
			accepted = accepted || w.names(r) && accepts
		}
		if ch.Policy != nil && *ch.Policy == nftables.ChainPolicyDrop && onTheWay(ch) && !accepted {
			policies = append(policies, fmt.Sprintf("%s drops what it does not accept, and does not accept UDP port %d", where, w.port))
		}
	}
	return strings.Join(slices.Concat(rules, policies), "; ")
}

// onTheWay reports whether received tunnel packets pass a base chain.
func onTheWay(ch *nftables.Chain) bool {
	return ch.Hooknum != nil && (*ch.Hooknum == *nftables.ChainHookInput || *ch.Hooknum == *nftables.ChainHookPrerouting)
}

func verdicts(r *nftables.Rule) (drops, accepts bool) {
	for _, e := range r.Exprs {
		switch v := e.(type) {
		case *expr.Verdict:
			drops = drops || v.Kind == expr.VerdictDrop
			accepts = accepts || v.Kind == expr.VerdictAccept
		case *expr.Reject:
			drops = true
		}
	}
	return drops, accepts
}

func familyWord(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyINet:
		return "inet"
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	case nftables.TableFamilyNetdev:
		return "netdev"
	case nftables.TableFamilyBridge:
		return "bridge"
	}
	return fmt.Sprint(uint8(f))
}
