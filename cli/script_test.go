package cli_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	localv1connect "github.com/weftnet/weft/api/gen/local/v1/localv1connect"
	weftv1 "github.com/weftnet/weft/api/gen/weft/v1"
	"github.com/weftnet/weft/cli"
	"github.com/weftnet/weft/trust"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"weft": func() {
		deps := cli.Deps{
			Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Version: "1.0", Commit: "abc", RunDir: os.Getenv("RUNDIR"), DevDir: os.Getenv("DEVDIR"),
			Env: cli.Env{Server: os.Getenv("WEFT_SERVER"), Socket: os.Getenv("WEFT_SOCKET"), Token: os.Getenv("WEFT_TOKEN"),
				Tenant: os.Getenv("WEFT_TENANT"), AgentSocket: os.Getenv("WEFT_AGENT_SOCKET"), Home: os.Getenv("HOME")},
		}
		elsewhere := &cobra.Command{Use: "elsewhere NAME", Args: cobra.ExactArgs(1), RunE: func(_ *cobra.Command, args []string) error {
			switch args[0] {
			case "refused":
				return fmt.Errorf("start: %w", &trust.Error{Kind: "conflict", Reason: "the underlay MTU 1400 is too small", Fix: "make it 1500"})
			case "usage":
				return cli.Usagef("mend it", "wrong")
			}
			return fmt.Errorf("it broke")
		}}
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		os.Exit(cli.Run(ctx, deps, []*cobra.Command{elsewhere}, os.Args[1:]))
	}})
}

// TestScripts runs the command tree as a process against a fake server and a fake agent. $SERVER and $AGENT are their sockets; the
// environment names them unless a script says otherwise.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			f := &fake{}
			agent := http.NewServeMux()
			agent.Handle(localv1connect.NewLocalServiceHandler(&fakeAgent{}))
			for name, h := range map[string]http.Handler{"SERVER": f.handler(), "AGENT": agent} {
				path := filepath.Join(env.WorkDir, name)
				stop, err := listen(path, h)
				if err != nil {
					return err
				}
				env.Defer(stop)
				env.Setenv(name, path)
			}
			env.Values[fakeKey{}] = f
			env.Setenv("WEFT_SOCKET", env.Getenv("SERVER"))
			env.Setenv("WEFT_AGENT_SOCKET", env.Getenv("AGENT"))
			env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
			env.Setenv("RUNDIR", filepath.Join(env.WorkDir, "run"))
			env.Setenv("DEVDIR", filepath.Join(env.WorkDir, "dev"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status": status,
			// disturb lets somebody else change network acme/blue before the next update.
			"disturb": func(ts *testscript.TestScript, _ bool, _ []string) {
				f := ts.Value(fakeKey{}).(*fake)
				f.mu.Lock()
				defer f.mu.Unlock()
				f.disturb = func() {
					n := f.networks.by["acme/blue"]
					f.revision++
					n.Meta.Revision = f.revision
					n.Spec.Description = "somebody else's"
				}
			},
			// waitport NAME incoming waits until the port of tenant acme is moving.
			"waitport": func(ts *testscript.TestScript, _ bool, args []string) {
				f := ts.Value(fakeKey{}).(*fake)
				for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
					f.mu.Lock()
					moving := f.ports.by["acme/"+args[0]].GetStatus().GetBinding().GetIncoming() != ""
					f.mu.Unlock()
					if moving {
						return
					}
				}
				ts.Fatalf("port %s did not begin to move", args[0])
			},
			// waitfile NAME waits until a file is there.
			"waitfile": func(ts *testscript.TestScript, _ bool, args []string) {
				for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
					if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
						return
					}
				}
				ts.Fatalf("%s did not appear", args[0])
			},
			// ready HOST MTU lets a host's agent have come, with an uplink of that MTU.
			"ready": func(ts *testscript.TestScript, _ bool, args []string) {
				f := ts.Value(fakeKey{}).(*fake)
				f.mu.Lock()
				defer f.mu.Unlock()
				mtu, err := strconv.ParseUint(args[1], 10, 32)
				ts.Check(err)
				s := f.hosts.by[args[0]].Status
				s.State, s.UplinkMtu, s.VtepAddresses = weftv1.HostState_HOST_STATE_READY, uint32(mtu), []string{"192.0.2.1"}
			},
			// portstate NAME STATE is what the host reports of a port of tenant acme.
			"portstate": func(ts *testscript.TestScript, _ bool, args []string) {
				f := ts.Value(fakeKey{}).(*fake)
				f.mu.Lock()
				defer f.mu.Unlock()
				s := f.ports.by["acme/"+args[0]].Status
				s.State, s.Mtu = weftv1.PortState(weftv1.PortState_value["PORT_STATE_"+strings.ToUpper(args[1])]), 1450
			},
			// report gives port acme/web1 what its host would report.
			"report": func(ts *testscript.TestScript, _ bool, _ []string) {
				f := ts.Value(fakeKey{}).(*fake)
				f.mu.Lock()
				defer f.mu.Unlock()
				s := f.ports.by["acme/web1"].Status
				s.State, s.Interface, s.Mtu = weftv1.PortState_PORT_STATE_ACTIVE, "weft0123456789", 1450
				s.Counters = &weftv1.PortCounters{IngressPackets: 10, IngressOctets: 1000, EgressPackets: 20, EgressOctets: 2000}
				s.Drops = []*weftv1.DropCount{{Reason: "src_mac", Packets: 12}, {Reason: "port_held", Packets: 1}}
			},
		},
	})
}

type fakeKey struct{}

// status N weft ARGS... wants that exit status.
func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N command args...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if err != nil {
		exit, ok := err.(interface{ ExitCode() int })
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("exit status %d, want %s", got, args[0])
	}
}
