package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"path/filepath"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weftnet/weft/agent"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/cli"
	"github.com/weftnet/weft/client"
	"github.com/weftnet/weft/datapath"
	"github.com/weftnet/weft/server"
	"github.com/weftnet/weft/trust"
)

func upCommand() *cobra.Command {
	var sf serverFlags
	var af agentFlags
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run server and agent on this machine, with nothing else to install",
		Long: "Run a server with an embedded etcd, and the agent of this machine, in one process. The agent joins by itself.\n" +
			"Further hosts join with `weft host token create NAME` here and `weft agent --server … --token …` there.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := requireRoot("weft up"); err != nil {
				return err
			}
			sc, err := sf.config()
			if err != nil {
				return err
			}
			af.verbose = sf.verbose
			ac, err := af.config()
			if err != nil {
				return err
			}
			return runUp(cmd.Context(), sc, ac)
		},
	}
	sf.add(cmd, "server-dir", "server-socket")
	af.add(cmd, "agent-dir", "agent-socket")
	return cmd
}

// runUp ends when either part ends. The agent never outlives a server that failed: the unit restarts both, and
// forwarding does not notice.
func runUp(ctx context.Context, sc server.Config, ac agent.Config) error {
	if err := datapath.CheckKernel(); err != nil {
		return err // before a server is made that has no use here
	}
	own, err := ownServer(sc.Listen)
	if err != nil {
		return err
	}
	sc.Names = append(sc.Names, ac.Name) // other hosts know this machine by the name that it has here
	s := server.New(sc)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.Run(ctx) })
	group.Go(func() error {
		select {
		case <-s.Ready():
		case <-ctx.Done():
			return ctx.Err()
		}
		ac.Servers = []string{own}
		if err := tokenForSelf(ctx, sc.Socket, &ac); err != nil {
			return err
		}
		return runAgent(ctx, ac)
	})
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// ownServer is where the agent finds a server that listens there, on the same machine.
func ownServer(listen string) (string, error) {
	host, l4port, err := net.SplitHostPort(listen)
	if err != nil {
		return "", cli.Usagef("write it as :7348 or 192.0.2.1:7348", "--listen %q is not of the form [ADDRESS]:PORT", listen)
	}
	if addr, err := netip.ParseAddr(host); host == "" || err == nil && addr == netip.IPv4Unspecified() {
		host = "127.0.0.1"
	} else if err == nil && addr == netip.IPv6Unspecified() {
		host = "::1"
	}
	return net.JoinHostPort(host, l4port), nil
}

// tokenForSelf makes a join token over the server's socket, unless this host has joined before and its identity is still
// good: it expires while the machine is off for more than a day, and ends when the host is removed.
func tokenForSelf(ctx context.Context, socket string, ac *agent.Config) error {
	id, err := trust.LoadHostIdentity(filepath.Join(ac.Dir, "identity"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	c, cerr := client.New(client.Config{Socket: socket})
	if cerr != nil {
		return cerr
	}
	defer c.Close()
	if err == nil && id.Check(time.Now()) == nil {
		h, err := c.Hosts.GetHost(ctx, connect.NewRequest(&weftv1.GetHostRequest{Name: ac.Name}))
		if err == nil && h.Msg.GetMeta().GetUid() == string(id.UID) {
			return nil
		}
		if err != nil && connect.CodeOf(err) != connect.CodeNotFound {
			return fmt.Errorf("look for this machine among the hosts: %w", err)
		}
	}
	res, err := c.Hosts.CreateHostToken(ctx, connect.NewRequest(&weftv1.CreateHostTokenRequest{Host: ac.Name, Lifetime: durationpb.New(5 * time.Minute)}))
	if err != nil {
		return fmt.Errorf("make a join token for this machine: %w", err)
	}
	ac.Token = res.Msg.Token
	return nil
}
