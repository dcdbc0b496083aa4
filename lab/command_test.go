package lab

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/weftnet/weft/internal/testenv"
)

func TestCommandAfterANodesName(t *testing.T) {
	for _, c := range [][2][]string{
		{{"h1", "--", "ping", "-c", "1"}, {"ping", "-c", "1"}},
		{{"h1", "ping", "-c", "1"}, {"ping", "-c", "1"}},
		{{"h1", "--", "--"}, {"--"}},
		{{"h1", "--"}, {}},
		{{"h1"}, {}},
		{{}, {}},
	} {
		if got := command(c[0]); !slices.Equal(got, c[1]) {
			t.Errorf("%q: %q, want %q", c[0], got, c[1])
		}
	}
}

// Goes red when the command runs in the caller's namespace, or a host's commands do not find its agent.
func TestExecRunsInTheNode(t *testing.T) {
	testenv.Require(t, "root")
	cfg := testConfig(t, Config{Hosts: 1, Spines: 1, Bare: true})
	l, err := Up(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Down(context.Background())
	stopped := errors.New("as execve never returns")
	var where string
	var argv, env []string
	a := &app{dir: cfg.Dir, name: cfg.Name, deps: Deps{Exec: func(_ string, av, ev []string) (err error) {
		where, err = os.Readlink("/proc/thread-self/ns/net")
		argv, env = av, ev
		return errors.Join(err, stopped)
	}}}
	run := func(args ...string) (string, error) {
		var out bytes.Buffer
		cmd := a.commands()
		cmd.SetArgs(args)
		cmd.SetOut(&out)
		cmd.SetErr(&out)
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		err := cmd.ExecuteContext(t.Context())
		return out.String(), err
	}
	if _, err := run("exec", "h1", "--", "true", "-x"); !errors.Is(err, stopped) {
		t.Fatal(err)
	}
	var want string
	if err := node(t, l, "h1").Run(func() (err error) { want, err = os.Readlink("/proc/thread-self/ns/net"); return err }); err != nil {
		t.Fatal(err)
	}
	if where != want || !slices.Equal(argv, []string{"true", "-x"}) {
		t.Errorf("%q ran in %s, want %s", argv, where, want)
	}
	for _, v := range []string{"WEFT_AGENT_SOCKET=" + cfg.Dir + "/h1/agent.sock", "WEFT_SOCKET=" + cfg.Dir + "/server/weft.sock"} {
		if !slices.Contains(env, v) {
			t.Errorf("%s is not in the environment", v)
		}
	}
	t.Setenv("PATH", "/nonexistent")
	if path, err := l.program("weft"); err != nil || path != l.cfg.Binary {
		t.Errorf("weft, outside PATH: %q, %v, want %s", path, err, l.cfg.Binary)
	}
	if _, err := l.program("ping"); err == nil || !strings.Contains(err.Error(), "ping") {
		t.Errorf("no ping: %v", err)
	}
	for _, wrong := range [][]string{{"exec", "h1"}, {"exec", "h7", "true"}, {"exec", "h1", "no-such-program"}, {"workload", "remove", "web1"}, {"workload", "add", "web1"}} {
		if _, err := run(wrong...); err == nil || errors.Is(err, stopped) {
			t.Errorf("%q: %v", wrong, err)
		}
	}
	if out, err := run("status"); err != nil || !strings.Contains(out, cfg.Prefix+"spine1") || !strings.Contains(out, "198.18.1.1") {
		t.Errorf("status: %s, %v", out, err)
	}
}
